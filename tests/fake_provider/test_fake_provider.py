"""What the fake provider must refuse, see and do, through the real Terraform.

    .tools/venv/bin/python -m pytest tests/fake_provider

The same module is applied on both backends; MiniStack is started here, on a free port of 127.0.0.1.
"""

import json
import os
import pathlib
import re
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
import zipfile

import pytest

HERE = pathlib.Path(__file__).parent
RUN = HERE / "run"
sys.path.insert(0, str(HERE))

HEADER = """
terraform {
  required_providers {
    aws = {
      source = "hashicorp/aws"
    }
  }
}
provider "aws" {
  region = "eu-central-1"
}
"""
QUEUE = HEADER + """
variable "visibility" {
  default = 30
}
resource "aws_sqs_queue" "jobs" {
  name                       = "jobs"
  visibility_timeout_seconds = var.visibility
}
"""


def test_the_module_pins_the_version_whose_schema_this_is():
    pinned = re.search(r'source\s+= "hashicorp/aws"\s+version = "(.*)"', (HERE.parents[1] / "terraform" / "versions.tf").read_text())
    assert pinned[1] == json.loads((HERE / "schema.json").read_text())["provider_version"]


class Terraform:
    """A working folder in which Terraform runs behind the fake provider."""

    def __init__(self, folder, backend="memory", environment=None):
        self.folder = folder
        self.backend = backend
        self.environment = environment or {}

    def write(self, text):
        (self.folder / "main.tf").write_text(text)

    def run(self, *arguments, ok=True):
        environment = {**os.environ, "TF_IN_AUTOMATION": "1", **self.environment}
        done = subprocess.run(
            [RUN, "--backend", self.backend, "terraform", *arguments], cwd=self.folder, env=environment,
            capture_output=True, text=True, timeout=300,
        )
        output = done.stdout + done.stderr
        if ok is not None:
            assert (done.returncode == 0) == ok, output
        return done.returncode, " ".join(output.replace("│", " ").split())

    def init(self):
        self.run("init", "-input=false", "-no-color")
        return self

    def apply(self, *variables, ok=True):
        return self.run("apply", "-auto-approve", "-no-color", *variables, ok=ok)[1]

    def plan_is_empty(self, *variables):
        code, output = self.run("plan", "-detailed-exitcode", "-no-color", *variables, ok=None)
        assert code in (0, 2), output
        return code == 0

    def plan(self, *variables):
        self.run("plan", "-no-color", "-out=plan.tfplan", *variables)
        shown = subprocess.run(
            [RUN, "--backend", self.backend, "terraform", "show", "-json", "plan.tfplan"], cwd=self.folder,
            env={**os.environ, **self.environment}, capture_output=True, text=True, check=True, timeout=60,
        )
        return {change["address"]: change["change"]["actions"] for change in json.loads(shown.stdout)["resource_changes"]}

    def destroy(self, *variables):
        return self.run("destroy", "-auto-approve", "-no-color", *variables)[1]


@pytest.fixture
def terraform(tmp_path):
    return Terraform(tmp_path, environment={"FAKE_AWS_STORE": str(tmp_path / "store.json")})


def refused(terraform, text, command="validate"):
    terraform.write(text)
    terraform.init()
    return terraform.run(command, "-no-color", ok=False)[1]


