"""The form of a plan file, section by section; what its options mean, the methods' configurations say."""

from __future__ import annotations

from typing import Annotated, Any, TypedDict

from msgspec import Meta

from ..files import Index

__all__ = ["PlanContent", "PlannedDataset", "PlannedMethod", "PlannedModel"]

_Name = Annotated[str, Meta(min_length=1, max_length=500)]
_Count = Annotated[int, Meta(ge=1, le=10**9)]
_Fields = dict[str, Any]
_ByName = dict[str, dict[str, Any]]


class PlannedDataset(TypedDict, total=False):
    """A data set of a plan."""

    load: _Fields
    samples: _Fields
    by_model: _ByName
    title: str
    seeds: list[Index]
    source_column: str


class PlannedModel(TypedDict, total=False):
    """A model of a plan."""

    load: _Fields
    erm: _Fields
    finetune: _Fields
    datasets: list[_Name]
    title: str
    channels_last: bool
    image_passes: _Count
    evaluations: _Count


class PlannedMethod(TypedDict, total=False):
    """An entry of `methods` of a plan."""

    method: _Name
    name: _Name
    title: str
    config: _Fields
    grid: dict[str, Annotated[list[Any], Meta(min_length=1, max_length=1000)]]
    draws: _Count
    image_passes: _Count
    samples: _Fields
    by_model: _ByName
    by_dataset: _ByName
    datasets: list[_Name]
    models: list[_Name]
    seeds: list[Index]
    round: int
    ablation: str | None


class PlanContent(TypedDict, total=False):
    """A plan file."""

    seeds: list[Index]
    datasets: dict[_Name, PlannedDataset]
    models: dict[_Name, PlannedModel]
    methods: list[PlannedMethod]
    contrasts: Any  # `contrasts_of` knows
    evaluations: _Count
    about: str
    draws: _Count
    modules: list[_Name] | None
