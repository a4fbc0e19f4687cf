"""The runbook's pages: their sections, and the blocks of commands in them."""

import dataclasses
import pathlib
import re

ROOT = pathlib.Path(__file__).resolve().parents[2]
RUNBOOK = ROOT / "runbook"
# The order in which an alarm's page is read and run.
SECTIONS = ["Diagnosis", "Mitigation", "Verification"]


@dataclasses.dataclass(frozen=True)
class Block:
    page: str
    section: str
    line: int
    text: str

    def __str__(self):
        return f"{self.page}.md:{self.line} ({self.section or 'top'})"


@dataclasses.dataclass
class Page:
    name: str
    text: str
    # By section, in order; what stands before the first one is the section "".
    sections: dict
    blocks: list

    def of(self, section):
        return [block for block in self.blocks if block.section == section]

    def links(self, section):
        """The pages that a section leads to, by their names."""
        folder = (RUNBOOK / self.name).parent
        targets = re.findall(r"\]\(([^)#]+\.md)", self.sections.get(section, ""))
        return {(folder / target).resolve().relative_to(RUNBOOK).with_suffix("").as_posix() for target in targets}


def parse(name, text):
    sections, blocks, section, block, begins = {"": ""}, [], "", None, 0
    for number, line in enumerate(text.splitlines(), 1):
        if block is not None:
            if line == "```":
                blocks.append(Block(name, section, begins, "".join(block)))
                block = None
            else:
                block.append(line + "\n")
        elif line == "```sh":
            block, begins = [], number + 1
        elif line.startswith("## "):
            section = line.removeprefix("## ")
            sections[section] = ""
        else:
            sections[section] += line + "\n"
    if block is not None:
        raise ValueError(f"{name}.md:{begins}: a block without an end")
    return Page(name, text, sections, blocks)


def read():
    """All pages by their name: an alarm's, or `procedures/…`."""
    found = {path.relative_to(RUNBOOK).with_suffix("").as_posix(): path for path in RUNBOOK.glob("**/*.md")}
    return {name: parse(name, path.read_text()) for name, path in sorted(found.items())}


def alarms(pages):
    return [name for name in pages if "/" not in name and name != "README"]
