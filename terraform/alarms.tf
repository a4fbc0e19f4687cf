# Every alarm is one entry here, called <prefix>-<page> after its page in runbook/.
#
#   severity    page: a person is needed now; ticket: it can wait for the morning
#   summary     what has happened, in one line; with the page it is the alarm's description
#   metrics     id = [source, metric, statistic]; one without an expression, several with one
#   expression  CloudWatch metric math over the ids
#   threshold   raised at this value and above, unless `below` is set
#   period_s, periods, datapoints   raised when `datapoints` of the last `periods` values breach
#   missing     what no data means, where it is not "nothing happened"
#   children    parts without actions; the alarm is raised while all of them are
#
# No data. AWS/SQS has no age while a queue is empty, no in-flight count while nothing is, and no data at all for a queue
# that was empty and untouched for six hours; Lambda and the worker publish per invocation. So for all of these no data
# means that nothing is there or nothing ran: `notBreaching`, and FILL(x, 0) around each of them. Without it CloudWatch
# looks for points further back than the alarm's periods, and keeps an alarm for longer than they are, by a number that is
# not documented. ("Available CloudWatch metrics for Amazon SQS"; "Configuring how CloudWatch alarms treat missing data")
#
# The sentinel publishes its gauges each minute, zeroes included. Where they are missing, `sentinel-silent` says so, and the
# alarms over them need not.
#
# Periods slide: CloudWatch looks each minute at the last `period_s` × `periods` seconds. ("Alarm evaluation window")

