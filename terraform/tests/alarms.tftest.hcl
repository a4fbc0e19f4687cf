# Each alarm has a page and each page has an alarm; who is told, and of what.

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
  events        = true
  jobs_expected = { from_hour = 6, to_hour = 18, within_hours = 3 }
  protect_data  = false # Or the mocks could not be destroyed: terraform_data.protection is real.
}

run "alarms_and_pages_match" {
  command = plan

  # A missing page is refused by the alarm's own precondition; here the other way round.
  assert {
    condition     = length(setsubtract([for page in fileset("${path.module}/../runbook", "*.md") : trimsuffix(page, ".md") if page != "README.md"], keys(local.alarms))) == 0
    error_message = "These pages have no alarm: ${join(", ", setsubtract([for page in fileset("${path.module}/../runbook", "*.md") : trimsuffix(page, ".md") if page != "README.md"], keys(local.alarms)))}. Add the alarm, or move the page to runbook/procedures."
  }
  assert {
    condition     = length(setsubtract(keys(local.alarms), [for page in fileset("${path.module}/../runbook", "*.md") : trimsuffix(page, ".md")])) == 0
    error_message = "An alarm has no page."
  }
}

run "pages_have_their_five_parts_and_their_alarm" {
  command = plan

  assert {
    condition = alltrue([for page in keys(local.alarms) :
      join(" ", flatten(regexall("(?m)^## (.*)$", file("${path.module}/../runbook/${page}.md")))) == "Meaning Impact Diagnosis Mitigation Verification" &&
      startswith(file("${path.module}/../runbook/${page}.md"), "# ${page}\n")
    ])
    error_message = "Not in the form of a page (title = alarm; Meaning, Impact, Diagnosis, Mitigation, Verification): ${join(", ", [for page in keys(local.alarms) : page if join(" ", flatten(regexall("(?m)^## (.*)$", file("${path.module}/../runbook/${page}.md")))) != "Meaning Impact Diagnosis Mitigation Verification"])}"
  }
  assert {
    condition     = alltrue([for page, alarm in local.alarms : strcontains(file("${path.module}/../runbook/${page}.md"), "Severity: ${alarm.severity}.")])
    error_message = "The page states another severity than the alarm: ${join(", ", [for page, alarm in local.alarms : page if !strcontains(file("${path.module}/../runbook/${page}.md"), "Severity: ${alarm.severity}.")])}"
  }
  assert {
    condition     = alltrue([for page in keys(local.alarms) : can(regex("Raised within [0-9]+ (minutes|hours)", file("${path.module}/../runbook/${page}.md")))])
    error_message = "A page does not say how soon the alarm is raised."
  }
}

run "what_notifies_whom" {
  command = apply

  assert {
    condition     = keys(output.alarms) == keys(local.alarms)
    error_message = "Every entry notifies."
  }
  assert {
    condition = alltrue([for page, alarm in local.alarms : (
      can(alarm.children)
      ? aws_cloudwatch_composite_alarm.stack[page].alarm_actions == toset([aws_sns_topic.severity[alarm.severity].arn]) && aws_cloudwatch_composite_alarm.stack[page].ok_actions == toset([aws_sns_topic.severity[alarm.severity].arn])
      : aws_cloudwatch_metric_alarm.stack[page].alarm_actions == toset([aws_sns_topic.severity[alarm.severity].arn]) && aws_cloudwatch_metric_alarm.stack[page].ok_actions == toset([aws_sns_topic.severity[alarm.severity].arn])
    )])
    error_message = "An alarm and its end go to the topic of its severity."
  }
  assert {
    condition     = alltrue([for key, alarm in local.metric_alarms : alarm.acts || length(aws_cloudwatch_metric_alarm.stack[key].alarm_actions) == 0])
    error_message = "Children of a composite notify nobody."
  }
  assert {
    condition     = aws_cloudwatch_composite_alarm.stack["success-burning-fast"].alarm_rule == "ALARM(\"nightshift-success-burning-fast-1h\") AND ALARM(\"nightshift-success-burning-fast-5m\")"
    error_message = "A burn rate is raised by both windows together."
  }
  assert {
    condition     = aws_cloudwatch_metric_alarm.stack["oldest-job-too-old"].alarm_description == "For half an hour the oldest job has been older than half an hour. Runbook: the page oldest-job-too-old in the folder runbook/ of the repository that this stack was deployed from."
    error_message = "The description says what happened and where to read on, with no link that leads nowhere."
  }
}

run "windows_that_cloudwatch_accepts" {
  command = plan

  # "PutMetricAlarm": period × periods at most a day, or seven days where the period is an hour or more.
  assert {
    condition     = alltrue([for alarm in local.metric_alarms : alarm.period_s % 60 == 0 && alarm.period_s * alarm.periods <= (alarm.period_s >= 3600 ? 604800 : 86400) && try(alarm.datapoints, alarm.periods) <= alarm.periods])
    error_message = "CloudWatch refuses such a window."
  }
}

run "windows_of_the_longest_times_that_sqs_has" {
  command = plan

  variables {
    queues = { visibility_timeout_s = 43200, max_receive_count = 25, retention_days = 13 }
    limits = { hand_back_s_max = 39600 }
  }

  assert {
    condition     = alltrue([for alarm in local.metric_alarms : alarm.period_s * alarm.periods <= (alarm.period_s >= 3600 ? 604800 : 86400)])
    error_message = "CloudWatch refuses such a window."
  }

  assert {
    condition     = local.alarms["worker-failing"].period_s * local.alarms["worker-failing"].periods == 2 * 43200
    error_message = "A batch that died comes back after the visibility timeout."
  }
  assert {
    # 13 days over the twelve receives that are left would be more than the 12 hours that SQS can hide a message.
    condition     = local.alarms["model-account"].period_s == 60 * (720 + 5 + 5)
    error_message = "While the account fails, a job is tried again after twelve hours at most."
  }
}

