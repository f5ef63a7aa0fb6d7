"""One (set, model, seed) of a plan: its data, its ERM model and its candidates, and any method run on them.

Images, ERM models and candidates are cached in a folder, keyed by all that decides them. Group labels are read by
`measure`, and by `supervision` for a method that declares them.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import threading
import time
from functools import cached_property
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
import psutil
import torch
from safetensors.torch import load_file, save
from torch import Tensor
from transformers import AutoModelForImageClassification, PreTrainedModel, PrinterCallback, TrainerCallback, set_seed

from ..attribution import Explainer
from ..baselines import BaselineTrainer, Supervision
from ..baselines.erm import ERMTrainer
from ..data import ImageCollator, PixelDataset, load_data, preprocess
from ..data.exchange import OtherClassPartners
from ..detection import Candidates, ObjectFinder, SpuriousSamples, decide_at_random, decide_by_oracle, find_candidates
from ..detection.candidates import explain_hits
from ..detection.scan import ScanHit
from ..errors import HFScoreError
from ..evaluation import group_metrics, relevance_in_region
from ..files import atomic_folder, write_bytes
from ..margins import margin
from ..models import load_model
from ..provenance import git_commit, hardware, versions
from ..training.base_config import BaseConfig
from ..training.base_trainer import BaseTrainer
from ..training.supervision import in_words
from .plan import Cell, Plan, expand
from .rows import best_evaluation

__all__ = ["GroupedPixels", "Job"]

#: How a plan's `samples` may ask for the spurious-positive samples, with the defaults.
SAMPLES: dict[str, Any] = {
    "choose": "oracle",  # oracle | random (images of the same classes) | random_any (of all classes)
    "masks": "found",  # found | moved (control) | true (the known region)
    "num_keep": 40,
    "mask_area": 0.2,
    "mask_share": 0.95,
    "object_share": None,  # of the pretrained model's relevance: masks are all but the object that it sees
    "threshold": 0.15,
    "wrong_share": 0.0,  # of the samples, replaced by random images of their class
}


@dataclasses.dataclass(frozen=True)
class GroupedPixels(PixelDataset):
    """Preprocessed images with `group` (N,): an evaluation set, or the supervision of a method that declares it."""

    group: Tensor

    def __getitem__(self, item: int) -> dict[str, Tensor]:
        return {**super().__getitem__(item), "group": self.group[item]}


class Job:
    """What the cells of one (set, model, seed) share.

    Args:
        plan: the plan.
        set_name, model_name, seed: which of its sets, models and seeds.
        cache: folder of images, ERM models and candidates.
    """

    def __init__(self, plan: Plan, set_name: str, model_name: str, seed: int, cache: str | Path) -> None:
        self.plan, self.seed, self.cache = plan, seed, Path(cache)
        self.spec, self.model_spec = plan.sets[set_name], plan.models[model_name]
        self.device = "cuda" if torch.cuda.is_available() else "cpu"
        self._made_by = {"hardware": hardware(), "versions": json.dumps(versions()), "git_commit": git_commit()}
        load = expand(self.spec["load"])
        self.data = load_data(load.pop("dataset"), **load, with_train_groups=True)
        # The harness alone may see them; a method gets them through `supervision`, if it declares them.
        self._train_groups, self.data = self.data.train_groups, dataclasses.replace(self.data, train_groups=None)

    # ---- Data and models ----

    @cached_property
    def _pretrained(self) -> tuple[PreTrainedModel, Any]:
        set_seed(self.seed)
        model, processor, _ = load_model(**expand(self.model_spec["load"]), class_names=self.data.class_names)
        return model, processor

    @property
    def processor(self) -> Any:
        return self._pretrained[1]

    @cached_property
    def train(self) -> PixelDataset:
        return self._view("train")

    @cached_property
    def held_out(self) -> PixelDataset:
        return self._view("held_out")

    @cached_property
    def test(self) -> GroupedPixels:
        return self._grouped("test")

    @cached_property
    def validation(self) -> GroupedPixels | None:
        """The validation split with its groups, for methods that declare it and for the oracle's column."""
        rows = self.data.validation
        return None if rows is None or "group" not in rows.column_names else self._grouped("validation")

    def _view(self, split: str) -> PixelDataset:
        rows = getattr(self.data, split)
        key = json.dumps([self.spec["load"], self.model_spec["load"], self.data.fingerprint, split], sort_keys=True)
        file = self.cache / "images" / f"{_digest(key)}.safetensors"
        if not file.is_file():
            view = preprocess(rows, self.processor)
            write_bytes(file, save({f.name: getattr(view, f.name) for f in dataclasses.fields(view)}))
        view = PixelDataset(**load_file(file))
        return dataclasses.replace(view, pixel_values=view.pixel_values.to(self.device))

    def _grouped(self, split: str) -> GroupedPixels:
        view = self._view(split)
        group = torch.as_tensor(getattr(self.data, split)["group"][:])
        return GroupedPixels(view.pixel_values, view.labels, view.idx, group)

    def start(self, initial_model: str) -> PreTrainedModel:
        """A fresh copy of the `"pretrained"`, the `"early"` or the `"erm"` model."""
        folder = self.folder / initial_model
        if not (folder / "config.json").is_file():
            self._train_erm()
        model = AutoModelForImageClassification.from_pretrained(folder).to(self.device)  # type: ignore[arg-type]
        return model.to(memory_format=torch.channels_last) if self.model_spec.get("channels_last") else model

    @cached_property
    def folder(self) -> Path:
        """Where this job's models and candidates are kept."""
        key = [self.spec["load"], self.model_spec, self.data.fingerprint, self.seed, self.device]
        return self.cache / _digest(json.dumps(key, sort_keys=True))

    def _train_erm(self) -> None:
        model, _ = self._pretrained
        _save(model, self.folder / "pretrained")
        model.to(self.device)  # type: ignore[arg-type]
        if self.model_spec.get("channels_last"):
            model.to(memory_format=torch.channels_last)  # type: ignore[call-arg]
        config = self._config(ERMTrainer.config_class, {**self.model_spec["erm"], "class_balanced": True})
        early = _AfterFirstEpoch(self.folder / "early")
        trainer = ERMTrainer(
            model, config, train_dataset=self.train, processing_class=self.processor, callbacks=[early]
        )
        trainer.remove_callback(PrinterCallback)
        trainer.train()
        _save(model, self.folder / "erm")

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
        region = self.regions("train", [idx])[0]
        return None if region is None else region > 0.5

    def regions(self, split: str, chosen: Any) -> list[np.ndarray | None]:
        """The regions of the spurious attribute in these images, (H, W) from 0 to 1 as the model sees them."""
        return self.data.regions(split).preprocessed(chosen, self.processor)

    @cached_property
    def _test_regions(self) -> list[np.ndarray | None]:
        return self.regions("test", self.test.idx)

    def candidates(self, *, mask_share: float, mask_area: float, object_share: float | None = None) -> Candidates:
        """The ERM model's candidates."""
        masks = {"mask_share": mask_share, "mask_area": mask_area, "object_share": object_share}
        of_object = "" if object_share is None else f"-{object_share:g}"
        folder = self.folder / f"candidates-{mask_share:g}-{mask_area:g}{of_object}"
        if not (folder / "candidates.json").is_file():
            found = find_candidates(self.start("erm"), self.train, **self._explaining(**masks))
            found.save(folder)
        return Candidates.load(folder)

    def _explaining(self, *, object_share: float | None = None, **masks: Any) -> dict[str, Any]:
        find_object = None if object_share is None else self._object_finder(object_share)
        about = {"dataset_fingerprint": self.data.fingerprint, "layer": "last", "batch_size": 50}
        return {**about, **masks, "processor": self.processor, "find_object": find_object}

    def _object_finder(self, share: float) -> ObjectFinder:
        """Of the weights that the model was fine-tuned from, with the head and the input size they came with."""
        load = {k: v for k, v in expand(self.model_spec["load"]).items() if k != "image_size"}
        model, processor, _ = load_model(**load, class_names=None)
        return ObjectFinder(model.to(self.device), processor, share=share)  # type: ignore[arg-type]

    def samples(self, fields: dict[str, Any]) -> SpuriousSamples:
        """The spurious-positive samples that an oracle keeps, or what a control puts in their place."""
        strange = fields.keys() - SAMPLES.keys()
        if strange:
            raise HFScoreError(f"{self.plan.path}: samples have no field {min(strange)!r}: use {sorted(SAMPLES)}.")
        how = {**SAMPLES, **fields}
        if not self.data.has_regions:
            raise HFScoreError(
                f"{self.plan.path}: an oracle decides in a benchmark, and '{self.data.name}' has no regions: add "
                "masks to its `load`."
            )
        masks = {name: how[name] for name in ("mask_share", "mask_area", "object_share")}
        candidates = self.candidates(**masks)
        regions = self.regions("train", candidates.idx)
        selection = decide_by_oracle(candidates, regions, num_keep=how["num_keep"], threshold=how["threshold"])
        samples = candidates.samples(selection, self.train)
        if how["choose"] != "oracle" or how["wrong_share"]:
            samples = self._with_random(samples, how, masks)
        if how["masks"] == "moved":
            samples = samples.move_masks(seed=self.seed)
        elif how["masks"] == "true":
            known = [np.zeros(samples.masks.shape[1:]) if r is None else r for r in self.regions("train", samples.idx)]
            samples = dataclasses.replace(samples, masks=torch.as_tensor(np.stack(known)) > 0.5)
        return samples

    def _with_random(self, samples: SpuriousSamples, how: dict[str, Any], masks: dict[str, Any]) -> SpuriousSamples:
        """Random images in place of all samples (control), or of some of each class (a worse person)."""
        generator = np.random.default_rng(self.seed)
        labels, ids = self.train.labels.cpu().numpy(), self.train.idx.numpy()
        share = 1.0 if how["choose"] != "oracle" else how["wrong_share"]
        keep, hits = [], []
        for label in samples.labels.unique().tolist():
            rows = generator.permutation(np.flatnonzero(samples.labels.numpy() == label))
            count = round(share * len(rows))
            keep += rows[count:].tolist()
            pool = np.arange(len(labels)) if how["choose"] == "random_any" else np.flatnonzero(labels == label)
            for place in generator.choice(pool, size=min(count, len(pool)), replace=False):
                hits.append(ScanHit(0.0, int(place), int(ids[place]), int(labels[place])))
        if not hits:  # a tenth of fewer than five samples
            return samples
        drawn = explain_hits(self.start("erm"), self.train, hits, **self._explaining(**masks))
        return samples[keep].joined(drawn.samples(decide_at_random(drawn), self.train))

    # ---- One method ----

    def run(self, cell: Cell) -> dict[str, Any]:
        """Run one cell and return its row."""
        began = time.monotonic()
        with _PeakMemory(self.device) as peak:
            watch = _Watch(self)
            if cell.trainer_class.name == "erm":
                model = self.start("erm")
                watch.add(model, epoch=float(self.model_spec["erm"].get("num_train_epochs", 0)), selection=None)
            else:
                model = self._fit(cell, watch)
        chosen = watch.chosen
        row = {
            "key": cell.key,
            "set": cell.set,
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
            **{name: chosen[name] for name in ("epoch", *_MEASURES)},
            **self.region_effects(model),
            "history": json.dumps(watch.rows),
            "settings": cell.settings,
            "wall_seconds": round(time.monotonic() - began, 1),
            "peak_memory_mib": peak.mib,
            **self._made_by,
        }
        return row

    def _fit(self, cell: Cell, watch: _Watch) -> PreTrainedModel:
        trainer_class = cell.trainer_class
        config = self._config(trainer_class.config_class, cell.config)  # first: `tf32` holds for the process from here
        supervision = self.supervision(cell)
        model = self.start(trainer_class.initial_model)
        extra: dict[str, Any] = {}
        if issubclass(trainer_class, BaselineTrainer):
            extra["supervision"] = supervision
            extra["reference_model"] = self.start(trainer_class.second_model) if trainer_class.second_model else None
        else:
            extra["spurious_samples"] = supervision.samples
        set_seed(self.seed)
        trainer: BaseTrainer = trainer_class(
            model,
            config,
            train_dataset=self.train,
            eval_dataset=self.held_out,
            processing_class=self.processor,
            callbacks=[watch, _SomeEpochs(self.plan.evaluations if trainer_class.has_epochs else 0)],
            **extra,
        )
        trainer.remove_callback(PrinterCallback)  # the runner says what there is to say
        trainer.train()
        if not watch.rows:  # a method that has a model at its end alone
            trainer.evaluate()
        watch.restore(model)
        return model

    # ---- Group labels from here on ----

    def measure(self, model: Any, dataset: GroupedPixels) -> dict[str, Any]:
        """Group metrics of a model, in eval mode."""
        was_training = model.training
        model.eval()
        with torch.no_grad():
            logits = torch.cat([model(pixel_values=x).logits.float().cpu() for x in dataset.pixel_values.split(128)])
        model.train(was_training)
        metrics = group_metrics(
            logits.argmax(-1).numpy(),
            dataset.labels.numpy(),
            dataset.group.numpy(),
            group_names=self.data.group_names,
            train_group_counts=self.data.train_group_counts,
        )
        return {
            **{name: metrics[name] for name in _MEASURES if name != "groups"},
            "groups": list(metrics["group_accuracy"].values()),
        }

    def region_effects(self, model: Any) -> dict[str, float | None]:
        """What the true region does on test images: its share of the relevance of the image's class, and what
        inserting it into images of another class does to the margin (in logits) and to the decision."""
        nothing = dict.fromkeys(("relevance_in_region", "insertion_effect", "insertion_flips"))
        if len(self.data.regions("test")) == 0:
            return nothing
        labels, known = self.test.labels, self._test_regions
        places = range(len(labels))
        with_region = [p for p in places if known[p] is not None]
        shown = [with_region[i] for i in np.linspace(0, len(with_region) - 1, min(64, len(with_region))).astype(int)]
        masks = np.stack([region for p in shown if (region := known[p]) is not None])
        some = SpuriousSamples(
            self.test.pixel_values[shown].cpu(), torch.as_tensor(masks) > 0.5, labels[shown], self.test.idx[shown]
        )
        shares = []
        with Explainer(model) as explainer:
            for part in torch.arange(len(shown)).split(32):
                images, targets = some.pixel_values[part].to(self.device), some.labels[part].to(self.device)
                relevance = explainer.explain(images, targets).relevance
                assert relevance is not None
                shares.append(relevance_in_region(relevance.float().cpu().numpy(), masks[part.numpy()]))
        # Where every image has a region (backgrounds), every image takes another's.
        hosts = [p for p in places if known[p] is None] or list(places)
        bare = PixelDataset(self.test.pixel_values[hosts].cpu(), labels[hosts], self.test.idx[hosts])
        drawn = OtherClassPartners(bare, bare.labels.tolist(), ImageCollator(None), seed=0)
        pairs = some.exchanged_with(*drawn.draw(some.labels.tolist(), range(len(some))))
        with torch.no_grad():
            after, before = (
                model(pixel_values=x.to(self.device)).logits.float().cpu().chunk(2)[1]
                for x in (pairs.with_region, pairs.without_region)
            )
        classes = pairs.shortcut_labels.chunk(2)[1]
        right = before.argmax(1) == pairs.labels.chunk(2)[1]
        flips = (after.argmax(1) != before.argmax(1))[right].float()
        return {
            "relevance_in_region": float(np.nanmean(np.concatenate(shares))),
            "insertion_effect": float((margin(after, classes) - margin(before, classes)).mean()),
            "insertion_flips": float(flips.mean()) if len(flips) else None,
        }


