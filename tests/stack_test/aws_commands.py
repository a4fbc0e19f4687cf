"""Whether a command of the AWS CLI is one, by the models of the APIs that it is made from."""

import functools
import json
import re

import botocore.session
from botocore import xform_name
from botocore.exceptions import DataNotFoundError, UnknownServiceError

from aws_answers import of_query, of_scalar

# "AWS CLI Command Reference", global options, and what each command takes besides.
GLOBAL = set(
    "--debug --endpoint-url --no-verify-ssl --no-paginate --output --query --profile --region --version --color --no-sign-request"
    " --ca-bundle --cli-read-timeout --cli-connect-timeout --cli-binary-format --no-cli-pager --cli-auto-prompt --no-cli-auto-prompt"
    " --cli-input-json --cli-input-yaml --generate-cli-skeleton".split()
)
PAGED = {"--max-items", "--page-size", "--starting-token"}
OUTPUTS = {"json", "text", "table", "yaml", "yaml-stream", "off"}
# What the CLI has and no API: the words that follow, and flags.
CUSTOM = {
    ("s3", "cp"): (2, {"--recursive", "--sse", "--sse-kms-key-id"}),
}
# Where an answer has a body, the CLI wants a file for it.
FILES = {("lambda", "invoke"): 1}

session = botocore.session.Session()


@functools.cache
def model(service):
    try:
        return session.get_service_model(service)
    except UnknownServiceError:
        return None


@functools.cache
def operations(service):
    return {xform_name(name, "-"): name for name in model(service).operation_names}


@functools.cache
def paged(service):
    """The operations whose answers the CLI puts together, page by page."""
    try:
        return set(session.get_component("data_loader").load_service_model(service, "paginators-1")["pagination"])
    except DataNotFoundError:
        return set()


def options(words):
    """The flags with their values, and what stands before the first one.  A value of no flag ends up at the last one."""
    before, given, flag = [], {}, None
    for word in words:
        if re.match(r"--[a-z]", word):
            flag, *value = word.split("=", 1)
            given.setdefault(flag, []).extend(value)
        elif flag is None:
            before.append(word)
        else:
            given[flag].append(word)
    return before, given


def faults(command, literal, known):
    """What is wrong with a command of the CLI.

    `literal`: whether a word is a value, and not a placeholder.  `known`: whether there is a name in a map, by the kind of the map.
    """
    if len(command.words) < 2:
        return ["say the operation too"]
    service, verb, *rest = command.words
    before, given = options(rest)
    if (service, verb) in CUSTOM:
        count, flags = CUSTOM[service, verb]
        return ([] if len(before) == count else [f"it takes {count} words"]) + [f"there is no {flag}" for flag in given if flag not in flags | GLOBAL]
    if model(service) is None:
        return [f"there is no service {service}"]
    if verb not in operations(service):
        return [f"there is no operation {verb} of {service}; what the CLI alone has is to be named in aws_commands.py"]
    operation = model(service).operation_model(operations(service)[verb])
    members = operation.input_shape.members if operation.input_shape else {}
    flags = {f"--{xform_name(name, '-')}": name for name in members}
    flags |= {f"--no-{xform_name(name, '-')}": name for name, shape in members.items() if shape.type_name == "boolean"}
    found = []
    for flag, values in given.items():
        if flag in flags:
            shape = members[flags[flag]]
            found += [f"{flag}: {fault}" for fault in of_values(shape, values, literal, FILES.get((service, verb), 0))]
        elif flag not in GLOBAL | (PAGED if operation.name in paged(service) else set()):
            found.append(f"there is no {flag}")
    files = FILES.get((service, verb), 0)
    if before and not files:
        found.append(f"{before[0]} belongs to no flag")
    required = operation.input_shape.required_members if operation.input_shape else []
    if not command.mention:
        found += [f"--{xform_name(name, '-')} is missing" for name in required if name not in {flags.get(flag) for flag in given}]
    found += [f"--output: there is no {form}" for form in given.get("--output", []) if form not in OUTPUTS and literal(form)]
    for query in given.get("--query", [])[:1]:
        found += of_query(query, operation.output_shape, known)
    return found


def of_values(shape, values, literal, files=0):
    """What no value of an argument can be."""
    if shape.type_name == "boolean":
        return [f"it takes no value, and has {values[0]}"] if len(values) > files else []
    if not values:
        return ["it has no value"]
    if shape.type_name != "list" and len(values) > 1 + files:
        return [f"it takes one value, and has {' and '.join(values)}"]
    element = shape.member if shape.type_name == "list" else shape
    found = []
    for value in values:
        if element.type_name in ("structure", "map") and value.startswith(("{", "[")):
            try:
                json.loads(value)
            except ValueError as error:
                found.append(f"no JSON: {error}")
        elif element.type_name == "structure":
            keys = re.findall(r"(?:^|,)(\w+)=", value)
            found += [f"there is no {key} of {element.name}" for key in keys if key not in element.members]
        elif literal(value) or getattr(element, "enum", None):
            found += of_scalar(element, value)
    return found
