"""What pages may name: what Terraform makes, and the words of the code.  A misspelt name is an empty answer, and no error."""

import functools
import json
import re

import botocore.session

from runbook_pages import ROOT

# What Terraform's names begin with, and end with where they are of a whole account.
PREFIX, REGION = "$PREFIX", "$AWS_REGION"

# The argument of a resource that names it.
RESOURCES = {
    "alarm": ["aws_cloudwatch_metric_alarm.alarm_name", "aws_cloudwatch_composite_alarm.alarm_name"],
    "alias": ["aws_lambda_alias.name"],
    "bus": ["aws_cloudwatch_event_bus.name"],
    "dashboard": ["aws_cloudwatch_dashboard.dashboard_name"],
    "function": ["aws_lambda_function.function_name"],
    "key": ["aws_kms_alias.name"],
    "log group": ["aws_cloudwatch_log_group.name"],
    "pipe": ["aws_pipes_pipe.name"],
    "policy": ["aws_iam_policy.name"],
    "queue": ["aws_sqs_queue.name"],
    "role": ["aws_iam_role.name"],
    "schedule": ["aws_scheduler_schedule.name"],
    "secret": ["aws_secretsmanager_secret.name"],
    "table": ["aws_dynamodb_table.name"],
    "topic": ["aws_sns_topic.name"],
}
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
}
# The programs that scripts hand their flags to.
STARTS = {"scripts/demo": ["crates/demo/src"], "scripts/load-test": ["crates/cli/src"], "scripts/simulate": ["tests/simulation/src", "tests/load/src"]}
# Lambda's JSON log format: its own records, and what a line of ours is given (tracing's JSON).
LOG_FIELDS = {"type", "record.status", "level", "message"}


@functools.cache
def terraform():
    return "\n".join(path.read_text() for path in sorted((ROOT / "terraform").glob("*.tf")))


@functools.cache
def sources(*folders):
    """Our code, without what is only for tests."""
    texts = (path.read_text() for folder in folders for path in sorted((ROOT / folder).rglob("*.rs")) if path.name != "tests.rs")
    return "\n".join(text.split("#[cfg(test)]\nmod tests")[0] for text in texts)


# What Terraform makes -----------------------------------------------------------------------------


def _local(name):
    """What a local value is defined as, up to the next one."""
    return re.search(rf"^  {name} += (.*?)(?=^  \S|^\}})", terraform(), re.MULTILINE | re.DOTALL).group(1)


def _keys(name):
    """The keys of a local map, or of those that it is made from; the words of a list."""
    text = _local(name)
    own = re.findall(r"^    ([\w-]+) += \{", text, re.MULTILINE) + re.findall(r'"([\w-]+)" =>', text)
    if text.startswith("["):
        own += re.findall(r'"([\w-]+)"', text.splitlines()[0])
    others = [] if text.startswith("{\n") else re.findall(r"local\.(\w+)", text.splitlines()[0])
    return own + [key for other in others for key in _keys(other)]


def _resolved(expression, each):
    """The names that an expression can be."""
    quoted = re.findall(r'"([^"]*)"', expression)
    text = quoted[-1] if quoted else f"${{{expression.strip()}}}"
    if text == "${each.value.name}":
        # The pipes: the first is called after the bus (events.tf).
        bus = _resolved(_local("bus_name"), [])[0]
        assert 'name == "results" ? local.bus_name : "${local.bus_name}-${name}"' in terraform(), "pipes are named in another way now: see here"
        return [bus if key == "results" else f"{bus}-{key}" for key in each]
    text = text.replace("${var.prefix}", PREFIX).replace("${local.global_suffix}", REGION)
    for name in re.findall(r"\$\{local\.(\w+)\}", text):
        text = text.replace(f"${{local.{name}}}", _resolved(_local(name), [])[0])
    return [text.replace("${each.key}", key) for key in each] if "${each.key}" in text else [text]


@functools.cache
def made():
    """The names of what Terraform makes, by kind."""
    names = {}
    for kind, arguments in RESOURCES.items():
        for resource, argument in (of.split(".") for of in arguments):
            blocks = re.findall(rf'^resource "{resource}" "\w+" \{{\n(.*?)^\}}', terraform(), re.MULTILINE | re.DOTALL)
            assert blocks, f"Terraform makes no {resource} any more: take it from this list"
            for block in blocks:
                over = re.search(r"^  for_each += .*?local\.(\w+)", block, re.MULTILINE)
                expression = re.search(rf"^  {argument} += (.*)", block, re.MULTILINE).group(1)
                names.setdefault(kind, set()).update(_resolved(expression, _keys(over.group(1)) if over else []))
    # Of the worker alone (worker.tf).
    names["function"] |= {f"{PREFIX}-worker:{alias}" for alias in names["alias"]}
    return names


# The words of the code ----------------------------------------------------------------------------


def _snake(name):
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", name).lower()


@functools.cache
def variants(path, name):
    body = re.search(rf"pub enum {name} \{{\n(.*?)^\}}", (ROOT / path).read_text(), re.MULTILINE | re.DOTALL).group(1)
    return set(re.findall(r"^    ([A-Z]\w*),", body, re.MULTILINE))


def reasons():
    return {_snake(name) for name in variants("crates/core/src/failure.rs", "FailureReason")}


def causes(metric):
    """The words of the dimension `Cause`."""
    path, name = {"Paused": ("control", "Cause"), "JobsHandedBack": ("metric", "HandBackCause")}.get(metric, ("", ""))
    return {_snake(name) for name in variants(f"crates/core/src/{path}.rs", name)} if name else set()


def tasks():
    return set(re.findall(r"const NAME: &'static str = \"(\w+)\"", sources("crates/tasks/src", "crates/my-tasks/src")))


def metrics():
    return {name for kind in ("Metric", "Latency", "Gauge") for name in variants("crates/core/src/metric.rs", kind)}


@functools.cache
def _ledger_words():
    return set(re.findall(r'"([a-z_#]+)"', sources("crates/aws/src")))


def known(kind, name):
    """Whether a map of AWS can have a key."""
    if kind == "AttributeMap":
        return name in _ledger_words()
    if kind == "a word of the ledger":
        return name in _ledger_words() | reasons()
    if kind == "MessageBodyAttributeMap":
        return f'"{name}"' in (ROOT / "crates/core/src/dead_letter.rs").read_text()
    return kind == "EnvironmentVariables" and re.search(rf"\b{name} *=", terraform()) is not None


@functools.cache
def _json_words():
    """Members of what our functions and commands say, and of SQS's messages."""
    code = sources("crates/core/src", "crates/cli/src", "crates/redrive/src", "crates/load-report/src")
    own = set(re.findall(r"^ +(?:pub )?(\w+):", code, re.MULTILINE)) | {_snake(name) for name in re.findall(r"^    ([A-Z]\w+)[,({ ]", code, re.MULTILINE)}
    model = botocore.session.Session().get_service_model("sqs")
    message = {member for name in ("Message", "MessageAttributeValue", "ReceiveMessageResult") for member in model.shape_for(name).members}
    return own | message


# What is wrong with names --------------------------------------------------------------------------


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
    found = [f"nothing says {name}" for name in names if name not in _json_words()]
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
    blocks = dict(re.findall(r'^variable "(\w+)" \{\n(.*?)^\}', terraform(), re.MULTILINE | re.DOTALL))
    for number, line in enumerate(text.splitlines(), 1):
        for group, member in re.findall(r"`(\w+)\.(\w+)", line):
            if group in blocks and not re.search(rf"\b{member} *=", blocks[group]):
                yield number, f"{group}.{member}"
