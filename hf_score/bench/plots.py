"""Pictures of a benchmark's rows: worst group with chance, against supervision, before and after, against λ."""

from __future__ import annotations

import json
import textwrap
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from ..baselines import SUPERVISION_KINDS
from ..evaluation import chance_levels
from ..training.score_config import SCOREConfig
from .measured import Measured, Tests
from .plan import Plan
from .tables import chosen, ordered_names, taken_runs

__all__ = ["above_chance", "against_lambda", "against_supervision", "before_after"]

_COLOURS = {"score": "#c1272d", "erm": "#555555", "continued_erm": "#888888"}


def above_chance(plan: Plan, rows: pd.DataFrame, tests: Tests) -> Figure | None:
    """Worst group of every method with its 95 % interval over seeds and test images; dashed: chance.

    None where no rows have logits. Small points are single seeds.
    """
    measured = chosen(rows[rows["ablation"].isna()], tests)
    runs = measured.rows[~measured.rows["older"].astype(bool)]
    if not len(runs):
        return None
    figure, axes = _panels(plan, runs)
    for axis, (dataset, model) in axes:
        here = measured.at(dataset, model)
        titles: list[str] = []
        for name in ordered_names(plan, here.rows):
            of_name = here.of(name)
            if not len(of_name.rows):
                continue
            _with_interval(axis, of_name, len(titles), _COLOURS.get(name, "#2b6cb0"))
            titles.append(of_name.rows["title"].iloc[0])
        test = tests[here.rows.loc[~here.rows["older"].astype(bool), "test"].iloc[0]]
        chance = chance_levels(test.labels, len(test.class_names))[0]
        axis.axvline(100 * chance.worst_group_accuracy, color="#333333", lw=0.8, ls="--")
        axis.set_yticks(range(len(titles)), titles, fontsize=6)
        axis.set_ylim(len(titles) - 0.5, -0.5)
        axis.set_xlim(-3, 103)
        axis.set_ylabel("")
        axis.set_xlabel("worst group, %", fontsize=7)
    return figure


def _with_interval(axis: Any, runs: Measured, position: int, colour: str) -> None:
    mean = runs.worst_group()
    if mean is None:
        return
    interval = mean.interval()
    seeds = 100 * runs.rows["worst_group_accuracy"]
    axis.plot(seeds, [position] * len(seeds), "o", ms=1.5, color=colour, alpha=0.5)
    axis.hlines(position, 100 * interval.low, 100 * interval.high, color=colour, lw=1)
    axis.plot(100 * interval.value, position, "o", ms=3.5, color=colour)


def against_supervision(plan: Plan, rows: pd.DataFrame) -> Figure:
    """Worst group (mean over seeds, whiskers: standard deviation) of every method against its supervision."""
    runs = _active(taken_runs(rows[rows["ablation"].isna()]))
    figure, axes = _panels(plan, runs)
    for axis, (dataset, model) in axes:
        here = runs[(runs["dataset"] == dataset) & (runs["model"] == model)]
        names = ordered_names(plan, here)
        levels = [_level(here.loc[here["name"] == name, "kinds"].iloc[0]) for name in names]
        for position, name in enumerate(names):
            values = 100 * here.loc[here["name"] == name, "worst_group_accuracy"].astype(float)
            spread = values.std() if len(values) > 1 else 0.0
            axis.errorbar(
                values.mean(), position, xerr=spread, fmt="o", ms=3.5, lw=1, color=_COLOURS.get(name, "#2b6cb0")
            )
        for number, level in enumerate(dict.fromkeys(levels)):
            first, last = levels.index(level) - 0.5, len(levels) - levels[::-1].index(level) - 0.5
            axis.axhspan(first, last, color="#f1f1f1" if number % 2 == 0 else "white", lw=0, zorder=0)
            words = textwrap.fill(level, 18 if last - first > 1 else 30)
            axis.text(104, (first + last) / 2, words, fontsize=5, color="#555555", va="center")
        titles = [here.loc[here["name"] == name, "title"].iloc[0] for name in names]
        axis.set_yticks(range(len(names)), titles, fontsize=6)
        axis.set_ylim(len(names) - 0.5, -0.5)
        axis.set_xlim(-3, 103)
        axis.set_ylabel("")
        axis.set_xlabel("worst group, %", fontsize=7)
    return figure


def _active(runs: pd.DataFrame) -> pd.DataFrame:
    """Without those that are no scores."""
    return runs[runs["inactive"].fillna("") == ""] if "inactive" in runs else runs


def _level(kinds: str) -> str:
    """The strongest supervision of a method, in words."""
    words = list(SUPERVISION_KINDS.values())
    found = [list(SUPERVISION_KINDS).index(kind) for kind in kinds.split(",") if kind]
    return words[max(found)] if found else "class labels alone"


