"""A `results.json` of one seed with everything that one can hold."""

from typing import Any

_FIGURE = {"value": 0.4, "low": 0.3, "high": 0.5, "count": 40}
_CHANGE = {"value": -0.2, "low": -0.3, "high": -0.1, "count": 40}
_GROUPS = ["cat", "cat, tag", "dog", "dog, tag"]


def _run(**more: Any) -> dict[str, Any]:
    accuracy = dict(zip(_GROUPS, [0.9, 1.0, 0.5, 0.25], strict=True))
    metrics = {
        "accuracy": 0.7,
        "weighted_accuracy": 0.75,
        "mean_group_accuracy": 0.66,
        "worst_group_accuracy": 0.25,
        "worst_group": "dog, tag",
        "group_accuracy": accuracy,
        "group_count": dict.fromkeys(_GROUPS, 20),
    }
    verdict = {
        "figures": dict.fromkeys(("inserted", "removed", "random_inserted", "object", "auroc"), _FIGURE),
        "classes": {"cat": _FIGURE, "dog": _FIGURE},
        "samples": {"count": 10, "held_out": True},
        "not_checked": ["Other shortcuts."],
    }
    return {
        "seed": 0,
        "metrics": metrics,
        "relevance_in_region": 0.5,
        "verdict": {**verdict, **more.pop("verdict", {})},
        **more,
    }


RESULTS: dict[str, Any] = {
    "schema": "hf-score/results/1",
    "created": "2026-01-02T03:04:05+00:00",
    "command": "hf-score run --dataset pictures",
    "versions": {"hf-score": "0.1.0"},
    "hardware": "2 CPU cores",
    "git_commit": None,
    "model": {
        "name": "resnet18",
        "base_model": None,
        "architecture": "TimmWrapperForImageClassification",
        "is_timm": True,
        "layer": "layer3",
        "image_size": 32,
    },
    "dataset": {
        "name": "pictures",
        "fingerprint": "f00d",
        "class_names": ["cat", "dog"],
        "group_names": _GROUPS,
        "train_group_counts": [40, 40, 25, 0],
        "licence": "CC0",
        "source": "an archive",
        "description": "Pets.",
        "citation": "@misc{pets}",
        "counts": {"train": 105, "held_out": 15, "test": 80},
    },
    "config": {"score_lambda": 3.0, "score_form": "exchange", "learning_rate": 1e-4, "allow_group_oracle": False},
    "seeds": [0],
    "selection": {
        "decided_by": "person",
        "kept_by": "person",
        "classes": {"cat": 10, "dog": 0},
        "candidates": {"cat": 20, "dog": 20},
        "shortcuts": {"cat": ["a *red* tag"]},
    },
    "methods": {
        "erm": {"label": "ERM", "supervision": "class labels", "runs": [_run()]},
        "continued_erm": {"label": "continued ERM", "supervision": "class labels", "runs": [_run(train_seconds=3.0)]},
        "score": {
            "label": "SCORE",
            "supervision": "class labels + person decisions",
            "runs": [
                _run(
                    verdict={
                        "change": dict.fromkeys(("inserted", "removed", "excess", "auroc"), _CHANGE),
                        "class_change": {"cat": _CHANGE, "dog": _CHANGE},
                        "fallen": ["dog"],
                        "examples": [0, 1],
                    },
                    train_seconds=4.0,
                    score_lambda=3.0,
                    score_form="exchange",
                    lambda_estimates=[[1.0, 0.5], [3.0, 0.6]],
                    weights_sha256="ab" * 32,
                )
            ],
        },
    },
    "history": {
        "score": [{"step": 0, "loss": 1.0, "penalty": 1.0}, {"step": 10, "held_out_accuracy": 0.9, "reliance": 0.2}]
    },
}
