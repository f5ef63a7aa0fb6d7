"""What the scan costs: time beside a bare forward loop, memory as the data grows, and what a second process brings.

    python benchmarks/scan.py

Times are ratios of interleaved rounds in one run; memory is a process's highest anonymous memory (Linux: pages of
files, such as the data set's, do not count). Images are random JPEGs. Writes benchmarks/scan.json.
"""

from __future__ import annotations

import argparse
import io
import json
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import timm
import torch
from accelerate import PartialState
from datasets import ClassLabel, Dataset, Features, Image
from PIL import Image as PILImage
from torch.utils.data import DataLoader
from transformers import ViTImageProcessor

from hf_score.data.views import ItemReader
from hf_score.detection import scan
from hf_score.detection.scan import _Source

SIZE, BATCH = 112, 32


def make_images(folder: Path, count: int) -> None:
    generator = np.random.default_rng(0)

    def rows() -> Any:
        for i in range(count):
            pixels = np.kron(generator.integers(0, 255, (14, 14, 3)), np.ones((8, 8, 1))).astype(np.uint8)
            buffer = io.BytesIO()
            PILImage.fromarray(pixels).save(buffer, "JPEG")
            yield {"image": {"bytes": buffer.getvalue(), "path": None}, "label": i % 2}

    features = Features({"image": Image(), "label": ClassLabel(names=["a", "b"])})
    Dataset.from_generator(rows, features=features, cache_dir=str(folder / "cache")).save_to_disk(folder / str(count))


def load(folder: Path, count: int) -> tuple[torch.nn.Module, Any, Dataset]:
    torch.manual_seed(0)
    processor = ViTImageProcessor(size={"height": SIZE, "width": SIZE})
    return timm.create_model("resnet18").eval(), processor, Dataset.load_from_disk(str(folder / str(count)))


def bare_loop(model: torch.nn.Module, processor: Any, dataset: Dataset) -> None:
    source = _Source(dataset, BATCH)
    with torch.inference_mode():
        for batch in DataLoader(
            source.batches(range(source.num_shards), processor, ItemReader("the images")), batch_size=None
        ):
            model(batch.pixel_values)


def measure(folder: Path, count: int) -> None:
    """In a process of its own: seconds and peak memory of one scan."""
    torch.set_num_threads(1)
    state = PartialState(cpu=True)
    model, processor, dataset = load(folder, count)
    scan(model, dataset.select(range(BATCH)), processor=processor, batch_size=BATCH)  # what is set up once
    peak, done = 0, threading.Event()

    def watch() -> None:
        nonlocal peak
        while not done.wait(0.02):
            lines = Path("/proc/self/status").read_text().splitlines()
            peak = max(peak, next(int(line.split()[1]) for line in lines if line.startswith("RssAnon")))

    thread = threading.Thread(target=watch)
    thread.start()
    state.wait_for_everyone()
    began = time.perf_counter()
    found = scan(model, dataset, processor=processor, batch_size=BATCH)
    state.wait_for_everyone()
    seconds = time.perf_counter() - began
    done.set()
    thread.join()
    if state.is_main_process:
        hits = {label: [(hit.logit.hex(), hit.position) for hit in hits] for label, hits in found.hits.items()}
        print("RESULT" + json.dumps({"seconds": seconds, "peak": peak, "hits": hits}))
    if torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()


def in_processes(processes: int, folder: Path, count: int) -> dict[str, Any]:
    launcher = (
        ["-m", "torch.distributed.run", "--standalone", f"--nproc_per_node={processes}"] if processes > 1 else []
    )
    command = [sys.executable, *launcher, __file__, "--measure", str(count), "--folder", str(folder)]
    out = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    return json.loads(next(line for line in out.splitlines() if line.startswith("RESULT"))[len("RESULT") :])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--images", type=int, default=512)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--out", type=Path, default=Path(__file__).with_suffix(".json"))
    parser.add_argument("--measure", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.measure:
        return measure(options.folder, options.measure)
    with tempfile.TemporaryDirectory() as temporary:
        folder, small, large = Path(temporary), options.images, 4 * options.images
        make_images(folder, small)
        make_images(folder, large)
        torch.set_num_threads(1)
        model, processor, dataset = load(folder, small)
        ratios = []
        for _ in range(options.rounds):
            began = time.perf_counter()
            bare_loop(model, processor, dataset)
            between = time.perf_counter()
            scan(model, dataset, processor=processor, batch_size=BATCH)
            ratios.append((time.perf_counter() - between) / (between - began))
        one, four = in_processes(1, folder, small), in_processes(1, folder, large)
        speed_ups, same = [], True
        for _ in range(2):
            alone, two = in_processes(1, folder, large), in_processes(2, folder, large)
            speed_ups.append(alone["seconds"] / two["seconds"])
            same = same and alone["hits"] == two["hits"]
    result = {
        "setting": f"resnet18, {SIZE} px, {small} JPEGs, batches of {BATCH}, one thread per process",
        "scan / bare forward loop": round(statistics.median(ratios), 3),
        "memory at 4 × the images": round(four["peak"] / one["peak"], 3),
        "throughput of two processes": round(statistics.median(speed_ups), 2),
        "two processes find the same": same,
    }
    options.out.write_text(json.dumps({**result, "rounds": ratios, "speed_ups": speed_ups}, indent=1) + "\n")
    print("| | |\n|---|---|")
    for name, value in result.items():
        print(f"| {name} | {value} |")


if __name__ == "__main__":
    main()
