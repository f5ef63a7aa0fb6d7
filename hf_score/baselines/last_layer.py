"""Retraining the last layer alone: what the methods that do it share, and the plainest of them."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from transformers.trainer_utils import TrainOutput

from ..errors import DataError, HFScoreError
from ..models import classifier_head
from ..renamed import accepts_old_names
from ..training.columns import class_labels
from .base import BaselineConfig, BaselineTrainer

__all__ = ["CBLLRConfig", "CBLLRTrainer", "LastLayerTrainer", "class_balance", "descend", "refit"]


class LastLayerTrainer(BaselineTrainer):
    """A method that replaces the linear head of the ERM model and leaves the rest as it is."""

    initial_model = "erm"
    has_epochs = False
    wanted_gates: ClassVar[dict[str, str]] = {"head_change": ">= 0.01"}

    def new_head(self) -> tuple[Tensor, Tensor]:
        """The weight (K, D) and bias (K,) to put in place of the head's."""
        raise NotImplementedError

    def train(self, *args: Any, **kwargs: Any) -> TrainOutput:
        """Compute the new head and put it in; there are no steps to resume."""
        model: Any = self.model
        model.to(self.args.device)
        before = classifier_head(model).weight.detach().clone()
        self.replace_head(*self.new_head())
        self._change = float((classifier_head(model).weight.detach() - before).norm() / before.norm().clamp(min=1e-12))
        self.state.epoch = 1.0
        return TrainOutput(0, 0.0, {})

    def gates(self) -> dict[str, float]:
        """‖W − W₀‖ / ‖W₀‖ of the head."""
        return {"head_change": self._change}

    def held_out(self) -> tuple[Tensor, Tensor, Tensor]:
        """Logits (N, K), representations (N, D) and class ids (N,) of `eval_dataset`, which was not trained on.

        Raises:
            DataError: there is no evaluation set.
        """
        dataset: Any = self.eval_dataset
        if dataset is None or not len(dataset):
            raise DataError(f"{self.title} refits the head on held-out images: give them as eval_dataset.")
        logits, features = self.predict_features(self.model, dataset)  # type: ignore[arg-type]
        return logits, features, torch.as_tensor(class_labels(dataset))


def class_balance(labels: Tensor) -> Tensor:
    """(N,): 1 / (K · size of the image's class), so that every class weighs the same and all together 1."""
    sizes = torch.bincount(labels).double()
    return 1.0 / (sizes[labels] * (sizes > 0).sum())


def refit(
    head: nn.Linear, features: Tensor, labels: Tensor, weights: Tensor, *, l2_to_start: float
) -> tuple[Tensor, Tensor]:
    """argmin over heads of Σ w_i · cross-entropy_i + l2_to_start · ‖W − W₀‖², by L-BFGS in float64.

    Args:
        head: the present head, W₀.
        features: (N, D).
        labels: (N,).
        weights: (N,), ≥ 0; scaled to sum 1.
        l2_to_start: ≥ 0. Above 0 the minimum is unique.

    Returns:
        weight (K, D) and bias (K,), float64, on the CPU.
    """
    start, inputs, weights = _prepared(head, features, weights)
    values = start.clone().requires_grad_()
    optimizer = torch.optim.LBFGS([values], max_iter=500, line_search_fn="strong_wolfe", tolerance_grad=1e-9)

    def objective() -> Tensor:
        optimizer.zero_grad()
        losses = nn.functional.cross_entropy(inputs @ values.T, labels, reduction="none")
        loss = (weights * losses).sum() + l2_to_start * (values - start).square().sum()
        loss.backward()
        return loss

    optimizer.step(objective)
    found = values.detach()
    return found[:, :-1], found[:, -1]


def descend(
    head: nn.Linear,
    features: Tensor,
    labels: Tensor,
    weights: Tensor,
    *,
    l2_to_start: float,
    steps: int,
    learning_rate: float,
) -> tuple[Tensor, Tensor]:
    """So many steps of gradient descent from the present head towards what `refit` finds, over all images each.

    Args and returns: as `refit`, which goes to the minimum.
    """
    start, inputs, weights = _prepared(head, features, weights)
    values, targets = start.clone(), nn.functional.one_hot(labels, len(start)).double()
    for _ in range(steps):
        errors = (inputs @ values.T).softmax(dim=1) - targets
        gradient = (weights[:, None] * errors).T @ inputs + 2 * l2_to_start * (values - start)
        values = values - learning_rate * gradient
    return values[:, :-1], values[:, -1]


def _prepared(head: nn.Linear, features: Tensor, weights: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Weight and bias in one (K, D + 1), representations with a column of ones, and weights of sum 1, in float64."""
    start = torch.cat([head.weight.detach(), head.bias.detach()[:, None]], dim=1).double().cpu()
    inputs = torch.cat([features.double(), torch.ones(len(features), 1, dtype=torch.double)], dim=1)
    return start, inputs, weights.double() / weights.double().sum()


@accepts_old_names
@dataclass
class CBLLRConfig(BaselineConfig):
    """Configuration of [`CBLLRTrainer`].

    Parameters:
        cb_llr_l2_to_start: weight of ‖W − W₀‖².
    """

    cb_llr_l2_to_start: float = field(
        default=1e-3, metadata={"help": "Weight of the squared distance to the ERM head."}
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.cb_llr_l2_to_start < 0:
            raise HFScoreError(f"cb_llr_l2_to_start is {self.cb_llr_l2_to_start}: give a number of at least 0.")


class CBLLRTrainer(LastLayerTrainer):
    """Class-balanced last-layer retraining on held-out training images (LaBonte et al., 2023, section 4).

    Supervision: class labels. The optimum with an l2 penalty on the distance to the ERM head; theirs is found by SGD.
    """

    name = "cb_llr"
    title = "CB-LLR"
    paper = "LaBonte et al., 2023, arXiv 2309.08534"
    config_class = CBLLRConfig
    args: CBLLRConfig  # type: ignore[assignment]
    grid: ClassVar[dict[str, list[Any]]] = {"cb_llr_l2_to_start": [0.0, 1e-4, 3e-4, 1e-3, 3e-3, 1e-2, 3e-2, 1e-1]}

    def new_head(self) -> tuple[Tensor, Tensor]:
        _, features, labels = self.held_out()
        head = classifier_head(self.model)  # type: ignore[arg-type]
        return refit(head, features, labels, class_balance(labels), l2_to_start=self.args.cb_llr_l2_to_start)
