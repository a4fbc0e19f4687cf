"""A backend that makes the resources on a MiniStack server with boto3.

What it cannot do is an error that names it: no type, argument or update is passed over in silence.
The types are in ministack_types.py.
"""

import copy
import threading

import boto3
from botocore.config import Config

from identity import computed
from ministack_types import HANDLERS
from plan import changed_attributes, equal_json, is_off, settle
from rules import RULES
from values import UNKNOWN, canonical, conform

# One attempt: a server on this machine that refuses is broken. It may be busy with what five others ask it at once.
_CONFIG = Config(retries={"total_max_attempts": 1}, connect_timeout=60, read_timeout=60)


class MiniStackBackend:
    def __init__(self, endpoint_url):
        self.endpoint_url = endpoint_url
        self._clients = {}
        self._lock = threading.Lock()
        self.account = self.client("sts", "us-east-1").get_caller_identity()["Account"]

    def client(self, service, region):
        with self._lock:
            if (service, region) not in self._clients:
                self._clients[service, region] = boto3.client(
                    service, region_name=region, endpoint_url=self.endpoint_url, config=_CONFIG,
                    # MiniStack's root: what Terraform does is not under test, what the functions do is.
                    aws_access_key_id="test", aws_secret_access_key="test",
                )
            return self._clients[service, region]

    def create(self, type_name, block, planned, context):
        handler = self._handler(type_name)
        values = copy.deepcopy(planned)
        if values.get("name") is UNKNOWN:
            prefix = values.get("name_prefix")
            values["name"] = f"{prefix if isinstance(prefix, str) else 'terraform-'}{context.new_id()}"
        wanted = {name: None if value is UNKNOWN else value for name, value in values.items()}
        self._refuse_unsupported(type_name, block, handler, wanted)
        api = Api(self, wanted, context)
        made = handler.create(api, wanted) or {}
        known = {**computed(type_name, wanted, context), **made}
        state = settle(type_name, block, values, known, context)
        return self._verified(handler, api, type_name, block, state, made, planned)

    def _verified(self, handler, api, type_name, block, state, made, planned):
        """The state as the server has it.  If that is not what was planned, the error carries the
        state, so that Terraform knows of what now exists."""
        try:
            seen = handler.read(api, state)
            if seen is None:
                raise RuntimeError(f"{type_name} {state.get('id')}: not found right after it was made")
            return _overlay(type_name, block, state, {**seen, **made}, planned)
        except Exception as error:
            error.state = state
            raise

    def read(self, type_name, block, state, context):
        seen = self._handler(type_name).read(Api(self, state, context), state)
        if seen is None:
            return None
        return _overlay(type_name, block, state, seen)

    def update(self, type_name, block, prior, planned, config, context):
        handler = self._handler(type_name)
        changed = changed_attributes(block, prior, planned)
        # An unknown is computed by the update, it is not asked for.
        changed = {name for name in changed if planned.get(name) is not UNKNOWN}
        wanted = {name: prior.get(name) if value is UNKNOWN else value for name, value in planned.items()}
        self._refuse_unsupported(type_name, block, handler, wanted)
        # `tags` alone never changes anything: what AWS has is tags_all.
        cannot = changed - handler.updates - {"tags", "tags_all"} - handler.local
        if cannot:
            raise NotImplementedError(f"the fake provider cannot update {sorted(cannot)} of {type_name} {prior.get('id')} on MiniStack")
        api = Api(self, wanted, context)
        made = {}
        if changed & handler.updates:
            made = handler.update(api, prior, wanted, changed) or {}
        if "tags_all" in changed:
            handler.tag(api, prior, wanted)
        state = settle(type_name, block, planned, {**{n: v for n, v in prior.items() if v is not None}, **made}, context)
        return self._verified(handler, api, type_name, block, state, made, planned)

    def delete(self, type_name, block, prior, context):
        self._handler(type_name).delete(Api(self, prior, context), prior)

    def data_source(self, type_name, config, context):
        if type_name == "aws_kms_key":
            found = self.client("kms", config.get("region") or context.region).describe_key(KeyId=config["key_id"])["KeyMetadata"]
            return {
                "id": found["KeyId"], "arn": found["Arn"], "enabled": found["Enabled"], "key_state": found["KeyState"],
                "key_manager": found["KeyManager"], "key_usage": found["KeyUsage"], "key_spec": found.get("KeySpec"),
                "aws_account_id": found["AWSAccountId"], "multi_region": found.get("MultiRegion", False),
            }
        if type_name == "aws_kms_alias":
            region = config.get("region") or context.region
            for alias in self.client("kms", region).list_aliases()["Aliases"]:
                if alias["AliasName"] == config["name"]:
                    key = self.client("kms", region).describe_key(KeyId=alias["TargetKeyId"])["KeyMetadata"]
                    return {"id": alias["AliasArn"], "arn": alias["AliasArn"], "target_key_id": key["KeyId"], "target_key_arn": key["Arn"]}
            raise ValueError(f"no KMS alias {config['name']}")
        return None

    def import_state(self, type_name, block, identifier, context):
        handler = self._handler(type_name)
        state = conform({"id": identifier, "region": context.region, **handler.identify(identifier)}, block.kind)
        seen = handler.read(Api(self, state, context), state)
        if seen is None:
            raise ValueError(f"{type_name} {identifier}: not found")
        return _overlay(type_name, block, state, seen)

    def _handler(self, type_name):
        if type_name not in HANDLERS:
            raise NotImplementedError(f"the fake provider cannot make {type_name} on MiniStack")
        return HANDLERS[type_name]

    def _refuse_unsupported(self, type_name, block, handler, wanted):
        """Arguments that are set and that the handler would not send anywhere."""
        defaults = RULES.get(type_name, {}).get("defaults", {})
        for name in [*block.attributes, *block.blocks]:
            value = wanted.get(name)
            if value in (None, [], {}, "") or name in handler.sends or name in ("id", "region", "tags", "tags_all", "name_prefix", "timeouts"):
                continue
            attribute = block.attributes.get(name, {})
            if attribute.get("computed") or value == defaults.get(name):
                continue
            raise NotImplementedError(f"the fake provider does not send {name} of {type_name} to MiniStack")


