"""The pictures of a run that its card shows: what was taken for the shortcut, and where the models look."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

from ..data.classes import file_names
from ..detection import Candidates, Selection
from ..report import candidate_sheet
from ..report.names import in_words

__all__ = ["card_pictures"]

PAIRS = 6
#: Of pictures in `report/`.
CAPTIONS = {
    "insertions.png": "A judged region in other classes' pictures; chosen where it changed the answer before alone",
    "heatmaps.png": "Relevance before and after: red speaks for the class, blue against",
}


def card_pictures(run_folder: str | Path) -> dict[str, tuple[Image.Image, str]]:
    """Name in `assets/` → picture and caption. Every picture shows images of the data set.

    Args:
        run_folder: a run with one seed: `candidates/`, `selection.json`, and the pictures in `report/` where they are.
    """
    folder = Path(run_folder)
    pictures: dict[str, tuple[Image.Image, str]] = {}
    names: tuple[str, ...] = ()
    if (folder / "selection.json").is_file() and (folder / "candidates").is_dir():
        selection, candidates = Selection.load(folder / "selection.json"), Candidates.load(folder / "candidates")
        names = candidates.class_names
        chosen = [int(decision.idx) for decision in selection.spurious]
        files = file_names(candidates.class_names)
        for label in sorted({decision.label for decision in selection.spurious}):
            rows = np.flatnonzero(np.isin(candidates.idx, chosen) & (candidates.labels == label))[:PAIRS]
            name = names[label]
            part = candidates.take(rows)
            if part.pixels is not None:
                sheet = candidate_sheet(part, label=label, heatmaps=False, columns=3)
                caption = f"“{name}”: training images that were taken as spurious-positive, and what is left of them"
                pictures[f"shortcut-{files[label]}.png"] = (sheet, caption)
    for name, caption in CAPTIONS.items():
        if (folder / "report" / name).is_file():
            with Image.open(folder / "report" / name) as image:
                pictures[name] = (image.copy(), f"{caption}.{in_words(names)}".removesuffix("."))
    return pictures
