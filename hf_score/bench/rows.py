"""The rows of a benchmark: one parquet file, one row per run, written whole after every run."""

from __future__ import annotations

import io
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import pandas as pd

from ..errors import HFScoreError, first_line
from ..files import write_bytes
from ..renamed import OPTIONS, PLAN, with_new_names
from .plan import Cell, Plan, key_of

__all__ = ["RowFile", "best_evaluation", "rows_of"]


class RowFile:
    """A parquet file of rows; `key` says which run a row is of.

    Rows that were written under old names of columns and options are read under the new ones, with their keys.

    Args:
        path: the file; it need not exist.

    Raises:
        HFScoreError: something else is there.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self.rows = pd.DataFrame()
        if self.path.is_file():
            try:
                self.rows = _in_new_words(pd.read_parquet(self.path))
            except (OSError, ValueError) as error:
                raise HFScoreError(
                    f"cannot read {path} ({first_line(error)}): give rows of `hf-score bench`, or move it."
                ) from error

    @property
    def keys(self) -> set[str]:
        """The runs that are there."""
        return set(self.rows["key"]) if len(self.rows) else set()

    def add(self, row: dict[str, Any]) -> None:
        """Add a row, in place of an older one of the same key, and write the file."""
        older = self.rows[self.rows["key"] != row["key"]] if len(self.rows) else self.rows
        self.rows = pd.DataFrame([*older.to_dict("records"), row])
        self.write()

    def write(self) -> None:
        """Write the file, whole."""
        buffer = io.BytesIO()
        self.rows.to_parquet(buffer, index=False)
        write_bytes(self.path, buffer.getvalue())


def _in_new_words(rows: pd.DataFrame) -> pd.DataFrame:
    rows = rows.rename(columns={old: new for old, new in PLAN.items() if old in rows and isinstance(new, str)})
    if "settings" in rows:
        rows["settings"] = rows["settings"].map(_settings_in_new_words)
        rows["key"] = rows["settings"].map(key_of)
    return rows


def _settings_in_new_words(settings: str) -> str:
    fields = json.loads(settings)
    if not OPTIONS.keys() & fields["config"].keys():
        return settings
    return json.dumps({**fields, "config": with_new_names(fields["config"])}, sort_keys=True)


def rows_of(plan: Plan, store: RowFile) -> pd.DataFrame:
    """A row for each of the plan's cells that has been run, under the name, title and kind of ablation in the plan.

    A grid is left out for a seed that lacks one of its points: there is nothing to choose from yet.
    """
    if not len(store.rows):
        return store.rows
    cells, keys = plan.cells(), store.keys
    unfinished = {_run_of(cell) for cell in cells if cell.key not in keys}
    named = pd.DataFrame(
        [(cell.key, cell.name, cell.title, cell.ablation) for cell in cells if _run_of(cell) not in unfinished],
        columns=["key", "name", "title", "ablation"],
    )
    return named.merge(store.rows.drop(columns=["name", "title", "ablation"]), on="key")[store.rows.columns]


def _run_of(cell: Cell) -> tuple[str, str, str, int]:
    """What the points of a grid have in common."""
    return cell.name, cell.dataset, cell.model, cell.seed


def best_evaluation(history: Sequence[dict[str, Any]], *, by: Literal["selection", "validation"]) -> dict[str, Any]:
    """The evaluation of a run that a choice takes; the earlier one of equals.

    Args:
        history: the run's evaluations in their order.
        by: the label-free estimate, or the worst group of a validation set, which only an oracle has.
    """
    return max(history, key=lambda evaluation: evaluation.get(by) or 0.0)
