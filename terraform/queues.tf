# jobs ──(the worker, with a reason)──▶ dead-letters
#   └────(SQS, after max_receive_count)──▶ crashed
#
# Two queues for what failed, because they mean different things: in dead-letters the worker says why, in crashed nobody
# could. The depth of crashed is the number of unexplained failures.

locals {
  day_s = 86400

  # Hand-backs of a job that waits for capacity all the time that it may, at the longest delay.
  hand_backs = ceil(var.limits.capacity_wait_s_max / var.limits.hand_back_s_max)

  sender_principals = { for name, sender in var.senders : name => {
    for kind, who in { AWS = sort(sender.principals), Service = sender.service[*] } : kind => who if length(who) > 0
  } }

  sender_statements = [for name, sender in var.senders : {
    Sid       = "Sender${name}"
    Effect    = "Allow"
    Principal = local.sender_principals[name]
    Action    = "sqs:SendMessage"
    Resource  = aws_sqs_queue.jobs.arn
    # A service sends for whoever asks it to: only for these sources in these accounts.
    Condition = { for test, values in {
      ArnLike      = { "aws:SourceArn" = sort(sender.source_arns) }
      StringEquals = { "aws:SourceAccount" = length(sender.source_accounts) > 0 ? sort(sender.source_accounts) : [local.account] }
    } : test => values if sender.service != null }
  }]
}

resource "aws_sqs_queue" "jobs" {
  region = var.region
  tags   = local.tags

  name                       = "${var.prefix}-jobs"
  visibility_timeout_seconds = var.queues.visibility_timeout_s
  message_retention_seconds  = var.queues.retention_days * local.day_s
  max_message_size           = 1048576 # 1 MiB, SQS's own limit; the provider's default is a quarter of it.
  receive_wait_time_seconds  = 20

  redrive_policy = jsonencode({
    deadLetterTargetArn = aws_sqs_queue.crashed.arn
    maxReceiveCount     = var.queues.max_receive_count
  })
  redrive_allow_policy = jsonencode({ redrivePermission = "denyAll" })

  sqs_managed_sse_enabled           = var.customer_key ? null : true
  kms_master_key_id                 = local.key_arn
  kms_data_key_reuse_period_seconds = var.customer_key ? 300 : null

  lifecycle {
    precondition {
      condition     = var.queues.visibility_timeout_s >= 6 * var.worker.timeout_s + var.queues.batch_window_s
      error_message = "A job could become visible while it is worked on: queues.visibility_timeout_s (${var.queues.visibility_timeout_s}) must be at least 6 × worker.timeout_s + queues.batch_window_s (${6 * var.worker.timeout_s + var.queues.batch_window_s}). Raise it, or lower worker.timeout_s."
    }
    precondition {
      condition     = var.queues.max_receive_count * var.queues.visibility_timeout_s + var.limits.capacity_wait_s_max <= var.queues.retention_days * local.day_s
      error_message = "SQS could delete a job that is still being tried: queues.max_receive_count × queues.visibility_timeout_s + limits.capacity_wait_s_max (${var.queues.max_receive_count * var.queues.visibility_timeout_s + var.limits.capacity_wait_s_max} s) must fit into queues.retention_days (${var.queues.retention_days * local.day_s} s). Raise retention_days, or lower one of the other three."
    }
    precondition {
      condition     = var.queues.max_receive_count > 2 * local.hand_backs
      error_message = "Waiting for capacity could use up the receives: queues.max_receive_count (${var.queues.max_receive_count}) must exceed twice the hand-backs that limits.capacity_wait_s_max ÷ limits.hand_back_s_max allows (2 × ${local.hand_backs}). Raise max_receive_count or hand_back_s_max, or lower capacity_wait_s_max."
    }
  }
}

resource "aws_sqs_queue" "dead_letters" {
  region = var.region
  tags   = local.tags

  name                       = "${var.prefix}-dead-letters"
  visibility_timeout_seconds = 60 # For a person or a tool that looks; nothing consumes this queue.
  message_retention_seconds  = var.queues.dead_letter_retention_days * local.day_s
  max_message_size           = 1048576
  receive_wait_time_seconds  = 20

  sqs_managed_sse_enabled           = var.customer_key ? null : true
  kms_master_key_id                 = local.key_arn
  kms_data_key_reuse_period_seconds = var.customer_key ? 300 : null

  lifecycle {
    precondition {
      condition     = var.queues.dead_letter_retention_days > var.queues.retention_days
      error_message = "queues.dead_letter_retention_days (${var.queues.dead_letter_retention_days}) must exceed queues.retention_days (${var.queues.retention_days}), or a job could be gone before anyone looks. Raise the first (at most 14), or lower the second."
    }
  }
}

resource "aws_sqs_queue" "crashed" {
  region = var.region
  tags   = local.tags

  name                       = "${var.prefix}-crashed"
  visibility_timeout_seconds = 60
  message_retention_seconds  = var.queues.dead_letter_retention_days * local.day_s
  max_message_size           = 1048576
  receive_wait_time_seconds  = 20

  # SQS moves messages back only from a queue that is some queue's dead-letter target. dead-letters is filled by the
  # worker and would be nobody's, so crashed names it; 1000 (SQS's limit) because looking at a message counts as a receive.
  redrive_policy = jsonencode({
    deadLetterTargetArn = aws_sqs_queue.dead_letters.arn
    maxReceiveCount     = 1000
  })

  sqs_managed_sse_enabled           = var.customer_key ? null : true
  kms_master_key_id                 = local.key_arn
  kms_data_key_reuse_period_seconds = var.customer_key ? 300 : null
}

# Resources of their own, because each names the queue that names it.
resource "aws_sqs_queue_redrive_allow_policy" "crashed" {
  region = var.region

  queue_url = aws_sqs_queue.crashed.id

  redrive_allow_policy = jsonencode({ redrivePermission = "byQueue", sourceQueueArns = [aws_sqs_queue.jobs.arn] })
}

resource "aws_sqs_queue_redrive_allow_policy" "dead_letters" {
  region = var.region

  queue_url = aws_sqs_queue.dead_letters.id

  redrive_allow_policy = jsonencode({ redrivePermission = "byQueue", sourceQueueArns = [aws_sqs_queue.crashed.arn] })
}

resource "aws_sqs_queue_policy" "tls_only" {
  for_each = {
    jobs         = aws_sqs_queue.jobs
    dead_letters = aws_sqs_queue.dead_letters
    crashed      = aws_sqs_queue.crashed
  }

  region = var.region

  queue_url = each.value.id

  policy = jsonencode({
    Version = "2012-10-17"
    Statement = concat([{
      Sid       = "RefusePlainHttp"
      Effect    = "Deny"
      Principal = "*"
      Action    = "sqs:*"
      Resource  = each.value.arn
      Condition = { Bool = { "aws:SecureTransport" = "false" } }
    }], each.key == "jobs" ? local.sender_statements : [])
  })
}
