"""Create, read, update and delete of each type on MiniStack.

`sends` are the arguments that create or update passes on, `updates` those that can change in place,
`local` those that are the provider's own business and have no counterpart in AWS.
`read` returns what the server says in Terraform's words, or None when the resource is gone.
"""

import json
import time

from botocore.exceptions import ClientError

from identity import read_zip

# A server on this machine settles in well under a second; this is for one that never will.
_SETTLE_SECONDS = 30


class Handler:
    sends = frozenset()
    updates = frozenset()
    local = frozenset()

    def create(self, api, v):
        raise NotImplementedError

    def read(self, api, s):
        raise NotImplementedError

    def update(self, api, prior, v, changed):
        raise NotImplementedError

    def delete(self, api, s):
        raise NotImplementedError

    def identify(self, identifier):
        """The arguments that an import id stands for."""
        return {}

    def tag(self, api, prior, v):
        arn = prior["arn"]
        client = api.client("resourcegroupstaggingapi")
        gone = sorted(set(prior.get("tags_all") or {}) - set(v.get("tags_all") or {}))
        failed = {}
        if gone:
            failed.update(client.untag_resources(ResourceARNList=[arn], TagKeys=gone).get("FailedResourcesMap", {}))
        if v.get("tags_all"):
            failed.update(client.tag_resources(ResourceARNList=[arn], Tags=v["tags_all"]).get("FailedResourcesMap", {}))
        if failed:
            raise RuntimeError(f"tagging {arn}: {failed}")


def missing_is_none(*codes):
    """Turns the service's "there is no such thing" into None."""

    def decorate(method):
        def wrapped(*arguments):
            try:
                return method(*arguments)
            except ClientError as error:
                if error.response["Error"]["Code"] in codes:
                    return None
                raise

        return wrapped

    return decorate


def given(**members):
    """The request's members that are set."""
    return {name: value for name, value in members.items() if value not in (None, "", [], {})}


def tag_list(v, key="Key", value="Value"):
    return [{key: k, value: x} for k, x in sorted((v.get("tags_all") or {}).items())]


def one(blocks):
    """The only element of a block that may be there once."""
    return blocks[0] if blocks else None


def until(what, check):
    deadline = time.monotonic() + _SETTLE_SECONDS
    while True:
        found = check()
        if found:
            return found
        if time.monotonic() > deadline:
            raise TimeoutError(f"{what}: not within {_SETTLE_SECONDS} s")
        time.sleep(0.1)


# Queues ------------------------------------------------------------------------------------------

_QUEUE_NUMBERS = {
    "delay_seconds": "DelaySeconds", "max_message_size": "MaximumMessageSize",
    "message_retention_seconds": "MessageRetentionPeriod", "receive_wait_time_seconds": "ReceiveMessageWaitTimeSeconds",
    "visibility_timeout_seconds": "VisibilityTimeout", "kms_data_key_reuse_period_seconds": "KmsDataKeyReusePeriodSeconds",
}
_QUEUE_TEXTS = {
    "policy": "Policy", "redrive_policy": "RedrivePolicy", "redrive_allow_policy": "RedriveAllowPolicy",
    "kms_master_key_id": "KmsMasterKeyId",
}
_QUEUE_BOOLS = {"sqs_managed_sse_enabled": "SqsManagedSseEnabled"}
_NO_QUEUE = ("AWS.SimpleQueueService.NonExistentQueue", "QueueDoesNotExist", "com.amazonaws.sqs#QueueDoesNotExist")


class Queue(Handler):
    sends = updates = frozenset([*_QUEUE_NUMBERS, *_QUEUE_TEXTS, *_QUEUE_BOOLS])
    sends = sends | {"name"}

    def _attributes(self, v, names):
        found = {}
        for ours, theirs in {**_QUEUE_NUMBERS, **_QUEUE_TEXTS, **_QUEUE_BOOLS}.items():
            if ours in names and v.get(ours) is not None:
                found[theirs] = str(v[ours]).lower() if isinstance(v[ours], bool) else str(v[ours])
        return found

    def create(self, api, v):
        if v.get("fifo_queue"):
            raise NotImplementedError("FIFO queues")
        url = api.client("sqs").create_queue(QueueName=v["name"], Attributes=self._attributes(v, self.updates), tags=v.get("tags_all") or {})["QueueUrl"]
        return {"id": url, "url": url}

    @missing_is_none(*_NO_QUEUE)
    def read(self, api, s):
        found = api.client("sqs").get_queue_attributes(QueueUrl=s["id"], AttributeNames=["All"])["Attributes"]
        seen = {ours: int(found[theirs]) for ours, theirs in _QUEUE_NUMBERS.items() if theirs in found}
        seen |= {ours: found[theirs] for ours, theirs in _QUEUE_TEXTS.items() if theirs in found}
        seen |= {ours: found[theirs] == "true" for ours, theirs in _QUEUE_BOOLS.items() if theirs in found}
        return {**seen, "arn": found["QueueArn"], "url": s["id"], "name": found["QueueArn"].rsplit(":", 1)[1]}

    def update(self, api, prior, v, changed):
        # As the provider does: a text that is taken out is sent empty.
        emptied = {theirs: "" for ours, theirs in _QUEUE_TEXTS.items() if ours in changed and v.get(ours) is None}
        api.client("sqs").set_queue_attributes(QueueUrl=prior["id"], Attributes={**self._attributes(v, changed), **emptied})

    @missing_is_none(*_NO_QUEUE)
    def delete(self, api, s):
        api.client("sqs").delete_queue(QueueUrl=s["id"])

    def tag(self, api, prior, v):
        gone = sorted(set(prior.get("tags_all") or {}) - set(v.get("tags_all") or {}))
        if gone:
            api.client("sqs").untag_queue(QueueUrl=prior["id"], TagKeys=gone)
        if v.get("tags_all"):
            api.client("sqs").tag_queue(QueueUrl=prior["id"], Tags=v["tags_all"])


class QueueAttribute(Handler):
    """A policy of a queue as a resource of its own: one attribute of the queue."""

    def __init__(self, ours, theirs):
        self.ours, self.theirs = ours, theirs
        self.sends, self.updates = frozenset([ours, "queue_url"]), frozenset([ours])

    def create(self, api, v):
        api.client("sqs").set_queue_attributes(QueueUrl=v["queue_url"], Attributes={self.theirs: v[self.ours]})

    @missing_is_none(*_NO_QUEUE)
    def read(self, api, s):
        found = api.client("sqs").get_queue_attributes(QueueUrl=s["id"], AttributeNames=[self.theirs]).get("Attributes", {})
        return {self.ours: found[self.theirs], "queue_url": s["id"]} if found.get(self.theirs) else None

    def update(self, api, prior, v, changed):
        self.create(api, v)

    @missing_is_none(*_NO_QUEUE)
    def delete(self, api, s):
        api.client("sqs").set_queue_attributes(QueueUrl=s["queue_url"], Attributes={self.theirs: ""})


# The ledger --------------------------------------------------------------------------------------


