"""Pushes that fail: one sentence, local files as they were, nothing half on the Hub, and the next try succeeds."""

import errno
import hashlib
import os
import signal
import subprocess
import sys
import threading
import time

import pytest
from hub_server import Refusal
from huggingface_hub import constants
from safetensors import SafetensorError

from hf_score.errors import HFScoreError
from hf_score.hub_errors import hub_errors
from hf_score.publishing.push import push_run

PUSH = "import sys; from hf_score.publishing import push_run; push_run(sys.argv[1], 'tester/m', publish_images=False)"


def contents(folder):
    return {
        path.relative_to(folder): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in folder.rglob("*")
        if path.is_file()
    }


def failing(run_folder, repo_id="tester/m", **options):
    """The one sentence that a push fails with; the run is as it was."""
    before = contents(run_folder)
    with pytest.raises(HFScoreError) as error:
        push_run(run_folder, repo_id, **options)
    assert contents(run_folder) == before
    message = str(error.value)
    assert message.endswith(".")
    assert "\n" not in message
    return message


def refuse(place, status, message):
    """An `intercept` that refuses every request to a path that holds `place`."""

    def intercept(method, path):
        if place in path:
            raise Refusal(status, message)

    return intercept


def test_nobody_is_logged_in(hub, logged_in, run_folder, monkeypatch):
    monkeypatch.delenv("HF_TOKEN")
    monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(run_folder / "no token"))
    assert failing(run_folder).startswith("Nobody is logged in to the Hub: run `hf auth login`")
    assert not hub.requests


def test_wrong_token(hub, logged_in, run_folder):
    assert failing(run_folder, token="hf_wrong").startswith(
        "The Hub refused the token for tester/m: give one with write access"
    )
    assert not hub.repos


def test_name_that_is_no_name(hub, logged_in, run_folder):
    assert failing(run_folder, "a/b/c").startswith("'a/b/c' is not a repository id: give OWNER/NAME")


@pytest.mark.parametrize("exists", [True, False])
def test_name_is_somebody_elses(hub, logged_in, run_folder, checkpoint, exists):
    if exists:
        hub.add_repo("other/m", checkpoint)
    message = failing(run_folder, "other/m")
    assert message.startswith("The Hub does not let you write to other/m (")
    assert "give another name where this one is somebody else's" in message
    assert hub.commits("other/m") == ["initial commit"] if exists else not hub.repos


def test_name_is_taken(hub, logged_in, run_folder):
    hub.intercept = refuse("/commit/", 409, "This name is reserved")
    assert failing(run_folder).startswith("The Hub does not let you write to tester/m (This name is reserved)")


@pytest.mark.parametrize("status", [413, 507])
@pytest.mark.parametrize("place", ["/_lfs/", "/commit/"])
def test_no_room_on_the_hub(hub, logged_in, run_folder, status, place):
    hub.intercept = refuse(place, status, "Storage limit reached")
    message = failing(run_folder)
    assert message.startswith("The Hub has no room for tester/m (")
    assert message.endswith("free some of your storage there and repeat.")
    assert hub.files("tester/m") == {}
    hub.intercept = lambda method, path: None
    push_run(run_folder, "tester/m")
    assert hub.commits("tester/m") == ["initial commit", "Upload model with hf-score"]


def test_offline(hub, logged_in, run_folder, monkeypatch):
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert "was not pushed because HF_HUB_OFFLINE is set: unset it" in failing(run_folder)


def test_network_is_not_there(hub, logged_in, run_folder):
    hub.close()
    assert failing(run_folder).startswith(f"{hub.url} cannot be reached (")


def test_network_goes_before_the_commit(hub, logged_in, run_folder):
    def cut(method, path):
        if "/commit/" in path:
            raise ConnectionAbortedError

    hub.intercept = cut
    assert failing(run_folder).startswith(f"{hub.url} cannot be reached (")
    assert hub.files("tester/m") == {}
    hub.intercept = lambda method, path: None
    push_run(run_folder, "tester/m")
    assert len(hub.commits("tester/m")) == 2


