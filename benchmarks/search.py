"""Formulations of SCORE side by side: one YAML of cells in, one row per run out.

    python benchmarks/search.py PLAN.yaml --rows rows.jsonl --cache CACHE [--workers 4]

A job is a (set, model, seed): it trains or loads its ERM starting point (cached), finds and decides the candidates
once, and then fine-tunes every cell from there. Rows already in the file are skipped, so a stopped search goes on
where it was. Group labels are read by `measure` alone.
"""

from __future__ import annotations

import argparse
import dataclasses
import hashlib
import json
import os
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml
from transformers import AutoModelForImageClassification, TrainerCallback, set_seed

from hf_score.attribution import Explainer, find_layer
from hf_score.config import SCOREConfig
from hf_score.data import PixelDataset, load_data, preprocess, resize_mask
from hf_score.detection import decide_at_random, decide_by_oracle, find_candidates
from hf_score.detection.candidates import explain_hits
from hf_score.detection.scan import ScanHit
from hf_score.metrics import group_metrics, relevance_in_region
from hf_score.models import load_model
from hf_score.trainer import SCORETrainer

#: Fields of a cell that are not fields of SCOREConfig.
EXTRA: dict[str, Any] = {
    "samples": "oracle",
    "num_keep": 40,
    "mask_area": 0.2,
    "mask_share": 0.5,
    "wrong_share": 0.0,
    "threshold": 0.5,
}


