"""Finding candidates: scan, explain and mask, shared out over the processes of an `accelerate launch`."""

from __future__ import annotations

import logging
import uuid
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate import PartialState
from accelerate.utils import gather_object
from datasets import Dataset, Features, IterableDataset, Value, concatenate_datasets
from datasets.fingerprint import get_temporary_cache_files_directory
from torch import Tensor, nn
from tqdm.auto import tqdm

from ..attribution import Explainer, find_layer
from ..data import ImageCollator, ImageData, to_uint8
from ..data import dataset_fingerprint as fingerprint_of_images
from ..data.adapt import as_scannable
from ..data.exchange import OtherClassPartners
from ..data.reading import collated, decoded, fetch
from ..errors import SelectionError
from ..models import LoadedModel, check_label_ids, classes_of_model, model_fingerprint
from .candidates import Candidates, Original
from .clusters import cluster_candidates
from .evidence import find_evidence
from .masks import relevance_mask
from .packed import HEATMAP, MASK, RowWriter, as_png, maps_of, pictures_of
from .scan import ScanHit, scan

__all__ = ["explain_hits", "find_candidates"]

logger = logging.getLogger(__name__)


def find_candidates(
    model: nn.Module | LoadedModel,
    dataset: Any,
    *,
    dataset_fingerprint: str | None = None,
    processor: Any = None,
    layer: str | int = "last",
    num_candidates: int = 100,
    mask_share: float = 0.95,
    mask_area: float = 0.2,
    batch_size: int = 32,
    strict: bool = False,
    folder: str | Path | None = None,
    num_workers: int = 0,
    find_object: Callable[[np.ndarray], Tensor] | None = None,
) -> Candidates:
    """Scan, explain and mask: what a person then decides on.

    Args:
        model: what `load_model` gives, or an image classifier; left as it was.
        dataset: what `load_data` gives: its training view is looked at, and its held-out images say what the regions
            do elsewhere (`find_evidence`). Or any data set that `scan` takes.
        dataset_fingerprint: of the data set, written into the candidates; default: what the data say themselves.
        processor: image processor, where items carry images; default: the loaded model's.
        layer: probe layer of the shortcut relevance.
        num_candidates: per class.
        mask_share, mask_area: see `relevance_mask`.
        batch_size: images per forward pass.
        strict, folder, num_workers: see `scan`.
        find_object: for a shortcut that is everything but the object. Masks are then all that is outside of what it
            finds in images (B, H, W, 3) uint8, as the model sees them: (B, H, W) bool. See `ObjectFinder`.

    Raises:
        ModelError: the data set names its classes, and its label ids are not the model's.
        DataError, SelectionError: as `scan`.
    """
    if isinstance(model, LoadedModel):
        model, processor = model.model, processor or model.processor
    data, dataset = (dataset, dataset.train) if isinstance(dataset, ImageData) else (None, dataset)
    check_label_ids(model, dataset)
    dataset = as_scannable(dataset, processor)
    if dataset_fingerprint is None:
        dataset_fingerprint = _fingerprint_of(dataset) if data is None else data.fingerprint
    found = scan(
        model,
        dataset,
        processor=processor,
        num_candidates=num_candidates,
        batch_size=batch_size,
        strict=strict,
        folder=folder,
        fingerprint=f"{dataset_fingerprint} {model_fingerprint(model)}",
        num_workers=num_workers,
    )
    if found.unreadable:
        first = found.unreadable[0]
        logger.warning(
            f"{len(found.unreadable)} of {found.num_images} images could not be read and were skipped, "
            f"the first is {first.idx} ({first.reason})"
        )
    candidates = explain_hits(
        model,
        dataset,
        [hit for hits in found.hits.values() for hit in hits],
        dataset_fingerprint=dataset_fingerprint,
        processor=processor,
        layer=layer,
        mask_share=mask_share,
        mask_area=mask_area,
        batch_size=batch_size,
        find_object=find_object,
    )
    candidates = replace(candidates, num_images=found.num_images, unreadable=tuple(found.unreadable))
    if data is None:
        return candidates
    partners = OtherClassPartners(data.held_out, data.held_out["label"][:], ImageCollator(processor), seed=0)
    evidence = find_evidence(candidates, model, dataset, partners, processor=processor, batch_size=batch_size)
    return replace(candidates, evidence=evidence)


def _fingerprint_of(dataset: Any) -> str:
    """Of the images and labels where they can be read, else a word that says that nothing is known."""
    if isinstance(dataset, Dataset) and {"image", "label"} <= set(dataset.column_names):
        return fingerprint_of_images(dataset)
    return "unknown"


