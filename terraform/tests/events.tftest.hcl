# Results as events: nothing of it by default, and with it the least that it needs. What the filters let through, and the message, are
# shown in tests/events.

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
  protect_data  = false
}

run "off" {
  command = plan

  assert {
    condition     = !aws_dynamodb_table.ledger.stream_enabled && length(aws_cloudwatch_event_bus.results) + length(aws_pipes_pipe.events) + length(aws_iam_role.events) + length(aws_sqs_queue.events_failed) == 0 && !contains(keys(aws_iam_policy.stack), "consumer") && !contains(keys(aws_cloudwatch_metric_alarm.stack), "events-failing")
    error_message = "Who does not ask for events has nothing of them."
  }
}

run "a_stream_of_ones_own_has_new_images" {
  command = plan

  variables {
    ledger = { stream = true }
  }

  assert {
    condition     = aws_dynamodb_table.ledger.stream_view_type == "NEW_IMAGE" && length(aws_pipes_pipe.events) == 0
    error_message = "A reader of one's own needs no pipe."
  }
}

run "on" {
  command = apply

  variables {
    events       = true
    customer_key = true
    iam          = { path = "/teams/a/", permissions_boundary = "arn:aws:iam::123456789012:policy/boundary" }
  }

  assert {
    condition     = aws_dynamodb_table.ledger.stream_enabled && aws_dynamodb_table.ledger.stream_view_type == "NEW_AND_OLD_IMAGES"
    error_message = "Only both images show a change of state."
  }
  assert {
    condition = toset([for pipe in aws_pipes_pipe.events : pipe.name]) == toset(["nightshift-results", "nightshift-results-large"]) && alltrue([for pipe in aws_pipes_pipe.events :
    pipe.source == aws_dynamodb_table.ledger.stream_arn && pipe.target == aws_cloudwatch_event_bus.results[0].arn])
    error_message = "Both pipes lead from the table's stream to the bus."
  }
  assert {
    condition = alltrue([for pipe in aws_pipes_pipe.events : alltrue([for stream in pipe.source_parameters[0].dynamodb_stream_parameters :
      stream.maximum_retry_attempts == 10 && stream.maximum_record_age_in_seconds == 43200 && stream.on_partial_batch_item_failure == "AUTOMATIC_BISECT" && stream.dead_letter_config[0].arn == aws_sqs_queue.events_failed[0].arn
    ])])
    error_message = "One bad record blocks no shard: attempts, age, bisecting and a queue are set."
  }
  assert {
    condition     = { for key, pipe in aws_pipes_pipe.events : key => pipe.source_parameters[0].dynamodb_stream_parameters[0].batch_size } == { results = 1, large = 10 }
    error_message = "What has its output is alone in its request, which takes 256 KB."
  }
  assert {
    condition     = alltrue([for pipe in aws_pipes_pipe.events : length(pipe.source_parameters[0].filter_criteria[0].filter) <= 5 && alltrue([for filter in pipe.source_parameters[0].filter_criteria[0].filter : length(filter.pattern) <= 4096]) && length(pipe.target_parameters[0].input_template) <= 8192])
    error_message = "A pipe takes five filters of 4,096 characters and a template of 8,192."
  }
  assert {
    condition = { for statement in jsondecode(aws_iam_role_policy.events[0].policy).Statement : statement.Sid => [toset(statement.Action), statement.Resource] } == {
      ReadTheStream     = [toset(["dynamodb:DescribeStream", "dynamodb:GetRecords", "dynamodb:GetShardIterator", "dynamodb:ListStreams"]), [aws_dynamodb_table.ledger.stream_arn]]
      SendEvents        = [toset(["events:PutEvents"]), [aws_cloudwatch_event_bus.results[0].arn]]
      SayWhatWasGivenUp = [toset(["sqs:SendMessage"]), [aws_sqs_queue.events_failed[0].arn]]
    }
    error_message = "The role reads the stream, sends to the bus and to its queue, and no more."
  }
  assert {
    condition = one(jsondecode(aws_iam_role.events[0].assume_role_policy).Statement).Condition == {
      StringEquals = { "aws:SourceAccount" = "123456789012" }
      ArnEquals    = { "aws:SourceArn" = ["arn:aws:pipes:eu-central-1:123456789012:pipe/nightshift-results-large", "arn:aws:pipes:eu-central-1:123456789012:pipe/nightshift-results"] }
    } && aws_iam_role.events[0].path == "/teams/a/" && aws_iam_role.events[0].permissions_boundary == "arn:aws:iam::123456789012:policy/boundary"
    error_message = "For these two pipes alone, under the organisation's path and boundary."
  }
  assert {
    condition     = toset(flatten([for statement in jsondecode(aws_iam_policy.stack["consumer"].policy).Statement : statement.Resource])) == toset([aws_cloudwatch_event_bus.results[0].arn, "arn:aws:events:eu-central-1:123456789012:rule/nightshift-results/*"])
    error_message = "A consumer makes rules on this bus alone."
  }
  assert {
    condition     = aws_cloudwatch_event_bus.results[0].kms_key_identifier == aws_kms_key.stack[0].arn && aws_sqs_queue.events_failed[0].kms_master_key_id == aws_kms_key.stack[0].arn
    error_message = "Events and what was given up are under the customer's key."
  }
  assert {
    condition = one([for statement in jsondecode(aws_kms_key.stack[0].policy).Statement : [statement.Principal, statement.Condition] if statement.Sid == "EventsAreKept"]) == [{ Service = "events.amazonaws.com" }, {
      StringEquals = { "aws:SourceAccount" = "123456789012" }
      ArnEquals    = { "aws:SourceArn" = "arn:aws:events:eu-central-1:123456789012:event-bus/nightshift-results" }
    }]
    error_message = "The key admits EventBridge, for this bus."
  }
  assert {
    condition     = one(jsondecode(aws_sqs_queue_policy.events_failed[0].policy).Statement).Sid == "RefusePlainHttp"
    error_message = "The queue refuses plain HTTP."
  }
}
