"""UV-DRO: the worst case over shifts of a variable, here of what the model looks at."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from ..attribution import Explainer
from ..errors import HFScoreError
from .base import BaselineConfig, BaselineTrainer
from .clustering import kmeans_within

__all__ = ["UVDROConfig", "UVDROTrainer", "worst_case"]


@dataclass
class UVDROConfig(BaselineConfig):
    """Configuration of [`UVDROTrainer`].

    Parameters:
        uv_dro_alpha: α, the smallest share of images that the worst case may be made of (1: ERM).
        uv_dro_clusters: clusters of each class.
        uv_dro_momentum: of the running mean of each cluster's loss.
    """

    uv_dro_alpha: float = field(default=0.2, metadata={"help": "Smallest share of images of the worst case."})
    uv_dro_clusters: int = field(default=4, metadata={"help": "Clusters of each class."})
    uv_dro_momentum: float = field(default=0.8, metadata={"help": "Momentum of the clusters' running losses."})

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 < self.uv_dro_alpha <= 1 or not 0 <= self.uv_dro_momentum < 1 or self.uv_dro_clusters < 2:
            raise HFScoreError(
                "uv_dro_alpha must be above 0 and at most 1, uv_dro_momentum from 0 to below 1, uv_dro_clusters at "
                "least 2: correct them."
            )


class UVDROTrainer(BaselineTrainer):
    """min_θ min_η η + (1/α) E[(E[loss | c] − η)₊], the mean loss of the worst share α of the values of a variable c
    (Srivastava et al., 2020).

    Supervision: class labels. There c is what people say of an image; here it is the cluster, within its class, of the
    relevance of the last stage's neurons for the class, so nobody is asked (ours). E[loss | c] is a running mean of
    the cluster's (ours), and the worst case over clusters is exact.
    """

    name = "uv_dro"
    title = "UV-DRO, over relevance clusters"
    paper = "Srivastava et al., 2020, arXiv 2007.06661"
    initial_model = "erm"
    config_class = UVDROConfig
    args: UVDROConfig  # type: ignore[assignment]
    grid: ClassVar[dict[str, list[Any]]] = {
        "learning_rate": [0.3, 1.0],
        "uv_dro_alpha": [0.1, 0.3],
        "uv_dro_clusters": [2, 4],
    }
    wanted_gates: ClassVar[dict[str, str]] = {"weight_range": ">= 0.5"}

    def train(self, *args: Any, **kwargs: Any) -> Any:
        labels = self.train_labels()
        clusters = kmeans_within(self._relevance(), labels, self.args.uv_dro_clusters, seed=self.args.seed)
        _, self.variable = (labels * self.args.uv_dro_clusters + clusters).unique(return_inverse=True)
        drawn = self.sample_weights()
        drawn = torch.ones(len(labels), dtype=torch.double) if drawn is None else drawn
        shares = torch.zeros(int(self.variable.max()) + 1, dtype=torch.double).index_add_(0, self.variable, drawn)
        #: (C,): how often an image of each cluster is drawn, and its running loss; nan before one was seen.
        self.shares = (shares / shares.sum()).float().to(self.args.device)
        self._losses = torch.full_like(self.shares, torch.nan)
        self._range = torch.zeros((), device=self.args.device)
        self._value_of = dict(zip(self.train_idx().tolist(), self.variable.tolist(), strict=True))
        return super().train(*args, **kwargs)

    def _relevance(self) -> Tensor:
        """(N, C), of length 1: relevance of the last stage's neurons for each training image's class."""
        model: Any = self.model
        model.to(self.args.device)
        found = []
        with Explainer(model, batch_size=self.args.per_device_eval_batch_size) as explainer:
            for batch in self.batches(self.train_dataset):
                explained = explainer.explain(batch["pixel_values"], batch["labels"], layer="last", pixels=False)
                assert explained.layer_relevance is not None
                found.append(explained.layer_relevance.sum(dim=1).float().cpu())
        return nn.functional.normalize(torch.cat(found), dim=1)

    def batch_loss(self, model: nn.Module, inputs: dict[str, Tensor], idx: Tensor) -> tuple[Tensor, Any]:
        outputs = model(pixel_values=inputs["pixel_values"])
        losses = nn.functional.cross_entropy(outputs.logits.float(), inputs["labels"], reduction="none")
        values = torch.as_tensor([self._value_of[i] for i in idx.tolist()], device=losses.device)
        one_hot = nn.functional.one_hot(values, len(self.shares)).to(losses.dtype)
        sums = self.accelerator.reduce(torch.stack([one_hot.T @ losses.detach(), one_hot.sum(0)]), reduction="sum")
        means, momentum = sums[0] / sums[1].clamp(min=1), self.args.uv_dro_momentum
        before = torch.where(self._losses.isnan(), means, self._losses)
        self._losses = torch.where(sums[1] > 0, momentum * before + (1 - momentum) * means, self._losses)
        known = torch.where(self._losses.isnan(), self._losses.nanmean(), self._losses)
        ratio = worst_case(known, self.shares, alpha=self.args.uv_dro_alpha) / self.shares
        self._range = torch.maximum(self._range, ratio.max() - ratio.min())
        return (ratio[values] * losses).mean(), outputs

    def gates(self) -> dict[str, float]:
        """The largest difference in the run between the weights of images of two clusters."""
        return {"weight_range": float(self._range)}

    def extra_state(self) -> dict[str, Tensor]:
        """The running losses, so that a resumed run goes on with them."""
        return {"losses": self._losses, "range": self._range}

    def load_extra_state(self, tensors: dict[str, Tensor]) -> None:
        self._losses, self._range = tensors["losses"], tensors["range"]


def worst_case(losses: Tensor, shares: Tensor, *, alpha: float) -> Tensor:
    """(C,): the distribution q ≤ shares / α with the largest Σ q·losses; that is min_η η + (1/α) Σ shares·(loss − η)₊.

    Args:
        losses: (C,).
        shares: (C,), of sum 1.
        alpha: above 0, at most 1.
    """
    order = losses.argsort(descending=True, stable=True)
    most = (shares / alpha)[order]
    before = most.cumsum(0) - most
    filled = torch.minimum(most, (1 - before).clamp(min=0))
    return torch.empty_like(filled).scatter(0, order, filled / filled.sum())