class Table(Handler):
    sends = frozenset([
        "name", "billing_mode", "hash_key", "range_key", "attribute", "global_secondary_index", "ttl",
        "point_in_time_recovery", "deletion_protection_enabled", "server_side_encryption", "stream_enabled",
        "stream_view_type", "table_class",
    ])
    updates = frozenset(["ttl", "point_in_time_recovery", "deletion_protection_enabled", "server_side_encryption", "stream_enabled", "stream_view_type"])

    def create(self, api, v):
        client = api.client("dynamodb")
        if v["billing_mode"] != "PAY_PER_REQUEST":
            raise NotImplementedError("provisioned tables")
        keys = lambda item: [
            {"AttributeName": item[name], "KeyType": kind}
            for name, kind in (("hash_key", "HASH"), ("range_key", "RANGE"))
            if _known(item.get(name))
        ] or [{"AttributeName": key["attribute_name"], "KeyType": key["key_type"]} for key in item["key_schema"]]
        indexes = [
            {
                "IndexName": index["name"], "KeySchema": keys(index),
                "Projection": given(ProjectionType=index["projection_type"], NonKeyAttributes=index.get("non_key_attributes")),
            }
            for index in v.get("global_secondary_index") or []
        ]
        client.create_table(**given(
            TableName=v["name"], BillingMode=v["billing_mode"], KeySchema=keys(v),
            AttributeDefinitions=[{"AttributeName": a["name"], "AttributeType": a["type"]} for a in v["attribute"]],
            GlobalSecondaryIndexes=indexes, DeletionProtectionEnabled=v["deletion_protection_enabled"],
            SSESpecification=self._encryption(v),
            StreamSpecification=given(StreamEnabled=True, StreamViewType=_known(v.get("stream_view_type"))) if v.get("stream_enabled") else None,
            TableClass=v.get("table_class"), Tags=tag_list(v),
        ))
        found = until(f"table {v['name']}", lambda: self._active(client, v["name"]))
        if one(v.get("ttl")):
            self._ttl(client, v)
        if one(v.get("point_in_time_recovery")):
            self._recovery(client, v)
        return given(stream_arn=found.get("LatestStreamArn"), stream_label=found.get("LatestStreamLabel"))

    def _encryption(self, v):
        wanted = one(v.get("server_side_encryption"))
        if not wanted or not wanted["enabled"]:
            return {"Enabled": False}
        key = _known(wanted.get("kms_key_arn"))
        return {"Enabled": True, **(given(SSEType="KMS", KMSMasterKeyId=key) if key else {})}

    def _active(self, client, name):
        found = client.describe_table(TableName=name)["Table"]
        return found if found["TableStatus"] == "ACTIVE" else None

    def _ttl(self, client, v):
        ttl = one(v.get("ttl")) or {"enabled": False, "attribute_name": None}
        if ttl.get("attribute_name"):
            client.update_time_to_live(TableName=v["name"], TimeToLiveSpecification={"Enabled": bool(ttl["enabled"]), "AttributeName": ttl["attribute_name"]})

    def _recovery(self, client, v):
        wanted = one(v.get("point_in_time_recovery")) or {"enabled": False}
        days = (_known(wanted.get("recovery_period_in_days")) or None) if wanted["enabled"] else None
        client.update_continuous_backups(TableName=v["name"], PointInTimeRecoverySpecification={
            "PointInTimeRecoveryEnabled": wanted["enabled"], **given(RecoveryPeriodInDays=days),
        })

    @missing_is_none("ResourceNotFoundException")
    def read(self, api, s):
        client = api.client("dynamodb")
        found = client.describe_table(TableName=s["id"])["Table"]
        keys = {key["KeyType"]: key["AttributeName"] for key in found["KeySchema"]}
        seen = {
            "name": found["TableName"], "arn": found["TableArn"], "hash_key": keys.get("HASH"), "range_key": keys.get("RANGE"),
            "billing_mode": found.get("BillingModeSummary", {}).get("BillingMode", "PROVISIONED"),
            "deletion_protection_enabled": found.get("DeletionProtectionEnabled", False),
            "attribute": [{"name": a["AttributeName"], "type": a["AttributeType"]} for a in found["AttributeDefinitions"]],
            "stream_enabled": found.get("StreamSpecification", {}).get("StreamEnabled", False),
        }
        encryption = found.get("SSEDescription", {})
        seen["server_side_encryption"] = [{"enabled": True, "kms_key_arn": encryption.get("KMSMasterKeyArn")}] if encryption.get("Status") == "ENABLED" else []
        # Of the nested blocks, what is in the state is compared member by member.
        ttl = client.describe_time_to_live(TableName=s["id"])["TimeToLiveDescription"]
        enabled = ttl["TimeToLiveStatus"] in ("ENABLED", "ENABLING")
        if enabled or one(s.get("ttl")):
            seen["ttl"] = [{"enabled": enabled, "attribute_name": ttl.get("AttributeName")}]
        backups = client.describe_continuous_backups(TableName=s["id"])["ContinuousBackupsDescription"]["PointInTimeRecoveryDescription"]
        enabled = backups["PointInTimeRecoveryStatus"] == "ENABLED"
        block = one(s.get("point_in_time_recovery"))
        if enabled or block:
            days = backups.get("RecoveryPeriodInDays")
            seen["point_in_time_recovery"] = [{"enabled": enabled, "recovery_period_in_days": days if days is not None else (block or {}).get("recovery_period_in_days")}]
        there = {index["IndexName"]: self._index(index) for index in found.get("GlobalSecondaryIndexes", [])}
        known = {index["name"]: index for index in s.get("global_secondary_index") or []}
        seen["global_secondary_index"] = [known.get(name, index) for name, index in there.items()]
        return seen

    def _index(self, index):
        """One that no state knows yet, as after an import."""
        projection = index["Projection"]
        return {
            "name": index["IndexName"], "projection_type": projection["ProjectionType"], "non_key_attributes": sorted(projection.get("NonKeyAttributes", [])),
            "key_schema": [{"attribute_name": key["AttributeName"], "key_type": key["KeyType"]} for key in index["KeySchema"]],
            "hash_key": "", "read_capacity": 0, "write_capacity": 0,
        }

    def update(self, api, prior, v, changed):
        client = api.client("dynamodb")
        if "deletion_protection_enabled" in changed:
            client.update_table(TableName=v["name"], DeletionProtectionEnabled=v["deletion_protection_enabled"])
        if changed & {"stream_enabled", "stream_view_type"}:
            if prior.get("stream_enabled") and v.get("stream_enabled"):
                # DynamoDB changes no view: the stream is switched off and made anew, as the provider does it.
                client.update_table(TableName=v["name"], StreamSpecification={"StreamEnabled": False})
            specification = given(StreamViewType=_known(v.get("stream_view_type"))) if v.get("stream_enabled") else {}
            client.update_table(TableName=v["name"], StreamSpecification={"StreamEnabled": bool(v.get("stream_enabled")), **specification})
        if "server_side_encryption" in changed:
            client.update_table(TableName=v["name"], SSESpecification=self._encryption(v))
        if "ttl" in changed:
            self._ttl(client, v)
        if "point_in_time_recovery" in changed:
            self._recovery(client, v)
        found = until(f"table {v['name']}", lambda: self._active(client, v["name"]))
        return {"stream_arn": found.get("LatestStreamArn") or "", "stream_label": found.get("LatestStreamLabel") or ""}

    @missing_is_none("ResourceNotFoundException")
    def delete(self, api, s):
        client = api.client("dynamodb")
        client.delete_table(TableName=s["id"])

        def gone():
            try:
                client.describe_table(TableName=s["id"])
            except ClientError as error:
                return error.response["Error"]["Code"] == "ResourceNotFoundException"
            return False

        until(f"deletion of table {s['id']}", gone)

    def identify(self, identifier):
        return {"name": identifier}


