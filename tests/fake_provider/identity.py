"""The computed attributes that AWS derives from names: ids, ARNs and URLs, each as AWS documents it.

`computed(type, planned, context)` gives those of a resource; both backends use it, and MiniStack's
answer wins where it gives one.
"""

import base64
import hashlib
import os


def partition(region):
    if region.startswith("cn-"):
        return "aws-cn"
    if region.startswith("us-gov-"):
        return "aws-us-gov"
    return "aws"


def dns_suffix(region):
    return "amazonaws.com.cn" if region.startswith("cn-") else "amazonaws.com"


def short_hash(*parts):
    return hashlib.sha256("\0".join(map(str, parts)).encode()).hexdigest()


def computed(type_name, values, context):
    region = values.get("region") or context.region
    account = context.account
    arn = lambda service, rest: f"arn:{partition(region)}:{service}:{region}:{account}:{rest}"
    iam = lambda rest: f"arn:{partition(region)}:iam::{account}:{rest}"
    found = _TYPES.get(type_name)
    return found(values, arn, iam, region, account, context) if found else {}


def _queue(v, arn, iam, region, account, context):
    url = f"https://sqs.{region}.{dns_suffix(region)}/{account}/{v['name']}"
    # Encryption with SQS's own key is on unless a KMS key is named.
    own_key = not v.get("kms_master_key_id")
    return {
        "id": url, "url": url, "arn": arn("sqs", v["name"]), "sqs_managed_sse_enabled": own_key,
        "kms_data_key_reuse_period_seconds": 300,
    }


def _queue_attribute(v, *_):
    return {"id": v["queue_url"]}


def _table(v, arn, iam, region, account, context):
    found = {"id": v["name"], "arn": arn("dynamodb", f"table/{v['name']}")}
    if v.get("stream_enabled"):
        views = ["KEYS_ONLY", "NEW_IMAGE", "OLD_IMAGE", "NEW_AND_OLD_IMAGES"]
        label = f"2026-01-01T00:00:0{views.index(v['stream_view_type'])}.000"
        found.update(stream_label=label, stream_arn=f"{found['arn']}/stream/{label}")
    return found


def _function(v, arn, iam, region, account, context):
    name = v["function_name"]
    own = arn("lambda", f"function:{name}")
    version = "1" if v.get("publish") else "$LATEST"
    invoke = lambda of: f"arn:{partition(region)}:apigateway:{region}:lambda:path/2015-03-31/functions/{of}/invocations"
    found = {
        "id": name, "arn": own, "invoke_arn": invoke(own), "version": version, "qualified_arn": f"{own}:{version}",
        "qualified_invoke_arn": invoke(f"{own}:{version}"), "last_modified": "2026-01-01T00:00:00.000+0000",
        "architectures": ["x86_64"],
        "response_streaming_invoke_arn": invoke(own).replace("2015-03-31", "2021-11-15").replace("/invocations", "/response-streaming-invocations"),
    }
    buckets = os.environ.get("FAKE_AWS_BUCKETS")
    if v.get("filename") or (v.get("s3_bucket") and buckets):
        code = read_zip(v.get("filename") or os.path.join(buckets, v["s3_bucket"], v["s3_key"]))
        found["code_sha256"] = base64.b64encode(hashlib.sha256(code).digest()).decode()
        found["source_code_size"] = len(code)
        found["source_code_hash"] = found["code_sha256"]
    return found


def read_zip(path):
    try:
        with open(os.path.expanduser(path), "rb") as file:
            return file.read()
    except OSError as error:
        raise ValueError(f"filename: unable to load {path!r}: {error.strerror}") from error


def _alias(v, arn, iam, region, account, context):
    function = v["function_name"].rsplit(":", 1)[-1]
    own = arn("lambda", f"function:{function}:{v['name']}")
    return {
        "id": own, "arn": own,
        "invoke_arn": f"arn:{partition(region)}:apigateway:{region}:lambda:path/2015-03-31/functions/{own}/invocations",
    }


def function_arn(reference, arn):
    if reference.startswith("arn:"):
        return reference
    return arn("lambda", f"function:{reference}")


