# The function, its settings and what it may do.

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
    condition     = aws_lambda_function.worker.runtime == "provided.al2023" && aws_lambda_function.worker.architectures == tolist(["arm64"]) && aws_lambda_function.worker.publish
    error_message = "arm64 on provided.al2023, each change a version."
  }
  assert {
    condition     = aws_lambda_function.worker.reserved_concurrent_executions == -1
    error_message = "By default nothing is reserved: a new account may have ten executions in all."
  }
  assert {
    condition     = aws_lambda_function.worker.source_code_hash == filebase64sha256("tests/artifacts/arm64/worker.zip")
    error_message = "The hash of the zip decides whether there is something to deploy."
  }
  assert {
    condition     = aws_lambda_function.worker.logging_config[0].log_group == aws_cloudwatch_log_group.worker.name && aws_cloudwatch_log_group.worker.retention_in_days == 30
    error_message = "The log group is Terraform's, with a retention."
  }
  assert {
    condition     = aws_lambda_event_source_mapping.worker.function_name == aws_lambda_alias.live.arn
    error_message = "Jobs go to the alias, or rolling back would change nothing."
  }
  assert {
    condition     = aws_lambda_event_source_mapping.worker.function_response_types == toset(["ReportBatchItemFailures"]) && aws_lambda_event_source_mapping.worker.scaling_config[0].maximum_concurrency == 10
    error_message = "Partial batch responses and a maximum concurrency."
  }
}

run "what_the_level_says_is_printed" {
  command = plan

  variables {
    worker = { log_level = "debug" }
  }

  assert {
    condition     = aws_lambda_function.worker.logging_config[0].application_log_level == "DEBUG" && aws_lambda_function.worker.environment[0].variables["NIGHTSHIFT_LOG"] == "debug"
    error_message = "Lambda drops what is below its own level, INFO unless told."
  }
}

run "an_error_level_drops_no_line_of_metrics" {
  command = plan

  variables {
    worker = { log_level = "error" }
  }

  assert {
    condition     = aws_lambda_function.worker.logging_config[0].application_log_level == "INFO"
    error_message = "The worker leaves out what is below its level by itself."
  }
}

run "only_this_account_uses_the_role" {
  command = plan

  assert {
    condition     = one(jsondecode(aws_iam_role.worker.assume_role_policy).Statement).Condition == { StringEquals = { "aws:SourceAccount" = "123456789012" } }
    error_message = "A function of another account must not be given the role."
  }
}

run "every_setting_is_set" {
  command = apply

  assert {
    condition = keys(aws_lambda_function.worker.environment[0].variables) == sort([
      "NIGHTSHIFT_BACKOFF_BASE_MS", "NIGHTSHIFT_BACKOFF_MS_MAX", "NIGHTSHIFT_BATCH_SIZE", "NIGHTSHIFT_BODY_BYTES_MAX",
      "NIGHTSHIFT_CALL_LIMIT", "NIGHTSHIFT_CALL_TIMEOUT_MS", "NIGHTSHIFT_CAPACITY_WAIT_MS_MAX", "NIGHTSHIFT_CRASH_LIMIT",
      "NIGHTSHIFT_DEADLINE_MARGIN_MS", "NIGHTSHIFT_DEAD_LETTERS_URL", "NIGHTSHIFT_FAILURE_EXPIRY_DAYS", "NIGHTSHIFT_FUNCTION_TIMEOUT_MS",
      "NIGHTSHIFT_HAND_BACK_BASE_MS", "NIGHTSHIFT_HAND_BACK_MS_MAX", "NIGHTSHIFT_JOBS_URL", "NIGHTSHIFT_LEASE_MARGIN_MS",
      "NIGHTSHIFT_LEDGER_TABLE", "NIGHTSHIFT_LOG", "NIGHTSHIFT_MAXIMUM_CONCURRENCY", "NIGHTSHIFT_MAX_RECEIVE_COUNT", "NIGHTSHIFT_MODEL",
      "NIGHTSHIFT_MODEL_KEY_SECRET", "NIGHTSHIFT_OUTPUT_BYTES_MAX", "NIGHTSHIFT_PAID_CALL_LIMIT", "NIGHTSHIFT_PROVIDER",
      "NIGHTSHIFT_REASK_LIMIT", "NIGHTSHIFT_REQUESTS_PER_MINUTE", "NIGHTSHIFT_RESULT_EXPIRY_DAYS", "NIGHTSHIFT_RETENTION_MS",
      "NIGHTSHIFT_SPEND_CAP_USD_PER_DAY", "NIGHTSHIFT_STACK", "NIGHTSHIFT_TOKENS_PER_MINUTE", "NIGHTSHIFT_VISIBILITY_TIMEOUT_MS",
    ])
    error_message = "The worker's settings are these, no fewer and no more."
  }
  assert {
    condition = alltrue([for name, value in {
      STACK               = "nightshift", PROVIDER = "anthropic", CALL_TIMEOUT_MS = "120000", CALL_LIMIT = "5", REASK_LIMIT = "2", PAID_CALL_LIMIT = "6", CRASH_LIMIT = "3",
      BACKOFF_BASE_MS     = "1000", BACKOFF_MS_MAX = "30000", HAND_BACK_BASE_MS = "30000", HAND_BACK_MS_MAX = "900000", CAPACITY_WAIT_MS_MAX = "43200000",
      LEASE_MARGIN_MS     = "10000", DEADLINE_MARGIN_MS = "10000", BODY_BYTES_MAX = "921600", OUTPUT_BYTES_MAX = "307200", RESULT_EXPIRY_DAYS = "90", FAILURE_EXPIRY_DAYS = "30",
      FUNCTION_TIMEOUT_MS = "300000", VISIBILITY_TIMEOUT_MS = "1800000", RETENTION_MS = "604800000", MAX_RECEIVE_COUNT = "100", BATCH_SIZE = "10",
      MAXIMUM_CONCURRENCY = "10", REQUESTS_PER_MINUTE = "0", TOKENS_PER_MINUTE = "0", SPEND_CAP_USD_PER_DAY = "50",
    } : aws_lambda_function.worker.environment[0].variables["NIGHTSHIFT_${name}"] == value])
    error_message = "A default differs from the documented one."
  }
}

