# Everything of the sentinel: role, log group, function, schedule.
#
# It runs each minute, remembers nothing but when it looked, and retries nothing: the next run does what one has missed.
# What it does not do, `sentinel-silent` says, by the heartbeat that is missing.

locals {
  sentinel_name = "${var.prefix}-sentinel"
  sentinel_zip  = "${local.artifacts_dir}/${var.worker.architecture}/sentinel.zip"

  # A run takes a second, and with every request at its timeout half a minute; never as long as it takes to the next one.
  sentinel_timeout_s = 50

  sentinel_environment = {
    NIGHTSHIFT_STACK                    = var.prefix
    NIGHTSHIFT_LOG                      = var.worker.log_level
    NIGHTSHIFT_JOBS_URL                 = aws_sqs_queue.jobs.url
    NIGHTSHIFT_DEAD_LETTERS_URL         = aws_sqs_queue.dead_letters.url
    NIGHTSHIFT_CRASHED_URL              = aws_sqs_queue.crashed.url
    NIGHTSHIFT_LEDGER_TABLE             = aws_dynamodb_table.ledger.name
    NIGHTSHIFT_REDRIVE_FUNCTION         = aws_lambda_function.redrive.function_name
    NIGHTSHIFT_WORKER_FUNCTION          = aws_lambda_function.worker.function_name
    NIGHTSHIFT_WORKER_MAPPING           = aws_lambda_event_source_mapping.worker.uuid
    NIGHTSHIFT_BATCH_SIZE               = var.queues.batch_size
    NIGHTSHIFT_MAXIMUM_CONCURRENCY      = var.queues.maximum_concurrency
    NIGHTSHIFT_SPEND_CAP_USD_PER_DAY    = var.limits.spend_cap_usd_per_day
    NIGHTSHIFT_FUNCTION_TIMEOUT_MS      = var.worker.timeout_s * 1000
    NIGHTSHIFT_LEASE_MARGIN_MS          = var.limits.lease_margin_s * 1000
    NIGHTSHIFT_RETENTION_MS             = var.queues.retention_days * local.day_s * 1000
    NIGHTSHIFT_DEAD_LETTER_RETENTION_MS = var.queues.dead_letter_retention_days * local.day_s * 1000
  }

  sentinel_statements = concat(
    [
      {
        Sid      = "LookAtTheQueues" # Which also keeps them reporting: a queue that nothing calls for six hours falls silent.
        Effect   = "Allow"
        Action   = ["sqs:GetQueueAttributes"]
        Resource = [aws_sqs_queue.jobs.arn, aws_sqs_queue.dead_letters.arn, aws_sqs_queue.crashed.arn]
      },
      {
        Sid      = "LookAtTheLedger"
        Effect   = "Allow"
        Action   = ["dynamodb:BatchGetItem", "dynamodb:GetItem"]
        Resource = [aws_dynamodb_table.ledger.arn]
      },
      {
        Sid      = "FindWhatIsNotSettled"
        Effect   = "Allow"
        Action   = ["dynamodb:Query"]
        Resource = ["${aws_dynamodb_table.ledger.arn}/index/*"]
      },
      {
        Sid      = "Control" # Of the ledger it writes the control record and what it remembers alone.
        Effect   = "Allow"
        Action   = ["dynamodb:UpdateItem"]
        Resource = [aws_dynamodb_table.ledger.arn]
        Condition = {
          "ForAllValues:StringEquals" = { "dynamodb:LeadingKeys" = ["control", "sentinel#watch"] }
        }
      },
      {
        Sid      = "PauseAndReopen" # By the event source alone; what is deployed is Terraform's.
        Effect   = "Allow"
        Action   = ["lambda:GetEventSourceMapping", "lambda:UpdateEventSourceMapping"]
        Resource = [aws_lambda_event_source_mapping.worker.arn]
      },
      {
        Sid      = "KnowWhichVersionIsLive"
        Effect   = "Allow"
        Action   = ["lambda:GetAlias"]
        Resource = [aws_lambda_function.worker.arn]
      },
      {
        Sid      = "DriveRedrivesAndProbe"
        Effect   = "Allow"
        Action   = ["lambda:InvokeFunction"]
        Resource = [aws_lambda_function.redrive.arn, aws_lambda_alias.live.arn]
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
        Resource = ["${aws_cloudwatch_log_group.sentinel.arn}:*"]
      },
    ],
    [for network in var.network[*] : {
      Sid      = "JoinTheNetwork" # As AWSLambdaVPCAccessExecutionRole has it: Lambda makes the interfaces as this role.
      Effect   = "Allow"
      Action   = ["ec2:AssignPrivateIpAddresses", "ec2:CreateNetworkInterface", "ec2:DeleteNetworkInterface", "ec2:DescribeNetworkInterfaces", "ec2:DescribeSubnets", "ec2:UnassignPrivateIpAddresses"]
      Resource = ["*"]
    }],
  )
}

resource "aws_cloudwatch_log_group" "sentinel" {
  region = var.region
  tags   = local.tags

  name              = "/aws/lambda/${local.sentinel_name}"
  retention_in_days = var.worker.log_retention_days
  log_group_class   = var.worker.log_class
  kms_key_id        = local.key_arn
}

