"""Where a figure comes from: versions, commit, hardware. They go beside every result."""

from __future__ import annotations

import platform
import shlex
import subprocess
import sys
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from accelerate import PartialState

__all__ = ["PACKAGES", "RESULTS_SCHEMA", "command", "git_commit", "hardware", "provenance", "versions"]

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
    """Versions of hf-score and of what decides its figures."""
    return {name: version(name) for name in PACKAGES}


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
