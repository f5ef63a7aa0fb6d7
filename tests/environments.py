"""Empty environments, as a user has who never installed hf-score."""

import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest

UV = shutil.which("uv", path=sysconfig.get_path("scripts"))
needs_uv = pytest.mark.skipif(UV is None, reason="uv, which `make setup` installs, makes the environment")


def make_environment(folder: Path, *wanted: str, cwd: Path | None = None) -> Path:
    """Its Python. `wanted` is what `pip install` takes, relative to `cwd`."""
    python = folder / "bin" / "python"
    subprocess.run([UV, "venv", "--quiet", "--python", sys.executable, folder], check=True)
    subprocess.run([UV, "pip", "install", "--quiet", "--python", python, *wanted], cwd=cwd, check=True)
    return python
