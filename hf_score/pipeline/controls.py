"""SCORE and its controls: with what each one trains, so that a table shows what the change is due to."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from transformers import PreTrainedModel

from ..detection import ScanHit, Selection, SpuriousSamples, decide_at_random, explain_hits
from ..report import METHODS
from ..training import SCOREConfig

__all__ = ["CHANGES", "methods_of", "random_hits", "random_samples"]

#: key → the fields of the configuration that make the control.
CHANGES: dict[str, dict[str, Any]] = {
    "continued_erm": {"score_lambda": 0.0, "score_exchange_weight": 0.0},  # samples measure reliance alone
    "exchange_only": {"score_lambda": 0.0},
    "random_neurons": {"score_random_neurons": True},
}


def methods_of(config: SCOREConfig, *, controls: bool) -> list[str]:
    """The methods of a run: without `controls` ERM and SCORE alone."""
    if not controls:
        return ["erm", "score"]
    without = {"repair"}  # no training: `hf-score repair` makes it
    if config.score_form == "exchange":
        without.add("random_neurons")
    if config.exchange_weight == 0:
        without.add("exchange_only")
    return [key for key in METHODS if key not in without]


def random_hits(
    labels: np.ndarray, idx: np.ndarray, *, label: int, count: int, generator: np.random.Generator, any_class: bool
) -> list[ScanHit]:
    """`count` images of a class, or of all classes, drawn at random without replacement.

    Args:
        labels, idx: (N,), class ids and stable ids of the data set.
    """
    pool = np.arange(len(labels)) if any_class else np.flatnonzero(labels == label)
    drawn = generator.choice(pool, size=min(count, len(pool)), replace=False)
    return [ScanHit(0.0, int(position), int(idx[position]), int(labels[position])) for position in drawn]


def random_samples(
    selection: Selection, model: PreTrainedModel, view: Any, data: Any, *, seed: int, explaining: Mapping[str, Any]
) -> SpuriousSamples:
    """Control: as many images of the same classes as were kept, drawn at random, explained and masked alike.

    Args:
        selection: what was kept.
        model: the starting model.
        view: the training view that it is trained on.
        data: the training set, with columns `idx` and `label`.
        seed: of the draw.
        explaining: keywords of `explain_hits`.
    """
    generator = np.random.default_rng(seed)
    labels, ids = np.asarray(data["label"]), np.asarray(data["idx"])
    hits: list[ScanHit] = []
    for label in {decision.label for decision in selection.spurious}:
        count = sum(decision.label == label for decision in selection.spurious)
        hits += random_hits(labels, ids, label=label, count=count, generator=generator, any_class=False)
    drawn = explain_hits(model, view, hits, **explaining)
    return drawn.samples(decide_at_random(drawn), view, processor=explaining["processor"])
