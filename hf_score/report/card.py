"""The model card of a published checkpoint: metadata for the Hub and a page for people, from `results.json`."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from huggingface_hub import EvalResult, ModelCardData
from huggingface_hub.utils import HFValidationError, validate_repo_id

from ..errors import HFScoreError
from ._templates import environment, how_decided
from .sanitise import sanitise
from .summary import judge, render_table

__all__ = ["PLACEHOLDER_OWNER", "TAGS", "render_model_card"]

#: What makes the models findable on the Hub.
TAGS = ("hf-score", "shortcut-mitigation", "score")

#: Owner in the card of a model that has no place on the Hub yet.
PLACEHOLDER_OWNER = "USER"

METRICS = {
    "worst_group_accuracy": "Worst-group accuracy",
    "mean_group_accuracy": "Mean of group accuracies",
    "accuracy": "Accuracy",
}


def render_model_card(
    results: Mapping[str, Any],
    *,
    model_name: str,
    base_model: str | None = None,
    license: str | None = None,
    tags: Sequence[str] = TAGS,
    repo_id: str | None = None,
    method: str = "score",
    seed: int | None = None,
) -> str:
    """A model card: YAML metadata with evaluation results, then markdown.

    Local paths and tokens in `results` do not get into it.

    Args:
        results: the content of `results.json` (schema `hf-score/results/1`).
        model_name: the title, and the name the evaluation results stand under.
        base_model: Hub id of the model that was fine-tuned; anything that is not a Hub id is left out of the metadata.
        license: identifier of the checkpoint's licence, as the Hub spells it (`"apache-2.0"`).
        tags: metadata tags.
        repo_id: where the model is to be found; default: a placeholder with the model's name.
        method: key of the method that made this checkpoint.
        seed: its seed; default: the first one with a result.

    Raises:
        HFScoreError: the results hold no run of that method and seed.
    """
    results = sanitise(dict(results))
    run = _run_of(results, method, seed)
    model, dataset = results["model"], results["dataset"]
    base_model = base_model if base_model and _is_hub_id(base_model) else None
    metadata = ModelCardData(
        library_name="transformers",
        pipeline_tag="image-classification",
        tags=list(tags),
        license=license,
        base_model=base_model,
        datasets=[dataset["name"]] if _is_hub_id(dataset["name"]) else None,
        metrics=["accuracy"],
        model_name=model_name,
        eval_results=[
            EvalResult(
                task_type="image-classification",
                dataset_type=_slug(dataset["name"]),
                dataset_name=dataset["name"],
                dataset_split="test",
                metric_type=name,
                metric_name=title,
                metric_value=round(run["metrics"][name], 4),
            )
            for name, title in METRICS.items()
            if run["metrics"].get(name) is not None
        ],
    )
    text = (
        environment(autoescape=False)
        .get_template("model_card.md.jinja")
        .render(
            metadata=metadata.to_yaml(line_break="\n"),
            model_name=_one_line(model_name),
            results=results,
            run=run,
            accuracy=_percent(run, "accuracy"),
            worst_group_accuracy=_percent(run, "worst_group_accuracy"),
            label=results["methods"][method].get("label", method),
            model=model,
            dataset=dataset,
            base_model=base_model or model["name"],
            license=license,
            repo_id=repo_id or f"{PLACEHOLDER_OWNER}/{_slug(model_name)}",
            needs_timm="timm" in str(model.get("architecture", "")).lower(),
            verdict=judge(results),
            table=render_table(results, "markdown"),
            how_decided=how_decided(results),
        )
    )
    return re.sub(r"\n{3,}", "\n\n", text)


def _run_of(results: Mapping[str, Any], method: str, seed: int | None) -> Mapping[str, Any]:
    runs = results.get("methods", {}).get(method, {}).get("runs", [])
    for run in runs:
        if seed is None or run["seed"] == seed:
            return run
    which = f"method {method!r}" + ("" if seed is None else f" with seed {seed}")
    known = ", ".join(results.get("methods", {})) or "none"
    raise HFScoreError(f"These results hold no run of {which}: choose among the methods {known} and their seeds.")


def _percent(run: Mapping[str, Any], metric: str) -> str | None:
    value = run["metrics"].get(metric)
    return None if value is None else f"{100 * value:.1f}"


def _is_hub_id(name: str) -> bool:
    """Whether `owner/name` is meant as a Hub id; a folder of that name wins, as it does when a model is loaded."""
    if "/" not in name or Path(name).exists():
        return False
    try:
        validate_repo_id(name)
    except HFValidationError:
        return False
    return True


def _slug(name: str) -> str:
    return re.sub(r"[^A-Za-z0-9._/-]+", "-", name).strip("-./") or "model"


def _one_line(text: str) -> str:
    return " ".join(text.split())
