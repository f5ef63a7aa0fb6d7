"""Atomic writing: a file or a folder is either there whole or not there at all. Typed reading: what a file holds is
of the type that was asked for, or an error in one sentence says where it is not."""

from __future__ import annotations

import json
import os
import platform
import re
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any, TypeVar

import msgspec
import psutil
import yaml

from .errors import HFScoreError, first_line

__all__ = ["Index", "as_type", "atomic_folder", "read_json", "read_yaml", "write_bytes", "write_json", "write_text"]

T = TypeVar("T")

#: A number that a position, a class or a count may be.
Index = Annotated[int, msgspec.Meta(ge=0, le=2**63 - 1)]

#: No file of ours comes near; a larger one is somebody else's or made to fill the memory.
LARGEST_JSON, LARGEST_YAML = 512 * 2**20, 2**20
#: Values in a YAML file, every alias counted with all that it stands for.
_MOST_YAML_VALUES = 100_000

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


def read_json(
    path: str | Path, kind: type[T], *, what: str, advice: str, error: type[HFScoreError] = HFScoreError
) -> T:
    """The content of a JSON file, of a type.

    Args:
        path: the file, UTF-8.
        kind: what it has to hold, a type as `msgspec.convert` knows them. Other fields of a `TypedDict` or dataclass
            are let through or dropped; numbers and texts are not taken for one another.
        what: what the file is called in the sentence of an error: "selection file".
        advice: the end of that sentence, what to do.
        error: the class of the error.

    Raises:
        HFScoreError: as `error`; there is no such file, it cannot be read, is too large, or holds something else.
    """
    return _read(path, "JSON", kind, what=what, advice=advice, error=error)


def read_yaml(
    path: str | Path, kind: type[T], *, what: str, advice: str, error: type[HFScoreError] = HFScoreError
) -> T:
    """As `read_json`, of a YAML file without tags that stand for code. An empty one holds None."""
    return _read(path, "YAML", kind, what=what, advice=advice, error=error)


def as_type(content: Any, kind: type[T], *, where: str, advice: str, error: type[HFScoreError] = HFScoreError) -> T:
    """`content`, if it is of a type.

    Args:
        content: plain values, lists and dicts, as JSON has them.
        kind: as for `read_json`.
        where: the beginning of the sentence of an error.
        advice: its end.
        error: its class.

    Raises:
        HFScoreError: as `error`; it is something else.
    """
    try:
        return msgspec.convert(content, kind)
    except (msgspec.ValidationError, RecursionError, OverflowError) as wrong:
        # "Expected `int`, got `str` - at `$.decisions[0].idx`" -> "decisions[0].idx: expected `int`, got `str`"
        said, _, place = first_line(wrong).partition(" - at ")
        place = place.strip("`").removeprefix("$").removeprefix(".")
        said = f"{place}: {said[:1].lower()}{said[1:]}" if place else said
        raise error(f"{where} ({said}): {advice}.") from None


def _read(path: str | Path, form: str, kind: type[T], *, what: str, advice: str, error: type[HFScoreError]) -> T:
    path = Path(path)
    decode, largest = _FORMS[form]
    try:
        if (size := path.stat().st_size) > largest:
            raise ValueError(f"it has {size} bytes")
        text = path.read_text(encoding="utf-8")
        content = decode(text)
        if "\\ud" in text.lower():  # half a character, which no file and no terminal takes
            json.dumps(content, ensure_ascii=False, default=str, skipkeys=True).encode()
    except FileNotFoundError:
        raise error(f"there is no {what} {path}: {advice}.") from None
    except (OSError, ValueError, RecursionError, MemoryError, yaml.YAMLError) as wrong:
        said = "it is nested too deeply" if isinstance(wrong, RecursionError) else first_line(wrong)
        raise error(f"the {what} {path} cannot be read as {form} ({said}): {advice}.") from None
    return as_type(content, kind, where=f"{path} is no {what}", advice=advice, error=error)


def _yaml(text: str) -> Any:
    content = yaml.safe_load(text)
    counted, waiting = 0, [content]
    while waiting:  # aliases of aliases: a few lines may stand for more than any memory holds
        value = waiting.pop()
        counted += 1
        if counted > _MOST_YAML_VALUES:
            raise ValueError(f"it holds more than {_MOST_YAML_VALUES} values")
        if isinstance(value, dict | list | set | tuple):
            waiting += value.values() if isinstance(value, dict) else value
    return content


_FORMS: dict[str, tuple[Callable[[str], Any], int]] = {
    "JSON": (json.loads, LARGEST_JSON),
    "YAML": (_yaml, LARGEST_YAML),
}


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
