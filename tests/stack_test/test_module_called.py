"""The module as somebody else's configuration calls it, and stacks that stand since before it could be called."""

import re
import shutil

import pytest

from account import Account

CALLER = """
variable "environments" {
  type    = map(string)
  default = { staging = "eu-central-1", production = "us-east-1" }
}

variable "protect_data" {
  type    = bool
  default = true
}

provider "aws" {
  region = "eu-west-1"
  default_tags {
    tags = { Owner = "team-a" }
  }
}

module "nightshift" {
  source   = "../terraform"
  for_each = var.environments

  prefix       = "ns-${each.key}"
  region       = each.value
  protect_data = var.protect_data
}

output "queues" {
  value = { for name, stack in module.nightshift : name => stack.jobs_queue_url }
}
"""


@pytest.fixture
def account(tmp_path):
    account = Account(tmp_path, CALLER)
    # The zips are found from the module, wherever the caller is.
    (tmp_path / "target").unlink()
    shutil.copytree(tmp_path / "terraform" / "tests" / "artifacts", tmp_path / "target" / "zips")
    return account


def test_two_environments_in_two_regions_in_one_state(account):
    account.terraform("validate")
    changes = account.planned()
    stacks = {environment: {address for address in changes if address.startswith(f'module.nightshift["{environment}"].')} for environment in ("staging", "production")}
    assert set().union(*stacks.values()) == set(changes) and len(stacks["staging"]) == len(stacks["production"]) > 40, changes
    account.apply()
    assert account.planned() == {}

    assert sorted((queue["region"], queue["name"]) for queue in account.of("aws_sqs_queue")) == sorted(
        (region, f"ns-{environment}-{name}") for environment, region in [("staging", "eu-central-1"), ("production", "us-east-1")] for name in ("jobs", "dead-letters", "crashed")
    )
    # Nothing is where the caller's provider would have put it.
    assert {resource["region"] for resource in account.resources().values() if "region" in resource} == {"eu-central-1", "us-east-1"}
    for key, resource in account.resources().items():
        names = [value for name, value in resource.items() if name in ("name", "alarm_name", "function_name", "dashboard_name") and isinstance(value, str)]
        staging = any("ns-staging" in name for name in names)
        if names and resource.get("region") and not key.startswith(("aws_lambda_alias", "aws_iam_")):
            assert resource["region"] == ("eu-central-1" if staging else "us-east-1"), key
        if "tags_all" in resource:
            assert resource["tags_all"]["Application"] == "nightshift" and resource["tags_all"]["Owner"] == "team-a", key
            assert resource["tags_all"]["Stack"] in ("ns-staging", "ns-production"), key


def test_an_environment_that_is_taken_out_is_protected_and_a_module_that_is_taken_out_is_not(account):
    account.apply()
    before = account.resources()
    said = account.apply(ok=False, environments={"staging": "eu-central-1"})
    assert 'module.nightshift["production"].terraform_data.protection' in said and "protect_data = false" in said, said
    assert account.resources() == before

    # README says so: with its block gone, nothing of the module is left that could refuse. What AWS protects stays.
    whole = (account.root / "main.tf").read_text()
    account.call(whole[:whole.index("module ")])
    said = account.apply(ok=False)
    assert "protected against deletion" in said
    assert account.of("aws_sqs_queue") == [] and len(account.of("aws_dynamodb_table")) == 2

    account.call(whole)
    account.apply(protect_data=False)
    account.destroy(protect_data=False)
    assert account.resources() == {}


def test_a_stack_from_before_is_taken_over_as_it_stands(tmp_path):
    """Its provider was the module's own; region and tags were the provider's."""
    account = Account(tmp_path)
    now = {}
    for file in (tmp_path / "terraform").glob("*.tf"):
        now[file] = file.read_text()
        file.write_text(re.sub(r"^  (region|tags) += (var\.region|local\.tags)\n", "", now[file], flags=re.MULTILINE))
    versions = tmp_path / "terraform" / "versions.tf"
    versions.write_text(versions.read_text() + """
provider "aws" {
  region = var.region
  default_tags {
    tags = local.tags
  }
}
""")
    account.apply(region="us-east-1", customer_key=True, page_emails=["oncall@example.com"])
    before = account.resources()
    for file, text in now.items():
        file.write_text(text)
    standing = {"region": "us-east-1", "customer_key": True, "page_emails": ["oncall@example.com"]}
    changes = account.planned(**standing)
    assert {tuple(actions) for actions in changes.values()} == {("update",)}, changes
    account.apply(**standing)
    assert account.planned(**standing) == {}
    # Only where the tags are written down has changed, not what they are.
    def without_tags(resources):
        return {key: {name: value for name, value in resource.items() if name != "tags"} for key, resource in resources.items()}
    assert without_tags(account.resources()) == without_tags(before)
