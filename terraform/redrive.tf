# Everything of the redrive: role, log group, function.
#
# It is invoked by people (`start`, `show`, `stop`) and, a step at a time, by whatever drives a redrive to its end. It has
# no alias: a step that began under one version may go on under the next.

locals {
  redrive_name = "${var.prefix}-redrive"
  redrive_zip  = "${local.artifacts_dir}/${var.worker.architecture}/redrive.zip"

  # A step works for 30 s at most (crates/core/src/redrive, STEP_MS_MAX) and may begin a page just before; counting a
  # ledger with hundreds of thousands of failures takes longer.
  redrive_timeout_s = 120

  redrive_environment = {
    NIGHTSHIFT_STACK                     = var.prefix
    NIGHTSHIFT_LOG                       = var.worker.log_level
    NIGHTSHIFT_JOBS_URL                  = aws_sqs_queue.jobs.url
    NIGHTSHIFT_DEAD_LETTERS_URL          = aws_sqs_queue.dead_letters.url
    NIGHTSHIFT_CRASHED_URL               = aws_sqs_queue.crashed.url
    NIGHTSHIFT_LEDGER_TABLE              = aws_dynamodb_table.ledger.name
    NIGHTSHIFT_WORKER_FUNCTION           = aws_lambda_function.worker.function_name
    NIGHTSHIFT_WORKER_VERSION            = aws_lambda_function.worker.version
    NIGHTSHIFT_PROVIDER                  = var.model.provider
    NIGHTSHIFT_MODEL                     = var.model.id
    NIGHTSHIFT_MODEL_INPUT_USD_PER_MTOK  = var.model.input_usd_per_mtok
    NIGHTSHIFT_MODEL_OUTPUT_USD_PER_MTOK = var.model.output_usd_per_mtok
    NIGHTSHIFT_PAID_CALL_LIMIT           = var.limits.paid_call_limit
    NIGHTSHIFT_BODY_BYTES_MAX            = var.limits.body_bytes_max
    NIGHTSHIFT_SPEND_CAP_USD_PER_DAY     = var.limits.spend_cap_usd_per_day
    NIGHTSHIFT_FAILURE_EXPIRY_DAYS       = var.ledger.failure_expiry_days
  }

  redrive_statements = concat(
    [
      {
        Sid      = "TakeFrom"
        Effect   = "Allow"
        Action   = ["sqs:ChangeMessageVisibility", "sqs:DeleteMessage", "sqs:GetQueueAttributes", "sqs:ReceiveMessage"]
        Resource = [aws_sqs_queue.dead_letters.arn, aws_sqs_queue.crashed.arn]
      },
      {
        Sid      = "SendTo"
        Effect   = "Allow"
        Action   = ["sqs:SendMessage"]
        Resource = [aws_sqs_queue.jobs.arn]
      },
      {
        Sid      = "KeepTheLedger" # The records of redrives, and those of jobs whose budgets start afresh.
        Effect   = "Allow"
        Action   = ["dynamodb:BatchGetItem", "dynamodb:GetItem", "dynamodb:UpdateItem"]
        Resource = [aws_dynamodb_table.ledger.arn]
      },
      {
        Sid      = "FindFailures"
        Effect   = "Allow"
        Action   = ["dynamodb:Query"]
        Resource = ["${aws_dynamodb_table.ledger.arn}/index/*"]
      },
      {
        Sid      = "KnowWhichVersionIsLive"
        Effect   = "Allow"
        Action   = ["lambda:GetAlias"]
        Resource = [aws_lambda_function.worker.arn]
      },
      {
        Sid      = "WriteLogs" # Not CreateLogGroup: the group is Terraform's, with its retention.
        Effect   = "Allow"
        Action   = ["logs:CreateLogStream", "logs:PutLogEvents"]
        Resource = ["${aws_cloudwatch_log_group.redrive.arn}:*"]
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

resource "aws_cloudwatch_log_group" "redrive" {
  region = var.region
  tags   = local.tags

  name              = "/aws/lambda/${local.redrive_name}"
  retention_in_days = var.worker.log_retention_days
  log_group_class   = var.worker.log_class
  kms_key_id        = local.key_arn
}

resource "aws_iam_role" "redrive" {
  tags = local.tags

  name        = "${local.redrive_name}-${local.global_suffix}"
  description = "What the redrive of ${var.prefix} may do"

  path                 = var.iam.path
  permissions_boundary = var.iam.permissions_boundary
  assume_role_policy   = local.function_trust
}

resource "aws_iam_role_policy" "redrive" {
  name = "redrive"
  role = aws_iam_role.redrive.id

  policy = jsonencode({
    Version   = "2012-10-17"
    Statement = local.redrive_statements
  })
}

# Whoever asks for a step asks for the next one: a step that fails is not tried again beside it, nor kept for hours.
resource "aws_lambda_function_event_invoke_config" "redrive" {
  region = var.region

  function_name                = aws_lambda_function.redrive.function_name
  maximum_retry_attempts       = 0
  maximum_event_age_in_seconds = 60
}

resource "aws_lambda_function" "redrive" {
  # checkov:skip=CKV_AWS_50:It makes no X-Ray segments; its log lines and the redrive's record say what a trace would.
  # checkov:skip=CKV_AWS_115:A step takes a lock, so that one at a time works whatever the concurrency; a new account has none to reserve.
  # checkov:skip=CKV_AWS_116:Whoever drives a redrive invokes the next step anyway; a queue of failed steps would be driven twice.
  # checkov:skip=CKV_AWS_117:It calls AWS over public endpoints; in a VPC (network) it needs a way out.
  # checkov:skip=CKV_AWS_173:The environment holds limits and names.
  # checkov:skip=CKV_AWS_272:The zip comes with its hash, from the applier's own machine or a bucket; code signing would need a signing profile in each account.
  region = var.region
  tags   = local.tags

  function_name = local.redrive_name
  description   = "Puts dead letters of ${var.prefix} back, a step at a time"
  role          = aws_iam_role.redrive.arn
  runtime       = "provided.al2023"
  handler       = "bootstrap"
  architectures = [var.worker.architecture]
  timeout       = local.redrive_timeout_s
  memory_size   = 256 # A page is ten messages of up to 1 MiB, parsed one by one.

  # The hash says whether there is something to deploy: of the file that is sent, or what Lambda has to have loaded.
  filename          = var.redrive_package == null ? local.redrive_zip : null
  source_code_hash  = var.redrive_package == null && fileexists(local.redrive_zip) ? filebase64sha256(local.redrive_zip) : null
  s3_bucket         = one(var.redrive_package[*].bucket)
  s3_key            = one(var.redrive_package[*].key)
  s3_object_version = one(var.redrive_package[*].version)
  code_sha256       = one(var.redrive_package[*].sha256_base64)

  environment {
    variables = { for name, value in local.redrive_environment : name => tostring(value) if value != null }
  }

  logging_config {
    log_format = "JSON"
    log_group  = aws_cloudwatch_log_group.redrive.name

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
  depends_on = [aws_iam_role_policy.redrive]

  lifecycle {
    precondition {
      condition     = var.redrive_package != null || fileexists(local.redrive_zip)
      error_message = "There is no ${local.redrive_zip}. Run scripts/build for ${var.worker.architecture}, set artifacts_dir to where the zips are, or redrive_package to where one is in S3."
    }
  }
}