# What is refused ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ('resource "aws_sqs_queue" "q" {\n  nmae = "q"\n}', 'An argument named "nmae" is not expected here'),
        ('resource "aws_dynamodb_table" "t" {\n  hash_key = "id"\n}', 'The argument "name" is required'),
        ('resource "aws_sqs_queue" "q" {\n  visibility_timeout_seconds = "soon"\n}', "a number is required"),
        ('resource "aws_sqs_queue" "q" {\n  redrive {}\n}', 'Blocks of type "redrive" are not expected here'),
        ('resource "aws_sqs_queue" "q" {\n  arn = "arn:aws:sqs:eu-central-1:1:q"\n}', 'Can\'t configure a value for "arn"'),
        ('resource "aws_sqs_que" "q" {}', 'does not support resource type "aws_sqs_que"'),
        ('resource "aws_sqs_queue" "q" {\n  visibility_timeout_seconds = 43201\n}', "in the range (0 - 43200)"),
        ('resource "aws_sqs_queue" "q" {\n  redrive_policy = "{"\n}', "contains an invalid JSON"),
        (
            'resource "aws_sqs_queue" "q" {\n  name = "a"\n  name_prefix = "a"\n}',
            "conflicts with name_prefix",
        ),
        (
            'resource "aws_cloudwatch_log_group" "g" {\n  name = "g"\n  retention_in_days = 31\n}',
            "expected retention_in_days to be one of",
        ),
        (
            'resource "aws_lambda_event_source_mapping" "m" {\n  event_source_arn = "a"\n  function_name = "f"\n  batch_size = 11\n}',
            "maximum_batching_window_in_seconds",
        ),
        (
            'resource "aws_scheduler_schedule" "s" {\n  schedule_expression = "rate(1 minute)"\n  flexible_time_window {\n    mode = "OFF"\n  }\n}',
            'At least 1 "target" blocks are required',
        ),
        (
            'resource "aws_dynamodb_table" "t" {\n  name = "t11"\n  hash_key = "id"\n  attribute {\n    name = "other"\n    type = "S"\n  }\n}',
            "all attributes must be indexed",
        ),
        (
            'resource "aws_cloudwatch_metric_alarm" "a" {\n  alarm_name = "a"\n  evaluation_periods = 1\n  comparison_operator = "LessThanThreshold"\n'
            '  metric_query {\n    id = "m"\n    metric {\n      metric_name = "m"\n      period = 60\n      stat = "p999x"\n    }\n  }\n}',
            "invalid value for metric_query.metric.stat",
        ),
        ('resource "aws_cloudwatch_metric_alarm" "a" {\n  alarm_name = "a"\n  evaluation_periods = 1\n  comparison_operator = "Greater"\n  metric_name = "m"\n}', "expected comparison_operator to be one of"),
    ],
)
def test_a_wrong_argument_is_refused(terraform, body, message):
    assert message in refused(terraform, HEADER + body)


def test_a_duplicate_statement_id_is_refused(terraform):
    statement = 'statement {\n  sid = "A"\n  actions = ["a:b"]\n  resources = ["*"]\n}\n'
    assert "duplicate Sid" in refused(terraform, HEADER + f'data "aws_iam_policy_document" "d" {{\n{statement}{statement}}}', "plan")


def test_a_name_that_is_taken_is_refused(terraform):
    terraform.write(QUEUE + 'resource "aws_sqs_queue" "again" {\n  name = "jobs"\n}')
    assert "already exists" in terraform.init().apply(ok=False)


# What is planned and applied ----------------------------------------------------------------------


def test_a_second_plan_has_no_changes(terraform):
    terraform.write(QUEUE)
    terraform.init().apply()
    assert terraform.plan_is_empty()
    assert not terraform.plan_is_empty("-var=visibility=31")


def test_a_change_is_an_update_or_a_replacement(terraform):
    terraform.write(QUEUE)
    terraform.init().apply()
    assert terraform.plan("-var=visibility=31") == {"aws_sqs_queue.jobs": ["update"]}
    terraform.write(QUEUE.replace('"jobs"\n', '"work"\n'))
    assert terraform.plan() == {"aws_sqs_queue.jobs": ["delete", "create"]}


def test_drift_is_seen(terraform):
    terraform.write(QUEUE)
    terraform.init().apply()
    store = terraform.folder / "store.json"
    resources = json.loads(store.read_text())
    (key,) = resources
    resources[key]["visibility_timeout_seconds"] = 5
    store.write_text(json.dumps(resources))
    assert terraform.plan() == {"aws_sqs_queue.jobs": ["update"]}
    store.write_text("{}")
    assert terraform.plan() == {"aws_sqs_queue.jobs": ["create"]}


def test_destroy_leaves_nothing(terraform):
    terraform.write(QUEUE)
    terraform.init().apply()
    terraform.destroy()
    assert json.loads((terraform.folder / "store.json").read_text()) == {}


def test_a_resource_is_imported(terraform):
    terraform.write(QUEUE)
    terraform.init().apply()
    terraform.run("state", "rm", "aws_sqs_queue.jobs")
    terraform.run("import", "-no-color", "aws_sqs_queue.jobs", "https://sqs.eu-central-1.amazonaws.com/123456789012/jobs")
    assert terraform.plan_is_empty()