_MEASURES = ("worst_group_accuracy", "accuracy", "mean_group_accuracy", "weighted_accuracy", "groups")


class _Watch(TrainerCallback):
    """Measures the model at every evaluation, and keeps the weights that a label-free choice takes."""

    def __init__(self, job: Job) -> None:
        self.job = job
        self.rows: list[dict[str, Any]] = []
        self._best: dict[str, Tensor] = {}

    def on_evaluate(
        self, args: Any, state: Any, control: Any, metrics: Any = None, model: Any = None, **_: Any
    ) -> None:
        self.add(model, epoch=float(state.epoch or 0), selection=metrics["eval_selection"])

    def add(self, model: Any, *, epoch: float, selection: float | None) -> None:
        model = getattr(model, "module", model)
        row: dict[str, Any] = {"epoch": epoch, "selection": selection, **self.job.measure(model, self.job.test)}
        if self.job.validation is not None:
            row["validation"] = self.job.measure(model, self.job.validation)["worst_group_accuracy"]
        self.rows.append(row)
        if self.chosen is row:
            self._best = {k: v.detach().cpu().clone() for k, v in model.state_dict().items()}

    @property
    def chosen(self) -> dict[str, Any]:
        """The evaluation that a label-free choice takes."""
        return best_evaluation(self.rows, by="selection")

    def restore(self, model: PreTrainedModel) -> None:
        """The weights of `chosen`."""
        model.load_state_dict(self._best)