class Job:
    """One (set, model, seed): the data on the device, the starting model and its candidates."""

    def __init__(self, plan: dict, set_name: str, model_name: str, seed: int, cache: Path) -> None:
        self.plan, self.set_name, self.model_name, self.seed = plan, set_name, model_name, seed
        self.device = "cuda" if torch.cuda.is_available() else "cpu"
        spec = dict(plan["sets"][set_name])
        self.erm = {**plan["erm"], **spec.pop("erm", {}), **plan["models"][model_name].get("erm", {})}
        self.data = load_data(os.path.expandvars(spec.pop("dataset")), **_expand(spec))
        model = {k: v for k, v in plan["models"][model_name].items() if k not in ("erm", "score")}
        key = json.dumps([set_name, plan["sets"][set_name], model_name, model, self.erm, seed], sort_keys=True)
        folder = cache / hashlib.sha256(key.encode()).hexdigest()[:16]
        set_seed(seed)
        start, self.processor, _ = load_model(**_expand(model), class_names=self.data.class_names)
        self.train, self.held_out, self.test = (self._view(s) for s in ("train", "held_out", "test"))
        if not (folder / "config.json").is_file():
            config = self._config(score_lambda=0.0, freeze_batch_norm=False, **self.erm)
            self._trainer(start, config, None).train()
            start.save_pretrained(folder)
        self.folder = folder
        self.candidates: dict[tuple, Any] = {}

    def _view(self, split: str) -> PixelDataset:
        view = preprocess(getattr(self.data, split), self.processor)
        return dataclasses.replace(view, pixel_values=view.pixel_values.to(self.device))

    def start(self) -> torch.nn.Module:
        return AutoModelForImageClassification.from_pretrained(self.folder).to(self.device)

    def _config(self, **fields: Any) -> SCOREConfig:
        base = {
            "output_dir": "/tmp/hf-score-search",
            "seed": self.seed,
            "save_strategy": "no",
            "logging_strategy": "no",
            "disable_tqdm": True,
            "dataloader_pin_memory": False,
            "per_device_eval_batch_size": 128,
            "use_cpu": self.device == "cpu",
        }
        return SCOREConfig(**{**base, **fields})

    def _trainer(self, model: Any, config: SCOREConfig, samples: Any, **kwargs: Any) -> SCORETrainer:
        return SCORETrainer(
            model=model,
            args=config,
            train_dataset=self.train,
            eval_dataset=self.held_out,
            spurious_samples=samples,
            processing_class=self.processor,
            **kwargs,
        )

    def find(self, layer: str, extra: dict) -> Any:
        """Candidates of the starting model; the layer matters to none of the steps that use them here."""
        key = (extra["mask_share"], extra["mask_area"])
        if key not in self.candidates:
            self.candidates[key] = find_candidates(
                self.start(),
                self.train,
                dataset_fingerprint=self.data.fingerprint,
                layer=layer,
                mask_share=extra["mask_share"],
                mask_area=extra["mask_area"],
                batch_size=50,
            )
        return self.candidates[key]

    def samples(self, layer: str, extra: dict) -> Any:
        candidates = self.find(layer, extra)
        regions = self.regions("train", candidates.idx)
        selection = decide_by_oracle(candidates, regions, num_keep=extra["num_keep"], threshold=extra["threshold"])
        if extra["samples"] == "oracle" and extra["wrong_share"] == 0:
            return candidates.samples(selection, self.train)
        # Random images of the same classes: all of them (control), or some in place of right ones (a worse person).
        generator = np.random.default_rng(self.seed)
        labels = np.asarray(self.train.labels.cpu())
        hits = []
        for label in sorted({d.label for d in selection.spurious}):
            chosen = [d.idx for d in selection.spurious if d.label == label]
            count = len(chosen) if extra["samples"] == "random" else round(extra["wrong_share"] * len(chosen))
            drop = set(generator.choice(chosen, size=len(chosen) - count, replace=False).tolist())
            position = {int(i): p for p, i in enumerate(self.train.idx)}
            hits += [ScanHit(0.0, position[idx], idx, label) for idx in drop]
            others = [p for p in np.flatnonzero(labels == label) if int(self.train.idx[p]) not in drop]
            for p in generator.choice(others, size=min(count, len(others)), replace=False):
                hits.append(ScanHit(0.0, int(p), int(self.train.idx[p]), label))
        drawn = explain_hits(
            self.start(),
            self.train,
            hits,
            dataset_fingerprint=self.data.fingerprint,
            layer=layer,
            mask_share=extra["mask_share"],
            mask_area=extra["mask_area"],
            batch_size=50,
        )
        return drawn.samples(decide_at_random(drawn), self.train)

    def regions(self, split: str, chosen: Any) -> list:
        region_of = self.data.regions(split)
        found = (region_of(int(idx)) for idx in chosen)
        return [None if m is None else np.asarray(resize_mask(m, self.processor)) for m in found]

    # ---- Group labels from here on ----

    def measure(self, model: Any, classes: set[int]) -> dict[str, Any]:
        model.eval()
        with torch.no_grad():
            logits = torch.cat([model(pixel_values=x).logits for x in self.test.pixel_values.split(128)]).float().cpu()
        predicted = logits.argmax(-1).numpy()
        metrics = group_metrics(
            predicted,
            np.asarray(self.test.labels.cpu()),
            np.asarray(self.data.test["group"]),
            group_names=self.data.group_names,
            train_group_counts=self.data.train_group_counts,
        )
        row = {
            "wga": metrics["worst_group_accuracy"],
            "accuracy": metrics["accuracy"],
            "mean_groups": metrics["mean_group_accuracy"],
            "weighted": metrics["weighted_accuracy"],
            "groups": list(metrics["group_accuracy"].values()),
        }
        return row

    def relevance(self, model: Any, classes: set[int]) -> float | None:
        labels = self.test.labels.cpu().tolist()
        chosen = [p for p, label in enumerate(labels) if label in classes]
        regions = self.regions("test", [int(self.test.idx[p]) for p in chosen])
        kept = [(p, r) for p, r in zip(chosen, regions, strict=True) if r is not None][:48]
        if not kept:
            return None
        rows = [p for p, _ in kept]
        with Explainer(model) as explainer:
            targets = torch.tensor([labels[p] for p in rows], device=self.device)
            explained = explainer.explain(self.test.pixel_values[rows], targets)
        shares = relevance_in_region(explained.relevance.cpu().numpy(), np.stack([r for _, r in kept]))
        return float(np.nanmean(shares))

    def run_cell(self, cell: dict) -> dict[str, Any]:
        began = time.time()
        defaults = {**self.plan.get("defaults", {}), **self.plan["models"][self.model_name].get("score", {})}
        fields = {**defaults, **{k: v for k, v in cell.items() if k != "name"}}
        extra = {k: fields.pop(k, v) for k, v in EXTRA.items()}
        if cell["name"] == "erm":
            model, samples, history = self.start(), self.samples("last", extra), []
            classes = set(samples.labels.tolist())
        else:
            model = self.start()
            config = self._config(**{"eval_strategy": "epoch", **fields})
            samples = self.samples(find_layer(model, config.score_layer).name, extra)
            classes = set(samples.labels.tolist())
            watch = _Watch(self, classes)
            trainer = self._trainer(model, config, samples, callbacks=[watch])
            trainer.train()
            history = watch.rows
        counts = torch.bincount(samples.labels, minlength=len(self.data.class_names)).tolist()
        return {
            "set": self.set_name,
            "model": self.model_name,
            "seed": self.seed,
            "cell": cell["name"],
            "fields": {**fields, **extra},
            **self.measure(model, classes),
            "relevance_in_region": self.relevance(model, classes),
            "kept": counts,
            "history": history,
            "seconds": round(time.time() - began, 1),
        }