def test_each_provider_block_has_its_own_region_and_tags(terraform):
    terraform.write(
        QUEUE
        + """
provider "aws" {
  alias  = "far"
  region = "ap-southeast-2"
  default_tags {
    tags = { Where = "far" }
  }
}
resource "aws_sqs_queue" "far" {
  provider = aws.far
  name     = "jobs"
  tags     = { Own = "yes" }
}
output "far" {
  value = { arn = aws_sqs_queue.far.arn, tags = aws_sqs_queue.far.tags_all, near = aws_sqs_queue.jobs.arn }
}
"""
    )
    terraform.init().apply()
    state = json.loads((terraform.folder / "terraform.tfstate").read_text())
    far = state["outputs"]["far"]["value"]
    assert far == {
        "arn": "arn:aws:sqs:ap-southeast-2:123456789012:jobs",
        "near": "arn:aws:sqs:eu-central-1:123456789012:jobs",
        "tags": {"Own": "yes", "Where": "far"},
    }


def test_a_secret_that_is_write_only_is_not_in_the_state(terraform):
    terraform.write(
        HEADER
        + """
resource "aws_secretsmanager_secret" "s" {
  name = "s"
}
resource "aws_secretsmanager_secret_version" "s" {
  secret_id                = aws_secretsmanager_secret.s.id
  secret_string_wo         = "hunter2"
  secret_string_wo_version = 1
}
"""
    )
    terraform.init().apply()
    assert "hunter2" not in (terraform.folder / "terraform.tfstate").read_text()


def test_terraform_test_runs_with_expected_failures(terraform):
    terraform.write(QUEUE.replace("default = 30", 'default = 30\n  validation {\n    condition     = var.visibility >= 30\n    error_message = "Too short."\n  }'))
    (terraform.folder / "names.tftest.hcl").write_text(
        'run "applies" {\n  assert {\n    condition     = endswith(aws_sqs_queue.jobs.arn, ":jobs")\n    error_message = "arn"\n  }\n}\n'
        'run "refuses" {\n  command = plan\n  variables {\n    visibility = 3\n  }\n  expect_failures = [var.visibility]\n}\n'
    )
    assert "2 passed, 0 failed" in terraform.init().run("test", "-no-color")[1]


def optional_and_computed():
    """(type, argument) of every type that we know, also of the blocks within blocks: attributes by the schema, blocks by
    rules.py."""
    from rules import RULES
    from schema import Schema

    def attributes(block, path):
        for name, attribute in block.attributes.items():
            if attribute.get("optional") and attribute.get("computed") and name not in ("region", "tags_all"):
                yield path + name
        for name, nested in block.blocks.items():
            yield from attributes(nested.block, f"{path}{name}.")

    for type_name, block in Schema().resources.items():
        rule = RULES.get(type_name, {})
        yield from ((type_name, path) for path in attributes(block, "") if path not in rule.get("defaults", {}))
        yield from ((type_name, path) for path in rule.get("kept_blocks", []))


def holding(block, path, value):
    """What a block holds where nothing but the argument at a path is set."""
    name, _, inner = path.partition(".")
    held = {other: [] for other, nested in block.blocks.items() if nested.mode != "single"}
    if inner:
        nested = block.blocks[name]
        value = holding(nested.block, inner, value)
        value = value if nested.mode == "single" else [value]
    return {**held, name: value}


@pytest.mark.parametrize(("type_name", "path"), list(optional_and_computed()))
def test_what_is_optional_and_computed_and_left_out_is_kept(type_name, path):
    from types import SimpleNamespace

    from plan import plan
    from schema import Schema
    from values import conform

    block = within = Schema().resources[type_name]
    *outer, inner = path.split(".")
    for step in outer:
        within = within.blocks[step].block
    is_block = inner in within.blocks
    kind = ["list"] if is_block else within.attributes[inner]["type"]
    old, new = {"string": ("old", "new"), "number": (7, 8), "bool": (True, False)}.get(str(kind), ([{}] if is_block else ["old"], None))

    def of(state):
        for step in outer:
            state = state[step] if isinstance(state[step], dict) else state[step][0]
        return state[inner]

    def planned(proposed, config):
        return plan(type_name, block, prior, proposed, config, SimpleNamespace(region="eu-central-1", default_tags={}))

    prior, config = (conform(holding(block, path, value), block.kind) for value in (old, [] if is_block else None))
    # As Terraform itself proposes it: it keeps an attribute, and leaves a block to the provider.
    state, replace = planned(config if is_block else prior, config)
    assert of(state) == of(prior) and (outer or [inner])[0] not in replace
    if new:
        # What is set is what is planned.
        wanted = conform(holding(block, path, new), block.kind)
        assert of(planned(wanted, wanted)[0]) == new


