"""How well the verdict without groups says what became of the worst group."""

from __future__ import annotations

import json

import numpy as np
import pandas as pd
from scipy.stats import norm

from ..evaluation.intervals import LEVEL, Estimate, share
from ..report.conclusions import region_outcome
from .measured import Tests

__all__ = ["CHANGES", "OUTCOMES", "agreement", "cross_table", "false_improved", "outcome_of", "outcomes_of"]

CHANGES = ("improved", "unchanged", "worse")
OUTCOMES = (*CHANGES, "unknown")


def outcomes_of(rows: pd.DataFrame, tests: Tests) -> pd.DataFrame:
    """One line per run that has a verdict, a starting model's row and groups.

    What became of the worst group is said by the run's own images: the worst group of the run less that of the
    starting model (the row of ERM of the same data set, model and seed) with the 95 % interval of a bootstrap of the
    test images by their source, the same draws for both models. It is `improved` where the interval lies above 0,
    `worse` where it lies below, and `unchanged` otherwise: no change beyond the noise.

    Args:
        rows: `with_measures`, with `panel`, the data set and model in words.
        tests: their test sets.

    Returns:
        `panel`, `title`, `seed`, `outcome` (the verdict's), `change` (the worst group's), `points`, `low`, `high`.
    """
    usable = rows[~rows["older"].astype(bool)].drop_duplicates(["panel", "key"])
    usable = tests.with_groups(usable)
    starts = usable[usable["method"] == "erm"].drop_duplicates(["panel", "seed", "test"])
    start_of = {(row["panel"], row["seed"], row["test"]): row for row in starts.to_dict("records")}
    lines = []
    for row in usable[usable["method"] != "erm"].to_dict("records"):
        outcome = outcome_of(row.get("verdict"))
        start = start_of.get((row["panel"], row["seed"], row["test"]))
        if outcome is None or start is None:
            continue
        replicates = tests.draws(row["test"]).worst_group(np.stack([start["right"], row["right"]]))
        points = row["worst_group_accuracy"] - start["worst_group_accuracy"]
        reach = float(norm.ppf(0.5 + LEVEL / 2)) * float(np.diff(replicates, axis=1).std(ddof=1))
        line = {name: row[name] for name in ("panel", "title", "seed")}
        line |= {"outcome": outcome, "change": _change(points - reach, points + reach)}
        lines.append(line | {"points": points, "low": points - reach, "high": points + reach})
    return pd.DataFrame(lines, columns=["panel", "title", "seed", "outcome", "change", "points", "low", "high"])


def outcome_of(verdict: object) -> str | None:
    """The verdict's word, by the present rule where the figures are there; None where there is no verdict, or one
    without the figure that the rule goes by."""
    said = json.loads(verdict) if isinstance(verdict, str) else {}
    if "inserted" in said.get("change", {}):
        outcome = region_outcome(said) if "lowest" in said["change"] else None
    else:
        outcome = said.get("outcome")
    return outcome if outcome is None or outcome in CHANGES else "unknown"


def _change(low: float, high: float) -> str:
    if low > 0:
        return "improved"
    return "worse" if high < 0 else "unchanged"


def cross_table(outcomes: pd.DataFrame) -> pd.DataFrame:
    """Number of runs by the verdict's outcome (lines) and the worst group's change (columns), all of them."""
    table = pd.crosstab(outcomes["outcome"], outcomes["change"])
    return table.reindex(index=OUTCOMES, columns=CHANGES, fill_value=0)


def agreement(outcomes: pd.DataFrame) -> Estimate | None:
    """The share of runs whose verdict says what became of the worst group; `unknown` agrees with nothing."""
    return share(outcomes["outcome"] == outcomes["change"]) if len(outcomes) else None


def false_improved(outcomes: pd.DataFrame) -> Estimate | None:
    """The share of `improved` among the verdicts on runs whose worst group did not improve."""
    others = outcomes[outcomes["change"] != "improved"]
    return share(others["outcome"] == "improved") if len(others) else None
