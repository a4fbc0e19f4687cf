# What an organisation may ask for: each is a variable whose default changes nothing.

mock_provider "aws" {
  mock_data "aws_caller_identity" {
    defaults = { account_id = "123456789012" }
  }
  mock_data "aws_partition" {
    defaults = { partition = "aws" }
  }
  mock_data "aws_region" {
    defaults = { region = "eu-central-1" }
  }
}

variables {
  artifacts_dir = "tests/artifacts"
  protect_data  = false
}

run "nothing_by_default" {
  command = plan

  assert {
    condition     = aws_iam_role.worker.path == "/" && aws_iam_role.worker.permissions_boundary == null && length(aws_lambda_function.worker.vpc_config) == 0 && length(aws_sns_topic_subscription.https) == 0
    error_message = "A stack that sets none of it has none of it."
  }
}

run "all_of_it" {
  command = apply

  variables {
    iam     = { path = "/teams/a/", permissions_boundary = "arn:aws:iam::123456789012:policy/boundary" }
    network = { subnet_ids = ["subnet-1"], security_group_ids = ["sg-1"] }
    notify  = { page = { https = ["https://events.pagerduty.com/integration/key/enqueue"], actions = ["arn:aws:sns:eu-central-1:123456789012:central"] } }
  }

  assert {
    condition     = aws_iam_role.worker.path == "/teams/a/" && aws_iam_role.worker.permissions_boundary == "arn:aws:iam::123456789012:policy/boundary" && alltrue([for policy in aws_iam_policy.stack : policy.path == "/teams/a/"])
    error_message = "Role and policies are under the path, the role within the boundary."
  }
  assert {
    condition     = aws_lambda_function.worker.vpc_config[0].subnet_ids == toset(["subnet-1"]) && contains([for statement in jsondecode(aws_iam_role_policy.worker.policy).Statement : statement.Sid], "JoinTheNetwork")
    error_message = "The function is in the VPC, and its role may join it."
  }
  assert {
    condition     = one(values(aws_sns_topic_subscription.https)).topic_arn == aws_sns_topic.severity["page"].arn
    error_message = "The pager hears of pages."
  }
  assert {
    condition     = aws_cloudwatch_metric_alarm.stack["no-progress"].alarm_actions == toset([aws_sns_topic.severity["page"].arn, "arn:aws:sns:eu-central-1:123456789012:central"]) && aws_cloudwatch_metric_alarm.stack["dead-letters-present"].alarm_actions == toset([aws_sns_topic.severity["ticket"].arn])
    error_message = "A further action is for its severity."
  }
}

run "an_empty_network" {
  command = plan

  variables {
    network = { subnet_ids = [], security_group_ids = ["sg-1"] }
  }

  expect_failures = [var.network]
}

run "a_pager_in_clear" {
  command = plan

  variables {
    notify = { page = { https = ["http://example.com"] } }
  }

  expect_failures = [var.notify]
}

run "a_path_without_its_slashes" {
  command = plan

  variables {
    iam = { path = "teams" }
  }

  expect_failures = [var.iam]
}