locals {
  sources = {
    stack        = { namespace = "Nightshift", dimensions = { Stack = var.prefix } }
    spend_cap    = { namespace = "Nightshift", dimensions = { Stack = var.prefix, Cause = "spend_cap" } }
    function     = { namespace = "AWS/Lambda", dimensions = { FunctionName = local.worker_name } }
    redrive      = { namespace = "AWS/Lambda", dimensions = { FunctionName = local.redrive_name } }
    sentinel     = { namespace = "AWS/Lambda", dimensions = { FunctionName = local.sentinel_name } }
    jobs         = { namespace = "AWS/SQS", dimensions = { QueueName = aws_sqs_queue.jobs.name } }
    dead_letters = { namespace = "AWS/SQS", dimensions = { QueueName = aws_sqs_queue.dead_letters.name } }
    crashed      = { namespace = "AWS/SQS", dimensions = { QueueName = aws_sqs_queue.crashed.name } }
    given_up     = { namespace = "AWS/SQS", dimensions = { QueueName = "${var.prefix}-events-failed" } }
    pipe         = { namespace = "AWS/EventBridge/Pipes", dimensions = { PipeName = local.event_pipes.results.name } }
    pipe_large   = { namespace = "AWS/EventBridge/Pipes", dimensions = { PipeName = local.event_pipes.large.name } }
  }

  minute_s = 60
  hour_s   = 3600

  # The sentinel's is of the jobs that were begun; SQS's leaves out what was received three times, and alone knows of what
  # was never begun.
  job_ages     = { begun_s = ["stack", "OldestJobAge", "Maximum"], waiting_s = ["jobs", "ApproximateAgeOfOldestMessage", "Maximum"] }
  oldest_job_s = "MAX([FILL(begun_s, 0), FILL(waiting_s, 0)])"

  # A job that has to be looked at by a person was not a success.
  job_outcomes = {
    good   = ["stack", "JobsSucceeded", "Sum"]
    review = ["stack", "JobsNeedingReview", "Sum"]
    dead   = ["stack", "DeadLetters", "Sum"]
  }
  jobs_bad = "(FILL(dead, 0) + FILL(review, 0))"
  jobs_all = "(FILL(good, 0) + FILL(dead, 0) + FILL(review, 0))"

  # Burn rates, and why two windows: "Site Reliability Workbook", chapter "Alerting on SLOs". At 14.4 a month's budget is
  # gone in two days, at 6 in five. The long window has a least volume, or one bad job at night would wake somebody; the
  # short one ends the alarm soon after the failures end. With few jobs a failure in a short window leaves the
  # decision to the long one: else twenty jobs an hour would begin and end it with each success between two failures.
  error_budget_percent = 100 - var.success_objective_percent
  short_window         = "IF(${local.jobs_all} >= 20, 100 * ${local.jobs_bad} / ${local.jobs_all}, IF(${local.jobs_bad} > 0, 100, 0))"

  # How long a job is handed back at most while the account fails, the stack is paused or the cap is reached (crates/core/src/next_step/hand_back.rs): the longest
  # delay; after half of its receives the time that SQS still keeps it, spread over the receives that are left; never
  # beyond SQS's 12 hours.
  receives_left  = max(1, ceil(var.queues.max_receive_count / 2) - 1)
  held_try_s_max = min(12 * local.hour_s, max(var.limits.hand_back_s_max, var.queues.retention_days * local.day_s / local.receives_left))

  # An alarm over what such a job says stays raised for longer than it can be away, or it would end and begin again with
  # each try.
  held_periods = ceil((local.held_try_s_max + var.worker.timeout_s + 5 * local.minute_s) / local.minute_s)
  held_s       = local.held_periods * local.minute_s

  alarms = {
    dead-letters-present = {
      severity  = "ticket"
      summary   = "Jobs failed for good and wait in dead-letters, each with its reason."
      metrics   = { letters = ["stack", "DeadLettersWaiting", "Maximum"] }
      threshold = 1
      period_s  = 5 * local.minute_s
      periods   = 1
    }

    dead-letters-rising = {
      severity = "page"
      summary  = "Ten or more jobs became dead letters within 15 minutes: jobs are failing for good right now."
      # What the worker counts: looking at the queue, or emptying it, changes its depth.
      metrics    = { dead = ["stack", "DeadLetters", "Sum"] }
      expression = "FILL(dead, 0)"
      threshold  = 10
      period_s   = 15 * local.minute_s
      periods    = 1
    }

    crashed-jobs = {
      severity  = "page"
      summary   = "SQS gave up on jobs that no worker could settle or explain."
      metrics   = { crashed = ["stack", "CrashedWaiting", "Maximum"] }
      threshold = 1
      period_s  = 5 * local.minute_s
      periods   = 1
    }

    oldest-job-too-old = {
      severity = "page"
      summary  = "For half an hour the oldest job has been older than half an hour."
      metrics  = merge(local.job_ages, { paused = ["stack", "Paused", "Maximum"] })
      # While it is paused jobs are meant to wait: queue-paused says that. What waited through a pause is worked off after
      # it, and half an hour is time for that; a new fault is seen as soon as an age of one hour would show it.
      expression = "IF(FILL(paused, 0), 0, ${local.oldest_job_s})"
      threshold  = local.hour_s / 2
      period_s   = 5 * local.minute_s
      periods    = 6
    }

    no-progress = {
      severity = "page"
      summary  = "Jobs are waiting and for 15 minutes no invocation has settled one."
      metrics  = { waiting = ["stack", "JobsWaiting", "Minimum"], paused = ["stack", "Paused", "Maximum"], settled = ["stack", "JobsReceived", "Sum"] }
      # JobsReceived is published at the end of an invocation and is the sum of all outcomes, hand-backs included. `waiting`
      # is what is visible: an invocation that dies keeps its jobs hidden for the visibility timeout, so a queue shorter than
      # what the deaths hide never raises this; worker-failing counts the deaths themselves.
      # While it is paused nothing is expected to be settled: queue-paused says that.
      # In an outage `settled` has no point at all, and what FILL makes of such a series is not documented. Beside another
      # series a missing point counts as 0; and without a condition IF has no value, so that a silent sentinel decides
      # nothing. ("Use metric math")
      expression = "IF(paused, 0, IF(waiting, settled + waiting == waiting, 0))"
      threshold  = 1
      period_s   = 5 * local.minute_s
      periods    = 3        # An invocation may work for five minutes before it publishes.
      missing    = "ignore" # A sentinel that is silent ends no outage.
    }

    jobs-expiring = {
      severity   = "page"
      summary    = "A job has waited for half of its retention; at the end of it SQS deletes the job."
      metrics    = local.job_ages
      expression = local.oldest_job_s
      threshold  = var.queues.retention_days * local.day_s / 2
      period_s   = 5 * local.minute_s
      periods    = 1
    }

    dead-letters-expiring = {
      severity = "ticket"
      summary  = "A dead letter or a crashed job has waited for half of the time that SQS keeps it; at the end of it SQS deletes it."
      metrics  = { letter_s = ["stack", "OldestDeadLetterAge", "Maximum"], dead_s = ["dead_letters", "ApproximateAgeOfOldestMessage", "Maximum"], crashed_s = ["crashed", "ApproximateAgeOfOldestMessage", "Maximum"] }
      # SQS leaves out of its age what was looked at three times, and the sentinel does not: it goes by the ledger, and cannot
      # see that a letter was deleted by hand while others wait.
      # In percent of what each queue keeps a message at least. The worker sends dead letters anew. What SQS itself moves to
      # crashed it still deletes by the time of its first sending, while the age begins again with the move; of the
      # retention up to that of jobs is used up by then. ("Setting up dead-letter queue retention in Amazon SQS")
      expression = "100 * MAX([FILL(letter_s, 0) / ${var.queues.dead_letter_retention_days * local.day_s}, FILL(dead_s, 0) / ${var.queues.dead_letter_retention_days * local.day_s}, FILL(crashed_s, 0) / ${(var.queues.dead_letter_retention_days - var.queues.retention_days) * local.day_s}])"
      threshold  = 50
      period_s   = 5 * local.minute_s
      periods    = 1
    }

    success-burning-fast = {
      severity = "page"
      summary  = "So many jobs end without a result that a month's error budget would be gone in two days."
      children = {
        "1h" = {
          metrics    = local.job_outcomes
          expression = "IF(${local.jobs_all} >= 20, 100 * ${local.jobs_bad} / ${local.jobs_all}, 0)"
          threshold  = 14.4 * local.error_budget_percent
          period_s   = local.hour_s
          periods    = 1
        }
        "5m" = {
          metrics    = local.job_outcomes
          expression = local.short_window
          threshold  = 14.4 * local.error_budget_percent
          period_s   = 5 * local.minute_s
          periods    = 6 # Twenty jobs an hour have pauses between two failures.
          datapoints = 1
        }
      }
    }

    success-burning-slow = {
      severity = "ticket"
      summary  = "So many jobs end without a result that a month's error budget would be gone in five days."
      children = {
        "6h" = {
          metrics    = local.job_outcomes
          expression = "IF(${local.jobs_all} >= 50, 100 * ${local.jobs_bad} / ${local.jobs_all}, 0)"
          threshold  = 6 * local.error_budget_percent
          period_s   = 6 * local.hour_s
          periods    = 1
        }
        "30m" = {
          metrics    = local.job_outcomes
          expression = local.short_window
          threshold  = 6 * local.error_budget_percent
          period_s   = 30 * local.minute_s
          periods    = 3
          datapoints = 1
        }
      }
    }

    output-rejected = {
      severity   = "ticket"
      summary    = "A fifth of the model's answers fail validation: asked again, they cost twice."
      metrics    = { rejected = ["stack", "OutputRejections", "Sum"], calls = ["stack", "ModelCalls", "Sum"] }
      expression = "IF(FILL(calls, 0) >= 10 AND FILL(rejected, 0) >= 3, 100 * FILL(rejected, 0) / FILL(calls, 0), 0)"
      threshold  = 20
      period_s   = local.hour_s # Ten jobs an hour are seen too.
      periods    = 1
    }

    model-throttled = {
      severity   = "ticket"
      summary    = "The provider refuses a tenth of the calls for rate: jobs wait longer than they need to."
      metrics    = { throttled = ["stack", "ModelThrottled", "Sum"], calls = ["stack", "ModelCalls", "Sum"] }
      expression = "IF(FILL(calls, 0) >= 10 AND FILL(throttled, 0) >= 3, 100 * FILL(throttled, 0) / FILL(calls, 0), 0)"
      threshold  = 10
      period_s   = local.hour_s # Ten jobs an hour are seen too.
      periods    = 1
    }

    model-failing = {
      severity   = "ticket" # Jobs wait for the provider for hours; if they wait too long, oldest-job-too-old is a page.
      summary    = "Half of the model calls fail on the provider's side or in the network."
      metrics    = { errors = ["stack", "ModelErrors", "Sum"], calls = ["stack", "ModelCalls", "Sum"] }
      expression = "IF(FILL(calls, 0) >= 7, 100 * FILL(errors, 0) / FILL(calls, 0), 0)" # One job alone makes at most five.
      threshold  = 50
      period_s   = 15 * local.minute_s
      periods    = 4 # Jobs that are handed back try again within 15 minutes; with few of them, some windows have too few calls.
      datapoints = 1
    }

    model-account = {
      severity   = "page"
      summary    = "The provider refuses our account: key, credit, spend limit or model access. No job can be worked on."
      metrics    = { failures = ["stack", "AccountFailures", "Sum"] }
      expression = "FILL(failures, 0)"
      threshold  = 1
      period_s   = local.held_s
      periods    = 1
    }

    queue-paused = {
      severity   = "page"
      summary    = "The control record pauses the stack: jobs wait in the queue, and none is worked on."
      metrics    = { paused = ["stack", "Paused", "Maximum"] }
      threshold  = 1
      period_s   = local.minute_s
      periods    = 5 # So that a run that is missing does not end it.
      datapoints = 1
    }

    sentinel-silent = {
      severity   = "page"
      summary    = "The sentinel has not seen the whole stack for four of five minutes: alarms over its gauges see nothing."
      metrics    = { beats = ["stack", "Heartbeat", "Sum"] }
      threshold  = 1
      below      = true
      period_s   = local.minute_s
      periods    = 5
      datapoints = 4 # A minute may be late.
      missing    = "breaching"
    }

    spend-near-cap = {
      severity  = "ticket"
      summary   = "Less than a fifth of the day's money is left."
      metrics   = { left = ["stack", "SpendLeftPercent", "Minimum"] }
      threshold = 20
      below     = true
      period_s  = 5 * local.minute_s
      periods   = 1
    }

    spend-cap-reached = {
      severity = "page"
      summary  = "The day's spend cap holds jobs back until the next UTC day."
      metrics  = { spent = ["stack", "SpendToday", "Maximum"], held = ["spend_cap", "JobsHandedBack", "Sum"], paused = ["spend_cap", "Paused", "Maximum"] }
      # Something may be left, and pay for no call. Once the sentinel has paused for it, no job is handed back any more.
      expression = "IF(FILL(spent, 0) >= ${var.limits.spend_cap_usd_per_day}, 1, MAX([FILL(held, 0), FILL(paused, 0)]))"
      threshold  = 1
      period_s   = local.minute_s
      periods    = local.held_periods
      datapoints = 1
    }

    worker-failing = {
      severity   = "page"
      summary    = "Invocations of the worker die: a crash, a timeout, too little memory, or a binary that does not start."
      metrics    = { errors = ["function", "Errors", "Sum"] }
      expression = "FILL(errors, 0)"
      threshold  = 1
      period_s   = local.minute_s
      # When there is little else, the second death is that of the same batch, which comes back after the visibility timeout
      # and may take the function's timeout to die again: a sixth of the other at most. Twice SQS's 12 hours are the day
      # that CloudWatch allows.
      periods    = max(60, ceil(2 * var.queues.visibility_timeout_s / local.minute_s))
      datapoints = 2
    }

    sentinel-failing = {
      severity   = "ticket"
      summary    = "Runs of the sentinel fail: what it sees is told, and what it should do about it may not be done."
      metrics    = { errors = ["sentinel", "Errors", "Sum"] }
      expression = "FILL(errors, 0)"
      threshold  = 1
      period_s   = local.minute_s
      # A request that fails once is made again in the next run. A probe is asked for again after three minutes.
      periods    = 15
      datapoints = 3
    }

    redrive-failing = {
      severity   = "ticket"
      summary    = "Steps of a redrive fail, so that dead letters wait that somebody wants back."
      metrics    = { errors = ["redrive", "Errors", "Sum"] }
      expression = "FILL(errors, 0)"
      threshold  = 1
      period_s   = 5 * local.minute_s
      # One step that met a throttle is followed by another. An hour covers whoever drives it by hand.
      periods    = 12
      datapoints = 2
    }

    worker-near-timeout = {
      severity   = "ticket"
      summary    = "An invocation ran on past its own deadline, which a slow provider cannot cause."
      metrics    = { duration_ms = ["function", "Duration", "Maximum"] }
      expression = "FILL(duration_ms, 0)"
      threshold  = var.worker.timeout_s * 1000 - var.limits.deadline_margin_s * 500 # Half of the margin is for handing back.
      # Lambda stamps a duration with the invocation's start and publishes it after its end: a shorter period would be over
      # before it has the point. ("Types of metrics for Lambda functions")
      period_s = (ceil(var.worker.timeout_s / local.minute_s) + 10) * local.minute_s
      periods  = 1
    }

    worker-throttled = {
      severity   = "ticket"
      summary    = "Lambda refuses invocations: the account or the function has no execution left."
      metrics    = { throttles = ["function", "Throttles", "Sum"] }
      expression = "FILL(throttles, 0)"
      threshold  = 1
      period_s   = 5 * local.minute_s
      periods    = 3
    }

    ledger-failing = {
      severity   = "page"
      summary    = "Reads or writes of the ledger fail after the SDK's own retries: no job can be claimed or stored."
      metrics    = { errors = ["stack", "LedgerErrors", "Sum"] }
      expression = "FILL(errors, 0)"
      threshold  = 1
      period_s   = local.minute_s
      # A job that is handed back tries again within `hand_back_s_max`, so that even a single one keeps it raised.
      periods    = min(1440, max(45, ceil(3 * (var.limits.hand_back_s_max + var.worker.timeout_s) / local.minute_s)))
      datapoints = 3
    }

    events-failing = {
      severity = "ticket" # Results are stored as ever; only those who wait for events do not hear of them.
      summary  = "Events of results are not sent, or were given up."
      enabled  = var.events
      metrics = {
        failed       = ["pipe", "ExecutionFailed", "Sum"]
        failed_large = ["pipe_large", "ExecutionFailed", "Sum"]
        partly       = ["pipe", "ExecutionPartiallyFailed", "Sum"]
        partly_large = ["pipe_large", "ExecutionPartiallyFailed", "Sum"]
        given_up     = ["given_up", "ApproximateNumberOfMessagesVisible", "Maximum"]
        looked_at    = ["given_up", "ApproximateNumberOfMessagesNotVisible", "Maximum"]
      }
      # A batch of which the bus refused some events is no failed execution, but a partly failed one.
      # A pipe that fails for long is disabled by AWS and then says nothing; what it gave up until then stays in the queue.
      expression = "FILL(failed, 0) + FILL(failed_large, 0) + FILL(partly, 0) + FILL(partly_large, 0) + FILL(given_up, 0) + FILL(looked_at, 0)"
      threshold  = 1
      period_s   = 5 * local.minute_s
      periods    = 6
      datapoints = 2 # One failure that the next attempt mends is none; between attempts the wait grows.
    }

    no-jobs = {
      severity   = "ticket"
      summary    = "Jobs are expected at this time and none was sent."
      enabled    = var.jobs_expected != null
      metrics    = { sent = ["jobs", "NumberOfMessagesSent", "Sum"] }
      expression = "IF(HOUR(sent) >= ${local.expected.from_hour} AND HOUR(sent) < ${local.expected.to_hour}${local.expected.weekdays_only ? " AND DAY(sent) < 6" : ""}, FILL(sent, 0), 1)"
      threshold  = 1
      below      = true
      period_s   = local.hour_s
      periods    = local.expected.within_hours
    }
  }

  expected = coalesce(var.jobs_expected, { from_hour = 0, to_hour = 24, weekdays_only = false, within_hours = 2 })

  # One for each CloudWatch alarm: an entry of its own, or a child.
  metric_alarms = merge(
    { for page, alarm in local.alarms : page => merge(alarm, { page = page, acts = true }, can(alarm.expression) ? {} : { single = values(alarm.metrics)[0] })
    if !can(alarm.children) && try(alarm.enabled, true) },
    merge([for page, alarm in local.alarms : {
      for name, child in alarm.children : "${page}-${name}" => merge(child, { page = page, acts = false, severity = alarm.severity, summary = "${name} window of ${page}." })
    } if can(alarm.children)]...)
  )
  # A link that leads nowhere is worse than the name of the page.
  runbook = { for page, alarm in local.alarms : page => var.runbook_url == null ?
    "Runbook: the page ${page} in the folder runbook/ of the repository that this stack was deployed from." :
    "Runbook: ${var.runbook_url}/${page}.md"
  }
  composite_alarms = { for page, alarm in local.alarms : page => alarm if can(alarm.children) }
}

