# Settings that contradict each other. Each run breaks one rule and no other, so that without its precondition it fails.

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
}

run "defaults_agree" {
  command = plan
}

run "settings_at_their_limits_agree" {
  command = plan

  variables {
    # 6 × 300 + 10; 100 × 1810 + 43200 < 7 d; 97 > 2 × 48.
    queues = { visibility_timeout_s = 1810, batch_window_s = 10, batch_size = 100, max_receive_count = 97, maximum_concurrency = 50 }
    limits = { call_timeout_s = 130 } # 2 × 130 + 30 + 10 = 300
    model  = { requests_per_minute = 50 }
    ledger = { failure_expiry_days = 15 }
    worker = { reserved_concurrency = 50, account_concurrency = 150 }
  }
}

run "visibility_too_short_for_the_function" {
  command = plan

  variables {
    queues = { visibility_timeout_s = 1799 }
  }

  expect_failures = [aws_sqs_queue.jobs]
}

run "visibility_too_short_for_the_window" {
  command = plan

  variables {
    queues = { batch_window_s = 1 }
  }

  expect_failures = [aws_sqs_queue.jobs]
}

run "retention_too_short_for_the_tries" {
  command = plan

  variables {
    # 100 × 1800 + 43200 = 223,200 s is more than two days.
    queues = { retention_days = 2 }
  }

  expect_failures = [aws_sqs_queue.jobs]
}

run "too_few_receives_for_the_wait" {
  command = plan

  variables {
    # 43,200 ÷ 900 = 48 hand-backs.
    queues = { max_receive_count = 96 }
  }

  expect_failures = [aws_sqs_queue.jobs]
}

run "dead_letters_kept_no_longer_than_jobs" {
  command = plan

  variables {
    queues = { retention_days = 7, dead_letter_retention_days = 7 }
  }

  expect_failures = [aws_sqs_queue.dead_letters]
}

run "failures_forgotten_before_their_messages" {
  command = plan

  variables {
    ledger = { failure_expiry_days = 14 }
  }

  expect_failures = [aws_dynamodb_table.ledger]
}

run "results_forgotten_before_their_messages" {
  command = plan

  variables {
    ledger = { result_expiry_days = 14 }
  }

  expect_failures = [aws_dynamodb_table.ledger]
}

run "a_big_batch_without_a_window" {
  command = plan

  variables {
    queues = { batch_size = 11 }
  }

  expect_failures = [aws_lambda_event_source_mapping.worker]
}

run "more_environments_than_the_provider_takes_requests" {
  command = plan

  variables {
    model = { requests_per_minute = 9 }
  }

  expect_failures = [aws_lambda_event_source_mapping.worker]
}

run "more_in_flight_than_sqs_delivers" {
  command = plan

  variables {
    queues = { batch_size = 1000, batch_window_s = 1, visibility_timeout_s = 1801, maximum_concurrency = 61 }
  }

  expect_failures = [aws_lambda_event_source_mapping.worker]
}

run "calls_too_long_for_the_function" {
  command = plan

  variables {
    limits = { call_timeout_s = 131 }
  }

  expect_failures = [aws_lambda_function.worker]
}

run "a_model_without_a_price" {
  command = plan

  variables {
    model = { id = "a-model-of-tomorrow" }
  }

  expect_failures = [aws_lambda_function.worker]
}

run "a_model_with_a_price_of_ones_own" {
  command = plan

  variables {
    model = { id = "a-model-of-tomorrow", input_usd_per_mtok = 1, output_usd_per_mtok = 5 }
  }
}

run "a_dated_model_of_the_table" {
  command = plan

  variables {
    model = { provider = "anthropic", id = "claude-haiku-4-5-20251001" }
  }
}

run "a_bedrock_vendors_own_model" {
  command = plan

  variables {
    model = { provider = "bedrock", id = "us.amazon.nova-pro-v1:0" }
  }
}

run "a_model_of_another_provider" {
  command = plan

  variables {
    model = { provider = "openai", id = "claude-haiku-4-5" }
  }

  expect_failures = [aws_lambda_function.worker]
}

run "a_bedrock_model_without_a_price" {
  command = plan

  variables {
    model = { provider = "bedrock", id = "meta.llama9-v1:0" }
  }

  expect_failures = [aws_lambda_function.worker]
}

run "an_application_inference_profile" {
  command = plan

  variables {
    model = { provider = "bedrock", id = "arn:aws:bedrock:eu-central-1:123456789012:application-inference-profile/abc", input_usd_per_mtok = 1, output_usd_per_mtok = 5 }
  }

  expect_failures = [var.model]
}

run "half_a_price" {
  command = plan

  variables {
    model = { input_usd_per_mtok = 1 }
  }

  expect_failures = [var.model]
}

run "a_reservation_below_the_concurrency" {
  command = plan

  variables {
    worker = { reserved_concurrency = 9, account_concurrency = 1000 }
  }

  expect_failures = [aws_lambda_function.worker]
}

run "a_reservation_that_the_account_does_not_have" {
  command = plan

  variables {
    worker = { reserved_concurrency = 10, account_concurrency = 109 }
  }

  expect_failures = [aws_lambda_function.worker]
}

run "a_reservation_in_an_unknown_account" {
  command = plan

  variables {
    worker = { reserved_concurrency = 10 }
  }

  expect_failures = [aws_lambda_function.worker]
}

run "no_zip" {
  command = plan

  variables {
    worker = { architecture = "x86_64" }
  }

  expect_failures = [aws_lambda_function.worker]
}

run "an_unknown_provider" {
  command = plan

  variables {
    model = { provider = "antropic" }
  }

  expect_failures = [var.model]
}

run "a_key_in_place_of_its_name" {
  command = plan

  variables {
    model = { key_parameter = "arn:aws:ssm:eu-central-1:123456789012:parameter/x" }
  }

  expect_failures = [var.model]
}

run "a_hand_back_that_sqs_cannot_hide" {
  command = plan

  variables {
    limits = { hand_back_s_max = 43200 }
  }

  expect_failures = [var.limits]
}

run "a_body_without_room_for_attributes" {
  command = plan

  variables {
    limits = { body_bytes_max = 1048576 }
  }

  expect_failures = [var.limits]
}

run "an_output_larger_than_an_item" {
  command = plan

  variables {
    limits = { output_bytes_max = 409600 }
  }

  expect_failures = [var.limits]
}

run "fewer_paid_calls_than_re_asks" {
  command = plan

  variables {
    limits = { reask_limit = 3, paid_call_limit = 3 }
  }

  expect_failures = [var.limits]
}

run "a_zero_where_a_limit_belongs" {
  command = plan

  variables {
    limits = { spend_cap_usd_per_day = 0 }
  }

  expect_failures = [var.limits]
}

run "an_objective_that_no_failure_could_miss" {
  command = plan

  variables {
    success_objective_percent = 90
  }

  expect_failures = [var.success_objective_percent]
}
