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
  assert {
    condition     = aws_lambda_function.worker.filename == "tests/artifacts/arm64/worker.zip" && aws_lambda_function.worker.s3_bucket == null && aws_cloudwatch_log_group.worker.log_group_class == "STANDARD" && output.key_statements == null
    error_message = "The zip is a file, the logs are of the standard class, no key is somebody else's."
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
    condition     = alltrue([for role in [aws_iam_role.worker, aws_iam_role.sentinel, aws_iam_role.redrive, aws_iam_role.sentinel_schedule] : role.path == "/teams/a/" && role.permissions_boundary == "arn:aws:iam::123456789012:policy/boundary"]) && alltrue([for policy in aws_iam_policy.stack : policy.path == "/teams/a/"])
    error_message = "Roles and policies are under the path, the roles within the boundary."
  }
  assert {
    condition     = alltrue([for function in [aws_lambda_function.worker, aws_lambda_function.sentinel, aws_lambda_function.redrive] : function.vpc_config[0].subnet_ids == toset(["subnet-1"])]) && alltrue([for policy in [aws_iam_role_policy.worker, aws_iam_role_policy.sentinel, aws_iam_role_policy.redrive] : contains([for statement in jsondecode(policy.policy).Statement : statement.Sid], "JoinTheNetwork")])
    error_message = "The functions are in the VPC, and their roles may join it."
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

run "senders" {
  command = apply

  variables {
    customer_key = true
    senders = {
      Shop   = { principals = ["arn:aws:iam::111122223333:role/shop", "arn:aws:iam::444455556666:root"] }
      Rules  = { service = "events.amazonaws.com", source_arns = ["arn:aws:events:eu-central-1:123456789012:rule/jobs-*"] }
      Topic  = { service = "sns.amazonaws.com", source_arns = ["arn:aws:sns:eu-central-1:111122223333:tickets"], source_accounts = ["111122223333"] }
      Bucket = { service = "s3.amazonaws.com", source_arns = ["arn:aws:s3:::inbox"] }
    }
  }

  assert {
    condition = { for statement in jsondecode(aws_sqs_queue_policy.tls_only["jobs"].policy).Statement : statement.Sid => [statement.Principal, statement.Action, statement.Condition] if statement.Effect == "Allow" } == {
      SenderShop   = [{ AWS = ["arn:aws:iam::111122223333:role/shop", "arn:aws:iam::444455556666:root"] }, "sqs:SendMessage", {}]
      SenderRules  = [{ Service = ["events.amazonaws.com"] }, "sqs:SendMessage", { ArnLike = { "aws:SourceArn" = ["arn:aws:events:eu-central-1:123456789012:rule/jobs-*"] }, StringEquals = { "aws:SourceAccount" = ["123456789012"] } }]
      SenderTopic  = [{ Service = ["sns.amazonaws.com"] }, "sqs:SendMessage", { ArnLike = { "aws:SourceArn" = ["arn:aws:sns:eu-central-1:111122223333:tickets"] }, StringEquals = { "aws:SourceAccount" = ["111122223333"] } }]
      SenderBucket = [{ Service = ["s3.amazonaws.com"] }, "sqs:SendMessage", { ArnLike = { "aws:SourceArn" = ["arn:aws:s3:::inbox"] }, StringEquals = { "aws:SourceAccount" = ["123456789012"] } }]
    }
    error_message = "Each may send, a service only for its sources in their accounts."
  }
  assert {
    condition     = alltrue([for statement in jsondecode(aws_sqs_queue_policy.tls_only["jobs"].policy).Statement : statement.Resource == aws_sqs_queue.jobs.arn]) && alltrue([for queue in ["dead_letters", "crashed"] : length(jsondecode(aws_sqs_queue_policy.tls_only[queue].policy).Statement) == 1])
    error_message = "Jobs are sent to the jobs queue, and nowhere else."
  }
  assert {
    condition     = contains([for statement in jsondecode(aws_sqs_queue_policy.tls_only["jobs"].policy).Statement : statement.Sid if statement.Effect == "Deny"], "RefusePlainHttp")
    error_message = "Plain HTTP is refused of senders, too."
  }
  assert {
    condition = { for statement in jsondecode(aws_kms_key.stack[0].policy).Statement : statement.Sid => [statement.Principal, toset(statement.Action), statement.Condition] if startswith(statement.Sid, "Sender") } == {
      for name, principal in {
        SenderShop   = { AWS = ["arn:aws:iam::111122223333:role/shop", "arn:aws:iam::444455556666:root"] }
        SenderRules  = { Service = ["events.amazonaws.com"] }
        SenderTopic  = { Service = ["sns.amazonaws.com"] }
        SenderBucket = { Service = ["s3.amazonaws.com"] }
      } : name => [principal, toset(["kms:Decrypt", "kms:GenerateDataKey"]), { StringEquals = { "kms:EncryptionContext:aws:sqs:arn" = "arn:aws:sqs:eu-central-1:123456789012:nightshift-jobs" } }]
    }
    error_message = "Each sender may use the key, for the jobs queue alone."
  }
}

run "everybody_is_no_sender" {
  command = plan

  variables {
    senders = { All = { principals = ["*"] } }
  }

  expect_failures = [var.senders]
}

run "a_service_without_its_sources" {
  command = plan

  variables {
    senders = { Rules = { service = "events.amazonaws.com" } }
  }

  expect_failures = [var.senders]
}

run "neither_principals_nor_a_service" {
  command = plan

  variables {
    senders = { Nobody = {} }
  }

  expect_failures = [var.senders]
}

run "more_senders_than_a_policy_holds" {
  command = plan

  variables {
    senders = { for number in range(20) : "S${number}" => { principals = ["arn:aws:iam::111122223333:root"] } }
  }

  expect_failures = [var.senders]
}

run "a_key_that_exists" {
  command = apply

  variables {
    customer_key     = true
    customer_key_arn = "arn:aws:kms:eu-central-1:123456789012:key/0a1b2c3d-0000-4444-8888-123456789012"
    senders          = { Rules = { service = "events.amazonaws.com", source_arns = ["arn:aws:events:eu-central-1:123456789012:rule/jobs"] } }
  }

  assert {
    condition = length(aws_kms_key.stack) == 0 && length(aws_kms_alias.stack) == 0 && toset(concat(
      [for queue in [aws_sqs_queue.jobs, aws_sqs_queue.dead_letters, aws_sqs_queue.crashed] : queue.kms_master_key_id],
      [for topic in aws_sns_topic.severity : topic.kms_master_key_id],
      [aws_dynamodb_table.ledger.server_side_encryption[0].kms_key_arn, aws_cloudwatch_log_group.worker.kms_key_id, aws_secretsmanager_secret.model_key[0].kms_key_id],
    )) == toset([var.customer_key_arn])
    error_message = "Everything is under that key, and no other is made."
  }
  assert {
    condition     = [for statement in jsondecode(output.key_statements) : statement.Sid] == ["AccountUsesThroughServices", "AlarmsPublish", "LogsAreWritten", "SenderRules"]
    error_message = "What its policy has to allow is said; who administers it and whether it may be deleted is not ours."
  }
}

run "a_key_of_another_region" {
  command = plan

  variables {
    customer_key     = true
    customer_key_arn = "arn:aws:kms:us-east-1:123456789012:key/0a1b2c3d-0000-4444-8888-123456789012"
  }

  expect_failures = [var.customer_key_arn]
}

run "a_key_of_another_account" {
  command = plan

  variables {
    customer_key     = true
    customer_key_arn = "arn:aws:kms:eu-central-1:111122223333:key/0a1b2c3d-0000-4444-8888-123456789012"
  }

  expect_failures = [var.customer_key_arn]
}

run "a_key_that_is_not_used" {
  command = plan

  variables {
    customer_key_arn = "arn:aws:kms:eu-central-1:123456789012:key/0a1b2c3d-0000-4444-8888-123456789012"
  }

  expect_failures = [var.customer_key_arn]
}

run "logs_that_are_seldom_read" {
  command = plan

  variables {
    worker = { log_class = "INFREQUENT_ACCESS", log_retention_days = 3653 }
  }

  assert {
    condition     = aws_cloudwatch_log_group.worker.log_group_class == "INFREQUENT_ACCESS" && aws_cloudwatch_log_group.worker.retention_in_days == 3653
    error_message = "Log class and retention are the user's."
  }
}

run "logs_that_nobody_could_read" {
  command = plan

  variables {
    worker = { log_class = "DELIVERY" }
  }

  expect_failures = [var.worker]
}

run "a_zip_from_a_bucket" {
  command = plan

  variables {
    artifacts_dir    = "nowhere"
    worker_package   = { bucket = "builds", key = "nightshift/worker.zip", version = "3", sha256_base64 = "47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=" }
    redrive_package  = { bucket = "builds", key = "nightshift/redrive.zip", sha256_base64 = "47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=" }
    sentinel_package = { bucket = "builds", key = "nightshift/sentinel.zip", sha256_base64 = "47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=" }
  }

  assert {
    condition = aws_lambda_function.worker.filename == null && aws_lambda_function.worker.code_sha256 == var.worker_package.sha256_base64 && join(" ", [
      aws_lambda_function.worker.s3_bucket, aws_lambda_function.worker.s3_key, aws_lambda_function.worker.s3_object_version
    ]) == "builds nightshift/worker.zip 3"
    error_message = "No file is needed, and the hash is what decides."
  }
}

run "a_redrives_hash_in_other_letters" {
  command = plan

  variables {
    redrive_package = { bucket = "builds", key = "redrive.zip", sha256_base64 = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855" }
  }

  expect_failures = [var.redrive_package]
}

run "a_sentinels_hash_in_other_letters" {
  command = plan

  variables {
    sentinel_package = { bucket = "builds", key = "sentinel.zip", sha256_base64 = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855" }
  }

  expect_failures = [var.sentinel_package]
}

run "a_hash_in_other_letters" {
  command = plan

  variables {
    worker_package = { bucket = "builds", key = "worker.zip", sha256_base64 = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855" }
  }

  expect_failures = [var.worker_package]
}

run "credentials_of_another_account" {
  command = plan

  variables {
    allowed_account_ids = ["111122223333"]
  }

  expect_failures = [var.allowed_account_ids]
}
