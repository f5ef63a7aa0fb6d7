"""How well label-free scores find the candidates that an oracle calls spurious, on the starting models of `search.py`.

    python benchmarks/proposals.py --data DATA --cache CACHE            # runs what is missing, then prints the tables
    python benchmarks/proposals.py --table                              # prints the tables

The two scores of `hf_score.detection.proposals` are here beside those that did not make it into the package. Rows go
to `proposals.json`, one per job, score and threshold of the oracle. Only `evaluate` sees the regions.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml
from scipy.stats import rankdata
from search import EXTRA, Job
from torch import Tensor

from hf_score.attribution import Explainer
from hf_score.data import ImageCollator
from hf_score.detection import Candidates, HostImages, SpuriousSamples, exchange_regions
from hf_score.detection.decide import region_shares
from hf_score.detection.proposals import hue_contrast, suspicion, transfer
from hf_score.files import write_json
from hf_score.penalty import margin

HERE = Path(__file__).resolve().parent
NUM_HOSTS = 6
#: Smallest share of the relevance in the mask that lies in the known region. With birds nearly all have 0.15.
THRESHOLDS = (0.15, 0.5)
SHOWN = {
    "auroc": "AUROC over all candidates of all classes",
    "auroc_clusters": "AUROC of the scores' means by cluster",
    "auroc_within": "AUROC within a class (mean of the classes that have both)",
    "precision_10": "precision of the first 10",
    "precision_40": "precision of the first 40",
}


def score_all(job: Job, candidates: Candidates) -> dict[str, np.ndarray]:
    """name → (n,), higher is more suspicious."""
    model = job.start("erm").eval()
    hosts = HostImages(job.held_out, job.held_out.labels.tolist(), ImageCollator(None), seed=job.seed)
    images = job.train.pixel_values[torch.from_numpy(candidates.position)]
    moved = _moved_masks(candidates, job.seed)
    evidence = {
        "transfer": transfer(candidates, model, job.train, hosts, num_hosts=NUM_HOSTS),
        "hue": hue_contrast(candidates, job.train),
    }
    control = transfer(moved, model, job.train, hosts, num_hosts=NUM_HOSTS)
    early_inside, early_outside = _low_level_probe(candidates, job, images)
    position, colour = _consistency(candidates, images)
    flips, removal = _flips_and_removal(model, candidates, images, hosts)
    return {
        "suspicion (transfer, hue)": suspicion(evidence),
        **evidence,
        "transfer − random region": evidence["transfer"] - control,
        "transfer, flips": flips,
        "removal": removal,
        "sufficiency": candidates.masked_margins,
        "misclassified": _misclassified(model, candidates, job),
        "consistency, position": position,
        "consistency, colour": colour,
        "rare colour": _rare_colour(candidates, job, images),
        "early": early_inside - early_outside,
        "early, mask alone": early_inside,
        "logit order": candidates.logits,
    }


# ---- Scores that did not make it into the package ----


def _flips_and_removal(model: Any, candidates: Candidates, images: Tensor, hosts: HostImages) -> tuple:
    """Share of hosts that the region turns into its class; what another class's content in its place takes away."""
    samples = SpuriousSamples(*(torch.as_tensor(x) for x in (images, *_of(candidates, "masks", "labels", "idx"))))
    flips, removal = [], []
    for turn in range(NUM_HOSTS):
        turns = range(turn * len(samples), (turn + 1) * len(samples))
        pairs = exchange_regions(samples, *hosts.draw(candidates.labels.tolist(), turns))
        with_region, without = (_logits(model, x) for x in (pairs.with_region, pairs.without_region))
        labels = pairs.shortcut_labels
        turned = (with_region.argmax(1) == labels).float() - (without.argmax(1) == labels).float()
        flips.append(turned.chunk(2)[1])
        removal.append((margin(with_region, labels) - margin(without, labels)).chunk(2)[0])
    return torch.stack(flips).mean(0).numpy(), torch.stack(removal).mean(0).numpy()


def _misclassified(model: Any, candidates: Candidates, job: Job) -> np.ndarray:
    """Cosine of the shortcut relevance with that of held-out images of other classes mistaken for this one, less that
    with the rest of them; the five nearest to a mistake where there are fewer than three."""
    held_out, scores = job.held_out, np.zeros(len(candidates))
    with Explainer(model, batch_size=50) as explainer:
        for label in np.unique(candidates.labels):
            others = held_out.pixel_values[held_out.labels != int(label)]
            towards = torch.full((len(others),), int(label))
            parts = [
                explainer.explain(x, y, layer=candidates.layer, pixels=False)
                for x, y in zip(others.split(50), towards.split(50), strict=True)
            ]
            margins = margin(torch.cat([p.logits for p in parts]).float(), towards).numpy()
            relevance = _unit(torch.cat([p.layer_relevance.clamp(min=0).sum(1) for p in parts]).numpy())
            mistaken = margins > 0
            if mistaken.sum() < 3:
                mistaken = margins >= np.sort(margins)[-5]
            rows = candidates.labels == label
            direction = relevance[mistaken].mean(0) - relevance[~mistaken].mean(0)
            scores[rows] = _unit(candidates.shortcut_relevance[rows]) @ direction
    return scores


