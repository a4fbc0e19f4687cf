# The redrive's function and what it may do.

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
    condition     = aws_lambda_function.redrive.function_name == "nightshift-redrive" && output.redrive_function == "nightshift-redrive"
    error_message = "Commands find it by its name."
  }
  assert {
    condition     = aws_lambda_function.redrive.timeout >= 60 && aws_lambda_function.redrive.source_code_hash == filebase64sha256("tests/artifacts/arm64/redrive.zip")
    error_message = "A step works for 30 s and may begin a page just before; the hash of the zip decides whether there is something to deploy."
  }
  assert {
    condition     = aws_lambda_function_event_invoke_config.redrive.maximum_retry_attempts == 0 && aws_lambda_function_event_invoke_config.redrive.maximum_event_age_in_seconds == 60
    error_message = "Lambda tries no step again and keeps none: the sentinel asks for the next one in a minute."
  }
  assert {
    condition     = aws_lambda_function.redrive.environment[0].variables["NIGHTSHIFT_WORKER_VERSION"] == aws_lambda_function.worker.version && aws_lambda_function.redrive.environment[0].variables["NIGHTSHIFT_WORKER_FUNCTION"] == aws_lambda_function.worker.function_name
    error_message = "A dry run warns when the worker that is live is the one that failed."
  }
  assert {
    condition     = aws_lambda_function.redrive.logging_config[0].log_group == aws_cloudwatch_log_group.redrive.name && aws_cloudwatch_log_group.redrive.retention_in_days == 30
    error_message = "The log group is Terraform's, with a retention."
  }
  assert {
    condition = alltrue([for statement in jsondecode(aws_iam_role_policy.redrive.policy).Statement :
      !contains(statement.Action, "sqs:SendMessage") || statement.Resource == [aws_sqs_queue.jobs.arn]
    ])
    error_message = "It sends to the jobs queue alone."
  }
}

run "only_this_account_uses_the_role" {
  command = plan

  assert {
    condition     = one(jsondecode(aws_iam_role.redrive.assume_role_policy).Statement).Condition == { StringEquals = { "aws:SourceAccount" = "123456789012" } }
    error_message = "Not for somebody else's function."
  }
}
