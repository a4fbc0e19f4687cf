# One record per input hash, the control record and the day's spend. On demand: jobs come in bursts, and an idle table
# costs its storage only.

locals {
  retention_days_max = max(var.queues.retention_days, var.queues.dead_letter_retention_days)
}

resource "aws_dynamodb_table" "ledger" {
  # checkov:skip=CKV_AWS_119:customer_key is the user's choice; without it the table is under a key that AWS owns.
  region = var.region
  tags   = local.tags

  name                        = coalesce(var.ledger.table_name, "${var.prefix}-ledger")
  billing_mode                = "PAY_PER_REQUEST"
  hash_key                    = "id"
  deletion_protection_enabled = var.protect_data

  # With events, both images: only a change of state is one. DynamoDB does not change a view; the stream is made anew.
  stream_enabled   = var.ledger.stream || var.events
  stream_view_type = var.events ? "NEW_AND_OLD_IMAGES" : var.ledger.stream ? "NEW_IMAGE" : null

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

  # Sparse: a finished record has no `unsettled`, unless a person should look at it. It answers what is open, what failed,
  # what waits for review, and since when. A change of it is made in place, and lists are empty until DynamoDB has built it
  # anew; workers do not read it.
  global_secondary_index {
    name               = "unsettled"
    projection_type    = "INCLUDE"
    non_key_attributes = ["failed_at_ms", "finished_at_ms", "lease_until_ms", "reason", "task"]

    key_schema {
      attribute_name = "unsettled"
      key_type       = "HASH"
    }

    key_schema {
      attribute_name = "first_received_ms"
      key_type       = "RANGE"
    }
  }

  # DynamoDB deletes expired items late, by days; the worker compares the time itself.
  ttl {
    attribute_name = "expires_at"
    enabled        = true
  }

  point_in_time_recovery {
    enabled = var.protect_data
  }

  # false: a key that AWS owns, at no charge. Written out, because a table whose block is left out keeps the key that it has.
  server_side_encryption {
    enabled     = var.customer_key
    kms_key_arn = local.key_arn
  }

  lifecycle {
    precondition {
      condition     = min(var.ledger.result_expiry_days, var.ledger.failure_expiry_days) > local.retention_days_max
      error_message = "A message could outlive its record and be paid for twice: ledger.result_expiry_days (${var.ledger.result_expiry_days}) and ledger.failure_expiry_days (${var.ledger.failure_expiry_days}) must both exceed the longer retention in queues (${local.retention_days_max} days)."
    }
  }
}
