"""Whether a command of the AWS CLI is one, by the models of the APIs that it is made from."""

import functools
import json
import re

import botocore.session
import jmespath
from botocore import xform_name
from botocore.exceptions import DataNotFoundError, UnknownServiceError

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


def of_scalar(shape, value):
    allowed = getattr(shape, "enum", None)
    if allowed and value not in allowed and "$" not in value:
        return [f"{value} is none of {', '.join(allowed[:30])}"]
    if shape.type_name in ("integer", "long") and not re.fullmatch(r"-?\d+", value):
        return [f"{value} is no number"]
    return []


# What a query asks of an answer --------------------------------------------------------------------


class Each:
    """A list of these."""

    def __init__(self, of):
        self.of = of


def of_query(query, shape, known):
    """Names in a query that the answer does not have.  They are no error for the CLI: it prints None."""
    try:
        parsed = jmespath.compile(query).parsed
    except jmespath.exceptions.JMESPathError as error:
        return [f"--query: {str(error).splitlines()[0]}"]
    if shape is None:
        return ["--query: the answer is empty"]
    reader = Reader(known)
    reader.read(parsed, [shape])
    return [f"--query: {fault}" for fault in reader.faults]


class Reader:
    """Follows a query through the shapes of an answer: what it can be at each step, or None where that is not known."""

    def __init__(self, known):
        self.known = known
        self.faults = []

    def read(self, node, at):
        kind, children = node["type"], node["children"]
        if kind == "field":
            return self.field(node["value"], at)
        if kind in ("subexpression", "index_expression", "pipe"):
            for child in children:
                at = self.read(child, at)
            return at
        if kind in ("projection", "filter_projection"):
            inner = self.elements(self.read(children[0], at))
            if kind == "filter_projection":
                self.read(children[2], inner)
            after = self.read(children[1], inner)
            return None if after is None else [Each(after)]
        if kind == "value_projection":
            after = self.read(children[1], self.values(self.read(children[0], at)))
            return None if after is None else [Each(after)]
        if kind == "flatten":
            inner = self.elements(self.read(children[0], at))
            deeper = None if inner is None else [shape for one in inner for shape in (self.elements([one]) if is_list(one) else [one]) or []]
            return [Each(deeper)] if deeper else None
        if kind == "index":
            return self.elements(at)
        if kind == "multi_select_list":
            parts = [self.read(child, at) for child in children]
            return None if None in parts else [Each([shape for part in parts for shape in part])]
        if kind == "or_expression":
            first = self.read(children[0], at)
            self.read(children[1], at)
            return first
        if kind == "comparator":
            self.compare(children, at)
            return None
        if kind == "function_expression":
            return self.function(node["value"], children, at)
        if kind in ("current", "identity"):
            return at
        for child in children:
            self.read(child, at)
        return None

    def field(self, name, at):
        if at is None:
            return None
        found = []
        for shape in at:
            if isinstance(shape, Each) or shape.type_name not in ("structure", "map"):
                self.faults.append(f"{name} is asked of a {'list' if is_list(shape) else shape.type_name}")
            elif shape.type_name == "structure" and name in shape.members:
                found.append(shape.members[name])
            elif shape.type_name == "structure":
                self.faults.append(f"there is no {name} in {shape.name}, which has {', '.join(list(shape.members)[:30])}")
            elif getattr(shape.key, "enum", None):
                self.faults += of_scalar(shape.key, name)
                found.append(shape.value)
            else:
                if not self.known(shape.name, name):
                    self.faults.append(f"nothing writes {name} into {shape.name}")
                found.append(shape.value)
        return found or None

    def compare(self, children, at):
        left, right = (self.read(child, at) for child in children)
        word = next((child["value"] for child in children if child["type"] == "literal"), None)
        for shape in left or right or []:
            if isinstance(word, str) and not isinstance(shape, Each):
                self.faults += of_scalar(shape, word)
                if shape.name == "StringAttributeValue" and not self.known("a word of the ledger", word):
                    self.faults.append(f"nothing writes the word {word}")

    def function(self, name, arguments, at):
        plain = [argument for argument in arguments if argument["type"] != "expref"]
        of = [self.read(argument, at) for argument in plain]
        for argument in arguments:
            if argument["type"] == "expref":
                self.read(argument["children"][0], self.elements(of[0]))
        if name == "values":
            return [Each(self.values(of[0]))]
        return of[0] if name in ("sort_by", "sort", "reverse") else None

    @staticmethod
    def elements(at):
        found = [inner for shape in at or [] if is_list(shape) for inner in (shape.of if isinstance(shape, Each) else [shape.member])]
        return found or None

    @staticmethod
    def values(at):
        return [shape.value for shape in at or [] if not isinstance(shape, Each) and shape.type_name == "map"] or None


def is_list(shape):
    return isinstance(shape, Each) or shape.type_name == "list"