def _event_source(v, arn, iam, region, account, context):
    digest = short_hash(v.get("event_source_arn"), v["function_name"], region)
    uuid = f"{digest[:8]}-{digest[8:12]}-{digest[12:16]}-{digest[16:20]}-{digest[20:32]}"
    return {
        "id": uuid, "uuid": uuid, "arn": arn("lambda", f"event-source-mapping:{uuid}"),
        "function_arn": function_arn(v["function_name"], arn), "state": "Enabled" if v.get("enabled") else "Disabled",
        "state_transition_reason": "USER_INITIATED", "last_modified": "2026-01-01T00:00:00Z",
    }


def _role(v, arn, iam, region, account, context):
    return {
        "id": v["name"], "arn": iam(f"role{v['path']}{v['name']}"), "create_date": "2026-01-01T00:00:00Z",
        "unique_id": "AROA" + short_hash(v["name"])[:17].upper(),
    }


def _policy(v, arn, iam, region, account, context):
    own = iam(f"policy{v['path']}{v['name']}")
    return {"id": own, "arn": own, "policy_id": "ANPA" + short_hash(v["name"])[:17].upper(), "attachment_count": 0}


def _key(v, arn, iam, region, account, context):
    digest = short_hash(context.new_id())
    key_id = f"{digest[:8]}-{digest[8:12]}-{digest[12:16]}-{digest[16:20]}-{digest[20:32]}"
    own = arn("kms", f"key/{key_id}")
    return {"id": key_id, "key_id": key_id, "arn": own, "multi_region": False, "policy": default_key_policy(iam("root")), "rotation_period_in_days": 365 if v.get("enable_key_rotation") else 0}


def default_key_policy(root):
    return (
        '{"Id":"key-default-1","Statement":[{"Action":"kms:*","Effect":"Allow","Principal":{"AWS":"%s"},'
        '"Resource":"*","Sid":"Enable IAM User Permissions"}],"Version":"2012-10-17"}' % root
    )


def _key_alias(v, arn, iam, region, account, context):
    target = v["target_key_id"]
    return {
        "id": v["name"], "arn": arn("kms", v["name"]),
        "target_key_arn": target if target.startswith("arn:") else arn("kms", f"key/{target}"),
    }


def _secret(v, arn, iam, region, account, context):
    own = arn("secretsmanager", f"secret:{v['name']}-{short_hash(v['name'], region)[:6]}")
    return {"id": own, "arn": own}


def _topic(v, arn, iam, region, account, context):
    own = arn("sns", v["name"])
    return {"id": own, "arn": own, "owner": account}


def _subscription(v, arn, iam, region, account, context):
    digest = short_hash(v["topic_arn"], v["protocol"], v["endpoint"])
    own = f"{v['topic_arn']}:{digest[:8]}-{digest[8:12]}-{digest[12:16]}-{digest[16:20]}-{digest[20:32]}"
    pending = v["protocol"] in ("email", "email-json", "http", "https")
    return {
        "id": own, "arn": own, "owner_id": account, "pending_confirmation": pending,
        "confirmation_was_authenticated": not pending, "filter_policy_scope": "",
    }


def _topic_policy(v, arn, iam, region, account, context):
    return {"id": v["arn"], "owner": account}


