"""What a query of the AWS CLI (JMESPath) asks of an answer, by the model of the API.

A name that the answer does not have is no error for the CLI: it prints None.
"""

import re

import jmespath


def of_scalar(shape, value):
    allowed = getattr(shape, "enum", None)
    if allowed and value not in allowed and "$" not in value:
        return [f"{value} is none of {', '.join(allowed[:30])}"]
    if shape.type_name in ("integer", "long") and not re.fullmatch(r"-?\d+", value):
        return [f"{value} is no number"]
    return []


class Each:
    """A list of these."""

    def __init__(self, of):
        self.of = of


def of_query(query, shape, known):
    """Names in a query that the answer does not have."""
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
