# One of each kind of resource that a module like ours has, so that both backends meet all of them.
terraform {
  required_providers {
    aws = {
      source  = "hashicorp/aws"
      version = "~> 6.0"
    }
  }
}

variable "prefix" {
  type    = string
  default = "everything"
}

variable "region" {
  type    = string
  default = "eu-central-1"
}

variable "zip" {
  type = string
}

variable "visibility" {
  type    = number
  default = 1800
}

variable "function_timeout" {
  type    = number
  default = 300
}

variable "protected" {
  type    = bool
  default = false
}

provider "aws" {
  region = var.region
  default_tags {
    tags = { Stack = var.prefix }
  }
}

data "aws_caller_identity" "current" {}
data "aws_region" "current" {}
data "aws_partition" "current" {}

resource "aws_kms_key" "key" {
  description             = "${var.prefix} data"
  enable_key_rotation     = true
  deletion_window_in_days = 7
  policy                  = data.aws_iam_policy_document.key.json
}

data "aws_iam_policy_document" "key" {
  statement {
    sid       = "Account"
    actions   = ["kms:*"]
    resources = ["*"]
    principals {
      type        = "AWS"
      identifiers = ["arn:${data.aws_partition.current.partition}:iam::${data.aws_caller_identity.current.account_id}:root"]
    }
  }
}

resource "aws_kms_alias" "key" {
  name          = "alias/${var.prefix}"
  target_key_id = aws_kms_key.key.key_id
}

resource "aws_sqs_queue" "dead" {
  name                      = "${var.prefix}-dead"
  message_retention_seconds = 1209600
  sqs_managed_sse_enabled   = true
}

resource "aws_sqs_queue" "jobs" {
  name                       = "${var.prefix}-jobs"
  visibility_timeout_seconds = var.visibility
  max_message_size           = 1048576
  kms_master_key_id          = aws_kms_key.key.arn
  tags                       = { Purpose = "jobs" }
}

resource "aws_sqs_queue_redrive_policy" "jobs" {
  queue_url = aws_sqs_queue.jobs.id
  redrive_policy = jsonencode({
    deadLetterTargetArn = aws_sqs_queue.dead.arn
    maxReceiveCount     = 100
  })
}

resource "aws_sqs_queue_redrive_allow_policy" "dead" {
  queue_url = aws_sqs_queue.dead.id
  redrive_allow_policy = jsonencode({
    redrivePermission = "byQueue"
    sourceQueueArns   = [aws_sqs_queue.jobs.arn]
  })
}

data "aws_iam_policy_document" "tls" {
  statement {
    sid       = "TlsOnly"
    effect    = "Deny"
    actions   = ["sqs:*"]
    resources = [aws_sqs_queue.dead.arn]
    principals {
      type        = "*"
      identifiers = ["*"]
    }
    condition {
      test     = "Bool"
      variable = "aws:SecureTransport"
      values   = ["false"]
    }
    condition {
      test     = "StringEquals"
      variable = "aws:RequestedRegion"
      values   = ["nowhere-1"]
    }
  }
}

resource "aws_sqs_queue_policy" "dead" {
  queue_url = aws_sqs_queue.dead.id
  policy    = data.aws_iam_policy_document.tls.json
}

resource "aws_dynamodb_table" "ledger" {
  name                        = "${var.prefix}-ledger"
  billing_mode                = "PAY_PER_REQUEST"
  hash_key                    = "id"
  deletion_protection_enabled = var.protected
  stream_enabled              = true
  stream_view_type            = "NEW_AND_OLD_IMAGES"

  attribute {
    name = "id"
    type = "S"
  }
  attribute {
    name = "unsettled"
    type = "S"
  }
  attribute {
    name = "first_received_ms"
    type = "N"
  }
  global_secondary_index {
    name               = "unsettled"
    hash_key           = "unsettled"
    range_key          = "first_received_ms"
    projection_type    = "INCLUDE"
    non_key_attributes = ["task", "reason", "lease_until_ms"]
  }
  ttl {
    attribute_name = "expires_at"
    enabled        = true
  }
  point_in_time_recovery {
    enabled                 = true
    recovery_period_in_days = 35
  }
  server_side_encryption {
    enabled     = true
    kms_key_arn = aws_kms_key.key.arn
  }
}

