#!/usr/bin/env python3
"""Extracts the schemas of the AWS types that we use into schema.json.

The source is the npm package @cdktn/provider-aws, which is generated from the schema of the real
provider (hashicorp/aws 6.66.0).  Its JavaScript keeps, in comments and calls, what a schema says:
name, type, required / optional / computed, nested blocks with their nesting and their limits, and
write-only.  It does not keep: sensitive, deprecated, schema versions, and anything that no schema
has (defaults, replace-on-change, enums, ranges, conflicts): see rules.py.

    npm pack @cdktn/provider-aws@25.7.0 && tar xzf cdktn-provider-aws-25.7.0.tgz
    ./extract_schema.py package > schema.json

The output has the form of `terraform providers schema -json`.
"""

import json
import pathlib
import re
import sys

PACKAGE = ("@cdktn/provider-aws", "25.7.0")

RESOURCES = """
    cloudwatch_composite_alarm cloudwatch_dashboard cloudwatch_event_bus cloudwatch_event_rule cloudwatch_event_target
    cloudwatch_log_group cloudwatch_log_metric_filter cloudwatch_metric_alarm
    dynamodb_resource_policy dynamodb_table
    iam_policy iam_role iam_role_policy iam_role_policy_attachment
    kms_alias kms_key kms_key_policy
    lambda_alias lambda_event_source_mapping lambda_function lambda_function_event_invoke_config
    lambda_permission
    pipes_pipe
    scheduler_schedule scheduler_schedule_group
    secretsmanager_secret secretsmanager_secret_policy secretsmanager_secret_version
    sns_topic sns_topic_policy sns_topic_subscription
    sqs_queue sqs_queue_policy sqs_queue_redrive_allow_policy sqs_queue_redrive_policy
    ssm_parameter
""".split()

DATA_SOURCES = """
    caller_identity default_tags iam_policy_document kms_alias kms_key partition region
    service_principal
""".split()

CLASS = re.compile(r"^class (\w+) extends cdktn\.(\w+) \{\n(.*?)^\}\n", re.M | re.S)
HCL_FUNCTION = re.compile(r"^function (\w+)ToHclTerraform\(struct\) \{\n(.*?)^\}\n", re.M | re.S)
HCL_ENTRY = re.compile(
    r"^ +(\w+): \{\n +value: (.*),\n +isBlock: (true|false),\n +type: \"(\w+)\",\n"
    r" +storageClassType: \"(\w+)\",",
    re.M,
)
# `// name - computed: c, optional: o, required: r`, then either a field that holds a nested class
# or a plain field, then the getter whose name gives the type.
ATTRIBUTE = re.compile(
    r"^    // (\w+) - computed: (true|false), optional: (true|false), required: (true|false)\n"
    r"(?:    // .*\n)*"
    r"(?:    _\w+ = new (?P<cls>[\w.]+)\(this, \"\w+\"(?:, (?P<wraps_set>true|false))?\);\n|    _\w+;\n)?"
    r"(?:    /\*(?:.|\n)*?\*/\n)?"
    r"    get \w+\(\) \{\n(?:        //.*\n)*        return (?P<getter>.*);\n",
    re.M,
)

SCALARS = {"string": "string", "number": "number", "boolean": "bool"}
COLLECTIONS = {
    "stringList": "string", "numberList": "number",
    "stringMap": "string", "numberMap": "number", "booleanMap": "bool",
}
GETTERS = {
    "getStringAttribute": "string", "getNumberAttribute": "number", "getBooleanAttribute": "bool",
    "getStringMapAttribute": ["map", "string"], "getNumberMapAttribute": ["map", "number"],
    "getBooleanMapAttribute": ["map", "bool"], "getListAttribute": ["list", "string"],
    "getNumberListAttribute": ["list", "number"],
}
MAP_CLASSES = {"cdktn.StringMap": "string", "cdktn.NumberMap": "number", "cdktn.BooleanMap": "bool"}


