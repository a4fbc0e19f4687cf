"""schema.json as types for values.py and as messages for the protocol."""

import json
import pathlib

_PATH = pathlib.Path(__file__).with_name("schema.json")


class Block:
    """A block's attributes {name: {...}} and nested blocks {name: Nested}."""

    def __init__(self, raw):
        self.attributes = raw.get("attributes", {})
        self.blocks = {name: Nested(nested) for name, nested in raw.get("block_types", {}).items()}
        members = {name: attribute["type"] for name, attribute in self.attributes.items()}
        members.update({name: nested.kind for name, nested in self.blocks.items()})
        self.kind = ["object", members]


class Nested:
    def __init__(self, raw):
        self.mode = raw["nesting_mode"]
        self.min_items = raw.get("min_items", 0)
        self.max_items = raw.get("max_items", 0)
        self.block = Block(raw["block"])
        self.kind = self.block.kind if self.mode == "single" else [self.mode, self.block.kind]


class Schema:
    def __init__(self, path=_PATH):
        raw = json.loads(path.read_text())
        self.provider_version = raw["provider_version"]
        self.provider = Block(raw["provider"]["block"])
        self.resources = {name: Block(item["block"]) for name, item in raw["resource_schemas"].items()}
        self.data_sources = {name: Block(item["block"]) for name, item in raw["data_source_schemas"].items()}


def block_message(pb, block):
    message = pb.Schema.Block()
    for name, attribute in sorted(block.attributes.items()):
        message.attributes.add(
            name=name,
            type=json.dumps(attribute["type"]).encode(),
            required=attribute.get("required", False),
            optional=attribute.get("optional", False),
            computed=attribute.get("computed", False),
            write_only=attribute.get("write_only", False),
        )
    for name, nested in sorted(block.blocks.items()):
        message.block_types.add(
            type_name=name,
            block=block_message(pb, nested.block),
            nesting={"single": 1, "list": 2, "set": 3}[nested.mode],
            min_items=nested.min_items,
            max_items=nested.max_items,
        )
    return message


def schema_message(pb, block):
    return pb.Schema(version=0, block=block_message(pb, block))