class _Watch(TrainerCallback):
    """Per epoch: what a label-free choice may see, beside what it would get."""

    def __init__(self, job: Job, classes: set[int]) -> None:
        self.job, self.classes, self.rows = job, classes, []

    def on_evaluate(
        self, args: Any, state: Any, control: Any, metrics: Any = None, model: Any = None, **_: Any
    ) -> None:
        seen = {k.removeprefix("eval_"): round(v, 4) for k, v in metrics.items() if k in _LABEL_FREE}
        got = self.job.measure(model, self.classes)
        self.rows.append({"epoch": state.epoch, **seen, "wga": got["wga"], "accuracy": got["accuracy"]})


_LABEL_FREE = ("eval_accuracy", "eval_worst_class_accuracy", "eval_reliance", "eval_selection")


def _expand(fields: dict) -> dict:
    return {k: os.path.expandvars(v) if isinstance(v, str) else v for k, v in fields.items()}


def _work(plan: dict, jobs: list, rows: Path, cache: Path, threads: int) -> None:
    torch.set_num_threads(threads)
    done = set()
    if rows.is_file():
        for line in rows.read_text().splitlines():
            row = json.loads(line)
            done.add((row["set"], row["model"], row["seed"], row["cell"]))
    for set_name, model_name, seed in jobs:
        cells = [c for c in plan["cells"] if (set_name, model_name, seed, c["name"]) not in done]
        if not cells:
            continue
        job = Job(plan, set_name, model_name, seed, cache)
        for cell in cells:
            try:
                row = job.run_cell(cell)
            except Exception as error:
                row = {"set": set_name, "model": model_name, "seed": seed, "cell": cell["name"], "error": repr(error)}
            with rows.open("a") as file:
                file.write(json.dumps(row) + "\n")
            wga, accuracy = row.get("wga"), row.get("accuracy")
            print(set_name, model_name, seed, cell["name"], wga, accuracy, row.get("error", ""), flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("plan", type=Path)
    parser.add_argument("--rows", type=Path, required=True)
    parser.add_argument("--cache", type=Path, required=True)
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--only", default="", help="SET,MODEL: run these jobs alone")
    options = parser.parse_args()
    plan = yaml.safe_load(options.plan.read_text())
    jobs = [
        (s, m, seed)
        for seed in plan["seeds"]
        for s in plan["sets"]
        for m in plan["models"]
        if (not options.only or options.only == f"{s},{m}") and m not in plan["sets"][s].get("skip_models", [])
    ]
    threads = int(os.environ.get("OMP_NUM_THREADS", max(1, (os.cpu_count() or 1) // options.workers)))
    if options.workers == 1:
        _work(plan, jobs, options.rows, options.cache, threads)
        return
    context = torch.multiprocessing.get_context("spawn")
    workers = [
        context.Process(target=_work, args=(plan, jobs[n :: options.workers], options.rows, options.cache, threads))
        for n in range(options.workers)
    ]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()


if __name__ == "__main__":
    main()
