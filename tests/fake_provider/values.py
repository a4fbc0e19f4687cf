"""Terraform's values on the wire (msgpack) and in our hands (plain Python).

null is None, an unknown is UNKNOWN, a number is int or float, a list is a list, a set is a list in
one canonical order (so that == compares sets as sets), a map and an object are dicts.
"""

import json

import msgpack


class Unknown:
    def __deepcopy__(self, memo):
        return self  # There is one unknown: code compares with `is`.

    def __repr__(self):
        return "UNKNOWN"


UNKNOWN = Unknown()

# go-cty: extension 0 is an unknown, 12 an unknown with refinements ("not null", "prefix is ...").
_EXT_UNKNOWN = 0
_EXT_REFINED_UNKNOWN = 12


def _ext_hook(code, data):
    if code in (_EXT_UNKNOWN, _EXT_REFINED_UNKNOWN):
        return UNKNOWN
    raise ValueError(f"msgpack extension {code}")


def _default(value):
    if value is UNKNOWN:
        return msgpack.ExtType(_EXT_UNKNOWN, b"\x00")
    raise TypeError(f"cannot encode {type(value)}")


def decode(dynamic_value, kind):
    """A DynamicValue message as a Python value of the type `kind`."""
    if dynamic_value.msgpack:
        raw = msgpack.unpackb(dynamic_value.msgpack, ext_hook=_ext_hook, strict_map_key=False)
    elif dynamic_value.json:
        raw = json.loads(dynamic_value.json)
    else:
        return None
    return conform(raw, kind)


def encode(value, kind):
    """The msgpack bytes of a value; it is made to conform to the type first."""
    return msgpack.packb(conform(value, kind), default=_default)


def conform(value, kind):
    """The value in the shape of the type: absent members become null, sets become sorted, unknown
    members are dropped (a newer state read by an older schema)."""
    if value is None or value is UNKNOWN:
        return value
    if isinstance(kind, str):
        if kind == "number":
            return _number(value)
        if kind == "bool":
            if isinstance(value, bool):
                return value
            raise TypeError(f"not a bool: {value!r}")
        if isinstance(value, str):
            return value
        raise TypeError(f"not a string: {value!r}")
    constructor, inner = kind
    if constructor == "object":
        return {name: conform(value.get(name), inner[name]) for name in inner}
    if constructor == "map":
        return {key: conform(item, inner) for key, item in sorted(value.items())}
    items = [conform(item, inner) for item in value]
    if constructor == "list":
        return items
    return sorted(_distinct(items), key=canonical)


def canonical(value):
    """A string that is equal for equal values; unknowns sort last."""
    return json.dumps(value, sort_keys=True, default=lambda _: "\uffffunknown")


def _distinct(items):
    seen = {}
    for item in items:
        # Two unknowns may become two values: they are never the same element.
        seen.setdefault(id(item) if has_unknown(item) else canonical(item), item)
    return seen.values()


def _number(value):
    if isinstance(value, bool):
        raise TypeError("not a number: a bool")
    if isinstance(value, (str, bytes)):
        # go-cty sends a number as text when neither an int64 nor a float64 holds it exactly.
        value = float(value)
    if isinstance(value, float) and value.is_integer() and abs(value) < 2**53:
        return int(value)
    return value


def has_unknown(value):
    if value is UNKNOWN:
        return True
    if isinstance(value, dict):
        return any(has_unknown(item) for item in value.values())
    if isinstance(value, list):
        return any(has_unknown(item) for item in value)
    return False
