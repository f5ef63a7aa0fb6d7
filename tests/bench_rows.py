"""Rows and test sets as `hf-score bench` writes them, of models whose accuracy in each group is given."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import yaml

from hf_score.bench import Plan, RowFile

METHODS = ["erm", "continued_erm", "score"]
#: Class · 2 + attribute, K = 2.
GROUPS = 4


def plan_of(folder: Path, *, seeds: Sequence[int], contrasts: Sequence[dict] = (), **changes: Any) -> Plan:
    """A plan of one data set and model with the methods above."""
    schedule = {"num_train_epochs": 1, "learning_rate": 1e-3}
    content = {
        "seeds": list(seeds),
        "datasets": {"d": {"title": "Data", "load": {"dataset": "fashion_patch"}}},
        "models": {"m": {"title": "Model", "load": {"name_or_path": "x"}, "erm": schedule, "finetune": schedule}},
        "methods": [{"method": method} for method in METHODS],
        "contrasts": list(contrasts),
        **changes,
    }
    path = folder / "plan.yaml"
    path.write_text(yaml.safe_dump(content))
    return Plan(path)


class Made:
    """A file of rows beside its file of one test set.

    Args:
        plan: whose cells the rows are of.
        per_group: test images in each of four groups.
        twice: make a second test image from each source, on which every model says the same.
    """

    def __init__(self, plan: Plan, *, per_group: int = 100, twice: bool = False) -> None:
        self.plan, self.twice = plan, twice
        self.groups = np.repeat(np.arange(GROUPS), per_group)
        self.labels, self.sources = self.groups // 2, np.arange(len(self.groups))
        if twice:
            self.groups, self.labels, self.sources = (np.tile(x, 2) for x in (self.groups, self.labels, self.sources))
        self.path = plan.path.with_suffix(".parquet")
        self.store = RowFile(self.path)
        table = {
            "test": ["t0"],
            "labels": [self.labels.tolist()],
            "groups": [self.groups.tolist()],
            "sources": [[str(source) for source in self.sources]],
            "class_names": [["a", "b"]],
            "fingerprint": ["f"],
        }
        pd.DataFrame(table).to_parquet(self.path.with_suffix(".tests.parquet"), index=False)

    def add(self, name: str, seed: int, accuracies: Sequence[float], **columns: Any) -> None:
        """A row of the plan's run of this name and seed, right in each group as often as is said."""
        cell = next(cell for cell in self.plan.cells() if cell.name == name and cell.seed == seed)
        right = self.right(accuracies, seed=len(self.store.rows) + 100 * seed)
        said = np.where(right, self.labels, 1 - self.labels)
        logits = np.eye(2)[said] * 3
        worst = min(right[self.groups == group].mean() for group in range(GROUPS))
        history = {"epoch": 1.0, "selection": 0.5, "worst_group_accuracy": worst, "accuracy": right.mean()}
        history |= {"mean_group_accuracy": worst, "weighted_accuracy": worst, "validation": worst}
        made = {
            "key": cell.key,
            "dataset": cell.dataset,
            "model": cell.model,
            "seed": seed,
            "name": name,
            "title": cell.title,
            "method": cell.trainer_class.name,
            "kinds": ",".join(cell.trainer_class.supervision_kinds),
            "ablation": None,
            "settings": cell.settings,
            "history": json.dumps([history]),
            "groups": [float(right[self.groups == group].mean()) for group in range(GROUPS)],
            "relevance_in_region": 0.5,
            "insertion_flips": 0.1,
            "wall_seconds": 2.0,
            "image_passes": 12345,
            "git_commit": "0123456789",
            "hardware": "CPU",
            "logits": logits.astype(np.float16).tobytes(),
            "test": "t0",
            "gates": json.dumps({"trained": {"value": 1.0, "wanted": "> 0", "passed": True}}),
            "inactive": "",
        }
        self.store.add({**made, **{k: v for k, v in history.items() if k != "validation"}, **columns})

    def right(self, accuracies: Sequence[float], *, seed: int) -> np.ndarray:
        """(N,) bool: exactly that share of each group, which images is drawn."""
        generator = np.random.default_rng(seed)
        right = np.zeros(len(self.groups), dtype=bool)
        sources = len(self.groups) // (2 if self.twice else 1)
        for group, accuracy in enumerate(accuracies):
            members = generator.permutation(np.flatnonzero(self.groups[:sources] == group))
            right[members[: round(accuracy * len(members))]] = True
        return np.tile(right[:sources], 2) if self.twice else right
