"""What every baseline shares: a configuration, a trainer that declares its supervision, and a registry of both."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from ..base_config import BaseConfig
from ..base_trainer import BaseTrainer, class_labels, column_names
from ..errors import DataError, SupervisionError
from .supervision import Supervision

__all__ = ["BaselineConfig", "BaselineTrainer"]


@dataclass
class BaselineConfig(BaseConfig):
    """Configuration of [`BaselineTrainer`]; a baseline adds fields of its own, with its name in front."""


class BaselineTrainer(BaseTrainer):
    """A method that SCORE is compared with.

    Args:
        model: where the method starts: the pretrained model with a new head, or the ERM model, as `starts_from` says.
        args: the method's configuration.
        supervision: what the method is told beyond class labels. It can read the kinds that it declares, no others.
        reference_model: the second model that some methods look at, as `reference` says; never trained.
        **kwargs: as for [`BaseTrainer`].

    Raises:
        SupervisionError: declared supervision or a reference model that is missing.
    """

    #: How tables and plans call it.
    name: ClassVar[str]
    title: ClassVar[str]
    #: Authors, year, arXiv id.
    paper: ClassVar[str]
    #: Kinds of `hf_score.baselines.supervision.KINDS`; every method has class labels.
    supervision_kinds: ClassVar[tuple[str, ...]] = ()
    #: As in the paper: the model before any training on this data set, or after ERM on it.
    starts_from: ClassVar[Literal["pretrained", "erm"]] = "pretrained"
    #: The ERM model at its end, or after its first epoch, to compare with.
    reference: ClassVar[Literal["erm", "early"] | None] = None
    config_class: ClassVar[type[BaselineConfig]] = BaselineConfig

    _batches_with_idx = True

    def __init__(
        self,
        model: PreTrainedModel | None = None,
        args: BaselineConfig | None = None,
        *,
        supervision: Supervision | None = None,
        reference_model: PreTrainedModel | None = None,
        **kwargs: Any,
    ) -> None:
        args = self.config_class() if args is None else args
        self.supervision = (supervision or Supervision()).declared_by(self.title, self.supervision_kinds)
        if self.reference is not None and reference_model is None:
            raise SupervisionError(f"{self.title} looks at a second model ({self.reference}): give reference_model.")
        super().__init__(model, args, **kwargs)
        self.reference_model = reference_model if self.reference is not None else None
        if self.reference_model is not None:
            self.reference_model.to(self.args.device).eval().requires_grad_(False)  # type: ignore[arg-type]

    def batch_loss(self, model: nn.Module, inputs: dict[str, Tensor], idx: Tensor) -> tuple[Tensor, Any]:
        """The method's objective for one training micro-batch.

        Args:
            model: in train mode, perhaps wrapped.
            inputs: `pixel_values` (B, 3, H, W) and `labels` (B,).
            idx: (B,), the stable ids of the images.

        Returns:
            a mean over the batch, and the model's outputs. Default: cross-entropy.
        """
        outputs = model(pixel_values=inputs["pixel_values"])
        return nn.functional.cross_entropy(outputs.logits.float(), inputs["labels"]), outputs

    def compute_loss(
        self,
        model: nn.Module,
        inputs: dict[str, Any],
        return_outputs: bool = False,
        num_items_in_batch: Tensor | int | None = None,
    ) -> Tensor | tuple[Tensor, Any]:
        """`batch_loss` while training, the base class's while evaluating."""
        idx = inputs.pop("idx")
        if not model.training:
            return super().compute_loss(model, inputs, return_outputs, num_items_in_batch)
        self.prepare_for_training(model)
        loss, outputs = self.batch_loss(model, inputs, idx)
        loss = self._batch_mean(loss, num_items_in_batch)
        return (loss, outputs) if return_outputs else loss

    # ---- What methods look at ----

    def train_idx(self) -> Tensor:
        """(N,): the stable ids of the training images, in the data set's order."""
        return _read_column(self.train_dataset, "idx")

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
        was_training = model.training
        model.eval()
        size = self.args.per_device_eval_batch_size
        logits = []
        with torch.no_grad():
            for start in range(0, len(dataset), size):
                batch = self.data_collator([dataset[i] for i in range(start, min(start + size, len(dataset)))])
                pixel_values = batch["pixel_values"].to(self.args.device)
                with self.compute_loss_context_manager():
                    logits.append(model(pixel_values=pixel_values).logits.float().cpu())
        model.train(was_training)
        return torch.cat(logits)


def _read_column(dataset: Any, name: str) -> Tensor:
    if hasattr(dataset, name):
        return torch.as_tensor(getattr(dataset, name)).cpu()
    if name not in (column_names(dataset) or ()):
        raise DataError(f"the training set has no column {name}: use the views of hf_score.data.load_data.")
    if hasattr(dataset, "column_names"):
        return torch.as_tensor(dataset[name][:])
    return torch.as_tensor([int(item[name]) for item in dataset])