SCHEDULE = HEADER + """
variable "attempts" {
  type    = list(number)
  default = [3]
}
variable "key" {
  type    = list(string)
  default = ["old"]
}
resource "aws_scheduler_schedule" "s" {
  name                = "each-minute"
  schedule_expression = "rate(1 minute)"
  flexible_time_window {
    mode = "OFF"
  }
  target {
    arn      = "arn:aws:lambda:eu-central-1:123456789012:function:f"
    role_arn = "arn:aws:iam::123456789012:role/r"
    dynamic "retry_policy" {
      for_each = var.attempts
      content {
        maximum_retry_attempts = retry_policy.value
      }
    }
  }
}
resource "aws_secretsmanager_secret" "s" {
  name = "replicated"
  replica {
    region     = "us-east-1"
    kms_key_id = one(var.key)
  }
  replica {
    region = "us-west-2"
  }
}
"""


def test_within_a_block_too_what_is_left_out_is_kept_and_what_is_set_is_not(tmp_path):
    terraform = Terraform(tmp_path, "memory", {"FAKE_AWS_STORE": str(tmp_path / "store.json")})
    terraform.write(SCHEDULE)
    terraform.init().apply()
    schedule, secret = "aws_scheduler_schedule.s", "aws_secretsmanager_secret.s"
    for flags, expected in [
        ([], {schedule: ["no-op"], secret: ["no-op"]}),
        (["-var=attempts=[]", "-var=key=[]"], {schedule: ["no-op"], secret: ["no-op"]}),
        (["-var=attempts=[4]"], {schedule: ["update"], secret: ["no-op"]}),
        (['-var=key=["new"]'], {schedule: ["no-op"], secret: ["update"]}),
    ]:
        assert terraform.plan(*flags) == expected, flags


TABLE = HEADER + """
variable "encryption" {
  type    = list(bool)
  default = [true]
}
resource "aws_dynamodb_table" "t" {
  name         = "encrypted"
  billing_mode = "PAY_PER_REQUEST"
  hash_key     = "id"
  attribute {
    name = "id"
    type = "S"
  }
  dynamic "server_side_encryption" {
    for_each = var.encryption
    content {
      enabled     = server_side_encryption.value
      kms_key_arn = server_side_encryption.value ? "arn:aws:kms:eu-central-1:123456789012:key/k" : null
    }
  }
}
resource "aws_secretsmanager_secret" "s" {
  name       = "kept"
  kms_key_id = var.encryption == tolist([true]) ? "arn:aws:kms:eu-central-1:123456789012:key/k" : null
}
"""


@pytest.mark.parametrize("backend", ["memory", "ministack"])
def test_a_table_leaves_its_key_only_when_told_and_a_secret_not_at_all(backend, request, tmp_path):
    environment = {"AWS_ENDPOINT_URL": request.getfixturevalue("ministack")} if backend == "ministack" else {"FAKE_AWS_STORE": str(tmp_path / "store.json")}
    terraform = Terraform(tmp_path, backend, environment)
    terraform.write(TABLE)
    terraform.init().apply()
    assert terraform.plan("-var=encryption=[]") == {"aws_dynamodb_table.t": ["no-op"], "aws_secretsmanager_secret.s": ["update"]}
    terraform.apply("-var=encryption=[false]")
    key = {}
    for resource in json.loads((tmp_path / "terraform.tfstate").read_text())["resources"]:
        key[resource["type"]] = resource["instances"][0]["attributes"].get("server_side_encryption", resource["instances"][0]["attributes"].get("kms_key_id"))
    assert key == {"aws_dynamodb_table": [], "aws_secretsmanager_secret": "arn:aws:kms:eu-central-1:123456789012:key/k"}
    # The table is done, off is the same as none; the secret is still as it was.
    for left_out in ("[false]", "[]"):
        assert terraform.plan(f"-var=encryption={left_out}") == {"aws_dynamodb_table.t": ["no-op"], "aws_secretsmanager_secret.s": ["update"]}
    terraform.destroy()


# The data source that everything else is made of --------------------------------------------------


