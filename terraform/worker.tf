# Everything of the worker: role, log group, function, alias, event source.

locals {
  worker_name = "${var.prefix}-worker"
  worker_zip  = "${local.artifacts_dir}/${var.worker.architecture}/worker.zip"

  # Only what differs between stacks is a variable of the module, but all is set here: the function relies on no default
  # of its own, and refuses to start on a contradiction.
  worker_environment = {
    NIGHTSHIFT_STACK                     = var.prefix
    NIGHTSHIFT_LOG                       = var.worker.log_level
    NIGHTSHIFT_JOBS_URL                  = aws_sqs_queue.jobs.url
    NIGHTSHIFT_DEAD_LETTERS_URL          = aws_sqs_queue.dead_letters.url
    NIGHTSHIFT_LEDGER_TABLE              = aws_dynamodb_table.ledger.name
    NIGHTSHIFT_PROVIDER                  = var.model.provider
    NIGHTSHIFT_MODEL                     = var.model.id
    NIGHTSHIFT_MODEL_BASE_URL            = var.model.base_url
    NIGHTSHIFT_STRUCTURED_OUTPUT         = var.model.structured_output
    NIGHTSHIFT_MODEL_KEY_SECRET          = one(aws_secretsmanager_secret.model_key[*].arn)
    NIGHTSHIFT_MODEL_KEY_PARAMETER       = local.model_has_key ? var.model.key_parameter : null
    NIGHTSHIFT_MODEL_INPUT_USD_PER_MTOK  = var.model.input_usd_per_mtok
    NIGHTSHIFT_MODEL_OUTPUT_USD_PER_MTOK = var.model.output_usd_per_mtok
    NIGHTSHIFT_REQUESTS_PER_MINUTE       = var.model.requests_per_minute
    NIGHTSHIFT_TOKENS_PER_MINUTE         = var.model.tokens_per_minute
    NIGHTSHIFT_CALL_TIMEOUT_MS           = var.limits.call_timeout_s * 1000
    NIGHTSHIFT_CALL_LIMIT                = var.limits.call_limit
    NIGHTSHIFT_REASK_LIMIT               = var.limits.reask_limit
    NIGHTSHIFT_PAID_CALL_LIMIT           = var.limits.paid_call_limit
    NIGHTSHIFT_CRASH_LIMIT               = var.limits.crash_limit
    NIGHTSHIFT_BACKOFF_BASE_MS           = var.limits.backoff_base_ms
    NIGHTSHIFT_BACKOFF_MS_MAX            = var.limits.backoff_ms_max
    NIGHTSHIFT_HAND_BACK_BASE_MS         = var.limits.hand_back_base_s * 1000
    NIGHTSHIFT_HAND_BACK_MS_MAX          = var.limits.hand_back_s_max * 1000
    NIGHTSHIFT_CAPACITY_WAIT_MS_MAX      = var.limits.capacity_wait_s_max * 1000
    NIGHTSHIFT_LEASE_MARGIN_MS           = var.limits.lease_margin_s * 1000
    NIGHTSHIFT_DEADLINE_MARGIN_MS        = var.limits.deadline_margin_s * 1000
    NIGHTSHIFT_BODY_BYTES_MAX            = var.limits.body_bytes_max
    NIGHTSHIFT_OUTPUT_BYTES_MAX          = var.limits.output_bytes_max
    NIGHTSHIFT_SPEND_CAP_USD_PER_DAY     = var.limits.spend_cap_usd_per_day
    NIGHTSHIFT_RESULT_EXPIRY_DAYS        = var.ledger.result_expiry_days
    NIGHTSHIFT_FAILURE_EXPIRY_DAYS       = var.ledger.failure_expiry_days
    NIGHTSHIFT_FUNCTION_TIMEOUT_MS       = var.worker.timeout_s * 1000
    NIGHTSHIFT_VISIBILITY_TIMEOUT_MS     = var.queues.visibility_timeout_s * 1000
    NIGHTSHIFT_RETENTION_MS              = var.queues.retention_days * local.day_s * 1000
    NIGHTSHIFT_MAX_RECEIVE_COUNT         = var.queues.max_receive_count
    NIGHTSHIFT_BATCH_SIZE                = var.queues.batch_size
    NIGHTSHIFT_MAXIMUM_CONCURRENCY       = var.queues.maximum_concurrency
  }

  # An inference profile (eu.anthropic.…, global.anthropic.…) routes to its model in several regions, and Bedrock asks
  # for both: the profile here, and the model wherever it is run.
  bedrock_arns = local.bedrock_profile ? [
    "arn:${local.partition}:bedrock:${local.region}:${local.account}:inference-profile/${local.bedrock_name}",
    "arn:${local.partition}:bedrock:*::foundation-model/${local.bedrock_model}",
  ] : ["arn:${local.partition}:bedrock:${local.region}::foundation-model/${local.bedrock_model}"]

  worker_statements = concat(
    [
      {
        Sid      = "TakeJobs" # DeleteMessage and GetQueueAttributes are the event source's; it acts as this role.
        Effect   = "Allow"
        Action   = ["sqs:ChangeMessageVisibility", "sqs:DeleteMessage", "sqs:GetQueueAttributes", "sqs:ReceiveMessage"]
        Resource = [aws_sqs_queue.jobs.arn]
      },
      {
        Sid      = "SendDeadLetters"
        Effect   = "Allow"
        Action   = ["sqs:SendMessage"]
        Resource = [aws_sqs_queue.dead_letters.arn]
      },
      {
        Sid      = "KeepTheLedger"
        Effect   = "Allow"
        Action   = ["dynamodb:GetItem", "dynamodb:UpdateItem"]
        Resource = [aws_dynamodb_table.ledger.arn]
      },
      {
        Sid       = "PublishMetrics" # PutMetricData knows no resources; the namespace is the narrowest there is.
        Effect    = "Allow"
        Action    = ["cloudwatch:PutMetricData"]
        Resource  = ["*"]
        Condition = { StringEquals = { "cloudwatch:namespace" = "Nightshift" } }
      },
      {
        Sid      = "WriteLogs" # Not CreateLogGroup: the group is Terraform's, with its retention.
        Effect   = "Allow"
        Action   = ["logs:CreateLogStream", "logs:PutLogEvents"]
        Resource = ["${aws_cloudwatch_log_group.worker.arn}:*"]
      },
    ],
    [for secret in aws_secretsmanager_secret.model_key : {
      Sid      = "ReadTheModelKey"
      Effect   = "Allow"
      Action   = ["secretsmanager:GetSecretValue"]
      Resource = [secret.arn]
    }],
    [for arn in compact([local.model_has_key ? local.model_key_parameter_arn : null]) : {
      Sid      = "ReadTheModelKey" # The policy of aws/ssm, the key that it must be under, admits whoever may read it.
      Effect   = "Allow"
      Action   = ["ssm:GetParameter"]
      Resource = [arn]
    }],
    [for network in var.network[*] : {
      Sid      = "JoinTheNetwork" # As AWSLambdaVPCAccessExecutionRole has it: Lambda makes the interfaces as this role.
      Effect   = "Allow"
      Action   = ["ec2:AssignPrivateIpAddresses", "ec2:CreateNetworkInterface", "ec2:DeleteNetworkInterface", "ec2:DescribeNetworkInterfaces", "ec2:DescribeSubnets", "ec2:UnassignPrivateIpAddresses"]
      Resource = ["*"]
    }],
    [for arns in var.model.provider == "bedrock" ? [local.bedrock_arns] : [] : {
      Sid      = "CallTheModel"
      Effect   = "Allow"
      Action   = ["bedrock:InvokeModel"]
      Resource = arns
    }],
  )
}

