"""What pages may name: what Terraform makes, and the words of the code.  A misspelt name is an empty answer, and no error."""

import json
import re

from code_words import attributes_of_states, causes, json_words, known, metrics, reasons, sources, states, tasks
from runbook_pages import ROOT
from terraform_names import PREFIX, made, settings

# What a flag names.
FLAGS = {
    "--alarm-name": "alarm", "--alarm-names": "alarm", "--function-name": "function", "--key-id": "key", "--log-group-name": "log group",
    "--queue-name": "queue", "--secret-id": "secret", "--source-table-name": "table", "--table-name": "table",
    "lambda --name": "alias", "pipes --name": "pipe",
}
DIMENSIONS = {"FunctionName": "function", "PipeName": "pipe", "QueueName": "queue", "TableName": "table"}

# AWS's own metrics that pages read, and what each is of ("Available CloudWatch metrics for Amazon SQS", "Types of metrics for Lambda
# functions", "DynamoDB metrics and dimensions", "Logging and monitoring Amazon EventBridge Pipes
# using Amazon CloudWatch Logs").
AWS_METRICS = {
    ("AWS/SQS", "ApproximateAgeOfOldestMessage"): ["QueueName"],
    ("AWS/SQS", "NumberOfMessagesSent"): ["QueueName"],
    ("AWS/Lambda", "Invocations"): ["FunctionName"],
    ("AWS/Lambda", "Errors"): ["FunctionName"],
    ("AWS/Lambda", "Throttles"): ["FunctionName"],
    ("AWS/Lambda", "Duration"): ["FunctionName"],
    ("AWS/Lambda", "ConcurrentExecutions"): ["FunctionName"],
    ("AWS/DynamoDB", "SystemErrors"): ["Operation", "TableName"],
    ("AWS/DynamoDB", "ThrottledRequests"): ["Operation", "TableName"],
    ("AWS/EventBridge/Pipes", "ExecutionFailed"): ["PipeName"],
    ("AWS/EventBridge/Pipes", "ExecutionPartiallyFailed"): ["PipeName"],
}
STATISTICS = {"Average", "Maximum", "Minimum", "SampleCount", "Sum"}
# What takes its times in milliseconds; all else that pages ask takes seconds ("Amazon CloudWatch Logs API Reference", FilterLogEvents and
# StartQuery; "AWS CLI User Guide", timestamps).
IN_MILLISECONDS = ("logs", "filter-log-events")
# The programs that scripts hand their flags to.
STARTS = {"scripts/demo": ["crates/demo/src"], "scripts/load-test": ["crates/cli/src"], "scripts/simulate": ["tests/simulation/src", "tests/load/src"]}
# Lambda's JSON log format: its own records, and what a line of ours is given (tracing's JSON).
LOG_FIELDS = {"type", "record.status", "level", "message"}


def general(name, page):
    """A name as Terraform has it, for any prefix."""
    own = {"README.md": "nightshift", "runbook/procedures/load-test.md": "load-test"}.get(page)
    for prefix in ["${PREFIX}", "${PREFIX:-nightshift}", "<prefix>", *([own] if own else [])]:
        name = re.sub(rf"(?<![\w-]){re.escape(prefix)}(?=-|$)", PREFIX, name)
    return name


def of_resources(command, page_makes=()):
    """What a command of the CLI names, and Terraform does not make."""
    found = []
    for flag in dict.fromkeys(word for word in command.words if word.startswith("--")):
        kind = FLAGS.get(flag) or FLAGS.get(f"{command.words[0]} {flag}")
        for value in command.option(flag) if kind else []:
            found += _of_kind(kind, general(value, command.page), page_makes)
        if flag in ("--alarm-name-prefix", "--queue-name-prefix"):
            found += [f"{flag} {value}: say \"$PREFIX-\"" for value in command.option(flag) if general(value, command.page) != f"{PREFIX}-"]
    return found


def _of_kind(kind, name, page_makes=()):
    # Somebody else's variable or key: nobody knows here what it holds.
    if re.fullmatch(r"\$\w+|\$\(.*\)|[A-Z_]+", name) or name in made()[kind] or name in page_makes:
        return []
    return [f"Terraform makes no {kind} {name}; there are {', '.join(sorted(made()[kind]))}"]


