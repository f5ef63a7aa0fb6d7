"""The review page as one HTML file: for a colleague with a browser and nothing else."""

from __future__ import annotations

import base64
import hashlib
from pathlib import Path

from jinja2.utils import htmlsafe_json_dumps

from ..detection.selection import SCHEMA
from ..errors import HFScoreError
from ..files import write_text
from ..report.templating import environment
from .describe import asset, describe_decisions, describe_table
from .layout import lay_out
from .pictures import VIEWS, encode, picture
from .store import DecisionStore
from .table import CandidateTable

__all__ = ["export_page"]

LIMIT = 40
SIDE = 320


def export_page(run: str | Path, path: str | Path, *, limit: int = LIMIT) -> Path:
    """Write the review page of a run into one file that works offline, by double click.

    Decisions already made are shown in it; those made there stay in that browser until "Download" gives them out as a
    selection file.

    Args:
        run: run folder that has been scanned.
        path: of the HTML file.
        limit: candidates per cluster, the first of each; the page says so.

    Raises:
        HFScoreError: as `CandidateTable.open` and `DecisionStore`, or the file cannot be written.
    """
    table = lay_out(CandidateTable.open(run))
    store = DecisionStore(run, table)
    data = describe_table(table, limit=limit)
    selection = store.selection
    data["decisions"] = describe_decisions(store, store.decided_rows())["changed"]
    data["selection"] = {
        "schema": SCHEMA,
        "decisions": [],
        "dataset_fingerprint": selection.dataset_fingerprint,
        "model_fingerprint": selection.model_fingerprint,
        "created": selection.created,
    }
    data["pictures"] = {
        f"{kind}/{row}": _uri(table, row, kind)
        for cluster in data["clusters"]
        for row in cluster["rows"]
        for kind in VIEWS
    }
    data["command"] = None  # it would name folders of this machine
    style, script = asset("review.css"), asset("review.js") + asset("export.js")
    page = (
        environment(autoescape=True, package="hf_score.review")
        .get_template("export.html.jinja")
        .render(
            run=data["run"],
            data=htmlsafe_json_dumps(data, sort_keys=False, ensure_ascii=False, allow_nan=False),
            limit=limit,
            style=style,
            style_hash=_hash(style),
            markup=asset("page.html"),
            script=script,
            script_hash=_hash(script),
        )
    )
    try:
        return write_text(path, page)
    except OSError as error:
        raise HFScoreError(f"{path} cannot be written ({error}): export to another place.") from None


def _hash(text: str) -> str:
    """As a Content-Security-Policy names what it allows."""
    return f"sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}"


def _uri(table: CandidateTable, row: int, kind: str) -> str:
    content, media_type = encode(picture(table, row, kind, longest=SIDE))  # type: ignore[arg-type]
    return f"data:{media_type};base64,{base64.b64encode(content).decode()}"
