"""ASM's head: refit on pseudo groups, the clusters of a transformer's patch tokens."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, ClassVar

import torch
from torch import Tensor

from ..attribution import find_layer
from ..errors import HFScoreError
from ..models import classifier_head, eval_mode
from .base import BaselineConfig
from .clustering import kmeans
from .last_layer import LastLayerTrainer, descend

__all__ = ["ASMConfig", "ASMTrainer", "principal_components"]


@dataclass
class ASMConfig(BaselineConfig):
    """Configuration of [`ASMTrainer`].

    Parameters:
        asm_components: principal components of the mean token that are clustered (theirs: 3).
        asm_steps: steps of gradient descent on the head (ours; theirs is Adam at 0.001 for 5 epochs).
        asm_learning_rate: of those steps.
    """

    asm_components: int = field(default=3, metadata={"help": "Principal components that are clustered."})
    asm_steps: int = field(default=500, metadata={"help": "Steps of gradient descent on the head."})
    asm_learning_rate: float = field(default=0.03, metadata={"help": "Learning rate of those steps."})

    def __post_init__(self) -> None:
        super().__post_init__()
        if min(self.asm_components, self.asm_steps) < 1 or self.asm_learning_rate <= 0:
            raise HFScoreError(
                "asm_components and asm_steps must be at least 1, asm_learning_rate above 0: correct them."
            )


class ASMTrainer(LastLayerTrainer):
    """Last-layer retraining with the same weight for every pair of class and cluster; two clusters by k-means of the
    last block's tokens, averaged, scaled to 0 to 1 and projected on three principal components (Kuhn et al., 2025).

    Supervision: class labels; which cluster is the shortcut, their one question to a person, is needed for dropping
    tokens alone. That part is not here: it changes what a model computes, and no checkpoint could hold it. On held-out
    training images. Ours: weights where they subsample; the positions of any model's last stage, not of a transformer
    alone.
    """

    name = "asm"
    title = "ASM, head alone"
    paper = "Kuhn et al., 2025, arXiv 2501.00942"
    config_class = ASMConfig
    args: ASMConfig  # type: ignore[assignment]
    grid: ClassVar[dict[str, list[Any]]] = {
        "asm_components": [3, 10],
        "asm_steps": [100, 500],
        "asm_learning_rate": [0.01, 0.03],
    }
    wanted_gates: ClassVar[dict[str, str]] = {**LastLayerTrainer.wanted_gates, "smallest_group": ">= 3"}

    def new_head(self) -> tuple[Tensor, Tensor]:
        _, features, labels = self.held_out()
        groups = (2 * labels + self.clusters()).unique(return_inverse=True)[1]
        sizes = torch.bincount(groups).double()
        self._smallest = float(sizes.min())
        return descend(
            classifier_head(self.model),  # type: ignore[arg-type]
            features,
            labels,
            1.0 / sizes[groups],
            l2_to_start=0.0,
            steps=self.args.asm_steps,
            learning_rate=self.args.asm_learning_rate,
        )

    def clusters(self) -> Tensor:
        """(N,): 0 or 1, of each held-out image."""
        model: Any = self.model
        found = []
        with eval_mode(model), torch.no_grad():
            for batch in self.batches(self.eval_dataset):
                with find_layer(model, "last").capture() as captured:
                    model(pixel_values=batch["pixel_values"])
                found.append(captured.activation.float().mean(dim=1).cpu())
        return kmeans(principal_components(torch.cat(found), self.args.asm_components), 2, seed=self.args.seed)

    def gates(self) -> dict[str, float]:
        """The head's change, and the size of the smallest pseudo group."""
        return {**super().gates(), "smallest_group": self._smallest}


def principal_components(points: Tensor, count: int) -> Tensor:
    """(N, count) or fewer: points (N, D), each dimension scaled to 0 to 1, on their first principal components."""
    low, high = points.amin(dim=0), points.amax(dim=0)
    scaled = (points.double() - low) / (high - low).clamp(min=1e-12)
    centred = scaled - scaled.mean(dim=0)
    _, _, directions = torch.linalg.svd(centred, full_matrices=False)
    return centred @ directions[:count].T
