"""Atomic writing: a file or a folder is either there whole or not there at all."""

from __future__ import annotations

import json
import os
import platform
import re
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil

from .errors import HFScoreError

__all__ = ["atomic_folder", "write_bytes", "write_json", "write_text"]

_OLD = ".old"
#: The temporary folders whose bodies this process is in: its own others are leftovers.
_IN_USE: set[Path] = set()


def write_bytes(path: str | Path, content: bytes) -> Path:
    """Write `content` to `path` by way of a temporary file beside it, and return the path."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.chmod(temporary, 0o644)  # mkstemp makes files private; a run folder is meant to be shared
        os.replace(temporary, path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise
    return path


def write_text(path: str | Path, content: str) -> Path:
    """Write `content` as UTF-8, atomically."""
    return write_bytes(path, content.encode())


def write_json(path: str | Path, content: Any) -> Path:
    """Write `content` as indented JSON, atomically."""
    return write_text(path, json.dumps(content, indent=2, ensure_ascii=False) + "\n")


@contextmanager
def atomic_folder(path: str | Path) -> Iterator[Path]:
    """Yield a temporary folder beside `path` that takes its place when the body ends without an error.

    A folder already at `path` is moved aside, replaced, and only then deleted; it stays as it was when the body or the
    replacing fails. So what is at `path` is whole at any time. A process that is killed leaves hidden folders beside
    it, which the next write clears away. One that is killed between moving aside and replacing leaves nothing at
    `path`: the next write first puts the old folder back.

    Raises:
        HFScoreError: there is a file at `path`.
    """
    path = Path(os.path.realpath(path))  # a link stays, and its target is replaced
    if path.is_file():
        raise HFScoreError(f"{path} is a file, and a folder has to go there: move it away, or give another place.")
    path.parent.mkdir(parents=True, exist_ok=True)
    _clear_leftovers(path)
    new = Path(tempfile.mkdtemp(dir=path.parent, prefix=f"{_prefix(path)}{os.getpid()}."))
    old = new.with_name(f"{new.name}{_OLD}")
    _IN_USE.add(new)
    try:
        yield new
        os.chmod(new, 0o755)
        if path.exists():
            os.replace(path, old)
        os.replace(new, path)
    finally:
        _IN_USE.discard(new)
        _settle(path, new, old)


def _prefix(path: Path) -> str:
    """How the hidden folders beside `path` begin; a process id means nothing on another machine."""
    return f".{path.name}.{platform.node()}."


def _clear_leftovers(path: Path) -> None:
    """Finish what processes that are gone have left beside `path`."""
    pattern = re.compile(rf"({re.escape(_prefix(path))}(\d+)\.\w+)(?:{re.escape(_OLD)})?")
    found = [match for entry in os.listdir(path.parent) if (match := pattern.fullmatch(entry))]
    for name, process in sorted({match.groups() for match in found}):
        new = path.with_name(name)
        gone = int(process) == os.getpid() or not psutil.pid_exists(int(process))
        if gone and new not in _IN_USE:
            _settle(path, new, new.with_name(f"{name}{_OLD}"))


def _settle(path: Path, new: Path, old: Path) -> None:
    """Put the old folder back where nothing has replaced it, and delete what is not needed.

    It is deleted under the name of the new one, so that `old` never names half a folder.
    """
    if old.exists() and not path.exists():
        os.replace(old, path)
    shutil.rmtree(new, ignore_errors=True)
    if old.exists():
        os.replace(old, new)
        shutil.rmtree(new, ignore_errors=True)
