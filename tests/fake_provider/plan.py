"""What the provider plans: defaults, unknowns, replacements; as the provider's SDK does it."""

import copy
import json

from identity import partition
from rules import RULES
from values import UNKNOWN, canonical, has_unknown


def plan(type_name, block, prior, proposed, config, context):
    """Returns (planned state, names of the attributes that require replacement)."""
    if proposed is None:
        return None, []
    rule = RULES.get(type_name, {})
    planned = copy.deepcopy(proposed)
    _fill(block, planned, prior, config, rule, "")
    _keep_blocks(block, planned, prior, config, rule)
    _region_and_tags(type_name, block, planned, prior, config, context)
    for name in rule.get("json", []):
        _keep_equal_json(planned, prior, name)
    if prior is None:
        _name_from_prefix(block, planned, config)
        return planned, []

    changed = changed_attributes(block, prior, planned)
    replace = [name for name in [*rule.get("replace", []), "region"] if name in changed]
    for computed, causes in rule.get("new_if", {}).items():
        if any(cause in changed for cause in causes) and config.get(computed) is None:
            planned[computed] = UNKNOWN
    if planned.get("publish") and changed & set(rule.get("new_version_if_published", [])):
        for computed in ("version", "qualified_arn", "qualified_invoke_arn"):
            planned[computed] = UNKNOWN
    return planned, replace


def _keep_blocks(block, planned, prior, config, rule):
    """What Terraform does by itself for an attribute that is optional and computed, it leaves to the provider for a block:
    one that is left out keeps what it was."""
    for path in rule.get("kept_blocks", []):
        _keep_block(block, planned, prior, config, path)
    for name in rule.get("off_blocks", []):
        if prior is not None and is_off(prior.get(name)) and is_off(planned.get(name)):
            planned[name] = copy.deepcopy(prior.get(name))


def _keep_block(block, planned, prior, config, path):
    name, _, inner = path.partition(".")
    if not prior:
        return
    if not inner:
        if not config.get(name):
            planned[name] = copy.deepcopy(prior.get(name))
        return
    nested = block.blocks[name]
    old, written = _blocks(prior, name), _blocks(config, name)
    for index, item in enumerate(_blocks(planned, name)):
        if item is UNKNOWN:
            continue
        wanted = _of(nested, index, item, written)
        before = _of(nested, index, wanted, old, prior=True) if wanted else None
        if before:
            _keep_block(nested.block, item, before, wanted, inner)


def _blocks(values, name):
    """The blocks of a name, however they are nested."""
    found = (values or {}).get(name)
    return found if isinstance(found, list) else [found] if found else []


def _of(nested, index, item, candidates, prior=False):
    """The one among the candidates that is the same block. Those of a set have no index: what was written says which it is."""
    if nested.mode != "set":
        return candidates[index] if index < len(candidates) else None
    pairs = ((candidate, (item, candidate) if prior else (candidate, item)) for candidate in candidates if isinstance(candidate, dict))
    return next((candidate for candidate, (written, other) in pairs if _is_written_as(other, written)), None)


def _is_written_as(item, written):
    return all(value in (None, []) or canonical(item.get(name)) == canonical(value) for name, value in written.items())


def is_off(blocks):
    """A block that AWS describes in the same way as none: it may be there once, and is not enabled."""
    return not blocks or (isinstance(blocks, list) and blocks[0] is not UNKNOWN and blocks[0].get("enabled") is False)


def changed_attributes(block, prior, planned):
    """Names of the attributes and blocks that differ; a computed one that is unknown counts too."""
    return {
        name
        for name in [*block.attributes, *block.blocks]
        if canonical(prior.get(name)) != canonical(planned.get(name))
    }


