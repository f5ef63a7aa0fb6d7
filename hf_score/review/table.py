"""A run's candidates as the review page reads them: small columns at once, pictures one row at a time."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypedDict

import numpy as np
from datasets import Dataset, Image
from PIL import Image as PILImage

from ..data.decode import open_image
from ..detection.candidates import ClusterRecord, read_about
from ..detection.packed import PackedArrays, maps_of
from ..errors import SelectionError, first_line
from ..files import read_json

__all__ = ["CandidateCluster", "CandidateTable"]


@dataclass(frozen=True)
class CandidateCluster:
    """Candidates that are looked at together: one cluster, or those of a class that are in none.

    Attributes:
        number: which cluster of the scan; -1 for the candidates of the class that are in no cluster.
        label: class.
        rows: rows of the table, in its order.
        typical: the same rows, those nearest to the middle of the cluster first.
        suspicion: how much speaks for a shortcut, in [0, 1]; None where it was not measured.
        evidence: what the suspicion was made of, name to value.
        neurons: dicts of `neuron`, `share` and `rows`, where the neuron is most active.
    """

    number: int
    label: int
    rows: list[int]
    typical: list[int]
    suspicion: float | None
    evidence: dict[str, float]
    neurons: list[dict[str, Any]]


@dataclass(frozen=True)
class CandidateTable:
    """The candidates of one run. Nothing of the size of an image is read before it is asked for.

    Attributes:
        run: the run folder.
        idx, labels, logits, masked_margins, cluster: (n,), see `hf_score.detection.Candidates`.
        embedding: (n, 2) float32, NaN before `lay_out`.
        clusters: most suspicious first, then by size; those without a cluster last.
        class_names, layer, dataset_fingerprint, model_fingerprint: what the candidates were made from.
        originals: file name, width and height of the image behind each row; empty where the scan did not know.
        neuron_embedding: columns `neuron`, `x`, `y`, `cluster`, or None before `lay_out`.
        key: changes when the candidates do, so that a browser keeps no picture of others.
    """

    run: Path
    idx: np.ndarray
    labels: np.ndarray
    logits: np.ndarray
    masked_margins: np.ndarray
    cluster: np.ndarray
    embedding: np.ndarray
    clusters: list[CandidateCluster]
    class_names: list[str]
    layer: str
    dataset_fingerprint: str
    model_fingerprint: str
    originals: list[tuple[str, int, int]]
    neuron_embedding: dict[str, list[Any]] | None
    key: str
    _images: Dataset | None
    _heatmaps: PackedArrays
    _masks: PackedArrays

    @classmethod
    def open(cls, run: str | Path) -> CandidateTable:
        """Open `run/candidates`.

        Raises:
            SelectionError: there are no candidates, or they are of another version of hf-score.
        """
        run = Path(run)
        folder = run / "candidates"
        about_file = folder / "candidates.json"
        if not about_file.is_file():
            raise SelectionError(_where_instead(run))
        try:
            content, about = about_file.read_bytes(), read_about(folder)
            # A table without rows is saved without files, which datasets cannot load.
            if not json.loads((folder / "state.json").read_text())["_data_files"]:
                raise SelectionError(f"{folder} is empty, so there is nothing to judge: scan with more candidates.")
            table = Dataset.load_from_disk(str(folder))
            cluster = _column(table, "cluster", np.full(len(table), -1))
            key = hashlib.sha256(content + str(about_file.stat().st_mtime_ns).encode()).hexdigest()[:12]
            embedding, neurons = _maps_of(run, key, len(table))
            labels = _column(table, "labels")
            heatmaps, masks = maps_of(table, about.get("shape"))
            return cls(
                run=run,
                idx=_column(table, "idx"),
                labels=labels,
                logits=_column(table, "logits"),
                masked_margins=_column(table, "masked_margins"),
                cluster=cluster,
                embedding=embedding,
                clusters=_clusters(cluster, labels, about["clusters"]),
                class_names=list(about["class_names"]),
                layer=about["layer"],
                dataset_fingerprint=about["dataset_fingerprint"],
                model_fingerprint=about["model_fingerprint"],
                originals=_originals(about.get("originals", ()), len(table)),
                neuron_embedding=neurons,
                key=key,
                _images=_undecoded(table),
                _heatmaps=heatmaps,
                _masks=masks,
            )
        except SelectionError:
            raise
        except Exception as error:  # pyarrow and datasets raise whatever they like on broken files
            raise SelectionError(f"{folder} cannot be read ({first_line(error)}): run the scan again.") from None

    def __len__(self) -> int:
        return len(self.idx)

    def name(self, label: int) -> str:
        """The name of a class."""
        return self.class_names[label] if 0 <= label < len(self.class_names) else f"class {label}"

    def image(self, row: int) -> PILImage.Image | None:
        """The image as the model sees it, in RGB; None where it is missing or cannot be decoded.

        A scan puts the images into the table. A table that names files instead is not of a scan, and could name any.
        """
        if self._images is None:
            return None
        try:
            return open_image(self._images[row]["image"]["bytes"])
        except Exception:  # decoders raise whatever they like on a broken file
            return None

    def maps(self, row: int) -> tuple[np.ndarray, np.ndarray]:
        """Heatmap (H, W) float32 and mask (H, W) bool."""
        return self._heatmaps[row], self._masks[row]


def _where_instead(run: Path) -> str:
    seeds = sorted(path.parent.parent for path in run.glob("seed-*/candidates/candidates.json"))
    if seeds:
        return f"{run} holds one run per seed: give one of them, such as {seeds[0]}."
    return f"{run} holds no candidates: give the --output_dir of a run that has been scanned (hf-score scan)."


def _column(table: Dataset, name: str, missing: np.ndarray | None = None) -> np.ndarray:
    if name not in table.column_names and missing is not None:
        return missing
    return np.asarray(table.data.column(name).to_numpy())


class _Map(TypedDict):
    key: str
    candidates: list[tuple[float, float]]
    neurons: dict[str, list[Any]] | None


def _maps_of(run: Path, key: str, count: int) -> tuple[np.ndarray, dict[str, list[Any]] | None]:
    """The maps of these candidates, (count, 2) and the neurons' columns; NaN and None where there are none yet."""
    nowhere = np.full((count, 2), np.nan, np.float32)
    try:
        content = read_json(run / "map.json", _Map, what="map", advice="it is made anew", error=SelectionError)
    except SelectionError:
        return nowhere, None
    if content["key"] != key or len(content["candidates"]) != count:
        return nowhere, None
    return np.asarray(content["candidates"], np.float32), content["neurons"]


