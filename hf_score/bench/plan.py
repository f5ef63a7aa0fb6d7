"""A benchmark plan: which methods run on which data sets, models and seeds, from one YAML file."""

from __future__ import annotations

import hashlib
import itertools
import json
import os
import random
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..errors import HFScoreError, first_line
from ..evaluation import SELECTION
from ..files import as_type, read_yaml
from ..renamed import OPTIONS, PLAN, with_new_names
from ..training.base_trainer import BaseTrainer
from .configuration import resolved
from .contrasts import Contrast, contrasts_of
from .methods import TRAINERS, find_trainer, trainers_of_module
from .samples import CHOOSERS, SAMPLES
from .schema import PlanContent, PlannedDataset, PlannedMethod, PlannedModel

__all__ = ["Cell", "Plan", "key_of"]


@dataclass(frozen=True)
class Cell:
    """One run: a method with its settings on one data set, model and seed."""

    dataset: str
    model: str
    seed: int
    name: str
    title: str
    trainer_class: type[BaseTrainer]
    config: dict[str, Any]
    samples: dict[str, Any]
    round: int
    ablation: str | None
    """What is varied (`"λ"`, `"control"`), None for a row of the main table."""
    grid_point: dict[str, Any]
    """Of a grid."""
    image_passes: int | None
    """The most images that its training may send forward: as many whole epochs as fit."""
    evaluations: int
    """How often it is measured while it trains, to be chosen from."""
    settings: str
    """Everything that decides the outcome, as JSON: what a row is recognised by. Defaults are in it, and the version
    of the method; what the data are, the row says beside it."""
    older_settings: str
    """The same as rows of older code have it: what the plan says, without defaults."""

    @property
    def key(self) -> str:
        """Short hash of what decides the outcome."""
        return key_of(self.settings)

    @property
    def older_key(self) -> str:
        """The key that a row of older code has."""
        return key_of(self.older_settings)


