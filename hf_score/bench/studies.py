"""Pages about the rows of any number of plans: the estimates without groups, and the verdict without groups."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from ..evaluation.intervals import Estimate
from ..report.summary import EMPTY
from .estimates import correlations, evaluations_of, losses
from .measured import Tests, with_measures
from .plan import Plan
from .tables import titled
from .verdicts import CHANGES, OUTCOMES, agreement, cross_table, false_improved, outcomes_of

__all__ = ["Study", "estimates_study", "in_one", "verdict_study"]

#: A page's text and its pictures by file name.
Study = tuple[str, dict[str, Figure]]


def in_one(parts: Sequence[tuple[Plan, pd.DataFrame, Tests]]) -> tuple[pd.DataFrame, Tests]:
    """The rows of several plans with measures and `panel`, the data set and model in the plan's words.

    Args:
        parts: each plan with its rows and their test sets.
    """
    tests = Tests({digest: test for _, _, of_plan in parts for digest, test in of_plan.items()})
    named = []
    for plan, rows, _ in parts:
        places = zip(rows["dataset"], rows["model"], strict=True)
        named.append(rows.assign(panel=[plan.title(*place) for place in places]))
    return with_measures(pd.concat(named, ignore_index=True), tests), tests


# ---- Estimates ----

ESTIMATES_TEXT = """# Estimates without groups

Which model to take is decided without groups, by an estimate from images and class labels. It has to rank models
as their true worst group of the test images ranks them. Below are all evaluations of all runs: every method,
form, λ, seed and epoch. *chosen by* is what the runs were chosen by.
"""
CORRELATIONS_TEXT = "Spearman's rank correlation of an estimate with the true worst group (number of evaluations).\n"
LOSSES_TEXT = """\
Worst group that the choice loses, in points, mean over runs and seeds, against the best worst group of the test
images that there was to choose, which nobody can know. *Epoch*: among the evaluations of a run. *Run*: among the
runs of SCORE of a seed, whatever their form and λ. *Validation*: what a choice by the worst group of a
validation set loses.
"""


def estimates_study(rows: pd.DataFrame, *, made_by: str) -> Study | None:
    """The page on estimates; None where no run kept any.

    Args:
        rows: of `in_one`.
        made_by: the command, for the page.
    """
    evaluations = evaluations_of(rows)
    if set(evaluations["estimate"]) <= {"chosen by"}:
        return None
    found, lost = correlations(evaluations), losses(evaluations)
    panels = list(dict.fromkeys(found["panel"]))
    lines = []
    for estimate in dict.fromkeys(found["estimate"]):
        here = found[found["estimate"] == estimate].set_index("panel")
        cells = {panel: _rho(here.loc[panel]) if panel in here.index else EMPTY for panel in panels}
        lines.append({"estimate": estimate, **cells, "mean": _number(here["rho"].mean(), "{:.2f}")})
    lost_lines = []
    for estimate in dict.fromkeys(lost["estimate"]):
        here = lost[lost["estimate"] == estimate].set_index("panel")
        for kind in ("epoch", "run"):
            points = 100 * here[[kind, f"{kind}_validation"]]
            cells = {p: _number(points[kind].get(p, np.nan), "{:.1f}") for p in panels}
            means = points.mean()
            line = {"estimate": estimate, "choice of": kind, **cells, "mean": _number(means[kind], "{:.1f}")}
            lost_lines.append({**line, "mean, validation": _number(means[f"{kind}_validation"], "{:.1f}")})
    text = [
        ESTIMATES_TEXT,
        f"Made by `{made_by}` from {rows['key'].nunique()} rows; {_commits(rows)}.\n",
        "![Each estimate against the true worst group, runs of SCORE in red.](estimates.png)\n",
        titled("Rank correlation", pd.DataFrame(lines)),
        CORRELATIONS_TEXT,
        titled("What is lost", pd.DataFrame(lost_lines)),
        LOSSES_TEXT,
    ]
    return "\n".join(text), {"estimates.png": _scatter(evaluations, panels)}


def _rho(line: pd.Series) -> str:
    return f"{_number(line['rho'], '{:.2f}')} ({int(line['count'])})"


def _number(value: float, form: str) -> str:
    return EMPTY if pd.isna(value) else form.format(value)


def _scatter(evaluations: pd.DataFrame, panels: Sequence[str]) -> Figure:
    """A line of plots per panel, a plot per estimate; SCORE's evaluations in red."""
    names = list(dict.fromkeys(evaluations["estimate"]))
    figure = Figure(figsize=(1.7 * len(names) + 0.5, 1.8 * len(panels)), layout="constrained")
    grid = figure.subplots(len(panels), len(names), squeeze=False, sharex=True, sharey=True)
    for line, panel in zip(grid, panels, strict=True):
        for axis, name in zip(line, names, strict=True):
            here = evaluations[(evaluations["panel"] == panel) & (evaluations["estimate"] == name)]
            colours = np.where(here["method"] == "score", "#c1272d", "#888888")
            axis.scatter(100 * here["value"], 100 * here["worst"], s=4, c=colours, alpha=0.6, lw=0)
            axis.set_xlim(-3, 103)
            axis.set_ylim(-3, 103)
            axis.tick_params(labelsize=5)
            axis.spines[["top", "right"]].set_visible(False)
            if panel == panels[0]:
                axis.set_title(name, fontsize=6)
        line[0].set_ylabel(panel.replace("; ", "\n"), fontsize=5)
    figure.supxlabel("estimate, %", fontsize=6)
    figure.supylabel("true worst group, %", fontsize=6)
    return figure


