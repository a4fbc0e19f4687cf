"""Each contradiction of refusals.json makes `terraform plan` fail at its resource, with its message and no other.

    refusals.py          after `terraform init`, with the provider that is to be used; scripts/check-terraform runs it

`terraform test` can expect a precondition to fail, but not with what it says; what it says is what a user is left with.
"""

import json
import pathlib
import re
import subprocess
import sys
import tempfile

HERE = pathlib.Path(__file__).resolve().parent


def main():
    cases = json.loads((HERE / "refusals.json").read_text())
    faults = [fault for case in cases for fault in check(case)]
    declared = sum(file.read_text().count("precondition {") for file in HERE.parent.glob("*.tf") if file.name != "alarms.tf")
    if len(cases) != declared:
        faults.append(f"{declared} preconditions (those of alarms.tf left out), {len(cases)} cases in refusals.json")
    print(*faults or [f"{len(cases)} contradictions refused, each with what to change"], sep="\n")
    sys.exit(bool(faults))


def check(case):
    with tempfile.TemporaryDirectory() as folder:
        variables = pathlib.Path(folder, "case.tfvars.json")
        variables.write_text(json.dumps({"region": "eu-central-1", "artifacts_dir": "tests/artifacts", **case["variables"]}))
        plan = subprocess.run(
            ["terraform", "plan", "-input=false", "-no-color", "-refresh=false", "-lock=false", f"-state={folder}/none.tfstate", f"-var-file={variables}"],
            cwd=HERE.parent, capture_output=True, text=True,
        )
    # Terraform breaks lines to the width of a terminal, and draws a box beside them.
    said = re.sub(r"[\s│╷╵]+", " ", plan.stdout + plan.stderr)
    refused_at = re.findall(r"Error: Resource precondition failed on \S+ line \d+, in resource \"(\w+)\" \"(\w+)\"", said)
    if plan.returncode == 0:
        yield f"accepted: {case['variables']}"
    elif ["{}.{}".format(*at) for at in refused_at] != [case["at"]]:
        yield f"{case['variables']}: refused at {refused_at}, not once at {case['at']}: {said[-600:]}"
    elif case["says"] not in said:
        yield f"{case['variables']}: does not say {case['says']!r}: {said[-600:]}"


if __name__ == "__main__":
    main()
