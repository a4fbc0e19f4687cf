# Managed policies to attach to whoever sends jobs, reads results and operates the stack.

locals {
  # `nightshift` asks the worker's function what is deployed.
  find_the_stack = {
    Sid      = "FindTheStack"
    Effect   = "Allow"
    Action   = ["lambda:GetFunctionConfiguration"]
    Resource = [aws_lambda_function.worker.arn, "${aws_lambda_function.worker.arn}:*"]
  }

  # Rules on this bus alone, with their targets. A target that needs a role needs iam:PassRole, which is not given here:
  # whoever acts on results decides what as. Outputs that did not fit into their event are the reader's to read.
  consumer = [for bus in aws_cloudwatch_event_bus.results : {
    description = "Act on the results of ${var.prefix}"
    statements = [
      {
        Sid      = "SeeTheBus"
        Effect   = "Allow"
        Action   = ["events:DescribeEventBus"]
        Resource = [bus.arn]
      },
      {
        Sid    = "RulesOnTheBus"
        Effect = "Allow"
        Action = [
          "events:DeleteRule",
          "events:DescribeRule",
          "events:DisableRule",
          "events:EnableRule",
          "events:ListTagsForResource",
          "events:ListTargetsByRule",
          "events:PutRule",
          "events:PutTargets",
          "events:RemoveTargets",
          "events:TagResource",
        ]
        Resource = ["arn:${local.partition}:events:${local.region}:${local.account}:rule/${bus.name}/*"]
      },
    ]
  }]

  policies = merge(local.policies_always, { for policy in local.consumer : "consumer" => policy })

  policies_always = {
    producer = {
      description = "Send jobs to ${var.prefix}"
      statements = [
        local.find_the_stack,
        {
          Sid      = "SendJobs"
          Effect   = "Allow"
          Action   = ["sqs:GetQueueAttributes", "sqs:GetQueueUrl", "sqs:SendMessage"]
          Resource = [aws_sqs_queue.jobs.arn]
        },
      ]
    }

    reader = {
      description = "Read the results of ${var.prefix}"
      statements = [
        local.find_the_stack,
        {
          Sid      = "ReadResults"
          Effect   = "Allow"
          Action   = ["dynamodb:BatchGetItem", "dynamodb:DescribeTable", "dynamodb:GetItem", "dynamodb:Query", "dynamodb:Scan"]
          Resource = [aws_dynamodb_table.ledger.arn, "${aws_dynamodb_table.ledger.arn}/index/*"]
        },
        {
          Sid      = "SeeWhatWaits" # Without a record and without a message, a job is missing.
          Effect   = "Allow"
          Action   = ["sqs:GetQueueAttributes"]
          Resource = [aws_sqs_queue.jobs.arn, aws_sqs_queue.crashed.arn]
        },
      ]
    }

    # What the commands of runbook/ ask for, but for those that say that they need an administrator (deploying, restoring,
    # and what throws jobs away): tests/repository compares the two.
    eraser = { # For the rest of `nightshift results delete` it needs the operator's beside it.
      description = "Erase a person's data in ${var.prefix}"
      statements = [
        {
          Sid      = "EraseRecords" # A tombstone takes the place of the whole item.
          Effect   = "Allow"
          Action   = ["dynamodb:PutItem"]
          Resource = [aws_dynamodb_table.ledger.arn]
          Condition = { # Records of jobs alone.
            "ForAllValues:StringNotLike" = { "dynamodb:LeadingKeys" = ["*#*", "control"] }
          }
        },
        {
          Sid      = "EraseKeptMessages" # Of results that wait for review.
          Effect   = "Allow"
          Action   = ["dynamodb:UpdateItem"]
          Resource = [aws_dynamodb_table.ledger.arn]
          Condition = {
            "ForAllValues:StringLike" = { "dynamodb:LeadingKeys" = ["body#*"] }
          }
        },
      ]
    }

    reviewer = {
      description = "Review results of ${var.prefix}: accept, edit, reject"
      statements = [
        local.find_the_stack,
        {
          Sid      = "ReadWhatWaits"
          Effect   = "Allow"
          Action   = ["dynamodb:BatchGetItem", "dynamodb:GetItem", "dynamodb:Query"]
          Resource = [aws_dynamodb_table.ledger.arn, "${aws_dynamodb_table.ledger.arn}/index/*"]
        },
        {
          Sid      = "Decide"
          Effect   = "Allow"
          Action   = ["dynamodb:UpdateItem"]
          Resource = [aws_dynamodb_table.ledger.arn]
          Condition = { # Records of jobs alone.
            "ForAllValues:StringNotLike" = { "dynamodb:LeadingKeys" = ["*#*", "control"] }
          }
        },
        {
          Sid      = "Trace"
          Effect   = "Allow"
          Action   = ["dynamodb:PutItem", "dynamodb:UpdateItem"]
          Resource = [aws_dynamodb_table.ledger.arn]
          Condition = {
            "ForAllValues:StringLike" = { "dynamodb:LeadingKeys" = ["trace#*"] }
          }
        },
        {
          Sid      = "Reject"
          Effect   = "Allow"
          Action   = ["sqs:SendMessage"]
          Resource = [aws_sqs_queue.dead_letters.arn]
        },
      ]
    }

    operator = {
      description = "Operate ${var.prefix}: look, redrive, pause, roll back, rotate the key"
      statements = concat(
        [
          {
            Sid      = "LookAtQueues"
            Effect   = "Allow"
            Action   = ["sqs:GetQueueAttributes", "sqs:GetQueueUrl"]
            Resource = [aws_sqs_queue.jobs.arn, aws_sqs_queue.dead_letters.arn, aws_sqs_queue.crashed.arn]
          },
          {
            Sid      = "RedriveFrom" # Receive and Delete are what a move task does in the operator's name.
            Effect   = "Allow"
            Action   = ["sqs:CancelMessageMoveTask", "sqs:ChangeMessageVisibility", "sqs:DeleteMessage", "sqs:ListDeadLetterSourceQueues", "sqs:ListMessageMoveTasks", "sqs:ReceiveMessage", "sqs:StartMessageMoveTask"]
            Resource = [aws_sqs_queue.dead_letters.arn, aws_sqs_queue.crashed.arn]
          },
          {
            Sid      = "RedriveTo"
            Effect   = "Allow"
            Action   = ["sqs:SendMessage"]
            Resource = [aws_sqs_queue.jobs.arn]
          },
          {
            Sid      = "Redrive" # The function does the rest as its own role.
            Effect   = "Allow"
            Action   = ["lambda:InvokeFunction"]
            Resource = [aws_lambda_function.redrive.arn]
          },
          {
            Sid      = "RunTheSentinel"
            Effect   = "Allow"
            Action   = ["lambda:InvokeFunction"]
            Resource = [aws_lambda_function.sentinel.arn]
          },
          {
            Sid      = "ReadTheLedger"
            Effect   = "Allow"
            Action   = ["dynamodb:BatchGetItem", "dynamodb:DescribeContinuousBackups", "dynamodb:DescribeTable", "dynamodb:GetItem", "dynamodb:Query", "dynamodb:Scan"]
            Resource = [aws_dynamodb_table.ledger.arn, "${aws_dynamodb_table.ledger.arn}/index/*"]
          },
          {
            Sid      = "ControlAndTrace" # Who operates writes no record of a job.
            Effect   = "Allow"
            Action   = ["dynamodb:PutItem", "dynamodb:UpdateItem"]
            Resource = [aws_dynamodb_table.ledger.arn]
            Condition = {
              "ForAllValues:StringLike" = { "dynamodb:LeadingKeys" = ["control", "trace#*"] }
            }
          },
          {
            Sid      = "PauseAndResume"
            Effect   = "Allow"
            Action   = ["lambda:UpdateEventSourceMapping"]
            Resource = [aws_lambda_event_source_mapping.worker.arn]
          },
          {
            Sid      = "RollBack"
            Effect   = "Allow"
            Action   = ["lambda:GetAlias", "lambda:GetFunction", "lambda:GetFunctionConfiguration", "lambda:ListVersionsByFunction", "lambda:UpdateAlias"]
            Resource = [aws_lambda_function.worker.arn, "${aws_lambda_function.worker.arn}:*"]
          },
          {
            Sid      = "ReadLogs"
            Effect   = "Allow"
            Action   = ["logs:DescribeLogStreams", "logs:FilterLogEvents", "logs:GetLogEvents", "logs:StartQuery"]
            Resource = flatten([for group in [aws_cloudwatch_log_group.worker, aws_cloudwatch_log_group.redrive, aws_cloudwatch_log_group.sentinel] : [group.arn, "${group.arn}:*"]])
          },
          {
            Sid    = "DrillAlarms"
            Effect = "Allow"
            Action = ["cloudwatch:SetAlarmState"]
            # Not each by its name: with a long prefix, the policy would exceed the 6,144 characters that IAM allows one ("IAM
            # and STS quotas"). It reaches a stack whose prefix begins with this one and a hyphen.
            Resource = ["arn:${local.partition}:cloudwatch:${local.region}:${local.account}:alarm:${var.prefix}-*"]
          },
          {
            Sid    = "Look" # Actions that know no resource, or list what there is.
            Effect = "Allow"
            Action = [
              "cloudwatch:DescribeAlarmHistory",
              "cloudwatch:DescribeAlarms",
              "cloudwatch:GetMetricData",
              "cloudwatch:GetMetricStatistics",
              "cloudwatch:ListMetrics",
              "lambda:GetAccountSettings",
              "lambda:ListEventSourceMappings",
              "logs:GetQueryResults",
            ]
            Resource = ["*"]
          },
          {
            Sid      = "SeeWhoIsTold"
            Effect   = "Allow"
            Action   = ["sns:ListSubscriptionsByTopic"]
            Resource = [for topic in aws_sns_topic.severity : topic.arn]
          },
          {
            Sid      = "LookAtTheDashboard"
            Effect   = "Allow"
            Action   = ["cloudwatch:GetDashboard"]
            Resource = [aws_cloudwatch_dashboard.stack.dashboard_arn]
          },
        ],
        [for secret in aws_secretsmanager_secret.model_key : {
          Sid      = "RotateTheKey" # Writing it does not need reading it.
          Effect   = "Allow"
          Action   = ["secretsmanager:DescribeSecret", "secretsmanager:ListSecretVersionIds", "secretsmanager:PutSecretValue", "secretsmanager:UpdateSecretVersionStage"]
          Resource = [secret.arn]
        }],
        [for arn in compact([local.model_has_key ? local.model_key_parameter_arn : null]) : {
          Sid      = "RotateTheKey"
          Effect   = "Allow"
          Action   = ["ssm:PutParameter"]
          Resource = [arn]
        }],
      )
    }
  }
}

resource "aws_iam_policy" "stack" {
  for_each = local.policies

  tags = local.tags

  name        = "${var.prefix}-${each.key}-${local.global_suffix}"
  path        = var.iam.path
  description = each.value.description

  policy = jsonencode({
    Version   = "2012-10-17"
    Statement = each.value.statements
  })

  lifecycle {
    # IAM cannot change it: another wording would be another policy, and IAM does not delete one that is attached.
    ignore_changes = [description]
  }
}
