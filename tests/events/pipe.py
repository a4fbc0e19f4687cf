"""The smallest stand-in of an EventBridge pipe: its filters and its template, as far as terraform/events.tf uses them.

No server on one machine delivers from a pipe to a bus. What this does not know is an error, and what AWS's pages leave open is tried
each way.  It does not retry, bisect or send: what it shows is which stream records become events, and of which shape.

"Creating Amazon EventBridge event patterns", "Event filtering in Amazon EventBridge Pipes",
"Amazon EventBridge Pipes input transformation", "PutEvents"
"""

import json
import pathlib
import re
import subprocess

ROOT = pathlib.Path(__file__).resolve().parents[2]
SCHEMA = ROOT / "terraform" / "events.schema.json"
# "The maximum size for a PutEvents event entry is 256 KB."
ENTRY_BYTES_MAX = 256 * 1024
# A path that does not exist in the event "isn't created and won't appear in the output", which is kept "valid JSON".
ABSENT = {"left out": ..., "null": None, "empty": ""}

_COMPARISONS = {"<": lambda a, b: a < b, "<=": lambda a, b: a <= b, ">": lambda a, b: a > b, ">=": lambda a, b: a >= b, "=": lambda a, b: a == b}
_VARIABLE = re.compile(r"<([^>]*)>")
_PATH = re.compile(r"\$(\.[A-Za-z0-9_-]+)+")


class Pipe:
    def __init__(self, values):
        """`values` as Terraform plans an aws_pipes_pipe."""
        (source,), (target,) = values["source_parameters"], values["target_parameters"]
        (bus,) = target["eventbridge_event_bus_parameters"]
        self.name = values["name"]
        self.patterns = [json.loads(one["pattern"]) for one in source["filter_criteria"][0]["filter"]]
        self.template = target["input_template"]
        self.around = bus["source"] + bus["detail_type"]

    def events(self, record):
        """The details that a stream record becomes: none, or one in each way that AWS may write what is absent."""
        if not any(matches(pattern, record) for pattern in self.patterns):
            return []
        return [render(self.template, record, absent) for absent in ABSENT.values()]

    def entry_bytes(self, detail):
        return len((self.around + json.dumps(detail, ensure_ascii=False)).encode())


def pipes_of_plan(plan):
    resources = plan["planned_values"]["root_module"]["resources"]
    return [Pipe(resource["values"]) for resource in resources if resource["type"] == "aws_pipes_pipe"]


def matches(pattern, event):
    """All members of a pattern, each by one of its alternatives."""
    for name, wanted in pattern.items():
        if name.startswith("$"):
            raise ValueError(f"the stand-in does not know {name}")
        if isinstance(wanted, dict):
            # What lies below an absent member is absent: only `exists` can match it, and only at a leaf.
            inner = event.get(name, {})
            if not isinstance(inner, dict) or not matches(wanted, inner):
                return False
        elif not any(_alternative(one, event.get(name, ...)) for one in wanted):
            return False
    return True


def _alternative(wanted, value):
    if isinstance(value, (dict, list)):
        raise ValueError("the stand-in compares leaves alone")
    if not isinstance(wanted, dict):
        return type(wanted) is type(value) and wanted == value
    ((operator, operand),) = wanted.items()
    if operator == "exists":
        return (value is not ...) == operand
    if operator == "anything-but":
        words = operand if isinstance(operand, list) else [operand]
        if not all(isinstance(word, str) for word in words):
            raise ValueError("the stand-in knows anything-but of words alone")
        return isinstance(value, str) and value not in words
    if operator == "numeric":
        pairs = list(zip(operand[::2], operand[1::2], strict=True))
        return type(value) in (int, float) and all(_COMPARISONS[sign](value, number) for sign, number in pairs)
    raise ValueError(f"the stand-in does not know the operator {operator}")


def render(template, event, absent):
    """A template in which each variable is a whole value: strings get their quotes, objects are serialised."""
    marker = "\0absent"

    def value(found):
        path = found[1]
        if not _PATH.fullmatch(path):
            raise ValueError(f"the stand-in does not know the variable <{path}>")
        if template[found.start() - 1] == '"':
            raise ValueError(f"<{path}> is within a string, where AWS escapes nothing")
        at = event
        for step in path.split(".")[1:]:
            at = at.get(step, ...) if isinstance(at, dict) else ...
        return json.dumps(marker if at is ... else at)

    members = json.loads(_VARIABLE.sub(value, template))
    members = {name: absent if member == marker else member for name, member in members.items()}
    return {name: member for name, member in members.items() if member is not ...}


def faults(messages):
    """What the schema says against each message, by a validator that others wrote: it comes with checkov."""
    program = (
        "import json, sys, jsonschema\n"
        "schema, messages = json.load(sys.stdin)\n"
        "jsonschema.Draft202012Validator.check_schema(schema)\n"
        "check = jsonschema.Draft202012Validator(schema)\n"
        "print(json.dumps([[str(error.message) for error in check.iter_errors(message)] for message in messages]))"
    )
    python = subprocess.run(
        ["bash", "-euc", 'source scripts/tools; tools_checkov; echo "$TOOLS_DIR/checkov/bin/python"'], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout.strip()
    done = subprocess.run([python, "-c", program], input=json.dumps([json.loads(SCHEMA.read_text()), messages]), capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)