run "the_role_allows_what_the_code_calls" {
  command = apply

  assert {
    condition = sort(flatten([for statement in jsondecode(aws_iam_role_policy.worker.policy).Statement : statement.Action])) == sort([
      "cloudwatch:PutMetricData", "dynamodb:GetItem", "dynamodb:UpdateItem", "logs:CreateLogStream", "logs:PutLogEvents",
      "secretsmanager:GetSecretValue", "sqs:ChangeMessageVisibility", "sqs:DeleteMessage", "sqs:GetQueueAttributes",
      "sqs:ReceiveMessage", "sqs:SendMessage",
    ])
    error_message = "The worker's actions are these, no fewer and no more."
  }
}

run "an_operator_rotates_the_key_where_it_is" {
  command = apply

  variables {
    model = { key_parameter = "/team/model-key" }
  }

  assert {
    condition = [for statement in jsondecode(aws_iam_policy.stack["operator"].policy).Statement : statement if statement.Sid == "RotateTheKey"] == [
      { Sid = "RotateTheKey", Effect = "Allow", Action = ["ssm:PutParameter"], Resource = ["arn:aws:ssm:eu-central-1:123456789012:parameter/team/model-key"] }
    ]
    error_message = "An operator may write the parameter, and need not read it."
  }
}

run "no_wildcards_in_any_policy" {
  command = apply

  assert {
    condition = alltrue([for action in flatten([for policy in concat([aws_iam_role_policy.worker.policy], values(aws_iam_policy.stack)[*].policy) :
      [for statement in jsondecode(policy).Statement : statement.Action if statement.Effect == "Allow"]
    ]) : !strcontains(action, "*")])
    error_message = "An action has a wildcard."
  }
  assert {
    condition = sort(flatten([for policy in concat([aws_iam_role_policy.worker.policy], values(aws_iam_policy.stack)[*].policy) :
      [for statement in jsondecode(policy).Statement : statement.Sid if contains(statement.Resource, "*")]
    ])) == tolist(["Look", "PublishMetrics"])
    error_message = "Only PutMetricData (bound to our namespace) and reading actions that know no resource may have the resource *."
  }
  assert {
    condition     = [for statement in jsondecode(aws_iam_role_policy.worker.policy).Statement : statement.Condition.StringEquals["cloudwatch:namespace"] if statement.Sid == "PublishMetrics"] == ["Nightshift"]
    error_message = "PutMetricData is for our namespace only."
  }
}

