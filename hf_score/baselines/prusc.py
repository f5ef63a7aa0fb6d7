"""PruSC: cut out the part of the ERM network that does not rely on the spurious attribute."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from ..errors import HFScoreError
from ..models import classifier_head
from ..renamed import accepts_old_names
from .base import BaselineConfig, BaselineTrainer
from .clustering import kmeans
from .cnc import contrastive_loss
from .last_layer import refit
from .pruning import TOTAL_STEP, GatedModel

__all__ = ["PruSCConfig", "PruSCTrainer"]


@accepts_old_names
@dataclass
class PruSCConfig(BaselineConfig):
    """Configuration of [`PruSCTrainer`].

    Parameters:
        prusc_sparsity: weight of the mean gate logit (theirs: 1e-8 of the sum, 0.1 of the mean of a ResNet-18).
        prusc_clusters: clusters of all training images (their default: 16, in batches of 64).
        prusc_contrastive: weight of the contrastive loss.
        prusc_temperature: τ of the contrastive loss.
        prusc_learning_rate: of the gates; None for 15 / number of steps, which sums to what theirs does: 0.01 in each
            of some 1,500 steps.
        prusc_l2_to_start: weight of ‖W − W₀‖², W the refitted head and W₀ that of the ERM model.
    """

    prusc_sparsity: float = field(default=0.1, metadata={"help": "Weight of the mean gate logit."})
    prusc_clusters: int = field(default=4, metadata={"help": "Clusters of the training images."})
    prusc_contrastive: float = field(default=1.0, metadata={"help": "Weight of the contrastive loss."})
    prusc_temperature: float = field(default=0.07, metadata={"help": "Temperature of the similarities."})
    prusc_learning_rate: float | None = field(default=None, metadata={"help": "Learning rate of the gates."})
    prusc_l2_to_start: float = field(
        default=1e-3, metadata={"help": "Weight of the new head's squared distance to the ERM head."}
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        rate = 1.0 if self.prusc_learning_rate is None else self.prusc_learning_rate
        weights = (self.prusc_sparsity, self.prusc_contrastive, self.prusc_l2_to_start)
        if min(self.prusc_temperature, rate) <= 0 or min(weights) < 0 or self.prusc_clusters < 2:
            raise HFScoreError(
                "prusc_sparsity, prusc_contrastive and prusc_l2_to_start must be at least 0, prusc_temperature and "
                "prusc_learning_rate above 0, prusc_clusters at least 2: correct them."
            )


class PruSCTrainer(BaselineTrainer):
    """Learns which weights of the ERM model to keep, by cross-entropy and a supervised contrastive loss that pulls
    images of a class together which lie in different clusters of the ERM representation and pushes apart what lies in
    one cluster, then refits the head (Le, Schlötterer, Seifert, 2024).

    Supervision: class labels. As in their code: k-means over all training images by the cosine; negatives are the
    images of the anchor's own cluster; `Gate` is theirs and DCWP's. Ours: batches in which every (class, cluster) is
    equally frequent; the loss of pairs of `contrastive_loss`, with a gradient (in their code it enters as a number);
    the head is the class- and cluster-balanced optimum on the training images, where they train on validation images.
    """

    name = "prusc"
    title = "PruSC"
    paper = "Le, Schlötterer, Seifert, 2024, arXiv 2407.14974"
    initial_model = "erm"
    has_epochs = False
    config_class = PruSCConfig
    args: PruSCConfig  # type: ignore[assignment]
    version = 2
    grid: ClassVar[dict[str, list[Any]]] = {
        "prusc_sparsity": [0.1, 10.0],
        "prusc_clusters": [4, 8],
        "prusc_contrastive": [0.1, 1.0],
    }
    wanted_gates: ClassVar[dict[str, str]] = {"pruned_share": ">= 0.01", "kept_share": ">= 0.05"}

    def train(self, *args: Any, **kwargs: Any) -> Any:
        model: Any = self.model
        model.to(self.args.device)
        self._cluster(model)
        trainable = {name: p.requires_grad for name, p in model.named_parameters()}
        model.requires_grad_(False)
        self._gated = GatedModel(model)
        for gate in self._gated.gates:
            gate.logits.requires_grad_(True)
        try:
            output = super().train(*args, **kwargs)
        finally:
            self.kept = self._gated.kept
            self._gated.cut()
            for name, parameter in model.named_parameters():
                parameter.requires_grad_(trainable[name])
        self._refit_head(model)
        return output

    def _cluster(self, model: nn.Module) -> None:
        """`_clusters` (N,) by k-means, and `_pairs` (N,), their pairs with the classes."""
        _, features = self.predict_features(model, self.train_dataset)
        unit = nn.functional.normalize(features, dim=1)
        self._clusters = kmeans(unit, self.args.prusc_clusters, seed=self.args.seed)
        self._pairs = self.args.prusc_clusters * self.train_labels() + self._clusters
        self._cluster_of = dict(zip(self.train_idx().tolist(), self._clusters.tolist(), strict=True))

    def gates(self) -> dict[str, float]:
        """Shares of the gated weights."""
        return {"pruned_share": 1 - self.kept, "kept_share": self.kept}

    def create_optimizer(self, *args: Any, **kwargs: Any) -> torch.optim.Optimizer:
        """Over the gates alone, with a learning rate of their own."""
        rate = self.args.prusc_learning_rate
        self.optimizer = torch.optim.Adam(self._gated.logits(), lr=TOTAL_STEP if rate is None else rate)
        return self.optimizer

    def create_scheduler(self, num_training_steps: int, optimizer: Any = None) -> Any:
        """None that decays: the steps sum to what was set."""
        factor = 1.0 if self.args.prusc_learning_rate is not None else 1.0 / num_training_steps
        steps: Any = optimizer or self.optimizer
        self.lr_scheduler = torch.optim.lr_scheduler.LambdaLR(steps, lambda step: factor)
        return self.lr_scheduler

    def sample_weights(self) -> Tensor:
        """(N,): 1 / frequency of the pair (class, cluster)."""
        return 1.0 / torch.bincount(self._pairs).double()[self._pairs]

    def batch_loss(self, model: nn.Module, inputs: dict[str, Tensor], idx: Tensor) -> tuple[Tensor, Any]:
        outputs, features = self.forward_with_features(model, inputs["pixel_values"])
        labels = inputs["labels"]
        classified = nn.functional.cross_entropy(outputs.logits.float(), labels)
        clusters = torch.as_tensor([self._cluster_of[i] for i in idx.tolist()], device=labels.device)
        others = ~torch.eye(len(labels), dtype=torch.bool, device=labels.device)
        contrastive = contrastive_loss(
            features,
            positives=(labels[:, None] == labels) & (clusters[:, None] != clusters),
            negatives=(clusters[:, None] == clusters) & others,
            temperature=self.args.prusc_temperature,
        )
        weights = (self.args.prusc_contrastive, self.args.prusc_sparsity)
        return classified + weights[0] * contrastive + weights[1] * self._gated.mean_logit(), outputs

    def _refit_head(self, model: nn.Module) -> None:
        _, features = self.predict_features(model, self.train_dataset)
        head = classifier_head(model)  # type: ignore[arg-type]
        weight, bias = refit(
            head, features, self.train_labels(), self.sample_weights(), l2_to_start=self.args.prusc_l2_to_start
        )
        self.replace_head(weight, bias)