def explain_hits(
    model: nn.Module,
    dataset: Any,
    hits: Sequence[ScanHit],
    *,
    dataset_fingerprint: str,
    processor: Any = None,
    layer: str | int = "last",
    mask_share: float = 0.95,
    mask_area: float = 0.2,
    batch_size: int = 32,
    find_object: Callable[[np.ndarray], Tensor] | None = None,
) -> Candidates:
    """Explain and mask these images of the data set, shared out over processes; arguments as for `find_candidates`.

    Raises:
        SelectionError: there are no hits.
    """
    if not hits:
        raise SelectionError("the scan has found no image: check the data set and the classes to keep.")
    state = PartialState()
    device = next(model.parameters()).device
    probe = find_layer(model, layer)
    parts = [list(hits[start : start + batch_size]) for start in range(0, len(hits), batch_size)]
    own: list[tuple[int, dict[str, Tensor], list[Original | None]]] = []
    numbers = range(state.process_index, len(parts), state.num_processes)
    file = Path(get_temporary_cache_files_directory()) / f"{uuid.uuid4().hex}.arrow"
    with Explainer(model, batch_size=batch_size) as explainer, RowWriter(str(file), _PICTURES) as writer:
        fetched = _fetched(dataset, [parts[number] for number in numbers])
        for number in tqdm(
            numbers, desc="Explain", unit="batch", leave=False, disable=None if state.is_main_process else True
        ):
            part, raw = parts[number], next(fetched)
            opened = [decoded(item) for item in raw]
            pixel_values = collated(opened, processor).to(device)
            targets = torch.tensor([hit.label for hit in part], device=device)
            original = explainer.explain(pixel_values, targets)
            assert original.relevance is not None
            images = to_uint8(pixel_values, processor)
            if find_object is None:
                mask = relevance_mask(original.relevance, share=mask_share, max_area=mask_area)
            else:
                mask = ~find_object(images).to(device)
            masked = explainer.explain(pixel_values * mask[:, None], targets, layer=probe.name, pixels=False)
            assert masked.layer_relevance is not None
            others = masked.logits.scatter(1, targets[:, None], -torch.inf).amax(dim=1)
            _write(writer, original.relevance, mask, images)
            scores = {
                "logits": original.logits.gather(1, targets[:, None])[:, 0].float(),
                "masked_margins": (masked.logits.gather(1, targets[:, None])[:, 0] - others).float(),
                "shortcut_relevance": masked.layer_relevance.clamp(min=0).sum(dim=1).float(),
            }
            originals = [_original(*pair) for pair in zip(raw, opened, strict=True)]
            own.append((number, {name: value.cpu() for name, value in scores.items()}, originals))
    gathered = sorted(gather_object(own), key=lambda part: part[0])
    explained = [arrays for _, arrays, _ in gathered]
    known = [original for _, _, originals in gathered for original in originals]
    arrays: dict[str, Any] = {name: torch.cat([part[name] for part in explained]).numpy() for name in explained[0]}
    labels = np.array([hit.label for hit in hits], dtype=np.int64)
    table = _together(writer.table(), [len(part) for part in parts], state)
    pictures = pictures_of(table)
    assert pictures is not None
    heatmaps, masks = maps_of(table, pictures[0].size[::-1])
    return Candidates(
        idx=np.array([hit.idx for hit in hits], dtype=np.int64),
        position=np.array([hit.position for hit in hits], dtype=np.int64),
        labels=labels,
        **arrays,
        heatmaps=heatmaps,
        masks=masks,
        cluster=cluster_candidates(labels, arrays["shortcut_relevance"]),
        images=pictures,
        originals=() if None in known else tuple(known),
        dataset_fingerprint=dataset_fingerprint,
        model_fingerprint=model_fingerprint(model),
        layer=probe.name,
        class_names=_class_names(model, labels),
    )


#: What of a candidate is too large to be in memory for all.
_PICTURES = Features(heatmaps=Value("binary"), masks=Value("binary"), image=Value("binary"))


def _write(writer: RowWriter, heatmaps: Tensor, masks: Tensor, images: np.ndarray) -> None:
    """Write down what is too large: (b, H, W) relevance and masks, (b, H, W, 3) uint8."""
    for heatmap, mask, image in zip(heatmaps.float().cpu().numpy(), masks.cpu().numpy(), images, strict=True):
        writer.write({"heatmaps": HEATMAP.pack(heatmap), "masks": MASK.pack(mask), "image": as_png(image)})


def _fetched(dataset: Any, parts: Sequence[Sequence[ScanHit]]) -> Iterator[list[Any]]:
    """The items of each part, one part after the other; of a stream in one go, for it is read from its beginning."""
    if not isinstance(dataset, IterableDataset):
        yield from (fetch(dataset, [hit.position for hit in part]) for part in parts)
        return
    items = iter(fetch(dataset, [hit.position for part in parts for hit in part]))
    yield from ([next(items) for _ in part] for part in parts)


def _together(own: Dataset, sizes: Sequence[int], state: PartialState) -> Dataset:
    """The tables of all processes as one, in the order of the hits: their files where all see them, else sent round.

    Args:
        own: of this process: every n-th part, from its own on.
        sizes: rows of each part.
        state: of the processes.
    """
    if state.num_processes == 1:
        return own
    files = gather_object([own.cache_files[0]["filename"] if own.cache_files else None])
    seen = all(file is None or Path(file).is_file() for file in files)
    if all(gather_object([seen])):
        tables = [Dataset.from_file(file) for file in files if file is not None]
    else:
        rows = gather_object([own.with_format(None)[:]])
        tables = [Dataset.from_dict(one, features=_PICTURES) for one in rows if one["image"]]
    starts = np.cumsum([0, *sizes])
    places = [
        np.arange(starts[number], starts[number + 1])
        for rank in range(state.num_processes)
        for number in range(rank, len(sizes), state.num_processes)
    ]
    return concatenate_datasets(tables).select(np.argsort(np.concatenate(places)))


def _original(item: Any, opened: Any) -> Original | None:
    """What an item's image was before it was resized; None where the item has only `pixel_values`."""
    if "image" not in opened:
        return None
    image = item["image"]
    path = image.get("path") if isinstance(image, dict) else getattr(image, "filename", "")
    return Original(Path(path or "").name, *opened["image"].size)


def _class_names(model: nn.Module, labels: np.ndarray) -> tuple[str, ...]:
    named = classes_of_model(model)
    count = max(len(named), int(labels.max()) + 1)
    return tuple(str(named.get(label, f"class {label}")) for label in range(count))