class TablePolicy(Handler):
    sends = frozenset(["resource_arn", "policy"])
    updates = frozenset(["policy"])

    def create(self, api, v):
        return {"revision_id": api.client("dynamodb").put_resource_policy(ResourceArn=v["resource_arn"], Policy=v["policy"])["RevisionId"]}

    @missing_is_none("PolicyNotFoundException", "ResourceNotFoundException")
    def read(self, api, s):
        return {"policy": api.client("dynamodb").get_resource_policy(ResourceArn=s["id"])["Policy"], "resource_arn": s["id"]}

    def update(self, api, prior, v, changed):
        return self.create(api, v)

    @missing_is_none("PolicyNotFoundException", "ResourceNotFoundException")
    def delete(self, api, s):
        api.client("dynamodb").delete_resource_policy(ResourceArn=s["id"])


def _known(value):
    return value if isinstance(value, (str, int)) else None


# Functions ---------------------------------------------------------------------------------------

_FUNCTION_CONFIGURATION = frozenset([
    "role", "handler", "runtime", "timeout", "memory_size", "description", "environment", "kms_key_arn",
    "logging_config", "tracing_config", "ephemeral_storage", "dead_letter_config",
])
_FUNCTION_CODE = frozenset(["filename", "source_code_hash", "architectures"])


class Function(Handler):
    sends = _FUNCTION_CONFIGURATION | _FUNCTION_CODE | {"function_name", "publish", "reserved_concurrent_executions", "package_type"}
    updates = _FUNCTION_CONFIGURATION | _FUNCTION_CODE | {"reserved_concurrent_executions", "publish"}
    local = frozenset(["skip_destroy"])

    def _configuration(self, v):
        environment, logging, tracing = (one(v.get(name)) for name in ("environment", "logging_config", "tracing_config"))
        storage, dead_letters = one(v.get("ephemeral_storage")), one(v.get("dead_letter_config"))
        return given(
            FunctionName=v["function_name"], Role=v["role"], Handler=v.get("handler"), Runtime=v.get("runtime"),
            Timeout=v["timeout"], MemorySize=v["memory_size"], Description=v.get("description"),
            Environment={"Variables": environment["variables"] or {}} if environment else None,
            KMSKeyArn=v.get("kms_key_arn"),
            LoggingConfig=given(
                LogFormat=logging["log_format"], LogGroup=_known(logging.get("log_group")),
                ApplicationLogLevel=logging.get("application_log_level"), SystemLogLevel=logging.get("system_log_level"),
            ) if logging else None,
            TracingConfig={"Mode": tracing["mode"]} if tracing else None,
            EphemeralStorage={"Size": storage["size"]} if storage and _known(storage.get("size")) else None,
            DeadLetterConfig={"TargetArn": dead_letters["target_arn"]} if dead_letters else None,
        )

    def create(self, api, v):
        client = api.client("lambda")
        made = client.create_function(
            **self._configuration(v), **given(Architectures=v.get("architectures"), Tags=v.get("tags_all")),
            PackageType="Zip", Code={"ZipFile": read_zip(v["filename"])}, Publish=bool(v.get("publish")),
        )
        self._concurrency(client, v)
        until(f"function {v['function_name']}", lambda: self._active(client, v))
        return self._version(made, v)

    def _version(self, made, v):
        own = made["FunctionArn"].split(":function:")[0] + f":function:{v['function_name']}"
        version = made["Version"]
        return {
            "arn": own, "version": version, "qualified_arn": f"{own}:{version}", "last_modified": made["LastModified"],
            "code_sha256": made["CodeSha256"], "source_code_size": made["CodeSize"],
        }

    def _concurrency(self, client, v):
        reserved = v.get("reserved_concurrent_executions")
        if reserved is not None and reserved >= 0:
            client.put_function_concurrency(FunctionName=v["function_name"], ReservedConcurrentExecutions=reserved)
        else:
            client.delete_function_concurrency(FunctionName=v["function_name"])

    def _active(self, client, v):
        found = client.get_function_configuration(FunctionName=v["function_name"])
        return found.get("State", "Active") == "Active" and found.get("LastUpdateStatus", "Successful") == "Successful"

    @missing_is_none("ResourceNotFoundException")
    def read(self, api, s):
        client = api.client("lambda")
        found = client.get_function(FunctionName=s["id"])
        configuration = found["Configuration"]
        variables = configuration.get("Environment", {}).get("Variables")
        return {
            "function_name": configuration["FunctionName"], "role": configuration["Role"], "handler": configuration.get("Handler"),
            "runtime": configuration.get("Runtime"), "timeout": configuration["Timeout"], "memory_size": configuration["MemorySize"],
            "description": configuration.get("Description", ""), "architectures": configuration.get("Architectures", ["x86_64"]),
            "code_sha256": configuration["CodeSha256"], "source_code_size": configuration["CodeSize"],
            "environment": [{"variables": variables}] if variables else [],
            "reserved_concurrent_executions": found.get("Concurrency", {}).get("ReservedConcurrentExecutions", -1),
        }

    def update(self, api, prior, v, changed):
        client = api.client("lambda")
        name = v["function_name"]
        if changed & _FUNCTION_CODE:
            client.update_function_code(FunctionName=name, ZipFile=read_zip(v["filename"]), **given(Architectures=v.get("architectures")))
            until(f"function {name}", lambda: self._active(client, v))
        if changed & _FUNCTION_CONFIGURATION:
            client.update_function_configuration(**{"Environment": {"Variables": {}}, "Description": "", **self._configuration(v)})
            until(f"function {name}", lambda: self._active(client, v))
        if "reserved_concurrent_executions" in changed:
            self._concurrency(client, v)
        if v.get("publish"):
            return self._version(client.publish_version(FunctionName=name), v)
        found = client.get_function_configuration(FunctionName=name)
        return {"code_sha256": found["CodeSha256"], "source_code_size": found["CodeSize"], "last_modified": found["LastModified"]}

    @missing_is_none("ResourceNotFoundException")
    def delete(self, api, s):
        api.client("lambda").delete_function(FunctionName=s["function_name"])

    def identify(self, identifier):
        return {"function_name": identifier}


class Alias(Handler):
    sends = frozenset(["name", "function_name", "function_version", "description"])
    updates = frozenset(["function_version", "description"])

    def create(self, api, v):
        made = api.client("lambda").create_alias(**given(FunctionName=v["function_name"], Name=v["name"], FunctionVersion=v["function_version"], Description=v.get("description")))
        return {"id": made["AliasArn"], "arn": made["AliasArn"]}

    @missing_is_none("ResourceNotFoundException")
    def read(self, api, s):
        found = api.client("lambda").get_alias(FunctionName=s["function_name"], Name=s["name"])
        return {"arn": found["AliasArn"], "function_version": found["FunctionVersion"], "description": found.get("Description", "")}

    def update(self, api, prior, v, changed):
        api.client("lambda").update_alias(FunctionName=v["function_name"], Name=v["name"], FunctionVersion=v["function_version"], Description=v.get("description") or "")

    @missing_is_none("ResourceNotFoundException")
    def delete(self, api, s):
        api.client("lambda").delete_alias(FunctionName=s["function_name"], Name=s["name"])