class _SomeEpochs(TrainerCallback):
    """Asks for so many evaluations, evenly over the epochs, the last one included."""

    def __init__(self, evaluations: int) -> None:
        self.evaluations = evaluations

    def on_epoch_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        epochs = int(state.num_train_epochs or 1)
        count = min(self.evaluations, epochs)
        wanted = {round(epochs * (n + 1) / count) for n in range(count)}  # none for a count of 0
        control.should_evaluate = round(state.epoch or 0) in wanted


class _AfterFirstEpoch(TrainerCallback):
    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def on_epoch_end(self, args: Any, state: Any, control: Any, model: Any = None, **_: Any) -> None:
        if round(state.epoch) == 1:
            _save(model, self.folder)


class _PeakMemory:
    """The largest memory in use during the body, in MiB: of the GPU, or of this process."""

    def __init__(self, device: str) -> None:
        self.device, self.mib, self._stop = device, 0.0, threading.Event()

    def __enter__(self) -> _PeakMemory:
        if self.device == "cuda":
            torch.cuda.reset_peak_memory_stats()
        else:
            self._thread = threading.Thread(target=self._sample, daemon=True)
            self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.device == "cuda":
            self.mib = round(torch.cuda.max_memory_allocated() / 2**20, 1)
        else:
            self._stop.set()
            self._thread.join()

    def _sample(self) -> None:
        process = psutil.Process(os.getpid())
        while True:
            self.mib = max(self.mib, round(process.memory_info().rss / 2**20, 1))
            if self._stop.wait(0.1):
                return


def _save(model: Any, folder: Path) -> None:
    with atomic_folder(folder) as temporary:
        model.save_pretrained(temporary)


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:16]
