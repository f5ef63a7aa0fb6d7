"""The run folder: where each part lies, what it was made with, and how models get into it and out again."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Mapping
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

import torch
import yaml
from accelerate import PartialState
from transformers import PreTrainedModel
from transformers.trainer_utils import get_last_checkpoint

from ..detection import Candidates, Selection
from ..errors import HFScoreError
from ..files import atomic_folder, read_json, write_json, write_text
from ..models import checkpoint_state, load_checkpoint
from ..provenance import Manifest, read_run, to_jsonable
from ..report import METHODS
from ..training import SCOREConfig
from .arguments import OPTIONS_FILE, RunArguments, given_options, read_options

__all__ = ["RunFolder", "inputs_of", "refuse_foreign_folder", "write_options"]

#: Options that change nothing of what comes out, by their beginnings.
HARMLESS = (
    *(
        "output_dir",
        "resume",
        "controls",
        "num_seeds",
        "selection",
        "disable_tqdm",
        "report_to",
        "run_name",
        "project",
        "quiet",
        "verbose",
    ),
    *(
        "log_",
        "logging_",
        "trackio_",
        "save_",
        "hub_",
        "push_to_hub",
        "do_",
        "dataloader_",
        "ddp_",
        "include_",
        "skip_",
    ),
    *("per_device_eval_batch_size", "eval_accumulation_steps", "use_cpu", "local_rank", "debug", "enable_jit_"),
)
#: Part → the options that decide nothing before it, by their beginnings. All others decide the starting model.
DECIDES = {
    "candidates": (
        *("num_candidates", "mask_share", "mask_area", "object_model", "object_weights", "object_share"),
        "score_layer",
    ),
    "selection.json": ("num_keep", "oracle_threshold", "decider"),
    "model": (
        *(
            "lambdas",
            "score_forms",
            "cluster_lambdas",
            "num_train_epochs",
            "max_steps",
            "learning_rate",
            "freeze_batch_norm",
        ),
        *(
            "patience",
            "allow_group_oracle",
            "load_best_model_at_end",
            "metric_for_best_model",
            "greater_is_better",
            "eval_",
            "score_",
        ),
    ),
    "results.json": ("masks", "invert_masks", "group_column"),
}
#: Options of `RunArguments` and `SCOREConfig` that decide training, and nothing where the model is taken as it came.
_OF_TRAINING = {f.name for f in fields(SCOREConfig)} | {"erm_epochs", "erm_learning_rate"}


def _first_part(name: str) -> str:
    for part, names in DECIDES.items():
        if name.startswith(names):
            return part
    return "erm"


def inputs_of(
    part: str, arguments: RunArguments, config: SCOREConfig, *, erm_is_trained: bool, decisions: str | None = None
) -> dict[str, Any]:
    """The options that decide a part of a run folder, and those of what it is made from.

    Every option does, but for the few of `HARMLESS` and those that `DECIDES` says decide a later part.

    Args:
        part: `erm`, `candidates`, `selection.json`, a method of `METHODS`, or `results.json`.
        erm_is_trained: whether the starting model is trained here, or taken as it came.
        decisions: `Selection.digest` of what was decided, for what is made after that.
    """
    part = "model" if part in METHODS and part not in ("erm", "repair") else part
    made_from = {
        "erm": ("erm",),
        "candidates": ("erm", "candidates"),
        "selection.json": ("erm", "candidates", "selection.json"),
        "repair": ("erm", "candidates"),  # nothing is trained
        "model": ("erm", "candidates", "model"),
        "results.json": ("erm", "candidates", "model", "results.json"),
    }[part]
    options = {**asdict(arguments), **{f.name: getattr(config, f.name) for f in fields(config)}}
    options["decider"] = arguments.decided_by
    options["score_exchange_weight"] = config.exchange_weight
    if part == "selection.json":  # an oracle reads them
        made_from += ("results.json",)
    if not erm_is_trained and part not in ("model", "results.json"):
        options = {k: v for k, v in options.items() if k not in _OF_TRAINING or k in ("seed", "score_layer")}
    chosen = {
        name: value
        for name, value in options.items()
        if not name.startswith(HARMLESS) and _first_part(name) in made_from
    }
    if decisions is not None:
        chosen["decisions"] = decisions
    return to_jsonable(chosen)


class RunFolder:
    """A run's folder with one seed.

    Args:
        path: the folder; it need not exist.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self.manifest = Manifest(self.path)
        self.state = PartialState()

    def __truediv__(self, name: str) -> Path:
        return self.path / name

    def has(self, part: str) -> bool:
        """Whether a part is there whole: a model, `candidates`, or a file."""
        inside = {"candidates": "candidates.json", **dict.fromkeys(METHODS, "config.json")}.get(part, "")
        return (self.path / part / inside).is_file()

    @property
    def trained(self) -> list[str]:
        """The methods whose models are there."""
        return [key for key in METHODS if self.has(key)]

    # ---- What the parts were made with ----

    def inputs_of(self, part: str, arguments: RunArguments, config: SCOREConfig) -> dict[str, Any]:
        """`inputs_of`, with what this folder knows."""
        path = Path(arguments.selection or self / "selection.json")
        decided = path.is_file() and part not in ("erm", "candidates", "selection.json")
        trained = not self.has("erm") or (self / "history" / "erm.json").is_file()
        digest = Selection.load(path).digest if decided else None
        return inputs_of(part, arguments, config, erm_is_trained=trained, decisions=digest)

    def record(self, part: str, arguments: RunArguments, config: SCOREConfig) -> None:
        """Write down what a part is made with: before it is there, lest it be there without."""
        if self.state.is_main_process:
            self.manifest.record(part, self.inputs_of(part, arguments, config))

    def check(self, part: str, arguments: RunArguments, config: SCOREConfig) -> None:
        """Raise HFScoreError where a part was made with other options or decisions."""
        self.manifest.check(part, self.inputs_of(part, arguments, config))

    def check_parts(self, arguments: RunArguments, config: SCOREConfig) -> None:
        """Raise HFScoreError where any part that is there already was made with other options or decisions."""
        for part in ("erm", "candidates", *(key for key in METHODS if key != "erm")):
            if self.has(part):
                self.check(part, arguments, config)
        for name in (path.parent.name for path in self.path.glob("checkpoints/*/checkpoint-*")):
            if arguments.resume and name.split("-")[0] in METHODS:
                self._check_training(name, arguments, config)
        path = self / "selection.json"
        if path.is_file() and not arguments.selection and Selection.load(path).decided_by in ("oracle", "proposal"):
            self.check(path.name, arguments, config)  # of no account once a person has decided

    # ---- Models and histories ----

    def save_model(self, name: str, model: PreTrainedModel, processor: Any) -> None:
        """Write a stock checkpoint with its processor, whole or not at all."""
        if self.state.is_main_process:
            with atomic_folder(self / name) as temporary:
                model.save_pretrained(temporary, state_dict=checkpoint_state(model))
                processor.save_pretrained(temporary)
        self.state.wait_for_everyone()

    def load_model(self, name: str, device: torch.device | str) -> PreTrainedModel:
        """A model of this folder, in eval mode."""
        return load_checkpoint(self / name).to(device)  # type: ignore[arg-type]

    def checkpoints(self, name: str) -> Path:
        """Where the trainer of a method keeps its checkpoints."""
        return self / "checkpoints" / name

    def last_checkpoint(self, name: str, arguments: RunArguments, config: SCOREConfig) -> str | None:
        """The checkpoint that an interrupted training goes on from; None where there is none, or it is not to.

        From here on the folder of its checkpoints is known to be made with these options.

        Raises:
            HFScoreError: the training was begun with other options.
        """
        found = self._checkpoint_in(self.checkpoints(name)) if arguments.resume else None
        if found is None:
            self.remove_checkpoints(name)
            if self.state.is_main_process:
                self.manifest.record(f"checkpoints/{name}", self._inputs_of_training(name, arguments, config))
        else:
            self._check_training(name, arguments, config)
        return found

    @staticmethod
    def _checkpoint_in(folder: Path) -> str | None:
        if folder.is_dir():
            for path in folder.glob("checkpoint-*"):
                if not (path / "trainer_state.json").is_file():  # written last: the process was stopped before
                    shutil.rmtree(path, ignore_errors=True)
            return get_last_checkpoint(str(folder))
        return None

    def _inputs_of_training(self, name: str, arguments: RunArguments, config: SCOREConfig) -> dict[str, Any]:
        return self.inputs_of(name.split("-")[0], arguments, config)  # the method's name, and its λ

    def _check_training(self, name: str, arguments: RunArguments, config: SCOREConfig) -> None:
        self.manifest.check(f"checkpoints/{name}", self._inputs_of_training(name, arguments, config))

    def remove_checkpoints(self, name: str = "") -> None:
        """Of one method, or all."""
        if self.state.is_main_process:
            shutil.rmtree(self.checkpoints(name), ignore_errors=True)

    def write_history(self, method: str, log: list[dict[str, Any]], *, last_step: int, outcome: Mapping) -> None:
        """The curves of a training (`TrainerState.log_history`), and in the last row what else is known of it."""
        if self.state.is_main_process:
            names = {"eval_accuracy": "held_out_accuracy", "eval_reliance": "reliance"}
            keys = ("loss", "penalty", "eval_accuracy", "eval_reliance")
            rows = [
                {"step": entry["step"], **{names.get(k, k): entry[k] for k in keys if k in entry}} for entry in log
            ]
            last = {"step": last_step, **outcome}
            write_json(self / "history" / f"{method}.json", [row for row in [*rows, last] if len(row) > 1])

    def histories(self) -> dict[str, list[dict[str, Any]]]:
        """Method → what `write_history` wrote."""
        paths = {key: self / "history" / f"{key}.json" for key in self.trained}
        kind, advice = list[dict[str, Any]], "delete it; the figures stay in results.json"
        return {k: read_json(p, kind, what="history", advice=advice) for k, p in paths.items() if p.is_file()}

    def selection_summary(self, class_names: list[str]) -> dict[str, Any] | None:
        """Who decided, and how many samples of how many candidates were kept, by class; None before that."""
        if not (self / "selection.json").is_file():
            return None
        selection = Selection.load(self / "selection.json")
        labels = Candidates.load(self / "candidates").labels
        return {
            "decided_by": selection.decided_by,
            "kept_by": "+".join(sorted({decision.decided_by for decision in selection.spurious})),
            "classes": selection.counts(class_names),
            "shortcuts": selection.shortcuts(class_names),
            "candidates": {name: int((labels == k).sum()) for k, name in enumerate(class_names)},
        }


