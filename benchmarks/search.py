"""Formulations of SCORE and their controls side by side: one YAML of cells in, one row per run out.

    python benchmarks/search.py benchmarks/search.yaml --data DATA --cache CACHE --workers 2   # runs what is missing
    python benchmarks/search.py benchmarks/search.yaml --table                                 # Markdown from the rows

A job is a (set, model, seed): it trains its ERM starting point and finds its candidates once (both cached), and then
fine-tunes every cell from there. Rows already in the file are skipped, so a stopped search goes on where it was. Cells
run round by round (`round` in the YAML), so the decisive ones come first. Jobs are those of `hf-score bench`; here are
formulations and controls that did not make it into the package. Group labels are read by `measure` and `reference`
alone. DATA holds `isic_patches`, `birds_background`, their masks and `weights`; Fashion is embedded.
"""

from __future__ import annotations

import argparse
import csv
import dataclasses
import json
import os
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
import yaml
from controls import TRAINERS, cut_out
from tables import document
from transformers import TrainerCallback, set_seed

from hf_score.attribution import Explainer
from hf_score.bench import job as bench
from hf_score.bench.plan import expand
from hf_score.config import SCOREConfig
from hf_score.data import ImageCollator, PixelDataset
from hf_score.detection import HostImages, SpuriousSamples, decide_by_oracle, exchange_regions, find_candidates
from hf_score.metrics import relevance_in_region
from hf_score.models import classifier_head, load_model
from hf_score.penalty import margin
from hf_score.trainer import SCORETrainer

#: Fields of a cell that are not fields of SCOREConfig, with their defaults.
EXTRA: dict[str, Any] = {
    "trainer": "score",  # score | uniform | l2 | cut_out | reference
    **bench.SAMPLES,  # masks may be "box" too: all outside a box around the object
    "dual": False,  # λ doubles after an epoch whose reliance is above 0.1, and halves after one below
    "then": None,  # refit (the head alone, plain ERM) | second_scan (again, with what the debiased model relies on)
}


