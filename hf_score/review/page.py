"""The review page, served on this machine alone: from a run folder to an address in the browser."""

from __future__ import annotations

import socket
import webbrowser
from collections.abc import Callable
from pathlib import Path

from ..data import ImageData
from ..errors import HFScoreError
from .layout import lay_out
from .store import DecisionStore
from .table import CandidateTable

__all__ = ["serve"]

HOST = "127.0.0.1"
DEFAULT_PORT = 7860


def serve(
    run: str | Path,
    *,
    port: int | None = None,
    browser: bool = True,
    load: Callable[[bool], ImageData] | None = None,
) -> None:
    """Serve the review page of a run until Ctrl+C.

    Args:
        run: run folder that has been scanned.
        port: on 127.0.0.1; 0 takes a free one, None 7860 or a free one where that is taken.
        browser: open the page in the browser.
        load: the data set that was scanned, see `Originals`; without it there is nothing to zoom into.

    Raises:
        HFScoreError: the run has no candidates of this version or decisions about something else, the extra `review`
            is not installed, or the port is taken.
    """
    table = CandidateTable.open(run)
    DecisionStore(run, table)  # refuses a selection of another model before anything is shown
    try:
        import uvicorn

        from .app import build_app
        from .originals import Originals
    except ModuleNotFoundError as error:
        raise HFScoreError(f"The review page needs {error.name}: pip install 'hf-score[review]'.") from None
    listener = _listen(port)
    try:
        table = lay_out(table)
        app = build_app(table, Originals(table, load) if load is not None else None)
        address = f"http://{HOST}:{listener.getsockname()[1]}/"
        words = f"Review {run} at {address} (Ctrl+C ends; every decision is at once in {Path(run) / 'selection.json'})"
        print(words, flush=True)
        if browser:
            webbrowser.open(address)  # the listener takes the request, the server answers in a moment
        # An open tab keeps a connection: Ctrl+C does not wait for it.
        uvicorn.Server(uvicorn.Config(app, log_level="warning", timeout_graceful_shutdown=1)).run(sockets=[listener])
    except KeyboardInterrupt:
        pass
    finally:
        listener.close()


def _listen(port: int | None = 0) -> socket.socket:
    if port is None:
        try:
            return socket.create_server((HOST, DEFAULT_PORT))
        except OSError:  # another review, or any other program: nobody asked for this very port
            print(f"Port {DEFAULT_PORT} is taken: the page gets another one.", flush=True)
            port = 0
    try:
        return socket.create_server((HOST, port))
    except (OSError, OverflowError) as error:
        raise HFScoreError(
            f"Port {port} of {HOST} cannot be used ({error}): give another one with --port, 0 for any free one."
        ) from None
