"""TAB: balance the images of a class by how their loss went while a first model was trained."""

from __future__ import annotations

import copy
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from .base import BaselineTrainer
from .clustering import kmeans_within
from .second_model import fit_second, steps_of

__all__ = ["TABTrainer", "upsampled"]


class TABTrainer(BaselineTrainer):
    """ERM on a set in which, in every class, the smaller of two clusters of loss histories is drawn with replacement
    up to the size of the larger (Espinosa Zarlenga et al., 2024).

    Supervision: class labels; it has nothing to tune, and its grid is that of ERM. A first model is trained as long as
    the second; every training image's loss after each of its epochs is its history (N, T). Ours: losses are measured
    at the end of an epoch, not in its course, and the larger set is drawn by weights, as many images as the training
    set has, so that the method gets as many steps as the others.
    """

    name = "tab"
    title = "TAB"
    paper = "Espinosa Zarlenga et al., 2024, arXiv 2409.17691"
    grid: ClassVar[dict[str, list[Any]]] = {"learning_rate": [0.1, 0.3, 1.0, 3.0], "num_train_epochs": [0.5, 1.0]}
    wanted_gates: ClassVar[dict[str, str]] = {"smaller_cluster_share": ">= 0.005", "smaller_cluster_draws": ">= 0.2"}

    def train(self, *args: Any, **kwargs: Any) -> Any:
        self.histories = self._histories()
        self.clusters = kmeans_within(self.histories, self.train_labels(), 2, seed=self.args.seed)
        return super().train(*args, **kwargs)

    def _histories(self) -> Tensor:
        """(N, T): the loss of every training image after each epoch of the first model."""
        model: Any = copy.deepcopy(self.model)
        labels, losses = self.train_labels(), []

        def look() -> None:
            logits = self.predict_logits(model, self.train_dataset)
            losses.append(nn.functional.cross_entropy(logits, labels, reduction="none"))

        fit_second(self, model, steps=steps_of(self), after_epoch=look)
        return torch.stack(losses, dim=1)

    def sample_weights(self) -> Tensor:
        """(N,): 1 in the larger cluster of a class; in the smaller, the size of the larger over its own."""
        self._weights = self.balanced(upsampled(self.clusters, self.train_labels()))
        return self._weights

    def gates(self) -> dict[str, float]:
        """The shares of images, and of draws, in the smaller clusters."""
        smaller = self.clusters == 1
        draws = float(self._weights[smaller].sum() / self._weights.sum())
        return {"smaller_cluster_share": float(smaller.double().mean()), "smaller_cluster_draws": draws}


def upsampled(clusters: Tensor, labels: Tensor) -> Tensor:
    """(N,) float64 weights with which cluster 1 of each class is drawn as often as its cluster 0."""
    weights = torch.ones(len(labels), dtype=torch.double)
    for label in labels.unique():
        sizes = torch.bincount(clusters[labels == label], minlength=2)
        if sizes[1]:
            weights[(labels == label) & (clusters == 1)] = float(sizes[0] / sizes[1])
    return weights
