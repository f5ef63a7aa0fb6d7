"""Nested choice: a point of a grid is chosen on half of the seeds and reported on the other half."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any, Literal

import numpy as np
import pandas as pd

from .rows import best_evaluation

__all__ = ["nested_choice"]

_MEASURES = ("worst_group_accuracy", "accuracy", "mean_group_accuracy", "weighted_accuracy", "epoch")


def nested_choice(rows: pd.DataFrame, *, by: Literal["selection", "validation"] = "selection") -> pd.DataFrame:
    """One row per data set, model, method name and seed, of the point that the other half of the seeds chooses.

    The seeds of a data set and model are halved in their order, every second one, alike for all methods. A half
    chooses the point with the best mean of its runs, and the runs of the other half at this point are reported; then
    the other way round. An inactive run counts 0. A point that lacks a seed of the choosing half is not chosen.

    Args:
        rows: of `rows_of`: the points of a grid are those rows of a name that differ in more than the seed.
        by: the label-free estimate; or the worst group of a validation set, which only an oracle has: the measures are
            then those of the evaluation that it takes.

    Returns:
        rows with the column `chosen_on`: the seeds that chose, joined by a comma. With one seed there is no other
        half: it chooses for itself, and stands there itself. Where a name has one point alone, none chose.
    """
    scored = _scored(rows, by)
    found = [part for _, place in scored.groupby(["dataset", "model"], sort=False) for part in _of_place(place)]
    chosen = pd.concat(found) if found else scored.assign(chosen_on="")
    return chosen.drop(columns=["_score", "_point"]).sort_index()


def _of_place(rows: pd.DataFrame) -> Iterator[pd.DataFrame]:
    seeds = sorted(rows["seed"].unique())
    halves = [seeds[::2], seeds[1::2]] if len(seeds) > 1 else [seeds, seeds]
    for _, runs in rows.groupby("name", sort=False):
        scores = runs.pivot_table(index="_point", columns="seed", values="_score", aggfunc="first").sort_index()
        if len(scores) == 1:  # nothing to choose
            yield runs.assign(chosen_on="")
            continue
        for choosing, reported in (halves, halves[::-1])[: len(seeds)]:
            asked = [seed for seed in choosing if seed in scores]  # a method may have fewer seeds
            means = scores[asked].mean(axis=1, skipna=False).dropna()
            if not len(means):
                continue
            best = means.index[int(np.argmax(means.to_numpy()))]
            taken = runs[(runs["_point"] == best) & runs["seed"].isin(reported)]
            yield taken.assign(chosen_on=", ".join(map(str, asked)))


def _scored(rows: pd.DataFrame, by: str) -> pd.DataFrame:
    """The rows with what each is chosen by, `_score`, and the grid's point that it is of, `_point`."""
    rows = rows.copy()
    if by == "validation":
        best: list[dict[str, Any]] = [best_evaluation(json.loads(h), by="validation") for h in rows["history"]]
        for name in _MEASURES:
            rows[name] = [evaluation.get(name) for evaluation in best]
        rows["_score"] = [evaluation.get("validation") or 0.0 for evaluation in best]
    else:
        rows["_score"] = rows["selection"].astype(float).fillna(0.0)
    if "inactive" in rows:
        rows.loc[rows["inactive"].fillna("") != "", "_score"] = 0.0
    rows["_point"] = [_without_seed(settings) for settings in rows["settings"]]
    return rows


def _without_seed(settings: str) -> str:
    return json.dumps({name: value for name, value in json.loads(settings).items() if name != "seed"}, sort_keys=True)
