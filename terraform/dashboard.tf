# For 3 a.m., from top to bottom: what is wrong, does work get done, does it pile up, why does it fail, what does it cost.

locals {
  failure_reasons = [
    "invalid_message", "unknown_task", "invalid_input", "request_rejected", "refused", "truncated",
    "invalid_output", "attempts_exhausted", "capacity_timeout", "result_too_large", "poison", "internal",
    "review_rejected",
  ]

  pause_causes = ["operator", "account", "outage", "spend_cap", "deaths", "in_flight"]

  # Made of their names, so that a plan shows the whole dashboard: an alarm's ARN is known after the apply alone.
  alarm_arns = [for name in concat(
    [for page in keys(local.composite_alarms) : aws_cloudwatch_composite_alarm.stack[page].alarm_name],
    [for key, alarm in local.metric_alarms : aws_cloudwatch_metric_alarm.stack[key].alarm_name if alarm.acts],
  ) : "arn:${local.partition}:cloudwatch:${local.region}:${local.account}:alarm:${name}"]

  # Rows of three: title, statistic, metrics as [source, name] or [source, name, options], and what else a graph needs.
  graphs = [
    {
      title = "Jobs by outcome"
      stat  = "Sum"
      metrics = [for name, colour in { JobsSucceeded = "#2ca02c", JobsNeedingReview = "#ff7f0e", DeadLetters = "#d62728", JobsHandedBack = "#9467bd", JobsDuplicate = "#7f7f7f" } :
      ["stack", name, { color = colour }]]
      options = { stacked = true }
    },
    {
      title   = "Success, in percent of what ended"
      stat    = "Sum"
      metrics = [for name, id in { JobsSucceeded = "good", JobsNeedingReview = "review", DeadLetters = "dead" } : ["stack", name, { id = id, visible = false }]]
      math    = [{ expression = "100 * FILL(good, 0) / ${local.jobs_all}", label = "success" }]
      options = {
        yAxis       = { left = { min = 0, max = 100 } }
        annotations = { horizontal = [{ label = "objective", value = var.success_objective_percent }] }
      }
    },
    {
      title   = "Backlog"
      stat    = "Maximum"
      metrics = [["stack", "JobsWaiting", { label = "waiting" }], ["stack", "JobsInFlight", { label = "in flight or handed back" }], ["stack", "DeadClaims", { label = "held by workers that died", color = "#d62728" }]]
      options = {}
    },
    {
      title   = "Age of the oldest job (seconds)"
      stat    = "Maximum"
      metrics = [["stack", "OldestJobAge", { label = "begun" }], ["jobs", "ApproximateAgeOfOldestMessage", { label = "received less than three times" }]]
      options = { annotations = { horizontal = [{ label = "too old", value = lookup(var.alarm_thresholds, "oldest-job-too-old", local.alarms["oldest-job-too-old"].threshold) }] } }
    },
    {
      title   = "Failed for good, by reason"
      stat    = "Sum"
      metrics = [for reason in local.failure_reasons : ["reason", "DeadLetters", { reason = reason, label = reason }]]
      options = { stacked = true }
    },
    {
      title = "Waiting for a person"
      stat  = "Maximum"
      metrics = [
        ["stack", "DeadLettersWaiting", { label = "dead-letters" }],
        ["stack", "CrashedWaiting", { label = "crashed", color = "#d62728" }],
        ["stack", "ReviewsWaiting", { label = "reviews" }],
        ["stack", "RedrivesRunning", { label = "redrives under way", color = "#9467bd" }],
      ]
      options = {}
    },
    {
      title   = "Latency of the model (ms)"
      stat    = "p50"
      metrics = [for stat in ["p50", "p95", "p99"] : ["stack", "ModelLatency", { stat = stat, label = stat }]]
      options = {}
    },
    {
      title   = "Sent to stored (ms)"
      stat    = "p50"
      metrics = concat([for stat in ["p50", "p95", "p99"] : ["stack", "EndToEndLatency", { stat = stat, label = stat }]], [["stack", "QueueWait", { stat = "p50", label = "of it in the queue, p50" }], ["stack", "JobLatency", { stat = "p50", label = "of it since a worker first had it, p50" }]])
      options = {}
    },
    {
      title   = "Model calls"
      stat    = "Sum"
      metrics = [for name in ["ModelCalls", "ModelRetries", "ModelThrottled", "ModelErrors", "AccountFailures", "OutputRejections"] : ["stack", name, {}]]
      options = {}
    },
    {
      title   = "Cost (USD)"
      stat    = "Sum"
      metrics = [["stack", "CostUsd", { label = "all" }], ["stack", "WastedCostUsd", { label = "of it for nothing" }]]
      options = { period = local.hour_s }
    },
    {
      title   = "Held back, and money left today (percent)"
      stat    = "Maximum"
      metrics = concat([["stack", "SpendLeftPercent", { stat = "Minimum", label = "money left", yAxis = "right" }]], [for cause in local.pause_causes : ["cause", "Paused", { cause = cause, label = "paused: ${cause}" }]])
      options = { yAxis = { left = { min = 0 }, right = { min = 0, max = 100 } } }
    },
    {
      title   = "Tokens"
      stat    = "Sum"
      metrics = [["stack", "InputTokens", {}], ["stack", "OutputTokens", {}]]
      options = {}
    },
    {
      title   = "Worker"
      stat    = "Sum"
      metrics = [["function", "Invocations", {}], ["function", "Errors", { color = "#d62728" }], ["function", "Throttles", {}], ["function", "ConcurrentExecutions", { stat = "Maximum", color = "#7f7f7f" }], ["stack", "LedgerErrors", {}]]
      options = {}
    },
  ]

  # CloudWatch wants a metric as [namespace, name, dimension, value, …, options].
  dashboard_sources = merge(local.sources, { reason = local.sources.stack, cause = local.sources.stack })
  dashboard_graphs = [for index, graph in local.graphs : {
    type   = "metric"
    x      = index % 3 * 8
    y      = 4 + floor(index / 3) * 6
    width  = 8
    height = 6
    properties = merge({
      title  = graph.title
      region = local.region
      view   = "timeSeries"
      stat   = graph.stat
      period = 5 * local.minute_s
      metrics = concat(
        [for metric in graph.metrics : concat(
          [local.dashboard_sources[metric[0]].namespace, metric[1]],
          flatten([for name, value in local.dashboard_sources[metric[0]].dimensions : [name, value]]),
          metric[0] == "reason" ? ["Reason", metric[2].reason] : metric[0] == "cause" ? ["Cause", metric[2].cause] : [],
          [{ for name, value in metric[2] : name => value if name != "reason" && name != "cause" }],
        )],
        [for math in try(graph.math, []) : [math]],
      )
    }, graph.options)
  }]
}

resource "aws_cloudwatch_dashboard" "stack" {
  region = var.region

  dashboard_name = "${var.prefix}-${local.global_suffix}"

  dashboard_body = jsonencode({
    start          = "-PT6H"
    periodOverride = "inherit"
    widgets = concat(
      [{
        type       = "alarm"
        x          = 0
        y          = 0
        width      = 24
        height     = 4
        properties = { title = "Alarms of ${var.prefix}", alarms = local.alarm_arns, sortBy = "stateUpdatedTimestamp" }
      }],
      local.dashboard_graphs,
    )
  })
}
