"""The model card of a published checkpoint: metadata for the Hub and a page for people, from `results.json`."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote

import yaml
from huggingface_hub import EvalResult, EvalResultEntry, ModelCardData, eval_result_entries_to_yaml
from huggingface_hub.utils import HFValidationError, validate_repo_id

from ..errors import HFScoreError
from ..renamed import with_new_names
from .conclusions import class_cells, conclusions, region_cells
from .methods import form_of_results, label_of
from .redact import redact
from .summary import markdown_table, render_table
from .templating import environment, how_decided, which_lambda

__all__ = [
    "PICTURES_MARK",
    "PLACEHOLDER_OWNER",
    "TAGS",
    "eval_results_yaml",
    "picture_markdown",
    "render_model_card",
]

#: What makes the models findable on the Hub, beside the method and the base model.
TAGS = ("hf-score", "shortcut-mitigation")

#: Owner in the card of a model that has no place on the Hub yet.
PLACEHOLDER_OWNER = "USER"

#: Stands where the pictures go, in the card of a model that has none beside it.
PICTURES_MARK = "<!-- Pictures of training images go here: hf-score push --publish_images -->"

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
    tags: Sequence[str] = (),
    repo_id: str | None = None,
    method: str = "score",
    seed: int | None = None,
    pictures: Mapping[str, str] | None = None,
) -> str:
    """A model card: YAML metadata with evaluation results (`model-index`), then markdown.

    Local paths and tokens in `results` do not get into it.

    Args:
        results: the content of `results.json` (schema `hf-score/results/1`).
        model_name: the title, and the name the evaluation results stand under.
        base_model: Hub id of the model that was fine-tuned, default: as in the results. Anything that is not a Hub id
            is left out of the metadata.
        license: identifier of the checkpoint's licence, as the Hub spells it (`"apache-2.0"`); default: as in the
            results.
        tags: metadata tags beside `TAGS`, the method and the base model.
        repo_id: where the model is to be found; default: a placeholder with the model's name.
        method: key of the method that made this checkpoint.
        seed: its seed; default: the first one with a result.
        pictures: caption by path in the repository.

    Raises:
        HFScoreError: the results hold no run of that method and seed.
    """
    results = redact(dict(results))
    run = _find_run(results, method, seed)
    model, dataset = results["model"], results["dataset"]
    base_model = base_model or model.get("base_model")
    base_model = base_model if base_model and _is_hub_id(base_model) else None
    license = license or model.get("license")
    own_tags = [*TAGS, method.replace("_", "-"), *([f"base_model:{base_model}"] if base_model else [])]
    metadata = _metadata(
        dataset, run, model_name=model_name, base_model=base_model, license=license, tags=[*own_tags, *tags]
    )
    supervision = results["methods"][method].get("supervision", "")
    text = (
        environment(autoescape=False)
        .get_template("model_card.md.jinja")
        .render(
            metadata=metadata.to_yaml(line_break="\n"),
            model_name=_one_line(model_name),
            results=results,
            run=run,
            method=method,
            label=label_of(method, results),
            supervision=supervision,
            uses_groups="group" in supervision,
            accuracy=_percent(run, "accuracy"),
            worst_group_accuracy=_percent(run, "worst_group_accuracy"),
            model=model,
            dataset=dataset,
            config=with_new_names(results.get("config") or {}),
            form=form_of_results(results),
            train_counts=_train_counts(dataset),
            base_model=base_model or model["name"],
            license=license,
            repo_id=repo_id or f"{PLACEHOLDER_OWNER}/{_slug(model_name)}",
            is_timm=bool(model.get("is_timm")),
            verdicts=conclusions(results) if "score" in results["methods"] else [],
            region_tables=[
                markdown_table([header, *rows])
                for header, rows in (region_cells(results), class_cells(results))
                if rows
            ],
            table=render_table(results, "markdown"),
            how_decided=how_decided(results),
            which_lambda=which_lambda(results),
            pictures=picture_markdown(pictures) if pictures else PICTURES_MARK,
        )
    )
    return re.sub(r"\n{3,}", "\n\n", text)


def _metadata(
    dataset: Mapping[str, Any],
    run: Mapping[str, Any],
    *,
    model_name: str,
    base_model: str | None,
    license: str | None,
    tags: Sequence[str],
) -> ModelCardData:
    return ModelCardData(
        library_name="transformers",
        pipeline_tag="image-classification",
        tags=list(dict.fromkeys(tags)),
        license=license,
        base_model=base_model,
        base_model_relation="finetune" if base_model else None,
        datasets=[dataset["name"]] if _is_hub_id(dataset["name"]) else None,
        metrics=["accuracy"],
        model_name=model_name,
        eval_results=[
            EvalResult(
                task_type="image-classification",
                dataset_type=_slug(dataset["name"]),
                dataset_name=dataset["name"],
                dataset_split=dataset.get("split", "test"),
                metric_type=name,
                metric_name=title,
                metric_value=value,
            )
            for name, title, value in _measured(run)
        ],
    )


def picture_markdown(pictures: Mapping[str, str]) -> str:
    """Pictures of a card, from path in the repository to caption."""
    captions = {path: _one_line(caption).translate(_BRACKETS) for path, caption in pictures.items()}
    return "\n\n".join(f"![{caption}]({quote(path)})\n\n*{caption}*" for path, caption in captions.items())


def eval_results_yaml(results: Mapping[str, Any], *, method: str = "score", seed: int | None = None) -> str | None:
    """The evaluation results in the Hub's other form, the content of a file in `.eval_results/`.

    Returns:
        YAML; None where the data set is not on the Hub, which this form asks for, or nothing was measured.
    """
    results = redact(dict(results))
    run, dataset = _find_run(results, method, seed), results["dataset"]
    if not _is_hub_id(dataset["name"]):
        return None
    about = results["methods"][method]
    notes = f"{dataset.get('split', 'test')} split, seed {run['seed']}, supervision: {about.get('supervision', '')}"
    entries = [
        EvalResultEntry(
            dataset_id=dataset["name"],
            task_id=name,
            value=value,
            date=(results.get("created") or "")[:10] or None,
            notes=notes,
        )
        for name, _, value in _measured(run)
    ]
    return (
        yaml.safe_dump(eval_result_entries_to_yaml(entries), sort_keys=False, allow_unicode=True) if entries else None
    )


def _measured(run: Mapping[str, Any]) -> list[tuple[str, str, float]]:
    """Name, title and value of what was measured, in both forms of metadata."""
    values = ((name, title, run["metrics"].get(name)) for name, title in METRICS.items())
    return [(name, title, round(value, 4)) for name, title, value in values if value is not None]


def _train_counts(dataset: Mapping[str, Any]) -> str | None:
    names, counts = dataset.get("group_names"), dataset.get("train_group_counts")
    if not names or not counts:
        return None
    return "; ".join(f"{name}: {count}" for name, count in zip(names, counts, strict=True))


_BRACKETS = str.maketrans({"[": "(", "]": ")", "*": "", "<": "", ">": ""})


def _find_run(results: Mapping[str, Any], method: str, seed: int | None) -> Mapping[str, Any]:
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