class EventSource(Handler):
    sends = frozenset([
        "event_source_arn", "function_name", "batch_size", "maximum_batching_window_in_seconds",
        "function_response_types", "scaling_config", "enabled", "filter_criteria",
    ])
    updates = frozenset(["function_name", "batch_size", "maximum_batching_window_in_seconds", "function_response_types", "scaling_config", "enabled"])

    def _request(self, v):
        scaling = one(v.get("scaling_config"))
        filters = one(v.get("filter_criteria"))
        return {
            "FunctionName": v["function_name"], "Enabled": v["enabled"],
            **given(
                BatchSize=v.get("batch_size"), MaximumBatchingWindowInSeconds=v.get("maximum_batching_window_in_seconds"),
                FunctionResponseTypes=v.get("function_response_types"),
                ScalingConfig=given(MaximumConcurrency=scaling["maximum_concurrency"]) if scaling else None,
                FilterCriteria={"Filters": [{"Pattern": f["pattern"]} for f in filters["filter"]]} if filters else None,
            ),
        }

    def _settled(self, api, uuid):
        found = api.client("lambda").get_event_source_mapping(UUID=uuid)
        return found if found["State"] in ("Enabled", "Disabled") else None

    def create(self, api, v):
        made = api.client("lambda").create_event_source_mapping(EventSourceArn=v["event_source_arn"], Tags=v.get("tags_all") or {}, **self._request(v))
        found = until("event source mapping", lambda: self._settled(api, made["UUID"]))
        return {
            "id": made["UUID"], "uuid": made["UUID"], "state": found["State"], "function_arn": made["FunctionArn"],
            **given(arn=made.get("EventSourceMappingArn")),
        }

    @missing_is_none("ResourceNotFoundException")
    def read(self, api, s):
        found = api.client("lambda").get_event_source_mapping(UUID=s["id"])
        if found["State"] == "Deleting":
            return None
        scaling = found.get("ScalingConfig") or {}
        return {
            "state": found["State"], "enabled": found["State"] in ("Enabled", "Enabling", "Creating"),
            "batch_size": found.get("BatchSize"), "event_source_arn": found.get("EventSourceArn"), "function_arn": found["FunctionArn"],
            "maximum_batching_window_in_seconds": found.get("MaximumBatchingWindowInSeconds", 0),
            "function_response_types": found.get("FunctionResponseTypes") or [],
            "scaling_config": [{"maximum_concurrency": scaling["MaximumConcurrency"]}] if scaling.get("MaximumConcurrency") else [],
        }

    def update(self, api, prior, v, changed):
        api.client("lambda").update_event_source_mapping(UUID=prior["id"], **self._request(v))
        return {"state": until("event source mapping", lambda: self._settled(api, prior["id"]))["State"]}

    @missing_is_none("ResourceNotFoundException")
    def delete(self, api, s):
        client = api.client("lambda")
        client.delete_event_source_mapping(UUID=s["id"])
        until("deletion of an event source mapping", lambda: self.read(api, s) is None)


class Permission(Handler):
    sends = frozenset(["statement_id", "action", "function_name", "principal", "qualifier", "source_account", "source_arn"])

    def create(self, api, v):
        statement = v.get("statement_id") or f"terraform-{api.context.new_id()}"
        api.client("lambda").add_permission(**given(
            FunctionName=v["function_name"], StatementId=statement, Action=v["action"], Principal=v["principal"],
            Qualifier=v.get("qualifier"), SourceAccount=v.get("source_account"), SourceArn=v.get("source_arn"),
        ))
        return {"id": statement, "statement_id": statement}

    @missing_is_none("ResourceNotFoundException")
    def read(self, api, s):
        policy = api.client("lambda").get_policy(**given(FunctionName=s["function_name"], Qualifier=s.get("qualifier")))["Policy"]
        for statement in json.loads(policy)["Statement"]:
            if statement["Sid"] == s["id"]:
                return {"action": statement["Action"], "statement_id": statement["Sid"]}
        return None

    @missing_is_none("ResourceNotFoundException")
    def delete(self, api, s):
        api.client("lambda").remove_permission(**given(FunctionName=s["function_name"], StatementId=s["id"], Qualifier=s.get("qualifier")))


class InvokeConfig(Handler):
    sends = frozenset(["function_name", "qualifier", "maximum_event_age_in_seconds", "maximum_retry_attempts", "destination_config"])
    updates = frozenset(["maximum_event_age_in_seconds", "maximum_retry_attempts"])

    def create(self, api, v):
        if one(v.get("destination_config")):
            raise NotImplementedError("destination_config of aws_lambda_function_event_invoke_config")
        api.client("lambda").put_function_event_invoke_config(
            **given(FunctionName=v["function_name"], Qualifier=v.get("qualifier"), MaximumEventAgeInSeconds=v.get("maximum_event_age_in_seconds")),
            MaximumRetryAttempts=v["maximum_retry_attempts"],
        )

    @missing_is_none("ResourceNotFoundException")
    def read(self, api, s):
        found = api.client("lambda").get_function_event_invoke_config(**given(FunctionName=s["function_name"], Qualifier=s.get("qualifier")))
        return {"maximum_retry_attempts": found["MaximumRetryAttempts"], "maximum_event_age_in_seconds": s.get("maximum_event_age_in_seconds") and found.get("MaximumEventAgeInSeconds")}

    def update(self, api, prior, v, changed):
        self.create(api, v)

    @missing_is_none("ResourceNotFoundException")
    def delete(self, api, s):
        api.client("lambda").delete_function_event_invoke_config(**given(FunctionName=s["function_name"], Qualifier=s.get("qualifier")))


# Identity ----------------------------------------------------------------------------------------


class Role(Handler):
    sends = frozenset(["name", "assume_role_policy", "description", "path", "max_session_duration", "permissions_boundary"])
    updates = frozenset(["assume_role_policy", "description", "max_session_duration"])
    local = frozenset(["force_detach_policies"])

    def create(self, api, v):
        made = api.client("iam").create_role(**given(
            RoleName=v["name"], AssumeRolePolicyDocument=v["assume_role_policy"], Path=v["path"], Description=v.get("description"),
            MaxSessionDuration=v["max_session_duration"], PermissionsBoundary=v.get("permissions_boundary"), Tags=tag_list(v),
        ))["Role"]
        return {"id": v["name"], "name": v["name"], "arn": made["Arn"], "unique_id": made["RoleId"], "create_date": made["CreateDate"].isoformat()}

    @missing_is_none("NoSuchEntity")
    def read(self, api, s):
        found = api.client("iam").get_role(RoleName=s["id"])["Role"]
        return {
            "name": found["RoleName"], "arn": found["Arn"], "path": found["Path"], "description": found.get("Description", ""),
            "assume_role_policy": json.dumps(found["AssumeRolePolicyDocument"]), "max_session_duration": found.get("MaxSessionDuration", 3600),
        }

    def update(self, api, prior, v, changed):
        client = api.client("iam")
        if "assume_role_policy" in changed:
            client.update_assume_role_policy(RoleName=prior["id"], PolicyDocument=v["assume_role_policy"])
        if changed & {"description", "max_session_duration"}:
            client.update_role(RoleName=prior["id"], Description=v.get("description") or "", MaxSessionDuration=v["max_session_duration"])

    @missing_is_none("NoSuchEntity")
    def delete(self, api, s):
        api.client("iam").delete_role(RoleName=s["id"])

    def tag(self, api, prior, v):
        gone = sorted(set(prior.get("tags_all") or {}) - set(v.get("tags_all") or {}))
        if gone:
            api.client("iam").untag_role(RoleName=prior["id"], TagKeys=gone)
        if v.get("tags_all"):
            api.client("iam").tag_role(RoleName=prior["id"], Tags=tag_list(v))

    def identify(self, identifier):
        return {"name": identifier}


