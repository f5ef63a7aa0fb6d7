"""How well estimates without groups rank models by their true worst group, and what choosing by them loses."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pandas as pd
from scipy.stats import spearmanr

__all__ = ["correlations", "evaluations_of", "losses"]

#: What the harness chose by, among the estimates.
CHOSEN_BY = "chosen by"
FEWEST = 3


def evaluations_of(rows: pd.DataFrame) -> pd.DataFrame:
    """One line per evaluation of a run and estimate.

    Args:
        rows: rows with `panel`, the data set and model in words. Runs that entries of a plan share count once;
            inactive ones count too, as an estimate has to compare anything.

    Returns:
        `panel`, `key`, `method`, `seed`, `number` (of the evaluation), `estimate` (its name), `value`, `worst` (the
        true worst group) and `validation` (the worst group of a validation set, nan where there is none).
    """
    lines: list[dict[str, Any]] = []
    for row in rows.drop_duplicates(["panel", "key"]).to_dict("records"):
        run = {name: row[name] for name in ("panel", "key", "method", "seed")}
        for number, evaluation in enumerate(json.loads(row["history"])):
            found = {CHOSEN_BY: evaluation.get("selection"), **(evaluation.get("estimates") or {})}
            truth = {"worst": evaluation.get("worst_group_accuracy"), "validation": evaluation.get("validation")}
            lines += [
                {**run, "number": number, "estimate": name, "value": value, **truth}
                for name, value in found.items()
                if value is not None and truth["worst"] is not None
            ]
    columns = ["panel", "key", "method", "seed", "number", "estimate", "value", "worst", "validation"]
    table = pd.DataFrame(lines, columns=columns)
    return table.astype({"value": float, "worst": float, "validation": float})


def correlations(evaluations: pd.DataFrame) -> pd.DataFrame:
    """Spearman's rank correlation with the true worst group, of all evaluations of all runs of a panel.

    Returns:
        A line per estimate and panel: `estimate`, `panel`, `rho` (nan where the estimate or the worst group is always
        the same, or with fewer than 3 evaluations) and `count`.
    """
    lines = []
    for (estimate, panel), here in evaluations.groupby(["estimate", "panel"], sort=False):
        varies = len(here) >= FEWEST and here["value"].nunique() > 1 and here["worst"].nunique() > 1
        rho = float(spearmanr(here["value"], here["worst"]).statistic) if varies else float("nan")
        lines.append({"estimate": estimate, "panel": panel, "rho": rho, "count": len(here)})
    return pd.DataFrame(lines, columns=["estimate", "panel", "rho", "count"])


def losses(evaluations: pd.DataFrame) -> pd.DataFrame:
    """How much worst group a choice by each estimate loses, in shares from 0 to 1.

    Of the evaluations within a run (the later one of equals), and of the runs of SCORE on one seed, whatever their
    form and λ (the mean of equals). The oracle takes the best worst group that there was among the test images, which
    nobody could; a choice by the worst group of a validation set, which needs groups, is beside it.

    Returns:
        A line per estimate and panel: `estimate`, `panel`; `epoch` and `run`, the mean losses; `epoch_validation` and
        `run_validation`, those of the validation's choice among the same. nan where there is nothing to choose from,
        or where a validation set is lacking.
    """
    lines = []
    for (estimate, panel), here in evaluations.groupby(["estimate", "panel"], sort=False):
        by_estimate = _losses(here, "value")
        complete = here["validation"].notna().all()
        by_validation = _losses(here, "validation") if complete else (float("nan"), float("nan"))
        line = {"estimate": estimate, "panel": panel, "epoch": by_estimate[0], "run": by_estimate[1]}
        lines.append({**line, "epoch_validation": by_validation[0], "run_validation": by_validation[1]})
    return pd.DataFrame(lines, columns=["estimate", "panel", "epoch", "run", "epoch_validation", "run_validation"])


def _losses(here: pd.DataFrame, by: str) -> tuple[float, float]:
    within, taken = [], []
    for _, run in here.groupby("key", sort=False):
        run = run.sort_values("number")
        best = run[run[by] == run[by].max()].iloc[-1]
        if len(run) > 1:
            within.append(run["worst"].max() - best["worst"])
        taken.append({name: best[name] for name in ("method", "seed", "worst")} | {"by": best[by]})
    runs = pd.DataFrame(taken)
    across = []
    for seed, some in runs[runs["method"] == "score"].groupby("seed", sort=False):
        if len(some) > 1:
            there_was = here.loc[(here["method"] == "score") & (here["seed"] == seed), "worst"].max()
            across.append(there_was - some.loc[some["by"] == some["by"].max(), "worst"].mean())
    return _mean(within), _mean(across)


def _mean(values: list[float]) -> float:
    return float(np.mean(values)) if values else float("nan")
