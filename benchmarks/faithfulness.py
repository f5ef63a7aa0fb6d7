"""Do heatmaps tell the truth? Deletion and insertion on photographs, for real models, against maps that know nothing.

    python benchmarks/faithfulness.py --data DATA --plot docs/images/faithfulness.png

DATA holds `imagenet100` (photographs) and `weights`. Every map explains the class that the model predicts. Deletion:
lower is better; insertion: higher is better. The interval is that of the paired difference to LRP, 95 %, bootstrapped
over images. Writes benchmarks/faithfulness.json.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np
import timm
import torch
from PIL import Image
from safetensors.torch import load_file
from tqdm.auto import tqdm

from hf_score.attribution import Explainer, attention_rollout, find_family, pixel_flipping, randomisation_check

WEIGHTS = {
    "deit_tiny_patch16_224": ["deit_tiny_patch16_224_fp16"],
    "resnet50": ["resnet50_keras_v1_fp16", "resnet50_timm_v15_bn_overlay"],
    "tf_efficientnet_lite0": ["tf_efficientnet_lite0_fp16"],
}
ORDERS = ("deletion", "insertion")


def load(name: str, data: Path) -> tuple[torch.nn.Module, dict[str, Any]]:
    model = timm.create_model(name).eval()
    for file in WEIGHTS[name]:
        state = {k: v.float() for k, v in load_file(data / "weights" / f"{file}.safetensors").items()}
        model.load_state_dict(state, strict=False)
    return model, {k: model.default_cfg[k] for k in ("mean", "std")}


def photographs(folder: Path, count: int, size: int, mean: Any, std: Any) -> torch.Tensor:
    files = sorted(p for p in folder.rglob("*") if p.suffix.lower() in (".jpg", ".jpeg", ".png"))
    chosen = [files[i] for i in np.linspace(0, len(files) - 1, count).astype(int)]
    images = []
    for path in chosen:
        image = Image.open(path).convert("RGB")
        scale = size / min(image.size)
        image = image.resize((max(size, round(image.width * scale)), max(size, round(image.height * scale))))
        left, top = (image.width - size) // 2, (image.height - size) // 2
        pixels = np.asarray(image.crop((left, top, left + size, top + size)), dtype=np.float32) / 255
        images.append(torch.as_tensor((pixels - mean) / std).permute(2, 0, 1).float())
    return torch.stack(images)


def maps_of(model: torch.nn.Module, pixels: torch.Tensor, targets: torch.Tensor) -> dict[str, torch.Tensor]:
    family = find_family(model)
    methods = [family.methods[0], "input_x_gradient", *(m for m in family.methods if m == "attnlrp_gamma")]
    found = {}
    for method in methods:
        with Explainer(model, method=method, batch_size=8) as explainer:
            title = "input × gradient" if method == "input_x_gradient" else f"LRP ({method})"
            found[title] = explainer.explain(pixels, targets).relevance
    if family.methods[0] == "attnlrp":
        found["attention rollout"] = torch.cat([attention_rollout(model, x) for x in pixels.split(8)])
    generator = torch.Generator().manual_seed(0)
    found["random"] = torch.rand(pixels.shape[0], *pixels.shape[2:], generator=generator)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--models", default=",".join(WEIGHTS))
    parser.add_argument("--images", type=int, default=24)
    parser.add_argument("--steps", type=int, default=10)
    parser.add_argument("--out", type=Path, default=Path(__file__).with_suffix(".json"))
    parser.add_argument("--plot", type=Path)
    options = parser.parse_args()
    rows: list[dict[str, Any]] = []
    setting = f"{options.images} photographs at 224 px, patches of 16 px, {options.steps} steps, blurred fill"
    for name in options.models.split(","):
        model, normal = load(name, options.data)
        pixels = photographs(options.data / "imagenet100", options.images, 224, **normal)
        with torch.no_grad():
            targets = torch.cat([model(x).argmax(1) for x in pixels.split(32)])
        reference: dict[str, torch.Tensor] = {}
        for kind, relevance in tqdm(maps_of(model, pixels, targets).items(), desc=name):
            row: dict[str, Any] = {"model": name, "map": kind}
            for order in ORDERS:
                flipped = pixel_flipping(
                    model,
                    pixels,
                    targets,
                    relevance=relevance,
                    order=order,
                    steps=options.steps,  # type: ignore[arg-type]
                )
                area = flipped.area
                row[order] = round(float(area.mean()), 4)
                row[f"{order}_curve"] = [round(v, 4) for v in flipped.probability.mean(0).tolist()]
                if kind.startswith("LRP") and order not in reference:
                    reference[order] = area
                else:
                    row[f"{order}_difference"] = _interval(area - reference[order])
            rows.append(row)
        rows[-1]["share"] = flipped.share.tolist()
        rows[-1]["randomisation"] = randomisation_check(model, pixels[:8], targets[:8], steps=4)
        options.out.write_text(json.dumps({"setting": setting, "rows": rows}, indent=1) + "\n")
    print(f"\n{setting}\n\n| model | map | deletion ↓ | against LRP | insertion ↑ | against LRP |")
    print("|---|---|---|---|---|---|")
    for row in rows:
        cells = [f"{row[o]:.3f} | {_words(row.get(f'{o}_difference'))}" for o in ORDERS]
        print(f"| {row['model']} | {row['map']} | {' | '.join(cells)} |")
    if options.plot:
        plot(rows, setting, options.plot)


def _interval(difference: torch.Tensor) -> list[float]:
    generator = torch.Generator().manual_seed(0)
    drawn = difference[torch.randint(len(difference), (2000, len(difference)), generator=generator)].mean(1)
    return [round(float(v), 4) for v in (difference.mean(), *drawn.quantile(torch.tensor([0.025, 0.975])))]


def _words(interval: list[float] | None) -> str:
    return "" if interval is None else f"{interval[0]:+.3f} ({interval[1]:+.3f} to {interval[2]:+.3f})"


def plot(rows: list[dict], setting: str, path: Path) -> None:
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    models = list(dict.fromkeys(row["model"] for row in rows))
    colours = {kind: f"C{i}" for i, kind in enumerate(dict.fromkeys(row["map"] for row in rows))}
    figure, axes = plt.subplots(2, len(models), figsize=(4 * len(models), 6), layout="constrained", sharey="row")
    axes = np.asarray(axes).reshape(2, -1)
    for column, model in enumerate(models):
        for line, order in enumerate(ORDERS):
            axis = axes[line, column]
            for row in (r for r in rows if r["model"] == model):
                curve = row[f"{order}_curve"]
                kind, width = row["map"], 2 if "LRP" in row["map"] else 1
                axis.plot(np.linspace(0, 1, len(curve)), curve, label=kind, color=colours[kind], lw=width)
            axis.set(title=f"{model}: {order}", xlabel="share of the image flipped")
            axis.spines[["top", "right"]].set_visible(False)
        axes[0, column].legend(frameon=False, fontsize=7)
        axes[0, 0].set_ylabel("probability of the class")
    figure.suptitle(setting, fontsize=9)
    figure.savefig(path, dpi=110)


if __name__ == "__main__":
    main()