run "an_account_that_fails_stays_raised_between_two_tries" {
  command = plan

  assert {
    # Seven days over the 49 receives that are left after half of 100: 3 h 26 min; a run of the function and five minutes.
    condition     = local.alarms["model-account"].period_s == 60 * 216 && local.alarms["model-account"].periods == 1
    error_message = "A job is tried again after three and a half hours at most."
  }
}

run "what_no_data_means" {
  command = plan

  assert {
    condition     = alltrue([for key, alarm in aws_cloudwatch_metric_alarm.stack : alarm.treat_missing_data == lookup({ no-progress = "ignore", sentinel-silent = "breaching" }, key, "notBreaching")])
    error_message = "A quiet night has no data but the sentinel's, and must raise nothing; no-progress keeps its state, and a silent sentinel is what sentinel-silent is for."
  }
  assert {
    # Without FILL an expression has no value as soon as one of its metrics has none. What no-progress makes of a missing
    # point stands beside it.
    condition     = alltrue([for key, alarm in local.metric_alarms : alltrue([for id in keys(alarm.metrics) : strcontains(alarm.expression, "FILL(${id}, 0)")]) if can(alarm.expression) && key != "no-progress"])
    error_message = "A metric in an expression is not filled."
  }
}

# An alarm that looks at one of them twice passes every drill.
run "each_pipe_is_seen" {
  command = plan

  variables {
    events = true
  }

  assert {
    condition     = toset(flatten([for query in aws_cloudwatch_metric_alarm.stack["events-failing"].metric_query : [for metric in query.metric : metric.dimensions.PipeName if metric.namespace == "AWS/EventBridge/Pipes"]])) == toset([for pipe in local.event_pipes : pipe.name])
    error_message = "events-failing looks at each pipe."
  }
}

run "what_sqs_keeps_a_message" {
  command = plan

  variables {
    queues = { retention_days = 10 }
  }

  # A job may have been in `jobs` for ten days when SQS moves it, and is deleted fourteen days after its sending.
  assert {
    condition     = one([for query in aws_cloudwatch_metric_alarm.stack["dead-letters-expiring"].metric_query : query.expression if query.id == "result"]) == "100 * MAX([FILL(letter_s, 0) / 1209600, FILL(dead_s, 0) / 1209600, FILL(crashed_s, 0) / 345600])" && aws_cloudwatch_metric_alarm.stack["dead-letters-expiring"].threshold == 50
    error_message = "Half of fourteen days for a dead letter, half of the four that are left at least for a crashed job."
  }
}

run "objective_and_thresholds" {
  command = plan

  variables {
    success_objective_percent = 95
    alarm_thresholds          = { oldest-job-too-old = 7200 }
  }

  assert {
    condition     = aws_cloudwatch_metric_alarm.stack["oldest-job-too-old"].threshold == 7200
    error_message = "A threshold can be set."
  }
  assert {
    condition     = aws_cloudwatch_metric_alarm.stack["success-burning-fast-1h"].threshold == 72 && aws_cloudwatch_metric_alarm.stack["success-burning-slow-6h"].threshold == 30
    error_message = "14.4 and 6 times a budget of 5 %."
  }
}

run "a_runbook_behind_an_encoded_address" {
  command = plan

  variables {
    runbook_url = "https://wiki.example.com/On%20call/%7Enightshift"
  }

  assert {
    condition = (
      aws_cloudwatch_metric_alarm.stack["no-progress"].alarm_description == "${local.alarms["no-progress"].summary} Runbook: https://wiki.example.com/On%20call/%7Enightshift/no-progress.md" &&
      endswith(aws_cloudwatch_composite_alarm.stack["success-burning-fast"].alarm_description, "/On%20call/%7Enightshift/success-burning-fast.md")
    )
    error_message = "The address is taken as it is."
  }
}

run "an_unknown_alarm_has_no_threshold" {
  command = plan

  variables {
    alarm_thresholds = { oldest-job-to-old = 7200 }
  }

  expect_failures = [var.alarm_thresholds]
}

run "a_composite_has_no_threshold" {
  command = plan

  variables {
    alarm_thresholds = { success-burning-fast = 10 }
  }

  expect_failures = [var.alarm_thresholds]
}

run "no_jobs_is_off_without_a_schedule" {
  command = plan

  variables {
    jobs_expected = null
  }

  assert {
    condition     = !contains(keys(aws_cloudwatch_metric_alarm.stack), "no-jobs")
    error_message = "Nobody said when jobs are expected."
  }
}

run "no_jobs_by_schedule" {
  command = plan

  assert {
    condition = (
      one([for query in aws_cloudwatch_metric_alarm.stack["no-jobs"].metric_query : query.expression if query.id == "result"]) == "IF(HOUR(sent) >= 6 AND HOUR(sent) < 18 AND DAY(sent) < 6, FILL(sent, 0), 1)" &&
      aws_cloudwatch_metric_alarm.stack["no-jobs"].evaluation_periods == 3 && aws_cloudwatch_metric_alarm.stack["no-jobs"].comparison_operator == "LessThanThreshold"
    )
    error_message = "Raised after three hours without a job, between 6 and 18 on weekdays."
  }
}

run "a_schedule_shorter_than_its_wait_is_refused" {
  command = plan

  variables {
    jobs_expected = { from_hour = 6, to_hour = 8, within_hours = 3 }
  }

  expect_failures = [var.jobs_expected]
}
