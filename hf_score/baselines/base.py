"""What every baseline shares: a configuration, and a trainer that declares its supervision."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from ..errors import DataError, SupervisionError
from ..models import classifier_head, eval_mode
from ..training.base_config import BaseConfig
from ..training.base_trainer import BaseTrainer
from ..training.columns import class_labels, column
from ..training.supervision import Supervision

__all__ = ["BaselineConfig", "BaselineTrainer"]


@dataclass
class BaselineConfig(BaseConfig):
    """Configuration of [`BaselineTrainer`]; a baseline adds fields of its own, with its name in front."""


class BaselineTrainer(BaseTrainer):
    """A method that SCORE is compared with: it overrides `batch_loss`, `sample_weights` or `train`.

    Args:
        model: where it starts, as `initial_model` says: the pretrained model with a new head, or the ERM model.
        args: the method's configuration.
        supervision: what the method is told beyond class labels. It can read the kinds that it declares, no others.
        reference_model: the second model that some methods look at, as `second_model` says; never trained.
        **kwargs: as for [`BaseTrainer`].

    Raises:
        SupervisionError: declared supervision or a reference model that is missing.
    """

    #: Authors, year, arXiv id.
    paper: ClassVar[str]
    config_class = BaselineConfig

    _batches_with_idx = True
    takes_streams = False

    def __init__(
        self,
        model: PreTrainedModel | str | os.PathLike[str] | None = None,
        args: BaselineConfig | None = None,
        *,
        supervision: Supervision | None = None,
        reference_model: PreTrainedModel | None = None,
        **kwargs: Any,
    ) -> None:
        self.supervision = (supervision or Supervision()).declared_by(self.title, self.supervision_kinds)
        if self.second_model is not None and reference_model is None:
            raise SupervisionError(
                f"{self.title} looks at a second model ({self.second_model}): give reference_model."
            )
        super().__init__(model, args, **kwargs)
        self._penalties: list[Tensor] = []
        self.reference_model = reference_model if self.second_model is not None else None
        if self.reference_model is not None:
            self.reference_model.to(self.args.device).eval().requires_grad_(False)  # type: ignore[arg-type]

    # ---- What methods say of themselves ----

    def note_penalty(self, relative: Tensor) -> None:
        """Keep this step's penalty, as a share of the starting model's, for `penalty_left`."""
        self._penalties.append(relative.detach())

    @property
    def penalty_left(self) -> float:
        """The penalty in the last quarter of the steps, at most eight, as a share of the starting model's."""
        if not self._penalties:
            return float("nan")
        last = min(8, max(1, len(self._penalties) // 4))
        return float(torch.stack(self._penalties[-last:]).mean())

    # ---- What methods look at ----

    def forward_with_features(self, model: nn.Module, pixel_values: Tensor) -> tuple[Any, Tensor]:
        """The outputs, and the representation (B, D) that the classifier's linear head takes."""
        caught: list[Tensor] = []
        head = classifier_head(self.accelerator.unwrap_model(model))
        handle = head.register_forward_pre_hook(lambda module, args: caught.append(args[0]))
        try:
            outputs = model(pixel_values=pixel_values)
        finally:
            handle.remove()
        return outputs, caught[0]

    def train_idx(self) -> Tensor:
        """(N,): the stable ids of the training images, in the data set's order."""
        ids = column(self.train_dataset, "idx")
        if ids is None:
            raise DataError("the training set has no column idx: use the views of hf_score.data.load_data.")
        return torch.as_tensor(ids)

    def train_labels(self) -> Tensor:
        """(N,): their class ids."""
        labels = class_labels(self.train_dataset)
        if labels is None:
            raise DataError(f"{self.title} needs a training set with a label column that can be read: add one.")
        return torch.as_tensor(labels)

    def train_groups(self) -> Tensor:
        """(N,): their group ids; only for a method that declares `train_groups`."""
        groups = self.supervision.train_groups
        return torch.as_tensor([groups[int(idx)] for idx in self.train_idx()])

    def predict_logits(self, model: nn.Module, dataset: Any) -> Tensor:
        """(N, K) float32 on the CPU, of all images of `dataset` in its order, in eval mode and without gradients."""
        return self.predict_features(model, dataset)[0]

    def predict_features(self, model: nn.Module, dataset: Any) -> tuple[Tensor, Tensor]:
        """Logits (N, K) and representations (N, D), as `predict_logits`."""
        model.to(self.args.device)
        logits, features = [], []
        with eval_mode(model), torch.no_grad():
            for batch in self.batches(dataset):
                with self.compute_loss_context_manager():
                    outputs, taken = self.forward_with_features(model, batch["pixel_values"])
                logits.append(outputs.logits.float().cpu())
                features.append(taken.float().cpu())
        return torch.cat(logits), torch.cat(features)

    def balanced(self, weights: Tensor) -> Tensor:
        """(N,): the weights, where `class_balanced` is asked for scaled to the same sum in every class."""
        if not self.args.class_balanced:
            return weights
        labels = self.train_labels()
        sums = torch.zeros(int(labels.max()) + 1, dtype=weights.dtype).index_add_(0, labels, weights)
        return weights / sums[labels]

    def batches(self, dataset: Any) -> Iterator[dict[str, Tensor]]:
        """All images of `dataset` in its order, in batches of the evaluation's size, on the trainer's device."""
        size = self.args.per_device_eval_batch_size
        for start in range(0, len(dataset), size):
            batch = self.data_collator([dataset[i] for i in range(start, min(start + size, len(dataset)))])
            yield {name: value.to(self.args.device) for name, value in batch.items()}

    def replace_head(self, weight: Tensor, bias: Tensor) -> None:
        """Put weight (K, D) and bias (K,) into the model's linear head."""
        head = classifier_head(self.model)  # type: ignore[arg-type]
        with torch.no_grad():
            head.weight.copy_(weight.to(head.weight))
            head.bias.copy_(bias.to(head.bias))