data "aws_iam_policy_document" "assume" {
  statement {
    actions = ["sts:AssumeRole"]
    principals {
      type        = "Service"
      identifiers = ["lambda.amazonaws.com"]
    }
  }
}

resource "aws_iam_role" "worker" {
  name               = "${var.prefix}-worker"
  assume_role_policy = data.aws_iam_policy_document.assume.json
}

resource "aws_iam_role_policy" "worker" {
  name = "worker"
  role = aws_iam_role.worker.name
  policy = jsonencode({
    Version = "2012-10-17"
    Statement = [{
      Effect   = "Allow"
      Action   = ["sqs:ReceiveMessage", "sqs:DeleteMessage", "sqs:GetQueueAttributes"]
      Resource = aws_sqs_queue.jobs.arn
    }]
  })
}

resource "aws_iam_policy" "producer" {
  name = "${var.prefix}-producer"
  policy = jsonencode({
    Version   = "2012-10-17"
    Statement = [{ Effect = "Allow", Action = "sqs:SendMessage", Resource = aws_sqs_queue.jobs.arn }]
  })
}

resource "aws_iam_role_policy_attachment" "worker" {
  role       = aws_iam_role.worker.name
  policy_arn = aws_iam_policy.producer.arn
}

resource "aws_cloudwatch_log_group" "worker" {
  name              = "/aws/lambda/${var.prefix}-worker"
  retention_in_days = 30
}

resource "aws_lambda_function" "worker" {
  function_name    = "${var.prefix}-worker"
  role             = aws_iam_role.worker.arn
  runtime          = "provided.al2023"
  handler          = "bootstrap"
  architectures    = ["x86_64"]
  filename         = var.zip
  source_code_hash = filebase64sha256(var.zip)
  timeout          = var.function_timeout
  memory_size      = 256
  publish          = true

  environment {
    variables = { QUEUE = aws_sqs_queue.jobs.url }
  }
  logging_config {
    log_format = "JSON"
    log_group  = aws_cloudwatch_log_group.worker.name
  }
  tracing_config {
    mode = "Active"
  }
}

resource "aws_lambda_alias" "live" {
  name             = "live"
  function_name    = aws_lambda_function.worker.function_name
  function_version = aws_lambda_function.worker.version
}

resource "aws_lambda_function_event_invoke_config" "live" {
  function_name          = aws_lambda_function.worker.function_name
  qualifier              = aws_lambda_alias.live.name
  maximum_retry_attempts = 0
}

resource "aws_lambda_event_source_mapping" "jobs" {
  event_source_arn        = aws_sqs_queue.jobs.arn
  function_name           = aws_lambda_alias.live.arn
  batch_size              = 10
  function_response_types = ["ReportBatchItemFailures"]
  scaling_config {
    maximum_concurrency = 10
  }
  depends_on = [aws_iam_role_policy.worker]
}

resource "aws_lambda_permission" "events" {
  statement_id  = "events"
  action        = "lambda:InvokeFunction"
  function_name = aws_lambda_function.worker.function_name
  qualifier     = aws_lambda_alias.live.name
  principal     = "events.amazonaws.com"
  source_arn    = "arn:aws:events:${data.aws_region.current.region}:${data.aws_caller_identity.current.account_id}:rule/x"
}

resource "aws_secretsmanager_secret" "key" {
  name                    = "${var.prefix}/model-key"
  description             = "The key of the model provider"
  recovery_window_in_days = 0
}

resource "aws_secretsmanager_secret_policy" "key" {
  secret_arn = aws_secretsmanager_secret.key.arn
  policy = jsonencode({
    Version = "2012-10-17"
    Statement = [{
      Effect    = "Deny"
      Principal = "*"
      Action    = "secretsmanager:GetSecretValue"
      Resource  = "*"
      Condition = { Bool = { "aws:SecureTransport" = "false" }, StringEquals = { "aws:RequestedRegion" = "nowhere-1" } }
    }]
  })
}

