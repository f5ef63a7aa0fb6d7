"""What README and docs show to be typed: their fenced blocks, and the commands in blocks and in the text."""

from __future__ import annotations

import re
import shlex
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]
#: Added to the options of a page, so that a run takes seconds.
QUICK = [
    *("--use_cpu", "--max_steps", "2", "--num_candidates", "8", "--mask_area", "0.1", "--oracle_threshold", "0.05"),
    *("--report_to", "none", "--disable_tqdm", "true"),
]
PROGRAMS = ("hf-score", "accelerate launch", "torchrun", "python", "make", "pip", ".venv/bin/")

_FENCED = re.compile(r"^( *)(`{3,})([^\n`]*)\n(.*?)^ *\2 *$", re.MULTILINE | re.DOTALL)
_INDENTED = re.compile(r"^ {4}(\S.*)$", re.MULTILINE)
_SPAN = re.compile(r"`([^`]+)`")


@dataclass(frozen=True)
class Block:
    """A fenced block: the page's path from the root, the line of its fence, its language and its text."""

    page: str
    line: int
    language: str
    text: str

    def __str__(self) -> str:
        return f"{self.page}:{self.line}"


@dataclass(frozen=True)
class Command:
    """One command line. In running text it may be a fragment, without what is required."""

    page: str
    line: int
    text: str
    fragment: bool = False

    def __str__(self) -> str:
        return f"{self.page}:{self.line} {self.text}"

    @property
    def words(self) -> list[str]:
        return shlex.split(self.text)


def blocks(page: Path) -> list[Block]:
    text = page.read_text(encoding="utf-8")
    name = page.relative_to(ROOT).as_posix()
    found = [
        Block(name, text.count("\n", 0, match.start()) + 1, match[3].strip(), _dedent(match[4], match[1]))
        for match in _FENCED.finditer(text)
    ]
    assert 2 * len(found) == len(re.findall(r"^ *```", text, re.MULTILINE)), f"{name}: a fence is not closed"
    return found


def commands(page: Path) -> list[Command]:
    """In bash blocks, in indented blocks and in code spans, in this order."""
    name = page.relative_to(ROOT).as_posix()
    found = [command for block in blocks(page) if block.language == "bash" for command in in_block(block)]
    # The rest of the page, its lines where they were.
    text = _FENCED.sub(lambda match: "\n" * match[0].count("\n"), page.read_text(encoding="utf-8"))
    for pattern, fragment in ((_INDENTED, False), (_SPAN, True)):
        for match in pattern.finditer(text):
            line = " ".join(match[1].split())
            if line.startswith(tuple(f"{program} " for program in PROGRAMS)):
                found.append(Command(name, text.count("\n", 0, match.start()) + 1, line, fragment))
    return found


def in_block(block: Block) -> list[Command]:
    joined = re.sub(r"\\\n\s*", "", block.text)
    lines = [shlex.join(shlex.split(line, comments=True)) for line in joined.splitlines()]
    return [Command(block.page, block.line, line) for line in lines if line]


def _dedent(text: str, margin: str) -> str:
    return "\n".join(line.removeprefix(margin) for line in text.split("\n"))
