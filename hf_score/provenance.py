"""Where a figure comes from: versions, commit, hardware. They go beside every result."""

from __future__ import annotations

import platform
import subprocess
from importlib.metadata import version
from pathlib import Path

import torch
from accelerate import PartialState

__all__ = ["PACKAGES", "git_commit", "hardware", "versions"]

PACKAGES = ("hf-score", "torch", "transformers", "datasets", "accelerate", "timm", "zennit")


def versions() -> dict[str, str]:
    """Versions of hf-score and of what decides its figures."""
    return {name: version(name) for name in PACKAGES}


def hardware() -> str:
    """Processes, device and threads of this run, in words."""
    state = PartialState()
    if state.device.type == "cuda":
        return f"{state.num_processes} × {torch.cuda.get_device_name()}"
    return f"{state.num_processes} × {platform.machine()} CPU, {torch.get_num_threads()} threads"


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
