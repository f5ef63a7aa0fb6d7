"""`BaseConfig`: what every method's configuration shares, and what none may ask for."""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from typing import Any

from transformers import TrainingArguments

from .errors import HFScoreError

__all__ = ["GROUP_METRICS", "BaseConfig"]

#: Metrics that need group labels (`hf_score.metrics.group_metrics`); none may choose a checkpoint.
GROUP_METRICS = ("worst_group_accuracy", "mean_group_accuracy", "weighted_accuracy", "group_accuracy")


@dataclass
class BaseConfig(TrainingArguments):
    """Configuration of [`BaseTrainer`]: all of `transformers.TrainingArguments`, and the fields below.

    Parameters that control what may be learned from:
        freeze_batch_norm: keep normalisation layers with running statistics in eval mode.
        class_balanced: draw training images (with replacement) so that every class is seen equally often. Class labels
            alone decide.
        allow_group_oracle: let a metric that needs group labels choose the checkpoint. The result is an oracle's and
            is marked so wherever it is shown.

    Default that differs from `TrainingArguments`: `remove_unused_columns=False` (the collator reads the image column).
    """

    freeze_batch_norm: bool | None = field(default=False, metadata={"help": "BatchNorm in eval mode while training."})
    class_balanced: bool | None = field(
        default=False, metadata={"help": "Draw training images so that classes are seen equally."}
    )
    allow_group_oracle: bool = field(
        default=False, metadata={"help": "Let group labels choose the checkpoint. Marked as oracle everywhere."}
    )
    remove_unused_columns: bool = field(default=False, metadata={"help": "The collator reads the image column."})

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.hub_token is not None:
            raise HFScoreError(
                "hub_token would be saved in clear in training_args.bin and pushed: leave it out and set HF_TOKEN "
                "in the environment, or log in with `hf auth login`."
            )
        metric = (self.metric_for_best_model or "").removeprefix("eval_")
        if metric.startswith(GROUP_METRICS) and not self.allow_group_oracle:
            raise HFScoreError(
                f"metric_for_best_model is {metric!r}, which needs group labels: choose a label-free metric such as "
                "'selection', or set allow_group_oracle=True to report an oracle's result."
            )

    def own_fields(self) -> dict[str, Any]:
        """The fields beyond `TrainingArguments`, as they go into results and model cards."""
        inherited = {f.name for f in fields(TrainingArguments)}
        return {f.name: getattr(self, f.name) for f in fields(self) if f.name not in inherited}