def _consistency(candidates: Candidates, images: Tensor) -> tuple[np.ndarray, np.ndarray]:
    """Overlap with the other masks of the cluster above chance; nearness of the colour to the cluster's mean, in units
    of how much whole images differ in colour."""
    masks, n = candidates.masks, len(candidates)
    colours = np.stack([_low_level(images[i], masks[i])[:3] for i in range(n)])
    whole = images.mean(dim=(2, 3)).numpy()
    spread = np.linalg.norm(whole - whole.mean(0), axis=1).mean()
    position, colour = np.zeros(n), np.zeros(n)
    for cluster in np.unique(candidates.cluster):
        rows = np.flatnonzero(candidates.cluster == cluster)
        mean = masks[rows].mean(0)
        position[rows] = [(mean * masks[i]).sum() / max(1, masks[i].sum()) - masks[i].mean() for i in rows]
        colour[rows] = -np.linalg.norm(colours[rows] - colours[rows].mean(0), axis=1) / spread
    return position, colour


def _rare_colour(candidates: Candidates, job: Job, images: Tensor) -> np.ndarray:
    """Mahalanobis distance of the masked colour to that of held-out images of other classes at the same place."""
    scores = []
    for image, mask, label in zip(images, candidates.masks, candidates.labels, strict=True):
        others = job.held_out.pixel_values[job.held_out.labels != int(label)]
        there = others[:, :, torch.from_numpy(mask)].mean(2).numpy()
        away = _low_level(image, mask)[:3] - there.mean(0)
        scores.append(away @ np.linalg.solve(np.cov(there.T) + 1e-3 * np.eye(3), away))
    return np.sqrt(scores)


def _low_level_probe(candidates: Candidates, job: Job, images: Tensor) -> list[np.ndarray]:
    """Leave-one-out output of a ridge regression, cluster against other classes (same masks, held-out images), on
    low-level features inside the mask, and outside it."""
    inside, outside = np.zeros(len(candidates)), np.zeros(len(candidates))
    generator = np.random.default_rng(job.seed)
    for cluster in np.unique(candidates.cluster):
        rows = np.flatnonzero(candidates.cluster == cluster)
        others = np.flatnonzero(job.held_out.labels.numpy() != candidates.labels[rows[0]])
        against = job.held_out.pixel_values[generator.choice(others, size=len(rows))]
        for scores, invert in ((inside, False), (outside, True)):
            masks = candidates.masks[rows] ^ invert
            both = [_low_level(x, m) for part in (images[rows], against) for x, m in zip(part, masks, strict=True)]
            scores[rows] = _leave_one_out(np.stack(both), np.repeat([1.0, -1.0], len(rows)))[: len(rows)]
    return [inside, outside]


def _leave_one_out(features: np.ndarray, targets: np.ndarray) -> np.ndarray:
    features = np.c_[(features - features.mean(0)) / (features.std(0) + 1e-6), np.ones(len(features))]
    hat = features @ np.linalg.solve(features.T @ features + np.eye(features.shape[1]), features.T)
    return (hat @ targets - np.diag(hat) * targets) / (1 - np.diag(hat))


def _low_level(image: Tensor, mask: np.ndarray) -> np.ndarray:
    """(12,): mean, deviation, ninth decile and mean horizontal step of each channel where the mask is."""
    steps = np.abs(np.diff(image.numpy(), axis=2, prepend=image.numpy()[:, :, :1]))[:, mask]
    values = image.numpy()[:, mask]
    if not mask.any():
        return np.zeros(12)
    return np.concatenate([values.mean(1), values.std(1), np.percentile(values, 90, axis=1), steps.mean(1)])


# ---- Helpers ----


def _moved_masks(candidates: Candidates, seed: int) -> Candidates:
    generator = np.random.default_rng(seed)
    steps = generator.integers(candidates.masks.shape[1], size=(len(candidates), 2))
    moved = [np.roll(mask, step, axis=(0, 1)) for mask, step in zip(candidates.masks, steps, strict=True)]
    return dataclasses.replace(candidates, masks=np.stack(moved))


def _logits(model: Any, images: Tensor) -> Tensor:
    with torch.no_grad():
        return torch.cat([model(pixel_values=x).logits.float() for x in images.split(64)])


def _unit(vectors: np.ndarray) -> np.ndarray:
    return vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)