def test_a_policy_document_is_rendered():
    from policy_document import render

    document = render({
        "source_policy_documents": ['{"Statement":[{"Sid":"A","Effect":"Allow","Action":"a:a","Resource":"*"}]}'],
        "override_policy_documents": ['{"Statement":{"Sid":"B","Effect":"Deny","Action":"b:b","Resource":"*"}}'],
        "statement": [
            {
                "sid": "B", "actions": ["b:x", "b:y"], "resources": ["r/&{aws:username}"],
                "principals": [{"type": "Service", "identifiers": ["x", "y"]}],
                "condition": [
                    {"test": "Bool", "variable": "aws:SecureTransport", "values": ["false"]},
                    {"test": "Bool", "variable": "aws:SecureTransport", "values": ["x"]},
                ],
            },
            {"actions": ["c:c"], "resources": ["r/&{aws:username}"], "principals": [{"type": "*", "identifiers": ["*"]}]},
        ],
    })
    assert document == {
        "Version": "2012-10-17",
        "Statement": [
            {"Sid": "A", "Effect": "Allow", "Action": "a:a", "Resource": "*"},
            {"Sid": "B", "Effect": "Deny", "Action": "b:b", "Resource": "*"},
            {"Effect": "Allow", "Action": "c:c", "Resource": "r/${aws:username}", "Principal": "*"},
        ],
    }


def test_values_survive_the_wire():
    from types import SimpleNamespace

    import msgpack
    from values import UNKNOWN, decode, encode

    kind = ["object", {"n": "number", "s": ["set", "string"], "m": ["map", "bool"], "u": "string", "x": "string"}]
    value = {"n": 0.5, "s": ["b", "a", "b"], "m": {"k": True}, "u": UNKNOWN, "x": None}
    wire = SimpleNamespace(msgpack=encode(value, kind), json=b"")
    assert decode(wire, kind) == {**value, "s": ["a", "b"]}
    refined = msgpack.packb({"n": "1e3", "s": None, "m": None, "u": msgpack.ExtType(12, b"\x81\x01\xc2"), "x": None})
    decoded = decode(SimpleNamespace(msgpack=refined, json=b""), kind)
    assert decoded["u"] is UNKNOWN and decoded["n"] == 1000


def test_the_rules_name_only_what_the_schema_has():
    from rules import RULES
    from schema import Schema

    def names(rule):
        for key in ("defaults", "enum", "ranges", "lengths", "most", "pattern", "new_if"):
            yield from rule.get(key, {})
        for key in ("replace", "json", "periods", "new_version_if_published", "kept_blocks", "off_blocks", "not_cleared"):
            yield from rule.get(key, [])
        for key in ("conflicts", "one_of", "at_least_one"):
            for group in rule.get(key, []):
                yield from group

    wrong = []
    resources = Schema().resources
    for type_name, rule in RULES.items():
        for path in names(rule):
            block = resources[type_name]
            *blocks, last = path.split(".")
            for step in blocks:
                block = block.blocks[step].block if block and step in block.blocks else None
            if block is None or (last not in block.attributes and last not in block.blocks):
                wrong.append(f"{type_name}.{path}")
    assert wrong == []


# Everything, on both backends ---------------------------------------------------------------------


@pytest.fixture(scope="module")
def ministack(tmp_path_factory):
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    folder = tmp_path_factory.mktemp("ministack")
    url = f"http://127.0.0.1:{port}"
    environment = {
        **os.environ, "BIND_HOST": "127.0.0.1", "GATEWAY_PORT": str(port), "AUTH": "true",
        "MINISTACK_ACCOUNT_ID": "123456789012", "TMPDIR": str(folder), "AWS_ENDPOINT_URL": url,
    }
    command = pathlib.Path(sys.executable).with_name("ministack")
    with open(folder / "log", "wb") as log:
        server = subprocess.Popen([command], env=environment, stdout=log, stderr=log)
    try:
        deadline = time.monotonic() + 600
        while True:
            try:
                urllib.request.urlopen(f"{url}/_ministack/ready", timeout=2).read()
                break
            except OSError:
                assert server.poll() is None and time.monotonic() < deadline, (folder / "log").read_text()
                time.sleep(0.2)
        yield url
    finally:
        server.terminate()
        server.wait(timeout=30)


@pytest.fixture(params=["memory", "ministack"])
def everything(request, tmp_path):
    environment = {"FAKE_AWS_STORE": str(tmp_path / "store.json")}
    if request.param == "ministack":
        environment = {"AWS_ENDPOINT_URL": request.getfixturevalue("ministack")}
    shutil.copy(HERE / "testdata" / "everything" / "main.tf", tmp_path)
    for name, text in (("one.zip", "#!/bin/sh\nexit 1\n"), ("two.zip", "#!/bin/sh\nexit 2\n")):
        with zipfile.ZipFile(tmp_path / name, "w") as archive:
            entry = zipfile.ZipInfo("bootstrap")
            entry.external_attr = 0o755 << 16
            archive.writestr(entry, text)
    return Terraform(tmp_path, request.param, environment).init()


