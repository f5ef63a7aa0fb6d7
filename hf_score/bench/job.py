"""One (data set, model, seed) of a plan: its data, its ERM model and its candidates, and any method run on them.

Images, ERM models and candidates are cached in a folder, keyed by all that decides them. Group labels are read by
`measure`, and by `supervision` for a method that declares them.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import time
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file, save
from torch import Tensor
from transformers import PreTrainedModel, PrinterCallback, TrainerCallback, set_seed

from ..baselines import SUPERVISION_KINDS, BaselineTrainer, Supervision
from ..baselines.erm import ERMTrainer
from ..data import PixelDataset, load_data, preprocess
from ..detection import SpuriousSamples
from ..errors import HFScoreError, InactiveError
from ..evaluation import group_metrics, shortcut_gaps
from ..files import write_bytes
from ..models import eval_mode, load_checkpoint
from ..pipeline import Workspace
from ..provenance import git_commit, hardware, to_jsonable, versions
from ..training import BaseConfig, BaseTrainer
from ..training.supervision import in_words
from .configuration import make_config
from .gates import judged_gates
from .judging import Judge
from .plan import Cell, Plan, expand
from .samples import ChosenSamples, told
from .watch import AfterFirstEpoch, ImagePasses, PeakMemory, SomeEpochs, Watch, save_model

__all__ = ["GroupedPixels", "Job", "fingerprint_of"]

#: What `group_metrics` says that a row keeps; of a test set without groups, `accuracy` alone.
_MEASURES = ("worst_group_accuracy", "accuracy", "mean_group_accuracy", "weighted_accuracy")


@dataclasses.dataclass(frozen=True)
class GroupedPixels(PixelDataset):
    """Preprocessed images with `group` (N,): an evaluation set, or the supervision of a method that declares it."""

    group: Tensor

    def __getitem__(self, item: int) -> dict[str, Tensor]:
        return {**super().__getitem__(item), "group": self.group[item]}


class CachedWorkspace(Workspace):
    """A workspace whose views are preprocessed once for all jobs, and lie on the device.

    Args:
        key: what decides the images.
        cache: folder of the preprocessed images.
        **kwargs: as for [`Workspace`].
    """

    def __init__(self, *args: Any, key: Any, cache: Path, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._key, self._cache = key, cache

    def _make_view(self, split: str) -> PixelDataset:
        rows = getattr(self.data, split)
        key = json.dumps([*self._key, self.data.fingerprint, split], sort_keys=True)
        file = self._cache / f"{_digest(key)}.safetensors"
        if not file.is_file():
            view = preprocess(rows, self.processor)
            write_bytes(file, save({name: getattr(view, name) for name in ("pixel_values", "labels", "idx")}))
        tensors = load_file(file)
        view = PixelDataset(tensors["pixel_values"], tensors["labels"], tensors["idx"])
        images = view.pixel_values.to(self.device)
        if split in ("train", "held_out") or "group" not in rows.column_names:
            return dataclasses.replace(view, pixel_values=images)
        return GroupedPixels(images, view.labels, view.idx, torch.as_tensor(rows["group"][:]))


class Job:
    """What the cells of one (data set, model, seed) share.

    Args:
        plan: the plan.
        dataset, model_name, seed: which of its data sets, models and seeds.
        cache: folder of images, ERM models and candidates.
    """

    def __init__(self, plan: Plan, dataset: str, model_name: str, seed: int, cache: str | Path) -> None:
        self.plan, self.seed, self.cache = plan, seed, Path(cache)
        self.spec, self.model_spec, self.model_name = plan.datasets[dataset], plan.models[model_name], model_name
        self.device = "cuda" if torch.cuda.is_available() else "cpu"
        self._made_by = {"hardware": hardware(), "versions": json.dumps(versions()), "git_commit": git_commit()}
        model_options = expand(self.model_spec["load"])
        data = _loaded(self.spec)
        # The harness alone may see them; a method gets them through `supervision`, if it declares them.
        self._train_groups, self.data = data.train_groups, dataclasses.replace(data, train_groups=None)
        self.workspace = CachedWorkspace(
            self.data,
            model_options,
            # The weights that the model was fine-tuned from, with the head and the input size they came with.
            object_model={k: v for k, v in model_options.items() if k != "image_size"},
            seed=seed,
            device=self.device,
            key=[self.spec["load"], self.model_spec["load"]],
            cache=self.cache / "images",
        )

    # ---- Data and models ----

    @property
    def train(self) -> PixelDataset:
        """The training images."""
        return self.workspace.view("train")

    @property
    def test(self) -> PixelDataset:
        """The test images: a `GroupedPixels` where their groups are known."""
        return self.workspace.view("test")

    @cached_property
    def test_set(self) -> dict[str, Any]:
        """What a row's logits are of, by its digest `test`; `groups` is None without groups."""
        labels, sources = self.test.labels.tolist(), self.data.test_sources
        about = {
            "labels": labels,
            "groups": self.test.group.tolist() if isinstance(self.test, GroupedPixels) else None,
            "sources": sources or [str(position) for position in range(len(labels))],
            "class_names": list(self.data.class_names),
            "fingerprint": self.data.fingerprint,
        }
        return {"test": _digest(json.dumps(about, sort_keys=True)), **about}

    @property
    def validation(self) -> GroupedPixels | None:
        """The validation split with its groups, for methods that declare it and for the oracle's column."""
        rows = self.data.validation
        return None if rows is None or "group" not in rows.column_names else self.workspace.view("validation")

    def start(self, initial_model: str) -> PreTrainedModel:
        """A fresh copy of the `"pretrained"`, the `"early"` or the `"erm"` model."""
        folder = self.folder / initial_model
        if not (folder / "config.json").is_file():
            self._train_erm()
        model = load_checkpoint(folder).to(self.device)  # type: ignore[arg-type]
        return model.to(memory_format=torch.channels_last) if self.model_spec.get("channels_last") else model

    @cached_property
    def folder(self) -> Path:
        """Where this job's models and candidates are kept."""
        # Not how it is tuned on, nor its title.
        decides = {name: self.model_spec.get(name) for name in ("load", "erm", "channels_last")}
        key = [self.spec["load"], decides, self.data.fingerprint, self.seed, self.device]
        return self.cache / _digest(json.dumps(key, sort_keys=True))

    def _train_erm(self) -> None:
        model = self.workspace.loaded.model
        save_model(model, self.folder / "pretrained")
        model.to(self.device)  # type: ignore[arg-type]
        if self.model_spec.get("channels_last"):
            model.to(memory_format=torch.channels_last)  # type: ignore[call-arg]
        trainer = ERMTrainer(
            model,
            self._config(ERMTrainer.config_class, {**self.model_spec["erm"], "class_balanced": True}),
            train_dataset=self.train,
            processing_class=self.workspace.processor,
            callbacks=[AfterFirstEpoch(self.folder / "early")],
        )
        trainer.remove_callback(PrinterCallback)
        trainer.train()
        save_model(model, self.folder / "erm")

    def _config(self, kind: type[BaseConfig], fields: dict[str, Any]) -> Any:
        place = {"output_dir": str(self.folder / "scratch"), "seed": self.seed, "use_cpu": self.device == "cpu"}
        return make_config(kind, fields, **place)

    # ---- Supervision ----

    def supervision(self, cell: Cell) -> Supervision:
        """What the cell's method declares, and nothing else.

        Raises:
            HFScoreError: the data do not have it.
        """
        kinds = cell.trainer_class.supervision_kinds
        has = {"regions": self.data.has_regions, "validation": self.validation, "train_groups": self._train_groups}
        for kind in kinds:
            if not has.get(kind, True):
                raise HFScoreError(
                    f"{self.plan.path}: {cell.title} needs {SUPERVISION_KINDS[kind]}, and '{self.data.name}' has "
                    "none: leave the method out there (`datasets` of its entry), or add them to the data."
                )
        return Supervision(
            samples=self.samples(cell.samples) if "samples" in kinds else None,
            regions=self._region if "regions" in kinds else None,
            validation=self.validation if "validation" in kinds else None,
            train_groups=self._train_groups if "train_groups" in kinds else None,
        )

    def _region(self, idx: int) -> np.ndarray | None:
        region = self.workspace.regions("train", [idx])[0]
        return None if region is None else region > 0.5

    def samples(self, fields: dict[str, Any]) -> SpuriousSamples:
        """The spurious-positive samples that a plan asks for."""
        if fields.get("selection") is not None:
            fields = {**fields, "selection": self.plan.relative(fields["selection"])}
        return self.chosen(fields)

    @cached_property
    def chosen(self) -> ChosenSamples:
        """Whoever decides on the ERM model's candidates."""
        return ChosenSamples(self.workspace, folder=self.folder, start=lambda: self.start("erm"), seed=self.seed)

    @cached_property
    def judge(self) -> Judge:
        """What judges every method's models without groups."""
        return Judge(
            self.workspace,
            {**self.spec.get("samples", {}), **self.spec.get("by_model", {}).get(self.model_name, {})},
            choose=self.samples,
            start=self.start("erm"),
            logits=lambda model: self._logits(model, self.test),
            seed=self.seed,
        )

    # ---- One method ----

    def run(self, cell: Cell) -> dict[str, Any]:
        """Run one cell and return its row."""
        judge = self.judge  # first: what the job's cells share is no cell's time, and no draw of it
        began = time.monotonic()
        with PeakMemory(self.device) as peak:
            watch, passes = Watch(self._measure), ImagePasses()
            gates: dict[str, float] = {}
            if cell.trainer_class.name == "erm":
                model = self.start("erm")
                epochs = float(self._config(ERMTrainer.config_class, self.model_spec["erm"]).num_train_epochs)
                passes.count = round(epochs * len(self.train))
                watch.add(model, epoch=epochs, selection=None, estimates=judge.estimate(model))
            else:
                model, gates = self._fit(cell, watch, passes)
        chosen, kinds = watch.chosen, cell.trainer_class.supervision_kinds
        assert watch.logits is not None
        verdict = judge.verdict(model.eval(), watch.logits)
        gates_as_json, inactive = judged_gates(gates, cell.trainer_class.wanted_gates)
        return {
            "key": cell.key,
            "dataset": cell.dataset,
            "model": cell.model,
            "seed": cell.seed,
            "name": cell.name,
            "title": cell.title,
            "method": cell.trainer_class.name,
            "method_version": cell.trainer_class.version,
            "supervision": in_words(kinds).replace("decisions", told(cell.samples) if "samples" in kinds else ""),
            "kinds": ",".join(kinds),
            "ablation": cell.ablation,
            "image_size": int(self.train.pixel_values.shape[-1]),
            "selection": chosen["selection"],
            **{name: chosen[name] for name in ("epoch", *_MEASURES, "groups", "gaps") if name in chosen},
            **self.workspace.explained_test_set.region_effects(model),
            "verdict": json.dumps(to_jsonable(verdict)),
            "gates": gates_as_json,
            "inactive": inactive,
            "history": json.dumps(watch.rows),
            "epochs_trained": watch.epochs_trained,
            "settings": cell.settings,
            "config": json.dumps(json.loads(cell.settings)["config"], sort_keys=True),
            "fingerprint": self.data.fingerprint,
            "test": self.test_set["test"],
            "logits": watch.logits.astype(np.float16).tobytes(),
            "image_passes": passes.count,
            "wall_seconds": round(time.monotonic() - began, 1),
            "peak_memory_mib": peak.mib,
            **self._made_by,
        }

    def _fit(self, cell: Cell, watch: Watch, passes: ImagePasses) -> tuple[PreTrainedModel, dict[str, float]]:
        """The trained model, and the gates of its trainer."""
        fields = dict(cell.config)
        has_epochs = cell.trainer_class.has_epochs
        evaluations = cell.evaluations if has_epochs else 0
        try:
            if cell.image_passes is not None and has_epochs:
                fields["num_train_epochs"] = self._epochs_within(cell, cell.image_passes)
            trainer = self._train(cell, fields, [watch, SomeEpochs(evaluations)], passes)
        except InactiveError:  # nothing was trained, which is a finding and no failure
            untrained = self.start(cell.trainer_class.initial_model)
            watch.add(untrained, epoch=0.0, selection=None, estimates=self.judge.estimate(untrained))
            return untrained, {"penalty_start": 0.0}
        gates = trainer.gates()
        if not watch.rows:  # a method that has a model at its end alone
            trainer.evaluate()
        model: Any = trainer.model
        watch.restore(model)
        return model, gates

    def _epochs_within(self, cell: Cell, image_passes: int) -> int:
        """As many of the cell's epochs as a budget allows, found out in three steps of training."""
        passes = ImagePasses()
        trainer = self._train(cell, {**cell.config, "max_steps": 3}, [SomeEpochs(0)], passes)
        before, per_step = passes.cost()
        size, steps = trainer.args.train_batch_size, trainer.args.gradient_accumulation_steps
        drawn = min(len(trainer.get_train_dataloader()) * size, len(self.train))
        per_epoch = per_step / (size * steps) * drawn
        fit = int((image_passes - before) / per_epoch)
        asked = int(self._config(cell.trainer_class.config_class, cell.config).num_train_epochs)
        if fit < 1:
            raise HFScoreError(
                f"{self.plan.path}: {image_passes} image passes are less than one epoch of {cell.title}, which takes "
                f"{per_epoch:.0f}: give more."
            )
        return min(asked, fit)

    def _train(
        self, cell: Cell, fields: dict[str, Any], callbacks: list[TrainerCallback], passes: ImagePasses
    ) -> BaseTrainer:
        """The cell's trainer, after training with these fields of its configuration."""
        trainer_class = cell.trainer_class
        config = self._config(trainer_class.config_class, fields)  # first: `tf32` holds for the process from here
        supervision = self.supervision(cell)
        model = self.start(trainer_class.initial_model)
        second = self.start(trainer_class.second_model) if trainer_class.second_model else None
        extra: dict[str, Any] = {"supervision": supervision, "reference_model": second}
        if not issubclass(trainer_class, BaselineTrainer):
            extra = {"spurious_samples": supervision.samples}
        set_seed(self.seed)
        trainer: BaseTrainer = trainer_class(
            model,
            config,
            train_dataset=self.train,
            eval_dataset=self.workspace.view("held_out"),
            processing_class=self.workspace.processor,
            callbacks=[*callbacks, passes],
            estimates=self.judge.estimates,
            **extra,
        )
        trainer.remove_callback(PrinterCallback)  # the runner says what there is to say
        handles = [passes.watch(some) for some in (model, second) if some is not None]
        trainer.train()
        for handle in handles:
            handle.remove()
        return trainer

    # ---- Group labels from here on ----

    def _measure(self, model: Any) -> dict[str, Any]:
        """Figures on the test set, and the worst group of the validation set, which only an oracle has."""
        logits = self._logits(model, self.test)
        row = {**self._figures(logits, self.test), "logits": logits}
        if self.validation is not None:
            row["validation"] = self.measure(model, self.validation)["worst_group_accuracy"]
        return row

    def measure(self, model: Any, dataset: PixelDataset) -> dict[str, Any]:
        """Group metrics of a model, in eval mode; of images without groups, its accuracy."""
        return self._figures(self._logits(model, dataset), dataset)

    def _logits(self, model: Any, dataset: PixelDataset) -> np.ndarray:
        with eval_mode(model), torch.no_grad():
            parts = [model(pixel_values=x).logits.float().cpu() for x in dataset.pixel_values.split(128)]
        return torch.cat(parts).numpy()

    def _figures(self, logits: np.ndarray, dataset: PixelDataset) -> dict[str, Any]:
        predicted, labels = logits.argmax(-1), dataset.labels.numpy()
        if not isinstance(dataset, GroupedPixels):
            nothing = dict.fromkeys(_MEASURES)
            return {**nothing, "accuracy": float((predicted == labels).mean()), "groups": []}
        groups, counts = dataset.group.numpy(), self.data.train_group_counts
        metrics = group_metrics(
            predicted, labels, groups, group_names=self.data.group_names, train_group_counts=counts
        )
        row = {**{name: metrics[name] for name in _MEASURES}, "groups": list(metrics["group_accuracy"].values())}
        if self.data.cues and counts is not None:
            gaps = shortcut_gaps(predicted, labels, groups, train_group_counts=counts)
            row["gaps"] = json.dumps(_named_gaps(self.data.cues, gaps))
        return row


def _named_gaps(cues: Sequence[str], gaps: Mapping[str, float | None]) -> dict[str, float | None]:
    """The gaps under the names that tables have for them."""
    first, second = cues
    return {
        f"{first} gap": gaps["first_gap"],
        f"{second} gap": gaps["second_gap"],
        f"{first} + {second} gap": gaps["both_gap"],
    }


def fingerprint_of(spec: dict[str, Any]) -> str:
    """What the images and labels of a plan's data set are now.

    Args:
        spec: its entry in `Plan.datasets`.
    """
    return _loaded(spec).fingerprint


def _loaded(spec: dict[str, Any]) -> Any:
    options = expand(spec["load"])
    return load_data(
        options.pop("dataset"), **options, with_train_groups="if known", source_column=spec.get("source_column")
    )


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:16]