def of_metrics(command):
    """What a command asks CloudWatch for, and nothing publishes."""
    if command.words[:2] != ("cloudwatch", "get-metric-statistics"):
        return []
    namespace, metric = (command.option(flag)[0] if command.option(flag) else "" for flag in ("--namespace", "--metric-name"))
    given = [dict(part.split("=", 1) for part in text.split(",") if "=" in part) for text in command.option("--dimensions")]
    dimensions = {one.get("Name"): one.get("Value", "") for one in given}
    asked = f"{namespace} {metric} by {' and '.join(sorted(map(str, dimensions))) or 'nothing'}"
    if namespace != "Nightshift":
        names = AWS_METRICS.get((namespace, metric))
        # Without dimensions, Lambda's is the account's.
        if names is None or (dimensions and sorted(dimensions) != names):
            return [f"no page asked for {asked} before: correct it, or add it to AWS_METRICS with its source"]
        return [fault for name, value in dimensions.items() if name in DIMENSIONS for fault in _of_kind(DIMENSIONS[name], general(value, command.page))]
    if metric not in metrics():
        return [f"nothing publishes the metric {metric}"]
    if general(dimensions.get("Stack", ""), command.page) != PREFIX:
        return [f"{asked}: the stack is said by Name=Stack,Value=\"$PREFIX\""]
    further = {name: value for name, value in dimensions.items() if name != "Stack"}
    words = {"Task": tasks(), "Cause": causes(metric), "Reason": reasons() if metric == "DeadLetters" else set()}
    if len(further) > 1 or not set(further) <= set(words):
        return [f"nothing publishes {asked}"]
    return [f"nothing publishes {metric} for the {name} {value}" for name, value in further.items() if "$" not in value and value not in words[name]]


def of_statistics(command):
    """A statistic that a command does not ask for is an empty answer of its query, and another one a wrong number."""
    asked, read = set(command.option("--statistics")), set(re.findall(r"\w+", " ".join(command.option("--query")))) & STATISTICS
    if command.words[:2] != ("cloudwatch", "get-metric-statistics") or not command.option("--query") or asked == read:
        return []
    return [f"ask by --statistics for what --query reads: {' and '.join(sorted(read)) or 'it reads none'}"]


def of_times(command):
    """Times in another unit than the operation's."""
    unit = "milliseconds" if command.words[:2] == IN_MILLISECONDS else "seconds"
    found = []
    for flag in ("--start-time", "--end-time"):
        for value in command.option(flag):
            given = "milliseconds" if re.search(r"\* *1000\b|\+%s\)000|%3N", value) else "seconds"
            if "date +%" in value and given != unit:
                found.append(f"{flag}: give it in {unit}, which this operation takes")
    return found


def of_ledger(command):
    """Attributes and words that no record has, and values that an expression names and nobody gives."""
    expressions = " ".join(value for word in command.words if word.endswith("-expression") for value in command.option(word))
    names = re.findall(r"(?<![:#\w])[a-z]\w*(?!\w*\()", expressions)
    found = [f"no record has the attribute {name}" for name in names if not known("AttributeMap", name)]
    values = {}
    for text in command.option("--expression-attribute-values"):
        values |= _object(text)
    placed = set(re.findall(r":\w+", expressions))
    found += [f"{name} is used and not given, or given and not used" for name in sorted(placed ^ set(values))]
    words = [value["S"] for value in values.values() if re.fullmatch("[a-z_]+", value.get("S", ""))]
    found += [f"no record has the word {word}" for word in words if not known("a word of the ledger", word)]
    found += [f"there is no index {name}" for name in command.option("--index-name") if f'INDEX: &str = "{name}"' not in sources("crates/aws/src")]
    for text in command.option("--key"):
        found += [f"the key of a record is id, and not {name}" for name in _object(text) if name != "id"]
    return found


def of_queries(introduction, commands):
    """Queries of a block that ask the ledger for another state, or in another order, than the page says or they read themselves."""
    found, asked = [], set()
    said = set(re.findall(r"`(\w+)`", introduction)) & states()
    for command in commands:
        values = {name: value for text in command.option("--expression-attribute-values") for name, value in _object(text).items()}
        named = re.findall(r"unsettled = (:\w+)", " ".join(command.option("--key-condition-expression")))
        mine = {values.get(name, {}).get("S") for name in named}
        read = re.findall(r"\w+", " ".join(command.option("--query") + command.option("--filter-expression")))
        meant = {attributes_of_states()[name] for name in read if name in attributes_of_states()}
        if meant and meant != mine:
            found.append(f"{command}\n  ask for the records that have what is read: {' and '.join(sorted(meant))}")
        if not meant and not said:
            found.append(f"{command}\n  say the state that is asked for before the block, in backticks")
        # Failures stay for 30 days: only the last ones tell of tonight.
        order = "--no-scan-index-forward" if mine == {"failed"} and "oldest" not in introduction else "--scan-index-forward"
        if order not in command.words:
            found.append(f"{command}\n  ask by {order}: for the last failures, unless the page says oldest, and for the oldest of all else")
        asked |= mine
    if said and asked != said:
        found.append(f"{commands[0]}\n  ask in this block for the states that the page names before it: {' and '.join(sorted(said))}")
    return found


