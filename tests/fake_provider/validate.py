"""Refuses what the provider's own validators refuse (Terraform checks the schema itself)."""

import json
import re

from rules import RULES
from values import UNKNOWN


def validate(type_name, block, config):
    """A list of (path, message); unknown values are checked once they are known."""
    rule = RULES.get(type_name, {})
    problems = list(_computed_only(block, config, ""))

    for path, allowed in rule.get("enum", {}).items():
        for value in _at(config, path):
            for item in value if isinstance(value, list) else [value]:
                if item is not UNKNOWN and item not in allowed:
                    problems.append((path, f"expected {path} to be one of {allowed}, got {item}"))
    for path, (least, greatest) in rule.get("ranges", {}).items():
        for value in _at(config, path):
            if value is not UNKNOWN and (value < least or (greatest is not None and value > greatest)):
                problems.append((path, f"expected {path} to be in the range ({least} - {greatest if greatest is not None else 'no limit'}), got {value}"))
    for path, (least, greatest) in rule.get("lengths", {}).items():
        for value in _at(config, path):
            if value is not UNKNOWN and not least <= len(value) <= greatest:
                problems.append((path, f"expected length of {path} to be in the range ({least} - {greatest}), got {len(value)}"))
    for path, pattern in rule.get("pattern", {}).items():
        for value in _at(config, path):
            if value is not UNKNOWN and not re.fullmatch(pattern, value):
                problems.append((path, f"invalid value for {path} ({value!r}): must match {pattern}"))
    for path in rule.get("periods", []):
        for value in _at(config, path):
            # A metric query may be finer than an alarm on one metric.
            fine = (1, 5, 10, 20, 30) if "." in path else (10, 20, 30)
            if value is not UNKNOWN and value not in fine and (value <= 0 or value % 60):
                problems.append((path, f"expected {path} to be one of {fine} or a multiple of 60, got {value}"))
    for path, greatest in rule.get("most", {}).items():
        for value in _at(config, path):
            if value is not UNKNOWN and len(value) > greatest:
                problems.append((path, f"{path}: at most {greatest} elements, got {len(value)}"))
    for path in rule.get("json", []):
        for value in _at(config, path):
            if value is UNKNOWN:
                continue
            try:
                json.loads(value)
            except ValueError as error:
                problems.append((path, f"{path!r} contains an invalid JSON: {error}"))
    # As the SDK does it: an unknown value may turn out to be null, so it neither conflicts nor counts.
    for group in rule.get("conflicts", []):
        present = [name for name in group if _is_set(config, name) and config[name] is not UNKNOWN]
        if len(present) > 1:
            problems.append((present[0], f"{present[0]!r}: conflicts with {present[1]}"))
    for group in rule.get("one_of", []):
        present = [name for name in group if _is_set(config, name) and config[name] is not UNKNOWN]
        unknown = any(config.get(name) is UNKNOWN for name in group)
        if len(present) > 1 or (not present and not unknown):
            problems.append((group[0], f"{group[0]!r}: one of `{','.join(group)}` must be specified (exactly one), found {present}"))
    for group in rule.get("at_least_one", []):
        if not any(_is_set(config, name) for name in group):
            problems.append((group[0], f"{group[0]!r}: at least one of `{','.join(group)}` must be specified"))
    problems.extend(_special(type_name, rule, config))
    return problems


def _computed_only(block, config, path):
    """Terraform leaves it to the provider to refuse a value for what only AWS decides."""
    for name, attribute in block.attributes.items():
        if config.get(name) is not None and attribute.get("computed") and not attribute.get("optional"):
            yield path + name, f'Can\'t configure a value for "{path}{name}": its value will be decided automatically based on the result of applying this configuration.'
    for name, nested in block.blocks.items():
        value = config.get(name)
        for item in value if isinstance(value, list) else [value]:
            if isinstance(item, dict):
                yield from _computed_only(nested.block, item, f"{path}{name}.")


def _special(type_name, rule, config):
    if rule.get("sqs_batch"):
        batch, window = config.get("batch_size"), config.get("maximum_batching_window_in_seconds")
        if UNKNOWN not in (batch, window) and (batch or 10) > 10 and (window or 0) < 1:
            yield "batch_size", "a batch_size above 10 needs maximum_batching_window_in_seconds of at least 1"
    if type_name == "aws_dynamodb_table":
        yield from _table(config)
    if type_name == "aws_cloudwatch_metric_alarm":
        if _is_set(config, "metric_name") and not _is_set(config, "statistic") and not _is_set(config, "extended_statistic"):
            yield "metric_name", "One of `statistic` or `extended_statistic` must be set for a cloudwatch metric alarm"
        queries = config.get("metric_query")
        for query in queries if isinstance(queries, list) else []:
            if query is not UNKNOWN and query.get("expression") and query.get("metric"):
                yield "metric_query", "No metric_query may have both `expression` and a `metric` specified"
    if type_name == "aws_lambda_function" and config.get("package_type") in (None, "Zip"):
        for name in ("handler", "runtime"):
            if not _is_set(config, name):
                yield name, f"{name} must be set when PackageType is Zip"


def _table(config):
    """Each declared attribute must be a key of the table or of an index, and each key declared."""
    declared = config.get("attribute")
    if not isinstance(declared, list):
        return
    declared = [item.get("name") for item in declared if isinstance(item, dict)]
    keys = [config.get("hash_key"), config.get("range_key")]
    for kind in ("global_secondary_index", "local_secondary_index"):
        for index in config.get(kind) or []:
            if index is UNKNOWN:
                return
            keys += [index.get("hash_key"), index.get("range_key")]
            keys += [item.get("attribute_name") for item in index.get("key_schema") or []]
    if UNKNOWN in keys or UNKNOWN in declared:
        return
    keys = {key for key in keys if key}
    if set(declared) - keys:
        yield "attribute", f"all attributes must be indexed. Unused attributes: {sorted(set(declared) - keys)}"
    if keys - set(declared):
        yield "attribute", f"all indexes must match a defined attribute. Unmatched indexes: {sorted(keys - set(declared))}"


def _is_set(config, name):
    value = config.get(name)
    return value is not None and value != [] and value != {}


def _at(config, path):
    """All non-null values at a dotted path, through lists and sets of blocks."""
    found = [config]
    for step in path.split("."):
        following = []
        for item in found:
            if isinstance(item, dict) and item.get(step) is not None:
                value = item[step]
                if isinstance(value, list) and value and all(isinstance(x, dict) or x is UNKNOWN for x in value):
                    following.extend(x for x in value if isinstance(x, dict))
                else:
                    following.append(value)
        found = following
    return found
