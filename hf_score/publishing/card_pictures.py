"""The pictures of a run that its card shows: what was taken for the shortcut, and where the models look."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
from PIL import Image

from ..detection import Candidates, Selection
from ..report.figures import contact_sheet

__all__ = ["card_pictures"]

PAIRS = 6


def card_pictures(run_folder: str | Path) -> dict[str, tuple[Image.Image, str]]:
    """Name in `assets/` → picture and caption. Every picture shows images of the data set.

    Args:
        run_folder: a run with one seed: `candidates/`, `selection.json`, and `report/heatmaps.png` where there is one.
    """
    folder = Path(run_folder)
    pictures: dict[str, tuple[Image.Image, str]] = {}
    if (folder / "selection.json").is_file() and (folder / "candidates").is_dir():
        selection, candidates = Selection.load(folder / "selection.json"), Candidates.load(folder / "candidates")
        chosen = [int(decision.idx) for decision in selection.spurious]
        for label in sorted({decision.label for decision in selection.spurious}):
            rows = np.flatnonzero(np.isin(candidates.idx, chosen) & (candidates.labels == label))[:PAIRS]
            name = candidates.class_names[label]
            sheet = _pairs(candidates.take(rows), name)
            if sheet is not None:
                caption = f"“{name}”: training images that were taken as spurious-positive, and what is left of them"
                pictures[f"shortcut-{_slug(name)}.png"] = (sheet, caption)
    heatmaps = folder / "report" / "heatmaps.png"
    if heatmaps.is_file():
        with Image.open(heatmaps) as image:
            pictures["heatmaps.png"] = (
                image.copy(),
                "Relevance before and after: red speaks for the class, blue against",
            )
    return pictures


def _pairs(candidates: Candidates, name: str) -> Image.Image | None:
    images = [] if candidates.images is None else [image for image in candidates.images if image is not None]
    if not images or len(images) < len(candidates):
        return None
    return contact_sheet(
        np.stack([np.asarray(image.convert("RGB")) for image in images]),
        None,
        candidates.masks,
        captions=[f"#{idx}" for idx in candidates.idx],
        title=f"{name}: original and masked",
        columns=3,
    )


def _slug(name: str) -> str:
    return re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-") or "class"
