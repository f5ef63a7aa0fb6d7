"""Every command of README and docs is one that its program takes, and (slow) does what the page says.

Whether it is taken is asked of the program's own parser, at the moment when the program would parse: a wrong or
missing option fails here. What runs long is run with small data and few steps.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import runpy
import shutil
import signal
import subprocess
import sys
import tomllib
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from unittest.mock import patch

import numpy as np
import pytest
from accelerate.commands.launch import launch_command_parser
from documents import COMMANDS, NOT_RUN, QUICK, ROOT
from hub_server import USER, HubServer
from torch.distributed.run import get_args_parser

from hf_score.cli import main, make_parser
from hf_score.review import DecisionStore

WHOLE = [command for command in COMMANDS if not command.fragment]
STEPS = ("run", "scan", "decide", "train", "evaluate", "report")
STANDS_FOR = {
    "google/vit-base-patch16-224": "path/to/checkpoint",  # not downloaded
    "resnet18": "path/to/checkpoint",
    "you/your-model": f"{USER}/your-model",
    "you/worst_group_accuracy": f"{USER}/worst_group_accuracy",
}
BIN = Path(sys.executable).parent


# ---- Taken by the program's own parser ----


class Asked(BaseException):
    """A program is about to parse."""

    def __init__(self, parser: argparse.ArgumentParser, words: list[str]) -> None:
        self.parser, self.words = parser, words


def parser_of(words: list[str]) -> tuple[argparse.ArgumentParser, list[str]]:
    """The parser of `hf-score STEP ...` or `python SCRIPT ...`, and what it would be given."""
    parse = argparse.ArgumentParser.parse_known_args

    def ask(parser, args=None, namespace=None):
        given = sys.argv[1:] if args is None else list(args)
        names_build = words[1] == "build" and parser.prog in ("hf-score", "hf-score build")
        if given != words[len(words) - len(given) :] or names_build:
            return parse(parser, args, namespace)  # the NAME of `hf-score build NAME` decides on the parser
        raise Asked(parser, given)

    with (
        patch.object(argparse.ArgumentParser, "parse_known_args", ask),
        patch.object(sys, "argv", words[1:]),
        patch.object(sys, "path", [str((ROOT / words[1]).parent), *sys.path]),
    ):
        try:
            if words[0] == "hf-score":
                main(words[1:])
            else:
                runpy.run_path(str(ROOT / words[1]), run_name="__main__")
        except Asked as asked:
            return asked.parser, asked.words
    raise AssertionError(f"{' '.join(words)} parses nothing")


def spelled_out(words: list[str]) -> list[str]:
    """`hf-score STEP RUN ...` and `... --config FILE` with what the run folder or the file would say."""
    if words[0] != "hf-score" or words[1] not in STEPS:
        return words
    kept = ["--model", "a", "--dataset", "b"]
    rest = [word for word in words[2:] if word != "--resume"]
    if "--config" in rest:
        place = rest.index("--config")
        return [*words[:2], *kept, *rest[:place], *rest[place + 2 :]]
    if not rest or rest[0].startswith("-"):
        return words
    return [*words[:2], *kept, "--output_dir", *rest]


def check(words: list[str], *, fragment: bool = False) -> None:
    """AssertionError or argparse's SystemExit where a program would not take these words."""
    words = spelled_out(words)
    words = [word for word in words[: words.index(">") if ">" in words else None] if word != "..."]
    while "=" in words[0]:
        words = words[1:]
    program, first = words[0].removeprefix(".venv/bin/"), words[1]
    if program == "make":
        subprocess.run(["make", "--dry-run", *words[1:]], cwd=ROOT, check=True, capture_output=True)
    elif program == "pip":
        extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
        wanted = words[2].removeprefix(".").strip("[]")
        assert words[1] == "install" and words[2].startswith(".") and (not wanted or wanted in extras), words
    elif program == "pytest":
        assert all((ROOT / path).exists() for path in words[1:]), words
    elif program in ("accelerate", "torchrun"):
        parser = launch_command_parser() if program == "accelerate" else get_args_parser()
        script = ["examples/run_score.py"] if fragment else []  # which running text may leave out
        launched = parser.parse_args([*words[2 if program == "accelerate" else 1 :], *script])
        check(["python", launched.training_script, *launched.training_script_args], fragment=fragment)
    elif first.isupper():
        assert first == "STEP", words
    else:
        assert program in ("hf-score", "python"), f"nothing here checks {program!r}"
        if fragment:
            check_fragment(words)
        else:
            parser, given = parser_of(words)
            with contextlib.nullcontext() if "--help" not in words else pytest.raises(SystemExit, match="0"):
                parser.parse_args(given)


def check_fragment(words: list[str]) -> None:
    """A command in running text may leave out what is required, but names nothing that is not there."""
    options = [word for word in words[2:] if word.startswith("-")]
    if words[0] == "hf-score":
        assert words[1] in make_parser().step_names, f"there is no step {words[1]!r}"
    else:
        assert (ROOT / words[1]).is_file(), words[1]
    if options:
        parser, _ = parser_of(words)
        if steps := parser._subparsers:
            parser = steps._group_actions[0].choices[words[1]]
        unknown = [option for option in options if option not in parser._option_string_actions]
        assert not unknown, f"{' '.join(words[:2])} has no {unknown}"