def _undecoded(table: Dataset) -> Dataset | None:
    if not isinstance(table.features.get("image"), Image):
        return None
    return table.select_columns(["image"]).cast_column("image", Image(decode=False))


def _originals(about: Sequence[tuple[str, int, int]], count: int) -> list[tuple[str, int, int]]:
    return list(about) if len(about) == count else []


def _clusters(cluster: np.ndarray, labels: np.ndarray, about: list[ClusterRecord]) -> list[CandidateCluster]:
    known = {one["cluster"]: one for one in about}
    # A cluster holds one class; the label is part of the key for the candidates that are in none (-1).
    keys, member = np.unique(np.stack([cluster, labels]), axis=1, return_inverse=True)
    rows_of = np.split(np.argsort(member.reshape(-1), kind="stable"), np.bincount(member.reshape(-1)).cumsum()[:-1])
    clusters = []
    for (number, label), members in zip(keys.T, rows_of, strict=True):
        rows = members.tolist()
        one: Mapping[str, Any] = known.get(int(number), {}) if number >= 0 else {}
        suspicion = one.get("suspicion")
        typical = [row for row in one.get("typical") or () if row < len(labels)]
        first = set(typical)
        clusters.append(
            CandidateCluster(
                number=int(number),
                label=int(label),
                rows=rows,
                typical=[*typical, *(row for row in rows if row not in first)],
                suspicion=suspicion if suspicion is not None and math.isfinite(suspicion) else None,
                evidence=dict(one.get("evidence") or {}),
                neurons=[
                    {**neuron, "rows": [row for row in neuron["rows"] if row < len(labels)]}
                    for neuron in one.get("neurons") or ()
                ],
            )
        )
    return sorted(
        clusters, key=lambda c: (c.number < 0, c.suspicion is None, -(c.suspicion or 0.0), -len(c.rows), c.number)
    )
