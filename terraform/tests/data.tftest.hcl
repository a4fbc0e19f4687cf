# Queues, ledger, topics and keys: what keeps data, and what lets go of it.

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

run "queues" {
  command = apply

  assert {
    condition     = aws_sqs_queue.jobs.visibility_timeout_seconds == 1800 && aws_sqs_queue.jobs.message_retention_seconds == 604800 && aws_sqs_queue.dead_letters.message_retention_seconds == 1209600 && aws_sqs_queue.crashed.message_retention_seconds == 1209600
    error_message = "Visibility 1,800 s, retention 7 d and 14 d."
  }
  assert {
    condition     = jsondecode(aws_sqs_queue.jobs.redrive_policy) == { deadLetterTargetArn = aws_sqs_queue.crashed.arn, maxReceiveCount = 100 }
    error_message = "What dies before it can speak ends in crashed."
  }
  assert {
    condition     = jsondecode(aws_sqs_queue.crashed.redrive_policy).deadLetterTargetArn == aws_sqs_queue.dead_letters.arn
    error_message = "dead-letters must be some queue's target, or SQS will not redrive from it."
  }
  assert {
    condition     = jsondecode(aws_sqs_queue_redrive_allow_policy.crashed.redrive_allow_policy).sourceQueueArns == [aws_sqs_queue.jobs.arn] && jsondecode(aws_sqs_queue_redrive_allow_policy.dead_letters.redrive_allow_policy).sourceQueueArns == [aws_sqs_queue.crashed.arn]
    error_message = "Each dead-letter queue admits one source."
  }
  assert {
    condition     = alltrue([for queue in [aws_sqs_queue.jobs, aws_sqs_queue.dead_letters, aws_sqs_queue.crashed] : queue.sqs_managed_sse_enabled && queue.max_message_size == 1048576])
    error_message = "Encrypted at rest, 1 MiB."
  }
  assert {
    condition = length(aws_sqs_queue_policy.tls_only) == 3 && alltrue([for policy in aws_sqs_queue_policy.tls_only :
    one(jsondecode(policy.policy).Statement).Effect == "Deny" && one(jsondecode(policy.policy).Statement).Condition.Bool["aws:SecureTransport"] == "false"])
    error_message = "All three queues refuse plain HTTP."
  }
}

run "the_ledger_is_protected" {
  command = plan

  variables {
    protect_data = true
  }

  assert {
    condition     = aws_dynamodb_table.ledger.billing_mode == "PAY_PER_REQUEST" && aws_dynamodb_table.ledger.deletion_protection_enabled && aws_dynamodb_table.ledger.point_in_time_recovery[0].enabled && aws_secretsmanager_secret.model_key[0].recovery_window_in_days == 30
    error_message = "Protected by default."
  }
  assert {
    condition     = aws_dynamodb_table.ledger.ttl[0].attribute_name == "expires_at" && one(aws_dynamodb_table.ledger.global_secondary_index[*].name) == "unsettled"
    error_message = "Expiry, and the sparse index."
  }
  assert {
    condition     = toset(one(aws_dynamodb_table.ledger.global_secondary_index[*].non_key_attributes)) == toset(["failed_at_ms", "finished_at_ms", "lease_until_ms", "reason", "task"])
    error_message = "The index carries what its entries are listed and chosen by."
  }
  assert {
    condition     = !aws_dynamodb_table.ledger.stream_enabled && output.ledger_stream_arn == null
    error_message = "No stream by default."
  }
}

run "one_variable_lets_go_of_the_data" {
  command = apply

  variables {
    protect_data = false
  }

  assert {
    condition     = !aws_dynamodb_table.ledger.deletion_protection_enabled && !aws_dynamodb_table.ledger.point_in_time_recovery[0].enabled && aws_secretsmanager_secret.model_key[0].recovery_window_in_days == 0
    error_message = "With protect_data = false nothing must hold up a destroy, nor keep a name."
  }
}

run "a_stream_for_those_who_act_on_results" {
  command = apply

  variables {
    ledger = { stream = true }
  }

  assert {
    condition     = aws_dynamodb_table.ledger.stream_enabled && aws_dynamodb_table.ledger.stream_view_type == "NEW_IMAGE" && output.ledger_stream_arn != null
    error_message = "The stream has new images, and its ARN is an output."
  }
}

