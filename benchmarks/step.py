"""What a step of SCORE costs beside one of `transformers.Trainer`: per step, per image, and in decoding.

    python benchmarks/step.py
    python benchmarks/step.py --model vit_base_patch16_224 --batch 64 --samples 16 --workers 0 8 --steps 40 --threads 8

A round trains with `Trainer` and then with `SCORETrainer` (its defaults), from memory and from JPEGs of several sizes;
the ratios are of medians within a round, and of the rounds their median, smallest and largest are given. *Per image*
is beside the number of images that go through the network: batch, samples, partners and copies
(`SCOREConfig.images_per_step`). *Decoding* is the share of a SCORE step that the training process itself spends in
Pillow. Images are noise, at quality 90. Writes benchmarks/step.json.
"""

from __future__ import annotations

import argparse
import io
import json
import statistics
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import timm
import torch
from datasets import ClassLabel, Dataset, Features, Image, Value
from PIL import Image as PILImage
from PIL import ImageFile
from transformers import (
    TimmWrapperConfig,
    TimmWrapperForImageClassification,
    Trainer,
    TrainerCallback,
    TrainingArguments,
    ViTImageProcessor,
)

from hf_score import SCOREConfig, SCORETrainer
from hf_score.data import ImageCollator, preprocess
from hf_score.detection import SpuriousSamples

#: Steps at the beginning that are not counted: workers start, the penalty is scaled.
WARM_UP = 4


class Clock(TrainerCallback):
    """The time at the end of each step, and how long this process had decoded until then."""

    def __init__(self) -> None:
        self.ends: list[float] = []
        self.decoded: list[float] = []

    def on_step_end(self, *_: Any, **__: Any) -> None:
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        self.ends.append(time.perf_counter())
        self.decoded.append(DECODED["seconds"])

    @property
    def seconds(self) -> float:
        """The median step."""
        return statistics.median(np.diff(self.ends[WARM_UP:]))

    @property
    def decoding(self) -> float:
        """The share of decoding in the steps."""
        ends, decoded = self.ends[WARM_UP:], self.decoded[WARM_UP:]
        return (decoded[-1] - decoded[0]) / (ends[-1] - ends[0])


DECODED = {"seconds": 0.0}


@contextmanager
def decoding_timed() -> Iterator[None]:
    """Count the seconds that this process decodes; workers count for themselves."""
    load = ImageFile.ImageFile.load

    def timed(image: Any) -> Any:
        began = time.perf_counter()
        try:
            return load(image)
        finally:
            DECODED["seconds"] += time.perf_counter() - began

    ImageFile.ImageFile.load = timed  # type: ignore[method-assign]
    try:
        yield
    finally:
        ImageFile.ImageFile.load = load  # type: ignore[method-assign]


def make_images(folder: Path, size: tuple[int, int], count: int) -> Dataset:
    generator = np.random.default_rng(0)
    rows: dict[str, list[Any]] = {"image": [], "label": [], "idx": []}
    for i in range(count):
        noise = PILImage.fromarray(generator.integers(0, 255, (24, 32, 3), dtype=np.uint8))
        file = io.BytesIO()
        noise.resize(size, PILImage.Resampling.BICUBIC).save(file, "JPEG", quality=90)
        rows["image"].append({"bytes": file.getvalue(), "path": None})
        rows["label"].append(i % 2)
        rows["idx"].append(i)
    features = Features({"image": Image(), "label": ClassLabel(names=["a", "b"]), "idx": Value("int64")})
    place = folder / f"{size[0]}x{size[1]}"
    Dataset.from_dict(rows, features=features).save_to_disk(place)
    return Dataset.load_from_disk(str(place))