class Api:
    """What a handler needs: clients for the resource's region, tags, the account."""

    def __init__(self, backend, values, context):
        self._backend = backend
        self.region = values.get("region") or context.region
        self.account = context.account
        self.context = context

    def client(self, service):
        return self._backend.client(service, self.region)


def _overlay(type_name, block, state, seen, planned=None):
    """The state with what the server says.  Equal JSON keeps our text; an attribute that is null in
    the state and empty on the server stays null."""
    result = dict(state)
    for name, value in seen.items():
        kind = block.attributes[name]["type"] if name in block.attributes else block.blocks[name].kind
        value = conform(value, kind)
        old = state.get(name)
        if isinstance(value, str) and isinstance(old, str) and name in RULES.get(type_name, {}).get("json", []) and equal_json(value, old):
            continue
        if old is None and value in ("", 0, False, [], {}):
            continue
        if planned is not None and not block.attributes.get(name, {}).get("computed"):
            # The promise that Terraform holds providers to: what was planned is what is made.
            kept = name in RULES.get(type_name, {}).get("not_cleared", []) and planned.get(name) is None
            off = name in RULES.get(type_name, {}).get("off_blocks", []) and is_off(planned.get(name)) and is_off(value)
            if not kept and not off and not _as_planned(planned.get(name), value):
                raise RuntimeError(f"{type_name}.{name}: planned {planned[name]!r}, MiniStack made {value!r}")
        result[name] = value
    return result


def _as_planned(planned, made):
    """Equal, where an unknown may have become anything."""
    if planned is UNKNOWN:
        return True
    if isinstance(planned, list) and isinstance(made, list):
        return len(planned) == len(made) and all(any(_as_planned(p, m) for m in made) for p in planned)
    if isinstance(planned, dict) and isinstance(made, dict):
        return all(_as_planned(planned.get(name), made.get(name)) for name in {*planned, *made})
    return canonical(planned) == canonical(made)
