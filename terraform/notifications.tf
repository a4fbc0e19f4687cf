# page: a person is needed now. ticket: it can wait for the morning.
#
# Not under the AWS-managed key alias/aws/sns: its policy cannot be changed and does not admit CloudWatch, so that an
# alarm's notification would fail without a sound. A customer key admits it (encryption.tf); without one the topics are
# not encrypted at rest, and carry alarm names and numbers only.

locals {
  severities = ["page", "ticket"]

  # Spelt out and not <prefix>-*, which would also be the alarms of a stack called <prefix>-test.
  alarm_name_arns = [for page in keys(local.alarms) : "arn:${local.partition}:cloudwatch:${local.region}:${local.account}:alarm:${var.prefix}-${page}"]

  subscriptions = merge(
    { for address in var.page_emails : "page ${address}" => { severity = "page", address = address } },
    { for address in var.ticket_emails : "ticket ${address}" => { severity = "ticket", address = address } },
  )
}

locals {
  alarm_actions = { for severity, topic in aws_sns_topic.severity : severity => concat([topic.arn], sort(var.notify[severity].actions)) }
}

resource "aws_sns_topic" "severity" {
  for_each = toset(local.severities)

  region = var.region
  tags   = local.tags

  name              = "${var.prefix}-${each.key}"
  kms_master_key_id = local.key_arn
}

resource "aws_sns_topic_policy" "severity" {
  for_each = aws_sns_topic.severity

  region = var.region

  arn = each.value.arn

  policy = jsonencode({
    Version = "2012-10-17"
    Statement = [
      {
        Sid       = "AlarmsOfThisStackPublish"
        Effect    = "Allow"
        Principal = { Service = "cloudwatch.amazonaws.com" }
        Action    = "sns:Publish"
        Resource  = each.value.arn
        Condition = {
          StringEquals = { "aws:SourceAccount" = local.account }
          ArnEquals    = { "aws:SourceArn" = local.alarm_name_arns }
        }
      },
      {
        Sid       = "RefusePlainHttp"
        Effect    = "Deny"
        Principal = "*"
        Action    = "sns:Publish"
        Resource  = each.value.arn
        Condition = { Bool = { "aws:SecureTransport" = "false" } }
      },
    ]
  })
}

resource "aws_sns_topic_subscription" "https" {
  for_each = merge([for severity, to in var.notify : { for address in to.https : "${severity} ${address}" => { severity = severity, address = address } }]...)

  region = var.region

  topic_arn              = aws_sns_topic.severity[each.value.severity].arn
  protocol               = "https"
  endpoint               = each.value.address
  endpoint_auto_confirms = true

  confirmation_timeout_in_minutes = 5 # The provider's one minute is short for a service that confirms by and by.
}

resource "aws_sns_topic_subscription" "email" {
  for_each = local.subscriptions

  region = var.region

  topic_arn = aws_sns_topic.severity[each.value.severity].arn
  protocol  = "email"
  endpoint  = each.value.address
}