resource "aws_sns_topic" "page" {
  name              = "${var.prefix}-page"
  kms_master_key_id = aws_kms_key.key.id
}

data "aws_iam_policy_document" "page" {
  statement {
    actions   = ["sns:Publish"]
    resources = [aws_sns_topic.page.arn]
    principals {
      type        = "Service"
      identifiers = ["cloudwatch.amazonaws.com"]
    }
  }
}

resource "aws_sns_topic_policy" "page" {
  arn    = aws_sns_topic.page.arn
  policy = data.aws_iam_policy_document.page.json
}

resource "aws_sns_topic_subscription" "email" {
  topic_arn = aws_sns_topic.page.arn
  protocol  = "email"
  endpoint  = "someone@example.com"
}

resource "aws_cloudwatch_metric_alarm" "simple" {
  alarm_name          = "${var.prefix}-dead-letters-present"
  alarm_description   = "Dead letters wait"
  namespace           = "AWS/SQS"
  metric_name         = "ApproximateNumberOfMessagesVisible"
  dimensions          = { QueueName = aws_sqs_queue.dead.name }
  statistic           = "Maximum"
  period              = 60
  evaluation_periods  = 1
  comparison_operator = "GreaterThanThreshold"
  threshold           = 0
  treat_missing_data  = "notBreaching"
  alarm_actions       = [aws_sns_topic.page.arn]
  ok_actions          = [aws_sns_topic.page.arn]
}

resource "aws_cloudwatch_metric_alarm" "math" {
  alarm_name          = "${var.prefix}-success"
  comparison_operator = "LessThanThreshold"
  threshold           = 0.5
  evaluation_periods  = 3
  datapoints_to_alarm = 2
  metric_query {
    id          = "ratio"
    expression  = "good / total"
    label       = "success"
    return_data = true
  }
  metric_query {
    id = "good"
    metric {
      namespace   = "Nightshift"
      metric_name = "JobsSucceeded"
      dimensions  = { Stack = var.prefix }
      period      = 60
      stat        = "Sum"
    }
  }
  metric_query {
    id = "total"
    metric {
      namespace   = "Nightshift"
      metric_name = "JobsReceived"
      dimensions  = { Stack = var.prefix }
      period      = 60
      stat        = "Sum"
    }
  }
}

resource "aws_cloudwatch_composite_alarm" "both" {
  alarm_name    = "${var.prefix}-both"
  alarm_rule    = "ALARM(${aws_cloudwatch_metric_alarm.simple.alarm_name}) AND ALARM(${aws_cloudwatch_metric_alarm.math.alarm_name})"
  alarm_actions = [aws_sns_topic.page.arn]
}

resource "aws_cloudwatch_dashboard" "main" {
  dashboard_name = var.prefix
  dashboard_body = jsonencode({ widgets = [{ type = "text", x = 0, y = 0, width = 24, height = 2, properties = { markdown = "# ${var.prefix}" } }] })
}

data "aws_iam_policy_document" "scheduler" {
  statement {
    actions = ["sts:AssumeRole"]
    principals {
      type        = "Service"
      identifiers = ["scheduler.amazonaws.com"]
    }
  }
}

resource "aws_iam_role" "scheduler" {
  name               = "${var.prefix}-scheduler"
  assume_role_policy = data.aws_iam_policy_document.scheduler.json
}

resource "aws_scheduler_schedule" "minute" {
  name                = "${var.prefix}-minute"
  schedule_expression = "rate(1 minute)"
  state               = "DISABLED"
  flexible_time_window {
    mode = "OFF"
  }
  target {
    arn      = aws_lambda_alias.live.arn
    role_arn = aws_iam_role.scheduler.arn
    input    = "{}"
    retry_policy {
      maximum_retry_attempts = 0
    }
  }
}

resource "aws_ssm_parameter" "note" {
  name  = "/${var.prefix}/note"
  type  = "String"
  value = "hello"
}

output "queue_url" {
  value = aws_sqs_queue.jobs.url
}

output "table_arn" {
  value = aws_dynamodb_table.ledger.arn
}
