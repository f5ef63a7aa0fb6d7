"""The scan: one forward pass that keeps, per class, the images that activate its logit most.

Work is cut into shards that do not depend on the number of processes, and a shard into the same batches always: so the
same images meet in one forward pass, their logits are the same to the bit, and so are the candidates.
"""

from __future__ import annotations

import heapq
import math
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal, TypedDict

import torch
from accelerate import PartialState
from accelerate.utils import gather_object
from datasets import IterableDataset
from torch.utils.data import DataLoader
from tqdm.auto import tqdm

from ..data.adapt import as_scannable
from ..data.identity import check_unique_idx, refuse_repeated_idx
from ..data.reading import FILE, collated, decoded, undecoded
from ..data.views import ItemReader
from ..errors import DataError, SelectionError
from ..files import Index, read_json, write_json
from ..models import classes_of_model, eval_mode

__all__ = ["ScanHit", "ScanResult", "UnreadableImage", "scan"]

SCHEMA = "hf-score/scan/1"
#: Images of one shard of a data set that is no stream; a stream's shards are its files.
SHARD_SIZE = 1024
#: Seconds after which what was done is written down again.
SAVE_SECONDS = 5.0


@dataclass(frozen=True, order=True)
class ScanHit:
    """One image of the scan: `position` in the data set, its stable `idx`, its class and that class's logit."""

    logit: float
    position: int
    idx: int
    label: int


@dataclass(frozen=True, order=True)
class UnreadableImage:
    """An image that was skipped, and why."""

    position: Index
    idx: Index
    reason: str


@dataclass(frozen=True)
class ScanResult:
    """What a scan has found, the same on every process.

    Attributes:
        hits: class id → its hits, the strongest first; equal logits in the order of the data set.
        num_images: images seen, unreadable ones included.
        unreadable: those that were skipped.
    """

    hits: dict[int, list[ScanHit]]
    num_images: int
    unreadable: list[UnreadableImage]


def scan(
    model: torch.nn.Module,
    dataset: Any,
    *,
    processor: Any = None,
    num_candidates: int = 100,
    batch_size: int = 32,
    classes: Sequence[int] | None = None,
    strict: bool = False,
    folder: str | Path | None = None,
    fingerprint: str = "",
    num_workers: int = 0,
) -> ScanResult:
    """Per class, the `num_candidates` images of that class with the highest pre-softmax logit of it.

    One forward pass, shared out over the processes of an `accelerate launch`, whose number does not change the result.
    Memory grows with classes times candidates, not with the data set. SCORE, arXiv 2605.13340, section
    "spurious-positive samples" (m = 100).

    Args:
        model: image classifier with logits (B, K), from `transformers` or `timm`; left as it was.
        dataset: a `datasets.Dataset` or `IterableDataset` (a stream, shared out by its files) with a column of images,
            or indexable items with `pixel_values` (3, H, W), or what `hf_score.data.adapt` makes a data set of. `idx`
            is the stable id, by default the position. `label` or `labels` is the class, by number or by the model's
            name for it; where it is absent, None or negative, the class is the predicted one.
        processor: image processor, where items carry images.
        num_candidates: images per class (m).
        batch_size: images per forward pass.
        classes: class ids to keep; all by default.
        strict: stop at an image that cannot be read, instead of listing it.
        folder: where each process writes down every five seconds which shards it has done, and at the end. A scan that
            was interrupted goes on from there, with any number of processes.
        fingerprint: of the model and the data; a folder with another's work is refused.
        num_workers: processes that load images.

    Raises:
        DataError: no images, an `idx` that is there twice, a label that is no class of the model, or with `strict` an
            image that cannot be read.
        SelectionError: `folder` has the work of another scan.
    """
    state = PartialState()
    check_unique_idx(dataset, "the data set to scan")
    source = _Source(as_scannable(dataset, processor), batch_size)
    settings = {"fingerprint": fingerprint, "num_candidates": num_candidates, "batch_size": batch_size}
    settings |= {"shards": source.num_shards, "classes": None if classes is None else sorted(classes)}
    progress = _Progress(settings, folder, state)
    remaining = [shard for shard in range(source.num_shards) if shard not in progress.done]
    own = remaining[state.process_index :: state.num_processes]
    named = classes_of_model(model)
    reader = ItemReader("the data set to scan", tuple(named[i] for i in sorted(named)))
    loader = DataLoader(source.batches(own, processor, reader), batch_size=None, num_workers=num_workers)  # type: ignore[arg-type]
    device = next(model.parameters()).device
    with (
        eval_mode(model),
        torch.inference_mode(),
        tqdm(total=source.num_images(own), desc="Scan", unit="image", leave=False) as bar,
    ):
        bar.disable = bar.disable or not state.is_main_process
        try:
            for batch in loader:
                if strict and batch.unreadable:
                    bad = batch.unreadable[0]
                    raise DataError(
                        f"image {bad.idx} cannot be read ({bad.reason}): repair it, or scan without strict."
                    )
                progress.skip(batch.unreadable)
                if len(batch.positions):
                    output = model(batch.pixel_values.to(device))
                    progress.add(batch, getattr(output, "logits", output).float().cpu(), classes)
                bar.update(batch.num_images)
                progress.count(batch)
        finally:
            progress.save()
    result = progress.merge()
    seen = Counter(hit.idx for hits in result.hits.values() for hit in hits)
    for idx, count in seen.items():
        if count > 1:  # of a stream or of items, it shows only now
            refuse_repeated_idx(idx, "the data set to scan")
    return result