def of_redrive(command):
    """A redrive from another queue than the one that its page is about."""
    about = re.match("runbook/(crashed|dead-letters)-", command.page)
    if not about or "redrive --" not in " ".join(command.words):
        return []
    source = command.option("--from") or ["dead-letters"]
    return [] if source == [about.group(1)] else [f"this page is about {about.group(1)}: redrive from there, and not from {source[0]}"]


def _object(text):
    """What is no JSON is told of the flag (aws_commands.py)."""
    try:
        return json.loads(text) if text.startswith("{") else {}
    except ValueError:
        return {}


def of_logs(command):
    """Fields and words that no line of the log has."""
    found = []
    for pattern in command.option("--filter-pattern"):
        found += [f"no line of the log has the field {name}" for name in re.findall(r"\$\.([\w.]+)", pattern) if name not in LOG_FIELDS]
        found += [f'nothing logs "{text}"' for text in re.findall(r'\$\.message = "([^"]*)"', pattern) if f'"{text}")' not in sources("crates")]
        found += [f"there is no level {level}" for level in re.findall(r'\$\.level = "([^"]*)"', pattern) if level not in ("ERROR", "WARN", "INFO", "DEBUG")]
    return found


def of_jq(command):
    """Members that nothing says."""
    values = {name for option in ("--arg", "--argjson") for at, word in enumerate(command.words) if word == option for name in command.words[at + 1 : at + 2]}
    rest = list(command.words)
    while rest and rest[0].startswith("-"):
        del rest[: 3 if rest[0] in ("--arg", "--argjson") else 1]
    program = rest[0] if rest else ""
    names = re.findall(r"(?<![\w\"])\.([A-Za-z_]\w*)", program) + re.findall(r"[{,] *([a-z_]\w*):", program)
    found = [f"nothing says {name}" for name in names if name not in json_words()]
    found += [f"there is no ${name}: give it by --arg" for name in re.findall(r"\$(\w+)", program) if name not in values]
    listed = re.findall(r"reasons: \[([^\]]*)\]", program)
    return found + [f"there is no reason {word}" for text in listed for word in re.findall(r'"(\w+)"', text) if word not in reasons()]


def of_text(page, text, page_makes=()):
    """Names of a stack's parts, wherever they stand: each with its line."""
    every = {name for kind in made().values() for name in kind}
    # `cargo` names our packages so, too.
    for number, line in enumerate(re.sub(r"-p nightshift-[\w-]+", "", text).splitlines(), 1):
        for name in re.findall(r"\$PREFIX-[\w-]*\w(?:-\$AWS_REGION)?|\$PREFIX-\$AWS_REGION", general(line, page)):
            if name not in every and name not in page_makes:
                yield number, name


def of_scripts(command):
    """Scripts that are not there, and flags that none of them takes."""
    path = ROOT / command.program
    if not path.is_file():
        return [f"there is no {command.program}"]
    # What follows goes to Terraform.
    own = command.words[: command.words.index("--")] if "--" in command.words else command.words
    flags = [re.split("[ =]", word)[0] for word in own if re.match("--[a-z]", word)]
    taken = path.read_text() + "".join(source.read_text() for source in (ROOT / "scripts").glob("*.py"))
    # As clap writes the flags of what a script starts.
    taken += sources(*STARTS.get(command.program, []))
    return [f"it takes no {flag}" for flag in flags if flag not in taken and f" {flag[2:].replace('-', '_')}: " not in taken]


def of_settings(text):
    """`group.member` of Terraform's variables that they do not have: each with its line."""
    for number, line in enumerate(text.splitlines(), 1):
        for group, member in re.findall(r"`(\w+)\.(\w+)", line):
            if group in settings() and not re.search(rf"\b{member} *=", settings()[group]):
                yield number, f"{group}.{member}"
