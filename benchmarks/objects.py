"""How well `ObjectFinder` finds objects whose true masks are known: how much of them is inside, and of the rest.

    python benchmarks/objects.py DATA --masks "MASKS/{split}/{id}.png" --model tf_efficientnet_lite0 --weights FILE

DATA and MASKS as for `hf-score run`, the masks of the object. Prints a Markdown table by share of relevance.
"""

from __future__ import annotations

import argparse

import numpy as np
import torch
from PIL import Image

from hf_score import load_data, load_model
from hf_score.data import to_rgb
from hf_score.detection import ObjectFinder

SHARES = (0.6, 0.7, 0.8, 0.85, 0.9)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("dataset")
    parser.add_argument("--masks", required=True)
    parser.add_argument("--model", required=True, help="a classifier with the head it was trained with")
    parser.add_argument("--weights", help="safetensors file, for a timm name")
    parser.add_argument("--image_size", type=int, default=96, help="at which the images are given (default: 96)")
    parser.add_argument("--num_images", type=int, default=40)
    options = parser.parse_args()
    data = load_data(options.dataset, masks=options.masks)
    region_of, size = data.regions("train"), (options.image_size, options.image_size)
    rows = np.linspace(0, len(data.train) - 1, options.num_images).astype(int)
    images = np.stack([np.asarray(to_rgb(data.train[int(row)]["image"]).resize(size)) for row in rows])
    known = [region_of(data.train[int(row)]["idx"]) for row in rows]
    masks = torch.as_tensor(
        np.stack([np.asarray(m.convert("L").resize(size, Image.Resampling.BOX)) > 127 for m in known])
    )
    model, processor, _ = load_model(options.model, class_names=None, weights=options.weights)
    print("| share | of the object inside, % | of the rest inside, % |\n| ---: | ---: | ---: |")
    for share in SHARES:
        found = ObjectFinder(model, processor, share=share)(images)
        inside, around = (
            100 * float(((found & part).sum((1, 2)) / part.sum((1, 2))).mean()) for part in (masks, ~masks)
        )
        print(f"| {share} | {inside:.0f} | {around:.0f} |", flush=True)


if __name__ == "__main__":
    main()
