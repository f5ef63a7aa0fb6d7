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

#: The one list of what is not run: (page, command or first line that is no import) → why. The options of these
#: commands and the arguments of these calls are checked like all others'.
NOT_RUN = {
    ("docs/how-to/get-a-data-set.md", 'load_data("waterbirds_95")  # from the Hub'): (
        "needs the Hub and the official files; tests/data has both in small"
    ),
    ("docs/how-to/get-a-data-set.md", 'stream = stream_train("waterbirds_95", data_dir="path/to/raw/files")'): (
        "needs the official files; tests/data/test_streaming.py has them in small"
    ),
    ("README.md", "make test"): "runs this test",
    ("CONTRIBUTING.md", "make setup"): "made the environment of this test",
    ("CONTRIBUTING.md", "make test"): "runs this test",
    ("CONTRIBUTING.md", "make test-slow"): "runs this test",
    ("CONTRIBUTING.md", "make docs"): "the job `docs` of .github/workflows/ci.yml",
    ("CONTRIBUTING.md", "make package-check"): "the job `package` of .github/workflows/ci.yml",
    ("docs/how-to/run-a-benchmark.md", "hf-score bench benchmarks/main.yaml --data DATA --workers 2"): (
        "needs the public image sets, and days; tests/bench runs a plan"
    ),
    ("docs/how-to/run-a-benchmark.md", "hf-score bench benchmarks/main.yaml --tables docs/evidence/results"): (
        "changes the page it belongs to; tests/bench writes tables"
    ),
    (
        "docs/how-to/run-a-benchmark.md",
        "hf-score bench benchmarks/full.yaml --data DATA --workers 14",
    ): "needs image sets and a GPU",
    ("docs/how-to/run-a-benchmark.md", "hf-score bench benchmarks/full.yaml --tables docs/evidence/results/full"): (
        "changes the page it belongs to; tests/bench writes tables"
    ),
    **{
        (
            page,
            "hf-score repair runs/mine",
        ): "after two steps there may be nothing to repair; tests/pipeline repairs a run"
        for page in ("docs/how-to/repair-without-training.md", "docs/reference/command-line.md")
    },
    ("docs/how-to/add-a-model-family.md", ".venv/bin/pytest tests/attribution/test_families.py"): "in this suite",
    ("README.md", "pip install '.[review]'"): "`make package-check` installs the package",
    ("docs/getting-started/install.md", "pip install '.[review]'"): "`make package-check` installs the package",
    ("docs/how-to/review-candidates.md", "pip install '.[review]'"): "`make package-check` installs the package",
    ("docs/tutorials/your-own-model.md", "pip install '.[review]'"): "`make package-check` installs the package",
    **{
        (
            "docs/tutorials/several-processes.md",
            "accelerate launch --multi_gpu --num_processes 2 examples/run_score.py --model path/to/checkpoint "
            f"--dataset path/to/data --masks path/to/masks --output_dir {rest}",
        ): "needs two GPUs; the page's command for two processes on a CPU is run"
        for rest in ("runs/mine", "runs/two --per_device_train_batch_size 4")
    },
}

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

    @property
    def first(self) -> str:
        """The first line that is no import."""
        lines = (line for line in self.text.splitlines() if line and not line.startswith(("import ", "from ")))
        return next(lines, "")


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


BLOCKS = [block for page in PAGES for block in blocks(page)]
COMMANDS = [command for page in PAGES for command in commands(page)]
