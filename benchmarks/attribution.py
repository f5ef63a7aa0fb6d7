"""What explaining costs: times and memory against a plain forward pass, zennit and captum, in one run.

    python benchmarks/attribution.py                     # prints the table, writes benchmarks/attribution.json
    python benchmarks/attribution.py --plot docs/images/attribution-cost.png

All ways of a model are run in turn, `--rounds` times over; a figure is the median of its ratios to the forward pass of
the same round. Weights are random: they do not change the cost. Memory is the highest above what the process held with
the model loaded; on a CPU each way has a process of its own. Models in bfloat16
(`--bf16`) are explained in single precision.
"""

from __future__ import annotations

import argparse
import json
import re
import statistics
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import psutil
import timm
import torch
import torchvision
from torch import nn
from zennit.composites import EpsilonPlusFlat
from zennit.torchvision import ResNetCanonizer, VGGCanonizer

from hf_score.attribution import Explainer

Way = Callable[[], Any]


def ways_of(name: str, images: torch.Tensor, bf16: bool) -> dict[str, Way]:
    if name.startswith("torchvision"):
        model: nn.Module = getattr(torchvision.models, name.split()[1])(weights=None)
    else:
        model = timm.create_model(name)
    model = model.eval().to(images.device)
    plain = model.bfloat16() if bf16 else model
    pixels = images.to(next(plain.parameters()).dtype)

    def forward() -> None:
        with torch.no_grad():
            plain(pixels)

    def backward() -> None:
        x = pixels.clone().requires_grad_()
        plain(x)[:, 0].sum().backward(inputs=[x])

    ways: dict[str, Way] = {"forward": forward, "forward + backward to the input": backward}
    explainer = Explainer(plain).__enter__()
    ways[f"hf-score {explainer.method}"] = lambda: explainer.explain(images, 0)
    ways[f"hf-score {explainer.method}, last layer alone"] = lambda: explainer.explain(
        images, 0, layer="last", pixels=False
    )
    if name.startswith("torchvision"):
        canonizer = VGGCanonizer() if "vgg" in name else ResNetCanonizer()

        def zennit() -> torch.Tensor:
            x = images.clone().requires_grad_()
            with EpsilonPlusFlat(canonizers=[canonizer]).context(model):
                logits = model(x)
                return torch.autograd.grad(logits, x, logits.detach() * torch.eye(1000, device=x.device)[[0]])[0].sum(
                    1
                )

        ways["zennit EpsilonPlusFlat"] = zennit
    if "vgg" in name:  # captum's LRP wants every module used once, which a ResNet's ReLU is not
        from captum.attr import LRP

        for module in model.modules():
            if hasattr(module, "inplace"):
                module.inplace = False
        ways["captum LRP (ε)"] = lambda: LRP(_CaptumVGG(model)).attribute(images.clone(), target=0)
    return ways


class _CaptumVGG(nn.Module):
    """Without the adaptive pooling, which does nothing at 224 pixels and has no rule in captum."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.features, self.classifier = model.features, model.classifier

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.classifier(self.features(x).flatten(1))


def seconds_of(way: Way, device: torch.device) -> float:
    began = time.perf_counter()
    way()
    if device.type == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - began


def memory_of(name: str, way: str, images: torch.Tensor, bf16: bool) -> float:
    """The highest memory above what the process held with the model loaded, in MiB; on a CPU, of a fresh process."""
    if images.is_cuda:
        run = ways_of(name, images, bf16)[way]
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        run()
        return (torch.cuda.max_memory_allocated() - before) / 2**20
    with ProcessPoolExecutor(1, mp_context=torch.multiprocessing.get_context("spawn")) as pool:
        return pool.submit(_memory_here, name, way, images.shape, bf16, torch.get_num_threads()).result()


def _memory_here(name: str, way: str, shape: torch.Size, bf16: bool, threads: int) -> float:
    torch.set_num_threads(threads)
    run = ways_of(name, torch.randn(shape), bf16)[way]
    before = psutil.Process().memory_info().rss
    Path("/proc/self/clear_refs").write_text("5")  # Linux: forget the highest so far
    run()
    (highest,) = re.findall(r"VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text())
    return max(0.0, int(highest) / 1024 - before / 2**20)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--models", default="torchvision resnet50,deit_tiny_patch16_224,torchvision vgg11_bn")
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--size", type=int, default=224)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--bf16", action="store_true")
    parser.add_argument("--out", type=Path, default=Path(__file__).with_suffix(".json"))
    parser.add_argument("--plot", type=Path)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    hardware = torch.cuda.get_device_name() if device.type == "cuda" else f"CPU, {options.threads} threads"
    images = torch.randn(options.batch, 3, options.size, options.size, device=device)
    rows = []
    for name in options.models.split(","):
        ways = ways_of(name, images, options.bf16)
        found: dict[str, list[float]] = {way: [] for way in ways}
        for turn in range(options.rounds + 1):
            for way, run in ways.items():
                seconds = seconds_of(run, device)
                if turn:  # the first is for warming up
                    found[way].append(seconds)
        for way, results in found.items():
            ratios = [seconds / base for seconds, base in zip(results, found["forward"], strict=True)]
            rows.append(
                {
                    "model": name,
                    "way": way,
                    "ratio": round(statistics.median(ratios), 2),
                    "images_per_second": round(options.batch / statistics.median(results), 1),
                    "memory_mib": round(memory_of(name, way, images, options.bf16)),
                }
            )
            print(rows[-1], flush=True)
    setting = f"{hardware}, batches of {options.batch} at {options.size} px, {options.rounds} rounds"
    options.out.write_text(json.dumps({"setting": setting, "rows": rows}, indent=1) + "\n")
    print(f"\n{setting}\n\n| model | | forward = 1 | images/s | memory, MiB |\n|---|---|---|---|---|")
    for row in rows:
        print(f"| {row['model']} | {row['way']} | {row['ratio']} | {row['images_per_second']} | {row['memory_mib']} |")
    if options.plot:
        plot(rows, setting, options.plot)


def plot(rows: list[dict], setting: str, path: Path) -> None:
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    models = list(dict.fromkeys(row["model"] for row in rows))
    figure, axes = plt.subplots(1, len(models), figsize=(5.5 * len(models), 3), layout="constrained")
    for axis, model in zip(axes if len(models) > 1 else [axes], models, strict=True):
        mine = [row for row in rows if row["model"] == model][::-1]
        colours = ["tab:orange" if row["way"].startswith("hf-score") else "0.6" for row in mine]
        bars = axis.barh([row["way"] for row in mine], [row["ratio"] for row in mine], color=colours)
        axis.bar_label(bars, fmt="%.1f", padding=2)
        axis.set_title(model, loc="right")
        axis.set_xlabel("time, forward = 1")
        axis.spines[["top", "right"]].set_visible(False)
        axis.margins(x=0.15)
    figure.suptitle(setting, fontsize=9)
    figure.savefig(path, dpi=110)


if __name__ == "__main__":
    main()
