"""DCWP, debiased contrastive weight pruning: look for the subnetwork that what a biased model gets wrong asks for."""

from __future__ import annotations

import copy
from dataclasses import dataclass, field
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from ..errors import HFScoreError
from ..training.samplers import WeightedSampler
from .base import BaselineConfig, BaselineTrainer
from .cnc import contrastive_loss
from .lff import generalised_cross_entropy
from .pruning import TOTAL_STEP, GatedModel
from .second_model import fit_second, steps_of

__all__ = ["DCWPConfig", "DCWPTrainer"]


@dataclass
class DCWPConfig(BaselineConfig):
    """Configuration of [`DCWPTrainer`].

    Parameters:
        dcwp_sparsity: λ₁, weight of the mean gate logit.
        dcwp_contrastive: weight of the contrastive loss (theirs: 0.05).
        dcwp_temperature: of its similarities (theirs: 0.07).
        dcwp_pruning_upweight: how many times as often an error is drawn while gates are learned (theirs: 80).
        dcwp_upweight: λ_up, the same while weights are trained again.
        dcwp_steps_share: steps of the biased model, and of the gates, as a share of the run's (ours).
        dcwp_mrm: MRM (Zhang et al., 2021, arXiv 2106.02890) instead: no image is drawn more often or contrasted, and
            the weights of before ERM are restored under the mask.
    """

    dcwp_sparsity: float = field(default=0.1, metadata={"help": "Weight of the mean gate logit."})
    dcwp_contrastive: float = field(default=0.05, metadata={"help": "Weight of the contrastive loss."})
    dcwp_temperature: float = field(default=0.07, metadata={"help": "Temperature of the similarities."})
    dcwp_pruning_upweight: float = field(default=80.0, metadata={"help": "Weight of errors, while gates are learned."})
    dcwp_upweight: float = field(default=20.0, metadata={"help": "Weight of errors, while weights are trained."})
    dcwp_steps_share: float = field(default=0.5, metadata={"help": "Steps of biased model and gates, of the run's."})
    dcwp_mrm: bool = field(default=False, metadata={"help": "MRM: uniform weights, and the weights before ERM."})

    def __post_init__(self) -> None:
        super().__post_init__()
        if min(self.dcwp_pruning_upweight, self.dcwp_upweight) < 1 or min(self.dcwp_steps_share, 1) <= 0:
            raise HFScoreError(
                "dcwp_pruning_upweight and dcwp_upweight must be at least 1, dcwp_steps_share above 0: correct them."
            )
        if min(self.dcwp_sparsity, self.dcwp_contrastive) < 0 or self.dcwp_temperature <= 0:
            raise HFScoreError(
                "dcwp_sparsity and dcwp_contrastive must be at least 0, dcwp_temperature above 0: correct them."
            )


