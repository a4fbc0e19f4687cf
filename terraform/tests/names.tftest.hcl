# Two stacks with different prefixes, or one prefix in two regions, must never ask for the same name.

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
  prefix        = "team-a"
  artifacts_dir = "tests/artifacts"
  customer_key  = true
  page_emails   = ["oncall@example.com"]
  jobs_expected = { from_hour = 6, to_hour = 18 }
}

run "regional_names_start_with_the_prefix" {
  command = plan

  assert {
    condition = alltrue([for name in concat(
      [aws_sqs_queue.jobs.name, aws_sqs_queue.dead_letters.name, aws_sqs_queue.crashed.name],
      [aws_dynamodb_table.ledger.name, aws_lambda_function.worker.function_name, aws_secretsmanager_secret.model_key[0].name],
      [trimprefix(aws_cloudwatch_log_group.worker.name, "/aws/lambda/"), trimprefix(aws_kms_alias.stack[0].name, "alias/")],
      [for topic in aws_sns_topic.severity : topic.name],
      [for alarm in aws_cloudwatch_metric_alarm.stack : alarm.alarm_name],
      [for alarm in aws_cloudwatch_composite_alarm.stack : alarm.alarm_name],
    ) : name == "team-a" || startswith(name, "team-a-")])
    error_message = "A name does not start with the prefix."
  }
}

run "names_that_are_global_to_the_account_carry_the_region" {
  command = plan

  assert {
    condition = alltrue([for name in concat(
      [aws_iam_role.worker.name, aws_cloudwatch_dashboard.stack.dashboard_name],
      [for policy in aws_iam_policy.stack : policy.name],
    ) : startswith(name, "team-a-") && endswith(name, "-eu-central-1") && length(name) <= 64])
    error_message = "IAM names and dashboards are one namespace for all regions of an account."
  }
}

run "the_contract_names" {
  command = plan

  assert {
    condition     = aws_sqs_queue.jobs.name == "team-a-jobs" && aws_sqs_queue.dead_letters.name == "team-a-dead-letters" && aws_sqs_queue.crashed.name == "team-a-crashed"
    error_message = "Queues are <prefix>-jobs, <prefix>-dead-letters, <prefix>-crashed."
  }
  assert {
    condition     = aws_lambda_function.worker.function_name == "team-a-worker" && aws_lambda_alias.live.name == "live"
    error_message = "The function is <prefix>-worker, its alias live."
  }
}

run "a_prefix_too_long_is_refused" {
  command = plan

  variables {
    prefix = "a-prefix-of-more-than-20"
  }

  expect_failures = [var.prefix]
}

run "a_prefix_with_capitals_is_refused" {
  command = plan

  variables {
    prefix = "Nightshift"
  }

  expect_failures = [var.prefix]
}
