"""The words of the code that pages use: reasons, causes, tasks, metrics, attributes of records, members of answers."""

import functools
import re

import botocore.session

from runbook_pages import ROOT
from terraform_names import terraform


@functools.cache
def sources(*folders):
    """Our code, without what is only for tests."""
    texts = (path.read_text() for folder in folders for path in sorted((ROOT / folder).rglob("*.rs")) if path.name != "tests.rs")
    return "\n".join(text.split("#[cfg(test)]\nmod tests")[0] for text in texts)


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
    return set(re.findall(r'"([a-z_#]+)"', sources("crates/aws/src/ledger")))


def states():
    """The words by which the ledger's index is asked."""
    return {_snake(name) for name in variants("crates/core/src/listing.rs", "Unsettled")}


@functools.cache
def attributes_of_states():
    """The attributes that the records of one state alone have, each with its state."""
    code = (ROOT / "crates/aws/src/ledger/item.rs").read_text()
    of = {"claimed": r'\("(\w+)", (?:lease_until_ms|alone)\.', "failed": r'\("(\w+)", failed\.'}
    return {name: state for state, pattern in of.items() for name in re.findall(pattern, code)}


def known(kind, name):
    """Whether a map of AWS can have a key."""
    if kind == "AttributeMap":
        return name in _ledger_words()
    if kind == "a word of the ledger":
        return name in _ledger_words() | reasons()
    if kind == "MessageBodyAttributeMap":
        return f'"{name}"' in (ROOT / "crates/core/src/dead_letter.rs").read_text()
    if kind == "TopicAttributesMap":
        return name == "KmsMasterKeyId"  # "GetTopicAttributes", Amazon SNS API Reference.
    return kind == "EnvironmentVariables" and re.search(rf"\b{name} *=", terraform()) is not None


@functools.cache
def json_words():
    """Members of what our functions and commands say, and of SQS's messages."""
    code = sources("crates/core/src", "crates/cli/src", "crates/redrive/src", "crates/load-report/src")
    own = set(re.findall(r"^ +(?:pub )?(\w+):", code, re.MULTILINE)) | {_snake(name) for name in re.findall(r"^    ([A-Z]\w+)[,({ ]", code, re.MULTILINE)}
    model = botocore.session.Session().get_service_model("sqs")
    message = {member for name in ("Message", "MessageAttributeValue", "ReceiveMessageResult") for member in model.shape_for(name).members}
    return own | message
