"""PruSC: cut out the part of the ERM network that does not rely on the spurious attribute."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from ..errors import HFScoreError
from ..models import classifier_head
from ..renamed import accepts_old_names
from .base import BaselineConfig, BaselineTrainer
from .cnc import contrastive_loss
from .last_layer import refit

__all__ = ["PruSCConfig", "PruSCTrainer", "split_in_two"]


@accepts_old_names
@dataclass
class PruSCConfig(BaselineConfig):
    """Configuration of [`PruSCTrainer`].

    Parameters:
        prusc_sparsity: weight of the share of weights that are kept.
        prusc_temperature: τ of the contrastive loss.
        prusc_learning_rate: of the scores that decide which weights are kept.
        prusc_l2_to_start: weight of ‖W − W₀‖², W the refitted head and W₀ that of the ERM model.
    """

    prusc_sparsity: float = field(default=0.1, metadata={"help": "Weight of the share of weights kept."})
    prusc_temperature: float = field(default=0.1, metadata={"help": "Temperature of the similarities."})
    prusc_learning_rate: float = field(default=0.05, metadata={"help": "Learning rate of the mask scores."})
    prusc_l2_to_start: float = field(
        default=1e-3, metadata={"help": "Weight of the new head's squared distance to the ERM head."}
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        positive = min(self.prusc_temperature, self.prusc_learning_rate) > 0
        if not positive or min(self.prusc_sparsity, self.prusc_l2_to_start) < 0:
            raise HFScoreError(
                "prusc_sparsity and prusc_l2_to_start must be at least 0, prusc_temperature and prusc_learning_rate "
                "above 0: correct them."
            )


class PruSCTrainer(BaselineTrainer):
    """Learns a binary mask over the weights of the ERM model by cross-entropy and a supervised contrastive loss that
    pulls images of a class together which lie in different clusters of the ERM representation, then refits the head
    (Le, Schlötterer, Seifert, 2024).

    Supervision: class labels. Ours, beside the public description and code: two clusters per class by 2-means;
    negatives are images of other classes; batches in which every (class, cluster) is equally frequent; a mask is 1
    where a learned score is above 0 (straight-through gradient, all scores start at 1) and the share of kept weights
    is penalised; the head is the class- and cluster-balanced optimum on the training images.
    """

    name = "prusc"
    title = "PruSC"
    paper = "Le, Schlötterer, Seifert, 2024, arXiv 2407.14974"
    initial_model = "erm"
    has_epochs = False
    config_class = PruSCConfig
    args: PruSCConfig  # type: ignore[assignment]

    def train(self, *args: Any, **kwargs: Any) -> Any:
        model: Any = self.model
        model.to(self.args.device)
        _, features = self.predict_features(model, self.train_dataset)
        self._pairs = 2 * self.train_labels() + split_in_two(features, self.train_labels(), seed=self.args.seed)
        self._pair_of = dict(zip(self.train_idx().tolist(), self._pairs.tolist(), strict=True))
        trainable = {name: p.requires_grad for name, p in model.named_parameters()}
        model.requires_grad_(False)
        head = classifier_head(model)
        masked = [m for m in model.modules() if isinstance(m, nn.Linear | nn.Conv2d) and m is not head]
        self._masks = []
        for module in masked:
            mask = _Mask(module.weight)
            parametrize.register_parametrization(module, "weight", mask)
            module.parametrizations.weight.original.requires_grad_(False)  # type: ignore[union-attr,index]
            self._masks.append(mask)
        try:
            output = super().train(*args, **kwargs)
        finally:
            for module in masked:
                parametrize.remove_parametrizations(module, "weight", leave_parametrized=True)
            for name, parameter in model.named_parameters():
                parameter.requires_grad_(trainable[name])
        self._refit_head(model)
        return output

    @property
    def kept(self) -> float:
        """Share of the masked layers' weights that are kept."""
        return sum(int((m.scores > 0).sum()) for m in self._masks) / sum(m.scores.numel() for m in self._masks)

    def create_optimizer(self, *args: Any, **kwargs: Any) -> torch.optim.Optimizer:
        """Over the scores alone, with a learning rate of their own."""
        scores = [mask.scores for mask in self._masks]
        self.optimizer = torch.optim.Adam(scores, lr=self.args.prusc_learning_rate)
        return self.optimizer

    def sample_weights(self) -> Tensor:
        """(N,): 1 / frequency of the pair (class, cluster)."""
        return 1.0 / torch.bincount(self._pairs).double()[self._pairs]

    def batch_loss(self, model: nn.Module, inputs: dict[str, Tensor], idx: Tensor) -> tuple[Tensor, Any]:
        outputs, features = self.forward_with_features(model, inputs["pixel_values"])
        labels = inputs["labels"]
        classified = nn.functional.cross_entropy(outputs.logits.float(), labels)
        pairs = torch.as_tensor([self._pair_of[i] for i in idx.tolist()], device=labels.device)
        contrastive = contrastive_loss(
            features,
            positives=(labels[:, None] == labels) & (pairs[:, None] != pairs),
            negatives=labels[:, None] != labels,
            temperature=self.args.prusc_temperature,
        )
        kept = torch.stack([mask.scores.sigmoid().mean() for mask in self._masks]).mean()
        return classified + contrastive + self.args.prusc_sparsity * kept, outputs

    def _refit_head(self, model: nn.Module) -> None:
        _, features = self.predict_features(model, self.train_dataset)
        head = classifier_head(model)  # type: ignore[arg-type]
        weight, bias = refit(
            head, features, self.train_labels(), self.sample_weights(), l2_to_start=self.args.prusc_l2_to_start
        )
        self.replace_head(weight, bias)


class _Mask(nn.Module):
    """A weight times 1 where its score is above 0, else 0; the gradient passes to the score as if it were a factor."""

    def __init__(self, weight: Tensor) -> None:
        super().__init__()
        self.scores = nn.Parameter(torch.ones_like(weight))

    def forward(self, weight: Tensor) -> Tensor:
        hard = (self.scores > 0).to(weight)
        return weight * (hard + (self.scores - self.scores.detach()))  # the bracket is exactly 0


def split_in_two(features: Tensor, labels: Tensor, *, seed: int) -> Tensor:
    """(N,), 0 or 1: the cluster of each image inside its class, by 2-means on normalised representations (N, D)."""
    clusters = torch.zeros(len(labels), dtype=torch.long)
    normal = nn.functional.normalize(features, dim=1)
    for label in labels.unique():
        members = (labels == label).nonzero()[:, 0]
        points = normal[members]
        first = points[torch.randint(len(points), (1,), generator=torch.Generator().manual_seed(seed))]
        centres = torch.cat([first, points[(points - first).norm(dim=1).argmax()][None]])
        for _ in range(50):
            nearest = torch.cdist(points, centres).argmin(dim=1)
            before = centres
            centres = torch.stack(
                [points[nearest == k].mean(dim=0) if (nearest == k).any() else before[k] for k in (0, 1)]
            )
            if torch.equal(centres, before):
                break
        clusters[members] = nearest
    return clusters
