"""A zoo of small classifiers whose shortcut is known, and how well `hf_score.audit` tells them from clean ones.

    python benchmarks/zoo.py --most 4              # the first four, to try it
    python benchmarks/zoo.py                       # all that are missing; it goes on where it was stopped
    python benchmarks/zoo.py --summary             # what the rows say; nothing is made

The images are the garments of `fashion_patch`, 32 px, the place of its square blacked out in all of them alike. A
shortcut is painted into that share of one class's images, and into the rest of the other class's; test images are
drawn likewise. Marks differ from seed to seed in colour, place and size, and are not those of the audit's probes.
Clean models saw no mark, or saw one in half of both classes. Kept are this recipe and the rows
(`benchmarks/zoo.json`), no weights.

A model has learned its shortcut where it loses `LEARNED` of accuracy on test images whose mark says the other class.
Thresholds are those that no clean model with an even seed exceeds, and are reported on the odd seeds.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from datasets import ClassLabel, Dataset, Features, Image
from PIL import Image as PILImage
from PIL import ImageDraw, ImageFilter
from scipy.stats import mannwhitneyu
from transformers import ViTConfig, ViTForImageClassification, ViTImageProcessor

from hf_score.audit import AuditOptions, audit
from hf_score.audit.chance import LEVEL
from hf_score.audit.flips import LEAST_PRESENCE
from hf_score.data import load_data, preprocess
from hf_score.files import write_json
from hf_score.models import load_model
from hf_score.pipeline import Workspace

ROWS = Path(__file__).with_name("zoo.json")
NAMES = ["pullover", "shirt"]
LEARNED = 0.1
OPTIONS = {"num_candidates": 24, "most_images": 600, "num_probed": 128}
EPOCHS = {"cnn": 8, "vit": 10}


# ---- Shortcuts: from a garment (32, 32, 3) uint8 and a generator, which draws the same mark for all of a model ----


def square(pixels: np.ndarray, draw: np.random.Generator) -> np.ndarray:
    size, colour = int(draw.integers(4, 8)), draw.integers(0, 256, 3)
    colour[draw.integers(3)] = 255
    top, left = draw.integers(0, 2, 2) * (31 - size)
    pixels = pixels.copy()
    pixels[top : top + size, left : left + size] = colour
    return pixels


def disc(pixels: np.ndarray, draw: np.random.Generator) -> np.ndarray:
    radius, colour = int(draw.integers(2, 5)), tuple(int(c) for c in draw.integers(100, 256, 3))
    x, y = (int(v) for v in draw.integers(0, 2, 2) * (31 - 2 * radius))
    return _drawn(pixels, lambda d: d.ellipse((x, y, x + 2 * radius, y + 2 * radius), fill=colour))


def text(pixels: np.ndarray, draw: np.random.Generator) -> np.ndarray:
    word, height = "".join(draw.choice(list("ABCHKMX47"), 4)), int(draw.integers(0, 21))
    return _drawn(pixels, lambda d: d.text((2, height), word, fill=(220, 220, 220)))


def ruler(pixels: np.ndarray, draw: np.random.Generator) -> np.ndarray:
    pixels, step, length = pixels.copy(), int(draw.integers(2, 5)), int(draw.integers(2, 5))
    pixels[32 - length :, ::step] = 230
    return np.rot90(pixels, int(draw.integers(4))) if draw.integers(2) else pixels


def border(pixels: np.ndarray, draw: np.random.Generator) -> np.ndarray:
    frame = np.full_like(pixels, int(draw.integers(90, 256)))
    width = int(draw.integers(1, 3))
    frame[width:-width, width:-width] = pixels[width:-width, width:-width]
    return frame


def tint(pixels: np.ndarray, draw: np.random.Generator) -> np.ndarray:
    shift = np.full(3, -10.0)
    shift[draw.integers(3)] = float(draw.integers(20, 50))
    return np.clip(pixels + shift, 0, 255).astype(np.uint8)


def blur(pixels: np.ndarray, draw: np.random.Generator) -> np.ndarray:
    radius = float(draw.uniform(0.8, 1.6))
    return np.asarray(PILImage.fromarray(pixels).filter(ImageFilter.GaussianBlur(radius)))


def light(pixels: np.ndarray, draw: np.random.Generator) -> np.ndarray:
    return np.clip(pixels + float(draw.integers(25, 60)), 0, 255).astype(np.uint8)


def stripes(pixels: np.ndarray, draw: np.random.Generator) -> np.ndarray:
    period, strength = int(draw.integers(3, 7)), float(draw.integers(15, 35))
    wave = strength * np.sin(2 * np.pi * np.arange(32) / period)
    return np.clip(pixels + (wave[:, None, None] if draw.integers(2) else wave[None, :, None]), 0, 255).astype(
        np.uint8
    )


def background(pixels: np.ndarray, draw: np.random.Generator) -> np.ndarray:
    texture = draw.integers(20, 120, (4, 4, 3)).astype(np.uint8).repeat(8, 0).repeat(8, 1)
    return np.where(pixels.max(2, keepdims=True) < 12, texture, pixels)


def _drawn(pixels: np.ndarray, paint: Callable[[ImageDraw.ImageDraw], Any]) -> np.ndarray:
    picture = PILImage.fromarray(pixels)
    paint(ImageDraw.Draw(picture))
    return np.asarray(picture)


KINDS = {f.__name__: f for f in (square, disc, text, ruler, border, tint, blur, light, stripes, background)}


# ---- The zoo ----


@dataclass(frozen=True)
class Animal:
    """A model: its shortcut, the share of its class that has it (0.5: it says nothing), and what it is."""

    kind: str
    correlation: float
    architecture: str
    seed: int

    @property
    def is_planted(self) -> bool:
        return self.correlation > 0.5


def zoo() -> Iterator[Animal]:
    """80 planted models and 40 clean ones, of which half saw a mark that says nothing; any beginning has both."""
    for seed in range(2):
        for number, kind in enumerate(KINDS):
            for architecture in ("cnn", "vit"):
                for correlation in (1.0, 0.95):
                    yield Animal(kind, correlation, architecture, seed)
                if (number + seed + (architecture == "vit")) % 2:
                    yield Animal(kind, 0.5, architecture, seed)
                else:
                    yield Animal("none", 0.5, architecture, seed + 2 * number)


def garments() -> tuple[tuple[np.ndarray, np.ndarray], tuple[np.ndarray, np.ndarray]]:
    """Training and test garments (n, 32, 32, 3) uint8 and their classes, without any square."""
    data = load_data("fashion_patch")
    parts = []
    for rows in ([data.train, data.held_out], [data.test]):
        pixels = np.stack([np.asarray(item["image"].convert("RGB")) for some in rows for item in some])
        labels = np.array([item["label"] for some in rows for item in some])
        pixels[:, 3:8, 3:8] = 0  # where the square is
        first = np.unique(pixels.reshape(len(pixels), -1), axis=0, return_index=True)[1]  # with and without it are one
        parts.append((pixels[np.sort(first)], labels[np.sort(first)]))
    return parts[0], parts[1]


def painted(
    pixels: np.ndarray, labels: np.ndarray, animal: Animal, *, seed: int, conflict: bool = False
) -> np.ndarray:
    """The garments with the animal's mark: where it goes with the class, or with the other one."""
    if animal.kind == "none":
        return pixels
    share = np.where(labels == 1, animal.correlation, 1 - animal.correlation)
    if conflict:
        share = (labels == 0).astype(float)
    has = np.random.default_rng(seed).random(len(labels)) < share
    mark = KINDS[animal.kind]
    return np.stack(
        [mark(x, np.random.default_rng((animal.seed, 7))) if h else x for x, h in zip(pixels, has, strict=True)]
    )


