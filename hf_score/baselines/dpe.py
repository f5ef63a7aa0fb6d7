"""DPE, diverse prototypical ensembles: many heads of prototypes that are kept apart."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from ..errors import HFScoreError
from .base import BaselineConfig
from .last_layer import LastLayerTrainer

__all__ = ["DPEConfig", "DPETrainer", "likeness", "prototype_head"]


@dataclass
class DPEConfig(BaselineConfig):
    """Configuration of [`DPETrainer`].

    Parameters:
        dpe_heads: heads, each on a class-balanced subset of its own (theirs: 15 and more).
        dpe_repulsion: weight of the likeness to the heads before.
        dpe_scale: s of the logits −s·‖z − p‖².
        dpe_steps: steps of Adam for each head (ours).
        dpe_learning_rate: of those steps.
    """

    dpe_heads: int = field(default=16, metadata={"help": "Heads."})
    dpe_repulsion: float = field(default=1.0, metadata={"help": "Weight of the likeness to the heads before."})
    dpe_scale: float = field(default=1.0, metadata={"help": "Scale of the squared distances."})
    dpe_steps: int = field(default=100, metadata={"help": "Steps for each head."})
    dpe_learning_rate: float = field(default=0.03, metadata={"help": "Learning rate of those steps."})

    def __post_init__(self) -> None:
        super().__post_init__()
        positive = min(self.dpe_heads, self.dpe_scale, self.dpe_steps, self.dpe_learning_rate) > 0
        if not positive or self.dpe_repulsion < 0:
            raise HFScoreError(
                "dpe_heads, dpe_scale, dpe_steps and dpe_learning_rate must be above 0, dpe_repulsion at least 0: "
                "correct them."
            )


class DPETrainer(LastLayerTrainer):
    """An ensemble of heads on the frozen, standardised representation, each with one prototype a class and logits
    −s·‖z − p‖², trained one after the other on class-balanced subsets with a penalty on being like those before (To et
    al., 2025).

    Supervision: class labels, of held-out training images; theirs takes validation images. Ours, so that the ensemble
    is the linear head of a stock model: distances are squared and of representations of unit mean length (theirs:
    IsoMax, distances of normalised ones), and logits are averaged, not probabilities. The likeness is the mean squared
    cosine between prototypes of a class, centred over classes.
    """

    name = "dpe"
    title = "DPE"
    paper = "To et al., 2025, arXiv 2505.23027"
    config_class = DPEConfig
    args: DPEConfig  # type: ignore[assignment]
    grid: ClassVar[dict[str, list[Any]]] = {
        "dpe_repulsion": [0.1, 1.0],
        "dpe_scale": [1.0, 5.0],
        "dpe_learning_rate": [0.01, 0.03],
    }
    wanted_gates: ClassVar[dict[str, str]] = {**LastLayerTrainer.wanted_gates, "head_likeness": "<= 0.9"}

    def new_head(self) -> tuple[Tensor, Tensor]:
        _, features, labels = self.held_out()
        raw = features.double()
        mean, deviation = raw.mean(dim=0), raw.std(dim=0)
        deviation = torch.where(deviation > 0, deviation, 1.0) * raw.shape[1] ** 0.5
        inputs = (raw - mean) / deviation
        generator = torch.Generator().manual_seed(self.args.seed)
        prototypes: list[Tensor] = []
        for _ in range(self.args.dpe_heads):
            prototypes.append(self._fit(inputs, labels, prototypes, generator))
        self._likeness = float(likeness(prototypes[-1], prototypes[:-1])) if len(prototypes) > 1 else 0.0
        heads = [prototype_head(p, scale=self.args.dpe_scale) for p in prototypes]
        weight, bias = (torch.stack([head[part] for head in heads]).mean(dim=0) for part in (0, 1))
        # On raw representations: w·(x − mean)/deviation + b.
        return weight / deviation, bias - (weight / deviation) @ mean

    def _fit(self, inputs: Tensor, labels: Tensor, before: list[Tensor], generator: torch.Generator) -> Tensor:
        """(K, D): the prototypes of one head, on a subset with as many images of every class."""
        model: Any = self.model
        classes = int(model.config.num_labels)
        smallest = int(torch.bincount(labels)[labels.unique()].min())
        rows = torch.cat(
            [
                (labels == y).nonzero()[:, 0][torch.randperm(int((labels == y).sum()), generator=generator)[:smallest]]
                for y in labels.unique()
            ]
        )
        start = torch.randn(classes, inputs.shape[1], generator=generator, dtype=torch.double)
        prototypes = nn.Parameter(start * 0.1 / inputs.shape[1] ** 0.5)
        optimizer = torch.optim.Adam([prototypes], lr=self.args.dpe_learning_rate)
        for _ in range(self.args.dpe_steps):
            weight, bias = prototype_head(prototypes, scale=self.args.dpe_scale)
            loss = nn.functional.cross_entropy(inputs[rows] @ weight.T + bias, labels[rows])
            if before:
                loss = loss + self.args.dpe_repulsion * likeness(prototypes, before)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        return prototypes.detach()

    def gates(self) -> dict[str, float]:
        """The head's change, and how like the last head is to those before."""
        return {**super().gates(), "head_likeness": self._likeness}


def prototype_head(prototypes: Tensor, *, scale: float) -> tuple[Tensor, Tensor]:
    """Weight (K, D) and bias (K,) with the softmax of −scale·‖z − p‖²: what all classes share drops out."""
    return 2 * scale * prototypes, -scale * prototypes.square().sum(dim=1)


def likeness(prototypes: Tensor, others: list[Tensor]) -> Tensor:
    """Mean over classes and other heads of the squared cosine of prototypes (K, D), each centred over its classes."""
    own = nn.functional.normalize(prototypes - prototypes.mean(dim=0), dim=1)
    rest = torch.stack([nn.functional.normalize(o - o.mean(dim=0), dim=1) for o in others])
    return (own * rest).sum(dim=2).square().mean()
