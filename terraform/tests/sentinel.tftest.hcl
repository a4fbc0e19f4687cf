# The sentinel's function, its schedule, and what they may do.

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
  protect_data  = false # Or the mocks could not be destroyed: terraform_data.protection is real.
}

run "the_function" {
  # Applied, to mocks: only then are the policies known.
  command = apply

  assert {
    condition     = aws_lambda_function.sentinel.function_name == "nightshift-sentinel" && output.sentinel_function == "nightshift-sentinel"
    error_message = "Commands find it by its name."
  }
  assert {
    condition     = aws_lambda_function.sentinel.timeout < 60 && aws_lambda_function.sentinel.source_code_hash == filebase64sha256("tests/artifacts/arm64/sentinel.zip")
    error_message = "A run ends before the next one; the hash of the zip decides whether there is something to deploy."
  }
  assert {
    condition     = aws_lambda_function.sentinel.environment[0].variables["NIGHTSHIFT_RETENTION_MS"] == "604800000" && aws_lambda_function.sentinel.environment[0].variables["NIGHTSHIFT_DEAD_LETTER_RETENTION_MS"] == "1209600000"
    error_message = "Ages are measured by what the queues keep."
  }
  assert {
    condition     = [for name in ["FUNCTION_TIMEOUT_MS", "LEASE_MARGIN_MS"] : aws_lambda_function.sentinel.environment[0].variables["NIGHTSHIFT_${name}"]] == ["300000", "10000"]
    error_message = "It knows how long a worker's lease can last: what died is told from what could not be released."
  }
  assert {
    condition     = aws_lambda_function.sentinel.logging_config[0].log_group == aws_cloudwatch_log_group.sentinel.name && aws_cloudwatch_log_group.sentinel.retention_in_days == 30
    error_message = "The log group is Terraform's, with a retention."
  }
  assert {
    condition = [for statement in jsondecode(aws_iam_role_policy.sentinel.policy).Statement : jsonencode(statement.Condition) if contains(statement.Action, "dynamodb:UpdateItem")] == [
      jsonencode({ "ForAllValues:StringEquals" = { "dynamodb:LeadingKeys" = ["control", "sentinel#watch"] } })
    ]
    error_message = "Of the ledger it writes the control record and what it remembers alone."
  }
  assert {
    condition = [for statement in jsondecode(aws_iam_role_policy.sentinel.policy).Statement : statement.Resource if contains(statement.Action, "lambda:UpdateEventSourceMapping")] == [
      [aws_lambda_event_source_mapping.worker.arn]
    ]
    error_message = "It turns the worker's event source, and no other."
  }
  assert {
    condition = alltrue([for statement in jsondecode(aws_iam_role_policy.sentinel.policy).Statement :
      !contains(statement.Action, "lambda:InvokeFunction") || statement.Resource == [aws_lambda_function.redrive.arn, aws_lambda_alias.live.arn]
    ])
    error_message = "It invokes the redrive, and the worker for a probe."
  }
}

run "the_schedule" {
  command = apply

  assert {
    condition     = aws_scheduler_schedule.sentinel.schedule_expression == "rate(1 minute)" && aws_scheduler_schedule.sentinel.target[0].arn == aws_lambda_function.sentinel.arn && aws_scheduler_schedule.sentinel.flexible_time_window[0].mode == "OFF"
    error_message = "Each minute, and this function."
  }
  assert {
    condition     = aws_scheduler_schedule.sentinel.target[0].retry_policy[0].maximum_retry_attempts == 0 && aws_lambda_function_event_invoke_config.sentinel.maximum_retry_attempts == 0 && aws_lambda_function_event_invoke_config.sentinel.maximum_event_age_in_seconds == 60
    error_message = "Neither the scheduler nor Lambda tries a run again: the next one is a minute away."
  }
  assert {
    condition     = one(jsondecode(aws_iam_role_policy.sentinel_schedule.policy).Statement).Action == ["lambda:InvokeFunction"] && one(jsondecode(aws_iam_role_policy.sentinel_schedule.policy).Statement).Resource == [aws_lambda_function.sentinel.arn]
    error_message = "The schedule may run the sentinel and nothing else."
  }
  assert {
    condition     = one(jsondecode(aws_iam_role.sentinel_schedule.assume_role_policy).Statement).Condition == { StringEquals = { "aws:SourceAccount" = "123456789012" } }
    error_message = "Not for somebody else's schedule."
  }
}
