"""Raw folders in the layouts of the public sets, with tiny drawn images."""

import csv
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

OFFICIAL_95 = {
    "train": (3498, 184, 56, 1057),
    "validation": (467, 466, 133, 133),
    "test": (2255, 2255, 642, 642),
}


def noise(path: Path, size=(40, 30), seed: int = 0, mode: str = "RGB", high: int = 200) -> None:
    """An image of random values below `high`."""
    path.parent.mkdir(parents=True, exist_ok=True)
    shape = (size[1], size[0], 3) if mode == "RGB" else (size[1], size[0])
    Image.fromarray(np.random.default_rng(seed).integers(0, high, shape, dtype=np.uint8)).save(path)


def disc(path: Path, box, size=(40, 30)) -> None:
    """A mask, white inside of `box`."""
    path.parent.mkdir(parents=True, exist_ok=True)
    mask = Image.new("L", size)
    ImageDraw.Draw(mask).ellipse(box, fill=255)
    mask.save(path)


def write_csv(path: Path, rows: list[dict]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)


def content(folder: Path) -> dict[str, bytes]:
    """All files of a folder."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def write_waterbirds(folder: Path, counts: dict[str, tuple[int, ...]] = OFFICIAL_95, *, masks: bool = True) -> Path:
    """The published layout with any group counts; all rows of a group share an image."""
    rows = []
    for number, split in enumerate(("train", "validation", "test")):
        for group, count in enumerate(counts[split]):
            row = {"img_filename": f"{group}.jpg", "y": group // 2, "split": number, "place": group % 2}
            rows += [{**row, "place_filename": "/o/ocean/00000001.jpg"}] * count
    for group in range(4):
        noise(folder / f"{group}.jpg", size=(8, 8), seed=group)
        if masks:
            disc(folder / "segmentations" / f"{group}.png", (2, 2, 5, 5), size=(8, 8))
    order = np.random.default_rng(0).permutation(len(rows))
    write_csv(folder / "metadata.csv", [{"img_id": i + 1, **rows[k]} for i, k in enumerate(order)])
    return folder


def write_cub(folder: Path, species: dict[str, tuple[int, int]], *, places: int = 40) -> Path:
    """CUB-200-2011 with so many training and test photographs per species, and so many pictures per Places folder."""
    lines, split = [], []
    for name, counts in species.items():
        for i in range(sum(counts)):
            file, number = f"{name}/{name.split('.')[1]}_{i:04d}.jpg", len(lines) + 1
            lines.append(f"{number} {file}")
            split.append(f"{number} {int(i < counts[0])}")
            noise(folder / "CUB_200_2011" / "images" / file, seed=number)
            disc(folder / "segmentations" / Path(file).with_suffix(".png"), (10, 5, 30, 25))
    (folder / "CUB_200_2011" / "images.txt").write_text("\n".join(lines) + "\n")
    (folder / "CUB_200_2011" / "train_test_split.txt").write_text("\n".join(split) + "\n")
    greys = {"b/bamboo_forest": 40, "f/forest/broadleaf": 80, "o/ocean": 160, "l/lake/natural": 220}
    for place, grey in greys.items():
        (folder / "places365" / "data_large" / place).mkdir(parents=True)
        for i in range(places):
            picture = Image.new("RGB", (64, 50), (grey, grey, grey))
            picture.save(folder / "places365" / "data_large" / place / f"{i:08d}.jpg")
    return folder


def write_celeba(folder: Path, *, kind: str) -> Path:
    """24 faces, 4 of each group in training, one in validation and in test, with lists of `kind` csv or txt."""
    rows = []
    for i in range(24):
        group, partition = i % 4, 0 if i < 16 else 1 if i < 20 else 2
        noise(folder / "img_align_celeba" / f"{i + 1:06d}.jpg", size=(8, 10), seed=i)
        signs = {"Bald": -1, "Blond_Hair": 2 * (group // 2) - 1, "Male": 2 * (group % 2) - 1}
        rows.append(({"image_id": f"{i + 1:06d}.jpg", **signs}, partition))
    if kind == "csv":
        write_csv(folder / "list_attr_celeba.csv", [row for row, _ in rows])
        parts = [{"image_id": row["image_id"], "partition": partition} for row, partition in rows]
        write_csv(folder / "list_eval_partition.csv", parts)
    else:
        lines = ["24", "Bald Blond_Hair Male ", *("  ".join(map(str, row.values())) for row, _ in rows)]
        (folder / "list_attr_celeba.txt").write_text("\n".join(lines) + "\n")
        lines = [f"{row['image_id']} {partition}" for row, partition in rows]
        (folder / "list_eval_partition.txt").write_text("\n".join(lines) + "\n")
    return folder


def write_isic(folder: Path) -> Path:
    """20 benign images, 6 with a patch by nature, and 12 malignant ones; 3 more cut-outs. Lesions in the middle."""
    rows = []
    for i in range(32):
        name = f"ISIC_{i:07d}"
        rows.append({"image_id": name, "melanoma": f"{float(i >= 20)}"})
        noise(folder / "images" / f"{name}.jpg", size=(60, 40), seed=i, high=120)
        disc(folder / "lesions" / f"{name}_segmentation.png", (15, 8, 45, 32), size=(60, 40))
        if i < 6:
            disc(folder / "patches" / f"{name}_patch.png", (0, 10, 20, 36), size=(60, 40))
    write_csv(folder / "labels.csv", rows)
    (folder / "cutouts").mkdir()
    for i, corner in enumerate([(0, 0), (90, 60), (0, 60)]):
        cut_out = Image.new("RGBA", (120, 80))
        ImageDraw.Draw(cut_out).ellipse((*corner, corner[0] + 30, corner[1] + 20), fill=(255, 200, 250 - i, 255))
        cut_out.save(folder / "cutouts" / f"sticker{i}.png")
    return folder


def write_knee(folder: Path, count: int = 8) -> Path:
    """So many X-rays of each grade in each split."""
    for number, split in enumerate(("train", "val", "test")):
        for grade in range(5):
            for i in range(count):
                path = folder / split / str(grade) / f"{9000000 + i}L.png"
                noise(path, size=(50, 50), seed=100 * number + 10 * grade + i, mode="L")
    return folder


def write_birds(folder: Path, species: int = 20) -> Path:
    """Land and water birds: of so many species each, two birds that are on both backgrounds and one that is on one.

    Land is green and water blue, and the bird a red disc; one split has the first birds, the other the second ones.
    """
    colours = {"land": (0, 120, 0), "water": (0, 0, 160)}
    rows: dict[str, list[dict]] = {"train": [], "test": []}
    for label in (0, 1):
        for number in range(species):
            for bird in range(3):
                split, name = ("test", "train")[bird % 2], f"S{label}{number}__{bird}"
                for place, kind in enumerate(colours):
                    if bird == 2 and place != label:
                        continue
                    image = Image.new("RGB", (16, 12), colours[kind])
                    ImageDraw.Draw(image).ellipse((4, 4, 9, 9), fill=(200, number, bird))
                    file = f"{name}_{kind}.png"
                    (folder / split).mkdir(parents=True, exist_ok=True)
                    image.save(folder / split / file)
                    fields = {"file_name": file, "label": label, "spurious": place, "species": f"S{label}{number}"}
                    rows[split].append({**fields, "bird_id": name, "background_id": f"{kind}{number}{bird}"})
                disc(
                    folder.with_name(f"{folder.name}_masks") / split / f"{name}_bird.png", (4, 4, 9, 9), size=(16, 12)
                )
    for split, found in rows.items():
        write_csv(folder / split / "metadata.csv", found)
    return folder


def write_elpv(folder: Path) -> Path:
    """Cells with the probabilities 0, 1/3, 2/3 and 1 of both kinds, in the package's list."""
    lines = []
    for probability, kind, count in (
        *((0.0, "mono", 30), (0.0, "poly", 40), (1 / 3, "mono", 3), (1 / 3, "poly", 3)),
        *((2 / 3, "mono", 2), (2 / 3, "poly", 2), (1.0, "mono", 20), (1.0, "poly", 25)),
    ):
        for _ in range(count):
            name = f"images/cell{len(lines) + 1:04d}.png"
            noise(folder / name, size=(8, 8), seed=len(lines), mode="L")
            lines.append(f"{name}  {probability!r}   {kind}")
    (folder / "labels.csv").write_text("\n".join(lines) + "\n")
    return folder