def _of(candidates: Candidates, *names: str) -> list[np.ndarray]:
    return [getattr(candidates, name) for name in names]


# ---- Against the oracle ----


def evaluate(job: Job, extra: dict) -> list[dict[str, Any]]:
    candidates = job.candidates(mask_share=extra["mask_share"], mask_area=extra["mask_area"])
    labels, clusters = candidates.labels, candidates.cluster
    shares = region_shares(candidates, job.regions("train", candidates.idx))
    rows = []
    for name, scores in score_all(job, candidates).items():
        for threshold in THRESHOLDS:
            spurious = shares >= threshold
            order = np.argsort(-scores, kind="stable")
            within = [_auroc(scores[labels == c], spurious[labels == c]) for c in np.unique(labels)]
            known = [value for value in within if value is not None]
            found = {
                "base_rate": spurious.mean(),
                "auroc": _auroc(scores, spurious),
                "auroc_clusters": _auroc(mean_by_cluster(scores, clusters), spurious),
                "auroc_within": np.mean(known) if known else None,
                "precision_10": spurious[order[:10]].mean(),
                "precision_40": spurious[order[:40]].mean(),
                "precision_kept": spurious[scores >= 0.7].mean() if name.startswith("suspicion") else None,
            }
            about = {"set": job.set_name, "model": job.model_name, "seed": job.seed, "score": name}
            values = {key: None if value is None else round(float(value), 4) for key, value in found.items()}
            rows.append({**about, "threshold": threshold, "clusters": len(np.unique(clusters)), **values})
    return rows


def mean_by_cluster(scores: np.ndarray, clusters: np.ndarray) -> np.ndarray:
    """(n,): the mean score of each candidate's cluster, to rank clusters; `scores` (n,) and `clusters` (n,) int."""
    _, of = np.unique(clusters, return_inverse=True)
    return (np.bincount(of, weights=scores) / np.bincount(of))[of]


def _auroc(scores: np.ndarray, positive: np.ndarray) -> float | None:
    count = int(positive.sum())
    if count in (0, len(positive)):
        return None
    return float((rankdata(scores)[positive].mean() - (count + 1) / 2) / (len(positive) - count))


def tables(rows: list[dict[str, Any]]) -> str:
    """One table per measure: seed 1 (looked at while choosing) / mean of the other seeds."""
    rows = [r for r in rows if r["threshold"] == (0.5 if r["set"].startswith("birds") else 0.15)]
    jobs = list(dict.fromkeys((r["set"], r["model"]) for r in rows))
    scores = list(dict.fromkeys(r["score"] for r in rows))
    lines = []
    for key, title in SHOWN.items():
        lines += [f"\n**{title}**: seed 1 / mean of the other seeds\n"]
        lines += ["| score | " + " | ".join(f"{s} {m}" for s, m in jobs) + " |", "|---|" + "---:|" * len(jobs)]
        lines_of = [(score, score, key) for score in scores]
        if key.startswith("precision"):
            lines_of.append(("random picks", scores[0], "base_rate"))
        for heading, score, field in lines_of:
            cells = []
            for job in jobs:
                of = [r for r in rows if (r["set"], r["model"], r["score"]) == (*job, score)]
                cells.append(
                    " / ".join(_mean([r[field] for r in of if (r["seed"] == 1) is one]) for one in (True, False))
                )
            lines.append(f"| {heading} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def _mean(values: list[float | None]) -> str:
    known = [v for v in values if v is not None]
    return f"{np.mean(known):.2f}" if known else "–"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--plan", type=Path, default=HERE / "search.yaml")
    parser.add_argument("--rows", type=Path, default=HERE / "proposals.json")
    parser.add_argument("--data", help="folder of the image sets and weights that are not embedded")
    parser.add_argument("--cache", type=Path, default=Path("runs/search"))
    parser.add_argument("--seeds", default="1,2,3")
    parser.add_argument("--table", action="store_true", help="print the tables of the rows and stop")
    options = parser.parse_args()
    plan = yaml.safe_load(options.plan.read_text())
    rows = json.loads(options.rows.read_text()) if options.rows.is_file() else []
    if not options.table:
        os.environ["DATA"] = options.data or os.environ.get("DATA", "")
        done = {(r["set"], r["model"], r["seed"]) for r in rows}
        for seed in map(int, options.seeds.split(",")):
            for set_name, spec in plan["sets"].items():
                for model, of_model in plan["models"].items():
                    if set_name in of_model.get("sets", plan["sets"]) and (set_name, model, seed) not in done:
                        fields = {**spec.get("score", {}), **spec.get("by_model", {}).get(model, {})}
                        job = Job(plan, set_name, model, seed, options.cache)
                        rows += evaluate(job, {**EXTRA, **fields})
                        write_json(options.rows, rows)
    print(tables(rows))


if __name__ == "__main__":
    main()
