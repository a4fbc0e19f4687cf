"""Renders the data source aws_iam_policy_document, as its documentation page describes it."""

import json


def render(config):
    """The document as a dict; `config` has no unknowns (Terraform reads data only when it is known)."""
    document = {"Version": config.get("version") or "2012-10-17"}
    if config.get("policy_id"):
        document["Id"] = config["policy_id"]
    statements = []
    for source in _parsed(config.get("source_policy_documents")):
        for statement in source:
            if statement.get("Sid") and any(statement["Sid"] == other.get("Sid") for other in statements):
                raise ValueError(f"duplicate Sid ({statement['Sid']}) in source_policy_documents: make sure the Sid is unique")
            statements.append(statement)
    own = [_statement(item) for item in config.get("statement") or []]
    sids = [item["Sid"] for item in own if item.get("Sid")]
    if len(sids) != len(set(sids)):
        raise ValueError("duplicate Sid in statement blocks: make sure the Sid is unique")
    statements = _merge(statements, own)
    for override in _parsed(config.get("override_policy_documents")):
        statements = _merge(statements, override)
    document["Statement"] = statements
    return document


def computed(config):
    document = render(config)
    text = json.dumps(document, indent=2)
    return {
        "id": str(sum(text.encode())), "json": text,
        "minified_json": json.dumps(document, separators=(",", ":")),
        "version": config.get("version") or "2012-10-17",
    }


def _parsed(documents):
    for text in documents or []:
        if not text:
            continue
        statements = json.loads(text).get("Statement", [])
        yield statements if isinstance(statements, list) else [statements]


def _merge(statements, later):
    """A later statement with the Sid of an earlier one takes its place."""
    result = list(statements)
    for statement in later:
        for index, earlier in enumerate(result):
            if statement.get("Sid") and statement["Sid"] == earlier.get("Sid"):
                result[index] = statement
                break
        else:
            result.append(statement)
    return result


def _statement(block):
    effect = block.get("effect") or "Allow"
    if effect not in ("Allow", "Deny"):
        raise ValueError(f'expected effect to be one of ["Allow" "Deny"], got {effect}')
    statement = {}
    if block.get("sid"):
        statement["Sid"] = block["sid"]
    statement["Effect"] = effect
    for ours, theirs in (("actions", "Action"), ("not_actions", "NotAction"), ("resources", "Resource"), ("not_resources", "NotResource")):
        if block.get(ours):
            statement[theirs] = _one_or_many(block[ours])
    for ours, theirs in (("principals", "Principal"), ("not_principals", "NotPrincipal")):
        if block.get(ours):
            statement[theirs] = _principals(block[ours])
    if block.get("condition"):
        statement["Condition"] = _conditions(block["condition"])
    return statement


def _one_or_many(values):
    # The provider sorts in descending order and writes one value without a list; "&{...}" is its
    # way of writing an IAM variable "${...}" in Terraform's language.
    values = sorted((value.replace("&{", "${") for value in values), reverse=True)
    return values[0] if len(values) == 1 else values


def _principals(blocks):
    if len(blocks) == 1 and blocks[0]["type"] == "*" and blocks[0]["identifiers"] == ["*"]:
        return "*"
    found = {}
    for block in blocks:
        found.setdefault(block["type"], set()).update(block["identifiers"])
    return {kind: _one_or_many(identifiers) for kind, identifiers in sorted(found.items())}


def _conditions(blocks):
    found = {}
    for block in blocks:
        found.setdefault(block["test"], {}).setdefault(block["variable"], []).extend(block["values"])
    return {
        test: {variable: _one_or_many(values) for variable, values in sorted(variables.items())}
        for test, variables in sorted(found.items())
    }