_TYPES = {
    "aws_cloudwatch_composite_alarm": lambda v, arn, *_: {"id": v["alarm_name"], "arn": arn("cloudwatch", f"alarm:{v['alarm_name']}")},
    "aws_cloudwatch_dashboard": lambda v, arn, iam, region, account, _: {
        "id": v["dashboard_name"],
        "dashboard_arn": f"arn:{partition(region)}:cloudwatch::{account}:dashboard/{v['dashboard_name']}",
    },
    "aws_cloudwatch_event_bus": lambda v, arn, *_: {"id": v["name"], "arn": arn("events", f"event-bus/{v['name']}")},
    "aws_cloudwatch_event_rule": lambda v, arn, *_: {"id": v["name"], "arn": arn("events", f"rule/{v['name']}")},
    "aws_cloudwatch_event_target": lambda v, *_: {"id": f"{v['rule']}-{v.get('target_id') or 'terraform'}"},
    "aws_cloudwatch_log_group": lambda v, arn, *_: {"id": v["name"], "arn": arn("logs", f"log-group:{v['name']}"), "log_group_class": "STANDARD", "deletion_protection_enabled": False},
    "aws_cloudwatch_log_metric_filter": lambda v, *_: {"id": v["name"]},
    "aws_cloudwatch_metric_alarm": lambda v, arn, *_: {"id": v["alarm_name"], "arn": arn("cloudwatch", f"alarm:{v['alarm_name']}")},
    "aws_dynamodb_resource_policy": lambda v, *_: {"id": v["resource_arn"], "revision_id": short_hash(v["policy"])[:16], "confirm_remove_self_resource_access": False},
    "aws_dynamodb_table": _table,
    "aws_iam_policy": _policy,
    "aws_iam_role": _role,
    "aws_iam_role_policy": lambda v, *_: {"id": f"{v['role']}:{v['name']}"},
    "aws_iam_role_policy_attachment": lambda v, *_: {"id": f"{v['role']}/{v['policy_arn']}"},
    "aws_kms_alias": _key_alias,
    "aws_kms_key": _key,
    "aws_kms_key_policy": lambda v, *_: {"id": v["key_id"]},
    "aws_lambda_alias": _alias,
    "aws_lambda_event_source_mapping": _event_source,
    "aws_lambda_function": _function,
    "aws_lambda_function_event_invoke_config": lambda v, *_: {"id": v["function_name"] + (f":{v['qualifier']}" if v.get("qualifier") else "")},
    "aws_lambda_permission": lambda v, *_: {"id": v["statement_id"]},
    "aws_pipes_pipe": lambda v, arn, *_: {"id": v["name"], "arn": arn("pipes", f"pipe/{v['name']}")},
    "aws_scheduler_schedule": lambda v, arn, *_: {
        "id": f"{v.get('group_name') or 'default'}/{v['name']}", "group_name": "default", "action_after_completion": "NONE",
        "arn": arn("scheduler", f"schedule/{v.get('group_name') or 'default'}/{v['name']}"),
    },
    "aws_scheduler_schedule_group": lambda v, arn, *_: {"id": v["name"], "arn": arn("scheduler", f"schedule-group/{v['name']}"), "state": "ACTIVE"},
    "aws_secretsmanager_secret": _secret,
    "aws_secretsmanager_secret_policy": lambda v, *_: {"id": v["secret_arn"]},
    "aws_secretsmanager_secret_version": lambda v, arn, iam, region, account, context: {
        "arn": v["secret_id"], "version_id": short_hash(context.new_id())[:32], "id": f"{v['secret_id']}|{short_hash(v['secret_id'])[:32]}",
    },
    "aws_sns_topic": _topic,
    "aws_sns_topic_policy": _topic_policy,
    "aws_sns_topic_subscription": _subscription,
    "aws_sqs_queue": _queue,
    "aws_sqs_queue_policy": _queue_attribute,
    "aws_sqs_queue_redrive_allow_policy": _queue_attribute,
    "aws_sqs_queue_redrive_policy": _queue_attribute,
    "aws_ssm_parameter": lambda v, arn, *_: {"id": v["name"], "arn": arn("ssm", "parameter/" + v["name"].lstrip("/")), "version": 1, "tier": "Standard", "data_type": "text"},
}

# What makes two resources of a type the same thing in AWS: creating a second one is an error.
NAME_OF = {
    "aws_cloudwatch_composite_alarm": ("alarm_name",),
    "aws_cloudwatch_dashboard": ("dashboard_name",),
    "aws_cloudwatch_event_bus": ("name",),
    "aws_cloudwatch_event_rule": ("name",),
    "aws_cloudwatch_log_group": ("name",),
    "aws_cloudwatch_metric_alarm": ("alarm_name",),
    "aws_dynamodb_table": ("name",),
    "aws_iam_policy": ("path", "name"),
    "aws_iam_role": ("name",),
    "aws_kms_alias": ("name",),
    "aws_lambda_alias": ("function_name", "name"),
    "aws_lambda_event_source_mapping": ("event_source_arn", "function_name"),
    "aws_lambda_function": ("function_name",),
    "aws_lambda_permission": ("function_name", "qualifier", "statement_id"),
    "aws_pipes_pipe": ("name",),
    "aws_scheduler_schedule": ("group_name", "name"),
    "aws_secretsmanager_secret": ("name",),
    "aws_sns_topic": ("name",),
    "aws_sqs_queue": ("name",),
    "aws_ssm_parameter": ("name",),
}

# IAM and CloudWatch dashboards are not regional: a name is taken in all regions.
GLOBAL = {"aws_iam_policy", "aws_iam_role", "aws_cloudwatch_dashboard"}