class RolePolicy(Handler):
    sends = frozenset(["name", "role", "policy"])
    updates = frozenset(["policy"])

    def create(self, api, v):
        api.client("iam").put_role_policy(RoleName=v["role"], PolicyName=v["name"], PolicyDocument=v["policy"])
        return {"id": f"{v['role']}:{v['name']}", "name": v["name"]}

    @missing_is_none("NoSuchEntity")
    def read(self, api, s):
        role, name = s["id"].split(":", 1)
        found = api.client("iam").get_role_policy(RoleName=role, PolicyName=name)["PolicyDocument"]
        return {"policy": found if isinstance(found, str) else json.dumps(found), "role": role, "name": name}

    def update(self, api, prior, v, changed):
        self.create(api, v)

    @missing_is_none("NoSuchEntity")
    def delete(self, api, s):
        api.client("iam").delete_role_policy(RoleName=s["role"], PolicyName=s["name"])


class Policy(Handler):
    sends = frozenset(["name", "path", "description", "policy"])
    updates = frozenset(["policy"])

    def create(self, api, v):
        made = api.client("iam").create_policy(**given(PolicyName=v["name"], Path=v["path"], Description=v.get("description"), PolicyDocument=v["policy"], Tags=tag_list(v)))["Policy"]
        return {"id": made["Arn"], "arn": made["Arn"], "policy_id": made["PolicyId"], "name": v["name"]}

    @missing_is_none("NoSuchEntity")
    def read(self, api, s):
        client = api.client("iam")
        found = client.get_policy(PolicyArn=s["id"])["Policy"]
        document = client.get_policy_version(PolicyArn=s["id"], VersionId=found["DefaultVersionId"])["PolicyVersion"]["Document"]
        return {
            "policy": document if isinstance(document, str) else json.dumps(document), "name": found["PolicyName"],
            "path": found["Path"], "description": found.get("Description", ""), "attachment_count": found.get("AttachmentCount", 0),
        }

    def update(self, api, prior, v, changed):
        client = api.client("iam")
        client.create_policy_version(PolicyArn=prior["id"], PolicyDocument=v["policy"], SetAsDefault=True)
        for version in client.list_policy_versions(PolicyArn=prior["id"])["Versions"]:
            if not version["IsDefaultVersion"]:
                client.delete_policy_version(PolicyArn=prior["id"], VersionId=version["VersionId"])

    @missing_is_none("NoSuchEntity")
    def delete(self, api, s):
        api.client("iam").delete_policy(PolicyArn=s["id"])

    def tag(self, api, prior, v):
        gone = sorted(set(prior.get("tags_all") or {}) - set(v.get("tags_all") or {}))
        if gone:
            api.client("iam").untag_policy(PolicyArn=prior["id"], TagKeys=gone)
        if v.get("tags_all"):
            api.client("iam").tag_policy(PolicyArn=prior["id"], Tags=tag_list(v))


class Attachment(Handler):
    sends = frozenset(["role", "policy_arn"])

    def create(self, api, v):
        api.client("iam").attach_role_policy(RoleName=v["role"], PolicyArn=v["policy_arn"])

    @missing_is_none("NoSuchEntity")
    def read(self, api, s):
        attached = api.client("iam").list_attached_role_policies(RoleName=s["role"])["AttachedPolicies"]
        return {} if any(policy["PolicyArn"] == s["policy_arn"] for policy in attached) else None

    @missing_is_none("NoSuchEntity")
    def delete(self, api, s):
        api.client("iam").detach_role_policy(RoleName=s["role"], PolicyArn=s["policy_arn"])


# Watching ----------------------------------------------------------------------------------------


class LogGroup(Handler):
    sends = frozenset(["name", "retention_in_days", "kms_key_id"])
    updates = frozenset(["retention_in_days"])
    # MiniStack cannot change the key of a group that is there (AssociateKmsKey), and encrypts none.
    local = frozenset(["skip_destroy", "kms_key_id"])

    def create(self, api, v):
        client = api.client("logs")
        client.create_log_group(**given(logGroupName=v["name"], kmsKeyId=v.get("kms_key_id"), tags=v.get("tags_all")))
        self._retention(client, v)

    def _retention(self, client, v):
        if v["retention_in_days"]:
            client.put_retention_policy(logGroupName=v["name"], retentionInDays=v["retention_in_days"])
        else:
            client.delete_retention_policy(logGroupName=v["name"])

    def read(self, api, s):
        for group in api.client("logs").describe_log_groups(logGroupNamePrefix=s["id"])["logGroups"]:
            if group["logGroupName"] == s["id"]:
                return {"name": s["id"], "retention_in_days": group.get("retentionInDays", 0), "arn": group["arn"].removesuffix(":*")}
        return None

    def update(self, api, prior, v, changed):
        self._retention(api.client("logs"), v)

    @missing_is_none("ResourceNotFoundException")
    def delete(self, api, s):
        api.client("logs").delete_log_group(logGroupName=s["id"])

    def identify(self, identifier):
        return {"name": identifier}


_ALARM = {
    "alarm_name": "AlarmName", "actions_enabled": "ActionsEnabled", "alarm_actions": "AlarmActions", "alarm_description": "AlarmDescription",
    "comparison_operator": "ComparisonOperator", "datapoints_to_alarm": "DatapointsToAlarm",
    "evaluate_low_sample_count_percentiles": "EvaluateLowSampleCountPercentile", "evaluation_periods": "EvaluationPeriods",
    "extended_statistic": "ExtendedStatistic", "insufficient_data_actions": "InsufficientDataActions", "metric_name": "MetricName",
    "namespace": "Namespace", "ok_actions": "OKActions", "period": "Period", "statistic": "Statistic", "threshold": "Threshold",
    "threshold_metric_id": "ThresholdMetricId", "treat_missing_data": "TreatMissingData", "unit": "Unit",
}


class MetricAlarm(Handler):
    sends = frozenset([*_ALARM, "dimensions", "metric_query"])
    updates = sends - {"alarm_name"}

    def create(self, api, v):
        # CloudWatch would overwrite it; the provider refuses.
        if api.client("cloudwatch").describe_alarms(AlarmNames=[v["alarm_name"]], AlarmTypes=["MetricAlarm"]).get("MetricAlarms"):
            raise ValueError(f"CloudWatch metric alarm {v['alarm_name']} already exists")
        self._put(api, v)

    def _put(self, api, v):
        request = {theirs: v[ours] for ours, theirs in _ALARM.items() if v.get(ours) not in (None, "", [])}
        if v.get("dimensions"):
            request["Dimensions"] = [{"Name": k, "Value": x} for k, x in sorted(v["dimensions"].items())]
        if v.get("metric_query"):
            request["Metrics"] = [self._query(query) for query in v["metric_query"]]
        api.client("cloudwatch").put_metric_alarm(**request, Tags=tag_list(v))

    def _query(self, query):
        metric = one(query.get("metric"))
        found = given(Id=query["id"], Expression=query.get("expression"), Label=query.get("label"), Period=query.get("period"), AccountId=query.get("account_id"))
        found["ReturnData"] = bool(query.get("return_data"))
        if metric:
            found["MetricStat"] = {
                "Metric": given(
                    Namespace=metric.get("namespace"), MetricName=metric["metric_name"],
                    Dimensions=[{"Name": k, "Value": x} for k, x in sorted((metric.get("dimensions") or {}).items())],
                ),
                "Period": metric["period"], "Stat": metric["stat"], **given(Unit=metric.get("unit")),
            }
        return found

    def read(self, api, s):
        alarms = api.client("cloudwatch").describe_alarms(AlarmNames=[s["id"]], AlarmTypes=["MetricAlarm"]).get("MetricAlarms", [])
        if not alarms:
            return None
        found = alarms[0]
        seen = {ours: found[theirs] for ours, theirs in _ALARM.items() if found.get(theirs) not in (None, "", [])}
        seen["arn"] = found["AlarmArn"]
        if s.get("metric_query"):
            # MiniStack keeps no queries, and makes these up in their place: the queries are ours.
            for name in ("period", "statistic", "metric_name", "namespace"):
                seen.pop(name, None)
        if found.get("Dimensions"):
            seen["dimensions"] = {item["Name"]: item["Value"] for item in found["Dimensions"]}
        return seen

    def update(self, api, prior, v, changed):
        self._put(api, v)

    def delete(self, api, s):
        api.client("cloudwatch").delete_alarms(AlarmNames=[s["id"]])

    def identify(self, identifier):
        return {"alarm_name": identifier}