run "bedrock_has_no_key_and_may_call_one_model" {
  command = apply

  variables {
    model = { provider = "bedrock", id = "anthropic.claude-haiku-4-5-20251001-v1:0" }
  }

  assert {
    condition     = length(aws_secretsmanager_secret.model_key) == 0 && !contains(keys(aws_lambda_function.worker.environment[0].variables), "NIGHTSHIFT_MODEL_KEY_SECRET")
    error_message = "Bedrock is called as the role, not with a key."
  }
  assert {
    condition     = [for statement in jsondecode(aws_iam_role_policy.worker.policy).Statement : statement.Resource if statement.Action == ["bedrock:InvokeModel"]] == [["arn:aws:bedrock:eu-central-1::foundation-model/anthropic.claude-haiku-4-5-20251001-v1:0"]]
    error_message = "The role may call the chosen model only."
  }
}

run "an_inference_profile_and_its_model" {
  command = apply

  variables {
    model = { provider = "bedrock", id = "eu.anthropic.claude-haiku-4-5-20251001-v1:0" }
  }

  assert {
    condition = flatten([for statement in jsondecode(aws_iam_role_policy.worker.policy).Statement : statement.Resource if statement.Action == ["bedrock:InvokeModel"]]) == [
      "arn:aws:bedrock:eu-central-1:123456789012:inference-profile/eu.anthropic.claude-haiku-4-5-20251001-v1:0",
      "arn:aws:bedrock:*::foundation-model/anthropic.claude-haiku-4-5-20251001-v1:0",
    ]
    error_message = "Bedrock asks for the profile and for the model in the regions that it routes to."
  }
}

run "a_key_in_ssm" {
  command = apply

  variables {
    model = { key_parameter = "/team/model-key" }
  }

  assert {
    condition     = length(aws_secretsmanager_secret.model_key) == 0 && aws_lambda_function.worker.environment[0].variables["NIGHTSHIFT_MODEL_KEY_PARAMETER"] == "/team/model-key"
    error_message = "The parameter takes the place of the secret."
  }
  assert {
    condition     = flatten([for statement in jsondecode(aws_iam_role_policy.worker.policy).Statement : statement.Resource if statement.Action == ["ssm:GetParameter"]]) == ["arn:aws:ssm:eu-central-1:123456789012:parameter/team/model-key"]
    error_message = "The role may read this parameter only."
  }
}

run "a_server_of_ones_own_without_a_key" {
  command = apply

  variables {
    model = { provider = "openai", id = "llama3", base_url = "http://10.0.0.7:11434/v1", needs_key = false, input_usd_per_mtok = 0, output_usd_per_mtok = 0, structured_output = "tool" }
  }

  assert {
    condition     = length(aws_secretsmanager_secret.model_key) == 0 && !anytrue([for name in keys(aws_lambda_function.worker.environment[0].variables) : startswith(name, "NIGHTSHIFT_MODEL_KEY")])
    error_message = "Where no key is asked for, none is looked for."
  }
  assert {
    condition     = aws_lambda_function.worker.environment[0].variables["NIGHTSHIFT_MODEL_BASE_URL"] == "http://10.0.0.7:11434/v1" && aws_lambda_function.worker.environment[0].variables["NIGHTSHIFT_MODEL_INPUT_USD_PER_MTOK"] == "0" && aws_lambda_function.worker.environment[0].variables["NIGHTSHIFT_STRUCTURED_OUTPUT"] == "tool"
    error_message = "Address, price and the way of the schema are passed on."
  }
}

run "rehearsal_has_no_key" {
  command = apply

  variables {
    model = { provider = "rehearsal", id = "rehearsal" }
  }

  assert {
    condition     = length(aws_secretsmanager_secret.model_key) == 0
    error_message = "Rehearsal calls nobody."
  }
}

run "a_bedrock_model_by_its_arn" {
  command = apply

  variables {
    model = { provider = "bedrock", id = "arn:aws:bedrock:eu-central-1::foundation-model/anthropic.claude-haiku-4-5-20251001-v1:0" }
  }

  assert {
    condition     = flatten([for statement in jsondecode(aws_iam_role_policy.worker.policy).Statement : statement.Resource if statement.Action == ["bedrock:InvokeModel"]]) == ["arn:aws:bedrock:eu-central-1::foundation-model/anthropic.claude-haiku-4-5-20251001-v1:0"]
    error_message = "The role may call the chosen model only."
  }
}
