"""One (data set, model, seed) of a plan: its data, its ERM model and its candidates, and any method run on them.

Images, ERM models and candidates are cached in a folder, keyed by all that decides them. Group labels are read by
`measure`, and by `supervision` for a method that declares them.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import time
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file, save
from torch import Tensor
from transformers import PreTrainedModel, PrinterCallback, set_seed

from ..baselines import BaselineTrainer, Supervision
from ..baselines.erm import ERMTrainer
from ..data import PixelDataset, load_data, preprocess
from ..detection import (
    Candidates,
    ScanHit,
    SpuriousSamples,
    decide_at_random,
    decide_by_oracle,
    explain_hits,
    find_candidates,
)
from ..errors import HFScoreError
from ..evaluation import group_metrics
from ..files import write_bytes
from ..models import eval_mode, load_checkpoint
from ..pipeline import Workspace
from ..pipeline.controls import random_hits
from ..provenance import git_commit, hardware, versions
from ..training import BaseConfig, BaseTrainer
from ..training.supervision import in_words
from .plan import Cell, Plan, expand
from .watch import AfterFirstEpoch, PeakMemory, SomeEpochs, Watch, save_model

__all__ = ["GroupedPixels", "Job"]

#: How a plan's `samples` may ask for the spurious-positive samples, with the defaults.
SAMPLES: dict[str, Any] = {
    "choose": "oracle",  # oracle | random (images of the same classes) | random_any (of all classes)
    "masks": "found",  # found | moved (control) | true (the known region)
    "num_keep": 40,
    "mask_area": 0.2,
    "mask_share": 0.95,
    "object_share": None,  # of the pretrained model's relevance: masks are everything except the object that it sees
    "threshold": 0.15,
    "wrong_share": 0.0,  # of the samples, replaced by random images of their class
}
#: What `group_metrics` says that a row keeps.
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
        if split in ("train", "held_out"):
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
        self.spec, self.model_spec = plan.datasets[dataset], plan.models[model_name]
        self.device = "cuda" if torch.cuda.is_available() else "cpu"
        self._made_by = {"hardware": hardware(), "versions": json.dumps(versions()), "git_commit": git_commit()}
        data_options, model_options = expand(self.spec["load"]), expand(self.model_spec["load"])
        data = load_data(data_options.pop("dataset"), **data_options, with_train_groups=True)
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
    def test(self) -> GroupedPixels:
        """The test images with their groups."""
        return self.workspace.view("test")

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
        decides = {
            name: self.model_spec.get(name) for name in ("load", "erm", "channels_last")
        }  # not how it is tuned on
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
        base = {
            "output_dir": str(self.folder / "scratch"),
            "seed": self.seed,
            "save_strategy": "no",
            "logging_strategy": "no",
            "report_to": "none",
            "disable_tqdm": True,
            "dataloader_pin_memory": False,
            "per_device_train_batch_size": 32,
            "per_device_eval_batch_size": 128,
            "use_cpu": self.device == "cpu",
        }
        try:
            return kind(**{**base, **fields})
        except TypeError as error:
            raise HFScoreError(
                f"{self.plan.path}: {kind.__name__} cannot be made ({error}): correct the plan."
            ) from error

    # ---- Supervision ----

    def supervision(self, cell: Cell) -> Supervision:
        """What the cell's method declares, and nothing else."""
        kinds = cell.trainer_class.supervision_kinds
        return Supervision(
            samples=self.samples(cell.samples) if "samples" in kinds else None,
            regions=self._region if "regions" in kinds else None,
            validation=self.validation if "validation" in kinds else None,
            train_groups=self._train_groups if "train_groups" in kinds else None,
        )

    def _region(self, idx: int) -> np.ndarray | None:
        region = self.workspace.regions("train", [idx])[0]
        return None if region is None else region > 0.5

    def candidates(self, *, mask_share: float, mask_area: float, object_share: float | None = None) -> Candidates:
        """The ERM model's candidates."""
        masks = {"mask_share": mask_share, "mask_area": mask_area, "object_share": object_share}
        of_object = "" if object_share is None else f"-{object_share:g}"
        folder = self.folder / f"candidates-{mask_share:g}-{mask_area:g}{of_object}"
        if not (folder / "candidates.json").is_file():
            found = find_candidates(self.start("erm"), self.train, **self._explaining(**masks))
            found.save(folder)
        return Candidates.load(folder)

    def _explaining(self, **masks: Any) -> dict[str, Any]:
        return {**self.workspace.explaining(layer="last", **masks), "batch_size": 50}

    def samples(self, fields: dict[str, Any]) -> SpuriousSamples:
        """The spurious-positive samples that an oracle keeps, or what a control puts in their place."""
        unknown = fields.keys() - SAMPLES.keys()
        if unknown:
            raise HFScoreError(f"{self.plan.path}: samples have no field {min(unknown)!r}: use {sorted(SAMPLES)}.")
        how = {**SAMPLES, **fields}
        if not self.data.has_regions:
            raise HFScoreError(
                f"{self.plan.path}: an oracle decides in a benchmark, and '{self.data.name}' has no regions: add "
                "masks to its `load`."
            )
        masks = {name: how[name] for name in ("mask_share", "mask_area", "object_share")}
        candidates = self.candidates(**masks)
        regions = self.workspace.regions("train", candidates.idx)
        selection = decide_by_oracle(candidates, regions, num_keep=how["num_keep"], threshold=how["threshold"])
        samples = candidates.samples(selection, self.train)
        if how["choose"] != "oracle" or how["wrong_share"]:
            samples = self._with_random(samples, how, masks)
        if how["masks"] == "moved":
            samples = samples.move_masks(seed=self.seed)
        elif how["masks"] == "true":
            nothing = np.zeros(samples.masks.shape[1:])
            known = [nothing if r is None else r for r in self.workspace.regions("train", samples.idx)]
            samples = dataclasses.replace(samples, masks=torch.as_tensor(np.stack(known)) > 0.5)
        return samples

    def _with_random(self, samples: SpuriousSamples, how: dict[str, Any], masks: dict[str, Any]) -> SpuriousSamples:
        """Random images in place of all samples (control), or of some of each class (a worse person)."""
        generator = np.random.default_rng(self.seed)
        labels, ids = self.train.labels.cpu().numpy(), self.train.idx.numpy()
        share = 1.0 if how["choose"] != "oracle" else how["wrong_share"]
        keep: list[int] = []
        hits: list[ScanHit] = []
        for label in samples.labels.unique().tolist():
            rows = generator.permutation(np.flatnonzero(samples.labels.numpy() == label))
            count = round(share * len(rows))
            keep += rows[count:].tolist()
            any_class = how["choose"] == "random_any"
            hits += random_hits(labels, ids, label=label, count=count, generator=generator, any_class=any_class)
        if not hits:  # a tenth of fewer than five samples
            return samples
        drawn = explain_hits(self.start("erm"), self.train, hits, **self._explaining(**masks))
        return samples[keep].joined(drawn.samples(decide_at_random(drawn), self.train))

    # ---- One method ----

    def run(self, cell: Cell) -> dict[str, Any]:
        """Run one cell and return its row."""
        began = time.monotonic()
        with PeakMemory(self.device) as peak:
            watch = Watch(self._measure)
            if cell.trainer_class.name == "erm":
                model = self.start("erm")
                watch.add(model, epoch=float(self.model_spec["erm"].get("num_train_epochs", 0)), selection=None)
            else:
                model = self._fit(cell, watch)
        chosen = watch.chosen
        row = {
            "key": cell.key,
            "dataset": cell.dataset,
            "model": cell.model,
            "seed": cell.seed,
            "name": cell.name,
            "title": cell.title,
            "method": cell.trainer_class.name,
            "supervision": in_words(cell.trainer_class.supervision_kinds).replace("decisions", "oracle decisions"),
            "kinds": ",".join(cell.trainer_class.supervision_kinds),
            "ablation": cell.ablation,
            "image_size": int(self.train.pixel_values.shape[-1]),
            "selection": chosen["selection"],
            **{name: chosen[name] for name in ("epoch", *_MEASURES, "groups")},
            **self.workspace.explained_test_set.region_effects(model.eval()),
            "history": json.dumps(watch.rows),
            "settings": cell.settings,
            "wall_seconds": round(time.monotonic() - began, 1),
            "peak_memory_mib": peak.mib,
            **self._made_by,
        }
        return row

    def _fit(self, cell: Cell, watch: Watch) -> PreTrainedModel:
        trainer_class = cell.trainer_class
        config = self._config(trainer_class.config_class, cell.config)  # first: `tf32` holds for the process from here
        supervision = self.supervision(cell)
        model = self.start(trainer_class.initial_model)
        extra: dict[str, Any] = {}
        if issubclass(trainer_class, BaselineTrainer):
            second = trainer_class.second_model
            extra |= {"supervision": supervision, "reference_model": self.start(second) if second else None}
        else:
            extra["spurious_samples"] = supervision.samples
        set_seed(self.seed)
        trainer: BaseTrainer = trainer_class(
            model,
            config,
            train_dataset=self.train,
            eval_dataset=self.workspace.view("held_out"),
            processing_class=self.workspace.processor,
            callbacks=[watch, SomeEpochs(self.plan.evaluations if trainer_class.has_epochs else 0)],
            **extra,
        )
        trainer.remove_callback(PrinterCallback)  # the runner says what there is to say
        trainer.train()
        if not watch.rows:  # a method that has a model at its end alone
            trainer.evaluate()
        watch.restore(model)
        return model

    # ---- Group labels from here on ----

    def _measure(self, model: Any) -> dict[str, Any]:
        """Figures on the test set, and the worst group of the validation set, which only an oracle has."""
        row = self.measure(model, self.test)
        if self.validation is not None:
            row["validation"] = self.measure(model, self.validation)["worst_group_accuracy"]
        return row

    def measure(self, model: Any, dataset: GroupedPixels) -> dict[str, Any]:
        """Group metrics of a model, in eval mode."""
        with eval_mode(model), torch.no_grad():
            logits = torch.cat([model(pixel_values=x).logits.float().cpu() for x in dataset.pixel_values.split(128)])
        metrics = group_metrics(
            logits.argmax(-1).numpy(),
            dataset.labels.numpy(),
            dataset.group.numpy(),
            group_names=self.data.group_names,
            train_group_counts=self.data.train_group_counts,
        )
        return {**{name: metrics[name] for name in _MEASURES}, "groups": list(metrics["group_accuracy"].values())}


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:16]
