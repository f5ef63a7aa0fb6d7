"""Loading an image classifier for a task, and what the other rooms need to know of one."""

from .checks import check_label_ids, check_model, check_sizes, check_trainable
from .loading import (
    LoadedModel,
    base_model_id,
    checkpoint_digest,
    checkpoint_state,
    classifier_head,
    describe_model,
    load_checkpoint,
    load_model,
    model_fingerprint,
    own_class_names,
)
from .modes import eval_mode
from .yes_no import YesNoHead, classes_of_model, yes_no_head

__all__ = [
    "LoadedModel",
    "YesNoHead",
    "base_model_id",
    "check_label_ids",
    "check_model",
    "check_sizes",
    "check_trainable",
    "checkpoint_digest",
    "checkpoint_state",
    "classes_of_model",
    "classifier_head",
    "describe_model",
    "eval_mode",
    "load_checkpoint",
    "load_model",
    "model_fingerprint",
    "own_class_names",
    "yes_no_head",
]
