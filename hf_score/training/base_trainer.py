"""`BaseTrainer`: `transformers.Trainer` for image classifiers, without a way for group labels to get in.

What SCORE and every method that it is compared with share: the columns that training may see, how batches are drawn,
group metrics in evaluation alone, checkpoints that are loaded strictly, and what is published.
"""

from __future__ import annotations

import dataclasses
import json
import os
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np
from huggingface_hub import CommitInfo, HfApi
from torch import Tensor, nn
from transformers import EvalPrediction, PreTrainedModel
from transformers.trainer_utils import EvalLoopOutput

from ..data import ImageCollator
from ..data.identity import check_unique_idx
from ..data.views import Items
from ..evaluation import SELECTION, group_metrics
from ..evaluation.classes import classification_metrics
from ..files import write_text
from ..hub_errors import hub_errors
from ..models import (
    base_model_id,
    check_label_ids,
    check_trainable,
    classes_of_model,
    describe_model,
    load_model,
)
from ..provenance import provenance
from .base_config import GROUP_METRICS, BaseConfig
from .columns import (
    adapted,
    adapted_for_evaluation,
    class_names,
    column,
    refuse_groups_in_selection,
    refuse_groups_in_training,
)
from .convergence import UntilConverged, until_converged
from .declared import Declared
from .inputs import InputTrainer
from .kept_outputs import KeptOutputs

__all__ = ["BaseTrainer"]


