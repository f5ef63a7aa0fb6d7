"""Yes/no outputs: a classifier with one output and a sigmoid, and one label of a multi-label classifier.

Such an output z is read as two classes with the logits (−z/2, z/2), whose softmax is (1 − sigmoid(z), sigmoid(z)) and
whose cross-entropy is the output's binary cross-entropy. So scans, margins, explanations, penalties and metrics see a
classifier of two classes, while weights, configuration and what is saved stay those of the stock checkpoint.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers.loss.loss_utils import ForSequenceClassificationLoss

from ..data.classes import class_key, is_unnamed, label_numbers
from ..errors import ModelError
from .heads import linear_head

__all__ = [
    "YesNoHead",
    "classes_of_model",
    "find_output",
    "has_yes_no_outputs",
    "read_output",
    "restore_output",
    "saved_classes",
    "yes_no_head",
]

logger = logging.getLogger(__name__)

#: Where the configuration of a saved checkpoint says which output is read, and as which classes.
CONFIG_KEY = "hf_score_output"
_NO = ("no", "none", "false", "negative", "absent", "normal", "healthy", "0")
_YES = ("yes", "true", "positive", "present", "1")


class YesNoHead(nn.Linear):
    """The linear head (L, D) of a model with yes/no outputs, which gives the logits (B, 2) of one of them.

    Attributes:
        output: which of the L outputs it is.
        present: the class, 0 or 1, that the output speaks for.
    """

    output: int
    present: int

    @classmethod
    def of(cls, head: nn.Linear, *, output: int, present: int) -> YesNoHead:
        """A head with the very parameters of `head`."""
        with torch.device("meta"):
            made = cls(head.in_features, head.out_features, bias=head.bias is not None)
        made.weight, made.bias = head.weight, head.bias
        made.output, made.present = output, present
        return made.train(head.training)

    def forward(self, input: Tensor) -> Tensor:
        """(B, 2) of the representation (B, D): −z/2 for the class absent, z/2 for the class present."""
        signs = torch.tensor([-0.5, 0.5] if self.present else [0.5, -0.5]).to(self.weight)
        bias = None if self.bias is None else signs * self.bias[self.output]
        return nn.functional.linear(input, signs[:, None] * self.weight[self.output], bias)

    def others(self, input: Tensor) -> Tensor:
        """(B, L − 1): the outputs that are not read, of the representation (B, D)."""
        kept = [i for i in range(self.out_features) if i != self.output]
        return nn.functional.linear(input, self.weight, self.bias)[:, kept]


def find_output(
    config: Any, class_names: Sequence[str] | None, label: str | None, name: str
) -> tuple[int, int] | None:
    """Which output of a checkpoint is read, and the class it speaks for; None for a model with an output per class.

    Args:
        config: the checkpoint's own.
        class_names: the two classes of the task.
        label: the output of a multi-label model, by name or number.
        name: what the user calls the checkpoint.

    Raises:
        ModelError: no or no such label, an output that is no logit, or it cannot be told which class it speaks for.
    """
    own = [str(config.id2label[i]) for i in range(config.num_labels)]
    saved = getattr(config, CONFIG_KEY, None)
    several = config.problem_type == "multi_label_classification" and len(own) > 1
    if label is not None and config.problem_type is None and len(own) > 1:
        logger.warning("'%s' does not say that its outputs have a sigmoid each; taken to be so.", name)
        several = True
    if label is None and several and saved is None and class_names is not None:
        raise ModelError(
            f"'{name}' answers yes or no for each of {_some(own)} (multi-label); choose the one to look at with "
            "`label`."
        )
    if not several and len(own) != 1:
        if label is not None:
            raise ModelError(
                f"`label` is {label!r}, but '{name}' has one answer out of {_some(own)} and no multi-label head; "
                "leave it out."
            )
        return None
    if class_names is None:
        return None
    if len(class_names) != 2:
        if label is None and not several:
            return None  # a body for a new head
        raise ModelError(
            f"One output of '{name}' is read as two classes, but the data has {len(class_names)}: "
            f"{_some(class_names)}; give data with two classes, absent and present."
        )
    if config.problem_type == "regression":
        raise ModelError(
            f"The one output of '{name}' was trained by regression (problem_type) and is no logit of a class; train "
            "it with binary cross-entropy, or start from another model."
        )
    output = int((saved or {}).get("output", 0))  # as it was read when it was saved
    if label is not None:
        output = _output(own, label, name)
    if saved is not None and _is_of(saved, output, class_names):
        return output, int(saved["present"])
    return output, _present(own[output], class_names, name)


def has_yes_no_outputs(config: Any) -> bool:
    """Whether a checkpoint's outputs answer yes or no, each with a sigmoid."""
    return config.num_labels == 1 or config.problem_type == "multi_label_classification"


