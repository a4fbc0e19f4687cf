#!/usr/bin/env python3
"""Serves the fake AWS provider over Terraform's plugin protocol, version 5.

Prints one line, the value for TF_REATTACH_PROVIDERS, then serves until its standard input ends.
"""

import argparse
import collections
import json
import logging
import os
import sys
import threading
import traceback
from concurrent import futures

import grpc

import policy_document
import identity
from backend_memory import MemoryBackend
from plan import plan
from rules import RULES
from schema import Schema, schema_message
from validate import validate
from values import UNKNOWN, conform, decode, encode, has_unknown

# gRPC looks for the file where Python looks for modules: beside this one.
pb = grpc.protos("tfplugin5.proto")
services = grpc.services("tfplugin5.proto")

LOG = logging.getLogger("fake_provider")


class Context:
    """What one provider block of the configuration says; backends get it with each call."""

    _ids = 0
    _lock = threading.Lock()

    def __init__(self, region="us-east-1", account="123456789012", default_tags=None):
        self.region = region
        self.account = account
        self.default_tags = default_tags or {}

    def new_id(self):
        with Context._lock:
            Context._ids += 1
            return f"{os.getpid():08x}{Context._ids:08d}{os.urandom(4).hex()}"


class Provider(services.ProviderServicer):
    def __init__(self, schema, backend, account):
        self.schema = schema
        self.backend = backend
        self.account = account
        # Terraform opens a connection for each provider block (aliases, runs of a test): the peer's
        # port tells them apart, which a unix socket would not.
        self.contexts = collections.defaultdict(lambda: Context(account=account))

    # What can be done with the configuration alone.

    def GetMetadata(self, request, rpc):
        response = pb.GetMetadataResponse()
        for name in self.schema.resources:
            response.resources.add(type_name=name)
        for name in self.schema.data_sources:
            response.data_sources.add(type_name=name)
        return response

    def GetSchema(self, request, rpc):
        response = pb.GetSchemaResponse(provider=schema_message(pb, self.schema.provider))
        for name, block in self.schema.resources.items():
            response.resource_schemas[name].CopyFrom(schema_message(pb, block))
        for name, block in self.schema.data_sources.items():
            response.data_source_schemas[name].CopyFrom(schema_message(pb, block))
        return response

    def PrepareProviderConfig(self, request, rpc):
        return pb.PrepareResponse(prepared_config=request.config)

    def ValidateResourceTypeConfig(self, request, rpc):
        block = self.schema.resources[request.type_name]
        config = decode(request.config, block.kind)
        response = pb.DiagnosticsResponse()
        for path, message in validate(request.type_name, block, config):
            diagnostic = response.diagnostics.add(severity=1, summary=message)
            diagnostic.attribute.steps.add(attribute_name=path.split(".")[0])
        return response

    def ValidateDataSourceConfig(self, request, rpc):
        return pb.DiagnosticsResponse()

    def Configure(self, request, rpc):
        config = decode(request.config, self.schema.provider.kind)
        tags = {}
        for block in config.get("default_tags") or []:
            tags.update(block.get("tags") or {})
        region = config.get("region") or os.environ.get("AWS_REGION") or os.environ.get("AWS_DEFAULT_REGION")
        response = pb.DiagnosticsResponse()
        if not region:
            response.diagnostics.add(severity=1, summary="invalid AWS Region: the provider needs `region`, or AWS_REGION in the environment")
            return response
        allowed = config.get("allowed_account_ids")
        if isinstance(allowed, list) and self.account not in allowed:
            response.diagnostics.add(severity=1, summary=f"AWS account ID not allowed: {self.account}")
            return response
        self.contexts[rpc.peer()] = Context(region if region is not UNKNOWN else "us-east-1", self.account, tags)
        return response

    # What concerns one resource.

    def UpgradeResourceState(self, request, rpc):
        kind = self.schema.resources[request.type_name].kind
        state = conform(json.loads(request.raw_state.json), kind)
        return pb.UpgradeResponse(upgraded_state=self._dynamic(state, kind))

    def ReadResource(self, request, rpc):
        response = pb.ReadResponse()
        block = self.schema.resources[request.type_name]

        def read():
            state = decode(request.current_state, block.kind)
            found = self.backend.read(request.type_name, block, state, self.contexts[rpc.peer()])
            response.new_state.CopyFrom(self._dynamic(found, block.kind))

        return self._guarded(response, f"reading {request.type_name}", read)

    def PlanResourceChange(self, request, rpc):
        response = pb.PlanResponse(legacy_type_system=True)
        block = self.schema.resources[request.type_name]

        def make_plan():
            prior, proposed, config = (
                decode(value, block.kind) for value in (request.prior_state, request.proposed_new_state, request.config)
            )
            planned, replace = plan(request.type_name, block, prior, proposed, config, self.contexts[rpc.peer()])
            response.planned_state.CopyFrom(self._dynamic(planned, block.kind))
            for name in replace:
                response.requires_replace.add().steps.add(attribute_name=name)

        return self._guarded(response, f"planning {request.type_name}", make_plan)

    def ApplyResourceChange(self, request, rpc):
        response = pb.ApplyResponse(legacy_type_system=True)
        block = self.schema.resources[request.type_name]
        context = self.contexts[rpc.peer()]

        # On failure the resource is what it was: what exists stays in the state.
        response.new_state.CopyFrom(request.prior_state)

        def apply():
            try:
                attempt()
            except Exception as error:
                # What was made before the failure exists: Terraform must know of it.
                if getattr(error, "state", None) is not None:
                    response.new_state.CopyFrom(self._dynamic(error.state, block.kind))
                raise

        def attempt():
            prior, planned, config = (
                decode(value, block.kind) for value in (request.prior_state, request.planned_state, request.config)
            )
            if planned is None:
                self.backend.delete(request.type_name, block, prior, context)
                state = None
            elif prior is None:
                problems = validate(request.type_name, block, config)
                if problems:
                    raise ValueError("; ".join(message for _, message in problems))
                state = self.backend.create(request.type_name, block, planned, context)
            else:
                state = self.backend.update(request.type_name, block, prior, planned, config, context)
            if has_unknown(state):
                raise RuntimeError(f"the fake provider left an unknown value in {request.type_name}")
            response.new_state.CopyFrom(self._dynamic(state, block.kind))

        return self._guarded(response, f"applying {request.type_name}", apply)

    def ImportResourceState(self, request, rpc):
        response = pb.ImportResponse()
        block = self.schema.resources[request.type_name]

        def find():
            state = self.backend.import_state(request.type_name, block, request.id, self.contexts[rpc.peer()])
            response.imported_resources.add(type_name=request.type_name, state=self._dynamic(state, block.kind))

        return self._guarded(response, f"importing {request.type_name}", find)

    def ReadDataSource(self, request, rpc):
        response = pb.ReadDataResponse()
        block = self.schema.data_sources[request.type_name]

        def read():
            config = decode(request.config, block.kind)
            state = self._data(request.type_name, config, self.contexts[rpc.peer()])
            response.state.CopyFrom(self._dynamic(state, block.kind))

        return self._guarded(response, f"reading data {request.type_name}", read)

    def _data(self, type_name, config, context):
        region = config.get("region") or context.region
        state = dict(config)
        if type_name == "aws_caller_identity":
            own = f"arn:{identity.partition(region)}:iam::{context.account}:user/fake"
            state.update(id=context.account, account_id=context.account, arn=own, user_id="AIDAFAKEFAKEFAKEFAKE1")
        elif type_name == "aws_region":
            state.update(
                id=region, name=region, region=region, description=f"{region} (fake)",
                endpoint=f"ec2.{region}.{identity.dns_suffix(region)}",
            )
        elif type_name == "aws_partition":
            suffix = identity.dns_suffix(context.region)
            name = identity.partition(context.region)
            state.update(id=name, partition=name, dns_suffix=suffix, reverse_dns_prefix=".".join(reversed(suffix.split("."))))
        elif type_name == "aws_service_principal":
            service = config["service_name"]
            state.update(id=f"{service}.{region}.amazonaws.com", name=f"{service}.amazonaws.com", region=region, suffix="amazonaws.com")
        elif type_name == "aws_default_tags":
            state.update(id=identity.partition(context.region), tags=context.default_tags)
        elif type_name == "aws_iam_policy_document":
            state.update(policy_document.computed(config))
        else:
            found = self.backend.data_source(type_name, config, context)
            if found is None:
                raise ValueError(f"data {type_name}: the fake provider has no such data in this backend")
            state.update(found)
        return state

    def Stop(self, request, rpc):
        return pb.StopResponse()

    def _dynamic(self, state, kind):
        return pb.DynamicValue(msgpack=encode(state, kind))

    def _guarded(self, response, doing, action):
        """An exception becomes a diagnostic: Terraform reports it at the resource's address."""
        try:
            action()
        except Exception as error:
            LOG.debug("%s\n%s", doing, traceback.format_exc())
            response.diagnostics.add(severity=1, summary=f"{doing}: {error}", detail=f"({type(error).__name__}, from the fake AWS provider)")
        return response


