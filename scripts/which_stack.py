"""Says which stack a script is about to change, and refuses where that is not the one that the state knows.

    which_stack.py STATE_JSON PREFIX REGION WORKSPACE

STATE_JSON is what `terraform show -json` prints; PREFIX and REGION are what the variables say, an empty REGION is that of the
environment or the profile.  Prints one line: account (asked of STS), region, workspace and prefix.
"""

import json
import os
import subprocess
import sys


def main():
    state_path, prefix, region, workspace = sys.argv[1:]
    region = region or os.environ.get("AWS_REGION") or os.environ.get("AWS_DEFAULT_REGION") or aws("configure", "get", "region")[1]
    if not region:
        sys.exit("No region: set the variable region, or AWS_REGION.")
    found, account = aws("sts", "get-caller-identity", "--region", region, "--query", "Account", "--output", "text")
    if not found:
        sys.exit(f"Could not ask AWS whose credentials these are: {account}")
    here = f"account {account}, region {region}, workspace {workspace}, prefix {prefix}"

    with open(state_path) as file:
        resources = list(managed(json.load(file).get("values", {}).get("root_module", {})))
    if resources:
        known = known_stack(resources)
        # Of a stack that is half destroyed the state may no longer say all three.
        if any(is_known and is_known != wanted for is_known, wanted in zip(known, (account, region, prefix))):
            sys.exit(
                f"This state is of a stack that stands in account {known[0]}, region {known[1]}, prefix {known[2]}; this would be {here}.\n"
                "Applied, everything there would be destroyed and made again elsewhere, without its data. Nothing was changed. Either\n"
                "correct region, prefix or credentials, or give the other stack a state of its own (runbook/procedures/second-region.md)."
            )
    else:
        exists, said = aws("sqs", "get-queue-url", "--region", region, "--queue-name", f"{prefix}-jobs", "--output", "text")
        if exists:
            sys.exit(
                f"This state is empty, but the queue {prefix}-jobs exists: {here}.\n"
                "SQS would hand it over without a word, and a later destroy of this state would take it from the stack that it belongs to.\n"
                "Nothing was changed. Select the workspace, or the backend's key, whose state has the stack; or set another prefix."
            )
        if "NonExistentQueue" not in said and "QueueDoesNotExist" not in said:
            sys.exit(f"Could not see whether the queue {prefix}-jobs exists already ({here}): {said}")
    print(here)


def managed(module):
    """The resources of AWS in a state, those of child modules included."""
    yield from (item for item in module.get("resources", []) if item["mode"] == "managed" and item["type"].startswith("aws_"))
    for child in module.get("child_modules", []):
        yield from managed(child)


def known_stack(resources):
    """Account, region and prefix, as resources that are left after a half destroy say them too."""
    account = region = prefix = None
    for item in resources:
        values = item["values"]
        arn = (values.get("arn") or "").split(":")
        if len(arn) > 4:
            account, region = arn[4] or account, arn[3] or region
        prefix = (values.get("tags_all") or {}).get("Stack") or prefix
    return account, region, prefix


def aws(*arguments):
    """Whether the command succeeded, and what it said."""
    # Version 1 of the CLI does not read the endpoint of a stack on this machine, and would ask AWS itself.
    endpoint = os.environ.get("AWS_ENDPOINT_URL")
    if endpoint:
        arguments += ("--endpoint-url", endpoint)
    try:
        done = subprocess.run(["aws", *arguments], env={**os.environ, "AWS_PAGER": ""}, capture_output=True, text=True)
    except FileNotFoundError:
        sys.exit("The AWS CLI is not installed.")
    return done.returncode == 0, (done.stdout if done.returncode == 0 else done.stderr).strip()


if __name__ == "__main__":
    main()
