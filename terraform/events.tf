# What became of jobs, as events on a bus of their own, for those who act on results. Off unless `events` is set.
#
# The table's stream goes through a pipe to the bus, with no function of ours: a pipe filters, shapes and retries by itself.
# events.schema.json is the message. It comes at least once and in no order; who receives it knows the key and the version.
#
# Each pipe's filters let through a change of state alone. DynamoDB's numbers are strings in a stream, so filters compare
# words; the size of a stream record is a number of its own. ("Using event filtering with a DynamoDB event source")

locals {
  bus_name = "${var.prefix}-results"
  bus_arn  = "arn:${local.partition}:events:${local.region}:${local.account}:event-bus/${local.bus_name}"

  # EventBridge takes 256 KB in a request, all of its entries together ("PutEvents"; newer pages say 1 MB of an entry). A
  # stream record has both images, and as JSON in JSON an output at most doubles: up to this size one fits, and so the pipe
  # that sends outputs sends one in a request. What is larger comes without its output.
  event_record_bytes_max = 120000

  # A numeric comparison belongs to the pattern, and jsonencode would write its sign as an escape.
  event_pipes = { for name, pipe in {
    results = { size = "<=", output = "<$.dynamodb.NewImage.output>", left_out = false, batch = 1 }
    large   = { size = ">", output = null, left_out = true, batch = 10 } # As many as a bus takes in one request.
    } : name => {
    name  = name == "results" ? local.bus_name : "${local.bus_name}-${name}"
    batch = pipe.batch

    patterns = [for images in local.changes_of_state : replace(replace(jsonencode({
      dynamodb = merge(images, { SizeBytes = [{ numeric = [pipe.size, local.event_record_bytes_max] }] })
    }), "\\u003c", "<"), "\\u003e", ">")]

    # What strangers write comes as DynamoDB's own object, {"S": "…"}: an object is serialised as JSON, while strings are not
    # escaped. ("Amazon EventBridge Pipes input transformation") What a record does not have "won't appear in the output".
    template = format("{%s}", join(", ", [for member, path in merge(local.event_members, { output = pipe.output, output_left_out = pipe.left_out }) : "\"${member}\": ${path}" if path != null]))
  } }

  changes_of_state = [
    # Failed at once: there was no record.
    { NewImage = { state = { S = ["done", "failed"] } }, OldImage = { id = { S = [{ exists = false }] } } },
    { NewImage = { state = { S = ["done"] } }, OldImage = { state = { S = [{ anything-but = ["done"] }] } } },
    { NewImage = { state = { S = ["failed"] } }, OldImage = { state = { S = [{ anything-but = ["failed"] }] } } },
    # A person looked at a result.
    { NewImage = { state = { S = ["done"] }, reviewed = { BOOL = [true] } }, OldImage = { state = { S = ["done"] }, reviewed = { BOOL = [false] } } },
  ]

  event_members = {
    key            = "<$.dynamodb.Keys.id.S>"
    version        = "<$.dynamodb.NewImage.version.N>"
    state          = "<$.dynamodb.NewImage.state.S>"
    task           = "<$.dynamodb.NewImage.task>"
    reference      = "<$.dynamodb.NewImage.reference>"
    needs_review   = "<$.dynamodb.NewImage.needs_review.BOOL>"
    reviewed       = "<$.dynamodb.NewImage.reviewed.BOOL>"
    reason         = "<$.dynamodb.NewImage.reason.S>"
    model          = "<$.dynamodb.NewImage.model.S>"
    cost_micro_usd = "<$.dynamodb.NewImage.cost_micro_usd.N>"
    finished_at_ms = "<$.dynamodb.NewImage.finished_at_ms.N>"
    failed_at_ms   = "<$.dynamodb.NewImage.failed_at_ms.N>"
  }
}

resource "aws_cloudwatch_event_bus" "results" {
  count = var.events ? 1 : 0

  region = var.region
  tags   = local.tags

  name               = local.bus_name
  description        = "What became of the jobs of ${var.prefix}"
  kms_key_identifier = local.key_arn
}

# Where the pipes say which records they gave up: not the records, but where they stand in the stream, for a day.
resource "aws_sqs_queue" "events_failed" {
  count = var.events ? 1 : 0

  region = var.region
  tags   = local.tags

  name                       = "${var.prefix}-events-failed"
  visibility_timeout_seconds = 60
  message_retention_seconds  = var.queues.dead_letter_retention_days * local.day_s
  receive_wait_time_seconds  = 20
  redrive_allow_policy       = jsonencode({ redrivePermission = "denyAll" })

  sqs_managed_sse_enabled           = var.customer_key ? null : true
  kms_master_key_id                 = local.key_arn
  kms_data_key_reuse_period_seconds = var.customer_key ? 300 : null
}

