# Settings that agree, and some that contradict each other: the other ways to break a precondition, which refusals.json
# breaks once and reads the message of. Each run breaks one rule and no other, so that without the rule it fails.

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

run "visibility_too_short_for_the_window" {
  command = plan

  variables {
    queues = { batch_window_s = 1 }
  }

  expect_failures = [aws_sqs_queue.jobs]
}

run "results_forgotten_before_their_messages" {
  command = plan

  variables {
    ledger = { result_expiry_days = 14 }
  }

  expect_failures = [aws_dynamodb_table.ledger]
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

run "a_reservation_in_an_unknown_account" {
  command = plan

  variables {
    worker = { reserved_concurrency = 10 }
  }

  expect_failures = [aws_lambda_function.worker]
}

run "a_key_in_clear" {
  command = plan

  variables {
    model = { provider = "openai", id = "llama3", base_url = "http://10.0.0.7/v1", input_usd_per_mtok = 0, output_usd_per_mtok = 0 }
  }

  expect_failures = [var.model]
}

run "a_key_in_clear_to_a_name_that_looks_like_this_machine" {
  command = plan

  variables {
    model = { base_url = "http://127.0.0.1:80@example.com" }
  }

  expect_failures = [var.model]
}

run "a_key_that_stays_on_this_machine" {
  command = plan

  variables {
    model = { base_url = "http://127.0.0.1:8080" }
  }
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