# ---- The verdict ----

VERDICT_TEXT = """# The verdict without groups, beside the worst group

Without groups a run ends with a verdict on the judged regions: *improved*, *unchanged*, *worse* or *unknown*. On
benchmarks the worst group is known, so it can be seen how often the verdict says what became of it.

The worst group of a run *improved* where it is above that of the model it started from (ERM with the same seed)
by more than the noise of the test images: the 95 % interval of the difference lies above 0. It is *worse* where
it lies below 0, and *unchanged* otherwise. The interval is a bootstrap of the test images by the image they were
made from, the same draws for both models. An *unknown* verdict counts as one that does not agree.
"""


def verdict_study(rows: pd.DataFrame, tests: Tests, *, made_by: str) -> Study | None:
    """The page on the verdict; None where no run has one.

    Args:
        rows: of `in_one`.
        tests: their test sets.
        made_by: the command, for the page.
    """
    outcomes = outcomes_of(rows, tests)
    if not len(outcomes):
        return None
    known = outcomes[outcomes["outcome"] != "unknown"]
    parts = [("all", outcomes), *outcomes.groupby("panel", sort=False)]
    lines = [
        {
            "where": name,
            "runs": len(part),
            "agree": _percent(agreement(part)),
            "agree, of those known": _percent(agreement(part[part["outcome"] != "unknown"])),
            "“improved” where it did not": _percent(false_improved(part)),
        }
        for name, part in parts
    ]
    counts = cross_table(outcomes).rename_axis("verdict").reset_index()
    counts = counts.rename(columns={change: f"worst group {change}" for change in CHANGES})
    text = [
        VERDICT_TEXT,
        f"Made by `{made_by}` from {len(outcomes)} runs, {len(known)} with a known verdict; {_commits(rows)}.\n",
        "![Change of the worst group by the verdict's outcome.](verdict.png)\n",
        titled("Number of runs", counts),
        titled("Agreement", pd.DataFrame(lines)),
        "Shares in %, with Wilson's 95 % interval. It takes runs for independent; seeds of one method are alike, so "
        "it is narrower than it should be.\n",
    ]
    return "\n".join(text), {"verdict.png": _by_outcome(outcomes)}


def _percent(found: Estimate | None) -> str:
    if found is None:
        return EMPTY
    return f"{100 * found.value:.1f} ({100 * found.low:.1f} to {100 * found.high:.1f}) of {found.count}"


def _by_outcome(outcomes: pd.DataFrame) -> Figure:
    """The change of each run's worst group with its interval, runs in the order of their change within an outcome."""
    figure = Figure(figsize=(7.2, 3), layout="constrained")
    axis = figure.subplots()
    colours = {"improved": "#2e7d32", "unchanged": "#888888", "worse": "#c1272d"}
    start = 0
    for outcome in OUTCOMES:
        here = outcomes[outcomes["outcome"] == outcome].sort_values("points")
        places = start + np.arange(len(here))
        for change, colour in colours.items():
            this = (here["change"] == change).to_numpy()
            part = here[this]
            reach = 100 * (part["high"] - part["points"])
            axis.errorbar(
                places[this], 100 * part["points"], reach, fmt="o", ms=2.5, lw=0.6, color=colour, label=change
            )
        if len(here):
            axis.text(places.mean(), 1.02, outcome, fontsize=7, ha="center", transform=axis.get_xaxis_transform())
            axis.axvline(places[-1] + 1, color="#cccccc", lw=0.6)
            start = places[-1] + 2
    axis.axhline(0, color="#333333", lw=0.6)
    named = dict(zip(*axis.get_legend_handles_labels()[::-1], strict=True))
    words = [f"worst group {change}" for change in named]
    figure.legend(named.values(), words, fontsize=6, loc="outside lower center", ncols=3)
    axis.set_xticks([])
    axis.set_xlabel("runs, by the verdict's outcome", fontsize=7)
    axis.set_ylabel("change of the worst group, points", fontsize=7)
    axis.tick_params(labelsize=6)
    axis.spines[["top", "right"]].set_visible(False)
    return figure


def _commits(rows: pd.DataFrame) -> str:
    return ", ".join(sorted({str(commit)[:8] for commit in rows["git_commit"]}))