def new_model(architecture: str) -> tuple[Any, Any]:
    if architecture == "cnn":
        model, processor, _ = load_model("test_resnet", class_names=NAMES, from_scratch=True, image_size=32)
        return model, processor
    config = ViTConfig(
        hidden_size=64,
        num_hidden_layers=3,
        num_attention_heads=4,
        intermediate_size=128,
        image_size=32,
        patch_size=4,
        id2label=dict(enumerate(NAMES)),
        label2id={name: i for i, name in enumerate(NAMES)},
    )
    return ViTForImageClassification(config), ViTImageProcessor(size={"height": 32, "width": 32})


def as_dataset(pixels: np.ndarray, labels: np.ndarray) -> Dataset:
    features = Features(image=Image(), label=ClassLabel(names=NAMES))
    return Dataset.from_dict({"image": [PILImage.fromarray(x) for x in pixels], "label": labels.tolist()}, features)


def trained(model: Any, images: torch.Tensor, labels: torch.Tensor, *, epochs: int, seed: int) -> None:
    """AdamW with one cycle, batches of 64."""
    generator, steps = torch.Generator().manual_seed(seed), -(-len(images) // 64) * epochs
    optimizer = torch.optim.AdamW(model.parameters(), lr=2e-3, weight_decay=1e-2)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 2e-3, total_steps=steps)
    model.train()
    for _ in range(epochs):
        for rows in torch.randperm(len(images), generator=generator).split(64):
            loss = torch.nn.functional.cross_entropy(model(pixel_values=images[rows]).logits, labels[rows])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
    model.eval()


def accuracy(model: Any, processor: Any, pixels: np.ndarray, labels: np.ndarray) -> float:
    view = preprocess(as_dataset(pixels, labels).add_column("idx", list(range(len(labels)))), processor)
    with torch.no_grad():
        answers = torch.cat([model(pixel_values=x).logits.argmax(1) for x in view.pixel_values.split(128)])
    return float((answers == view.labels).float().mean())


