"""Candidates: the images of the scan with their heatmaps, masks and shortcut relevance, as one folder on disk."""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate import PartialState
from accelerate.utils import gather_object
from datasets import Array2D, Dataset, Features, Image, Value
from datasets import Sequence as SequenceFeature
from PIL import Image as PILImage
from torch import Tensor, nn
from tqdm.auto import tqdm

from ..attribution import Explainer, find_layer
from ..data import to_uint8
from ..data.reading import fetch, pixels_of
from ..errors import SelectionError
from ..files import atomic_folder, write_json
from .clusters import cluster_candidates, describe_clusters
from .evidence import suspicion
from .masks import relevance_mask
from .samples import SpuriousSamples
from .scan import ScanHit, UnreadableImage, scan
from .selection import Decision, Selection

__all__ = ["Candidates", "explain_hits", "find_candidates", "model_fingerprint"]

logger = logging.getLogger(__name__)

SCHEMA = "hf-score/candidates/2"


@dataclass(frozen=True)
class Candidates:
    """What a person judges. All arrays have the n candidates along their first axis.

    Attributes:
        idx, position, labels: (n,) int64: stable id, row in the training view, class.
        logits: (n,) logit of the class, original image.
        masked_margins: (n,) class margin over the strongest other one, masked image; above 0 it suffices.
        heatmaps: (n, H, W) float32, relevance at the pixels, channels summed.
        masks: (n, H, W) bool.
        shortcut_relevance: (n, C) float32, ReLU of the masked image's probe-layer relevance, summed over positions.
        cluster: (n,) int64, see `cluster_candidates`; a cluster is of one class.
        evidence: name of a score → (n,), what speaks for a shortcut (`hf_score.detection.evidence`); may be empty.
        images: the n images as the model sees them, resized and cropped, or None.
        dataset_fingerprint, model_fingerprint, layer, class_names: what they were made from.
        num_images, unreadable: how many images were scanned, and those of them that were skipped.
    """

    idx: np.ndarray
    position: np.ndarray
    labels: np.ndarray
    logits: np.ndarray
    masked_margins: np.ndarray
    heatmaps: np.ndarray
    masks: np.ndarray
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

    def take(self, chosen: Sequence[int] | np.ndarray) -> Candidates:
        """The candidates at these places, in this order."""
        rows = np.asarray(chosen, dtype=np.int64)
        images = None if self.images is None else [self.images[int(row)] for row in rows]
        evidence = {name: score[rows] for name, score in self.evidence.items()}
        return replace(self, images=images, evidence=evidence, **{name: getattr(self, name)[rows] for name in _ARRAYS})

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
            dataset: the data set that was scanned.
            processor: image processor, where items carry images.
            cluster_weights: what λ is multiplied by in these clusters; 1 in the others.

        Raises:
            SelectionError: the selection names a sample that is no candidate, or is about another model or data set;
                or there is no such cluster.
        """
        strange = sorted(set(cluster_weights or {}) - set(self.cluster.tolist()))
        if strange:
            raise SelectionError(
                f"there is no cluster {strange[0]}: the candidates have clusters 0 to {self.cluster.max()}."
            )
        for kind in ("dataset_fingerprint", "model_fingerprint"):
            if getattr(selection, kind) != getattr(self, kind):
                raise SelectionError(
                    f"the selection was decided for another {kind.removesuffix('_fingerprint')} (fingerprint "
                    f"{getattr(selection, kind)}, the candidates have {getattr(self, kind)}): decide again."
                )
        place = {int(idx): row for row, idx in enumerate(self.idx)}
        missing = [d.idx for d in selection.spurious if d.idx not in place]
        if missing:
            raise SelectionError(f"the selection keeps sample {missing[0]}, which is not among the candidates.")
        rows = [place[d.idx] for d in selection.spurious]
        items = fetch(dataset, self.position[rows].tolist())
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
            heatmaps=Array2D((height, width), "float32"),
            masks=Array2D((height, width), "bool"),
            shortcut_relevance=SequenceFeature(Value("float32")),
            cluster=Value("int64"),
            image=Image(),
        )
        columns = {name: list(getattr(self, name)) for name in _ARRAYS}
        columns["image"] = [None] * len(self) if self.images is None else list(self.images)
        with atomic_folder(folder) as temporary:
            Dataset.from_dict(columns, features=features).save_to_disk(temporary)
            fields = {name: getattr(self, name) for name in _FIELDS}
            fields["unreadable"] = [asdict(bad) for bad in self.unreadable]
            fields["evidence"] = {name: score.tolist() for name, score in self.evidence.items()}
            fields["clusters"] = [asdict(cluster) for cluster in describe_clusters(self)]
            write_json(temporary / "candidates.json", {"schema": SCHEMA, **fields})
        return Path(folder)

    @classmethod
    def load(cls, folder: str | Path) -> Candidates:
        """Read what `save` wrote.

        Raises:
            SelectionError: not a candidates folder of this version.
        """
        folder = Path(folder)
        try:
            about = json.loads((folder / "candidates.json").read_text(encoding="utf-8"))
            if about.get("schema") != SCHEMA:
                raise ValueError(f"schema {about.get('schema')!r} instead of {SCHEMA!r}")
            table = Dataset.load_from_disk(str(folder)).with_format("numpy")
        except (OSError, ValueError) as error:
            raise SelectionError(f"{folder} holds no candidates ({error}): run the scan again.") from None
        arrays: dict[str, Any] = {name: np.asarray(table[name][:]) for name in _ARRAYS}
        fields: dict[str, Any] = {name: about[name] for name in _FIELDS}
        fields["class_names"] = tuple(fields["class_names"])
        fields["unreadable"] = tuple(UnreadableImage(**bad) for bad in fields["unreadable"])
        fields["evidence"] = {name: np.asarray(score) for name, score in about["evidence"].items()}
        return cls(**arrays, **fields, images=table.with_format(None)["image"])


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


def find_candidates(
    model: nn.Module,
    dataset: Any,
    *,
    dataset_fingerprint: str,
    processor: Any = None,
    layer: str = "last",
    num_candidates: int = 100,
    mask_share: float = 0.95,
    mask_area: float = 0.2,
    batch_size: int = 32,
    strict: bool = False,
    folder: str | Path | None = None,
    num_workers: int = 0,
    find_object: Callable[[np.ndarray], Tensor] | None = None,
) -> Candidates:
    """Scan, explain and mask (METHOD steps 1 to 3): what a person then decides on.

    Args:
        model: image classifier, left as it was.
        dataset: the label-free training view, or any other data set that `scan` takes.
        dataset_fingerprint: of the data set, written into the candidates.
        processor: image processor, where items carry images.
        layer: probe layer of the shortcut relevance.
        num_candidates: per class.
        mask_share, mask_area: see `relevance_mask`.
        batch_size: images per forward pass.
        strict, folder, num_workers: see `scan`.
        find_object: for a shortcut that is everything but the object. Masks are then all that is outside of what it
            finds in images (B, H, W, 3) uint8, as the model sees them: (B, H, W) bool. See `ObjectFinder`.
    """
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
        [hit for of_class in found.hits.values() for hit in of_class],
        dataset_fingerprint=dataset_fingerprint,
        processor=processor,
        layer=layer,
        mask_share=mask_share,
        mask_area=mask_area,
        batch_size=batch_size,
        find_object=find_object,
    )
    return replace(candidates, num_images=found.num_images, unreadable=tuple(found.unreadable))


def explain_hits(
    model: nn.Module,
    dataset: Any,
    hits: Sequence[ScanHit],
    *,
    dataset_fingerprint: str,
    processor: Any = None,
    layer: str = "last",
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
    own: list[tuple[int, dict[str, Tensor]]] = []
    with Explainer(model, batch_size=batch_size) as explainer:
        numbers = range(state.process_index, len(parts), state.num_processes)
        # In one go: every call reads a stream from its beginning.
        items = iter(fetch(dataset, [hit.position for number in numbers for hit in parts[number]]))
        for number in tqdm(numbers, desc="Explain", unit="batch", leave=False, disable=not state.is_main_process):
            part = parts[number]
            pixel_values = pixels_of([next(items) for _ in part], processor).to(device)
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
            found = {
                "images": torch.from_numpy(images),
                "heatmaps": original.relevance.float(),
                "masks": mask,
                "logits": original.logits.gather(1, targets[:, None])[:, 0].float(),
                "masked_margins": (masked.logits.gather(1, targets[:, None])[:, 0] - others).float(),
                "shortcut_relevance": masked.layer_relevance.clamp(min=0).sum(dim=1).float(),
            }
            own.append((number, {name: value.cpu() for name, value in found.items()}))
    explained = [arrays for _, arrays in sorted(gather_object(own), key=lambda part: part[0])]
    arrays: dict[str, Any] = {name: torch.cat([part[name] for part in explained]).numpy() for name in explained[0]}
    labels = np.array([hit.label for hit in hits], dtype=np.int64)
    seen = [PILImage.fromarray(image) for image in arrays.pop("images")]
    return Candidates(
        idx=np.array([hit.idx for hit in hits], dtype=np.int64),
        position=np.array([hit.position for hit in hits], dtype=np.int64),
        labels=labels,
        **arrays,
        cluster=cluster_candidates(labels, arrays["shortcut_relevance"]),
        images=seen,
        dataset_fingerprint=dataset_fingerprint,
        model_fingerprint=model_fingerprint(model),
        layer=probe.name,
        class_names=_class_names(model, labels),
    )


def _class_names(model: nn.Module, labels: np.ndarray) -> tuple[str, ...]:
    named = getattr(getattr(model, "config", None), "id2label", None) or {}
    count = max(len(named), int(labels.max()) + 1)
    return tuple(str(named.get(label, f"class {label}")) for label in range(count))


def model_fingerprint(model: nn.Module) -> str:
    """A short hash of all weights and buffers, names included."""
    digest = hashlib.sha256()
    for name, tensor in sorted(model.state_dict().items()):
        digest.update(name.encode())
        digest.update(tensor.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()[:16]


def make_selection(candidates: Candidates, decisions: Sequence[Decision]) -> Selection:
    """A selection about these candidates."""
    return Selection(
        decisions=tuple(decisions),
        dataset_fingerprint=candidates.dataset_fingerprint,
        model_fingerprint=candidates.model_fingerprint,
    )
