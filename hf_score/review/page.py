"""The review page, served on this machine alone.

Gradio shows it and carries the decisions; pictures have addresses of their own, so that the browser keeps them.
"""

from __future__ import annotations

import json
import os
import socket
import webbrowser
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ..errors import HFScoreError
from .describe import asset, describe_decisions, describe_table
from .layout import lay_out
from .pictures import VIEWS, encode, picture
from .store import DecisionStore
from .table import CandidateTable

__all__ = ["build_app", "serve"]

HOST = "127.0.0.1"
THUMBNAIL = 192

#: What the script needs of gradio: its server functions, with the tab's name. A reload keeps the name and thus undo.
BACKEND = """
const session = sessionStorage.getItem("hf-score") ?? crypto.randomUUID();
sessionStorage.setItem("hf-score", session);
startReview(element.querySelector(".hfs"), {
  load: () => fetch("review/data.json").then((reply) => reply.json()),
  picture: (kind, row, small) => `review/%s/${kind}/${row}${small ? "?small=1" : ""}`,
  open: () => server.act({ session, action: "open" }),
  decide: (change) => server.act({ session, action: "decide", ...change }),
  undo: () => server.act({ session, action: "undo" }),
  refresh: () => server.act({ session, action: "refresh" }),
});
"""

STYLE = """
body, gradio-app, .gradio-container { background: transparent !important; }
.gradio-container { max-width: none !important; padding: 0 !important; }
.gradio-container :is(.main, main, .html-container) { padding: 0 !important; gap: 0 !important; }
.gradio-container { overflow: visible !important; } /* or the list of clusters would not stay in view */
"""


def serve(run: str | Path, *, port: int = 7860, browser: bool = True) -> None:
    """Serve the review page of a run until Ctrl+C.

    Args:
        run: run folder that has been scanned.
        port: on 127.0.0.1; 0 takes a free one.
        browser: open the page in the browser.

    Raises:
        HFScoreError: gradio is missing, the port is taken, or the run has no candidates of this version.
    """
    listener = _listen(port)
    try:
        app = build_app(run)
        import uvicorn

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


def build_app(run: str | Path) -> Any:
    """The page as a FastAPI application.

    Raises:
        HFScoreError: as `serve`.
    """
    table = lay_out(CandidateTable.open(run))
    stores: dict[str, DecisionStore] = {}
    DecisionStore(run, table)  # refuses a selection of another model before anything is shown
    os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"  # read on import
    try:
        import gradio
        from fastapi import FastAPI, Request, Response
    except ImportError:
        raise HFScoreError("The review page needs gradio: pip install 'hf-score[review]'.") from None

    content = json.dumps(describe_table(table), ensure_ascii=False, allow_nan=False)

    def act(request: dict[str, Any]) -> dict[str, Any]:
        try:
            store = stores.setdefault(str(request["session"]), DecisionStore(run, table))
            match request["action"]:
                case "decide":
                    changed = store.decide([int(r) for r in request["rows"]], request["verdict"], str(request["note"]))
                case "undo":
                    changed = store.undo()
                case "refresh":
                    changed = store.refresh()
                case _:
                    store.refresh()
                    changed = store.decided_rows()
        except HFScoreError as error:
            return {"error": str(error)}
        return describe_decisions(store, changed)

    system = ["system-ui", "sans-serif"]  # by name alone: gradio's own fonts would be fetched
    with gradio.Blocks(title=f"Review {table.run.resolve().name}", analytics_enabled=False, fill_width=True) as blocks:
        gradio.HTML(
            value="",
            html_template=str(asset("page.html")),
            js_on_load=str(asset("review.js")) + BACKEND % table.key,
            server_functions=[act],
            apply_default_css=False,
        )

    app = FastAPI(docs_url=None, redoc_url=None, openapi_url=None)

    @app.middleware("http")
    async def only_this_page(request: Request, call_next: Callable[[Request], Any]) -> Response:
        # A page from elsewhere must not decide here: neither by a form, nor by a name that it lets point to 127.0.0.1.
        host = request.headers.get("host", "")
        origin = request.headers.get("origin")
        if host.rsplit(":", 1)[0] not in (HOST, "localhost") or origin not in (None, f"http://{host}"):
            return Response("This page answers only to itself.", status_code=403)
        return await call_next(request)

    @app.get("/review/data.json")
    def data() -> Response:
        return Response(content, media_type="application/json", headers={"Cache-Control": "no-store"})

    @app.get(f"/review/{table.key}/{{kind}}/{{row}}")
    def show(kind: str, row: int, small: bool = False) -> Response:
        if kind not in VIEWS or not 0 <= row < len(table):
            return Response(status_code=404)
        file, media_type = encode(picture(table, row, kind, longest=THUMBNAIL if small else None))  # type: ignore[arg-type]
        return Response(file, media_type=media_type, headers={"Cache-Control": "private, max-age=86400, immutable"})

    return gradio.mount_gradio_app(
        app,
        blocks,
        path="/",
        server_name=HOST,
        footer_links=[],
        run_history=False,
        ssr_mode=False,
        show_error=False,
        theme=gradio.themes.Base(font=system, font_mono=["ui-monospace", "monospace"]),
        css=str(asset("review.css")) + STYLE,
        pwa=False,
        mcp_server=False,
    )


def _listen(port: int) -> socket.socket:
    listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((HOST, port))
        listener.listen(128)
    except (OSError, OverflowError) as error:
        listener.close()
        raise HFScoreError(
            f"Port {port} of {HOST} cannot be used ({error}): give another one with --port, 0 for any free one."
        ) from None
    return listener
