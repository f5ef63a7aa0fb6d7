"""Candidates: the images of the scan with their heatmaps, masks and shortcut relevance, as one folder on disk."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, NotRequired, TypedDict

import numpy as np
import torch
from datasets import Dataset, Features, Image, Value
from datasets import Sequence as SequenceFeature

from ..data.adapt import as_scannable
from ..data.reading import fetch, pixels_of
from ..errors import SelectionError, first_line
from ..files import Index, as_type, atomic_folder, read_json, write_json
from .clusters import Cluster, describe_clusters
from .packed import HEATMAP, MASK, PackedArrays, Pictures, maps_of, packed, picture_bytes, pictures_of, written
from .ranking import suspicion
from .samples import SpuriousSamples
from .scan import UnreadableImage
from .selection import DecidedBy, Decision, Selection, Verdict

__all__ = ["Candidates", "ClusterRecord", "Original", "read_about"]

SCHEMA = "hf-score/candidates/3"
_BEFORE = "hf-score/candidates/2"


@dataclass(frozen=True)
class Original:
    """The image that a candidate is of, before it was resized and cropped.

    Attributes:
        file: the name of its file, without folders; empty where it has none.
        width, height: in pixels, upright.
    """

    file: str
    width: int
    height: int


@dataclass(frozen=True)
class Candidates:
    """What a person judges. All arrays have the n candidates along their first axis.

    Attributes:
        idx, position, labels: (n,) int64: stable id, row in the training view, class.
        logits: (n,) logit of the class, original image.
        masked_margins: (n,) class margin over the strongest other one, masked image; above 0 it suffices.
        heatmaps: (n, H, W) float32, relevance at the pixels, channels summed. Those of a scan, and of `load`, lie on
            disk, each to 11 bits of its largest value: a row is read when it is asked for.
        masks: (n, H, W) bool; as the heatmaps.
        shortcut_relevance: (n, C) float32, ReLU of the masked image's probe-layer relevance, summed over positions.
        cluster: (n,) int64, see `cluster_candidates`; a cluster is of one class.
        evidence: name of a score → (n,), what speaks for a shortcut (`hf_score.detection.evidence`); may be empty.
        images: the n images as the model sees them, resized and cropped, or None.
        originals: what those n images were before; empty where it is not known.
        dataset_fingerprint, model_fingerprint, layer, class_names: what they were made from.
        num_images, unreadable: how many images were scanned, and those of them that were skipped.
    """

    idx: np.ndarray
    position: np.ndarray
    labels: np.ndarray
    logits: np.ndarray
    masked_margins: np.ndarray
    heatmaps: np.ndarray | PackedArrays
    masks: np.ndarray | PackedArrays
    shortcut_relevance: np.ndarray
    cluster: np.ndarray
    dataset_fingerprint: str
    model_fingerprint: str
    layer: str
    class_names: tuple[str, ...] = ()
    num_images: int = 0
    unreadable: tuple[UnreadableImage, ...] = ()
    evidence: dict[str, np.ndarray] = field(default_factory=dict)
    images: Sequence[Any] | None = None
    originals: tuple[Original, ...] = ()

    def __len__(self) -> int:
        return len(self.idx)

    @property
    def sufficient(self) -> np.ndarray:
        """(n,) bool: the masked image alone still gets the class, a necessary test for a spurious-positive sample."""
        return self.masked_margins > 0

    @property
    def suspicion(self) -> np.ndarray | None:
        """(n,), in [0, 1]: the mean rank of each candidate in the evidence; None without evidence."""
        return suspicion(self.evidence) if self.evidence else None

    @property
    def pixels(self) -> np.ndarray | None:
        """(n, H, W, 3) uint8: the images as the model sees them; None where one of them is missing."""
        pixels = [np.asarray(image.convert("RGB")) for image in self.images or () if image is not None]
        if self.images is None or len(pixels) < len(self):
            return None
        return np.stack(pixels) if pixels else np.zeros((*self.masks.shape, 3), dtype=np.uint8)

    def take(self, chosen: Sequence[int] | np.ndarray) -> Candidates:
        """The candidates of these rows, in this order."""
        rows = np.asarray(chosen, dtype=np.int64)
        images: Sequence[Any] | None
        if isinstance(self.images, Pictures):
            images = self.images.at(rows)
        else:
            images = None if self.images is None else [self.images[int(row)] for row in rows]
        evidence = {name: score[rows] for name, score in self.evidence.items()}
        originals = tuple(self.originals[int(row)] for row in rows) if self.originals else ()
        arrays: dict[str, Any] = {
            name: value.at(rows) if isinstance(value := getattr(self, name), PackedArrays) else value[rows]
            for name in _ARRAYS
        }
        return replace(self, images=images, evidence=evidence, originals=originals, **arrays)

    def describe_clusters(self) -> list[Cluster]:
        """What the candidates of each cluster have in common, by cluster number."""
        return describe_clusters(
            self.cluster,
            self.labels,
            shortcut_relevance=self.shortcut_relevance,
            masks=self.masks,
            sufficient=self.sufficient,
            evidence=self.evidence,
        )

    def select(
        self,
        rows: Sequence[int] | np.ndarray,
        *,
        by: DecidedBy = "person",
        verdict: Verdict = "spurious",
        others: Verdict | None = None,
        notes: Sequence[str] | None = None,
    ) -> Selection:
        """A selection about these candidates, with one verdict on some of them.

        Args:
            rows: of the candidates, or (n,) bool.
            by: who or what decided.
            verdict: on the candidates of `rows`.
            others: verdict on all other candidates; None leaves them undecided.
            notes: (n,), why, candidate by candidate.

        Raises:
            SelectionError: there is no such row, verdict or decider.
        """
        rows = np.asarray(rows)
        rows = np.flatnonzero(rows) if rows.dtype == bool else rows.astype(np.int64)
        outside = rows[(rows < 0) | (rows >= len(self))]
        if len(outside):
            raise SelectionError(f"there is no candidate in row {outside[0]}: give rows from 0 to {len(self) - 1}.")
        chosen = set(rows.tolist())
        decisions = [
            Decision(
                idx=int(self.idx[row]),
                label=int(self.labels[row]),
                verdict=said,
                decided_by=by,
                note=notes[row] if notes else "",
            )
            for row in range(len(self))
            if (said := verdict if row in chosen else others) is not None
        ]
        return Selection(tuple(decisions), self.dataset_fingerprint, self.model_fingerprint)

    def samples(
        self,
        selection: Selection,
        dataset: Any,
        *,
        processor: Any = None,
        cluster_weights: Mapping[int, float] | None = None,
    ) -> SpuriousSamples:
        """The spurious-positive ones among the candidates, as tensors for `SCORETrainer`.

        Args:
            selection: what was decided; several clusters of one or more classes may be kept.
            dataset: the data set that was scanned, or what `load_data` gave.
            processor: image processor, where items carry images.
            cluster_weights: what λ is multiplied by in these clusters; 1 in the others.

        Raises:
            SelectionError: the selection names a sample that is no candidate, or is about another model or data set;
                or there is no such cluster.
        """
        unknown = sorted(set(cluster_weights or {}) - set(self.cluster.tolist()))
        if unknown:
            raise SelectionError(
                f"there is no cluster {unknown[0]}: the candidates have clusters 0 to {self.cluster.max()}."
            )
        for kind in ("dataset_fingerprint", "model_fingerprint"):
            if getattr(selection, kind) != getattr(self, kind):
                raise SelectionError(
                    f"the selection was decided for another {kind.removesuffix('_fingerprint')} (fingerprint "
                    f"{getattr(selection, kind)}, the candidates have {getattr(self, kind)}): decide again."
                )
        row_of = {int(idx): row for row, idx in enumerate(self.idx)}
        missing = [d.idx for d in selection.spurious if d.idx not in row_of]
        if missing:
            raise SelectionError(f"the selection keeps sample {missing[0]}, which is not among the candidates.")
        rows = [row_of[d.idx] for d in selection.spurious]
        items = fetch(as_scannable(getattr(dataset, "train", dataset), processor), self.position[rows].tolist())
        return SpuriousSamples(
            pixel_values=pixels_of(items, processor).cpu() if items else torch.empty(0, 3, *self.masks.shape[1:]),
            masks=torch.from_numpy(self.masks[rows]),
            labels=torch.from_numpy(self.labels[rows]),
            idx=torch.from_numpy(self.idx[rows]),
            weights=torch.tensor([(cluster_weights or {}).get(int(self.cluster[row]), 1.0) for row in rows]),
        )

    def save(self, folder: str | Path) -> Path:
        """Write a `datasets` folder with a `candidates.json` that says what it was made from, atomically."""
        height, width = self.masks.shape[1:]
        features = Features(
            idx=Value("int64"),
            position=Value("int64"),
            labels=Value("int64"),
            logits=Value("float32"),
            masked_margins=Value("float32"),
            heatmaps=Value("binary"),
            masks=Value("binary"),
            shortcut_relevance=SequenceFeature(Value("float32")),
            cluster=Value("int64"),
            image=Image(),
        )
        with atomic_folder(folder) as temporary, written(self._rows(), features) as table:
            table.save_to_disk(temporary)
            fields = {name: getattr(self, name) for name in _FIELDS}
            fields["shape"] = [int(height), int(width)]
            fields["unreadable"] = [asdict(bad) for bad in self.unreadable]
            fields["evidence"] = {name: score.tolist() for name, score in self.evidence.items()}
            fields["originals"] = [[one.file, one.width, one.height] for one in self.originals]
            fields["clusters"] = [asdict(cluster) for cluster in self.describe_clusters()]
            write_json(temporary / "candidates.json", {"schema": SCHEMA, **fields})
        return Path(folder)

    def _rows(self) -> Iterator[dict[str, Any]]:
        """The rows of the table, one by one: together they may be too large for memory."""
        for row in range(len(self)):
            encoded = picture_bytes(self.images, row)
            yield {
                **{name: getattr(self, name)[row] for name in _ARRAYS if name not in ("heatmaps", "masks")},
                "heatmaps": packed(self.heatmaps, row, HEATMAP),
                "masks": packed(self.masks, row, MASK),
                "image": None if encoded is None else {"bytes": encoded, "path": None},
            }

    @classmethod
    def load(cls, folder: str | Path) -> Candidates:
        """Read what `save` wrote.

        Raises:
            SelectionError: not a candidates folder of this version.
        """
        folder = Path(folder)
        about = read_about(folder)
        try:
            table = Dataset.load_from_disk(str(folder))
            small = table.select_columns([name for name in _ARRAYS if name not in ("heatmaps", "masks")])
            columns = small.with_format("numpy")
            arrays: dict[str, Any] = {name: np.asarray(columns[name][:]) for name in small.column_names}
            arrays["heatmaps"], arrays["masks"] = maps_of(table, about.get("shape"))
            images = pictures_of(table)
        except Exception as error:  # pyarrow and datasets raise whatever they like on broken files
            raise SelectionError(f"{folder} holds no candidates ({first_line(error)}): run the scan again.") from None
        fields: dict[str, Any] = {name: about[name] for name in _FIELDS}  # type: ignore[literal-required]
        fields["evidence"] = {name: np.asarray(score) for name, score in about["evidence"].items()}
        fields["originals"] = tuple(Original(*one) for one in about.get("originals", ()))
        lengths = {len(score) for score in fields["evidence"].values()} - {len(arrays["idx"])}
        if lengths or (len(arrays["labels"]) and arrays["labels"].max() >= max(1, len(about["class_names"]))):
            raise SelectionError(f"{folder} does not fit its candidates.json: run the scan again.")
        return cls(**arrays, **fields, images=images)


_ARRAYS = (
    "idx",
    "position",
    "labels",
    "logits",
    "masked_margins",
    "heatmaps",
    "masks",
    "shortcut_relevance",
    "cluster",
)
_FIELDS = ("dataset_fingerprint", "model_fingerprint", "layer", "class_names", "num_images", "unreadable")


class _NeuronRecord(TypedDict):
    neuron: Index
    share: float
    rows: list[Index]


class ClusterRecord(TypedDict):
    """A cluster in `candidates.json`: see `hf_score.detection.clusters.Cluster`."""

    cluster: int
    suspicion: NotRequired[float | None]
    evidence: NotRequired[dict[str, float | None] | None]
    typical: NotRequired[list[Index] | None]
    neurons: NotRequired[list[_NeuronRecord] | None]


class _About(TypedDict):
    dataset_fingerprint: str
    model_fingerprint: str
    layer: str
    class_names: tuple[str, ...]
    num_images: Index
    unreadable: tuple[UnreadableImage, ...]
    evidence: dict[str, list[float]]
    clusters: list[ClusterRecord]
    originals: NotRequired[list[tuple[str, Index, Index]]]
    shape: NotRequired[tuple[Index, Index]]  # of heatmaps and masks; in the schema before, they lie there as arrays


def read_about(folder: Path) -> _About:
    """What `candidates.json` says.

    Raises:
        SelectionError: it is not there, or not of this version.
    """
    path, advice = folder / "candidates.json", "run the scan again (your decisions stay in selection.json)"
    content: Any = read_json(path, dict, what="record of candidates", advice=advice, error=SelectionError)
    if content.get("schema") not in (SCHEMA, _BEFORE):
        raise SelectionError(f"{path} has schema {content.get('schema')!r} instead of {SCHEMA!r}: {advice}.")
    return as_type(content, _About, where=f"{path} is no record of candidates", advice=advice, error=SelectionError)