resource "aws_cloudwatch_log_group" "worker" {
  region = var.region
  tags   = local.tags

  name              = "/aws/lambda/${local.worker_name}"
  retention_in_days = var.worker.log_retention_days
  log_group_class   = var.worker.log_class
  kms_key_id        = local.key_arn
}

resource "aws_iam_role" "worker" {
  tags = local.tags

  name        = "${local.worker_name}-${local.global_suffix}"
  description = "What the worker of ${var.prefix} may do"

  path                 = var.iam.path
  permissions_boundary = var.iam.permissions_boundary
  assume_role_policy   = local.function_trust
}

resource "aws_iam_role_policy" "worker" {
  name = "worker"
  role = aws_iam_role.worker.id

  policy = jsonencode({
    Version   = "2012-10-17"
    Statement = local.worker_statements
  })
}

resource "aws_lambda_function" "worker" {
  # checkov:skip=CKV_AWS_50:The worker makes no X-Ray segments; its log lines and metrics say what a trace would.
  # checkov:skip=CKV_AWS_116:A function's dead-letter queue is for asynchronous invocations; SQS invokes this one, and its queues keep what fails.
  # checkov:skip=CKV_AWS_117:It calls AWS and the model's provider over public endpoints; in a VPC (network) it needs a way out.
  # checkov:skip=CKV_AWS_173:The environment holds limits and names; the model key is in Secrets Manager or SSM.
  # checkov:skip=CKV_AWS_272:The zip comes with its hash, from the applier's own machine or a bucket; code signing would need a signing profile in each account.
  region = var.region
  tags   = local.tags

  function_name = local.worker_name
  description   = "Works on the jobs of ${var.prefix}"
  role          = aws_iam_role.worker.arn
  runtime       = "provided.al2023"
  handler       = "bootstrap"
  architectures = [var.worker.architecture]
  timeout       = var.worker.timeout_s
  memory_size   = var.worker.memory_mb
  publish       = true # Each change is a version; the alias says which one works.

  # The hash says whether there is something to deploy: of the file that is sent, or what Lambda has to have loaded.
  filename          = var.worker_package == null ? local.worker_zip : null
  source_code_hash  = var.worker_package == null && fileexists(local.worker_zip) ? filebase64sha256(local.worker_zip) : null
  s3_bucket         = one(var.worker_package[*].bucket)
  s3_key            = one(var.worker_package[*].key)
  s3_object_version = one(var.worker_package[*].version)
  code_sha256       = one(var.worker_package[*].sha256_base64)

  reserved_concurrent_executions = coalesce(var.worker.reserved_concurrency, -1) # -1: none

  environment {
    variables = { for name, value in local.worker_environment : name => tostring(value) if value != null }
  }

  logging_config {
    log_format = "JSON"
    log_group  = aws_cloudwatch_log_group.worker.name

    application_log_level = local.function_log_level
  }

  dynamic "vpc_config" {
    for_each = var.network[*]

    content {
      subnet_ids         = vpc_config.value.subnet_ids
      security_group_ids = vpc_config.value.security_group_ids
    }
  }

  # Lambda tries the role when the function is made, and would make a log group of its own if ours came later.
  depends_on = [aws_iam_role_policy.worker]

  lifecycle {
    precondition {
      condition     = var.worker_package != null || fileexists(local.worker_zip)
      error_message = "There is no ${local.worker_zip}. Run scripts/build for ${var.worker.architecture}, set artifacts_dir to where the zips are, or worker_package to where one is in S3."
    }
    precondition {
      condition     = 2 * var.limits.call_timeout_s + var.limits.backoff_ms_max / 1000 + var.limits.deadline_margin_s <= var.worker.timeout_s
      error_message = "A call that needs a second try would never fit into an invocation: 2 × limits.call_timeout_s + limits.backoff_ms_max + limits.deadline_margin_s (${2 * var.limits.call_timeout_s + var.limits.backoff_ms_max / 1000 + var.limits.deadline_margin_s} s) must fit into worker.timeout_s (${var.worker.timeout_s} s). Raise worker.timeout_s (at most 900, with queues.visibility_timeout_s), or lower limits.call_timeout_s."
    }
    precondition {
      condition     = local.model_price_known
      error_message = "The price of model ${var.model.id} is not known, so the spend cap would not hold. Set model.input_usd_per_mtok and model.output_usd_per_mtok (USD per million tokens), or choose a model of crates/models/src/prices.json."
    }
    precondition {
      condition     = var.worker.reserved_concurrency == null ? true : var.worker.reserved_concurrency >= var.queues.maximum_concurrency
      error_message = "Lambda would throttle its own event source: worker.reserved_concurrency must be at least queues.maximum_concurrency (${var.queues.maximum_concurrency})."
    }
    precondition {
      # Lambda keeps 100 executions of an account unreserved.
      condition     = var.worker.reserved_concurrency == null ? true : coalesce(var.worker.account_concurrency, 0) - var.worker.reserved_concurrency >= 100
      error_message = "Lambda keeps 100 executions of an account unreserved: set worker.account_concurrency to the account's limit (aws lambda get-account-settings), and worker.reserved_concurrency to at most that less 100, or to null."
    }
    postcondition {
      # Nothing that depends on the function is touched when this fails, so that `live` stays where it is.
      condition     = var.worker_package == null ? true : self.code_sha256 == var.worker_package.sha256_base64
      error_message = "Lambda loaded another zip than worker_package.sha256_base64 says (it has ${coalesce(self.code_sha256, "none")}); live points at what it did before. Correct the hash, the key or the version of worker_package."
    }
  }
}