resource "aws_sqs_queue_policy" "events_failed" {
  count = length(aws_sqs_queue.events_failed)

  region = var.region

  queue_url = aws_sqs_queue.events_failed[0].id

  policy = jsonencode({
    Version = "2012-10-17"
    Statement = [{
      Sid       = "RefusePlainHttp"
      Effect    = "Deny"
      Principal = "*"
      Action    = "sqs:*"
      Resource  = aws_sqs_queue.events_failed[0].arn
      Condition = { Bool = { "aws:SecureTransport" = "false" } }
    }]
  })
}

resource "aws_iam_role" "events" {
  count = var.events ? 1 : 0

  tags = local.tags

  name        = "${var.prefix}-events-${local.global_suffix}"
  description = "What the pipes of ${var.prefix} may do"

  path                 = var.iam.path
  permissions_boundary = var.iam.permissions_boundary

  assume_role_policy = jsonencode({
    Version = "2012-10-17"
    Statement = [{
      Effect    = "Allow"
      Principal = { Service = "pipes.amazonaws.com" }
      Action    = "sts:AssumeRole"
      Condition = { # Not for somebody else's pipe.
        StringEquals = { "aws:SourceAccount" = local.account }
        ArnEquals    = { "aws:SourceArn" = [for pipe in local.event_pipes : "arn:${local.partition}:pipes:${local.region}:${local.account}:pipe/${pipe.name}"] }
      }
    }]
  })
}

resource "aws_iam_role_policy" "events" {
  count = length(aws_iam_role.events)

  name = "events"
  role = aws_iam_role.events[0].id

  policy = jsonencode({
    Version = "2012-10-17"
    Statement = [
      {
        Sid      = "ReadTheStream" # "Event source permissions for Amazon EventBridge Pipes"
        Effect   = "Allow"
        Action   = ["dynamodb:DescribeStream", "dynamodb:GetRecords", "dynamodb:GetShardIterator", "dynamodb:ListStreams"]
        Resource = [aws_dynamodb_table.ledger.stream_arn]
      },
      {
        Sid      = "SendEvents"
        Effect   = "Allow"
        Action   = ["events:PutEvents"]
        Resource = [aws_cloudwatch_event_bus.results[0].arn]
      },
      {
        Sid      = "SayWhatWasGivenUp"
        Effect   = "Allow"
        Action   = ["sqs:SendMessage"]
        Resource = [aws_sqs_queue.events_failed[0].arn]
      },
    ]
  })
}

# A pipe tries its role on its stream when it is made, and for more than 90 seconds a new stream or a new policy is refused:
# "Cannot access stream" (hashicorp/terraform-provider-aws, issue 40572). So the pipes of a new stream, or of a new role, wait.
resource "terraform_data" "stream_is_open" {
  count = length(aws_iam_role.events)

  triggers_replace = [aws_dynamodb_table.ledger.stream_arn, aws_iam_role.events[0].unique_id]

  depends_on = [aws_iam_role_policy.events]

  provisioner "local-exec" {
    command = "sleep $${NIGHTSHIFT_STREAM_WAIT_S:-120}" # 0 where something stands in for AWS.
  }
}

resource "aws_pipes_pipe" "events" {
  for_each = { for key, pipe in local.event_pipes : key => pipe if var.events }

  region = var.region
  tags   = local.tags

  name        = each.value.name
  description = each.key == "large" ? "Results of ${var.prefix} that are too large to come with their output" : "Results, reviews and dead letters of ${var.prefix}"
  role_arn    = aws_iam_role.events[0].arn
  # A table that gets another view of its stream gets another stream: then the pipes are replaced, and the plan says so.
  source = aws_dynamodb_table.ledger.stream_arn
  target = aws_cloudwatch_event_bus.results[0].arn

  source_parameters {
    dynamodb_stream_parameters {
      # So that nothing is between a new stream and its pipes; a pipe that is replaced repeats the last day's events.
      starting_position      = "TRIM_HORIZON"
      batch_size             = each.value.batch
      parallelization_factor = 10 # Its highest, batches of one shard at a time: one by one, a burst would take long.

      # One record that cannot be sent holds up those behind it in its shard. So the batch is halved until that one is alone,
      # given up after its attempts, and named in the queue. What AWS itself fails at is tried again for as long as the
      # stream has it, a day, and is none of these attempts.
      on_partial_batch_item_failure = "AUTOMATIC_BISECT"
      maximum_retry_attempts        = 10
      maximum_record_age_in_seconds = 12 * local.hour_s

      dead_letter_config {
        arn = aws_sqs_queue.events_failed[0].arn
      }
    }

    filter_criteria {
      dynamic "filter" {
        for_each = each.value.patterns

        content {
          pattern = filter.value
        }
      }
    }
  }

  target_parameters {
    input_template = each.value.template

    eventbridge_event_bus_parameters {
      source      = "nightshift"
      detail_type = "Job settled"
    }
  }

  depends_on = [aws_iam_role_policy.events, terraform_data.stream_is_open]
}
