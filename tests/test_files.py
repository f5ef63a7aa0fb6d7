"""A folder is whole at its path whatever stops the writing, and nothing is left lying about."""

import itertools
import os
import shutil
import signal
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from processes import start

from hf_score.errors import HFScoreError
from hf_score.files import atomic_folder, write_json

OLD, NEW, NEWER = ({f"{word}-{k}": f"{word} {k}" for k in range(3)} for word in ("old", "new", "newer"))
#: How a process ends that was to be stopped: it came to its end before that, it overcame it, it was stopped.
UNDISTURBED, OVERCOME, STOPPED = 0, 3, 4


def write(path: Path, content: dict[str, str]) -> None:
    with atomic_folder(path) as folder:
        (folder / "inner").mkdir()
        for name, words in content.items():
            (folder / "inner" / name).write_text(words)


def read(path: Path) -> dict[str, str] | None:
    """The content, None where there is nothing."""
    if not path.exists():
        return None
    assert os.listdir(path) == ["inner"]
    return {file.name: file.read_text() for file in (path / "inner").iterdir()}


def kill() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def interrupt() -> None:
    raise KeyboardInterrupt


def fail() -> None:
    raise OSError("the disk is gone")


def write_until(path: Path, step: int, stop: Callable[[], None]) -> None:
    """Write, and be stopped before the nth thing that is asked of the file system (an exception: for once)."""
    count = 0

    def watch(event: str, _: tuple) -> None:
        nonlocal count
        if event == "open" or event.startswith(("os.", "shutil.", "tempfile.")):
            count += 1
            if count == step:
                stop()

    sys.addaudithook(watch)  # there is no way to take it off again: in a process of its own
    try:
        write(path, NEW)
    except (KeyboardInterrupt, OSError):
        os._exit(STOPPED)
    os._exit(UNDISTURBED if count < step else OVERCOME)


def stopped_at_each_step(path: Path, stop: Callable[[], None]):
    """Yield after each write that was stopped, with how the process ended, until none is stopped any more."""
    for step in itertools.count(1):
        shutil.rmtree(path.parent, ignore_errors=True)
        write(path, OLD)
        process = start(write_until, path, step, stop)
        process.join()
        if process.exitcode == UNDISTURBED:
            return
        yield step, process.exitcode


def test_a_killed_process_leaves_a_whole_folder_and_the_next_write_clears_up(tmp_path):
    path = tmp_path / "runs" / "model"
    found = []
    for step, code in stopped_at_each_step(path, kill):
        assert code == -signal.SIGKILL
        found.append(read(path))
        assert found[-1] in (OLD, NEW, None), f"half a folder after step {step}"
        with pytest.raises(ZeroDivisionError), atomic_folder(path):
            raise ZeroDivisionError  # this write comes to nothing, so what was there has to be there still
        assert read(path) == (found[-1] or OLD)
        assert os.listdir(path.parent) == ["model"]
    assert found.count(None) == 1  # between the two renames, which cannot be one
    changes = [one for k, one in enumerate(found) if k == 0 or one != found[k - 1]]
    assert changes == [OLD, None, NEW]
    assert found.count(NEW) > 3  # the old one was being deleted


@pytest.mark.parametrize("stop", [interrupt, fail])
def test_an_exception_anywhere_leaves_a_whole_folder(tmp_path, stop):
    path = tmp_path / "runs" / "model"
    for step, code in stopped_at_each_step(path, stop):
        assert read(path) in {OVERCOME: [NEW], STOPPED: [OLD, NEW]}[code], f"half a folder after step {step}"
        write(path, NEWER)
        assert read(path) == NEWER and os.listdir(path.parent) == ["model"]


def test_a_failing_body_changes_nothing(tmp_path):
    path = tmp_path / "model"
    with pytest.raises(ZeroDivisionError), atomic_folder(path):
        raise ZeroDivisionError
    assert os.listdir(tmp_path) == []
    write(path, OLD)
    with pytest.raises(ZeroDivisionError), atomic_folder(path) as folder:
        (folder / "half").touch()
        assert read(path) == OLD
        raise ZeroDivisionError
    assert read(path) == OLD and os.listdir(tmp_path) == ["model"]


def test_folders_are_only_moved_to_where_nothing_is(tmp_path, monkeypatch):
    """Windows replaces no folder, neither an empty one."""
    real = os.replace

    def replace(source, target):
        assert not os.path.isdir(target)
        real(source, target)

    monkeypatch.setattr(os, "replace", replace)
    path = tmp_path / "model"
    for content in (OLD, NEW):
        write(path, content)
        assert read(path) == content and os.listdir(tmp_path) == ["model"]
    path.joinpath("inner").rename(tmp_path / "inner")  # an empty folder is there
    write(path, OLD)
    assert read(path) == OLD


def test_what_somebody_is_still_writing_is_no_leftover(tmp_path):
    path = tmp_path / "model"
    with atomic_folder(path) as mine:
        (mine / "inner").mkdir()
        other = start(write, path, NEW)
        other.join()
        assert other.exitcode == 0 and read(path) == NEW
        write(path, NEWER)  # another thread could
        assert mine.is_dir()
        (mine / "inner" / "last").write_text("one")
    assert read(path) == {"last": "one"} and os.listdir(tmp_path) == ["model"]


def test_folders_with_similar_names_are_left_alone(tmp_path):
    write(tmp_path / "model", OLD)
    names = [".model.backup", ".model.1234.abc", ".model", ".models.1.old"]
    for name in names:
        (tmp_path / name).mkdir()
    write(tmp_path / "model", NEW)
    assert set(os.listdir(tmp_path)) == {"model", *names}


def test_a_link_stays_and_a_file_is_refused(tmp_path):
    (tmp_path / "big").mkdir()
    (tmp_path / "model").symlink_to(tmp_path / "big", target_is_directory=True)
    write(tmp_path / "model", NEW)
    assert (tmp_path / "model").is_symlink() and read(tmp_path / "big") == NEW
    (tmp_path / "file").write_text("kept")
    with pytest.raises(HFScoreError, match="is a file"), atomic_folder(tmp_path / "file"):
        raise AssertionError("nothing is made in vain")
    assert (tmp_path / "file").read_text() == "kept"


def test_a_file_is_replaced_whole(tmp_path):
    path = write_json(tmp_path / "new" / "file.json", {"λ": 1})
    before = path.read_bytes()
    with pytest.raises(TypeError):
        write_json(path, {"λ": object()})
    assert path.read_bytes() == before and os.listdir(path.parent) == ["file.json"]