class Module:
    """One generated file: a resource, a data source or the provider, with its nested classes."""

    def __init__(self, text):
        text = re.sub(r"^//# sourceMappingURL.*", "", text, flags=re.M)
        self.classes = {name: body for name, _, body in CLASS.findall(text)}
        self.bases = {name: base for name, base, _ in CLASS.findall(text)}
        self.hcl = {name: body for name, body in HCL_FUNCTION.findall(text)}

    def main_class(self):
        for name, base in self.bases.items():
            if base in ("TerraformResource", "TerraformDataSource", "TerraformProvider"):
                return name
        raise SystemExit("no resource, data source or provider class")

    def block(self, class_name, is_main=False):
        body = self.classes[class_name]
        if is_main:
            hcl_text = body[body.index("synthesizeHclAttributes") :] if "synthesizeHclAttributes" in body else ""
        else:
            struct = class_name.removesuffix("OutputReference")
            hcl_text = self.hcl[struct[0].lower() + struct[1:]]
        hcl = {name: rest for name, *rest in HCL_ENTRY.findall(hcl_text)}

        comments = re.findall(r"^    // (\w+) - computed:", body, re.M)
        found = list(ATTRIBUTE.finditer(body))
        if [match[1] for match in found] != comments:
            raise SystemExit(f"{class_name}: read {[m[1] for m in found]}, the file has {comments}")

        attributes, blocks = {}, {}
        for match in found:
            name = match[1]
            if name == "alias" and self.bases[class_name] == "TerraformProvider":
                continue  # Terraform's own argument, no part of the provider's schema.
            computed, optional, required = (match[i] == "true" for i in (2, 3, 4))
            value, is_block, kind, storage = hcl.get(name, ("", "false", None, None))
            if is_block == "true":
                blocks[name] = self.nested(match["cls"], kind, required, value)
                continue
            attribute = {"type": self.attribute_type(match, kind, storage, class_name, name)}
            if computed:
                attribute["computed"] = True
            if optional:
                attribute["optional"] = True
            if required:
                attribute["required"] = True
            if "markWriteOnlyAttribute" in value:
                attribute["write_only"] = True
            if not (computed or optional or required):
                raise SystemExit(f"{class_name}.{name}: neither computed, optional nor required")
            attributes[name] = attribute
        block = {}
        if attributes:
            block["attributes"] = attributes
        if blocks:
            block["block_types"] = blocks
        return block

    def nested(self, cls, kind, required, value):
        if cls is None:
            # The provider's own blocks have no classes, so what is required in them is lost.
            struct = re.search(r"(\w+)ToHclTerraform", value)[1]
            return {"nesting_mode": kind, "block": self.block_of_struct(struct)}
        single = cls.endswith("OutputReference")
        inner = cls if single else cls.removesuffix("List") + "OutputReference"
        nested = {"nesting_mode": "single" if kind == "struct" else kind, "block": self.block(inner)}
        if kind != "struct":
            if required:
                nested["min_items"] = 1
            if single:
                nested["max_items"] = 1
        return nested

    def block_of_struct(self, struct):
        attributes = {}
        for name, _, is_block, kind, storage in HCL_ENTRY.findall(self.hcl[struct]):
            if is_block == "true":
                raise SystemExit(f"{struct}.{name}: a block in a block of the provider")
            kind_of = SCALARS[storage] if kind == "simple" else [kind, COLLECTIONS[storage]]
            attributes[name] = {"type": kind_of, "optional": True}
        return {"attributes": attributes}

    def attribute_type(self, match, kind, storage, class_name, name):
        if kind == "simple":
            return SCALARS[storage]
        if kind in ("list", "set", "map"):
            return [kind, COLLECTIONS[storage]]
        if match["cls"]:
            if match["cls"] in MAP_CLASSES:
                return ["map", MAP_CLASSES[match["cls"]]]
            inner = match["cls"].removesuffix("List")
            inner = inner if inner.endswith("OutputReference") else inner + "OutputReference"
            collection = "set" if match["wraps_set"] == "true" else "list"
            return [collection, self.object_type(inner)]
        getter = re.search(r"this\.(\w+)\(", match["getter"])
        if not getter or getter[1] not in GETTERS:
            raise SystemExit(f"{class_name}.{name}: cannot tell the type of {match['getter']}")
        found = GETTERS[getter[1]]
        if "Fn.tolist" in match["getter"]:
            return ["set", found[1]]
        return found

    def object_type(self, class_name):
        body = self.classes[class_name]
        return [
            "object",
            {m[1]: self.attribute_type(m, None, None, class_name, m[1]) for m in ATTRIBUTE.finditer(body)},
        ]


def module_schema(package, directory):
    module = Module((package / "lib" / directory / "index.js").read_text())
    return {"block": module.block(module.main_class(), is_main=True)}


def main():
    if len(sys.argv) != 2:
        raise SystemExit(__doc__)
    package = pathlib.Path(sys.argv[1])
    meta = json.loads((package / "package.json").read_text())
    if (meta["name"], meta["version"]) != PACKAGE:
        raise SystemExit(f"expected {PACKAGE}, found {meta['name']} {meta['version']}")
    text = (package / "lib" / "sqs-queue" / "index.js").read_text()
    version = re.search(r"providerVersion: '([\d.]+)'", text)[1]
    schema = {
        "source": f"{PACKAGE[0]} {PACKAGE[1]} (MPL-2.0), generated from hashicorp/aws {version} (MPL-2.0)",
        "provider_version": version,
        "provider": module_schema(package, "provider"),
        "resource_schemas": {
            "aws_" + name: module_schema(package, name.replace("_", "-")) for name in sorted(RESOURCES)
        },
        "data_source_schemas": {
            "aws_" + name: module_schema(package, "data-aws-" + name.replace("_", "-"))
            for name in sorted(DATA_SOURCES)
        },
    }
    # One type a line: compact, and a change of one type is one line of a diff.
    lines = []
    for key, value in schema.items():
        if key.endswith("_schemas"):
            rows = ",\n".join(f"    {json.dumps(k)}: {compact(v)}" for k, v in value.items())
            lines.append(f"  {json.dumps(key)}: {{\n{rows}\n  }}")
        else:
            lines.append(f"  {json.dumps(key)}: {compact(value)}")
    print("{\n" + ",\n".join(lines) + "\n}")


def compact(value):
    return json.dumps(value, separators=(",", ":"), sort_keys=True)


if __name__ == "__main__":
    main()