def train(dataset: Any, processor: Any, samples: SpuriousSamples | None, options: argparse.Namespace, workers: int):
    """The clock of a training, and how many images went through the network in each step."""
    torch.manual_seed(0)
    pretrained = {**timm.get_pretrained_cfg(options.model).to_dict(), "input_size": [3, options.size, options.size]}
    kwargs = {"img_size": options.size} if "vit" in options.model else None
    config = TimmWrapperConfig(architecture=options.model, num_labels=2, pretrained_cfg=pretrained, model_args=kwargs)
    clock = Clock()
    fields: dict[str, Any] = {
        "output_dir": tempfile.mkdtemp(),
        "per_device_train_batch_size": options.batch,
        "max_steps": WARM_UP + options.steps + 1,
        "dataloader_num_workers": workers,
        "dataloader_persistent_workers": workers > 0,
        "dataloader_pin_memory": torch.cuda.is_available(),
        "bf16": torch.cuda.is_available(),
        "remove_unused_columns": False,
        "report_to": "none",
        "save_strategy": "no",
        "logging_strategy": "no",
        "disable_tqdm": True,
    }
    common = {"train_dataset": dataset, "callbacks": [clock]}
    model = TimmWrapperForImageClassification(config)
    if samples is None:
        Trainer(model, TrainingArguments(**fields), data_collator=ImageCollator(processor), **common).train()
        return clock, options.batch
    args = SCOREConfig(**fields, score_batch_size=options.samples)
    SCORETrainer(model, args, processing_class=processor, spurious_samples=samples, **common).train()
    return clock, sum(args.images_per_step.values())


def measure(name: str, dataset: Any, processor: Any, samples: SpuriousSamples, options: Any, workers: int) -> dict:
    per_step, per_image, decoding, seconds = [], [], [], []
    for _ in range(options.rounds):
        plain, batch = train(dataset, processor, None, options, workers)
        ours, images = train(dataset, processor, samples, options, workers)
        per_step.append(ours.seconds / plain.seconds)
        per_image.append(per_step[-1] * batch / images)
        decoding.append(ours.decoding)
        seconds.append(plain.seconds)
    return {
        "images": name,
        "workers": workers,
        "images a step": f"{batch} and {images}",
        "Trainer, s": round(statistics.median(seconds), 3),
        **{
            label: [round(value, 3) for value in (statistics.median(found), min(found), max(found))]
            for label, found in (("per step", per_step), ("per image", per_image), ("decoding", decoding))
        },
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--model", default="test_vit")
    parser.add_argument("--size", type=int, default=160, help="pixels that the model sees")
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--samples", type=int, default=4)
    parser.add_argument("--sizes", nargs="*", default=["500x375", "1024x768", "4032x3024"])
    parser.add_argument("--workers", type=int, nargs="*", default=[0, 2])
    parser.add_argument("--steps", type=int, default=8)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--images", type=int, default=48)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--out", type=Path, default=Path(__file__).with_suffix(".json"))
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    processor = ViTImageProcessor(size={"height": options.size, "width": options.size})
    found = []
    with tempfile.TemporaryDirectory() as temporary, decoding_timed():
        memory = preprocess(make_images(Path(temporary), (options.size, options.size), options.images), processor)
        masks = torch.zeros(options.images, options.size, options.size, dtype=torch.bool)
        masks[:, : options.size // 3, : options.size // 3] = True
        samples = SpuriousSamples(memory.pixel_values, masks, memory.labels, memory.idx)
        found.append(measure("in memory", memory, processor, samples, options, 0))
        for size in options.sizes:
            width, height = map(int, size.split("x"))
            dataset = make_images(Path(temporary), (width, height), options.images)
            found += [measure(size, dataset, processor, samples, options, workers) for workers in options.workers]
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else f"CPU, {options.threads} thread(s)"
    setting = f"{options.model}, {options.size} px, batches of {options.batch}, {options.samples} samples, {device}"
    options.out.write_text(json.dumps({"setting": setting, "rows": found}, indent=1) + "\n")
    print(f"{setting}\n\n| {' | '.join(found[0])} |\n|{'---|' * len(found[0])}")
    for row in found:
        cells = [f"{v[0]} ({v[1]} to {v[2]})" if isinstance(v, list) else str(v) for v in row.values()]
        print(f"| {' | '.join(cells)} |")


if __name__ == "__main__":
    main()