class CompositeAlarm(Handler):
    sends = frozenset(["alarm_name", "alarm_rule", "alarm_description", "alarm_actions", "ok_actions", "insufficient_data_actions", "actions_enabled"])
    updates = sends - {"alarm_name", "actions_enabled"}

    def create(self, api, v):
        api.client("cloudwatch").put_composite_alarm(
            AlarmName=v["alarm_name"], AlarmRule=v["alarm_rule"], ActionsEnabled=v["actions_enabled"], Tags=tag_list(v),
            **given(AlarmDescription=v.get("alarm_description"), AlarmActions=v.get("alarm_actions"), OKActions=v.get("ok_actions"), InsufficientDataActions=v.get("insufficient_data_actions")),
        )

    def read(self, api, s):
        alarms = api.client("cloudwatch").describe_alarms(AlarmNames=[s["id"]], AlarmTypes=["CompositeAlarm"]).get("CompositeAlarms", [])
        if not alarms:
            return None
        found = alarms[0]
        return {
            "alarm_rule": found["AlarmRule"], "alarm_description": found.get("AlarmDescription", ""), "arn": found["AlarmArn"],
            "alarm_actions": found.get("AlarmActions", []), "ok_actions": found.get("OKActions", []),
            "insufficient_data_actions": found.get("InsufficientDataActions", []),
        }

    def update(self, api, prior, v, changed):
        self.create(api, v)

    def delete(self, api, s):
        api.client("cloudwatch").delete_alarms(AlarmNames=[s["id"]])


class Dashboard(Handler):
    sends = frozenset(["dashboard_name", "dashboard_body"])
    updates = frozenset(["dashboard_body"])

    def create(self, api, v):
        refused = api.client("cloudwatch").put_dashboard(DashboardName=v["dashboard_name"], DashboardBody=v["dashboard_body"]).get("DashboardValidationMessages")
        if refused:
            raise ValueError(f"dashboard {v['dashboard_name']}: {refused}")

    @missing_is_none("ResourceNotFound", "DashboardNotFoundError", "ResourceNotFoundException")
    def read(self, api, s):
        return {"dashboard_body": api.client("cloudwatch").get_dashboard(DashboardName=s["id"])["DashboardBody"]}

    def update(self, api, prior, v, changed):
        self.create(api, v)

    @missing_is_none("ResourceNotFound", "DashboardNotFoundError", "ResourceNotFoundException")
    def delete(self, api, s):
        api.client("cloudwatch").delete_dashboards(DashboardNames=[s["id"]])


# Notifications -----------------------------------------------------------------------------------

_TOPIC = {"display_name": "DisplayName", "kms_master_key_id": "KmsMasterKeyId", "policy": "Policy", "signature_version": "SignatureVersion", "delivery_policy": "DeliveryPolicy"}


class Topic(Handler):
    sends = frozenset(["name", *_TOPIC])
    updates = frozenset(_TOPIC)

    def create(self, api, v):
        if v.get("fifo_topic"):
            raise NotImplementedError("FIFO topics")
        attributes = {theirs: str(v[ours]) for ours, theirs in _TOPIC.items() if v.get(ours)}
        arn = api.client("sns").create_topic(Name=v["name"], Attributes=attributes, Tags=tag_list(v))["TopicArn"]
        return {"id": arn, "arn": arn}

    @missing_is_none("NotFound", "NotFoundException")
    def read(self, api, s):
        found = api.client("sns").get_topic_attributes(TopicArn=s["id"])["Attributes"]
        seen = {ours: found[theirs] for ours, theirs in _TOPIC.items() if ours in ("display_name", "kms_master_key_id", "policy") and found.get(theirs)}
        return {**seen, "arn": s["id"], "name": s["id"].rsplit(":", 1)[1], "owner": found.get("Owner", api.account)}

    def update(self, api, prior, v, changed):
        for ours in changed & set(_TOPIC):
            api.client("sns").set_topic_attributes(TopicArn=prior["id"], AttributeName=_TOPIC[ours], AttributeValue=str(v.get(ours) or ""))

    @missing_is_none("NotFound", "NotFoundException")
    def delete(self, api, s):
        api.client("sns").delete_topic(TopicArn=s["id"])

    def identify(self, identifier):
        return {"arn": identifier}


class TopicPolicy(Handler):
    sends = frozenset(["arn", "policy"])
    updates = frozenset(["policy"])

    def create(self, api, v):
        api.client("sns").set_topic_attributes(TopicArn=v["arn"], AttributeName="Policy", AttributeValue=v["policy"])
        return {"id": v["arn"], "owner": api.account}

    @missing_is_none("NotFound", "NotFoundException")
    def read(self, api, s):
        policy = api.client("sns").get_topic_attributes(TopicArn=s["id"])["Attributes"].get("Policy")
        return {"policy": policy} if policy else None

    def update(self, api, prior, v, changed):
        self.create(api, v)

    @missing_is_none("NotFound", "NotFoundException")
    def delete(self, api, s):
        # SNS has no topic without a policy: the real provider puts the default one back.
        default = {
            "Version": "2008-10-17", "Id": "__default_policy_ID",
            "Statement": [{
                "Sid": "__default_statement_ID", "Effect": "Allow", "Principal": {"AWS": "*"}, "Resource": s["id"],
                "Action": ["SNS:GetTopicAttributes", "SNS:SetTopicAttributes", "SNS:AddPermission", "SNS:RemovePermission", "SNS:DeleteTopic", "SNS:Subscribe", "SNS:ListSubscriptionsByTopic", "SNS:Publish"],
                "Condition": {"StringEquals": {"AWS:SourceOwner": api.account}},
            }],
        }
        api.client("sns").set_topic_attributes(TopicArn=s["id"], AttributeName="Policy", AttributeValue=json.dumps(default))


class Subscription(Handler):
    sends = frozenset(["topic_arn", "protocol", "endpoint", "raw_message_delivery"])
    local = frozenset(["confirmation_timeout_in_minutes", "endpoint_auto_confirms"])

    def create(self, api, v):
        attributes = {"RawMessageDelivery": "true"} if v.get("raw_message_delivery") else {}
        arn = api.client("sns").subscribe(TopicArn=v["topic_arn"], Protocol=v["protocol"], Endpoint=v["endpoint"], Attributes=attributes, ReturnSubscriptionArn=True)["SubscriptionArn"]
        return {"id": arn, "arn": arn, "owner_id": api.account}

    @missing_is_none("NotFound", "NotFoundException")
    def read(self, api, s):
        found = api.client("sns").get_subscription_attributes(SubscriptionArn=s["id"])["Attributes"]
        return {"topic_arn": found["TopicArn"], "protocol": found["Protocol"], "endpoint": found["Endpoint"], "pending_confirmation": found.get("PendingConfirmation") == "true"}

    @missing_is_none("NotFound", "NotFoundException")
    def delete(self, api, s):
        api.client("sns").unsubscribe(SubscriptionArn=s["id"])


