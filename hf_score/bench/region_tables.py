"""The tables of test sets without groups: what the judged regions do to every method's models."""

from __future__ import annotations

import json
from collections import Counter
from typing import Any, Literal

import pandas as pd

from ..report.summary import spread
from .plan import Plan
from .tables import ordered_names, taken_runs, titled
from .verdicts import outcome_of

__all__ = ["render_verdicts", "verdict_table"]

#: heading → figure of the verdict.
_COLUMNS = {
    "region inserted": "inserted",
    "random region inserted": "random_inserted",
    "region removed": "removed",
    "object exchanged": "object",
}


def verdict_table(plan: Plan, rows: pd.DataFrame) -> pd.DataFrame:
    """A line per method: how many seeds the judged regions mislead less than the starting model (`reliance`), and the
    share of answers that change when a region is inserted or removed, mean ± standard deviation over seeds in %.

    Args:
        plan: of the rows.
        rows: those of one data set and model that have a verdict.
    """
    runs, lines = taken_runs(rows), []
    for name in ordered_names(plan, runs):
        mine = runs[runs["name"] == name]
        verdicts = [json.loads(verdict) for verdict in mine["verdict"]]
        outcomes = Counter(outcome_of(verdict) or "unknown" for verdict in mine["verdict"])
        line: dict[str, Any] = {"method": mine["title"].iloc[0], "supervision": mine["supervision"].iloc[0]}
        line["reliance"] = ", ".join(f"{outcome} {count}/{len(mine)}" for outcome, count in outcomes.most_common())
        for heading, figure in _COLUMNS.items():
            values = [v["figures"][figure]["value"] for v in verdicts if figure in v["figures"]]
            found = spread(values)
            line[heading] = "–" if found is None else found.text(100)
        found = spread(list(mine["accuracy"]))
        line["average"] = "–" if found is None else found.text(100)
        lines.append(line)
    return pd.DataFrame(lines)


def render_verdicts(plan: Plan, rows: pd.DataFrame, *, form: Literal["markdown", "latex"] = "markdown") -> str:
    """The tables of all data sets whose test images have no groups; "" where there are none."""
    if "verdict" not in rows:
        return ""
    rows = rows[rows["worst_group_accuracy"].isna() & rows["verdict"].notna()]
    tables = []
    for (dataset, model), here in rows.groupby(["dataset", "model"], sort=False):
        decided = " and ".join(sorted({json.loads(verdict)["decided_by"] for verdict in here["verdict"]}))
        title = f"{plan.datasets[dataset].get('title', dataset)}; {plan.models[model].get('title', model)}"
        tables.append(titled(f"Without groups (regions: {decided}): {title}", verdict_table(plan, here), form))
    return "\n".join(tables)