@pytest.mark.slow
def test_network_goes_during_the_uploads(hub, logged_in, run_folder):
    """The client tries for some 25 seconds."""

    def cut(method, path):
        if path.startswith("/_lfs/"):
            raise ConnectionAbortedError

    hub.intercept = cut
    assert failing(run_folder).startswith(f"{hub.url} cannot be reached (")
    assert hub.files("tester/m") == {}


@pytest.mark.parametrize(
    "error", [OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)), SafetensorError("I/O error: No space left on device")]
)
def test_disk_is_full(error):
    message = r"^tester/m was not pushed because the disk is full: free some space"
    with pytest.raises(HFScoreError, match=message), hub_errors("tester/m"):
        raise error


def test_invalid_card_is_refused_before_anything_is_uploaded(hub, logged_in, run_folder):
    (run_folder / "model" / "README.md").write_text("---\ntags: 3\n---\n")
    assert "was not pushed (Invalid metadata in README.md)" in failing(run_folder)
    assert hub.files("tester/m") == {}


def kill_a_push(run_folder, environment, *, when: threading.Event) -> None:
    """Push from a process of its own, and SIGKILL it."""
    process = subprocess.Popen([sys.executable, "-c", PUSH, str(run_folder)], env=environment)
    assert when.wait(300)
    process.send_signal(signal.SIGKILL)
    assert process.wait(60) == -signal.SIGKILL


def test_killed_half_way_and_repeated_is_one_clean_commit(hub, run_folder, tmp_path):
    """SIGKILL while one of two large files is up and the other is not."""
    (run_folder / "model" / "more.safetensors").write_bytes(b"\0" * 1000)
    before, first, second, go_on = contents(run_folder), threading.Event(), threading.Event(), threading.Event()

    def hold_the_second(method, path):
        if method == "PUT" and path.startswith("/_lfs/"):
            if first.is_set():
                second.set()
                go_on.wait(300)
                raise ConnectionAbortedError
            first.set()

    hub.intercept = hold_the_second
    environment = hub.environment(tmp_path / "home") | {"OMP_NUM_THREADS": "1"}
    kill_a_push(run_folder, environment, when=second)
    go_on.set()
    assert hub.files("tester/m") == {}
    assert hub.commits("tester/m") == ["initial commit"]
    assert contents(run_folder) == before

    hub.intercept = lambda method, path: None
    subprocess.run([sys.executable, "-c", PUSH, str(run_folder)], env=environment, check=True, timeout=300)
    assert hub.commits("tester/m") == ["initial commit", "Upload model with hf-score"]
    files = hub.files("tester/m")
    assert {name for name in files if name.endswith(".safetensors")} == {"model.safetensors", "more.safetensors"}
    assert files["model.safetensors"] == (run_folder / "model" / "model.safetensors").read_bytes()


def test_killed_while_the_hub_commits_and_repeated_is_one_commit_too(hub, logged_in, run_folder, tmp_path):
    """SIGKILL when everything has been sent and no answer has come: the Hub has the commit, the user does not know."""
    asked, go_on = threading.Event(), threading.Event()

    def hold_the_commit(method, path):
        if "/commit/" in path:
            asked.set()
            go_on.wait(300)

    hub.intercept = hold_the_commit
    kill_a_push(run_folder, hub.environment(tmp_path / "home") | {"OMP_NUM_THREADS": "1"}, when=asked)
    go_on.set()
    deadline = time.monotonic() + 60
    while len(hub.commits("tester/m")) < 2 and time.monotonic() < deadline:
        time.sleep(0.02)
    files = hub.files("tester/m")
    assert files["model.safetensors"] == (run_folder / "model" / "model.safetensors").read_bytes()

    push_run(run_folder, "tester/m", publish_images=False)
    assert hub.commits("tester/m") == ["initial commit", "Upload model with hf-score"]
    assert hub.files("tester/m") == files