def _fill(block, planned, prior, config, rule, path):
    for name, attribute in block.attributes.items():
        if attribute.get("write_only"):
            planned[name] = None  # Never in a plan or in the state.
            continue
        configured = (config or {}).get(name)
        if configured is not None:
            continue
        default = rule.get("defaults", {}).get(path + name)
        if default is not None and attribute.get("optional"):
            planned[name] = default
        elif attribute.get("computed") and prior is None and planned.get(name) is None:
            # An element of a set has no prior of its own, but Terraform carried its value over.
            planned[name] = UNKNOWN
    for name, nested in block.blocks.items():
        value = planned.get(name)
        if value is None or value is UNKNOWN:
            continue
        old, written = _blocks(prior, name), _blocks(config, name)
        for index, item in enumerate(_blocks(planned, name)):
            if item is UNKNOWN:
                continue
            wanted = _of(nested, index, item, written)
            before = _of(nested, index, wanted, old, prior=True) if wanted else None
            _fill(nested.block, item, before, wanted, rule, f"{path}{name}.")


def _region_and_tags(type_name, block, planned, prior, config, context):
    if "region" in block.attributes and block.attributes["region"].get("computed") and config.get("region") is None:
        planned["region"] = context.region
    if "tags_all" not in block.attributes:
        return
    tags = planned.get("tags")
    if has_unknown(tags):
        planned["tags_all"] = UNKNOWN
    else:
        planned["tags_all"] = {**context.default_tags, **(tags or {})}


def _keep_equal_json(planned, prior, name):
    """An argument that is the same JSON in other words is no change."""
    new, old = planned.get(name), (prior or {}).get(name)
    if isinstance(new, str) and isinstance(old, str) and equal_json(new, old):
        planned[name] = old


def equal_json(one, other):
    try:
        return normal_policy(json.loads(one)) == normal_policy(json.loads(other))
    except ValueError:
        return one == other


def normal_policy(value):
    """IAM reads a list of one string as the string, and lists of strings as sets."""
    if isinstance(value, dict):
        return {key: normal_policy(item) for key, item in value.items()}
    if isinstance(value, list):
        items = [normal_policy(item) for item in value]
        if items and all(isinstance(item, str) for item in items):
            return items[0] if len(set(items)) == 1 else sorted(set(items))
        return items
    return value


def _name_from_prefix(block, planned, config):
    """`name` follows `name_prefix` or is made up; in both cases it is known only after the apply."""
    if planned.get("name") is UNKNOWN and "name_prefix" not in block.attributes:
        return
    name = planned.get("name")
    if isinstance(name, str) and planned.get("name_prefix") is UNKNOWN:
        # The SDK's name_prefix is what is left of the name after a generated suffix: none here.
        planned["name_prefix"] = ""


def settle(type_name, block, planned, known, context):
    """The state after an apply: each unknown gets the backend's value, or the zero of its type, which
    is what the SDK writes for a computed attribute that the API does not return."""
    state = copy.deepcopy(planned)
    for name, attribute in block.attributes.items():
        if state.get(name) is UNKNOWN:
            state[name] = known[name] if name in known else _zero(attribute["type"], name, state, context)
    for name in block.blocks:
        state[name] = _settle_nested(block.blocks[name].block, state.get(name))
    for name in RULES.get(type_name, {}).get("off_blocks", []):
        if is_off(state.get(name)):
            state[name] = []
    return state


def _settle_nested(block, value):
    if isinstance(value, list):
        return [_settle_nested(block, item) for item in value]
    if not isinstance(value, dict):
        return value
    for name, attribute in block.attributes.items():
        if value.get(name) is UNKNOWN:
            value[name] = _zero(attribute["type"], name, value, None)
    for name, nested in block.blocks.items():
        value[name] = _settle_nested(nested.block, value.get(name))
    return value


def _zero(kind, name, state, context):
    if name == "name" and context is not None:
        return f"{state.get('name_prefix') or 'terraform-'}{context.new_id()}"
    if isinstance(kind, list):
        return {} if kind[0] == "map" else []
    return {"string": "", "number": 0, "bool": False}[kind]


__all__ = ["changed_attributes", "equal_json", "is_off", "normal_policy", "partition", "plan", "settle"]