@pytest.mark.parametrize("command", COMMANDS, ids=str)
def test_a_command_is_taken(command):
    check(command.words, fragment=command.fragment)


@pytest.mark.parametrize(
    "words",
    [
        ["hf-score", "run", "--model", "a", "--dataset", "b", "--output_dir", "c", "--maskarea", "0.1"],
        ["hf-score", "run", "--model", "a"],
        ["hf-score", "push", "runs/mine"],
        ["hf-score", "build", "waterbirds_95", "--source", "a", "--output_dir", "b", "--sed", "0"],
        ["accelerate", "launch", "examples/run_score.py", "--model", "a", "--output_dir", "c"],
        ["accelerate", "launch", "--num_process", "two", "examples/run_score.py"],
        ["python", "benchmarks/scan.py", "--image", "many"],
    ],
    ids=" ".join,
)
def test_a_wrong_command_is_not_taken(words):
    with pytest.raises(SystemExit, match="2"):
        check(words)


# ---- Run ----


@pytest.fixture
def hub(tmp_path: Path) -> Iterator[HubServer]:
    with HubServer(tmp_path / "hub") as server:
        yield server


@pytest.mark.slow
@pytest.mark.parametrize("page", sorted({command.page for command in WHOLE}))
def test_the_commands_of_a_page_run(page, reader, prepared, hub):
    (reader / "examples").symlink_to(ROOT / "examples")
    finished = prepared / "runs" / "mine"
    for command in WHOLE:
        if command.page == page and (page, command.text) not in NOT_RUN:
            execute([STANDS_FOR.get(word, word) for word in command.words], finished=finished, hub=hub)


def execute(words: list[str], *, finished: Path, hub: HubServer) -> None:
    settings = dict(word.split("=", 1) for word in words if "=" in word and word.split("=", 1)[0].isupper())
    words = words[len(settings) :]
    step = words[1] if words[0] == "hf-score" else ""
    begins = step in ("run", "scan") or words[0] in ("accelerate", "torchrun")
    if begins and "--resume" not in words and "--output_dir" in words:
        shutil.rmtree(words[words.index("--output_dir") + 1], ignore_errors=True)
    if words[0] in ("accelerate", "torchrun"):
        call([*words, *QUICK], **settings, CUDA_VISIBLE_DEVICES="")
    elif words == ["make", "demo"]:
        lines = subprocess.run(["make", "--dry-run", "demo"], cwd=ROOT, check=True, capture_output=True, text=True)
        (line,) = [line for line in lines.stdout.replace("\\\n", "").splitlines() if "run_score.py" in line]
        short = ["--erm_epochs", "1", "--num_train_epochs", "1", "--num_seeds", "1"]
        call([*line.split(), *short], CUDA_VISIBLE_DEVICES="")
        assert (Path("runs") / "demo" / "report" / "index.html").is_file()
    elif "--repo_id" in words:
        if not Path("runs/mine/model").is_dir():  # "after a whole run"
            shutil.rmtree("runs/mine")
            shutil.copytree(finished, "runs/mine")
        call(words, env=hub.environment(Path.cwd() / "home"))
        kind, needed = ("model", "model.safetensors") if step == "push" else ("space", "app.py")
        assert needed in hub.files(words[words.index("--repo_id") + 1], repo_type=kind)
    elif step == "review" and "--export" not in words:
        review(words)
    elif step in STEPS:
        assert main([*words[1:], *QUICK]) == 0
    else:
        assert words[0] == "hf-score", f"nothing here runs {words}"
        extra = ["--any_counts"] if step == "build" and "--help" not in words else []
        with contextlib.nullcontext() if "--help" not in words else pytest.raises(SystemExit, match="0"):
            assert main([*words[1:], *extra]) == 0


def call(words: list[str], *, env: dict[str, str] | None = None, **settings: str) -> None:
    program = BIN / words[0].removeprefix(".venv/bin/")
    done = subprocess.run(
        [program, *words[1:]], env={**(env or os.environ), **settings}, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr[-3000:]


def review(words: list[str]) -> None:
    """The page is served until Ctrl+C; in the meantime a person calls all candidates of class 1 spurious."""
    quiet = [option for option in ("--no_browser", "--port=0") if option.split("=")[0] not in words]
    with subprocess.Popen([BIN / "hf-score", *words[1:], *quiet], stdout=subprocess.PIPE, text=True) as server:
        assert server.stdout
        said = (word for line in server.stdout for word in line.split())
        address = next(word for word in said if word.startswith("http://127.0.0.1:"))
        urllib.request.build_opener(urllib.request.ProxyHandler({})).open(address, timeout=60).close()
        server.send_signal(signal.SIGINT)
    assert server.returncode == 0
    store = DecisionStore(words[2])
    store.decide(np.flatnonzero(store.table.labels == 1).tolist(), "spurious")