class Job(bench.Job):
    """One (set, model, seed): the data, the starting model and its candidates are the benchmark's."""

    def __init__(self, plan: dict, set_name: str, model_name: str, seed: int, cache: Path) -> None:
        super().__init__(SimpleNamespace(**plan), set_name, model_name, seed, cache)
        self.set_name, self.model_name = set_name, model_name

    def config(self, **fields: Any) -> SCOREConfig:
        # As in every row so far: the exchange within classes came later, in benchmarks/main.yaml.
        return self._config(SCOREConfig, {"class_balanced": True, "score_own_class_exchange": False, **fields})

    def _fit(self, model: Any, dataset: PixelDataset, **fields: Any) -> None:
        """Plain ERM."""
        config = self.config(**{"score_lambda": 0.0, "freeze_batch_norm": False, **fields})
        SCORETrainer(model=model, args=config, train_dataset=dataset, processing_class=self.processor).train()

    def samples(self, extra: dict) -> SpuriousSamples:
        how = {name: extra[name] for name in bench.SAMPLES}
        if how["masks"] != "box":
            return super().samples(how)
        samples = super().samples({**how, "masks": "found"})
        outside = [_outside_box(region) for region in self.regions("train", samples.idx)]
        return dataclasses.replace(samples, masks=torch.as_tensor(np.stack(outside)))

    # ---- Cells ----

    def run_cell(self, cell: dict) -> dict[str, Any]:
        began = time.time()
        own = {**cell.get("by_model", {}).get(self.model_name, {}), **cell.get("by_set", {}).get(self.set_name, {})}
        of_set = self.spec.get("by_model", {}).get(self.model_name, {})
        fields = {**self.model_spec["score"], **self.spec.get("score", {}), **of_set, **cell.get("score", {}), **own}
        extra = {k: fields.pop(k, v) for k, v in EXTRA.items()}
        samples, history = self.samples(extra), []
        if cell["name"] == "erm":
            model = self.start("erm")
        elif extra["trainer"] == "reference":
            model = self.reference()
        else:
            model, train = self.start("erm"), self.train
            if extra["trainer"] == "cut_out":
                fields["score_lambda"], steps = 0.0, len(self.train) // 32
                fields["max_steps"] = int(steps * fields.pop("num_train_epochs"))
                areas = {name: extra[name] for name in ("mask_share", "mask_area")}
                train = cut_out(self.start("erm"), self.train, **areas)
            config = self.config(**{"freeze_batch_norm": True, **fields})
            if cell.get("watch"):
                config = dataclasses.replace(config, eval_strategy="epoch")
            watch: Any = _Watch(self)
            callbacks = [watch, *([_DualLambda()] if extra["dual"] else [])]
            self._train(TRAINERS[extra["trainer"]], model, config, train, samples, *callbacks)
            history = watch.rows
            if extra["then"] == "refit":
                self._refit_head(model)
            elif extra["then"] == "second_scan":
                self._second_scan(model, samples, config, extra)
        return {
            "set": self.set_name,
            "model": self.model_name,
            "image_size": self.train.pixel_values.shape[-1],
            "seed": self.seed,
            "cell": cell["name"],
            "fields": {**fields, **extra},
            **self.scores(model),
            **self.effects(model, set(samples.labels.tolist())),
            "kept": torch.bincount(samples.labels, minlength=len(self.data.class_names)).tolist(),
            "history": history,
            "device": torch.cuda.get_device_name()
            if self.device == "cuda"
            else f"CPU, {torch.get_num_threads()} thread",
            "seconds": round(time.time() - began, 1),
        }

    def _refit_head(self, model: Any) -> None:
        model.requires_grad_(False)
        classifier_head(model).requires_grad_(True)
        self._fit(model, self.train, freeze_batch_norm=True, num_train_epochs=2, learning_rate=1e-3)

    def _second_scan(self, model: Any, samples: SpuriousSamples, config: SCOREConfig, extra: dict) -> None:
        """As many epochs again, with samples that the debiased model turned to beside the first ones."""
        areas = {name: extra[name] for name in ("mask_share", "mask_area")}
        found = find_candidates(model, self.train, **self._explaining(**areas))
        regions = self.regions("train", found.idx)
        selection = decide_by_oracle(found, regions, num_keep=extra["num_keep"], threshold=extra["threshold"])
        samples = samples.joined(found.samples(selection, self.train))
        self._train(SCORETrainer, model, config, self.train, samples)

    def _train(
        self,
        kind: Any,
        model: Any,
        config: SCOREConfig,
        train: PixelDataset,
        samples: SpuriousSamples,
        *callbacks: Any,
    ) -> None:
        kind(
            model=model,
            args=config,
            train_dataset=train,
            eval_dataset=self.held_out,
            spurious_samples=samples,
            processing_class=self.processor,
            callbacks=list(callbacks),
        ).train()

    # ---- Group labels from here on ----

    def scores(self, model: Any) -> dict[str, Any]:
        found = self.measure(model, self.test)
        return {
            "wga": round(found["worst_group_accuracy"], 4),
            "accuracy": round(found["accuracy"], 4),
            "mean_groups": round(found["mean_group_accuracy"], 4),
            "weighted": round(found["weighted_accuracy"], 4),
            "groups": [round(value, 4) for value in found["groups"]],
        }

    def effects(self, model: Any, classes: set[int]) -> dict[str, float | None]:
        """What the true region does on test images: its share of the relevance, and what inserting it into images of
        other classes, and taking it away, do to the margin of the class it is evidence for (in logits)."""
        labels = self.test.labels.cpu()
        chosen = [p for p, label in enumerate(labels.tolist()) if label in classes]
        regions = self.regions("test", [int(self.test.idx[p]) for p in chosen])
        shown = [(p, r) for p, r in zip(chosen, regions, strict=True) if r is not None]
        shown = [shown[i] for i in np.linspace(0, len(shown) - 1, min(48, len(shown))).astype(int)]
        rows = torch.as_tensor([p for p, _ in shown])
        masks = np.stack([r for _, r in shown])
        with Explainer(model) as explainer:
            explained = explainer.explain(self.test.pixel_values[rows], labels[rows].to(self.device))
        shares = relevance_in_region(explained.relevance.cpu().numpy(), masks)
        some = SpuriousSamples(self.test.pixel_values[rows].cpu(), torch.as_tensor(masks) > 0.5, labels[rows], rows)
        bare = self._without_region()
        hosts = HostImages(bare, bare.labels.tolist(), ImageCollator(None), seed=0)
        pairs = exchange_regions(some, *hosts.draw(some.labels.tolist(), range(len(some))))
        with torch.no_grad():
            both = [
                model(pixel_values=x.to(self.device)).logits.float().cpu()
                for x in (pairs.with_region, pairs.without_region)
            ]
        change = margin(both[0], pairs.shortcut_labels) - margin(both[1], pairs.shortcut_labels)
        removed, inserted = change.chunk(2)
        before, after = (logits.argmax(1).chunk(2)[1] for logits in (both[1], both[0]))
        right = before == pairs.labels.chunk(2)[1]
        return {
            "relevance_in_region": round(float(np.nanmean(shares)), 4),
            "removal_effect": round(float(removed.mean()), 3),
            "insertion_effect": round(float(inserted.mean()), 3),
            "insertion_flips": round(float((after != before)[right].float().mean()), 4) if right.any() else None,
        }

    def _without_region(self) -> PixelDataset:
        """Test images to insert the region into: those without it, or all where every image has one (backgrounds)."""
        region_of = self.data.regions("test")
        rows = [p for p, idx in enumerate(self.test.idx.tolist()) if region_of(idx) is None]
        view = self.test
        return view if not rows else PixelDataset(view.pixel_values[rows], view.labels[rows], view.idx[rows])

    def reference(self) -> Any:
        """What a user would dream of: ERM from the same weights on data whose groups say nothing about the class."""
        how, train = self.spec["reference"], self.train
        region_of = self.data.regions("train")
        if how == "balanced_by_metadata":
            path = Path(os.path.expandvars(self.spec["load"]["dataset"])) / "train" / "metadata.csv"
            with path.open() as file:
                attribute = {Path(row["file_name"]).stem: int(row["spurious"]) for row in csv.DictReader(file)}
            stems = [Path(region_of.sources[int(i)]).stem.removesuffix("_bird") for i in train.idx]
            has = torch.as_tensor([attribute[stem] for stem in stems])
        else:
            has = torch.as_tensor([int(region_of(int(i)) is not None) for i in train.idx])
        if how == "left_out":
            chosen = (has == 0).nonzero().flatten()
        else:
            groups = 2 * train.labels.cpu() + has
            weights = 1.0 / torch.bincount(groups).double()[groups]
            generator = torch.Generator().manual_seed(self.seed)
            chosen = torch.multinomial(weights, len(train), replacement=True, generator=generator)
        data = PixelDataset(train.pixel_values[chosen], train.labels[chosen], train.idx[chosen])
        set_seed(self.seed)
        model, _, _ = load_model(**expand(self.model_spec["load"]), class_names=self.data.class_names)
        if self.model_spec.get("channels_last"):
            model = model.to(memory_format=torch.channels_last)
        self._fit(model.to(self.device), data, **self.model_spec["erm"])
        return model


