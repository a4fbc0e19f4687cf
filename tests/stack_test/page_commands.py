"""The commands of README and runbook, as words, without running any."""

import dataclasses
import re

from runbook_pages import ROOT, RUNBOOK

# What stands before a program's name where it is one, and not a part of a word or of a path.
BEFORE = r"(?<![\w./${-])"
# Assignments where a command may begin, and their names.
ASSIGNMENTS = re.compile(r"""(?:^|[;&|({]|\b(?:export|then|do|else|if|while)\b)\s*((?:\w+=(?:"[^"]*"|'[^']*'|[^\s;"'])*\s*)+)""")
NAMES = re.compile(r"(?:^|\s)(\w+)=")
TAKES = re.compile(r"\bfor (\w+) in|\bread -\w+ (\w+)")
# What a shell has of itself, and what the reader puts in.
GIVEN = {"HOME", "PWD", "KEY", "THE_ONE_BEFORE"}


@dataclasses.dataclass(frozen=True)
class Command:
    page: str
    line: int
    program: str
    words: tuple
    # In a sentence, where it need not be complete.
    mention: bool

    def __str__(self):
        return f"{self.page}:{self.line}: {self.program} {' '.join(self.words)}"

    def option(self, name):
        """The values of an option, up to the next one."""
        values = []
        for word in self.words[self.words.index(name) + 1 :] if name in self.words else []:
            if word.startswith("--"):
                break
            values.append(word)
        return values


def words(text):
    """The words of the command that begins here, as a shell would read them; expansions as they stand, redirections left out."""
    found, word, quote, depth, to_file, at = [], None, "", 0, False, 0

    def finish():
        nonlocal word, to_file
        if word is not None and not to_file:
            found.append(word)
        word, to_file = None, to_file and word is None

    text += "\n"
    while at < len(text):
        c = text[at]
        at += 1
        if depth or (c == "(" and word and word[-1] in "$<"):
            depth += {"(": 1, ")": -1}.get(c, 0)
            word += c
        elif c == quote:
            quote = ""
        elif c == "\\" and quote != "'":
            word = word if text[at] == "\n" else (word or "") + text[at]
            at += 1
        elif quote:
            word += c
        elif c in "'\"":
            quote, word = c, word or ""
        elif c == "<" and text[at] == "(":
            word = (word or "") + c
        elif c in "<>":
            word = None if word and word.isdigit() else word
            finish()
            to_file = True
        elif c in "\n|;&)" or (c == "#" and word is None):
            finish()
            break
        elif c.isspace():
            finish()
        else:
            word = (word or "") + c
    return tuple(found)


def blocks_and_spans(text):
    """The blocks of commands, each with its first line, and what stands between backticks elsewhere, each with its line."""
    blocks, spans, block, begins, fence = [], [], None, 0, ""
    for number, line in enumerate(text.splitlines(), 1):
        if line.startswith("```"):
            if block is not None and fence in ("sh", ""):
                blocks.append((begins, "".join(block)))
            fence, block, begins = line[3:], ([] if block is None else None), number + 1
        elif block is not None:
            block.append(line + "\n")
        else:
            spans += [(number, span) for span in line.split("`")[1::2]]
    return blocks, spans


def pages():
    """README and the runbook, by their path."""
    paths = [ROOT / "README.md", *sorted(RUNBOOK.glob("**/*.md"))]
    return {path.relative_to(ROOT).as_posix(): path.read_text() for path in paths}


def commands(page, text, program):
    """Each command of a program (an expression) on a page, those within another one's words too."""
    blocks, spans = blocks_and_spans(text)
    found = []
    parts = [(*block, False) for block in blocks] + [(*span, True) for span in spans]
    for begins, part, mention in parts:
        for match in re.finditer(rf"{BEFORE}({program})(?: +(?=\S)|$)", part, re.MULTILINE):
            if not mention or match.start() == 0:
                line = begins + part.count("\n", 0, match.start())
                found.append(Command(page, line, match.group(1), words(part[match.end() :]), mention))
    return found


def introduction(text, line):
    """The paragraph before the block in which the line stands."""
    lines = text.splitlines()[:line]
    fence = max(number for number, before in enumerate(lines) if before.startswith("```"))
    return "\n".join(lines[:fence]).strip().split("\n\n")[-1]


def is_literal(word):
    """Whether it is a value, and not what a shell or a reader puts there."""
    return not re.search(r"\$|…|^<|^[A-Z_]+$", word)


def unset(page, text):
    """The variables that nothing in their section sets before: sections are pasted into a new shell."""
    blocks, _ = blocks_and_spans(text)
    headings = [number for number, line in enumerate(text.splitlines(), 1) if line.startswith("## ")]
    section, is_set = 0, set()
    for begins, block in blocks:
        if (here := sum(number < begins for number in headings)) != section:
            section, is_set = here, set()
        for number, line in enumerate(block.splitlines(), begins):
            # What stands between single quotes is another program's.
            shown = re.sub(r"""("(?:\\.|[^"\\])*")|'[^']*'""", lambda match: match.group(1) or "", line)
            is_set |= {name for chain in ASSIGNMENTS.findall(line) for name in NAMES.findall(chain)}
            is_set |= {name for names in TAKES.findall(line) for name in names}
            for name in re.findall(r"\$\{?([A-Za-z_]\w*)(?![\w:])", shown):
                if name not in is_set | GIVEN:
                    yield number, name