class DCWPTrainer(BaselineTrainer):
    """Learns gates on the weights of the ERM model by cross-entropy + λ₁ · their mean logit + a contrastive loss, on
    batches in which what a biased model gets wrong is drawn 80 times as often, then trains the kept weights on batches
    in which it is drawn λ_up times as often (Park et al., 2023).

    Supervision: class labels. The biased model is trained by generalised cross-entropy (q = 0.7). Positives of an
    anchor are images of its class where it or they are an error. As in their code for the gates (`Gate`). Ours: in
    few steps the gates' learning rate is such that it sums to theirs; sparsity is of the mean logit.
    """

    name = "dcwp"
    title = "DCWP"
    paper = "Park et al., 2023, arXiv 2210.05247"
    second_model = "erm"
    has_epochs = False
    config_class = DCWPConfig
    args: DCWPConfig  # type: ignore[assignment]
    grid: ClassVar[dict[str, list[Any]]] = {
        "learning_rate": [0.3, 1.0],
        "dcwp_upweight": [10.0, 50.0],
        "dcwp_sparsity": [0.1, 10.0],
    }
    wanted_gates: ClassVar[dict[str, str]] = {
        "pruned_share": ">= 0.01",
        "kept_share": ">= 0.05",
    }

    def train(self, *args: Any, **kwargs: Any) -> Any:
        if self.accelerator.num_processes > 1:
            raise HFScoreError("DCWP trains a second model that several processes would not share: run one process.")
        model: Any = self.model
        assert self.reference_model is not None
        before = copy.deepcopy(model.state_dict())
        self._errors = torch.zeros(len(self.train_labels()), dtype=torch.bool)
        if not self.args.dcwp_mrm:
            self._errors = self._biased_errors()
        self._error_of = dict(zip(self.train_idx().tolist(), self._errors.tolist(), strict=True))
        model.load_state_dict(self.reference_model.state_dict())
        model.to(self.args.device)
        gated = GatedModel(model)
        try:
            self._learn_gates(model, gated)
            if self.args.dcwp_mrm:
                self._restore(model, before)
            output = super().train(*args, **kwargs)
        finally:
            self.kept = gated.kept
            gated.cut()
        return output

    def _biased_errors(self) -> Tensor:
        """(N,) bool: what the biased model gets wrong."""
        model: Any = copy.deepcopy(self.model)
        fit_second(self, model, steps=self._steps, loss=lambda x, y: generalised_cross_entropy(x, y, q=0.7))
        return self.predict_logits(model, self.train_dataset).argmax(1) != self.train_labels()

    @property
    def _steps(self) -> int:
        return max(1, round(self.args.dcwp_steps_share * steps_of(self)))

    def _learn_gates(self, model: nn.Module, gated: GatedModel) -> None:
        """The gates alone, then `settle` them."""
        dataset: Any = self.train_dataset
        optimizer = torch.optim.Adam(gated.logits(), lr=TOTAL_STEP / self._steps)
        weights = self._weights(self.args.dcwp_pruning_upweight)
        sampler, size = WeightedSampler(weights, seed=self.args.seed), self.args.per_device_train_batch_size
        order: list[int] = []
        for step in range(self._steps):
            if len(order) < size:
                sampler.set_epoch(step)
                order = list(sampler)
            rows, order = order[:size], order[size:]
            batch = self.data_collator([dataset[row] for row in rows])
            batch = {name: value.to(self.args.device) for name, value in batch.items()}
            model.train()
            self.prepare_for_training(model)
            loss, _ = self.batch_loss(model, batch, batch["idx"])
            optimizer.zero_grad()
            (loss + self.args.dcwp_sparsity * gated.mean_logit()).backward()
            optimizer.step()
        gated.settle()
        model.zero_grad()

    def _restore(self, model: nn.Module, before: dict[str, Tensor]) -> None:
        """The weights of before ERM, under the mask."""
        names = {name.replace(".parametrizations.weight.original", ".weight"): name for name in model.state_dict()}
        kept = {names[name]: value for name, value in before.items()}
        model.load_state_dict({**model.state_dict(), **kept})

    def _weights(self, factor: float) -> Tensor:
        return self.balanced(torch.where(self._errors, factor, 1.0).double())

    def sample_weights(self) -> Tensor:
        """(N,): λ_up for the errors of the biased model, 1 elsewhere."""
        return self._weights(self.args.dcwp_upweight)

    def batch_loss(self, model: nn.Module, inputs: dict[str, Tensor], idx: Tensor) -> tuple[Tensor, Any]:
        outputs, features = self.forward_with_features(model, inputs["pixel_values"])
        labels = inputs["labels"]
        loss = nn.functional.cross_entropy(outputs.logits.float(), labels)
        if self.args.dcwp_mrm:
            return loss, outputs
        errors = torch.as_tensor([self._error_of[i] for i in idx.tolist()], device=labels.device)
        others = ~torch.eye(len(labels), dtype=torch.bool, device=labels.device)
        contrastive = contrastive_loss(
            features,
            positives=(labels[:, None] == labels) & (errors[:, None] | errors) & others,
            negatives=labels[:, None] != labels,
            temperature=self.args.dcwp_temperature,
        )
        return loss + self.args.dcwp_contrastive * contrastive, outputs

    def gates(self) -> dict[str, float]:
        """Shares of the gated weights."""
        return {"pruned_share": 1 - self.kept, "kept_share": self.kept}