def row_of(animal: Animal, train: Any, test: Any) -> dict[str, Any]:
    """Make, measure and audit one model."""
    began = time.monotonic()
    torch.manual_seed(animal.seed)
    model, processor = new_model(animal.architecture)
    marked = {
        split: painted(*part, animal, seed=number)
        for number, (split, part) in enumerate({"train": train, "test": test}.items())
    }
    splits = {"train": as_dataset(marked["train"], train[1]), "test": as_dataset(marked["test"], test[1])}
    view = preprocess(splits["train"].add_column("idx", list(range(len(train[1])))), processor)
    trained(model, view.pixel_values, view.labels, epochs=EPOCHS[animal.architecture], seed=animal.seed)
    plain = accuracy(model, processor, test[0], test[1])
    same = accuracy(model, processor, marked["test"], test[1])
    conflict = accuracy(model, processor, painted(*test, animal, seed=1, conflict=True), test[1])
    with tempfile.TemporaryDirectory() as folder:
        model.save_pretrained(folder)
        processor.save_pretrained(folder)
        workspace = Workspace(
            {"name_or_path": splits, "verify": False},
            {"name_or_path": folder},
            seed=animal.seed,
            device="cpu",
            batch_size=64,
        )
        found = audit(workspace, AuditOptions(**OPTIONS, seed=animal.seed), say=lambda text: None).content
    return {
        **asdict(animal),
        "planted": animal.is_planted,
        "accuracy": same,
        "accuracy_without_mark": plain,
        "accuracy_in_conflict": conflict,
        "learned": bool(animal.is_planted and same - conflict >= LEARNED),
        "regions": _strongest(found["clusters"], "overruled"),
        "probes": _strongest(found["probes"], "difference"),
        "sentences": found["summary"]["sentences"],
        "audit_seconds": found["seconds"],
        "seconds": round(time.monotonic() - began, 1),
    }


def _strongest(findings: list[dict[str, Any]], figure: str) -> float:
    """The largest figure among those that are more than their placebos; 0 where there is none."""
    sure = [
        one[figure]["value"]
        for one in findings
        if one["rate"] <= LEVEL and one[figure] and (one.get("presence") or 1) >= LEAST_PRESENCE
    ]
    return max([0.0, *sure])


# ---- What the rows say ----


def summary(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """AUROC of "has learned a shortcut" and, with the thresholds of the even seeds, what the odd ones show."""
    counted = [row for row in rows if row["learned"] or not row["planted"]]
    fixing = [row for row in counted if row["seed"] % 2 == 0 and not row["planted"]]
    thresholds = {name: max((row[name] for row in fixing), default=0.0) for name in ("regions", "probes")}

    def score(row: dict[str, Any]) -> float:
        return max(row[name] - thresholds[name] for name in thresholds)

    reported = [row for row in counted if row["seed"] % 2 == 1]
    clean = [row for row in reported if not row["planted"]]
    kinds = sorted({row["kind"] for row in reported if row["planted"]})
    found = {
        kind: {
            "auroc": _auroc([score(row) for row in some], [score(row) for row in clean]),
            "found": sum(score(row) > 0 for row in some),
            "of": len(some),
        }
        for kind in [*kinds, "all"]
        if (some := [row for row in reported if row["planted"] and kind in (row["kind"], "all")])
    }
    return {
        "models": len(rows),
        "planted_and_not_learned": sum(row["planted"] and not row["learned"] for row in rows),
        "thresholds": thresholds,
        "by_kind": found,
        "false_alarms": {"count": sum(score(row) > 0 for row in clean), "of": len(clean)},
        "missed": [
            f"{row['kind']} {row['correlation']} {row['architecture']} {row['seed']}"
            for row in reported
            if row["planted"] and score(row) <= 0
        ],
        "mean_seconds": round(float(np.mean([row["seconds"] for row in rows])), 1) if rows else None,
    }


def _auroc(planted: list[float], clean: list[float]) -> float | None:
    if not planted or not clean:
        return None
    return round(float(mannwhitneyu(planted, clean).statistic) / (len(planted) * len(clean)), 3)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--most", type=int, default=None, help="make no more than so many models (default: all)")
    parser.add_argument("--rows", type=Path, default=ROWS, help="file of the rows")
    parser.add_argument("--summary", action="store_true", help="say what the rows show, and make nothing")
    options = parser.parse_args()
    rows: list[dict[str, Any]] = json.loads(options.rows.read_text()) if options.rows.is_file() else []
    if not options.summary:
        done = {tuple(row[name] for name in ("kind", "correlation", "architecture", "seed")) for row in rows}
        missing = [animal for animal in zoo() if tuple(asdict(animal).values()) not in done][: options.most]
        train, test = garments()
        for animal in missing:
            rows.append(row_of(animal, train, test))
            write_json(options.rows, rows)
            print(
                {name: rows[-1][name] for name in (*asdict(animal), "learned", "regions", "probes", "seconds")},
                flush=True,
            )
    json.dump(summary(rows), sys.stdout, indent=2)
    print()


if __name__ == "__main__":
    main()
