"""The pictures of a run: contact sheets of the candidates, and heatmaps of test images before and after."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image
from transformers import PreTrainedModel

from ..data import to_uint8
from ..detection import Candidates, Selection
from ..files import atomic_folder
from ..report import candidate_sheet, heatmap_pairs
from .workspace import Workspace

__all__ = ["before_and_after", "write_contact_sheets"]


def before_and_after(
    workspace: Workspace, before: PreTrainedModel, after: PreTrainedModel, spurious_classes: Sequence[int]
) -> Image.Image:
    """Heatmaps of some test images of two models, side by side.

    Args:
        spurious_classes: class ids whose evidence is spurious; the others' images are explained for the first.
    """
    test_set, names = workspace.explained_test_set, workspace.data.class_names
    positions, targets = zip(*test_set.example_images(spurious_classes), strict=True)
    heatmaps, pixel_values = test_set.heatmaps(before, positions, targets)
    labels = workspace.data.test.select(positions)["label"]
    regions = test_set.region_masks(positions)
    return heatmap_pairs(
        to_uint8(pixel_values, workspace.processor),
        heatmaps,
        test_set.heatmaps(after, positions, targets)[0],
        captions=[f"{names[own]}: evidence for {names[k]}" for own, k in zip(labels, targets, strict=True)],
        regions=None if regions is None else regions > 0.5,
    )


def write_contact_sheets(folder: Path, candidates: Candidates, selection: Selection | None = None) -> None:
    """A picture of the candidates of each class into a folder, with the verdicts where there are some."""
    with atomic_folder(folder) as temporary:
        for label in np.unique(candidates.labels):
            sheet = candidate_sheet(candidates, label=label, selection=selection)
            sheet.save(temporary / f"{_slug(candidates.class_names[label])}.png")


def _slug(name: str) -> str:
    return "".join(c if c.isalnum() else "-" for c in name.lower()).strip("-") or "class"