resource "aws_lambda_alias" "live" {
  region = var.region

  name             = "live"
  description      = "The version that works on jobs; rolling back is pointing it at an older one"
  function_name    = aws_lambda_function.worker.function_name
  function_version = aws_lambda_function.worker.version
}

# The sentinel asks asynchronously for a probe, and asks again where one is lost: Lambda itself need not try again.
resource "aws_lambda_function_event_invoke_config" "worker" {
  region = var.region

  function_name                = aws_lambda_function.worker.function_name
  qualifier                    = aws_lambda_alias.live.name
  maximum_retry_attempts       = 0
  maximum_event_age_in_seconds = 60
}

resource "aws_lambda_event_source_mapping" "worker" {
  region = var.region
  tags   = local.tags

  event_source_arn                   = aws_sqs_queue.jobs.arn
  function_name                      = aws_lambda_alias.live.arn
  batch_size                         = var.queues.batch_size
  maximum_batching_window_in_seconds = var.queues.batch_window_s
  function_response_types            = ["ReportBatchItemFailures"]

  scaling_config {
    maximum_concurrency = var.queues.maximum_concurrency
  }

  lifecycle {
    # An operator or the sentinel disables it to pause the stack; an apply in the middle of an incident must not switch it
    # on again.
    ignore_changes = [enabled]

    precondition {
      condition     = var.queues.batch_size <= 10 || var.queues.batch_window_s >= 1
      error_message = "Lambda takes a queues.batch_size over 10 only with a window: set queues.batch_window_s to at least 1, or batch_size to at most 10."
    }
    precondition {
      condition     = var.model.requests_per_minute == 0 || var.queues.maximum_concurrency <= var.model.requests_per_minute
      error_message = "Each environment gets its share of the provider's limit, and less than one request a minute is none: queues.maximum_concurrency (${var.queues.maximum_concurrency}) must not exceed model.requests_per_minute (${var.model.requests_per_minute})."
    }
    precondition {
      # For the sentinel and a redrive.
      condition     = var.worker.account_concurrency == null ? true : var.queues.maximum_concurrency <= var.worker.account_concurrency - 2
      error_message = "The sentinel and a redrive need executions too: queues.maximum_concurrency (${var.queues.maximum_concurrency}) must leave two of worker.account_concurrency (${coalesce(var.worker.account_concurrency, 0)}). Lower the first, or ask AWS for more executions (Service Quotas, AWS Lambda, Concurrent executions) and raise the second."
    }
    precondition {
      # Half of what SQS allows in flight (120,000); beyond that it stops delivering without an error.
      condition     = var.queues.batch_size * var.queues.maximum_concurrency <= 60000
      error_message = "queues.batch_size × queues.maximum_concurrency (${var.queues.batch_size * var.queues.maximum_concurrency}) must be at most 60000: SQS allows 120,000 messages in flight, and jobs that wait for a hand-back are among them."
    }
  }
}
