"""DFR, deep feature reweighting: refit the head on a held-out set that is balanced by group."""

from __future__ import annotations

import warnings
from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from ..errors import HFScoreError
from ..training.columns import class_labels, column
from .base import BaselineConfig
from .last_layer import LastLayerTrainer

__all__ = ["DFRConfig", "DFRTrainer", "logistic_regression"]


@dataclass
class DFRConfig(BaselineConfig):
    """Configuration of [`DFRTrainer`].

    Parameters:
        dfr_draws: balanced subsets whose heads are averaged (theirs: 20).
        dfr_inverse_penalties: C of the l1 logistic regression to choose from.
    """

    dfr_draws: int = field(default=10, metadata={"help": "Balanced subsets to average over."})
    dfr_inverse_penalties: tuple[float, ...] = field(
        default=(1.0, 0.7, 0.3, 0.1, 0.07, 0.03, 0.01), metadata={"help": "Values of C to choose from."}
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.dfr_draws < 1 or not self.dfr_inverse_penalties or min(self.dfr_inverse_penalties) <= 0:
            raise HFScoreError("dfr_draws must be at least 1 and every dfr_inverse_penalties above 0: correct them.")


class DFRTrainer(LastLayerTrainer):
    """l1 logistic regression on standardised representations of a validation set with equally many images of every
    group, averaged over draws; C by the worst group of one half after a fit on the other (Kirichenko et al., 2023,
    DFR on validation data, section 6 and appendix B).

    Supervision: groups of a validation set, for training and for the choice of C.
    """

    name = "dfr"
    title = "DFR"
    paper = "Kirichenko et al., 2023, arXiv 2204.02937"
    supervision_kinds = ("validation",)
    config_class = DFRConfig
    args: DFRConfig  # type: ignore[assignment]
    grid: ClassVar[dict[str, list[Any]]] = {
        "dfr_inverse_penalties": [
            *[(1.0, 0.7, 0.3, 0.1, 0.07, 0.03, 0.01), (1.0,), (0.7,), (0.3,), (0.1,), (0.07,), (0.03,), (0.01,)]
        ]
    }
    wanted_gates: ClassVar[dict[str, str]] = {**LastLayerTrainer.wanted_gates, "smallest_group": ">= 5"}

    def new_head(self) -> tuple[Tensor, Tensor]:
        dataset: Any = self.supervision.validation
        labels, groups = np.array(class_labels(dataset)), np.array(column(dataset, "group"))
        self._smallest = int(np.unique(groups, return_counts=True)[1].min())
        _, features = self.predict_features(self.model, dataset)  # type: ignore[arg-type]
        raw = features.double().numpy()
        mean, deviation = raw.mean(axis=0), raw.std(axis=0)
        deviation[deviation == 0] = 1.0
        inputs = (raw - mean) / deviation
        generator = np.random.default_rng(self.args.seed)
        penalty = self._choose_penalty(inputs, labels, groups, generator)
        heads = []
        for _ in range(self.args.dfr_draws):
            rows = balanced_rows(groups, generator)
            heads.append(logistic_regression(inputs[rows], labels[rows], penalty=penalty))
        weight, bias = (np.mean([head[part] for head in heads], axis=0) for part in (0, 1))
        # On raw representations: w·(x − mean)/deviation + b.
        return torch.as_tensor(weight / deviation), torch.as_tensor(bias - (weight / deviation) @ mean)

    def gates(self) -> dict[str, float]:
        """The head's change, and how many images of every group a head is fitted to."""
        return {**super().gates(), "smallest_group": float(self._smallest)}

    def _choose_penalty(self, inputs: Any, labels: Any, groups: Any, generator: np.random.Generator) -> float:
        order = generator.permutation(len(labels))
        fit, judge = order[: len(order) // 2], order[len(order) // 2 :]
        worst = []
        for penalty in self.args.dfr_inverse_penalties:
            rows = fit[balanced_rows(groups[fit], generator)]
            weight, bias = logistic_regression(inputs[rows], labels[rows], penalty=penalty)
            right = (inputs[judge] @ weight.T + bias).argmax(axis=1) == labels[judge]
            worst.append(min(right[groups[judge] == g].mean() for g in np.unique(groups[judge])))
        return self.args.dfr_inverse_penalties[int(np.argmax(worst))]


def balanced_rows(groups: np.ndarray, generator: np.random.Generator) -> np.ndarray:
    """Rows with as many of every group as the smallest has."""
    smallest = min((groups == g).sum() for g in np.unique(groups))
    return np.concatenate([generator.permutation(np.flatnonzero(groups == g))[:smallest] for g in np.unique(groups)])


def logistic_regression(inputs: np.ndarray, labels: np.ndarray, *, penalty: float) -> tuple[np.ndarray, np.ndarray]:
    """Weight (K, D) and bias (K,) of an l1-penalised logistic regression, K the number of classes in `labels`.

    Raises:
        HFScoreError: scikit-learn is not installed.
    """
    try:
        from sklearn.linear_model import LogisticRegression
    except ImportError as error:
        raise HFScoreError("DFR needs scikit-learn: pip install 'hf-score[bench]'.") from error
    several = labels.max() > 1
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # names of arguments change between versions; convergence is not needed
        fitted = LogisticRegression(
            penalty="l1", C=penalty, solver="saga" if several else "liblinear", random_state=0, max_iter=200
        ).fit(inputs, labels)
    if several:
        return fitted.coef_, fitted.intercept_
    # One row w stands for the logits (−w/2, w/2).
    return np.vstack([-fitted.coef_, fitted.coef_]) / 2, np.concatenate([-fitted.intercept_, fitted.intercept_]) / 2
