"""Where a figure comes from: versions, commit, hardware, and the settings that a run's parts were made with."""

from __future__ import annotations

import json
import platform
import shlex
import subprocess
import sys
from collections.abc import Mapping
from datetime import UTC, datetime
from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, NotRequired, TypedDict

import torch
from accelerate import PartialState

from .errors import HFScoreError
from .files import Index, as_type, read_json, write_json
from .renamed import with_new_names

__all__ = [
    "PACKAGES",
    "RESULTS_SCHEMA",
    "Manifest",
    "command",
    "git_commit",
    "hardware",
    "provenance",
    "read_run",
    "to_jsonable",
    "versions",
]

RESULTS_SCHEMA = "hf-score/results/1"
PACKAGES = ("hf-score", "torch", "transformers", "datasets", "accelerate", "timm", "zennit")


def provenance() -> dict[str, Any]:
    """When, how and with what this process computes: the head of a `results.json`."""
    return {
        "schema": RESULTS_SCHEMA,
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "command": command(),
        "versions": versions(),
        "hardware": hardware(),
        "git_commit": git_commit(),
    }


def command() -> str:
    """This process's command line, as it is typed in a clone or where the package is installed."""
    program, words = Path(sys.argv[0]).name, sys.argv[1:]
    known = {"hf-score": ["hf-score"], "run_score.py": ["python", "examples/run_score.py"]}
    return shlex.join([*known.get(program, ["python", program]), *words])


def versions() -> dict[str, str]:
    """Versions of hf-score and of what decides its figures; "not installed" for what is not there."""
    return {name: _version(name) for name in PACKAGES}


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:  # a source tree on the path is not installed, and still has a version
        try:
            return getattr(import_module(name.replace("-", "_")), "__version__", "unknown")
        except ImportError:
            return "not installed"


def hardware() -> str:
    """Processes, device and threads of this run, in words."""
    state = PartialState()
    if state.device.type == "cuda":
        return f"{state.num_processes} × {torch.cuda.get_device_name()}"
    threads = torch.get_num_threads()
    return f"{state.num_processes} × {platform.machine()} CPU, {threads} thread{'s' if threads != 1 else ''}"


def git_commit() -> str | None:
    """The commit of hf-score's own checkout; None where it was installed from a package."""
    folder = Path(__file__).resolve().parent
    try:
        found = subprocess.run(
            ["git", "rev-parse", "HEAD"], cwd=folder, capture_output=True, text=True, timeout=10, check=True
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return found.stdout.strip()


def to_jsonable(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Settings as JSON knows them: what it does not know becomes text."""
    return json.loads(json.dumps(settings, default=str))


def read_run(folder: str | Path) -> dict[str, Any]:
    """The options of the run in a folder, by name. ← `run.json`

    Raises:
        HFScoreError: it is not there, or says something else.
    """
    advice = "give the --output_dir of a run that has been started"
    path = Path(folder) / "run.json"
    content = read_json(path, dict[str, Any], what="record of a run", advice=advice)
    as_type(content, _Run, where=f"{path} is no record of a run", advice=advice)
    return content


class _Run(TypedDict):
    """What is read of it again."""

    seed: NotRequired[Index]
    num_seeds: NotRequired[Index]
    dataset: NotRequired[str]
    held_out: NotRequired[float]
    drop_minority: NotRequired[bool]


class Manifest:
    """What each part of a folder was made with, so that what other settings made never passes for theirs.

    Args:
        folder: the folder; its `made_with.json` maps the name of a part to its settings.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._path = folder / "made_with.json"

    def _read(self) -> dict[str, dict[str, Any]]:
        if not self._path.is_file():
            return {}
        advice = f"delete it to take the parts of {self.folder} for those of your options, or make them anew"
        parts = read_json(self._path, dict[str, dict[str, Any]], what="record of settings", advice=advice)
        return {part: with_new_names(inputs) for part, inputs in parts.items()}

    def record(self, part: str, settings: Mapping[str, Any]) -> None:
        """Write down what a part is made with."""
        write_json(self._path, {**self._read(), part: to_jsonable(settings)})

    def check(self, part: str, settings: Mapping[str, Any]) -> None:
        """Settings that are not written down, an older version's for example, are taken to be the same.

        Raises:
            HFScoreError: the part was made with other settings than these.
        """
        before, now = self._read().get(part, {}), to_jsonable(settings)
        for name in before:
            if name in now and before[name] != now[name]:
                raise HFScoreError(
                    f"{self.folder / part} was made with {name} {before[name]!r}, not {now[name]!r}: give the same "
                    "options again, or another --output_dir, or delete it and what was made from it to make it anew."
                )
