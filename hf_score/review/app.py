"""The review page as a FastAPI application: the page, its data, its pictures, and the decisions made on it.

Pictures have addresses of their own, so that the browser keeps them. Each tab has a `DecisionStore`, and so its own
undo. No address holds a path: rows of the table are all that can be asked for.
"""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable
from threading import Lock
from typing import Annotated, Any

from fastapi import APIRouter, FastAPI, Request, Response
from fastapi.responses import HTMLResponse, JSONResponse
from pydantic import BaseModel, Field

from ..detection.selection import Verdict
from ..errors import HFScoreError
from ..report.templating import environment
from .describe import asset, describe_decisions, describe_table
from .originals import Originals
from .pictures import Kind, encode, picture
from .store import DecisionStore
from .table import CandidateTable

__all__ = ["build_app"]

THUMBNAIL = 192
HOSTS = ("127.0.0.1", "localhost")
#: Only what the page's own server sends is shown or run; no other page may frame it or hold a picture of it.
HEADERS = {
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data: blob:; connect-src 'self'; "
        "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}
ASSETS = {"review.css": "text/css", "review.js": "text/javascript", "served.js": "text/javascript"}

Note = Annotated[str, Field(max_length=2000)]
Name = Annotated[str, Field(max_length=200)]


class Tab(BaseModel):
    """Who asks: a name that a tab of the browser gives itself, and keeps when it is reloaded."""

    session: Name


class Change(Tab):
    """A decision about rows of the table; see `DecisionStore.decide`."""

    rows: list[int]
    verdict: Verdict
    notes: dict[int, Note] = {}
    shortcut: Name = ""
    undecided_only: bool = False


class Amendment(Tab):
    """Another note, or another name of the shortcut, for what is decided about rows of the table."""

    rows: list[int]
    note: Note | None = None
    shortcut: Name | None = None


def build_app(table: CandidateTable, originals: Originals | None = None) -> FastAPI:
    """The page of these candidates; decisions go into `selection.json` of their run."""
    app = FastAPI(docs_url=None, redoc_url=None, openapi_url=None)
    app.middleware("http")(_only_this_page)
    app.exception_handler(HFScoreError)(_refuse)
    app.include_router(_page(table, originals is not None))
    app.include_router(_pictures(table, originals))
    app.include_router(_decisions(table))
    return app


async def _only_this_page(request: Request, call_next: Callable[[Request], Awaitable[Response]]) -> Response:
    """A page from elsewhere must not decide or look: neither by a form, nor by a name that it points to 127.0.0.1."""
    host, asked = request.headers.get("host", ""), request.headers
    own = host.rsplit(":", 1)[0] in HOSTS and asked.get("origin") in (None, f"http://{host}")
    # A link may lead to the page; all else is for the page to ask.
    visit = request.url.path == "/" and asked.get("sec-fetch-mode") == "navigate"
    if not own or not (visit or asked.get("sec-fetch-site") in (None, "same-origin", "none")):
        reply = Response("This page answers only to itself.", status_code=403)
    else:
        reply = await call_next(request)
    reply.headers.update(HEADERS)
    reply.headers.setdefault("Cache-Control", "no-store")
    return reply


async def _refuse(request: Request, error: Exception) -> Response:
    """What was not done, and why; the page says it."""
    return JSONResponse({"error": str(error)}, status_code=409)


def _page(table: CandidateTable, has_originals: bool) -> APIRouter:
    """The page and what it is made of."""
    router = APIRouter()
    content = json.dumps(
        {**describe_table(table), "has_originals": has_originals}, ensure_ascii=False, allow_nan=False
    )
    page = (
        environment(autoescape=True, package="hf_score.review")
        .get_template("served.html.jinja")
        .render(run=table.run.resolve().name, markup=asset("page.html"))
    )

    @router.get("/")
    def show() -> Response:
        return HTMLResponse(page)

    @router.get("/data.json")
    def data() -> Response:
        return Response(content, media_type="application/json")

    @router.get("/{name}")
    def show_asset(name: str) -> Response:
        if name not in ASSETS:
            return Response(status_code=404)
        return Response(asset(name), media_type=ASSETS[name])

    return router


def _pictures(table: CandidateTable, originals: Originals | None) -> APIRouter:
    """What is looked at; the key in the address changes with the candidates."""
    router = APIRouter()
    kept = {"Cache-Control": "private, max-age=86400, immutable"}

    @router.get(f"/pictures/{table.key}/{{kind}}/{{row}}")
    def show_picture(kind: Kind, row: int, small: bool = False) -> Response:
        if not 0 <= row < len(table):
            return Response(status_code=404)
        file, media_type = encode(picture(table, row, kind, longest=THUMBNAIL if small else None))
        return Response(file, media_type=media_type, headers=kept)

    @router.get(f"/originals/{table.key}/{{row}}")
    def show_original(row: int) -> Response:
        if originals is None or not 0 <= row < len(table):
            return Response(status_code=404)
        return Response(originals.jpeg(row), media_type="image/jpeg", headers=kept)

    return router


def _decisions(table: CandidateTable) -> APIRouter:
    """Everything that is decided; each answer is `describe_decisions` of the rows that have changed for this tab."""
    router = APIRouter(prefix="/decisions")
    stores: dict[str, DecisionStore] = {}
    one_at_a_time = Lock()

    def answer(tab: Tab, act: Callable[[DecisionStore], list[int]]) -> dict[str, Any]:
        with one_at_a_time:
            if tab.session not in stores:
                stores[tab.session] = DecisionStore(table.run, table)
            store = stores[tab.session]
            return describe_decisions(store, act(store))

    @router.post("/open")
    def open_tab(tab: Tab) -> dict[str, Any]:
        return answer(tab, lambda store: [*store.refresh(), *store.decided_rows()])

    @router.post("/decide")
    def decide(change: Change) -> dict[str, Any]:
        return answer(
            change,
            lambda store: store.decide(
                change.rows,
                change.verdict,
                change.notes,
                shortcut=change.shortcut,
                undecided_only=change.undecided_only,
            ),
        )

    @router.post("/amend")
    def amend(change: Amendment) -> dict[str, Any]:
        return answer(change, lambda store: store.amend(change.rows, note=change.note, shortcut=change.shortcut))

    @router.post("/undo")
    def undo(tab: Tab) -> dict[str, Any]:
        return answer(tab, DecisionStore.undo)

    @router.post("/refresh")
    def refresh(tab: Tab) -> dict[str, Any]:
        return answer(tab, DecisionStore.refresh)

    return router