def test_everything_is_made_changed_replaced_and_destroyed(everything):
    zip_one, zip_two = "-var=zip=one.zip", "-var=zip=two.zip"
    assert "30 added, 0 changed, 0 destroyed" in everything.apply(zip_one)
    assert everything.plan_is_empty(zip_one)

    changes = ("-var=visibility=1900", "-var=function_timeout=310", "-var=protected=true")
    assert "0 added, 4 changed, 0 destroyed" in everything.apply(zip_two, *changes)
    assert everything.plan_is_empty(zip_two, *changes)
    state = json.loads((everything.folder / "terraform.tfstate").read_text())
    versions = {r["type"]: r["instances"][0]["attributes"] for r in state["resources"] if r["mode"] == "managed"}
    assert versions["aws_lambda_function"]["version"] == "2"
    assert versions["aws_lambda_alias"]["function_version"] == "2"

    _, output = everything.run("destroy", "-auto-approve", "-no-color", zip_two, *changes, ok=False)
    assert "protected against deletion" in output
    everything.apply(zip_two)
    everything.destroy(zip_two)
    assert "30 added" in everything.apply(zip_one, "-var=prefix=second")
    assert "30 destroyed" in everything.destroy(zip_one, "-var=prefix=second")


def test_drift_on_the_server_is_seen(ministack, tmp_path):
    import boto3

    terraform = Terraform(tmp_path, "ministack", {"AWS_ENDPOINT_URL": ministack})
    terraform.write(QUEUE)
    terraform.init().apply()
    sqs = boto3.client("sqs", region_name="eu-central-1", endpoint_url=ministack, aws_access_key_id="test", aws_secret_access_key="test")
    url = sqs.get_queue_url(QueueName="jobs")["QueueUrl"]
    sqs.set_queue_attributes(QueueUrl=url, Attributes={"VisibilityTimeout": "7"})
    assert terraform.plan() == {"aws_sqs_queue.jobs": ["update"]}
    terraform.apply()
    assert sqs.get_queue_attributes(QueueUrl=url, AttributeNames=["VisibilityTimeout"])["Attributes"]["VisibilityTimeout"] == "30"
    sqs.delete_queue(QueueUrl=url)
    assert terraform.plan() == {"aws_sqs_queue.jobs": ["create"]}


def test_protection_and_recovery_of_a_table_are_switched(ministack, tmp_path):
    terraform = Terraform(tmp_path, "ministack", {"AWS_ENDPOINT_URL": ministack})
    terraform.write(HEADER + """
variable "on" {
  default = true
}
resource "aws_dynamodb_table" "t" {
  name                        = "switched"
  billing_mode                = "PAY_PER_REQUEST"
  hash_key                    = "id"
  deletion_protection_enabled = var.on
  attribute {
    name = "id"
    type = "S"
  }
  point_in_time_recovery {
    enabled = var.on
  }
}
""")
    terraform.init().apply()
    for on in ("false", "true", "false"):
        assert "0 added, 1 changed" in terraform.apply(f"-var=on={on}")
        assert terraform.plan_is_empty(f"-var=on={on}")
    terraform.destroy("-var=on=false")


def test_an_update_that_the_server_backend_cannot_do_is_an_error(ministack, tmp_path):
    table = HEADER + """
variable "mode" {
  default = "PAY_PER_REQUEST"
}
resource "aws_dynamodb_table" "t" {
  name         = "cannot"
  billing_mode = var.mode
  hash_key     = "id"
  attribute {
    name = "id"
    type = "S"
  }
}
"""
    terraform = Terraform(tmp_path, "ministack", {"AWS_ENDPOINT_URL": ministack})
    terraform.write(table)
    terraform.init().apply()
    assert "cannot update ['billing_mode']" in terraform.apply("-var=mode=PROVISIONED", ok=False)
    terraform.destroy()


def test_an_argument_that_would_reach_nobody_is_an_error(ministack, tmp_path):
    terraform = Terraform(tmp_path, "ministack", {"AWS_ENDPOINT_URL": ministack})
    terraform.write(HEADER + 'resource "aws_sns_topic" "t" {\n  name = "t"\n  http_success_feedback_role_arn = "arn:aws:iam::123456789012:role/r"\n}')
    assert "does not send http_success_feedback_role_arn" in terraform.init().apply(ok=False)
