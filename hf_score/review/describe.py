"""What the script of the page is given: the candidates without their pictures, and decisions, as plain JSON values."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path
from typing import Any

from markupsafe import Markup

from .store import DecisionStore
from .table import CandidateTable

__all__ = ["asset", "describe_decisions", "describe_table"]


def describe_table(table: CandidateTable, *, limit: int | None = None) -> dict[str, Any]:
    """Columns over all rows, and the groups with the first `limit` rows of each (None: all)."""
    groups = [{**asdict(group), "size": len(group.rows)} for group in table.groups]
    for group in groups:
        group["rows"] = group["rows"][:limit]
        group["evidence"] = {name: _finite(value) for name, value in group["evidence"].items()}
    shown = {row for group in groups for row in group["rows"]}
    for group in groups:
        group["typical"] = [row for row in group["typical"] if row in shown]
        group["neurons"] = [
            {"neuron": one["neuron"], "share": one.get("share"), "rows": [row for row in one["rows"] if row in shown]}
            for one in group["neurons"]
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
        "groups": groups,
        "neurons": table.neuron_embedding,
    }


def describe_decisions(store: DecisionStore, rows: Iterable[int]) -> dict[str, Any]:
    """Row to [verdict, decided by, note], None where that was taken back; and whether there is anything to undo."""
    decisions = {row: store.decision(row) for row in rows}
    return {
        "changed": {str(row): d and [d.verdict, d.decided_by, d.note] for row, d in decisions.items()},
        "can_undo": store.can_undo,
    }


def asset(name: str) -> Markup:
    """A file of the page, to be put into it as it is."""
    return Markup((Path(__file__).parent / "templates" / name).read_text(encoding="utf-8"))


def _finite(value: Any) -> Any:
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _rounded(values: list[float]) -> list[float | None]:
    """Four decimals, which is more than is shown; JSON has no NaN."""
    return [round(value, 4) if math.isfinite(value) else None for value in values]
