# Values that AWS, or the worker, would refuse later: each is refused by its variable, with what it must be.

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
  protect_data  = false # Or the mocks could not be destroyed: terraform_data.protection is real.
}

run "a_base_url_without_a_scheme" {
  command = plan

  variables {
    model = { base_url = "api.example.com" }
  }

  expect_failures = [var.model]
}

run "a_way_of_the_schema_that_there_is_not" {
  command = plan

  variables {
    model = { structured_output = "json" }
  }

  expect_failures = [var.model]
}

run "dollars_that_the_worker_reads" {
  command = apply # To mocks: only then is the environment known.

  variables {
    model  = { input_usd_per_mtok = 0, output_usd_per_mtok = 999999.999999 }
    limits = { spend_cap_usd_per_day = 0.000001 }
  }

  assert {
    condition     = aws_lambda_function.worker.environment[0].variables.NIGHTSHIFT_MODEL_OUTPUT_USD_PER_MTOK == "999999.999999" && aws_lambda_function.worker.environment[0].variables.NIGHTSHIFT_SPEND_CAP_USD_PER_DAY == "0.000001"
    error_message = "Dollars reach the worker as they were written."
  }
}

run "a_negative_price" {
  command = plan

  variables {
    model = { input_usd_per_mtok = -1, output_usd_per_mtok = 1 }
  }

  expect_failures = [var.model]
}

run "a_price_of_a_tenth_of_a_millionth" {
  command = plan

  variables {
    model = { input_usd_per_mtok = 1, output_usd_per_mtok = 0.0000001 }
  }

  expect_failures = [var.model]
}

run "a_price_of_a_million" {
  command = plan

  variables {
    model = { input_usd_per_mtok = 1000000, output_usd_per_mtok = 1 }
  }

  expect_failures = [var.model]
}

run "a_spend_cap_of_a_million" {
  command = plan

  variables {
    limits = { spend_cap_usd_per_day = 1000000 }
  }

  expect_failures = [var.limits]
}

run "a_spend_cap_of_a_tenth_of_a_millionth" {
  command = plan

  variables {
    limits = { spend_cap_usd_per_day = 0.0000001 }
  }

  expect_failures = [var.limits]
}

run "a_negative_rate" {
  command = plan

  variables {
    model = { requests_per_minute = -1 }
  }

  expect_failures = [var.model]
}

run "a_backoff_that_begins_beyond_its_end" {
  command = plan

  variables {
    limits = { backoff_base_ms = 30001 }
  }

  expect_failures = [var.limits]
}

run "a_hand_back_that_begins_beyond_its_end" {
  command = plan

  variables {
    limits = { hand_back_base_s = 901 }
  }

  expect_failures = [var.limits]
}

run "a_third_of_a_call" {
  command = plan

  variables {
    limits = { call_limit = 2.5 }
  }

  expect_failures = [var.limits]
}

run "a_visibility_that_sqs_refuses" {
  command = plan

  variables {
    queues = { visibility_timeout_s = 43201, max_receive_count = 97, retention_days = 13 }
  }

  expect_failures = [var.queues]
}

run "a_retention_that_sqs_refuses" {
  command = plan

  variables {
    queues = { dead_letter_retention_days = 15 }
  }

  expect_failures = [var.queues]
}

run "a_receive_count_that_sqs_refuses" {
  command = plan

  variables {
    queues = { max_receive_count = 1001, retention_days = 13 }
  }

  expect_failures = [var.queues]
}

run "a_batch_that_lambda_refuses" {
  command = plan

  variables {
    queues = { batch_size = 0 }
  }

  expect_failures = [var.queues]
}

run "a_window_that_lambda_refuses" {
  command = plan

  variables {
    queues = { batch_window_s = 301, visibility_timeout_s = 2101 }
  }

  expect_failures = [var.queues]
}

run "a_concurrency_that_lambda_refuses" {
  command = plan

  variables {
    queues = { maximum_concurrency = 1 }
  }

  expect_failures = [var.queues]
}

run "a_timeout_that_lambda_refuses" {
  command = plan

  variables {
    worker = { timeout_s = 901 }
  }

  expect_failures = [var.worker]
}

run "a_memory_that_lambda_refuses" {
  command = plan

  variables {
    worker = { memory_mb = 127 }
  }

  expect_failures = [var.worker]
}

run "an_architecture_that_lambda_does_not_have" {
  command = plan

  variables {
    worker = { architecture = "arm" }
  }

  expect_failures = [var.worker]
}

run "a_log_retention_that_cloudwatch_refuses" {
  command = plan

  variables {
    worker = { log_retention_days = 31 }
  }

  expect_failures = [var.worker]
}

run "half_a_day_of_expiry" {
  command = plan

  variables {
    ledger = { result_expiry_days = 90.5 }
  }

  expect_failures = [var.ledger]
}

run "a_page_address_that_is_none" {
  command = plan

  variables {
    page_emails = ["oncall"]
  }

  expect_failures = [var.page_emails]
}

run "a_ticket_address_that_is_none" {
  command = plan

  variables {
    ticket_emails = ["team example.com"]
  }

  expect_failures = [var.ticket_emails]
}

run "anthropic_without_a_key" {
  command = plan

  variables {
    model = { needs_key = false }
  }

  expect_failures = [var.model]
}

run "a_log_level_that_the_worker_does_not_know" {
  command = plan

  variables {
    worker = { log_level = "verbose" }
  }

  expect_failures = [var.worker]
}
