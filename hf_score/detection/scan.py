"""The scan (METHOD step 1): one forward pass that keeps, per class, the images that activate its logit most."""

from __future__ import annotations

import heapq
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from accelerate import PartialState
from accelerate.utils import gather_object
from torch.utils.data import DataLoader, Subset
from tqdm.auto import tqdm

from ..data import ImageCollator

__all__ = ["ScanHit", "scan"]


@dataclass(frozen=True, order=True)
class ScanHit:
    """One image of the scan: `position` in the data set, its stable `idx`, its class and that class's logit."""

    logit: float
    position: int
    idx: int
    label: int


def scan(
    model: torch.nn.Module,
    dataset: Any,
    *,
    processor: Any = None,
    num_candidates: int = 100,
    batch_size: int = 32,
    classes: Sequence[int] | None = None,
) -> dict[int, list[ScanHit]]:
    """Per class, the `num_candidates` images of that class with the highest pre-softmax logit of it.

    One forward pass, shared out over the processes of an `accelerate launch`; memory grows with classes times
    candidates, not with the data set. Equal logits are ordered by position, so the result does not depend on the
    number of processes. SCORE, arXiv 2605.13340, section "spurious-positive samples" (m = 100).

    Args:
        model: classifier whose output has `.logits` (B, K); left as it was.
        dataset: items with `idx`, `label`(s), and an image or `pixel_values` (3, H, W).
        processor: image processor, where items carry images.
        classes: class ids to keep; all by default.

    Returns:
        class id → hits, the strongest first. The same on every process.
    """
    state = PartialState()
    collator = ImageCollator(processor)
    device = next(model.parameters()).device
    hits: dict[int, list[tuple[float, int, int]]] = {}
    training = model.training
    model.eval()
    try:
        with state.split_between_processes(list(range(len(dataset)))) as positions, torch.no_grad():
            subset: Any = Subset(dataset, positions)
            loader = DataLoader(subset, batch_size=batch_size, collate_fn=lambda items: (collator(items), items))
            bar = tqdm(loader, desc="Scan", unit="batch", disable=not state.is_main_process, leave=False)
            remaining = iter(positions)
            for batch, items in bar:
                logits = model(pixel_values=batch["pixel_values"].to(device)).logits.float().cpu()
                for row, item, position in zip(logits, items, remaining, strict=False):
                    label = int(batch_label(item))
                    if classes is not None and label not in classes:
                        continue
                    kept = hits.setdefault(label, [])
                    # A heap of (logit, -position): the smallest goes first, among equals the one that comes last.
                    entry = (float(row[label]), -position, int(item["idx"]))
                    if len(kept) < num_candidates:
                        heapq.heappush(kept, entry)
                    else:
                        heapq.heappushpop(kept, entry)
    finally:
        model.train(training)
    merged: dict[int, list[ScanHit]] = {}
    for part in gather_object([hits]):
        for label, entries in part.items():
            merged.setdefault(label, []).extend(ScanHit(e[0], -e[1], e[2], label) for e in entries)
    return {
        label: sorted(found, key=lambda hit: (-hit.logit, hit.position))[:num_candidates]
        for label, found in sorted(merged.items())
    }


def batch_label(item: Any) -> int:
    """The class id of an item, under either of the names `transformers` uses."""
    return item["label"] if "label" in item else item["labels"]
