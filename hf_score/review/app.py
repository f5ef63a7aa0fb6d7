"""The review page as a FastAPI application: the page, its data, its pictures, and the decisions made on it.

Pictures have addresses of their own, so that the browser keeps them. Each tab has a `DecisionStore`, and so its own
undo.
"""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable
from threading import Lock
from typing import Any

from fastapi import APIRouter, FastAPI, Request, Response
from fastapi.responses import HTMLResponse, JSONResponse
from pydantic import BaseModel

from ..detection.selection import Verdict
from ..errors import HFScoreError
from ..report.templating import environment
from .describe import asset, describe_decisions, describe_table
from .pictures import Kind, encode, picture
from .store import DecisionStore
from .table import CandidateTable

__all__ = ["build_app"]

THUMBNAIL = 192
HOSTS = ("127.0.0.1", "localhost")
#: The page holds its style and script, and asks its own server alone; no other page may show it in a frame.
POLICY = (
    "default-src 'none'; connect-src 'self'; img-src 'self' data:; style-src 'unsafe-inline'; "
    "script-src 'unsafe-inline'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)


class Tab(BaseModel):
    """Who asks: a name that a tab of the browser gives itself, and keeps when it is reloaded."""

    session: str


class Change(Tab):
    """A decision about rows of the table."""

    rows: list[int]
    verdict: Verdict
    note: str = ""


def build_app(table: CandidateTable) -> FastAPI:
    """The page of these candidates; decisions go into `selection.json` of their run."""
    app = FastAPI(docs_url=None, redoc_url=None, openapi_url=None)
    app.middleware("http")(_only_this_page)
    app.exception_handler(HFScoreError)(_refuse)
    app.include_router(_page(table))
    app.include_router(_decisions(table))
    return app


async def _only_this_page(request: Request, call_next: Callable[[Request], Awaitable[Response]]) -> Response:
    """A page from elsewhere must not decide here: neither by a form, nor by a name that it lets point to 127.0.0.1."""
    host = request.headers.get("host", "")
    if host.rsplit(":", 1)[0] not in HOSTS or request.headers.get("origin") not in (None, f"http://{host}"):
        return Response("This page answers only to itself.", status_code=403)
    return await call_next(request)


async def _refuse(request: Request, error: Exception) -> Response:
    """What was not done, and why; the page says it."""
    return JSONResponse({"error": str(error)}, status_code=409)


def _page(table: CandidateTable) -> APIRouter:
    """Everything that is looked at."""
    router = APIRouter()
    content = json.dumps(describe_table(table), ensure_ascii=False, allow_nan=False)
    page = (
        environment(autoescape=True, package="hf_score.review")
        .get_template("served.html.jinja")
        .render(
            run=table.run.resolve().name,
            key=table.key,
            style=asset("review.css"),
            markup=asset("page.html"),
            script=asset("review.js"),
        )
    )

    @router.get("/")
    def show() -> Response:
        return HTMLResponse(page, headers={"Cache-Control": "no-store", "Content-Security-Policy": POLICY})

    @router.get("/data.json")
    def data() -> Response:
        return Response(content, media_type="application/json", headers={"Cache-Control": "no-store"})

    @router.get(f"/pictures/{table.key}/{{kind}}/{{row}}")
    def show_picture(kind: Kind, row: int, small: bool = False) -> Response:
        if not 0 <= row < len(table):
            return Response(status_code=404)
        file, media_type = encode(picture(table, row, kind, longest=THUMBNAIL if small else None))
        return Response(file, media_type=media_type, headers={"Cache-Control": "private, max-age=86400, immutable"})

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
        return answer(change, lambda store: store.decide(change.rows, change.verdict, change.note))

    @router.post("/undo")
    def undo(tab: Tab) -> dict[str, Any]:
        return answer(tab, DecisionStore.undo)

    @router.post("/refresh")
    def refresh(tab: Tab) -> dict[str, Any]:
        return answer(tab, DecisionStore.refresh)

    return router