# Keys and secrets --------------------------------------------------------------------------------


class Key(Handler):
    sends = frozenset(["description", "policy", "enable_key_rotation", "deletion_window_in_days", "customer_master_key_spec", "key_usage", "is_enabled"])
    updates = frozenset(["policy", "enable_key_rotation", "description"])
    local = frozenset(["deletion_window_in_days", "bypass_policy_lockout_safety_check"])

    def create(self, api, v):
        client = api.client("kms")
        made = client.create_key(**given(Description=v.get("description"), Policy=v.get("policy"), KeyUsage=v["key_usage"], KeySpec=v["customer_master_key_spec"], Tags=tag_list(v, "TagKey", "TagValue")))["KeyMetadata"]
        if v.get("enable_key_rotation"):
            client.enable_key_rotation(KeyId=made["KeyId"])
        return {"id": made["KeyId"], "key_id": made["KeyId"], "arn": made["Arn"]}

    @missing_is_none("NotFoundException")
    def read(self, api, s):
        client = api.client("kms")
        found = client.describe_key(KeyId=s["id"])["KeyMetadata"]
        if found["KeyState"] == "PendingDeletion":
            return None
        return {
            "arn": found["Arn"], "key_id": found["KeyId"], "description": found.get("Description", ""), "is_enabled": found["Enabled"],
            "key_usage": found["KeyUsage"], "customer_master_key_spec": found["KeySpec"], "multi_region": found.get("MultiRegion", False),
            "policy": client.get_key_policy(KeyId=s["id"], PolicyName="default")["Policy"],
            "enable_key_rotation": client.get_key_rotation_status(KeyId=s["id"])["KeyRotationEnabled"],
        }

    def update(self, api, prior, v, changed):
        client = api.client("kms")
        if "policy" in changed:
            client.put_key_policy(KeyId=prior["id"], PolicyName="default", Policy=v["policy"])
        if "description" in changed:
            client.update_key_description(KeyId=prior["id"], Description=v.get("description") or "")
        if "enable_key_rotation" in changed:
            (client.enable_key_rotation if v["enable_key_rotation"] else client.disable_key_rotation)(KeyId=prior["id"])

    @missing_is_none("NotFoundException")
    def delete(self, api, s):
        api.client("kms").schedule_key_deletion(KeyId=s["id"], **given(PendingWindowInDays=s.get("deletion_window_in_days")))


class KeyAlias(Handler):
    sends = frozenset(["name", "target_key_id"])
    updates = frozenset(["target_key_id"])

    def create(self, api, v):
        api.client("kms").create_alias(AliasName=v["name"], TargetKeyId=v["target_key_id"])

    def read(self, api, s):
        for page in api.client("kms").get_paginator("list_aliases").paginate():
            for alias in page["Aliases"]:
                if alias["AliasName"] == s["id"]:
                    return {"arn": alias["AliasArn"], "name": s["id"]}
        return None

    def update(self, api, prior, v, changed):
        api.client("kms").update_alias(AliasName=prior["id"], TargetKeyId=v["target_key_id"])

    @missing_is_none("NotFoundException")
    def delete(self, api, s):
        api.client("kms").delete_alias(AliasName=s["id"])


class Secret(Handler):
    sends = frozenset(["name", "description", "kms_key_id", "policy", "recovery_window_in_days"])
    updates = frozenset(["description", "kms_key_id", "policy"])
    local = frozenset(["recovery_window_in_days", "force_overwrite_replica_secret"])

    def create(self, api, v):
        client = api.client("secretsmanager")
        arn = client.create_secret(**given(Name=v["name"], Description=v.get("description"), KmsKeyId=v.get("kms_key_id"), Tags=tag_list(v)))["ARN"]
        if v.get("policy"):
            client.put_resource_policy(SecretId=arn, ResourcePolicy=v["policy"])
        return {"id": arn, "arn": arn, "name": v["name"]}

    @missing_is_none("ResourceNotFoundException")
    def read(self, api, s):
        found = api.client("secretsmanager").describe_secret(SecretId=s["id"])
        if found.get("DeletedDate"):
            return None
        return {"arn": found["ARN"], "name": found["Name"], "description": found.get("Description", ""), "kms_key_id": found.get("KmsKeyId", "")}

    def update(self, api, prior, v, changed):
        client = api.client("secretsmanager")
        if changed & {"description", "kms_key_id"}:
            client.update_secret(SecretId=prior["id"], **given(Description=v.get("description"), KmsKeyId=v.get("kms_key_id")))
        if "policy" in changed:
            client.put_resource_policy(SecretId=prior["id"], ResourcePolicy=v["policy"])

    @missing_is_none("ResourceNotFoundException")
    def delete(self, api, s):
        window = s.get("recovery_window_in_days")
        how = {"ForceDeleteWithoutRecovery": True} if not window else {"RecoveryWindowInDays": window}
        api.client("secretsmanager").delete_secret(SecretId=s["id"], **how)


class SecretPolicy(Handler):
    sends = frozenset(["secret_arn", "policy", "block_public_policy"])
    updates = frozenset(["policy"])

    def create(self, api, v):
        api.client("secretsmanager").put_resource_policy(SecretId=v["secret_arn"], ResourcePolicy=v["policy"], **given(BlockPublicPolicy=v.get("block_public_policy")))

    @missing_is_none("ResourceNotFoundException")
    def read(self, api, s):
        policy = api.client("secretsmanager").get_resource_policy(SecretId=s["id"]).get("ResourcePolicy")
        return {"policy": policy, "secret_arn": s["id"]} if policy else None

    def update(self, api, prior, v, changed):
        self.create(api, v)

    @missing_is_none("ResourceNotFoundException")
    def delete(self, api, s):
        api.client("secretsmanager").delete_resource_policy(SecretId=s["id"])


# Schedules ---------------------------------------------------------------------------------------


class Schedule(Handler):
    sends = frozenset(["name", "group_name", "schedule_expression", "schedule_expression_timezone", "state", "description", "flexible_time_window", "target", "kms_key_arn"])
    updates = sends - {"name", "group_name"}

    def _request(self, v):
        window, target = one(v["flexible_time_window"]), one(v["target"])
        retry, dead_letters = one(target.get("retry_policy")), one(target.get("dead_letter_config"))
        for unsupported in ("ecs_parameters", "eventbridge_parameters", "kinesis_parameters", "sagemaker_pipeline_parameters", "sqs_parameters"):
            if one(target.get(unsupported)):
                raise NotImplementedError(f"target.{unsupported} of aws_scheduler_schedule")
        return given(
            Name=v["name"], GroupName=_known(v.get("group_name")), ScheduleExpression=v["schedule_expression"],
            ScheduleExpressionTimezone=v["schedule_expression_timezone"], State=v["state"], Description=v.get("description"), KmsKeyArn=v.get("kms_key_arn"),
            FlexibleTimeWindow=given(Mode=window["mode"], MaximumWindowInMinutes=window.get("maximum_window_in_minutes")),
            Target={
                "Arn": target["arn"], "RoleArn": target["role_arn"],
                **given(
                    Input=target.get("input"),
                    RetryPolicy={"MaximumEventAgeInSeconds": retry["maximum_event_age_in_seconds"], "MaximumRetryAttempts": retry["maximum_retry_attempts"]} if retry else None,
                    DeadLetterConfig={"Arn": dead_letters["arn"]} if dead_letters else None,
                ),
            },
        )

    def create(self, api, v):
        return {"arn": api.client("scheduler").create_schedule(**self._request(v))["ScheduleArn"]}

    @missing_is_none("ResourceNotFoundException")
    def read(self, api, s):
        group, name = s["id"].split("/", 1)
        found = api.client("scheduler").get_schedule(Name=name, GroupName=group)
        return {"schedule_expression": found["ScheduleExpression"], "state": found["State"], "arn": found["Arn"]}

    def update(self, api, prior, v, changed):
        api.client("scheduler").update_schedule(**self._request(v))

    @missing_is_none("ResourceNotFoundException")
    def delete(self, api, s):
        group, name = s["id"].split("/", 1)
        api.client("scheduler").delete_schedule(Name=name, GroupName=group)


