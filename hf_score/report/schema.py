"""The form of `results.json`: what is read of it, and the reader that holds it to that.

A results file may come from another machine or an older version: what is wrong in it is said in a sentence, before a
page is half written.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, NotRequired, Required, TypedDict

from msgspec import Meta

from ..errors import HFScoreError
from ..files import Index, as_type, read_json
from ..provenance import RESULTS_SCHEMA

__all__ = ["check_results", "read_results"]

_ADVICE = "repeat the evaluation (`hf-score evaluate`) to write it again"
_Name = Annotated[str, Meta(max_length=10_000)]
_Share = Annotated[float, Meta(ge=0, le=1)]
_Number = Annotated[float, Meta(ge=-1e300, le=1e300)]  # no infinity, and no NaN


class _Metrics(TypedDict, total=False):
    accuracy: _Share | None
    weighted_accuracy: _Share | None
    mean_group_accuracy: _Share | None
    worst_group_accuracy: _Share | None
    worst_group: _Name | None
    group_accuracy: dict[_Name, _Share | None]
    group_count: dict[_Name, Index]


class _Figure(TypedDict):
    value: _Number
    low: _Number
    high: _Number
    count: Index


class _Samples(TypedDict):
    count: Index
    held_out: bool


class _Verdict(TypedDict):
    figures: dict[_Name, _Figure]
    classes: dict[_Name, _Figure]
    change: NotRequired[dict[_Name, _Figure]]
    class_change: NotRequired[dict[_Name, _Figure]]
    fallen: NotRequired[list[_Name]]
    examples: NotRequired[list[Index]]
    samples: NotRequired[_Samples]
    not_checked: NotRequired[list[_Name]]


class _Run(TypedDict):
    seed: Index
    metrics: _Metrics
    relevance_in_region: NotRequired[_Number | None]
    reliance: NotRequired[_Number | None]
    verdict: NotRequired[_Verdict | None]
    weights_sha256: NotRequired[str | None]
    score_lambda: NotRequired[_Number | None]
    score_form: NotRequired[str | None]
    lambda_estimates: NotRequired[list[tuple[_Number, _Number]] | None]
    train_seconds: NotRequired[_Number | None]
    emissions_kg: NotRequired[_Number | None]


class _Method(TypedDict):
    runs: Annotated[list[_Run], Meta(min_length=1)]
    label: NotRequired[_Name]
    supervision: NotRequired[_Name]


class _Model(TypedDict):
    name: _Name
    base_model: NotRequired[_Name | None]
    license: NotRequired[_Name | None]
    architecture: NotRequired[_Name]
    is_timm: NotRequired[bool]
    layer: NotRequired[_Name]
    image_size: NotRequired[Index]


class _Dataset(TypedDict):
    name: _Name
    class_names: list[_Name]
    fingerprint: NotRequired[_Name]
    group_names: NotRequired[list[_Name] | None]
    train_group_counts: NotRequired[list[Index] | None]
    licence: NotRequired[_Name | None]
    source: NotRequired[_Name | None]
    description: NotRequired[_Name | None]
    citation: NotRequired[_Name | None]
    split: NotRequired[_Name]
    counts: NotRequired[dict[str, Index | None]]


class _Selection(TypedDict, total=False):
    decided_by: _Name
    kept_by: _Name
    classes: dict[_Name, Index]
    candidates: dict[_Name, Index]
    shortcuts: dict[_Name, list[_Name]]


class _Config(TypedDict, total=False):
    """The options that say which form of SCORE it was, the first two under their names of before."""

    score_penalised: _Name | None
    score_penalty: _Name | None
    score_form: _Name | None


class _Point(TypedDict, total=False):
    """A point of the curves, or in the last one what else is known of a training."""

    step: Required[Index]
    loss: float | None  # a training may have diverged
    penalty: float | None
    held_out_accuracy: float | None
    reliance: float | None


class _Results(TypedDict):
    methods: dict[_Name, _Method]
    model: _Model
    dataset: _Dataset
    schema: NotRequired[str]
    created: NotRequired[_Name | None]
    command: NotRequired[_Name]
    versions: NotRequired[dict[str, str]]
    hardware: NotRequired[_Name]
    git_commit: NotRequired[_Name | None]
    config: NotRequired[_Config]
    seeds: NotRequired[list[Index]]
    selection: NotRequired[_Selection | None]
    history: NotRequired[dict[_Name, list[_Point]]]


def read_results(path: str | Path) -> dict[str, Any]:
    """The content of a `results.json`, all of it, of which what is read again is of the right form.

    Raises:
        HFScoreError: there is none, or it is of another form; the sentence names the field.
    """
    content = read_json(path, dict[str, Any], what="results file", advice=_ADVICE)
    check_results(content, where=str(path))
    return content


def check_results(results: dict[str, Any], *, where: str) -> None:
    """Hold a dictionary to the form of `results.json`.

    Raises:
        HFScoreError: it is of another form, or of another version (`schema`).
    """
    as_type(results, _Results, where=f"{where} is no results file", advice=_ADVICE)
    if (schema := results.get("schema", RESULTS_SCHEMA)) != RESULTS_SCHEMA:
        raise HFScoreError(f"{where} has schema {schema!r} instead of {RESULTS_SCHEMA!r}: {_ADVICE}.")
    dataset = results["dataset"]
    names, counts = dataset.get("group_names"), dataset.get("train_group_counts")
    if names and counts and len(names) != len(counts):
        raise HFScoreError(f"{where} has {len(names)} groups and {len(counts)} counts of them: {_ADVICE}.")
    for key, method in results["methods"].items():
        for run in method["runs"]:
            verdict = run.get("verdict") or {}
            if verdict.get("figures", {}).keys() & {"inserted", "removed"} and "samples" not in verdict:
                raise HFScoreError(f"{where} says of {key} what regions do, and not of how many samples: {_ADVICE}.")