class Plan:
    """The content of a plan file; `docs/how-to/run-a-benchmark.md` describes it.

    Old words are taken with a `FutureWarning`.

    Args:
        path: YAML file.

    Raises:
        HFScoreError: a file that cannot be read, or an unknown section, field, method, data set or model.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        content: Any = read_yaml(path, object, what="plan", advice="correct it")
        if not isinstance(content, dict):
            raise HFScoreError(
                f"the plan {path} is not a mapping: give it the sections seeds, datasets, models, methods."
            )
        as_type(content, dict[str, Any], where=f"{path} is no plan", advice="correct it")
        content = _in_new_words(content, str(path))
        self._check(content, PlanContent, "the plan")
        as_type(content, PlanContent, where=f"{path} is no plan", advice="correct it")
        missing = {"seeds", "datasets", "models", "methods"} - content.keys()
        if missing:
            raise HFScoreError(f"the plan {path} has no {', '.join(sorted(missing))}: add it.")
        self.seeds: list[int] = content["seeds"]
        self.datasets: dict[str, dict[str, Any]] = content["datasets"]
        self.models: dict[str, dict[str, Any]] = content["models"]
        self.methods: list[dict[str, Any]] = content["methods"]
        self.evaluations: int = content.get("evaluations", 2)
        self.draws: int | None = content.get("draws")
        self.modules: list[str] = content.get("modules") or []
        self._load_modules()
        self.about: str = content.get("about", "")
        for name, fields in self.datasets.items():
            self._check(fields, PlannedDataset, f"data set {name}")
        for name, fields in self.models.items():
            self._check(fields, PlannedModel, f"model {name}")
        for section, parts in ((self.datasets, ("load",)), (self.models, ("load", "erm", "finetune"))):
            for name, part in itertools.product(section, parts):
                if part not in section[name]:
                    raise HFScoreError(f"{path}: {name!r} has no {part!r}: add it.")
        for fields in self.methods:
            if "method" not in fields:
                raise HFScoreError(f"{path}: an entry of `methods` has no 'method': add it.")
            self._check(fields, PlannedMethod, f"method {fields.get('name', fields.get('method'))}")
            for kind, known in (("datasets", self.datasets), ("models", self.models)):
                unknown = set(fields.get(kind, ())) - known.keys()
                if unknown:
                    raise HFScoreError(f"{path}: there are no {kind} {sorted(unknown)}; there are {sorted(known)}.")
        self.contrasts: list[Contrast] = contrasts_of(
            content.get("contrasts", []),
            str(path),
            methods={fields.get("name", fields.get("method")) for fields in self.methods},
            datasets=self.datasets,
            models=self.models,
        )

    def _load_modules(self) -> None:
        """The methods that can be named: those of the package, and those of the plan's own modules."""
        self.trainers = dict(TRAINERS)
        for name in self.modules:
            self.trainers |= trainers_of_module(self.path.parent / name, known=self.trainers)

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in self.__dict__.items() if name != "trainers"}

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Another process imports the plan's modules again, before it takes methods of theirs."""
        self.__dict__.update(state)
        self._load_modules()

    def _check(self, fields: Mapping[str, Any], form: type, where: str) -> None:
        known = set(form.__annotations__)
        unknown = sorted(set(fields) - known)
        if unknown:
            raise HFScoreError(f"{self.path}: {where} has the field {unknown[0]!r}: use one of {sorted(known)}.")

    def cells(self, only: Mapping[str, list[str]] | None = None) -> list[Cell]:
        """All runs, in the order in which to run them: by round, then seed, then as they stand in the plan.

        Two entries may share a run (`key`), a grid and an ablation for example.

        Args:
            only: restrict `dataset`, `model`, `seed`, `name` or `round` to these values, in words.

        Raises:
            HFScoreError: a value that no run of the plan has, or values that no run has together.
        """
        cells = []
        for fields in self.methods:
            trainer_class = find_trainer(fields["method"], self.trainers)
            for dataset, model_name in itertools.product(self.datasets, self.models):
                of_model = self.models[model_name].get("datasets", self.datasets)
                if dataset not in fields.get("datasets", self.datasets) or dataset not in of_model:
                    continue
                if model_name not in fields.get("models", self.models):
                    continue
                for seed in fields.get("seeds", self.datasets[dataset].get("seeds", self.seeds)):
                    cells += [
                        self._cell(fields, trainer_class, dataset, model_name, seed, point)
                        for point in _grid(fields, self.draws)
                    ]
        only = only or {}
        words = {"name": "method", "dataset": "data set"}
        for field, values in only.items():
            known = {str(getattr(cell, field)) for cell in cells}
            if unknown := sorted(set(values) - known):
                what, there = words.get(field, field), ", ".join(sorted(known))
                raise HFScoreError(f"{self.path}: no run has the {what} {unknown[0]!r}: use {there}.")
        wanted = [c for c in cells if all(str(getattr(c, field)) in values for field, values in only.items())]
        if cells and not wanted:
            asked = ", ".join(f"{words.get(field, field)} {' or '.join(values)}" for field, values in only.items())
            raise HFScoreError(f"{self.path}: no run has {asked} together: ask for fewer of them.")
        return sorted(wanted, key=lambda c: (c.round, c.seed))

    def places(self) -> dict[str, list[tuple[str, str]]]:
        """For each method, by name, the data sets and models that it is run on."""
        found: dict[str, dict[tuple[str, str], None]] = {}
        for cell in self.cells():
            found.setdefault(cell.name, {})[cell.dataset, cell.model] = None
        return {name: list(places) for name, places in found.items()}

    def title(self, dataset: str, model: str) -> str:
        """A data set and a model in words."""
        return f"{self.datasets[dataset].get('title', dataset)}; {self.models[model].get('title', model)}"

    def _cell(
        self,
        fields: dict[str, Any],
        trainer_class: type[BaseTrainer],
        dataset: str,
        model_name: str,
        seed: int,
        point: dict,
    ) -> Cell:
        model, data = self.models[model_name], self.datasets[dataset]
        name = fields.get("name", trainer_class.name)
        own = [fields.get("by_model", {}).get(model_name, {}), fields.get("by_dataset", {}).get(dataset, {})]
        schedule = model["erm"] if trainer_class.initial_model == "pretrained" else model["finetune"]
        config = {**schedule, **fields.get("config", {}), **point}
        of_model = data.get("by_model", {}).get(model_name, {})
        samples = {**data.get("samples", {}), **of_model, **fields.get("samples", {})}
        for more in own:
            config |= {k: v for k, v in more.items() if k != "samples"}
            samples |= more.get("samples", {})
        # null: as if it had not been said
        config, samples = ({k: v for k, v in fields.items() if v is not None} for fields in (config, samples))
        if "samples" not in trainer_class.supervision_kinds:
            samples = {}
        older = {
            "method": trainer_class.name,
            "load": [data["load"], model["load"]],
            "erm": model["erm"],
            "config": config,
            "samples": samples,
            "seed": seed,
            "evaluations": self.evaluations,
            "channels_last": model.get("channels_last", False),
        }
        image_passes = fields.get("image_passes", model.get("image_passes")) if trainer_class.name != "erm" else None
        budget = {} if image_passes is None else {"image_passes": image_passes}
        evaluations = model.get("evaluations", self.evaluations)
        choice = {"evaluations": evaluations, "selection": SELECTION}
        return Cell(
            dataset=dataset,
            model=model_name,
            seed=seed,
            name=name,
            title=fields.get("title") or trainer_class.title_of(config),
            trainer_class=trainer_class,
            config=config,
            samples=samples,
            round=fields.get("round", 1),
            ablation=fields.get("ablation"),
            grid_point=point,
            image_passes=image_passes,
            evaluations=evaluations,
            settings=json.dumps(
                older | self._resolved(trainer_class, model, config, samples) | budget | choice, sort_keys=True
            ),
            older_settings=json.dumps(older, sort_keys=True),
        )

    def _resolved(
        self, trainer_class: type[BaseTrainer], model: dict[str, Any], config: dict[str, Any], samples: dict[str, Any]
    ) -> dict[str, Any]:
        """What decides a run beside what the plan says: defaults, versions, and the content of a file."""
        start = self.trainers["erm"]
        erm = resolved(start.config_class, {**model["erm"], "class_balanced": True})
        own = erm if trainer_class is start else resolved(trainer_class.config_class, config)
        return {
            "erm": {**erm, "version": start.version},
            "config": own,
            "samples": self._resolved_samples(samples) if "samples" in trainer_class.supervision_kinds else {},
            "version": trainer_class.version,
        }

    def _resolved_samples(self, samples: dict[str, Any]) -> dict[str, Any]:
        if unknown := samples.keys() - SAMPLES.keys():
            raise HFScoreError(f"{self.path}: samples have no field {min(unknown)!r}: use {sorted(SAMPLES)}.")
        how = {**SAMPLES, **samples}
        if how["choose"] not in CHOOSERS:
            raise HFScoreError(f"{self.path}: nobody chooses samples by {how['choose']!r}: use one of {[*CHOOSERS]}.")
        if (how["choose"] == "file") != (how["selection"] is not None):
            raise HFScoreError(f"{self.path}: `choose: file` and `selection: PATH` go together: give both or none.")
        if how["selection"] is not None:
            path = self.relative(how["selection"])
            try:
                how["selection"] = hashlib.sha256(path.read_bytes()).hexdigest()[:16]
            except OSError as error:
                raise HFScoreError(f"cannot read the selection file {path} ({first_line(error)}).") from error
        return how

    def relative(self, path: str) -> Path:
        """A path of the plan, which is relative to its folder; `$NAME` is the environment's."""
        return self.path.parent / os.path.expandvars(path)