class Bus(Handler):
    sends = frozenset(["name", "description", "kms_key_identifier"])
    updates = frozenset(["description", "kms_key_identifier"])

    def create(self, api, v):
        made = api.client("events").create_event_bus(**given(Name=v["name"], Description=v.get("description"), KmsKeyIdentifier=_known(v.get("kms_key_identifier")), Tags=tag_list(v)))
        return {"arn": made["EventBusArn"]}

    @missing_is_none("ResourceNotFoundException")
    def read(self, api, s):
        found = api.client("events").describe_event_bus(Name=s["id"])
        return {"name": found["Name"], "arn": found["Arn"]}

    def update(self, api, prior, v, changed):
        api.client("events").update_event_bus(**given(Name=v["name"], Description=v.get("description"), KmsKeyIdentifier=_known(v.get("kms_key_identifier"))))

    @missing_is_none("ResourceNotFoundException")
    def delete(self, api, s):
        api.client("events").delete_event_bus(Name=s["id"])


class Pipe(Handler):
    """MiniStack keeps a pipe, and delivers nothing to a bus: tests/events shows what it would."""

    sends = frozenset(["name", "description", "desired_state", "role_arn", "source", "target", "source_parameters", "target_parameters"])
    updates = sends - {"name", "source"}

    def _request(self, v):
        source, target = one(v["source_parameters"]), one(v["target_parameters"])
        stream, bus = one(source["dynamodb_stream_parameters"]), one(target["eventbridge_event_bus_parameters"])
        for parameters, sent in ((source, {"dynamodb_stream_parameters", "filter_criteria"}), (target, {"eventbridge_event_bus_parameters", "input_template"})):
            unsupported = [name for name, value in parameters.items() if value not in (None, [], "") and name not in sent]
            if unsupported:
                raise NotImplementedError(f"{unsupported} of aws_pipes_pipe")
        return given(
            Name=v["name"], Description=v.get("description"), DesiredState=v["desired_state"], RoleArn=v["role_arn"], Target=v["target"],
            SourceParameters={
                "DynamoDBStreamParameters": given(
                    StartingPosition=stream["starting_position"], BatchSize=_known(stream.get("batch_size")),
                    ParallelizationFactor=_known(stream.get("parallelization_factor")),
                    OnPartialBatchItemFailure=stream.get("on_partial_batch_item_failure"),
                    MaximumRetryAttempts=stream.get("maximum_retry_attempts"), MaximumRecordAgeInSeconds=_known(stream.get("maximum_record_age_in_seconds")),
                    DeadLetterConfig={"Arn": one(stream["dead_letter_config"])["arn"]} if one(stream.get("dead_letter_config")) else None,
                ),
                "FilterCriteria": {"Filters": [{"Pattern": filter["pattern"]} for filter in one(source["filter_criteria"])["filter"]]},
            },
            TargetParameters=given(
                InputTemplate=target.get("input_template"),
                EventBridgeEventBusParameters=given(Source=bus.get("source"), DetailType=bus.get("detail_type")),
            ),
        )

    def create(self, api, v):
        return {"arn": api.client("pipes").create_pipe(Source=v["source"], Tags=v.get("tags_all") or {}, **self._request(v))["Arn"]}

    @missing_is_none("NotFoundException")
    def read(self, api, s):
        found = api.client("pipes").describe_pipe(Name=s["id"])
        return {"name": found["Name"], "arn": found["Arn"], "source": found["Source"], "target": found["Target"], "role_arn": found["RoleArn"], "desired_state": found["DesiredState"]}

    def update(self, api, prior, v, changed):
        request = self._request(v)
        request["SourceParameters"]["DynamoDBStreamParameters"].pop("StartingPosition")
        api.client("pipes").update_pipe(**request)

    @missing_is_none("NotFoundException")
    def delete(self, api, s):
        api.client("pipes").delete_pipe(Name=s["id"])


class Parameter(Handler):
    sends = frozenset(["name", "type", "value", "description", "key_id", "tier"])
    updates = frozenset(["value", "description"])

    def create(self, api, v, overwrite=False):
        made = api.client("ssm").put_parameter(**given(Name=v["name"], Type=v["type"], Value=v["value"], Description=v.get("description"), KeyId=_known(v.get("key_id")), Tags=None if overwrite else tag_list(v)), Overwrite=overwrite)
        return {"version": made["Version"]}

    @missing_is_none("ParameterNotFound")
    def read(self, api, s):
        found = api.client("ssm").get_parameter(Name=s["id"], WithDecryption=True)["Parameter"]
        return {"value": found["Value"], "type": found["Type"], "version": found["Version"]}

    def update(self, api, prior, v, changed):
        return self.create(api, v, overwrite=True)

    @missing_is_none("ParameterNotFound")
    def delete(self, api, s):
        api.client("ssm").delete_parameter(Name=s["id"])


HANDLERS = {
    "aws_cloudwatch_composite_alarm": CompositeAlarm(),
    "aws_cloudwatch_dashboard": Dashboard(),
    "aws_cloudwatch_event_bus": Bus(),
    "aws_cloudwatch_log_group": LogGroup(),
    "aws_cloudwatch_metric_alarm": MetricAlarm(),
    "aws_dynamodb_resource_policy": TablePolicy(),
    "aws_dynamodb_table": Table(),
    "aws_iam_policy": Policy(),
    "aws_iam_role": Role(),
    "aws_iam_role_policy": RolePolicy(),
    "aws_iam_role_policy_attachment": Attachment(),
    "aws_kms_alias": KeyAlias(),
    "aws_kms_key": Key(),
    "aws_lambda_alias": Alias(),
    "aws_lambda_event_source_mapping": EventSource(),
    "aws_lambda_function": Function(),
    "aws_lambda_function_event_invoke_config": InvokeConfig(),
    "aws_lambda_permission": Permission(),
    "aws_pipes_pipe": Pipe(),
    "aws_scheduler_schedule": Schedule(),
    "aws_secretsmanager_secret": Secret(),
    "aws_secretsmanager_secret_policy": SecretPolicy(),
    "aws_sns_topic": Topic(),
    "aws_sns_topic_policy": TopicPolicy(),
    "aws_sns_topic_subscription": Subscription(),
    "aws_sqs_queue": Queue(),
    "aws_sqs_queue_policy": QueueAttribute("policy", "Policy"),
    "aws_sqs_queue_redrive_allow_policy": QueueAttribute("redrive_allow_policy", "RedriveAllowPolicy"),
    "aws_sqs_queue_redrive_policy": QueueAttribute("redrive_policy", "RedrivePolicy"),
    "aws_ssm_parameter": Parameter(),
}