class _DualLambda(TrainerCallback):
    def on_evaluate(self, args: Any, state: Any, control: Any, metrics: Any = None, **_: Any) -> None:
        args.score_lambda *= 2.0 if metrics["eval_reliance"] > 0.1 else 0.5


class _Watch(TrainerCallback):
    """Per epoch: what a label-free choice may see, beside what it would get."""

    SEEN = ("accuracy", "worst_class_accuracy", "reliance", "counterfactual_accuracy", "selection")

    def __init__(self, job: Job) -> None:
        self.job, self.rows = job, []

    def on_evaluate(
        self, args: Any, state: Any, control: Any, metrics: Any = None, model: Any = None, **_: Any
    ) -> None:
        seen = {name: round(metrics[f"eval_{name}"], 4) for name in self.SEEN if f"eval_{name}" in metrics}
        got = self.job.scores(model)
        self.rows.append({"epoch": state.epoch, **seen, "wga": got["wga"], "test_accuracy": got["accuracy"]})


def _outside_box(background: np.ndarray) -> np.ndarray:
    """A person's way to say "the background": (H, W) bool, true outside the bounding box of what is not background."""
    outside = np.ones(background.shape, dtype=bool)
    rows, columns = np.nonzero(background <= 0.5)
    if len(rows):
        outside[rows.min() : rows.max() + 1, columns.min() : columns.max() + 1] = False
    return outside


