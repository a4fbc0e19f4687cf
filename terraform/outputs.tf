# Names that people and tools need; scripts and the runbook read them by these names.

output "prefix" {
  description = "Start of every name of the stack."
  value       = var.prefix
}

output "region" {
  description = "Region of the stack."
  value       = local.region
}

output "jobs_queue_url" {
  description = "Where jobs are sent."
  value       = aws_sqs_queue.jobs.url
}

output "jobs_queue_arn" {
  description = "Destination of a redrive."
  value       = aws_sqs_queue.jobs.arn
}

output "dead_letters_queue_url" {
  description = "Jobs that failed for good, with a reason."
  value       = aws_sqs_queue.dead_letters.url
}

output "dead_letters_queue_arn" {
  description = "Source of a redrive."
  value       = aws_sqs_queue.dead_letters.arn
}

output "crashed_queue_url" {
  description = "Jobs that SQS gave up on."
  value       = aws_sqs_queue.crashed.url
}

output "crashed_queue_arn" {
  description = "Source of a redrive."
  value       = aws_sqs_queue.crashed.arn
}

output "ledger_table" {
  description = "Table of results and failures."
  value       = aws_dynamodb_table.ledger.name
}

output "ledger_stream_arn" {
  description = "Stream of new and changed records; null where ledger.stream and events are off."
  value       = var.ledger.stream || var.events ? aws_dynamodb_table.ledger.stream_arn : null
}

output "events_bus" {
  description = "EventBridge bus of results, reviews and dead letters; null where events is off."
  value       = one(aws_cloudwatch_event_bus.results[*].name)
}

output "events_failed_queue_url" {
  description = "Where the pipes say which events they gave up; null where events is off."
  value       = one(aws_sqs_queue.events_failed[*].url)
}

output "worker_function" {
  description = "The worker function."
  value       = aws_lambda_function.worker.function_name
}

output "worker_version" {
  description = "Version that the alias live pointed at when this was applied."
  value       = aws_lambda_alias.live.function_version
}

output "redrive_function" {
  description = "The function that puts dead letters back."
  value       = aws_lambda_function.redrive.function_name
}

output "sentinel_function" {
  description = "The function that runs each minute and sees what no invocation sees."
  value       = aws_lambda_function.sentinel.function_name
}

output "event_source_mapping" {
  description = "What is disabled to pause the stack."
  value       = aws_lambda_event_source_mapping.worker.uuid
}

output "log_group" {
  description = "Log of the worker."
  value       = aws_cloudwatch_log_group.worker.name
}

output "model_key_secret" {
  description = "Where the model key goes; null where the provider needs none or it is an SSM parameter."
  value       = one(aws_secretsmanager_secret.model_key[*].name)
}

output "topics" {
  description = "SNS topics by severity, for a pager or a chat."
  value       = { for severity, topic in aws_sns_topic.severity : severity => topic.arn }
}

output "policies" {
  description = "Managed policies to attach to producers, readers, operators, those who erase data and, with events, consumers."
  value       = { for role, policy in aws_iam_policy.stack : role => policy.arn }
}

output "key_statements" {
  description = "What the policy of a key of your own (customer_key_arn) has to allow, as JSON; null without one."
  value       = var.customer_key_arn == null ? null : jsonencode(local.key_statements)
}

output "alarms" {
  description = "Alarms that notify, by runbook page."
  value = merge(
    { for page, alarm in aws_cloudwatch_composite_alarm.stack : page => alarm.alarm_name },
    { for key, alarm in aws_cloudwatch_metric_alarm.stack : key => alarm.alarm_name if local.metric_alarms[key].acts },
  )
}

output "dashboard_url" {
  description = "The dashboard, in the console."
  value       = "https://console.aws.amazon.com/cloudwatch/home?region=${local.region}#dashboards/dashboard/${aws_cloudwatch_dashboard.stack.dashboard_name}"
}
