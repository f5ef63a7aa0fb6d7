"""What the script of the page is given: the candidates without their pictures, and decisions, as plain JSON values."""

from __future__ import annotations

import math
import shlex
from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path
from typing import Any

from markupsafe import Markup

from .store import DecisionStore
from .table import CandidateTable
from .words import TERMS

__all__ = ["asset", "describe_decisions", "describe_table"]


def describe_table(table: CandidateTable, *, limit: int | None = None) -> dict[str, Any]:
    """Columns over all rows, and the clusters with the first `limit` rows of each (None: all)."""
    clusters = [{**asdict(cluster), "size": len(cluster.rows)} for cluster in table.clusters]
    for cluster in clusters:
        cluster["rows"] = cluster["rows"][:limit]
        cluster["evidence"] = {name: _finite(value) for name, value in cluster["evidence"].items()}
    kept = {row for cluster in clusters for row in cluster["rows"]}
    for cluster in clusters:
        cluster["typical"] = [row for row in cluster["typical"] if row in kept]
        cluster["neurons"] = [
            {"neuron": one["neuron"], "share": one.get("share"), "rows": [row for row in one["rows"] if row in kept]}
            for one in cluster["neurons"]
        ]
    return {
        "run": table.run.resolve().name,
        "key": table.key,
        "classes": table.class_names,
        "idx": table.idx.tolist(),
        "label": table.labels.tolist(),
        "logit": _rounded(table.logits.tolist()),
        "margin": _rounded(table.masked_margins.tolist()),
        "x": _rounded(table.embedding[:, 0].tolist()),
        "y": _rounded(table.embedding[:, 1].tolist()),
        "originals": table.originals,
        "clusters": clusters,
        "neurons": table.neuron_embedding,
        "terms": TERMS,
        "command": _command(table.run),
    }


def describe_decisions(store: DecisionStore, rows: Iterable[int]) -> dict[str, Any]:
    """Row to [verdict, decided by, note, shortcut], None where that was taken back; and if more can be undone."""
    decisions = {row: store.decision(row) for row in rows}
    return {
        "changed": {str(row): d and [d.verdict, d.decided_by, d.note, d.shortcut] for row, d in decisions.items()},
        "can_undo": store.can_undo,
    }


def asset(name: str) -> Markup:
    """A file of the page, to be put into it as it is."""
    return Markup((Path(__file__).parent / "templates" / name).read_text(encoding="utf-8"))


def _command(run: Path) -> str | None:
    """What goes on from the decisions; None where the folder is not one of `hf-score run` or `scan`."""
    if (run / "run.yaml").is_file():
        return f"hf-score train {shlex.quote(str(run))}"
    if (run.resolve().parent / "run.yaml").is_file():  # of one seed of several
        return f"hf-score run --resume {shlex.quote(str(run.parent if run.name else run.resolve().parent))}"
    return None


def _finite(value: Any) -> Any:
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _rounded(values: list[float]) -> list[float | None]:
    """Four decimals, which is more than is shown; JSON has no NaN."""
    return [round(value, 4) if math.isfinite(value) else None for value in values]