def expand(fields: Mapping[str, Any]) -> dict[str, Any]:
    """`$NAME` in strings, from the environment."""
    return {k: os.path.expandvars(v) if isinstance(v, str) else v for k, v in fields.items()}


def key_of(settings: str) -> str:
    """Short hash of a run's settings (`Cell.settings`): what rows are recognised by."""
    return hashlib.sha256(settings.encode()).hexdigest()[:16]


def _grid(fields: Mapping[str, Any], draws: int | None) -> list[dict[str, Any]]:
    """The points of a method's grid, or so many of them, drawn at random: the same in every plan, place and seed."""
    grid, draws = fields.get("grid", {}), fields.get("draws", draws)
    points = [dict(zip(grid, values, strict=True)) for values in itertools.product(*grid.values())]
    if draws is not None and draws < len(points):
        chosen = random.Random(fields.get("name", fields["method"])).sample(range(len(points)), draws)
        points = [points[number] for number in sorted(chosen)]
    return [with_new_names(point, OPTIONS, where="the plan's grid") for point in points]


def _in_new_words(content: Any, where: str) -> Any:
    """A plan's content under its new names. Those of a grid stay: the new names depend on the values."""
    if not isinstance(content, dict):
        return [_in_new_words(part, where) for part in content] if isinstance(content, list) else content
    fields = {name: part if name == "grid" else _in_new_words(part, where) for name, part in content.items()}
    return with_new_names(fields, {**OPTIONS, **PLAN}, where=where)