def before_after(plan: Plan, rows: pd.DataFrame) -> Figure:
    """Worst group and average accuracy of every method (end of the arrow), from where ERM is (its beginning)."""
    runs = _active(taken_runs(rows[rows["ablation"].isna()]))
    figure, axes = _panels(plan, runs)
    for axis, (dataset, model) in axes:
        here = runs[(runs["dataset"] == dataset) & (runs["model"] == model)]
        names = [name for name in ordered_names(plan, here) if name != "erm"][::-1]
        start = here[here["name"] == "erm"]
        for column, colour, label in (
            ("accuracy", "#999999", "average"),
            ("worst_group_accuracy", "#c1272d", "worst group"),
        ):
            before = 100 * start[column].astype(float).mean() if len(start) else np.nan
            after = [100 * here[here["name"] == name][column].astype(float).mean() for name in names]
            axis.hlines(range(len(names)), before, after, color=colour, lw=1.2)
            axis.plot(after, range(len(names)), "o", ms=3.5, color=colour, label=label)
            axis.axvline(before, color=colour, lw=0.6, ls=":")
        titles = [here[here["name"] == name]["title"].iloc[0] for name in names]
        axis.set_yticks(range(len(names)), titles, fontsize=6)
        axis.set_xlim(-3, 103)
        axis.set_ylabel("")
        axis.set_xlabel("accuracy, %", fontsize=7)
    _legend(figure, axes)
    return figure


def against_lambda(plan: Plan, rows: pd.DataFrame) -> Figure | None:
    """Worst group and average accuracy of SCORE against λ.

    Of runs that differ in λ alone; None where there are none.
    """
    runs = rows[(rows["method"] == "score") & (rows["ablation"].isna() | (rows["ablation"] == "λ"))]
    runs = runs.drop_duplicates("key").copy()
    apart = [_apart_from_lambda(settings) for settings in runs["settings"]]
    runs["λ"], runs["rest"] = [value for value, _ in apart], [rest for _, rest in apart]
    runs = runs[runs.groupby("rest")["λ"].transform("nunique") > 1]
    if not len(runs):
        return None
    figure, axes = _panels(plan, runs)
    for axis, (dataset, model) in axes:
        here = runs[(runs["dataset"] == dataset) & (runs["model"] == model)]
        for column, colour, label in (
            ("worst_group_accuracy", "#c1272d", "worst group"),
            ("accuracy", "#999999", "average"),
        ):
            by = here.groupby("λ")[column].agg(["mean", "std"]) * 100
            axis.errorbar(by.index, by["mean"], by["std"], fmt="o-", ms=4, lw=1, color=colour, label=label)
        axis.set_xscale("symlog", linthresh=0.1)
        values = sorted(here["λ"].unique())
        axis.set_xticks(values, [f"{value:g}" for value in values])  # the ones that were run, not powers of ten
        axis.minorticks_off()
        axis.set_xlabel("λ", fontsize=7)
        axis.set_ylim(-3, 103)
    _legend(figure, axes)
    return figure


def _apart_from_lambda(settings: str) -> tuple[float, str]:
    """λ, and all else that decides a run of SCORE, its seed too."""
    fields = json.loads(settings)
    return fields["config"].pop("score_lambda", SCOREConfig.score_lambda), json.dumps(fields, sort_keys=True)


def _legend(figure: Figure, axes: list[tuple[Any, tuple[str, str]]]) -> None:
    figure.legend(*axes[0][0].get_legend_handles_labels(), fontsize=6, loc="outside upper center", ncols=2)


def _panels(plan: Plan, rows: pd.DataFrame) -> tuple[Figure, list[tuple[Any, tuple[str, str]]]]:
    there = set(zip(rows["dataset"], rows["model"], strict=True))
    panels = [(d, m) for d in plan.datasets for m in plan.models if (d, m) in there]
    columns = min(2, len(panels))  # legible at the width of a page
    lines = -(-len(panels) // columns)
    figure = Figure(figsize=(3.6 * columns, 2.9 * lines), layout="constrained")
    grid = figure.subplots(lines, columns, squeeze=False).ravel()
    for axis in grid[len(panels) :]:
        axis.set_visible(False)
    for axis, (dataset, model) in zip(grid, panels, strict=False):
        axis.set_title(plan.title(dataset, model).replace("; ", "\n"), fontsize=7)
        axis.tick_params(labelsize=6)
        axis.set_ylabel("accuracy, %", fontsize=7)
        axis.spines[["top", "right"]].set_visible(False)
    return figure, list(zip(grid, panels, strict=False))