def make_backend(name):
    if name == "memory":
        return MemoryBackend(os.environ.get("FAKE_AWS_STORE"))
    from backend_ministack import MiniStackBackend

    return MiniStackBackend(os.environ["AWS_ENDPOINT_URL"])


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--backend", choices=["memory", "ministack"], default="memory")
    parser.add_argument("--account", default="123456789012")
    arguments = parser.parse_args()
    logging.basicConfig(level=os.environ.get("FAKE_AWS_LOG", "WARNING"), stream=sys.stderr)

    schema = Schema()
    unknown_rules = set(RULES) - set(schema.resources)
    if unknown_rules:
        raise SystemExit(f"rules.py names types that schema.json does not have: {sorted(unknown_rules)}")
    backend = make_backend(arguments.backend)
    account = getattr(backend, "account", arguments.account)
    server = grpc.server(futures.ThreadPoolExecutor(max_workers=16), options=[("grpc.so_reuseport", 0)])
    services.add_ProviderServicer_to_server(Provider(schema, backend, account), server)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    reattach = {
        "Protocol": "grpc", "ProtocolVersion": 5, "Pid": os.getpid(), "Test": True,
        "Addr": {"Network": "tcp", "String": f"127.0.0.1:{port}"},
    }
    print(json.dumps({"registry.terraform.io/hashicorp/aws": reattach}), flush=True)
    sys.stdin.buffer.read()  # The launcher holds the other end: when it ends, so do we.
    server.stop(grace=1).wait()


if __name__ == "__main__":
    main()
