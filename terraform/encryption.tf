# Without a customer key everything is still encrypted at rest: queues by SSE-SQS, the table and the logs under keys
# that AWS owns, the secret under aws/secretsmanager. The topics alone are not: see notifications.tf.

locals {
  key_arn = var.customer_key ? coalesce(var.customer_key_arn, one(aws_kms_key.stack[*].arn)) : null

  key_is_ours = var.customer_key && var.customer_key_arn == null

  # What the stack asks of its key; the policy of a key that is not ours has to say the same (output key_statements).
  key_statements = concat(
    [
      {
        # As the keys that AWS manages do it: who may use a queue, the table, a topic or the secret may use the key
        # through that service, and in no other way. CreateGrant is what DynamoDB needs to work in the background.
        Sid       = "AccountUsesThroughServices"
        Effect    = "Allow"
        Principal = { AWS = "*" }
        Action    = ["kms:CreateGrant", "kms:Decrypt", "kms:DescribeKey", "kms:Encrypt", "kms:GenerateDataKey*", "kms:ReEncrypt*"]
        Resource  = "*"
        Condition = {
          StringEquals = {
            "kms:CallerAccount" = local.account
            "kms:ViaService"    = [for service in ["dynamodb", "secretsmanager", "sns", "sqs"] : "${service}.${local.region}.amazonaws.com"]
          }
        }
      },
      {
        # An alarm publishes as CloudWatch itself, not as anyone of the account.
        Sid       = "AlarmsPublish"
        Effect    = "Allow"
        Principal = { Service = "cloudwatch.amazonaws.com" }
        Action    = ["kms:Decrypt", "kms:GenerateDataKey*"]
        Resource  = "*"
        Condition = { StringEquals = { "aws:SourceAccount" = local.account } }
      },
      {
        Sid       = "LogsAreWritten"
        Effect    = "Allow"
        Principal = { Service = "logs.${local.region}.amazonaws.com" }
        Action    = ["kms:Decrypt", "kms:DescribeKey", "kms:Encrypt", "kms:GenerateDataKey*", "kms:ReEncrypt*"]
        Resource  = "*"
        Condition = {
          ArnLike = { "kms:EncryptionContext:aws:logs:arn" = [for name in [local.worker_name, local.redrive_name, local.sentinel_name] : "arn:${local.partition}:logs:${local.region}:${local.account}:log-group:/aws/lambda/${name}"] }
        }
      },
    ],
    # "Authorizing EventBridge to use a customer managed key"
    [for arn in var.events ? [local.bus_arn] : [] : {
      Sid       = "EventsAreKept"
      Effect    = "Allow"
      Principal = { Service = "events.amazonaws.com" }
      Action    = ["kms:Decrypt", "kms:DescribeKey", "kms:GenerateDataKey"]
      Resource  = "*"
      Condition = {
        StringEquals = { "aws:SourceAccount" = local.account }
        ArnEquals    = { "aws:SourceArn" = arn }
      }
    }],
    # Whoever sends encrypts, and decrypts to verify ("Amazon SQS Key management"). Bound to the jobs queue by what SQS tells
    # KMS, and not to the source: EventBridge's requests to KMS do not name theirs. The queue's own policy does that.
    [for name, sender in var.senders : {
      Sid       = "Sender${name}"
      Effect    = "Allow"
      Principal = local.sender_principals[name]
      Action    = ["kms:Decrypt", "kms:GenerateDataKey"]
      Resource  = "*"
      Condition = { StringEquals = { "kms:EncryptionContext:aws:sqs:arn" = "arn:${local.partition}:sqs:${local.region}:${local.account}:${var.prefix}-jobs" } }
    }],
  )

  own_key_statements = concat(
    [{
      # Without this nobody could ever change the key; who in the account may is left to IAM.
      Sid       = "AccountAdministersByIam"
      Effect    = "Allow"
      Principal = { AWS = "arn:${local.partition}:iam::${local.account}:root" }
      Action    = "kms:*"
      Resource  = "*"
    }],
    local.key_statements,
    [for action in ["kms:ScheduleKeyDeletion"] : {
      # What was written under the key can be read only with it. Switching customer_key off in one step would schedule its
      # deletion at once; so the apply fails there, and the key stays (runbook/procedures/customer-key.md).
      Sid       = "NobodyDeletesItWhileItIsUsed"
      Effect    = "Deny"
      Principal = { AWS = "*" }
      Action    = [action]
      Resource  = "*"
    } if local.key_is_ours && var.protect_data],
  )
}

resource "aws_kms_key" "stack" {
  count = local.key_is_ours || var.keep_customer_key ? 1 : 0

  region = var.region
  tags   = local.tags

  description             = "Queues, ledger, topics, logs and secret of ${var.prefix}"
  enable_key_rotation     = true
  deletion_window_in_days = var.protect_data ? 30 : 7

  policy = jsonencode({
    Version   = "2012-10-17"
    Statement = local.own_key_statements
  })
}

resource "aws_kms_alias" "stack" {
  count = length(aws_kms_key.stack)

  region = var.region

  name          = "alias/${var.prefix}"
  target_key_id = aws_kms_key.stack[0].key_id
}