# ---- Reading ----


@dataclass
class _Batch:
    shard: int
    last: bool  # of its shard
    num_images: int
    positions: list[int] = field(default_factory=list)
    idx: list[int] = field(default_factory=list)
    labels: list[int] = field(default_factory=list)  # -1: unknown
    unreadable: list[UnreadableImage] = field(default_factory=list)
    pixel_values: Any = None  # (B, 3, H, W)


class _Source:
    """A data set as shards of batches of (position, item)."""

    def __init__(self, dataset: Any, batch_size: int) -> None:
        self.dataset, self.batch_size = undecoded(dataset), batch_size
        self.streams = isinstance(dataset, IterableDataset)
        self.num_shards = dataset.num_shards if self.streams else math.ceil(len(dataset) / SHARD_SIZE)
        if not self.num_shards:
            raise DataError("the data set to scan is empty: give one with images.")

    def num_images(self, shards: Sequence[int]) -> int | None:
        if self.streams:
            return None
        return sum(min(SHARD_SIZE, len(self.dataset) - shard * SHARD_SIZE) for shard in shards)

    def items(self, shard: int) -> Iterator[tuple[int, Any]]:
        if self.streams:
            for row, item in enumerate(self.dataset.shard(num_shards=self.num_shards, index=shard)):
                yield shard * FILE + row, item
        else:
            for position in range(shard * SHARD_SIZE, min((shard + 1) * SHARD_SIZE, len(self.dataset))):
                yield position, self.dataset[position]

    def batches(self, shards: Sequence[int], processor: Any, reader: ItemReader) -> torch.utils.data.IterableDataset:
        return _Batches(self, shards, processor, reader)


class _Batches(torch.utils.data.IterableDataset):
    """The batches of some shards, shared out over the workers of a `DataLoader`."""

    def __init__(self, source: _Source, shards: Sequence[int], processor: Any, reader: ItemReader) -> None:
        self.source, self.shards, self.processor, self.reader = source, shards, processor, reader

    def __iter__(self) -> Iterator[_Batch]:
        worker = torch.utils.data.get_worker_info()
        for shard in self.shards if worker is None else self.shards[worker.id :: worker.num_workers]:
            waiting: list[tuple[int, Any]] = []
            for entry in self.source.items(shard):
                if len(waiting) == self.source.batch_size:
                    yield self._batch(shard, waiting, last=False)
                    waiting = []
                waiting.append(entry)
            yield self._batch(shard, waiting, last=True)

    def _batch(self, shard: int, entries: list[tuple[int, Any]], *, last: bool) -> _Batch:
        batch, items = _Batch(shard, last, len(entries)), []
        for position, item in entries:
            idx = int(item.get("idx", position))
            try:
                items.append(decoded(item))
            except Exception as error:  # decoders raise whatever they like on a broken file
                reason = " ".join(str(error).split()) or type(error).__name__
                batch.unreadable.append(UnreadableImage(position, idx, reason[:200]))
                continue
            label = item.get("label", item.get("labels"))
            batch.positions.append(position)
            batch.idx.append(idx)
            unknown = label is None or (not isinstance(label, str) and int(label) < 0)
            batch.labels.append(-1 if unknown else self.reader.label_id(label, position))
        if items:
            batch.pixel_values = collated(items, self.processor)
        return batch


# ---- Keeping ----


class _Part(TypedDict):
    """A file of `_Progress`."""

    schema: Literal["hf-score/scan/1"]
    settings: dict[str, Any]
    attempt: Index
    shards: list[Index]
    num_images: Index
    unreadable: list[UnreadableImage]
    hits: list[tuple[Index, float, int, Index]]


