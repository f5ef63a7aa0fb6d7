"""`BaseConfig`: what every method's configuration shares, and what none may ask for."""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from typing import Any

from transformers import TrainingArguments
from transformers.trainer_utils import HubStrategy

from ..errors import HFScoreError

__all__ = ["GROUP_METRICS", "BaseConfig"]

#: Metrics that need group labels (`hf_score.evaluation.group_metrics`); none may choose a checkpoint.
GROUP_METRICS = ("worst_group_accuracy", "mean_group_accuracy", "weighted_accuracy", "group_accuracy")
_DESCRIBED = (
    "seed",
    "num_train_epochs",
    "max_steps",
    "learning_rate",
    "per_device_train_batch_size",
    "gradient_accumulation_steps",
    "weight_decay",
    "lr_scheduler_type",
    "warmup_steps",
    "bf16",
    "fp16",
)


@dataclass
class BaseConfig(TrainingArguments):
    """Configuration of [`BaseTrainer`]: all of `transformers.TrainingArguments`, and the fields below.

    Parameters that control how long to train:
        patience: stop once so many evaluations, one per epoch unless `eval_strategy` says otherwise, have not raised
            the label-free `selection` (or `metric_for_best_model`), and end with the weights of the best one; of
            equals, the first. `num_train_epochs` or `max_steps` is then the most, and what the schedule of the
            learning rate spans. Checkpoints are saved as often, unless `save_strategy` is `"no"`. Methods without
            epochs take no notice. Default: train to the end, and keep the weights of the end.

    Parameters that control what may be learned from:
        freeze_batch_norm: keep normalisation layers with running statistics in eval mode.
        class_balanced: draw training images (with replacement) so that every class is seen equally often. Class labels
            alone decide.
        allow_group_oracle: let a metric that needs group labels choose the checkpoint. The result is an oracle's and
            is marked so wherever it is shown.

    Defaults that differ from `TrainingArguments`: `remove_unused_columns=False` (the collator reads the image column)
    and `hub_strategy="end"` (what is pushed is a trained model, in one commit).
    """

    patience: int | None = field(
        default=None,
        metadata={
            "help": "Stop after so many evaluations without a better label-free estimate, with the best weights."
        },
    )
    freeze_batch_norm: bool | None = field(default=False, metadata={"help": "BatchNorm in eval mode while training."})
    class_balanced: bool | None = field(
        default=False, metadata={"help": "Draw training images so that classes are seen equally."}
    )
    allow_group_oracle: bool = field(
        default=False, metadata={"help": "Let group labels choose the checkpoint. Marked as oracle everywhere."}
    )
    remove_unused_columns: bool = field(default=False, metadata={"help": "The collator reads the image column."})

    hub_strategy: str = field(default="end", metadata={"help": "Only `end`: nothing unfinished is pushed."})

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.push_to_hub and self.hub_strategy != "end":
            raise HFScoreError(
                f"hub_strategy is {HubStrategy(self.hub_strategy).value!r}, which would push unfinished models, with "
                "training_args.bin and its local paths: leave it at 'end'."
            )
        if self.hub_token is not None:
            raise HFScoreError(
                "hub_token would be saved in clear in training_args.bin and pushed: leave it out and set HF_TOKEN "
                "in the environment, or log in with `hf auth login`."
            )
        if self.patience is not None and self.patience < 1:
            raise HFScoreError(f"patience is {self.patience}: give a number of at least 1, or leave it out.")
        metric = (self.metric_for_best_model or "").removeprefix("eval_")
        if metric.startswith(GROUP_METRICS) and not self.allow_group_oracle:
            raise HFScoreError(
                f"metric_for_best_model is {metric!r}, which needs group labels: choose a label-free metric such as "
                "'selection', or set allow_group_oracle=True to report an oracle's result."
            )

    def described(self) -> dict[str, Any]:
        """The fields that decide what comes out, as they go into results and model cards."""
        return {**self.own_fields(), **{name: getattr(self, name) for name in _DESCRIBED}}

    def own_fields(self) -> dict[str, Any]:
        """The fields beyond `TrainingArguments`."""
        inherited = {f.name for f in fields(TrainingArguments)}
        return {f.name: getattr(self, f.name) for f in fields(self) if f.name not in inherited}