def saved_classes(config: Any) -> list[str] | None:
    """The two classes as which an output was read when the checkpoint was saved."""
    saved = getattr(config, CONFIG_KEY, None)
    return None if saved is None else saved["class_names"]


def read_output(model: PreTrainedModel, output: int, present: int, class_names: Sequence[str]) -> None:
    """Have the model give the logits (B, 2) of one of its yes/no outputs, and be trained by their cross-entropy.

    The configuration remembers it, for `restore_output`.

    Raises:
        ModelError: the model has no linear head, or several.
    """
    path, head = linear_head(model)
    model.set_submodule(path, YesNoHead.of(head, output=output, present=present))
    model.loss_function = _two_class_loss
    config: Any = model.config
    config.problem_type = "multi_label_classification"  # each output has a sigmoid of its own, also where it is one
    setattr(config, CONFIG_KEY, {"output": output, "present": present, "class_names": list(class_names)})


def restore_output(model: PreTrainedModel) -> PreTrainedModel:
    """The model, read as it was when it was saved: `read_output` again, if it was used."""
    saved = getattr(model.config, CONFIG_KEY, None)
    if saved is not None and yes_no_head(model) is None:
        read_output(model, **saved)
    return model


def yes_no_head(model: nn.Module) -> YesNoHead | None:
    """The head by which one output is read, None for a model with an output per class."""
    return next((module for module in model.modules() if isinstance(module, YesNoHead)), None)


def classes_of_model(model: Any) -> dict[int, str]:
    """Class id → name, of what the model's logits (B, K) are for; empty where it says nothing."""
    config = getattr(model, "config", None)
    if yes_no_head(model) is not None:
        return dict(enumerate(getattr(config, CONFIG_KEY)["class_names"]))
    return {int(i): str(name) for i, name in (getattr(config, "id2label", None) or {}).items()}


def _two_class_loss(labels: Tensor, logits: Tensor, config: Any, **kwargs: Any) -> Tensor:
    """Cross-entropy, whatever number of outputs the configuration tells."""
    two = SimpleNamespace(num_labels=2, problem_type="single_label_classification")
    return ForSequenceClassificationLoss(labels, logits, two, **kwargs)


def _output(own: Sequence[str], label: str, name: str) -> int:
    matching = [i for i, one in enumerate(own) if class_key(one) == class_key(label)]
    if not matching and label.isdigit() and int(label) < len(own):
        matching = [int(label)]
    if len(matching) != 1:
        raise ModelError(f"'{name}' has no output called {label!r}; choose one of {_some(own)}, or its number.")
    return matching[0]


def _present(own: str, class_names: Sequence[str], name: str) -> int:
    """The class that an output of this name speaks for. A swap would turn every figure round: nothing is guessed."""
    plain = [class_key(one) for one in class_names]
    if class_key(own) in plain:
        return plain.index(class_key(own))
    for present in (1, 0):
        if plain[present] in _YES or plain[1 - present] in (
            *_NO,
            *(f"{word} {class_key(own)}" for word in ("no", "not")),
        ):
            return present
    stated = getattr(class_names, "stated", True) and label_numbers([own]) is not None
    if stated or is_unnamed(class_names):
        logger.warning("'%s' says yes or no to '%s'; taken to speak for '%s', class 1.", name, own, class_names[1])
        return 1
    if label_numbers([own]) is not None:
        raise ModelError(
            f"'{name}' does not name its output, and the order of the data's classes ({_some(class_names)}) is only "
            "that of sorting; state it with class_names, the class that the output speaks for last."
        )
    raise ModelError(
        f"'{name}' says yes or no to '{own}', and neither class of the data is called so ({_some(class_names)}); name "
        f"the one it speaks for '{own}'."
    )


def _is_of(saved: Any, output: int, class_names: Sequence[str]) -> bool:
    same = [class_key(one) for one in class_names]
    return saved["output"] == output and [class_key(one) for one in saved["class_names"]] == same


def _some(names: Sequence[str]) -> str:
    return ", ".join(f"'{name}'" for name in names[:8]) + (f" and {len(names) - 8} more" if len(names) > 8 else "")
