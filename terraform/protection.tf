# While protect_data is on, nothing of the stack is destroyed or replaced with its queues: not the messages, not the alarms.
#
# DynamoDB protects a table by itself, but Terraform would get to it last, with the queues and the worker gone. What
# depends on everything is destroyed first, and Terraform goes no further when that fails. Preconditions would not do:
# they are not looked at when something is destroyed.
#
# There are two, because what depends on everything is also made last, and not at all when something fails before it. The
# first leaves out what an apply may well fail at, so that what such an apply made is protected; the second, which
# depends on the first, is what guards everything of a stack that is whole.
#
# It refuses as it was applied, so that letting go is a step of its own. Not in its reach: an apply with -target, a state
# that was edited, and a configuration that this file was taken out of, as by removing the block of a module that is called:
# Terraform runs no provisioner that is not in the configuration any more.

resource "terraform_data" "protection" {
  input = { protect_data = var.protect_data, prefix = var.prefix }

  # Other names, or another region, are other queues. The table is not among these: a restored one takes its place.
  triggers_replace = [aws_sqs_queue.jobs.id, aws_sqs_queue.dead_letters.id, aws_sqs_queue.crashed.id]

  depends_on = [
    aws_cloudwatch_composite_alarm.stack,
    aws_cloudwatch_dashboard.stack,
    aws_cloudwatch_event_bus.results,
    aws_cloudwatch_log_group.redrive,
    aws_cloudwatch_log_group.sentinel,
    aws_cloudwatch_log_group.worker,
    aws_cloudwatch_metric_alarm.stack,
    aws_dynamodb_table.ledger,
    aws_iam_policy.stack,
    aws_iam_role.events,
    aws_iam_role.redrive,
    aws_iam_role.sentinel,
    aws_iam_role.sentinel_schedule,
    aws_iam_role.worker,
    aws_iam_role_policy.events,
    aws_iam_role_policy.redrive,
    aws_iam_role_policy.sentinel,
    aws_iam_role_policy.sentinel_schedule,
    aws_iam_role_policy.worker,
    aws_kms_alias.stack,
    aws_kms_key.stack,
    aws_lambda_alias.live,
    aws_lambda_event_source_mapping.worker,
    aws_lambda_function.redrive,
    aws_lambda_function.sentinel,
    aws_lambda_function.worker,
    aws_lambda_function_event_invoke_config.redrive,
    aws_lambda_function_event_invoke_config.sentinel,
    aws_lambda_function_event_invoke_config.worker,
    aws_scheduler_schedule.sentinel,
    aws_secretsmanager_secret.model_key,
    aws_sns_topic.severity,
    aws_sns_topic_policy.severity,
    aws_sns_topic_subscription.email,
    aws_sqs_queue.crashed,
    aws_sqs_queue.dead_letters,
    aws_sqs_queue.events_failed,
    aws_sqs_queue.jobs,
    aws_sqs_queue_policy.events_failed,
    aws_sqs_queue_policy.tls_only,
    aws_sqs_queue_redrive_allow_policy.crashed,
    aws_sqs_queue_redrive_allow_policy.dead_letters,
    terraform_data.composite_children,
  ]

  provisioner "local-exec" {
    when    = destroy
    quiet   = true
    command = self.output.protect_data ? "echo 'The data of stack ${self.output.prefix} is protected, and nothing was removed. To let go of it: terraform apply -var protect_data=false, or protect_data = false where this module is called (runbook/procedures/destroy-and-recreate.md)' && exit 1" : "true"
  }
}

resource "terraform_data" "protection_of_all" {
  input = terraform_data.protection.input

  triggers_replace = [terraform_data.protection.id]

  depends_on = [
    aws_pipes_pipe.events,
    aws_sns_topic_subscription.https,
    terraform_data.stream_is_open,
  ]

  provisioner "local-exec" {
    when    = destroy
    quiet   = true
    command = self.output.protect_data ? "echo 'The data of stack ${self.output.prefix} is protected, and nothing was removed. To let go of it: terraform apply -var protect_data=false, or protect_data = false where this module is called (runbook/procedures/destroy-and-recreate.md)' && exit 1" : "true"
  }
}