def read_part(path: Path) -> Any:
    """A file of `_Progress`.

    Raises:
        SelectionError: it is none.
    """
    advice = f"delete {path.parent} to scan anew"
    return read_json(path, _Part, what="part of a scan", advice=advice, error=SelectionError)


class _Progress:
    """The strongest hits so far, what they were found in, and both on disk."""

    def __init__(self, settings: dict[str, Any], folder: str | Path | None, state: PartialState) -> None:
        self.settings, self.state = settings, state
        self.folder = None if folder is None else Path(folder)
        before = [] if self.folder is None else [self._read(path) for path in sorted(self.folder.glob("part-*.json"))]
        # Processes need not share a disk, but they have to agree on what is left to do.
        self.before = [part for parts in gather_object([before]) for part in parts]
        self.done = {shard for part in self.before for shard in part["shards"]}
        attempt = 1 + max((part["attempt"] for part in self.before), default=0)
        self.own: dict[str, Any] = {"attempt": attempt, "shards": [], "num_images": 0}
        self.heaps: dict[int, list[tuple[float, int, int]]] = {}
        self._seen: Counter[int] = Counter()  # images by shard: workers load several at a time
        self._bad: list[UnreadableImage] = []
        self._saved = time.monotonic()

    def add(self, batch: _Batch, logits: torch.Tensor, classes: Sequence[int] | None) -> None:
        labels = torch.as_tensor(batch.labels)
        labels = torch.where(labels < 0, logits.argmax(1), labels)
        strength = logits.gather(1, labels[:, None])[:, 0].tolist()
        for label, value, position, idx in zip(labels.tolist(), strength, batch.positions, batch.idx, strict=True):
            if not math.isfinite(value):
                self.skip([UnreadableImage(position, idx, "its logit is not a finite number")])
            elif classes is None or label in classes:
                self._keep(label, (value, -position, idx))

    def _keep(self, label: int, entry: tuple[float, int, int]) -> None:
        # A heap of (logit, -position): the smallest goes first, among equals the one that comes last.
        kept = self.heaps.setdefault(label, [])
        if len(kept) < self.settings["num_candidates"]:
            heapq.heappush(kept, entry)
        elif entry > kept[0]:
            heapq.heapreplace(kept, entry)

    def skip(self, unreadable: list[UnreadableImage]) -> None:
        self._bad += unreadable

    def count(self, batch: _Batch) -> None:
        """Count a batch as done, and with its last one the shard; on disk too, where that was not done lately."""
        self._seen[batch.shard] += batch.num_images
        if not batch.last:
            return
        self.own["shards"].append(batch.shard)
        self.own["num_images"] += self._seen.pop(batch.shard)
        if time.monotonic() - self._saved > SAVE_SECONDS:
            self.save()

    def save(self) -> None:
        """Write down what was done. It grows with the candidates, so not after every shard."""
        self._saved = time.monotonic()
        if self.folder is not None and self.own["shards"]:
            name = f"part-{self.own['attempt']:03d}-{self.state.process_index:03d}.json"
            part = {**self._part(), "unreadable": [asdict(bad) for bad in self._bad]}
            write_json(self.folder / name, {"schema": SCHEMA, "settings": self.settings, **part})

    def _part(self) -> dict[str, Any]:
        hits = [[label, *entry] for label, kept in sorted(self.heaps.items()) for entry in sorted(kept)]
        return {**self.own, "unreadable": self._bad, "hits": hits}

    def _read(self, path: Path) -> dict[str, Any]:
        part = read_part(path)
        if part["settings"] != self.settings:
            raise SelectionError(
                f"{path.parent} has a scan of another model or data set, or with other settings: delete it."
            )
        return part

    def merge(self) -> ScanResult:
        parts = [*self.before, *gather_object([self._part()])]
        first = {(part["attempt"], *part["shards"]): part for part in parts}.values()  # of a disk that all see, once
        merged: dict[int, set[ScanHit]] = {}
        for part in first:
            for label, logit, position, idx in part["hits"]:
                merged.setdefault(label, set()).add(ScanHit(logit, -position, idx, label))
        bad = {entry for part in first for entry in part["unreadable"]}
        return ScanResult(
            hits={
                label: sorted(found, key=lambda hit: (-hit.logit, hit.position))[: self.settings["num_candidates"]]
                for label, found in sorted(merged.items())
            },
            num_images=sum(part["num_images"] for part in first),
            unreadable=sorted(bad),
        )
