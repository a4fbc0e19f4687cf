"""What no schema says, for the arguments that we use: kept by hand, from the provider's documentation.

Each entry is named after a resource type; `doc` is the title of its documentation page, from which
the rest is taken.  A path is dotted, without list indexes: "ttl.enabled".

defaults   what an argument is when it is not set, and the schema does not have it computed
replace    arguments whose change destroys and creates the resource again
enum       the values an argument may have
ranges     the least and the greatest number
lengths    the least and the greatest number of characters
most       the greatest number of elements of a set
pattern    a regular expression that the whole value must match
conflicts  arguments that may not be set together
one_of     groups of which exactly one must be set
json       arguments that must be JSON; they are compared as JSON
kept_blocks  blocks, also within blocks, that are optional and computed in the provider's sources, or whose absence it takes for
           no change there, of which a schema says neither: left out, they keep what they were, and nothing is planned
off_blocks   blocks that are the same as none while their `enabled` is false: so the provider compares them, and AWS
           describes none of them
not_cleared  arguments that the provider does not send when they are emptied, so that the resource keeps them
new_if     computed attributes that get a new value when one of the named arguments changes

Common to all types: a change of `region` replaces.
"""

_ALARM_COMPARISONS = [
    "GreaterThanOrEqualToThreshold", "GreaterThanThreshold", "LessThanThreshold",
    "LessThanOrEqualToThreshold", "LessThanLowerOrGreaterThanUpperThreshold",
    "LessThanLowerThreshold", "GreaterThanUpperThreshold",
]
# "CloudWatch statistics definitions": Sum and its like, percentiles, trimmed means and their like.
_STATISTICS = (
    r"SampleCount|Average|Sum|Minimum|Maximum|IQM|(p|tm|wm|tc|ts)(\d{1,2}(\.\d{1,10})?|100)|(TM|WM|PR|TC|TS)\([\d.]*%?:[\d.]*%?\)"
)
_RETENTION_DAYS = [
    0, 1, 3, 5, 7, 14, 30, 60, 90, 120, 150, 180, 365, 400, 545, 731, 1096, 1827, 2192, 2557, 2922,
    3288, 3653,
]

