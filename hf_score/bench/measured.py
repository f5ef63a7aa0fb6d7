"""Rows with what their logits and test sets say: measures beside the worst group, intervals, paired differences.

The rows of older code keep no logits: their measures are those that they were written with, and they have no interval.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from ..errors import HFScoreError, first_line
from ..evaluation import auroc_within_attribute, balanced_accuracy, group_metrics
from ..evaluation.hierarchical import Draws, Mean, mean_over_seeds

__all__ = ["Measured", "TestSet", "Tests", "with_measures"]

#: Of `group_metrics`, computed anew from the logits.
_OF_GROUPS = ("worst_group_accuracy", "accuracy", "mean_group_accuracy")
BESIDE = ("balanced_accuracy", "auroc_within_attribute")


@dataclass(frozen=True)
class TestSet:
    """What is known of test images.

    Attributes:
        labels, groups: (N,) ids; `groups` is None where the data has none.
        sources: (N,), the image that each was made from.
        class_names: K.
    """

    __test__ = False  # pytest takes it for tests

    labels: np.ndarray
    groups: np.ndarray | None
    sources: np.ndarray
    class_names: tuple[str, ...]


class Tests(dict[str, TestSet]):
    """Test sets by digest, and the draws of each, made once.

    `Tests.beside(rows_file)` reads what lies beside a file of rows.
    """

    __test__ = False

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._draws: dict[str, Draws] = {}

    @classmethod
    def beside(cls, path: str | Path) -> Tests:
        """Of `X.parquet` those in `X.tests.parquet`; none where there is no such file.

        Raises:
            HFScoreError: something else is there.
        """
        file = Path(path).with_suffix(".tests.parquet")
        if not file.is_file():
            return cls()
        try:
            table = pd.read_parquet(file)
            return cls({row["test"]: _test_set(row) for row in table.to_dict("records")})
        except (OSError, ValueError, KeyError) as error:
            raise HFScoreError(
                f"cannot read {file} ({first_line(error)}): give what was written beside {path}, or move it."
            ) from error

    def with_groups(self, rows: pd.DataFrame) -> pd.DataFrame:
        """Those of the rows whose test set has groups."""
        return rows[rows["test"].map(lambda digest: self[digest].groups is not None).astype(bool)]

    def draws(self, digest: str) -> Draws:
        """Those of a test set with groups; of two test sets they are independent."""
        if digest not in self._draws:
            test = self[digest]
            assert test.groups is not None
            seed = int.from_bytes(digest.encode()[:8], "big")
            self._draws[digest] = Draws(test.groups, test.sources, seed=seed)
        return self._draws[digest]


def _test_set(row: Mapping[str, Any]) -> TestSet:
    labels, groups, sources = (_array(row[name]) for name in ("labels", "groups", "sources"))
    assert labels is not None
    sources = np.arange(len(labels)) if sources is None else sources.astype(str)
    if not len(labels) == len(sources) == len(labels if groups is None else groups):
        raise ValueError(f"labels, groups and sources of {row['test']} differ in number")
    return TestSet(labels, groups, sources, tuple(map(str, row["class_names"])))


def _array(values: Any) -> np.ndarray | None:
    return None if values is None or np.ndim(values) == 0 or not len(values) else np.asarray(values)


def with_measures(rows: pd.DataFrame, tests: Tests) -> pd.DataFrame:
    """Rows with more columns, and the measures computed anew: `older`, no logits, or no test set for them, or so
    called by `rows_of`; `failed`, names of failed gates; `right`, (N,) bool, or None.

    Raises:
        HFScoreError: logits that are not of their test set.
    """
    rows = rows.copy()
    for name in ("logits", "test", "inactive", *BESIDE):
        if name not in rows:
            rows[name] = None
    rows["failed"] = [value if isinstance(value, str) else "" for value in rows["inactive"]]
    of_older_code = rows["older"].tolist() if "older" in rows else [False] * len(rows)
    rows["older"] = [
        bool(older) or not isinstance(logits, bytes) or digest not in tests
        for older, logits, digest in zip(of_older_code, rows["logits"], rows["test"], strict=True)
    ]
    right: list[np.ndarray | None] = []
    known: dict[str, list[Any]] = {name: rows[name].tolist() for name in (*_OF_GROUPS, *BESIDE)}
    for position, row in enumerate(rows[["key", "logits", "test", "older"]].to_dict("records")):
        right.append(None)
        if row["older"]:
            continue
        test = tests[row["test"]]
        logits = _logits(row["logits"], test, row["key"])
        right[-1] = logits.argmax(axis=1) == test.labels
        for name, value in _measures(logits, test).items():
            known[name][position] = value
    for name, values in known.items():
        rows[name] = pd.Series(values, index=rows.index, dtype=float)
    rows["right"] = pd.Series(right, index=rows.index, dtype=object)
    return rows


def _logits(content: bytes, test: TestSet, key: str) -> np.ndarray:
    values = np.frombuffer(content, dtype=np.float16)
    shape = (len(test.labels), len(test.class_names))
    if values.size != shape[0] * shape[1]:
        raise HFScoreError(
            f"the run {key} has {values.size} logits for {shape[0]} test images of {shape[1]} classes: its row and "
            "its test set do not belong together; run it again."
        )
    return values.reshape(shape).astype(np.float64)


def _measures(logits: np.ndarray, test: TestSet) -> dict[str, float | None]:
    predictions = logits.argmax(axis=1)
    names = None if test.groups is None else [str(group) for group in range(int(test.groups.max()) + 1)]
    metrics = group_metrics(predictions, test.labels, test.groups, group_names=names)
    within = None if test.groups is None else auroc_within_attribute(logits, test.labels, test.groups)
    return {
        **{name: metrics[name] for name in _OF_GROUPS},
        "balanced_accuracy": balanced_accuracy(predictions, test.labels),
        "auroc_within_attribute": within,
    }


@dataclass(frozen=True)
class Measured:
    """Rows with measures, one per data set, model, name and seed, and what their test sets say of their spread.

    Attributes:
        rows: of active runs.
        tests: their test sets.
        inactive: rows of runs that a gate has failed.
    """

    rows: pd.DataFrame
    tests: Tests
    inactive: pd.DataFrame = field(default_factory=pd.DataFrame)

    def at(self, dataset: str, model: str) -> Measured:
        """Of one data set and model."""

        def here(rows: pd.DataFrame) -> pd.DataFrame:
            return rows[(rows["dataset"] == dataset) & (rows["model"] == model)] if len(rows) else rows

        return Measured(here(self.rows), self.tests, here(self.inactive))

    def of(self, name: str) -> Measured:
        """Of one method whose logits are known."""
        rows = self.rows[(self.rows["name"] == name) & ~self.rows["older"].astype(bool)]
        return Measured(rows.sort_values("seed"), self.tests)

    def why_none(self, name: str) -> str:
        """Why a method has no row whose logits are known, in words."""
        if len(self.inactive) and (self.inactive["name"] == name).any():
            failed = self.inactive.loc[self.inactive["name"] == name, "failed"].iloc[0]
            return f"{name} is inactive ({failed})"
        return f"{name} has rows of older code alone" if (self.rows["name"] == name).any() else f"{name} has no rows"

    def worst_group(self) -> Mean | None:
        """Of the rows, which are of one method; None where there are none, or no groups."""
        runs = self._with_groups()
        return mean_over_seeds(runs["worst_group_accuracy"], self._replicates(runs)) if len(runs) else None

    def minus(self, other: Measured) -> Mean | None:
        """The difference of the worst groups of two methods, of the seeds and test sets that both have."""
        mine, others = self._with_groups(), other._with_groups()
        pairs = mine.merge(others, on=["seed", "test"], suffixes=("", "_other")).sort_values("seed")
        if not len(pairs):
            return None
        values = pairs["worst_group_accuracy"] - pairs["worst_group_accuracy_other"]
        replicates = self._replicates(pairs) - self._replicates(pairs, right="right_other")
        return mean_over_seeds(values, replicates)

    def _with_groups(self) -> pd.DataFrame:
        return self.tests.with_groups(self.rows[~self.rows["older"].astype(bool)])

    def _replicates(self, rows: pd.DataFrame, *, right: str = "right") -> np.ndarray:
        """(resamples, S), in the order of the rows."""
        columns: dict[int, np.ndarray] = {}
        positions = pd.Series(range(len(rows)), index=rows["test"].to_numpy())
        for digest in rows["test"].unique():
            here = positions[[digest]].tolist()
            found = self.tests.draws(digest).worst_group(np.stack(rows[right].iloc[here].tolist()))
            columns |= dict(zip(here, found.T, strict=True))
        return np.stack([columns[position] for position in range(len(rows))], axis=1)


def gates_in_words(rows: pd.DataFrame, inactive: pd.DataFrame) -> str:
    """What the gates of a method's runs say: `passed`, which failed in how many, or – where there are none."""
    if len(inactive):
        failed = ", ".join(sorted({name for names in inactive["failed"] for name in names.split(", ")}))
        return f"{len(inactive)} of {len(rows) + len(inactive)} inactive: {failed}"
    has_gates = "gates" in rows and any(isinstance(gates, str) and json.loads(gates) for gates in rows["gates"])
    return "passed" if has_gates else "–"
