"""Make the data set in `hf_score/data/registry/fashion_patch`: Fashion-MNIST pullovers and shirts with a red square.

The recipe is `render`: pad the 28 px image with black to 32 px and, where `spurious` is 1, paint the square
`SQUARE` in `RED`. Which Fashion-MNIST images were taken, and which of them carry the square, is the list in the
columns `source_index`, `label` and `spurious`; source rows of train and validation count in Fashion-MNIST's
training set, those of test in its test set.

    python benchmarks/make_fashion_patch.py --from-folder FOLDER    # an image folder with that list in metadata.csv
    python benchmarks/make_fashion_patch.py --check                 # render the list again from the Hub and compare

`--from-folder` made the files in the package. `--check` needs the network, to fetch
`zalando-datasets/fashion_mnist`.
"""

import argparse
import csv
import io
from pathlib import Path

import datasets
import numpy as np
from PIL import Image

PACKAGED = Path(__file__).resolve().parent.parent / "hf_score" / "data" / "fashion_patch"
SPLITS = {"train": "train", "validation": "train", "test": "test"}  # ours: Fashion-MNIST's
CLASSES = {"pullover": 2, "shirt": 6}  # our label is the position; the number is Fashion-MNIST's label
PADDING = 2
SQUARE = (slice(3, 8), slice(3, 8))  # rows and columns of the 32 px image
RED = (255, 40, 40)
FEATURES = datasets.Features(
    {
        "image": datasets.Image(),
        "label": datasets.ClassLabel(names=list(CLASSES)),
        "spurious": datasets.Value("int64"),
        "group": datasets.Value("int64"),
        "minority": datasets.Value("int64"),
        "source_index": datasets.Value("int64"),
        "region": datasets.Image(),
    }
)


def render(garment: np.ndarray, spurious: int) -> np.ndarray:
    """The (32, 32, 3) image made from one (28, 28) Fashion-MNIST image."""
    image = np.repeat(np.pad(garment, PADDING)[:, :, None], 3, axis=2)
    if spurious:
        image[SQUARE] = RED
    return image


def encode(pixels: np.ndarray) -> dict:
    """One PNG as the `datasets` image feature stores it."""
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, format="PNG", optimize=True)
    return {"bytes": buffer.getvalue(), "path": None}


def region() -> np.ndarray:
    """The (32, 32) mask of the square: 255 inside, 0 outside."""
    mask = np.zeros((32, 32), dtype=np.uint8)
    mask[SQUARE] = 255
    return mask


def build(folder: Path, split: str) -> datasets.Dataset:
    """One split from an image folder, every image checked against the recipe."""
    rows = []
    with open(folder / split / "metadata.csv", newline="") as file:
        for row in csv.DictReader(file):
            pixels = np.asarray(Image.open(folder / split / row.pop("file_name")).convert("RGB"))
            numbers = {key: int(value) for key, value in row.items()}
            garment = pixels[PADDING:-PADDING, PADDING:-PADDING, 1]
            if not np.array_equal(pixels, render(garment, numbers["spurious"])):
                raise SystemExit(f"{split}, source {numbers['source_index']}: not what the recipe draws")
            marked = encode(region()) if numbers["spurious"] else None
            rows.append({"image": encode(pixels), **numbers, "region": marked})
    rows.sort(key=lambda row: (row["source_index"], row["spurious"]))
    return datasets.Dataset.from_list(rows, features=FEATURES)


def check() -> None:
    """Render every packaged image again from Fashion-MNIST and compare pixels and labels."""
    source = datasets.load_dataset("zalando-datasets/fashion_mnist")
    for split, source_split in SPLITS.items():
        for row in datasets.Dataset.from_parquet(str(PACKAGED / f"{split}.parquet")):
            original = source[source_split][row["source_index"]]
            same = np.array_equal(render(np.asarray(original["image"]), row["spurious"]), np.asarray(row["image"]))
            if not same or original["label"] != list(CLASSES.values())[row["label"]]:
                raise SystemExit(f"{split}, source {row['source_index']}: differs from Fashion-MNIST")
        print(f"{split}: every image is the rendering of its Fashion-MNIST source")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("--from-folder", type=Path, help="image folder with train/, validation/ and test/")
    what.add_argument("--check", action="store_true", help="compare the packaged files with Fashion-MNIST itself")
    arguments = parser.parse_args()
    if arguments.check:
        check()
        return
    for split in SPLITS:
        dataset = build(arguments.from_folder, split)
        target = PACKAGED / f"{split}.parquet"
        dataset.to_parquet(str(target))
        counts = np.bincount(dataset["group"], minlength=4).tolist()
        print(f"{target.name}: {len(dataset)} images, groups {counts}, {target.stat().st_size} bytes")


if __name__ == "__main__":
    main()
