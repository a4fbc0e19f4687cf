"""The module in the real Terraform, over a made-up account: the file of tests/fake_provider's memory backend, so that a test sees
what is there and not what a plan says."""

import json
import os
import subprocess

from stack import BUSY, ROOT


class Account:
    """A copy of the module with a state of its own, and what it has made.

    `caller` is the text of a configuration that calls the module; without it, the module is the root.
    """

    def __init__(self, folder, caller=None):
        self.folder = folder
        self.store = folder / "account.json"
        subprocess.run([ROOT / "scripts" / "tools", "module", folder], check=True)
        self.root = folder / "terraform"
        if caller:
            self.root = folder / "caller"
            self.root.mkdir()
            self.call(caller)
        self.terraform("init", "-backend=false")

    def call(self, text):
        (self.root / "main.tf").write_text(text)

    def terraform(self, *arguments, ok=True):
        done = self._run(*arguments, "-no-color")
        said = " ".join((done.stdout + done.stderr).replace("│", " ").split())
        if ok is not None:
            assert (done.returncode == 0) == ok, said
        return said

    def _run(self, *arguments):
        return subprocess.run(
            [ROOT / "tests" / "fake_provider" / "run", "terraform", f"-chdir={self.root}", *arguments],
            env={
                **os.environ, "TF_IN_AUTOMATION": "1", "AWS_REGION": "eu-central-1", "FAKE_AWS_STORE": str(self.store),
                "FAKE_AWS_BUCKETS": str(self.folder / "buckets"),
            },
            capture_output=True, text=True, timeout=BUSY * 300,
        )

    def options(self, variables):
        if self.root == self.folder / "terraform":
            variables = {"artifacts_dir": "tests/artifacts", **variables}
        return [f"-var={name}={value if isinstance(value, str) else json.dumps(value)}" for name, value in variables.items()]

    def apply(self, ok=True, **variables):
        return self.terraform("apply", "-auto-approve", "-input=false", *self.options(variables), ok=ok)

    def destroy(self, *arguments, ok=True, **variables):
        return self.terraform("destroy", "-auto-approve", "-input=false", *arguments, *self.options(variables), ok=ok)

    def planned(self, **variables):
        """The changes that a plan would make: address to actions."""
        self.terraform("plan", "-input=false", "-out=changes.tfplan", *self.options(variables))
        shown = self._run("show", "-json", "changes.tfplan")
        assert shown.returncode == 0, shown.stderr
        return {
            change["address"]: change["change"]["actions"] for change in json.loads(shown.stdout)["resource_changes"]
            if change["mode"] == "managed" and change["change"]["actions"] != ["no-op"]
        }

    def resources(self):
        return json.loads(self.store.read_text()) if self.store.exists() else {}

    def of(self, type_name):
        return [resource for key, resource in self.resources().items() if key.startswith(type_name + "|")]

    def change(self, type_name, **values):
        """What somebody does outside of Terraform."""
        resources = self.resources()
        for key in resources:
            if key.startswith(type_name + "|"):
                resources[key].update(values)
        self.store.write_text(json.dumps(resources))
