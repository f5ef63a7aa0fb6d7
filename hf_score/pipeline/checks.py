"""What the later steps of a run need, asked before the first long one: nothing fails after a person has judged."""

from __future__ import annotations

import dataclasses
import logging
import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from huggingface_hub import HfApi, get_token
from huggingface_hub.utils import validate_repo_id
from transformers import PreTrainedModel

from ..attribution import Explainer, find_activations, find_layer
from ..data import ImageData
from ..detection import Selection
from ..errors import DataError, HFScoreError, SelectionError, first_line
from ..hub_errors import hub_errors
from ..models import check_model, check_sizes
from ..training import SCOREConfig, SCORETrainer
from .arguments import RunArguments
from .workspace import Workspace

__all__ = ["check_classes", "check_decider", "check_push", "check_run", "check_training"]

logger = logging.getLogger(__name__)


def check_run(arguments: RunArguments, config: SCOREConfig, workspace: Workspace) -> None:
    """Raise where a step of the run could not be done, the cheapest questions first.

    Raises:
        HFScoreError: with what to do about it.
    """
    check_push(config)
    workspace.object_finder(arguments.object_share)
    data = workspace.data
    check_classes(data)
    check_decider(arguments, data)
    model, processor = workspace.loaded.model, workspace.processor
    check_model(model, processor, data.train, data.class_names)
    one = workspace.pixel_values(data.train, [0])
    with Explainer(model) as explainer:  # a function without a rule shows when it runs
        for layer in config.layers:
            find = find_layer if config.score_form == "exchange" else find_activations
            explainer.explain(one, 0, layer=find(model, layer))
    check_sizes(processor, {"train": data.train, "held_out": data.held_out, "test": data.test})
    check_training(model, config, data)


def check_classes(data: ImageData) -> None:
    """Raise where a split has no second class to exchange regions with; say which classes a split lacks.

    Raises:
        DataError: fewer than two classes were set aside, or are in the test split.
    """
    for split, labels in (("held_out", data.held_out["label"][:]), ("test", data.test["label"][:])):
        lacking = np.setdiff1d(np.arange(len(data.class_names)), labels)
        some = _some([data.class_names[label] for label in lacking])
        if split == "held_out":
            said = f"'{data.name}' has no second training image of {some} to set aside"
            advice = "give it a second one"
        else:
            said = f"The test split of '{data.name}' has no image of {some}"
            advice = "give it some"
        if len(data.class_names) - len(lacking) < 2:
            raise DataError(
                f"{said}, and regions are judged by pasting them into set-aside and test images of other classes; "
                f"{advice}."
            )
        if len(lacking):
            logger.warning("%s: nothing is measured on that there.", said)


def check_decider(arguments: RunArguments, data: ImageData) -> None:
    """Raise where the decider that was asked for will have nothing to decide by.

    Raises:
        SelectionError: the selection file cannot be read or is of another data set, or the oracle has no masks.
    """
    if arguments.decided_by == "file" and arguments.selection:
        Selection.load(arguments.selection, dataset_fingerprint=data.fingerprint)
    if arguments.decider == "oracle" and not data.has_regions:
        raise SelectionError(
            f"decider is 'oracle', but '{data.name}' has no masks of the shortcut to decide by: give masks, or leave "
            "decider out and judge the candidates yourself."
        )


def check_training(model: PreTrainedModel, config: SCOREConfig, data: ImageData) -> None:
    """Raise where the options name something that a training could not start with, such as a package.

    Raises:
        HFScoreError: an optimizer, a schedule or a logger that is not there.
    """
    with tempfile.TemporaryDirectory() as folder:  # a trainer makes its folder
        args = dataclasses.replace(config, output_dir=folder, push_to_hub=False, score_lambda=0.0)
        try:
            trainer = SCORETrainer(model, args, train_dataset=data.train, eval_dataset=data.held_out)
            trainer.create_optimizer_and_scheduler(num_training_steps=1)
        except HFScoreError:
            raise
        except (ImportError, RuntimeError, TypeError, ValueError) as error:
            raise HFScoreError(
                f"A training with these options cannot start ({first_line(error)}): leave the option out that is "
                "named, or install what it needs."
            ) from error


def check_push(config: SCOREConfig) -> None:
    """Raise where a run that is to be pushed at its end could not be.

    Raises:
        HFScoreError: no repository's name, nobody logged in, or the Hub cannot be reached or refuses.
    """
    if not config.push_to_hub:
        return
    repo_id = config.hub_model_id or Path(config.output_dir or "score-run").name
    with hub_errors(repo_id):
        validate_repo_id(repo_id)
        if not (token := get_token()):
            raise HFScoreError(
                "push_to_hub is set, but nobody is logged in to the Hub: run `hf auth login` or set HF_TOKEN in the "
                "environment, or push later with `hf-score push`."
            )
        HfApi(token=token).whoami()


def _some(names: Sequence[str]) -> str:
    return ", ".join(f"'{name}'" for name in names[:8]) + (f" and {len(names) - 8} more" if len(names) > 8 else "")