resource "aws_cloudwatch_metric_alarm" "stack" {
  for_each = local.metric_alarms

  region = var.region
  tags   = local.tags

  alarm_name        = "${var.prefix}-${each.key}"
  alarm_description = "${each.value.summary} ${local.runbook[each.value.page]}"

  comparison_operator = try(each.value.below, false) ? "LessThanThreshold" : "GreaterThanOrEqualToThreshold"
  threshold           = lookup(var.alarm_thresholds, each.key, each.value.threshold)
  evaluation_periods  = each.value.periods
  datapoints_to_alarm = try(each.value.datapoints, each.value.periods)
  treat_missing_data  = try(each.value.missing, "notBreaching")

  # One metric: the plain form, which the console can edit and graph.
  namespace   = try(local.sources[each.value.single[0]].namespace, null)
  dimensions  = try(local.sources[each.value.single[0]].dimensions, null)
  metric_name = try(each.value.single[1], null)
  statistic   = try(each.value.single[2], null)
  period      = can(each.value.single[0]) ? each.value.period_s : null

  dynamic "metric_query" {
    for_each = can(each.value.expression) ? each.value.metrics : {}

    content {
      id = metric_query.key

      metric {
        namespace   = local.sources[metric_query.value[0]].namespace
        dimensions  = local.sources[metric_query.value[0]].dimensions
        metric_name = metric_query.value[1]
        stat        = metric_query.value[2]
        period      = each.value.period_s
      }
    }
  }

  dynamic "metric_query" {
    for_each = can(each.value.expression) ? [each.value.expression] : []

    content {
      id          = "result"
      label       = each.value.page
      expression  = metric_query.value
      return_data = true
    }
  }

  # On the alarm itself: a composite over all would not notify again while a second one joins.
  alarm_actions = each.value.acts ? local.alarm_actions[each.value.severity] : []
  ok_actions    = each.value.acts ? local.alarm_actions[each.value.severity] : []

  lifecycle {
    precondition {
      condition     = fileexists("${path.module}/../runbook/${each.value.page}.md")
      error_message = "Alarm ${each.value.page} has no page: write runbook/${each.value.page}.md, for the person whom it wakes."
    }
  }
}

# CloudWatch deletes no alarm that a composite names, and Terraform deletes before it updates. So a composite whose children
# are other ones is made anew: then it goes first.
resource "terraform_data" "composite_children" {
  for_each = local.composite_alarms

  input = sort(keys(each.value.children))
}

resource "aws_cloudwatch_composite_alarm" "stack" {
  for_each = local.composite_alarms

  region = var.region
  tags   = local.tags

  alarm_name        = "${var.prefix}-${each.key}"
  alarm_description = "${each.value.summary} ${local.runbook[each.key]}"
  alarm_rule        = join(" AND ", [for name, child in each.value.children : "ALARM(\"${aws_cloudwatch_metric_alarm.stack["${each.key}-${name}"].alarm_name}\")"])

  alarm_actions = local.alarm_actions[each.value.severity]
  ok_actions    = local.alarm_actions[each.value.severity]

  lifecycle {
    replace_triggered_by = [terraform_data.composite_children[each.key]]

    precondition {
      condition     = fileexists("${path.module}/../runbook/${each.key}.md")
      error_message = "Alarm ${each.key} has no page: write runbook/${each.key}.md, for the person whom it wakes."
    }
  }
}
