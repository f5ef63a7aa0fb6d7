"""`hf-score review`: what it refuses and in which order, which port it takes, and how it ends."""

import os
import signal
import socket
import sys
from pathlib import Path
from urllib.request import ProxyHandler, build_opener

import pytest
from processes import start

from hf_score.cli import main
from hf_score.detection import Selection
from hf_score.review import page

pytest.importorskip("fastapi")


@pytest.fixture
def taken():
    """A port that another program listens on."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield listener.getsockname()[1]


def serve(run: Path, out: int, default_port: int) -> None:
    """The command in a process of its own where 7860 is another port and gradio is not installed."""
    os.dup2(out, 1)
    sys.stdout = open(1, "w", closefd=False)  # noqa: SIM115
    sys.modules["gradio"] = None  # type: ignore[assignment]
    page.DEFAULT_PORT = default_port
    os._exit(main(["review", str(run), "--no_browser"]))


def test_takes_a_free_port_where_its_own_is_taken_and_ends_by_ctrl_c(run, taken):
    source, out = os.pipe()
    process = start(serve, run, out, taken)
    os.close(out)
    with open(source) as said:
        assert said.readline() == f"Port {taken} is taken: the page gets another one.\n"
        address = said.readline().split(" at ")[1].split()[0]
    browser = build_opener(ProxyHandler({}))
    with browser.open(address, timeout=300) as reply:
        assert b'src="served.js"' in reply.read()
    with browser.open(f"{address}served.js", timeout=300) as reply:
        assert b"startReview" in reply.read()
    assert address.startswith("http://127.0.0.1:") and address != f"http://127.0.0.1:{taken}/"
    os.kill(process.pid, signal.SIGINT)
    process.join()
    assert process.exitcode == 0


def refused(capsys, *words) -> str:
    assert main(["review", *map(str, words)]) == 2
    message = capsys.readouterr().err
    assert message.startswith("error: ") and message.count("\n") == 1
    return message


def test_a_port_that_was_asked_for_and_is_taken_is_refused(run, taken, capsys):
    for port in (taken, 70000):
        assert "give another one with --port" in refused(capsys, run, "--no_browser", "--port", port)


def test_a_wrong_folder_is_refused_before_the_port_is_looked_at(run, taken, tmp_path, capsys):
    options = ("--no_browser", "--port", taken)
    assert "holds no candidates" in refused(capsys, tmp_path / "nowhere", *options)
    Selection((), "other", "model0").save(run / "selection.json")
    assert "decided for another data set" in refused(capsys, run, *options)
    about = run / "candidates" / "candidates.json"
    about.write_text(about.read_text().replace("candidates/2", "candidates/1"))
    said = refused(capsys, run, *options)
    assert "has schema 'hf-score/candidates/1'" in said and "run the scan again" in said
    assert (run / "selection.json").exists()


def test_an_export_that_cannot_be_written_is_refused(run, tmp_path, capsys):
    (tmp_path / "file").touch()
    assert "cannot be written" in refused(capsys, run, "--export", tmp_path / "file" / "page.html")


@pytest.mark.parametrize("missing", ["fastapi", "uvicorn"])
def test_what_is_not_installed_is_named(run, capsys, monkeypatch, missing):
    monkeypatch.setitem(sys.modules, missing, None)
    monkeypatch.delitem(sys.modules, "hf_score.review.app", raising=False)
    assert f"needs {missing}: pip install 'hf-score[review]'" in refused(capsys, run, "--port", "0")