def write_options(folder: Path, arguments: RunArguments, config: SCOREConfig) -> None:
    """Keep the options of a run in its folder, and say which are others than before. → `run.yaml`"""
    path, options = folder / OPTIONS_FILE, given_options(arguments, config)
    text = yaml.safe_dump(to_jsonable(options), sort_keys=False, allow_unicode=True)
    if path.is_file():
        before, now = read_options(path), yaml.safe_load(text) or {}
        changed = [name for name in {**before, **now} if before.get(name) != now.get(name)]
        for name in changed:
            old, new = (str(of[name]) if name in of else "the default" for of in (before, now))
            print(f"{name} is {new} from here on; it was {old}.", file=sys.stderr)
    write_text(path, text)


def refuse_foreign_folder(folder: Path, arguments: RunArguments) -> None:
    """Raise HFScoreError where the output folder holds anything and this is no resumption of its run."""
    if folder.is_dir() and any(folder.iterdir()) and not arguments.resume:
        raise HFScoreError(
            f"the output folder {folder} is not empty: give another --output_dir, or --resume this run."
        )
    if arguments.resume and (folder / "run.json").is_file():
        before = read_run(folder).get("num_seeds")
        if before != arguments.num_seeds:  # they lie in other folders
            raise HFScoreError(
                f"the run in {folder} has num_seeds {before}, not {arguments.num_seeds}: resume with as many, or give "
                "another --output_dir."
            )
