"""A backend without a server: resources are what Terraform's state says, names are taken once.

With a file (FAKE_AWS_STORE) the resources outlive the run, so a change in the file is drift.  With a folder
(FAKE_AWS_BUCKETS) a function in bucket B and key K is the file B/K in it; without, it is what its hash says.
"""

import json
import os
import pathlib
import threading

from identity import GLOBAL, NAME_OF, computed
from plan import settle
from rules import RULES


class MemoryBackend:
    def __init__(self, store_path=None):
        self.path = pathlib.Path(store_path) if store_path else None
        self.resources = {}
        self._lock = threading.Lock()  # Terraform applies ten things at once.
        if self.path and self.path.exists():
            self.resources = json.loads(self.path.read_text())

    def create(self, type_name, block, planned, context):
        known = computed(type_name, _named(block, planned, context), context)
        state = _loaded(settle(type_name, block, planned, known, context), known)
        with self._lock:
            if type_name in NAME_OF:
                taken = _taken(type_name, state)
                for other_key, other in self.resources.items():
                    if other_key.startswith(type_name + "|") and _taken(type_name, other) == taken:
                        raise ValueError(f"{type_name} {taken}: already exists")
            self.resources[_key(type_name, state)] = state
            self._save()
        return state

    def read(self, type_name, block, state, context):
        if self.path is None and _key(type_name, state) not in self.resources:
            return state  # Made by another run, of which only the state is left.
        return self.resources.get(_key(type_name, state))

    def update(self, type_name, block, prior, planned, config, context):
        known = computed(type_name, _named(block, planned, context), context)
        if type_name == "aws_lambda_function" and planned.get("publish") and not isinstance(planned.get("version"), str):
            known["version"] = str(int(prior["version"] if prior["version"].isdigit() else 0) + 1)
            for name in ("qualified_arn", "qualified_invoke_arn"):
                known[name] = prior[name].replace(f"function:{prior['function_name']}:{prior['version']}", f"function:{prior['function_name']}:{known['version']}")
        state = _loaded(settle(type_name, block, planned, known, context), known)
        for name in RULES.get(type_name, {}).get("not_cleared", []):
            state[name] = state[name] or prior[name]
        with self._lock:
            self.resources[_key(type_name, state)] = state
            self._save()
        return state

    def delete(self, type_name, block, prior, context):
        if type_name == "aws_dynamodb_table" and prior.get("deletion_protection_enabled"):
            raise ValueError(f"{prior['name']}: resource cannot be deleted as it is currently protected against deletion")
        if type_name == "aws_cloudwatch_metric_alarm":
            for other_key, other in self.resources.items():
                if other_key.startswith("aws_cloudwatch_composite_alarm|") and f'("{prior["alarm_name"]}")' in other["alarm_rule"]:
                    raise ValueError(f"Cannot delete {prior['alarm_name']} as there are composite alarm(s) depending on it: {other['alarm_name']}")
        with self._lock:
            self.resources.pop(_key(type_name, prior), None)
            self._save()

    def data_source(self, type_name, config, context):
        return None

    def import_state(self, type_name, block, identifier, context):
        found = [state for key, state in self.resources.items() if key.startswith(type_name + "|") and state.get("id") == identifier]
        if not found:
            raise ValueError(f"{type_name} {identifier}: not found")
        return found[0]

    def _save(self):
        if self.path:
            partial = self.path.with_suffix(".partial")
            partial.write_text(json.dumps(self.resources, indent=1, sort_keys=True))
            os.replace(partial, self.path)


def _named(block, planned, context):
    """A name that Terraform makes up must exist before the ids that are made of it."""
    if "name" in block.attributes and not isinstance(planned.get("name"), str):
        planned["name"] = f"{planned.get('name_prefix') if isinstance(planned.get('name_prefix'), str) else 'terraform-'}{context.new_id()}"
    return {name: value if _plain(value) else None for name, value in planned.items()}


def _loaded(state, known):
    """A function's code is what Lambda found in the bucket, whatever was planned."""
    return {**state, "code_sha256": known["code_sha256"]} if "code_sha256" in known else state


def _plain(value):
    return isinstance(value, (str, int, float, bool, dict, list))


def _key(type_name, state):
    region = "" if type_name in GLOBAL else state.get("region") or ""
    return f"{type_name}|{region}|{state.get('id') or state.get('arn')}"


def _taken(type_name, state):
    region = "" if type_name in GLOBAL else state.get("region") or ""
    return (region, *(state.get(name) or "" for name in NAME_OF[type_name]))