class BaseTrainer(Declared, InputTrainer):
    """Fine-tunes an image classifier by cross-entropy on data that carry no group labels.

    Long because all that `Trainer` is overridden in is here.

    Args:
        model: an image classifier of `transformers`, timm-wrapped ones included; or what `load_model` loads, which is
            then loaded for the classes that the training set names, with its image processor.
        args: [`BaseConfig`].
        train_dataset: columns `image` or `pixel_values`, `label` or `labels`, `idx`, and no others; of any kind that
            `hf_score.data.adapt.as_trainable` takes, a stream too. Labels that are words are the model's class names.
            A stream without a length needs `max_steps`.
        eval_dataset: the same, or several by name; or with a `group` column, which adds group metrics to the report.
            One with a `group` column cannot choose the checkpoint.
        group_names: names of the group ids, for the report.
        estimates: label-free estimates of worst-group accuracy to measure at every evaluation without groups, and to
            choose by: [`hf_score.evaluation.Estimates`].
        **kwargs: as for `Trainer`; `processing_class` is the image processor.

    Raises:
        DataError: a training set with any other column, with an `idx` twice, without labels, or of a kind that cannot
            be read; a stream where it cannot be one; or an evaluation set with groups that would choose.
        ModelError: a model with other label ids than a data set's, or that cannot be trained on class labels.
    """

    args: BaseConfig  # type: ignore[assignment]
    #: Kinds of `hf_score.training.supervision.SUPERVISION_KINDS` that it is told beyond class labels.
    supervision_kinds: ClassVar[tuple[str, ...]] = ()
    #: Where a benchmark starts it: from the model before any training on the data set, or after ERM on it.
    initial_model: ClassVar[Literal["pretrained", "erm"]] = "pretrained"
    #: The second model it looks at: ERM's at its end, or after its first epoch.
    second_model: ClassVar[Literal["erm", "early"] | None] = None
    #: Whether the model between two epochs is one the method could end with.
    has_epochs: ClassVar[bool] = True
    config_class: ClassVar[type[BaseConfig]] = BaseConfig
    _tag_names: ClassVar[tuple[str, ...]] = ("hf-score", "shortcut-mitigation")
    #: Whether batches carry `idx`, the stable ids of their images.
    _batches_with_idx: ClassVar[bool] = False

    def __init__(
        self,
        model: PreTrainedModel | str | os.PathLike[str] | None = None,
        args: BaseConfig | None = None,
        *,
        train_dataset: Any = None,
        eval_dataset: Any = None,
        group_names: list[str] | None = None,
        estimates: Callable[[Any], dict[str, float]] | None = None,
        data_collator: Callable | None = None,
        processing_class: Any = None,
        compute_metrics: Callable[[EvalPrediction], dict] | None = classification_metrics,
        **kwargs: Any,
    ) -> None:
        args = self.config_class() if args is None else args
        args = until_converged(args, eval_dataset) if self.has_epochs else dataclasses.replace(args, patience=None)
        refuse_groups_in_training(train_dataset)
        refuse_groups_in_selection(eval_dataset, args)
        self.check_stream(train_dataset, args)
        if isinstance(model, str | os.PathLike):
            loaded = load_model(model, class_names=class_names(train_dataset))
            model, processing_class = loaded.model, processing_class or loaded.processor
        train_dataset, eval_dataset = _together(model, train_dataset, eval_dataset)
        super().__init__(
            model=model,
            args=args,
            train_dataset=train_dataset,
            eval_dataset=eval_dataset,
            data_collator=data_collator or ImageCollator(processing_class, with_idx=self._batches_with_idx),
            processing_class=processing_class,
            compute_metrics=compute_metrics,
            **kwargs,
        )
        if isinstance(self.model, PreTrainedModel):
            self.model.add_model_tags(list(self._tag_names))
        if self.args.patience is not None:
            self.add_callback(UntilConverged())
        self.group_names, self.estimates = group_names, estimates
        self._kept_outputs = KeptOutputs.of(self.model)
        self.results: dict[str, Any] | None = None
        self._num_items_in_batch: Tensor | int | None = None

    # ---- Loss ----

    def batch_loss(self, model: nn.Module, inputs: dict[str, Tensor], idx: Any) -> tuple[Tensor, Any]:
        """The objective of one training micro-batch: the one method that a method of training overrides.

        Args:
            model: in train mode, perhaps wrapped.
            inputs: `pixel_values` (B, 3, H, W) and `labels` (B,).
            idx: (B,), the stable ids of the images; None where the batches carry none.

        Returns:
            a mean over the micro-batch, and the model's outputs. Default: cross-entropy, and `KeptOutputs.loss`.
        """
        with KeptOutputs.recorded(model) as other_logits:
            loss, outputs = super().compute_loss(model, dict(inputs), True, self._num_items_in_batch)
        loss = loss * self.current_gradient_accumulation_steps if self._scales_loss else loss
        if self._kept_outputs is not None:
            loss = loss + self._kept_outputs.loss(other_logits[0], inputs["pixel_values"])
        return loss, outputs

    @property
    def has_own_loss(self) -> bool:
        """Whether `batch_loss` is another than `Trainer`'s; else training is that of `Trainer` to the bit."""
        return type(self).batch_loss is not BaseTrainer.batch_loss

    def compute_loss(
        self,
        model: nn.Module,
        inputs: dict[str, Any],
        return_outputs: bool = False,
        num_items_in_batch: Tensor | int | None = None,
    ) -> Tensor | tuple[Tensor, Any]:
        """`batch_loss` while training with a loss of its own or with outputs to keep, else that of `Trainer`."""
        idx = inputs.pop("idx", None)
        if model.training:
            self.prepare_for_training(model)
        if not (model.training and (self.has_own_loss or self._kept_outputs)):
            return super().compute_loss(model, inputs, return_outputs, num_items_in_batch)
        self._num_items_in_batch = num_items_in_batch
        batch_loss = self.batch_loss if self.has_own_loss else partial(BaseTrainer.batch_loss, self)
        loss, outputs = batch_loss(model, inputs, idx)
        loss = loss / self.current_gradient_accumulation_steps if self._scales_loss else loss
        return (loss, outputs) if return_outputs else loss

    @property
    def _scales_loss(self) -> bool:
        """Whether `Trainer`'s loss is divided by the accumulation steps already, so that `training_step` does not."""
        scaled = getattr(self, "loss_is_scaled_for_ga", None)  # not there in transformers < 5.20
        if scaled is not None:
            return scaled
        counted = self._num_items_in_batch is not None and self.model_accepts_loss_kwargs
        return counted or self.compute_loss_func is not None

    def prepare_for_training(self, model: nn.Module) -> None:
        """BatchNorm in eval mode where asked: here, because `training_step` has just switched all to train mode."""
        if self.args.freeze_batch_norm:
            for module in model.modules():
                if isinstance(module, nn.modules.batchnorm._BatchNorm):
                    module.eval()

    # ---- Evaluation: group labels are read here, after the predictions are made, and nowhere else ----

    def evaluation_loop(self, dataloader: Any, description: str, *args: Any, **kwargs: Any) -> EvalLoopOutput:
        """Add group metrics where the data set has a `group` column, the label-free `selection` where it has none."""
        check_label_ids(self.model, dataloader.dataset, "the evaluation set")
        groups = column(dataloader.dataset, "group")
        if groups is not None:
            kwargs["prediction_loss_only"] = False
        output = super().evaluation_loop(dataloader, description, *args, **kwargs)
        prefix = kwargs.get("metric_key_prefix", "eval")
        assert output.metrics is not None
        if groups is None:
            selection = self.selection_metrics(output.metrics.get(f"{prefix}_worst_class_accuracy"))
            output.metrics.update({f"{prefix}_{name}": value for name, value in selection.items()})
            return output
        names = self.group_names or [str(g) for g in range(max(groups) + 1)]
        predicted = output.predictions[0] if isinstance(output.predictions, tuple) else output.predictions
        metrics = group_metrics(
            np.asarray(predicted).argmax(-1), np.asarray(output.label_ids), np.asarray(groups), group_names=names
        )
        for name, value in metrics.items():
            if isinstance(value, float):
                output.metrics[f"{prefix}_{name}"] = value
        return output

    def selection_metrics(self, worst_class_accuracy: float | None) -> dict[str, float]:
        """What a checkpoint may be chosen by without group labels.

        `selection` is the worst class's accuracy, or `hf_score.evaluation.SELECTION` of the estimates, whichever is
        lower; the estimates are there too, by `estimate_` and their names.
        """
        estimates = {} if self.estimates is None else self.estimates(self.accelerator.unwrap_model(self.model))
        least = [value for value in (worst_class_accuracy, estimates.get(SELECTION)) if value is not None]
        named = {f"estimate_{name}": value for name, value in estimates.items()}
        return {**({"selection": min(least)} if least else {}), **named}

    # ---- Publishing ----

    def create_model_card(
        self,
        language: str | None = None,
        license: str | None = None,
        tags: str | list[str] | None = None,
        model_name: str | None = None,
        finetuned_from: str | None = None,
        tasks: str | list[str] | None = None,
        dataset_tags: str | list[str] | None = None,
        dataset: str | list[str] | None = None,
        dataset_args: str | list[str] | None = None,
    ) -> None:
        """Write hf-score's card in place of the base class's draft, from `results` or from what this trainer knows.

        Of the arguments `license`, `tags`, `model_name`, `finetuned_from` and `dataset` are used.
        """
        if not self.is_world_process_zero():
            return
        from ..report import render_model_card  # the report sits above the trainer and is only needed here

        folder = Path(self.args.output_dir or ".")
        card = render_model_card(
            self._results(dataset),
            model_name=model_name or folder.absolute().name,
            base_model=finetuned_from,
            license=license,
            tags=[tags] if isinstance(tags, str) else tags or (),
            method=self.name,
        )
        write_text(folder / "README.md", card)

    def init_hf_repo(self, token: str | None = None, private: bool | None = None) -> None:
        """`Trainer.init_hf_repo`, with one sentence for what goes wrong."""
        with hub_errors(self.args.hub_model_id or Path(self.args.output_dir or ".").absolute().name):
            super().init_hf_repo(token, private)

    def push_to_hub(
        self,
        commit_message: str | None = "End of training",
        blocking: bool = True,
        token: str | None = None,
        revision: str | None = None,
        private: bool | None = None,
        **kwargs: Any,
    ) -> Any:
        """Save, and upload checkpoint, processor, card and `score_report.json` in one commit, and nothing else.

        Args:
            commit_message, blocking, token, revision, private: as for `Trainer.push_to_hub`.
            **kwargs: for `create_model_card`.

        Returns:
            as `Trainer.push_to_hub`: the commit, or its future; None in all processes but the first.

        Raises:
            HFScoreError: what is wrong, as `hf_score.publishing.push.push_run` says it. The saved files stay.
        """
        from ..publishing.push import push_checkpoint

        folder = Path(self.args.output_dir or ".")
        repo_id = self.hub_model_id or self.args.hub_model_id or folder.absolute().name
        self.callback_handler.on_push_begin(self.args, self.state, self.control)
        with hub_errors(repo_id):
            self.save_model(_internal_call=True)
        if not self.is_world_process_zero():
            return None
        self.create_model_card(**{"model_name": repo_id.split("/")[-1], **kwargs})

        def push() -> CommitInfo:
            return push_checkpoint(
                folder,
                repo_id,
                self._results(kwargs.get("dataset")),
                method=self.name,
                private=self.args.hub_private_repo if private is None else private,
                token=token,
                revision=revision or self.args.hub_revision,
                commit_message=commit_message or "End of training",
            )

        return push() if blocking else HfApi().run_as_future(push)

    def _results(self, dataset: str | list[str] | None = None) -> dict[str, Any]:
        """`results`, or what this trainer knows in their form: one method, one seed, its last evaluation."""
        if self.results is not None:
            return self.results
        from .supervision import in_words  # baselines build on this module

        assert isinstance(self.model, PreTrainedModel)
        evaluations = [entry for entry in self.state.log_history if "eval_accuracy" in entry]
        last = evaluations[-1] if evaluations else {}
        metrics = {name: last[f"eval_{name}"] for name in ("accuracy", *GROUP_METRICS) if f"eval_{name}" in last}
        runtimes = [entry["train_runtime"] for entry in self.state.log_history if "train_runtime" in entry]
        run = {"seed": self.args.seed, "metrics": metrics, "train_seconds": sum(runtimes) or None}
        config = self.model.config
        started_from = config._name_or_path or ""
        dataset = dataset[0] if isinstance(dataset, list) and dataset else dataset
        info = getattr(self.train_dataset, "info", None)
        return {
            **provenance(),
            "model": {
                "name": Path(started_from).name or type(self.model).__name__,
                "base_model": base_model_id(started_from),
                **describe_model(self.model),
            },
            "dataset": {
                "name": dataset or getattr(info, "dataset_name", None) or "data without a name",
                "split": "evaluation",
                "class_names": list(classes_of_model(self.model).values()),
            },
            "config": json.loads(json.dumps(self.args.described(), default=str)),
            "seeds": [self.args.seed],
            "methods": {
                self.name: {"label": self.title, "supervision": in_words(self.supervision_kinds), "runs": [run]}
            },
        }


def _together(model: Any, train_dataset: Any, eval_dataset: Any) -> tuple[Any, Any]:
    """The data sets as the trainer reads them, once they and the model go together."""
    check_trainable(model)
    train_dataset, eval_dataset = adapted(train_dataset, model), adapted_for_evaluation(eval_dataset, model)
    if not isinstance(train_dataset, Items) or train_dataset.is_listed:
        check_unique_idx(train_dataset, "the training set")
    check_label_ids(model, train_dataset, "the training set")
    for dataset in eval_dataset.values() if isinstance(eval_dataset, dict) else [eval_dataset]:
        check_label_ids(model, dataset, "the evaluation set")
    return train_dataset, eval_dataset
