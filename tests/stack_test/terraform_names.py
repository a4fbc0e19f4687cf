"""The names of what Terraform makes, by kind, read from its files."""

import functools
import re

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


@functools.cache
def terraform():
    return "\n".join(path.read_text() for path in sorted((ROOT / "terraform").glob("*.tf")))


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


@functools.cache
def settings():
    """The variables, each with its type and what checks it."""
    return dict(re.findall(r'^variable "(\w+)" \{\n(.*?)^\}', terraform(), re.MULTILINE | re.DOTALL))
