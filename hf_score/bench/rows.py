"""The rows of a benchmark: one parquet file, one row per run, written whole after every run.

Beside it lies `X.tests.parquet`, a row per test set: what the logits in the rows are of.
"""

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
        self.rows = _in_new_words(_read(self.path))
        #: A row per test set: `test`, its digest, `labels`, `groups`, `sources`, `class_names`, `fingerprint`;
        #: a row's `logits` are the bytes of float16 (N, K) in the order of `labels`.
        self.tests = _read(self.tests_path)

    @property
    def tests_path(self) -> Path:
        """Where the test sets are."""
        return self.path.with_suffix(".tests.parquet")

    @property
    def keys(self) -> set[str]:
        """The runs that are there."""
        return set(self.rows["key"]) if len(self.rows) else set()

    def add(self, row: dict[str, Any], test: dict[str, Any] | None = None) -> None:
        """Add a row, in place of an older one of the same key, and write the file.

        Args:
            row: of a run.
            test: the test set that it was measured on (`Job.test_set`), as a row of `tests`.
        """
        if test is not None and (not len(self.tests) or test["test"] not in set(self.tests["test"])):
            self.tests = pd.DataFrame([*self.tests.to_dict("records"), test])
            _write(self.tests, self.tests_path)  # first: no row is without its test set
        older = self.rows[self.rows["key"] != row["key"]] if len(self.rows) else self.rows
        self.rows = pd.DataFrame([*older.to_dict("records"), row])
        self.write()

    def write(self) -> None:
        """Write the file, whole."""
        _write(self.rows, self.path)


def _read(path: Path) -> pd.DataFrame:
    if not path.is_file():
        return pd.DataFrame()
    try:
        return pd.read_parquet(path)
    except (OSError, ValueError) as error:
        raise HFScoreError(
            f"cannot read {path} ({first_line(error)}): give rows of `hf-score bench`, or move it."
        ) from error


def _write(rows: pd.DataFrame, path: Path) -> None:
    buffer = io.BytesIO()
    rows.to_parquet(buffer, index=False)
    write_bytes(path, buffer.getvalue())


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

    A grid is left out for a seed that lacks one of its points: there is nothing to choose from yet. Where a cell has a
    row of older code alone, which knew neither defaults nor versions, that is given, and marked in the column `older`.
    """
    if not len(store.rows):
        return store.rows
    cells, keys = plan.cells(), store.keys
    key_in_file = {cell.key: cell.key if cell.key in keys else cell.older_key for cell in cells}
    unfinished = {_run_of(cell) for cell in cells if key_in_file[cell.key] not in keys}
    named = pd.DataFrame(
        [
            (key_in_file[cell.key], cell.name, cell.title, cell.ablation, cell.key not in keys)
            for cell in cells
            if _run_of(cell) not in unfinished
        ],
        columns=["key", "name", "title", "ablation", "older"],
    )
    rest = store.rows.drop(columns=["name", "title", "ablation"])
    return named.merge(rest, on="key")[[*store.rows.columns, "older"]]


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
