"""A results dictionary whose every number is fixed, made to measure."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest

GROUPS = ["benign", "benign, patch", "malignant", "malignant, patch"]
LABELS = {
    "erm": "ERM",
    "continued_erm": "continued ERM",
    "random_samples": "random samples",
    "random_neurons": "random neurons",
    "score": "SCORE-X",
}
ACCURACIES = {
    "erm": [0.9, 1.0, 0.5, 0.0],
    "continued_erm": [0.8, 1.0, 0.5, 0.1],
    "random_samples": [0.8, 1.0, 0.5, 0.2],
    "random_neurons": [0.8, 1.0, 0.5, 0.15],
    "score": [0.7, 0.8, 0.7, 0.6],
}


def run_of(accuracies: dict[str, float | None], seed: int = 0, relevance: float | None = 0.5) -> dict[str, Any]:
    present = {name: value for name, value in accuracies.items() if value is not None}
    worst = min(present, key=lambda name: present[name])
    mean = sum(present.values()) / len(present)
    metrics = {
        "accuracy": mean,
        "weighted_accuracy": 0.75,
        "mean_group_accuracy": mean,
        "worst_group_accuracy": present[worst],
        "worst_group": worst,
        "group_accuracy": accuracies,
        "group_count": {name: 0 if value is None else 20 for name, value in accuracies.items()},
    }
    cost = {"train_seconds": 90.0 + seed}
    return {"seed": seed, "metrics": metrics, "relevance_in_region": relevance, "reliance": 0.4, **cost}


@pytest.fixture
def make_results() -> Callable[..., dict[str, Any]]:
    """`make_results(methods, offsets=(0.0, 0.1))`: one seed per offset, which is added to each group's accuracy."""

    def make(
        methods: tuple[str, ...] = tuple(LABELS),
        *,
        offsets: tuple[float, ...] = (0.0,),
        groups: list[str] | None = None,
        accuracies: dict[str, list[float | None]] | None = None,
    ) -> dict[str, Any]:
        names = groups or GROUPS
        table: dict[str, Any] = {**ACCURACIES, **(accuracies or {})}
        rows = {
            key: [
                run_of(
                    {
                        name: None if value is None else min(1.0, max(0.0, value + offset))
                        for name, value in zip(names, table[key], strict=True)
                    },
                    seed,
                    relevance=0.125 if key == "score" else 0.5,
                )
                for seed, offset in enumerate(offsets)
            ]
            for key in methods
        }
        history = [{"step": 0, "loss": 1.0, "penalty": 1.0}, {"step": 10, "loss": 0.5, "penalty": 0.25}]
        return copy.deepcopy(
            {
                "schema": "hf-score/results/1",
                "created": "2026-01-02T03:04:05+00:00",
                "command": "python /home/ann/code/run_score.py --dataset '/data/my images' --hub_token hf_secret",
                "versions": {"hf-score": "0.1.0", "torch": "2.15.0"},
                "hardware": "2 CPU cores",
                "git_commit": "0123abc",
                "model": {
                    "name": "facebook/deit-tiny-patch16-224",
                    "base_model": "facebook/deit-tiny-patch16-224",
                    "architecture": "ViTForImageClassification",
                    "is_timm": False,
                    "layer": "block4",
                    "image_size": 112,
                },
                "dataset": {
                    "name": "isic_patches",
                    "fingerprint": "f00d",
                    "class_names": ["benign", "malignant"],
                    "group_names": names,
                    "train_group_counts": [400, 400, 250, 0][: len(names)],
                    "description": "Dermoscopic images; a coloured patch lies beside half of the benign ones.",
                    "licence": "CC0",
                    "citation": "@misc{somebody2020skin,\n  title = {Skin},\n  year = {2020}\n}",
                    "source": "a public archive",
                    "counts": {"train": 900, "held_out": 150, "test": 80},
                },
                "config": {
                    "score_lambda": 3.0,
                    "score_form": "exchange",
                    "score_exchange_weight": 1.0,
                    "allow_group_oracle": False,
                },
                "seeds": list(range(len(offsets))),
                "selection": {
                    "decided_by": "oracle",
                    "classes": {"benign": 40, "malignant": 0},
                    "candidates": {"benign": 100, "malignant": 100},
                },
                "methods": {
                    key: {"label": LABELS[key], "supervision": "class labels", "runs": runs}
                    for key, runs in rows.items()
                },
                "history": {
                    "score": [*history, {"step": 10, "held_out_accuracy": 0.9}],
                    "continued_erm": [{"step": 0, "loss": 1.0}, {"step": 10, "loss": 0.4}],
                },
            }
        )

    return make


@pytest.fixture
def results(make_results: Callable[..., dict[str, Any]]) -> dict[str, Any]:
    return make_results(offsets=(0.0, 0.1))
