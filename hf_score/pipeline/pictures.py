"""The pictures of a run that need its images or models: contact sheets of the candidates, heatmaps of test images
before and after, and the test images whose answer a judged region changed before and does not after."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from transformers import PreTrainedModel

from ..attribution import Explainer
from ..data import to_uint8
from ..data.classes import file_names
from ..detection import Candidates, Selection
from ..evaluation import JudgedRegions
from ..files import atomic_folder
from ..report import candidate_sheet, heatmap_pairs
from ..report.names import drawn_names, in_words
from .workspace import Workspace

__all__ = ["before_and_after", "figures_of", "insertions", "pictures_of_models", "write_contact_sheets"]

#: Caption of `before_and_after`.
HEATMAPS = "Heatmaps of the class logit before and after"
#: Caption of `insertions`.
INSERTIONS = (
    "Test images with a region of a sample pasted in: before, it changed the answer; after, it does not. Chosen to "
    "show this; the figures are of all pictures."
)
MOST_SHEETS = 24


def figures_of(results: Mapping[str, Any], contact_sheets: Path) -> dict[str, tuple[Image.Image, str]]:
    """Picture and caption by key, as `write_report` takes them: the contact sheets, of judged classes first.

    At most `MOST_SHEETS`: of many classes a page cannot show all.
    """
    names = results["dataset"]["class_names"]
    kept = (results.get("selection") or {}).get("classes") or {}
    sheets = [(contact_sheets / f"{stem}.png", name) for stem, name in zip(file_names(names), names, strict=True)]
    there = sorted((pair for pair in sheets if pair[0].is_file()), key=lambda pair: -kept.get(pair[1], 0))
    figures: dict[str, tuple[Image.Image, str]] = {}
    for sheet, name in there[:MOST_SHEETS]:
        with Image.open(sheet) as image:
            figures[f"contact_sheet/{sheet.stem}"] = (image.copy(), f"Candidates of class {name}.")
    return figures


def pictures_of_models(
    workspace: Workspace,
    models: tuple[PreTrainedModel, PreTrainedModel],
    *,
    name: str,
    spurious_classes: Sequence[int],
    regions: JudgedRegions | None,
    pairs: Sequence[int],
) -> dict[str, tuple[Image.Image, str]]:
    """`before_and_after` the method `name`, and `insertions` where some `pairs` show what a region does."""
    legend, heatmaps = in_words(workspace.data.class_names), before_and_after(workspace, *models, spurious_classes)
    pictures = {"heatmaps": (heatmaps, f"{HEATMAPS} {name}.{legend}")}
    if regions is not None and pairs:
        pictures["insertions"] = (insertions(workspace, regions, pairs, *models), f"{INSERTIONS}{legend}")
    return pictures


def insertions(
    workspace: Workspace, regions: JudgedRegions, pairs: Sequence[int], before: PreTrainedModel, after: PreTrainedModel
) -> Image.Image:
    """Test images with the judged region in them, with heatmaps of its class by two models, and their answers."""
    names, (images, masks, targets) = drawn_names(workspace.data.class_names), regions.with_region(pairs)
    heatmaps, answers = [], []
    for model in (before, after):
        with Explainer(model) as explainer:
            explained = explainer.explain(images.to(workspace.device), targets.to(workspace.device))
        assert explained.relevance is not None
        heatmaps.append(explained.relevance.float().cpu().numpy())
        answers.append([names[k] for k in explained.logits.argmax(dim=1).tolist()])
    own = [names[k] for k in regions.host_labels[list(pairs)].tolist()]
    return heatmap_pairs(
        to_uint8(images, workspace.processor),
        *heatmaps,
        captions=[f"{k} with the region\nbefore: {a}; after: {b}" for k, a, b in zip(own, *answers, strict=True)],
        title="A judged region in pictures of other classes: relevance for the region's class",
        regions=masks.numpy(),
    )


def before_and_after(
    workspace: Workspace, before: PreTrainedModel, after: PreTrainedModel, spurious_classes: Sequence[int]
) -> Image.Image:
    """Heatmaps of some test images of two models, side by side, with their answers.

    Args:
        spurious_classes: class ids whose evidence is spurious; the others' images are explained for the first.
    """
    test_set, names = workspace.explained_test_set, drawn_names(workspace.data.class_names)
    positions, targets = zip(*test_set.example_images(spurious_classes), strict=True)
    heatmaps, pixel_values = test_set.heatmaps(before, positions, targets)
    labels = workspace.data.test.select(positions)["label"]
    regions = test_set.region_masks(positions)
    answers = []
    for model in (before, after):
        with torch.no_grad():
            said = model(pixel_values=pixel_values.to(workspace.device)).logits.softmax(dim=1).max(dim=1)
        answers.append(
            [f"{names[k]} {p:.0%}" for p, k in zip(said.values.tolist(), said.indices.tolist(), strict=True)]
        )
    return heatmap_pairs(
        to_uint8(pixel_values, workspace.processor),
        heatmaps,
        test_set.heatmaps(after, positions, targets)[0],
        captions=[
            f"{names[own]}: evidence for {names[k]}\nbefore: {a}; after: {b}"
            for own, k, a, b in zip(labels, targets, *answers, strict=True)
        ],
        regions=None if regions is None else regions > 0.5,
    )


def write_contact_sheets(folder: Path, candidates: Candidates, selection: Selection | None = None) -> None:
    """A picture of the candidates of each class into a folder, with the verdicts where there are some."""
    with atomic_folder(folder) as temporary:
        files = file_names(candidates.class_names)
        for label in np.unique(candidates.labels):
            sheet = candidate_sheet(candidates, label=label, selection=selection)
            sheet.save(temporary / f"{files[label]}.png")
