"""`results.json`: what a run says of its data, model, methods and figures, and how several seeds become one."""

from __future__ import annotations

import csv
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ..attribution import find_layer
from ..data import ImageCollator, ImageData
from ..data.registry.specs import find_dataset
from ..detection import Candidates, Selection
from ..evaluation import JudgedRegions, group_metrics
from ..evaluation.verdict import FEWEST_HELD_OUT
from ..models import base_model_id, describe_model
from ..provenance import provenance, to_jsonable
from ..report import METHODS
from ..training import BaseTrainer, SCOREConfig
from .arguments import RunArguments
from .run_folder import RunFolder
from .workspace import Workspace

__all__ = [
    "data_has_groups",
    "examples_of",
    "judged_regions",
    "merge_results",
    "methods_of_results",
    "results_head",
    "starting_figures",
    "test_logits",
    "test_metrics",
    "training_cost",
]


def test_logits(trainer: BaseTrainer, workspace: Workspace) -> np.ndarray:
    """(N, K) of the trainer's model on the test set."""
    logits = trainer.predict(workspace.view("test")).predictions
    return logits[0] if isinstance(logits, tuple) else logits


def test_metrics(logits: np.ndarray, data: ImageData) -> dict[str, Any]:
    """Metrics on the test set, by group where groups are known."""
    labels = np.asarray(data.test["label"])
    if "group" not in data.test.column_names:
        return {"accuracy": float((logits.argmax(-1) == labels).mean())}
    return group_metrics(
        logits.argmax(-1),
        labels,
        np.asarray(data.test["group"]),
        group_names=data.group_names,
        train_group_counts=data.train_group_counts,
    )


def judged_regions(folder: RunFolder, workspace: Workspace, config: SCOREConfig) -> JudgedRegions | None:
    """The regions of the samples that SCORE never penalises, or of all kept ones where those are too few, with the
    test images to exchange them with. None before anybody has decided."""
    path = folder / "selection.json"
    selection = Selection.load(path) if path.is_file() else None
    if selection is None or not selection.spurious:
        return None
    samples = Candidates.load(folder / "candidates").samples(
        selection, workspace.view("train"), processor=workspace.processor
    )
    held_out = samples.split(held_out_share=config.score_held_out_share, seed=config.seed)[1]
    enough = len(held_out) >= FEWEST_HELD_OUT
    return JudgedRegions(
        held_out if enough else samples,
        workspace.view("test"),
        workspace.data.test["label"][:],
        collate=ImageCollator(workspace.processor),
        held_out=enough,
        device=workspace.device,
        seed=config.seed,
        batch_size=workspace.batch_size,
    )


def results_head(arguments: RunArguments, config: SCOREConfig, workspace: Workspace) -> dict[str, Any]:
    """All of `results.json` but the methods: provenance, model, data set, options."""
    data, model = workspace.data, workspace.loaded.model
    registered = find_dataset(data.name)
    settings = to_jsonable({**asdict(arguments), **config.described()})
    for several, chosen in (("lambdas", "score_lambda"), ("score_forms", "score_form")):
        if getattr(arguments, several):
            del settings[chosen]  # each run says which one it was
    return {
        **provenance(),
        "model": {
            "name": arguments.model,
            "base_model": base_model_id(
                arguments.model, weights=arguments.weights, from_scratch=arguments.from_scratch
            ),
            **describe_model(model),
            "layer": ", ".join(find_layer(model, layer).name for layer in config.layers),
            "image_size": int(workspace.pixel_values(workspace.view("test"), [0]).shape[-1]),
        },
        "dataset": {
            "name": data.name,
            "fingerprint": data.fingerprint,
            "class_names": data.class_names,
            "group_names": data.group_names,
            "train_group_counts": data.train_group_counts,
            "licence": data.licence,
            "source": data.source,
            "description": f"{registered.description}." if registered else None,
            "citation": getattr(registered, "citation", None),
            "counts": {split: len(getattr(data, split)) for split in ("train", "held_out", "test")},
        },
        "config": settings,
        "seeds": [config.seed],
    }


def methods_of_results(
    measured: Mapping[str, Mapping[str, Any]],
    histories: Mapping[str, list[dict[str, Any]]],
    *,
    config: SCOREConfig,
    decided_by: str,
) -> dict[str, Any]:
    """The methods of `results.json`, with one run each.

    Args:
        measured: method → its figures.
        histories: method → its curves, with the outcome in the last row.
        config: of the run.
        decided_by: who or what decided on the samples.
    """
    return {
        key: {
            "label": METHODS[key].called(config.score_form),
            "supervision": METHODS[key].supervision.replace("decisions", f"{decided_by} decisions"),
            "runs": [{"seed": config.seed, **figures, **_outcome(histories.get(key, []))}],
        }
        for key, figures in measured.items()
    }


def merge_results(results: dict[str, Any], more: dict[str, Any]) -> dict[str, Any]:
    """Add the runs of another seed to the results, which may be empty."""
    if not results:
        return more
    for key, method in more["methods"].items():
        if key in results["methods"]:
            results["methods"][key]["runs"] += method["runs"]
        else:  # of a control that had nothing to act on with the seeds before
            results["methods"][key] = method
    results["seeds"] = results["seeds"] + more["seeds"]
    return results


def data_has_groups(results: Mapping[str, Any]) -> bool:
    """Whether the runs were evaluated by group."""
    return any("group_accuracy" in r["metrics"] for m in results["methods"].values() for r in m["runs"])


def examples_of(results: Mapping[str, Any]) -> list[int]:
    """The pairs that show best what the regions did before and do not after, for the first seed's run of SCORE."""
    runs = results["methods"].get("score", {}).get("runs") or [{}]
    return (runs[0].get("verdict") or {}).get("examples") or []


def starting_figures(trainer: BaseTrainer) -> dict[str, float]:
    """What is known of the model before its training, named as in the Trainer's log: where the curves start.

    Draws no random number that the training would draw.
    """
    with torch.random.fork_rng():
        metrics = trainer.evaluate()
    return {name: metrics[name] for name in ("eval_accuracy", "eval_reliance") if name in metrics}


def training_cost(trainer: BaseTrainer) -> dict[str, float]:
    """Seconds and epochs of training, and kg of CO₂ equivalents where codecarbon measured them (`--report_to
    codecarbon`)."""
    runtimes = [row["train_runtime"] for row in trainer.state.log_history if "train_runtime" in row]
    cost = {"train_seconds": sum(runtimes)} if runtimes else {}
    cost["epochs_trained"] = round(trainer.state.epoch or 0.0, 4)
    emissions = Path(trainer.args.output_dir or ".") / "emissions.csv"
    if emissions.is_file():
        with emissions.open(encoding="utf-8", newline="") as file:
            cost["emissions_kg"] = sum(float(row["emissions"]) for row in csv.DictReader(file))
    return cost


def _outcome(history: list[dict[str, Any]]) -> dict[str, Any]:
    """What is known of a training beside its curves."""
    names = (
        "train_seconds",
        "epochs_trained",
        "best_epoch",
        "emissions_kg",
        "score_lambda",
        "lambda_estimates",
        "score_form",
        "form_estimates",
        "mechanism",
    )
    return {name: row[name] for row in history for name in names if name in row}
