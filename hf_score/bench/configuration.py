"""The configuration a run really has: the plan's fields and the defaults of all others that decide its result.

It is part of what a row is recognised by, so that a changed default is another run.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Mapping
from typing import Any

from ..errors import HFScoreError
from ..training import BaseConfig, SCOREConfig

__all__ = ["make_config", "resolved"]

#: What every training of a benchmark has where the plan says nothing else.
_TRAINING: dict[str, Any] = {
    "save_strategy": "no",
    "logging_strategy": "no",
    "report_to": "none",
    "disable_tqdm": True,
    "dataloader_pin_memory": False,
    "per_device_train_batch_size": 32,
    "per_device_eval_batch_size": 128,
}
#: Of a process, set as soon as a configuration has them: they are noted, not tried, when a plan is read.
_PRECISION = ("tf32", "bf16", "fp16")
#: Fields of `TrainingArguments` that decide a result; a plan may name others.
_DECIDE = (
    "num_train_epochs",
    "max_steps",
    "learning_rate",
    "lr_scheduler_type",
    "lr_scheduler_kwargs",
    "warmup_steps",
    "weight_decay",
    "optim",
    "optim_args",
    "adam_beta1",
    "adam_beta2",
    "adam_epsilon",
    "max_grad_norm",
    "label_smoothing_factor",
    "per_device_train_batch_size",
    "gradient_accumulation_steps",
)


def make_config(kind: type[BaseConfig], fields: Mapping[str, Any], **place: Any) -> Any:
    """A method's configuration in a benchmark.

    Args:
        kind: its class.
        fields: what the plan says.
        **place: where and with which seed it trains.

    Raises:
        HFScoreError: a field that the configuration has not, or a value that it refuses.
    """
    try:
        return kind(**{**_TRAINING, **place, **fields})
    except TypeError as error:
        raise HFScoreError(f"{kind.__name__} cannot be made ({error}): correct the plan.") from error


def resolved(kind: type[BaseConfig], fields: Mapping[str, Any]) -> dict[str, Any]:
    """All fields that decide what a training comes to, those left at their defaults too; as JSON has them.

    Args:
        kind: the method's configuration class.
        fields: what the plan says.

    Raises:
        HFScoreError: as `make_config`.
    """
    return json.loads(_resolved(kind, json.dumps(dict(fields), sort_keys=True)))  # type: ignore[arg-type]


@functools.lru_cache(maxsize=4096)
def _resolved(kind: type[BaseConfig], fields_as_json: str) -> str:
    fields = json.loads(fields_as_json)
    tried = {name: value for name, value in fields.items() if name not in _PRECISION}
    config = make_config(kind, tried, output_dir="resolved", use_cpu=True)
    if isinstance(config, SCOREConfig):
        config = config.with_defaults(samples=True)
    found = {name: getattr(config, name, None) for name in (*_DECIDE, *tried)}
    found |= config.own_fields() | {name: fields.get(name, False) for name in _PRECISION}
    return json.dumps(found, default=str)