RULES = {
    "aws_cloudwatch_composite_alarm": {
        "doc": "Resource: aws_cloudwatch_composite_alarm",
        "defaults": {"actions_enabled": True},
        "replace": ["alarm_name", "actions_enabled"],
        "lengths": {"alarm_name": (1, 255), "alarm_description": (0, 1024), "alarm_rule": (1, 10240)},
    },
    "aws_cloudwatch_dashboard": {
        "doc": "Resource: aws_cloudwatch_dashboard",
        "replace": ["dashboard_name"],
        "json": ["dashboard_body"],
        "pattern": {"dashboard_name": r"[0-9A-Za-z_-]{1,255}"},
    },
    "aws_cloudwatch_event_bus": {
        "doc": "Resource: aws_cloudwatch_event_bus",
        "replace": ["name", "event_source_name"],
        "lengths": {"description": (0, 512), "kms_key_identifier": (0, 2048)},
        "pattern": {"name": r"(?!default$)[/.\-_A-Za-z0-9]{1,256}"},
    },
    "aws_cloudwatch_event_rule": {
        "doc": "Resource: aws_cloudwatch_event_rule",
        "defaults": {"event_bus_name": "default", "force_destroy": False, "state": "ENABLED"},
        "replace": ["name", "name_prefix", "event_bus_name"],
        "enum": {"state": ["DISABLED", "ENABLED", "ENABLED_WITH_ALL_CLOUDTRAIL_MANAGEMENT_EVENTS"]},
        "conflicts": [["name", "name_prefix"], ["is_enabled", "state"]],
        "at_least_one": [["schedule_expression", "event_pattern"]],
        "json": ["event_pattern"],
    },
    "aws_cloudwatch_event_target": {
        "doc": "Resource: aws_cloudwatch_event_target",
        "defaults": {"event_bus_name": "default", "force_destroy": False},
        "replace": ["rule", "target_id", "event_bus_name"],
        "conflicts": [["input", "input_path"], ["input", "input_transformer"], ["input_path", "input_transformer"]],
    },
    "aws_cloudwatch_log_group": {
        "doc": "Resource: aws_cloudwatch_log_group",
        "defaults": {"retention_in_days": 0, "skip_destroy": False},
        "replace": ["name", "name_prefix", "log_group_class"],
        "enum": {"retention_in_days": _RETENTION_DAYS, "log_group_class": ["STANDARD", "INFREQUENT_ACCESS", "DELIVERY"]},
        "conflicts": [["name", "name_prefix"]],
        "pattern": {"name": r"[a-zA-Z0-9_./#-]{1,512}"},
    },
    "aws_cloudwatch_log_metric_filter": {
        "doc": "Resource: aws_cloudwatch_log_metric_filter",
        "replace": ["name", "log_group_name"],
    },
    "aws_cloudwatch_metric_alarm": {
        "doc": "Resource: aws_cloudwatch_metric_alarm",
        "defaults": {"actions_enabled": True, "treat_missing_data": "missing", "metric_query.return_data": False},
        "replace": ["alarm_name"],
        "most": {"alarm_actions": 5, "ok_actions": 5, "insufficient_data_actions": 5},
        "enum": {
            "comparison_operator": _ALARM_COMPARISONS,
            "statistic": ["SampleCount", "Average", "Sum", "Minimum", "Maximum"],
            "treat_missing_data": ["breaching", "notBreaching", "ignore", "missing"],
            "evaluate_low_sample_count_percentiles": ["evaluate", "ignore"],
        },
        "ranges": {"evaluation_periods": (1, None), "datapoints_to_alarm": (1, None)},
        "lengths": {
            "alarm_name": (1, 255), "alarm_description": (0, 1024), "metric_name": (1, 255), "namespace": (1, 255),
            "metric_query.expression": (1, 1024), "metric_query.metric.metric_name": (1, 255), "metric_query.metric.namespace": (1, 255),
        },
        "pattern": {"metric_query.metric.stat": _STATISTICS, "extended_statistic": _STATISTICS},
        "periods": ["period", "metric_query.period", "metric_query.metric.period"],
        "conflicts": [
            ["metric_name", "metric_query"], ["extended_statistic", "statistic"],
            ["extended_statistic", "metric_query"], ["statistic", "metric_query"],
            ["period", "metric_query"], ["namespace", "metric_query"],
            ["dimensions", "metric_query"], ["unit", "metric_query"],
            ["threshold", "threshold_metric_id"],
        ],
        "one_of": [["metric_name", "metric_query", "evaluation_criteria"]],
    },
    "aws_dynamodb_resource_policy": {
        "doc": "Resource: aws_dynamodb_resource_policy",
        "defaults": {},
        "replace": ["resource_arn"],
        "json": ["policy"],
    },
    "aws_dynamodb_table": {
        "doc": "Resource: aws_dynamodb_table",
        "defaults": {
            "billing_mode": "PROVISIONED", "deletion_protection_enabled": False, "stream_enabled": None,
            "table_class": None, "ttl.enabled": False, "ttl.attribute_name": None,
        },
        "replace": ["name", "hash_key", "range_key", "local_secondary_index", "import_table"],
        "enum": {
            "billing_mode": ["PROVISIONED", "PAY_PER_REQUEST"],
            "attribute.type": ["S", "N", "B"],
            "global_secondary_index.projection_type": ["ALL", "KEYS_ONLY", "INCLUDE"],
            "global_secondary_index.key_schema.key_type": ["HASH", "RANGE"],
            "stream_view_type": ["KEYS_ONLY", "NEW_IMAGE", "OLD_IMAGE", "NEW_AND_OLD_IMAGES"],
            "table_class": ["STANDARD", "STANDARD_INFREQUENT_ACCESS"],
        },
        "ranges": {"point_in_time_recovery.recovery_period_in_days": (1, 35)},
        # internal/service/dynamodb/table.go: the schema, and isTableOptionDisabled.
        "kept_blocks": [
            "attribute", "global_secondary_index.warm_throughput", "point_in_time_recovery", "server_side_encryption", "ttl",
            "warm_throughput",
        ],
        "off_blocks": ["server_side_encryption"],
        "pattern": {"name": r"[a-zA-Z0-9_.-]{3,255}"},
        # internal/service/dynamodb/table.go, CustomizeDiff: a stream with another view is another stream.
        "new_if": {"stream_arn": ["stream_enabled", "stream_view_type"], "stream_label": ["stream_enabled", "stream_view_type"]},
    },
    "aws_iam_policy": {
        "doc": "Resource: aws_iam_policy",
        "defaults": {"path": "/", "delay_after_policy_creation_in_ms": None},
        "replace": ["name", "name_prefix", "path", "description"],
        "conflicts": [["name", "name_prefix"]],
        "json": ["policy"],
        "pattern": {"name": r"[\w+=,.@-]{1,128}"},
    },
    "aws_iam_role": {
        "doc": "Resource: aws_iam_role",
        "defaults": {"path": "/", "max_session_duration": 3600, "force_detach_policies": False},
        "replace": ["name", "name_prefix", "path"],
        "kept_blocks": ["inline_policy"],  # internal/service/iam/role.go
        "ranges": {"max_session_duration": (3600, 43200)},
        "conflicts": [["name", "name_prefix"]],
        "json": ["assume_role_policy"],
        "pattern": {"name": r"[\w+=,.@-]{1,64}"},
    },
    "aws_iam_role_policy": {
        "doc": "Resource: aws_iam_role_policy",
        "replace": ["name", "name_prefix", "role"],
        "conflicts": [["name", "name_prefix"]],
        "json": ["policy"],
        "pattern": {"name": r"[\w+=,.@-]{1,128}"},
    },
    "aws_iam_role_policy_attachment": {
        "doc": "Resource: aws_iam_role_policy_attachment",
        "replace": ["role", "policy_arn"],
    },
    "aws_kms_alias": {
        "doc": "Resource: aws_kms_alias",
        "replace": ["name", "name_prefix"],
        "conflicts": [["name", "name_prefix"]],
        "pattern": {"name": r"alias/[a-zA-Z0-9/_-]+"},
    },
    "aws_kms_key": {
        "doc": "Resource: aws_kms_key",
        "defaults": {
            "bypass_policy_lockout_safety_check": False, "customer_master_key_spec": "SYMMETRIC_DEFAULT",
            "enable_key_rotation": False, "is_enabled": True, "key_usage": "ENCRYPT_DECRYPT",
        },
        "replace": ["customer_master_key_spec", "key_usage", "multi_region", "custom_key_store_id"],
        "enum": {"key_usage": ["ENCRYPT_DECRYPT", "SIGN_VERIFY", "GENERATE_VERIFY_MAC", "KEY_AGREEMENT"]},
        "ranges": {"deletion_window_in_days": (7, 30), "rotation_period_in_days": (90, 2560)},
        "json": ["policy"],
    },
    "aws_kms_key_policy": {
        "doc": "Resource: aws_kms_key_policy",
        "defaults": {"bypass_policy_lockout_safety_check": False},
        "replace": ["key_id"],
        "json": ["policy"],
    },
    "aws_lambda_alias": {
        "doc": "Resource: aws_lambda_alias",
        "replace": ["name", "function_name"],
        "pattern": {"name": r"(?!^[0-9]+$)[a-zA-Z0-9_-]{1,128}"},
    },
    "aws_lambda_event_source_mapping": {
        "doc": "Resource: aws_lambda_event_source_mapping",
        "defaults": {"enabled": True},
        "replace": ["event_source_arn", "starting_position", "starting_position_timestamp", "queues"],
        # internal/service/lambda/event_source_mapping.go
        "kept_blocks": ["amazon_managed_kafka_event_source_config", "destination_config", "self_managed_kafka_event_source_config"],
        "enum": {"function_response_types": ["ReportBatchItemFailures"]},
        "ranges": {
            "maximum_batching_window_in_seconds": (0, 300), "scaling_config.maximum_concurrency": (2, None),
            "batch_size": (1, 10000),
        },
        "one_of": [["event_source_arn", "self_managed_event_source"]],
        # Amazon SQS: "If batch_size is greater than 10, maximum_batching_window must be at least 1".
        "sqs_batch": True,
    },
    "aws_lambda_function": {
        "doc": "Resource: aws_lambda_function",
        "defaults": {
            "memory_size": 128, "package_type": "Zip", "publish": False, "reserved_concurrent_executions": -1,
            "skip_destroy": False, "timeout": 3, "replace_security_groups_on_destroy": None,
        },
        "replace": ["function_name", "package_type"],
        "kept_blocks": ["ephemeral_storage", "logging_config", "tracing_config"],  # internal/service/lambda/function.go
        "enum": {
            "architectures": ["arm64", "x86_64"],
            "package_type": ["Zip", "Image"],
            "tracing_config.mode": ["Active", "PassThrough"],
            "logging_config.log_format": ["JSON", "Text"],
            "logging_config.application_log_level": ["TRACE", "DEBUG", "INFO", "WARN", "ERROR", "FATAL"],
            "logging_config.system_log_level": ["DEBUG", "INFO", "WARN"],
            "runtime": [
                "provided.al2023", "provided.al2", "python3.13", "python3.12", "python3.14", "nodejs22.x",
                "nodejs24.x", "java21", "java25", "dotnet8", "ruby3.4",
            ],
        },
        "ranges": {"memory_size": (128, 10240), "timeout": (1, 900), "ephemeral_storage.size": (512, 10240), "reserved_concurrent_executions": (-1, None)},
        "conflicts": [["filename", "s3_bucket"], ["filename", "image_uri"], ["s3_bucket", "image_uri"]],
        "one_of": [["filename", "s3_bucket", "image_uri"]],
        "pattern": {"function_name": r"(arn:.*|[a-zA-Z0-9_-]{1,64})"},
        "new_if": {
            "code_sha256": ["filename", "source_code_hash"], "source_code_size": ["filename", "source_code_hash"],
            "last_modified": ["filename", "source_code_hash", "environment", "timeout", "memory_size", "role", "architectures", "logging_config", "tracing_config", "kms_key_arn", "handler", "runtime", "description"],
        },
        # With `publish`, a new version for each change of the code or the configuration.
        "new_version_if_published": [
            "filename", "source_code_hash", "s3_bucket", "s3_key", "s3_object_version", "code_sha256", "environment", "timeout", "memory_size", "role",
            "architectures", "logging_config", "tracing_config", "kms_key_arn", "handler", "runtime", "description",
            "layers", "ephemeral_storage", "dead_letter_config", "vpc_config",
        ],
    },
    "aws_lambda_function_event_invoke_config": {
        "doc": "Resource: aws_lambda_function_event_invoke_config",
        "defaults": {"maximum_retry_attempts": 2},
        "replace": ["function_name", "qualifier"],
        "ranges": {"maximum_event_age_in_seconds": (60, 21600), "maximum_retry_attempts": (0, 2)},
    },
    "aws_lambda_permission": {
        "doc": "Resource: aws_lambda_permission",
        "replace": [
            "action", "event_source_token", "function_name", "function_url_auth_type", "principal",
            "principal_org_id", "qualifier", "source_account", "source_arn", "statement_id", "statement_id_prefix",
        ],
        "conflicts": [["statement_id", "statement_id_prefix"]],
    },
    "aws_pipes_pipe": {
        "doc": "Resource: aws_pipes_pipe",
        "defaults": {"desired_state": "RUNNING"},
        "replace": ["name", "name_prefix", "source"],
        # internal/service/pipes/source_parameters.go
        "kept_blocks": [
            "source_parameters", *(f"source_parameters.{kind}_parameters" for kind in (
                "activemq_broker", "dynamodb_stream", "kinesis_stream", "managed_streaming_kafka", "rabbitmq_broker",
                "self_managed_kafka", "sqs_queue",
            )),
        ],
        "enum": {
            "desired_state": ["RUNNING", "STOPPED"],
            "source_parameters.dynamodb_stream_parameters.starting_position": ["TRIM_HORIZON", "LATEST"],
            "source_parameters.dynamodb_stream_parameters.on_partial_batch_item_failure": ["AUTOMATIC_BISECT"],
        },
        "ranges": {
            "source_parameters.dynamodb_stream_parameters.batch_size": (1, 10000),
            "source_parameters.dynamodb_stream_parameters.parallelization_factor": (1, 10),
            "source_parameters.dynamodb_stream_parameters.maximum_retry_attempts": (-1, 10000),
            "source_parameters.dynamodb_stream_parameters.maximum_record_age_in_seconds": (-1, 604800),
        },
        "lengths": {
            "description": (0, 512), "target_parameters.input_template": (0, 8192),
            "source_parameters.filter_criteria.filter.pattern": (1, 4096),
            "target_parameters.eventbridge_event_bus_parameters.source": (1, 256),
            "target_parameters.eventbridge_event_bus_parameters.detail_type": (1, 128),
        },
        "conflicts": [["name", "name_prefix"]],
        "pattern": {"name": r"[.\-_A-Za-z0-9]{1,64}"},
    },
    "aws_scheduler_schedule": {
        "doc": "Resource: aws_scheduler_schedule",
        "defaults": {
            "schedule_expression_timezone": "UTC", "state": "ENABLED",
            "target.retry_policy.maximum_event_age_in_seconds": 86400,
            "target.retry_policy.maximum_retry_attempts": 185,
        },
        "replace": ["name", "name_prefix", "group_name"],
        "kept_blocks": ["target.retry_policy"],  # internal/service/scheduler/schedule.go
        "enum": {
            "state": ["ENABLED", "DISABLED"],
            "flexible_time_window.mode": ["OFF", "FLEXIBLE"],
            "action_after_completion": ["NONE", "DELETE"],
        },
        "ranges": {
            "target.retry_policy.maximum_event_age_in_seconds": (60, 86400),
            "target.retry_policy.maximum_retry_attempts": (0, 185),
            "flexible_time_window.maximum_window_in_minutes": (1, 1440),
        },
        "conflicts": [["name", "name_prefix"]],
    },
    "aws_scheduler_schedule_group": {
        "doc": "Resource: aws_scheduler_schedule_group",
        "replace": ["name", "name_prefix"],
        "conflicts": [["name", "name_prefix"]],
    },
    "aws_secretsmanager_secret": {
        "doc": "Resource: aws_secretsmanager_secret",
        "defaults": {"recovery_window_in_days": 30, "force_overwrite_replica_secret": False},
        "replace": ["name", "name_prefix"],
        # internal/service/secretsmanager/secret.go: the schema, and resourceSecretUpdate.
        "kept_blocks": ["replica"],
        "not_cleared": ["kms_key_id"],
        "conflicts": [["name", "name_prefix"]],
        "json": ["policy"],
        # 0, or 7 to 30 days.
        "enum": {"recovery_window_in_days": [0, *range(7, 31)]},
        "pattern": {"name": r"[0-9A-Za-z/_+=.@-]{1,512}"},
    },
    "aws_secretsmanager_secret_policy": {
        "doc": "Resource: aws_secretsmanager_secret_policy",
        "replace": ["secret_arn"],
        "json": ["policy"],
    },
    "aws_secretsmanager_secret_version": {
        "doc": "Resource: aws_secretsmanager_secret_version",
        "replace": ["secret_id", "secret_string", "secret_binary", "secret_string_wo_version"],
        "conflicts": [["secret_string", "secret_binary"], ["secret_string", "secret_string_wo"]],
    },
    "aws_sns_topic": {
        "doc": "Resource: aws_sns_topic",
        "defaults": {"fifo_topic": False, "content_based_deduplication": False},
        "replace": ["name", "name_prefix", "fifo_topic"],
        "conflicts": [["name", "name_prefix"]],
        "json": ["policy", "delivery_policy"],
        "enum": {"tracing_config": ["Active", "PassThrough"]},
        "ranges": {"signature_version": (1, 2)},
    },
    "aws_sns_topic_policy": {
        "doc": "Resource: aws_sns_topic_policy",
        "replace": ["arn"],
        "json": ["policy"],
    },
    "aws_sns_topic_subscription": {
        "doc": "Resource: aws_sns_topic_subscription",
        "defaults": {"confirmation_timeout_in_minutes": 1, "endpoint_auto_confirms": False, "raw_message_delivery": False},
        "replace": ["endpoint", "protocol", "topic_arn"],
        "enum": {"protocol": ["application", "email", "email-json", "firehose", "http", "https", "lambda", "sms", "sqs"]},
        "json": ["filter_policy"],
    },
    "aws_sqs_queue": {
        "doc": "Resource: aws_sqs_queue",
        "defaults": {
            "content_based_deduplication": False, "delay_seconds": 0, "fifo_queue": False,
            "max_message_size": 262144, "message_retention_seconds": 345600,
            "receive_wait_time_seconds": 0, "visibility_timeout_seconds": 30,
        },
        "replace": ["name", "name_prefix", "fifo_queue"],
        "ranges": {
            "delay_seconds": (0, 900), "max_message_size": (1024, 1048576),
            "message_retention_seconds": (60, 1209600), "receive_wait_time_seconds": (0, 20),
            "visibility_timeout_seconds": (0, 43200), "kms_data_key_reuse_period_seconds": (60, 86400),
        },
        "conflicts": [["name", "name_prefix"], ["kms_master_key_id", "sqs_managed_sse_enabled"]],
        "json": ["policy", "redrive_policy", "redrive_allow_policy"],
        "pattern": {"name": r"[a-zA-Z0-9_-]{1,80}(\.fifo)?"},
    },
    "aws_sqs_queue_policy": {"doc": "Resource: aws_sqs_queue_policy", "replace": ["queue_url"], "json": ["policy"]},
    "aws_sqs_queue_redrive_allow_policy": {
        "doc": "Resource: aws_sqs_queue_redrive_allow_policy", "replace": ["queue_url"], "json": ["redrive_allow_policy"],
    },
    "aws_sqs_queue_redrive_policy": {
        "doc": "Resource: aws_sqs_queue_redrive_policy", "replace": ["queue_url"], "json": ["redrive_policy"],
    },
    "aws_ssm_parameter": {
        "doc": "Resource: aws_ssm_parameter",
        "defaults": {"tier": None},
        "replace": ["name"],
        "enum": {"type": ["String", "StringList", "SecureString"], "tier": ["Standard", "Advanced", "Intelligent-Tiering"]},
        "one_of": [["value", "insecure_value", "value_wo"]],
    },
}