run "without_a_customer_key_alarms_can_publish" {
  command = apply

  assert {
    condition     = length(aws_kms_key.stack) == 0 && alltrue([for topic in aws_sns_topic.severity : topic.kms_master_key_id == null])
    error_message = "CloudWatch cannot publish under the AWS-managed SNS key."
  }
  assert {
    condition     = alltrue([for policy in aws_sns_topic_policy.severity : jsondecode(policy.policy).Statement[0].Principal.Service == "cloudwatch.amazonaws.com"])
    error_message = "The topics admit CloudWatch."
  }
}

run "a_customer_key_for_everything" {
  command = apply

  variables {
    customer_key = true
  }

  assert {
    condition = alltrue(concat(
      [for queue in [aws_sqs_queue.jobs, aws_sqs_queue.dead_letters, aws_sqs_queue.crashed] : queue.kms_master_key_id == aws_kms_key.stack[0].arn],
      [for topic in aws_sns_topic.severity : topic.kms_master_key_id == aws_kms_key.stack[0].arn],
      [aws_dynamodb_table.ledger.server_side_encryption[0].kms_key_arn == aws_kms_key.stack[0].arn],
      [aws_cloudwatch_log_group.worker.kms_key_id == aws_kms_key.stack[0].arn, aws_secretsmanager_secret.model_key[0].kms_key_id == aws_kms_key.stack[0].arn],
    ))
    error_message = "Queues, topics, ledger, logs and secret are under the customer key."
  }
  assert {
    condition     = contains(flatten([for statement in jsondecode(aws_kms_key.stack[0].policy).Statement : try(statement.Principal.Service, [])]), "cloudwatch.amazonaws.com")
    error_message = "The key admits CloudWatch, or alarms would be silent."
  }
}

run "a_customer_key_in_use_cannot_be_deleted" {
  command = plan

  variables {
    protect_data = true
    customer_key = true
  }

  assert {
    condition = [for statement in jsondecode(aws_kms_key.stack[0].policy).Statement : [statement.Action, statement.Principal] if statement.Effect == "Deny"] == [
      [["kms:ScheduleKeyDeletion"], { AWS = "*" }]
    ]
    error_message = "customer_key = false alone must not schedule the deletion of what data needs to be read."
  }
}

run "protect_data_lets_go_of_the_customer_key_too" {
  command = apply

  variables {
    customer_key = true
    protect_data = false
  }

  assert {
    condition     = alltrue([for statement in jsondecode(aws_kms_key.stack[0].policy).Statement : statement.Effect == "Allow"]) && aws_kms_key.stack[0].deletion_window_in_days == 7
    error_message = "With protect_data = false nothing must hold up a destroy."
  }
}

run "a_customer_key_is_kept_until_nothing_needs_it" {
  command = apply

  variables {
    keep_customer_key = true
  }

  assert {
    condition = alltrue([
      length(aws_kms_key.stack) == 1 && length(aws_kms_alias.stack) == 1,
      alltrue([for statement in jsondecode(aws_kms_key.stack[0].policy).Statement : statement.Effect == "Allow"]),
      alltrue([for queue in [aws_sqs_queue.jobs, aws_sqs_queue.dead_letters, aws_sqs_queue.crashed] : queue.sqs_managed_sse_enabled]),
      alltrue([for topic in aws_sns_topic.severity : topic.kms_master_key_id == null]),
      aws_dynamodb_table.ledger.server_side_encryption[0].enabled == false, # Left out, the table would keep its key.
    ])
    error_message = "The key is there to read what is under it, nothing new is, and it can be deleted."
  }
}

run "addresses_by_severity" {
  command = apply

  variables {
    page_emails   = ["oncall@example.com"]
    ticket_emails = ["team@example.com", "oncall@example.com"]
  }

  assert {
    condition     = length(aws_sns_topic_subscription.email) == 3 && aws_sns_topic_subscription.email["page oncall@example.com"].topic_arn == aws_sns_topic.severity["page"].arn
    error_message = "Each address is subscribed to its topic."
  }
}