resource "aws_iam_role" "sentinel" {
  tags = local.tags

  name        = "${local.sentinel_name}-${local.global_suffix}"
  description = "What the sentinel of ${var.prefix} may do"

  path                 = var.iam.path
  permissions_boundary = var.iam.permissions_boundary
  assume_role_policy   = local.function_trust
}

resource "aws_iam_role_policy" "sentinel" {
  name = "sentinel"
  role = aws_iam_role.sentinel.id

  policy = jsonencode({
    Version   = "2012-10-17"
    Statement = local.sentinel_statements
  })
}

resource "aws_lambda_function" "sentinel" {
  # checkov:skip=CKV_AWS_50:It makes no X-Ray segments; its log lines and its gauges say what a trace would.
  # checkov:skip=CKV_AWS_115:Two runs at once do no harm, and a new account has no concurrency to reserve.
  # checkov:skip=CKV_AWS_116:A run that failed is not worth keeping: the next one is a minute away.
  # checkov:skip=CKV_AWS_117:It calls AWS over public endpoints; in a VPC (network) it needs a way out.
  # checkov:skip=CKV_AWS_173:The environment holds limits and names.
  # checkov:skip=CKV_AWS_272:The zip comes with its hash, from the applier's own machine or a bucket; code signing would need a signing profile in each account.
  region = var.region
  tags   = local.tags

  function_name = local.sentinel_name
  description   = "Sees what no invocation sees of ${var.prefix}, each minute"
  role          = aws_iam_role.sentinel.arn
  runtime       = "provided.al2023"
  handler       = "bootstrap"
  architectures = [var.worker.architecture]
  timeout       = local.sentinel_timeout_s
  memory_size   = 256

  # The hash says whether there is something to deploy: of the file that is sent, or what Lambda has to have loaded.
  filename          = var.sentinel_package == null ? local.sentinel_zip : null
  source_code_hash  = var.sentinel_package == null && fileexists(local.sentinel_zip) ? filebase64sha256(local.sentinel_zip) : null
  s3_bucket         = one(var.sentinel_package[*].bucket)
  s3_key            = one(var.sentinel_package[*].key)
  s3_object_version = one(var.sentinel_package[*].version)
  code_sha256       = one(var.sentinel_package[*].sha256_base64)

  environment {
    variables = { for name, value in local.sentinel_environment : name => tostring(value) if value != null }
  }

  logging_config {
    log_format = "JSON"
    log_group  = aws_cloudwatch_log_group.sentinel.name

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
  depends_on = [aws_iam_role_policy.sentinel]

  lifecycle {
    precondition {
      condition     = var.sentinel_package != null || fileexists(local.sentinel_zip)
      error_message = "There is no ${local.sentinel_zip}. Run scripts/build for ${var.worker.architecture}, set artifacts_dir to where the zips are, or sentinel_package to where one is in S3."
    }
  }
}

# The scheduler invokes asynchronously, and Lambda itself would then try twice more what failed, and keep what found no
# execution for six hours. ("Invoke a Lambda function on a schedule")
resource "aws_lambda_function_event_invoke_config" "sentinel" {
  region = var.region

  function_name                = aws_lambda_function.sentinel.function_name
  maximum_retry_attempts       = 0
  maximum_event_age_in_seconds = 60
}

resource "aws_iam_role" "sentinel_schedule" {
  tags = local.tags

  name        = "${local.sentinel_name}-schedule-${local.global_suffix}"
  description = "What the schedule of the sentinel of ${var.prefix} may do"

  path                 = var.iam.path
  permissions_boundary = var.iam.permissions_boundary

  assume_role_policy = jsonencode({
    Version = "2012-10-17"
    Statement = [{
      Effect    = "Allow"
      Principal = { Service = "scheduler.amazonaws.com" }
      Action    = "sts:AssumeRole"
      Condition = { StringEquals = { "aws:SourceAccount" = local.account } } # Not for somebody else's schedule.
    }]
  })
}

resource "aws_iam_role_policy" "sentinel_schedule" {
  name = "invoke"
  role = aws_iam_role.sentinel_schedule.id

  policy = jsonencode({
    Version = "2012-10-17"
    Statement = [{
      Sid      = "RunTheSentinel"
      Effect   = "Allow"
      Action   = ["lambda:InvokeFunction"]
      Resource = [aws_lambda_function.sentinel.arn]
    }]
  })
}

resource "aws_scheduler_schedule" "sentinel" {
  # checkov:skip=CKV_AWS_297:It holds the name of a function and an empty object; there is nothing to encrypt.
  region = var.region

  name                = local.sentinel_name
  description         = "Runs the sentinel of ${var.prefix} each minute"
  schedule_expression = "rate(1 minute)"

  flexible_time_window {
    mode = "OFF"
  }

  target {
    arn      = aws_lambda_function.sentinel.arn
    role_arn = aws_iam_role.sentinel_schedule.arn
    input    = "{}"

    retry_policy {
      maximum_event_age_in_seconds = 60
      maximum_retry_attempts       = 0
    }
  }

  depends_on = [aws_iam_role_policy.sentinel_schedule]
}