def _done(rows: Path) -> set[tuple]:
    lines = rows.read_text().splitlines() if rows.is_file() else []
    return {(r["set"], r["model"], r["seed"], r["cell"]) for r in map(json.loads, lines)}


def _wanted(plan: dict) -> list[tuple[int, str, str, int, dict]]:
    """(round, set, model, seed, cell) in the order to run them."""
    wanted = []
    for cell in plan["cells"]:
        for set_name in cell.get("sets", plan["sets"]):
            for model in cell.get("models", plan["models"]):
                if set_name in plan["models"][model].get("sets", plan["sets"]):
                    for seed in cell.get("seeds", plan["seeds"]):
                        wanted.append((cell.get("round", 1), set_name, model, seed, cell))
    return sorted(wanted, key=lambda w: (w[0], w[3]))


def _names(wanted: tuple) -> dict[str, Any]:
    return {
        "rounds": wanted[0],
        "sets": wanted[1],
        "models": wanted[2],
        "seeds": wanted[3],
        "cells": wanted[4]["name"],
    }


def _work(plan: dict, rows: Path, cache: Path, threads: int, share: tuple[int, int], only: dict) -> None:
    torch.set_num_threads(threads)
    wanted = [
        w for w in _wanted(plan) if all(str(value) in only[key] for key, value in _names(w).items() if only[key])
    ]
    jobs = list(dict.fromkeys((r, s, m, seed) for r, s, m, seed, _ in wanted))
    for r, set_name, model_name, seed in jobs[share[0] :: share[1]]:
        done = _done(rows)
        cells = [w[4] for w in wanted if w[:4] == (r, set_name, model_name, seed)]
        cells = [c for c in cells if (set_name, model_name, seed, c["name"]) not in done]
        if not cells:
            continue
        job = Job(plan, set_name, model_name, seed, cache)
        for cell in cells:
            row = job.run_cell(cell)
            with rows.open("a") as file:
                file.write(json.dumps(row) + "\n")
            print(set_name, model_name, seed, cell["name"], row["wga"], row["accuracy"], row["seconds"], flush=True)


def main(words: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("plan", type=Path)
    parser.add_argument("--rows", type=Path, help="default: beside the plan, .jsonl")
    parser.add_argument("--data", help="folder of the image sets and weights that are not embedded")
    parser.add_argument("--cache", type=Path, default=Path("runs/search"))
    parser.add_argument("--workers", type=int, default=1)
    for name in ("rounds", "sets", "models", "seeds", "cells"):
        parser.add_argument(f"--{name}", default="", help="comma-separated: run these alone")
    parser.add_argument("--table", action="store_true", help="print the table of the rows and stop")
    options = parser.parse_args(words)
    plan = yaml.safe_load(options.plan.read_text())
    rows = options.rows or options.plan.with_suffix(".jsonl")
    if options.table:
        print(document(options.plan, rows))
        return
    os.environ["DATA"] = options.data or os.environ.get("DATA", "")
    threads = int(os.environ.get("OMP_NUM_THREADS", max(1, (os.cpu_count() or 1) // options.workers)))
    only = {
        name: [v for v in getattr(options, name).split(",") if v]
        for name in ("rounds", "sets", "models", "seeds", "cells")
    }
    if options.workers == 1:
        _work(plan, rows, options.cache, threads, (0, 1), only)
        return
    context = torch.multiprocessing.get_context("spawn")
    workers = [
        context.Process(target=_work, args=(plan, rows, options.cache, threads, (n, options.workers), only))
        for n in range(options.workers)
    ]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()


if __name__ == "__main__":
    main()
