"""A made run folder whose candidates can be reviewed: grey noise with a coloured square per cluster."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
from datasets import Array2D, Dataset, Features, Image, List, Value
from PIL import Image as PILImage

from hf_score.review import CandidateTable

FINGERPRINTS = {"dataset_fingerprint": "data0", "model_fingerprint": "model0"}
COLOURS = np.array([[214, 40, 40], [30, 110, 200], [40, 160, 90], [230, 170, 30], [140, 70, 180], [40, 170, 180]])


def make_run(
    run: Path,
    rows: int = 24,
    size: int = 32,
    *,
    classes: tuple[str, ...] = ("shirt", "pullover", "coat"),
    clusters: int = 4,
    missing: tuple[int, ...] = (),
    with_image: bool = True,
    relevance_of_clusters: bool = False,
    seed: int = 0,
) -> Path:
    """Write `run/candidates` of schema 2. The last class has no candidates; every 12th one is in no cluster.

    Args:
        missing: rows whose image is None, or broken where the row is odd.
        with_image: whether there is a column `image` at all.
        relevance_of_clusters: whether each cluster has neurons of its own, or all are noise.
    """
    generator = np.random.default_rng(seed)
    cluster = np.arange(rows) % clusters
    label = cluster % (len(classes) - 1)
    cluster = np.where(np.arange(rows) % 12 == 11, -1, cluster)
    side = max(4, size // 4)
    grid = np.arange(size) / size
    texture = 110 + 60 * np.sin(9 * grid[:, None] + 4 * grid[None]) * np.cos(7 * grid[None])
    top, left = generator.integers(0, size - side, (2, rows))

    def image(row: int) -> PILImage.Image | bytes | None:
        if row in missing:
            return {"bytes": b"no image", "path": None} if row % 2 else None
        pixels = texture[..., None] + generator.normal(0, 12, (size, size, 1)) + np.zeros(3)
        pixels[top[row] : top[row] + side, left[row] : left[row] + side] = COLOURS[cluster[row] % len(COLOURS)]
        return PILImage.fromarray(pixels.clip(0, 255).astype(np.uint8))

    def relevance(row: int) -> np.ndarray:
        if not relevance_of_clusters:
            return generator.random(8).astype(np.float32)
        return (np.repeat(np.arange(clusters) == cluster[row], 4) + 0.1 * generator.random(4 * clusters)).astype(
            np.float32
        )

    def record(row: int) -> dict:
        square = np.zeros((size, size), dtype=bool)
        square[top[row] : top[row] + side, left[row] : left[row] + side] = True
        return {
            "idx": 1000 + row,
            "position": row,
            "labels": int(label[row]),
            "logits": 12 - 8 * row / rows,
            "masked_margins": generator.normal(1, 1),
            "heatmaps": generator.normal(0, 0.15, (size, size)).astype(np.float32) + square,
            "masks": square,
            "shortcut_relevance": relevance(row),
            "cluster": int(cluster[row]),
            **({"image": image(row)} if with_image else {}),
        }

    features = Features(
        idx=Value("int64"),
        position=Value("int64"),
        labels=Value("int64"),
        logits=Value("float32"),
        masked_margins=Value("float32"),
        heatmaps=Array2D((size, size), "float32"),
        masks=Array2D((size, size), "bool"),
        shortcut_relevance=List(Value("float32")),
        cluster=Value("int64"),
        **({"image": Image()} if with_image else {}),
    )
    folder = run / "candidates"
    records = [record(row) for row in range(rows)]
    Dataset.from_dict({name: [one[name] for one in records] for name in features}, features).save_to_disk(folder)
    members = {k: np.flatnonzero(cluster == k) for k in range(clusters)}
    about = {
        "schema": "hf-score/candidates/2",
        **FINGERPRINTS,
        "layer": "layer4",
        "class_names": list(classes),
        "clusters": [
            {
                "cluster": k,
                "label": k % (len(classes) - 1),
                "size": len(rows_of),
                "suspicion": None if k == 0 else round(0.9 / k, 2),
                "typical": rows_of[::-1][:8].tolist(),
                "evidence": {"position": round(0.9 / (k + 1), 2), "colour": 0.7, "masked_alone": 0.55},
                "neurons": [
                    {"neuron": 3 * k + j, "share": 0.4 - 0.1 * j, "rows": rows_of[j : j + 8].tolist()}
                    for j in range(3)
                ],
            }
            for k, rows_of in members.items()
        ],
    }
    about |= {"num_images": rows, "unreadable": [], "evidence": {}}
    (folder / "candidates.json").write_text(json.dumps(about))
    if rows:
        write_map(run, cluster, generator)
    return run


def write_map(run: Path, cluster: np.ndarray, generator: np.random.Generator) -> None:
    """What `lay_out` would take long for."""
    neurons = np.arange(3 * (cluster.max() + 1))

    def around(centre: np.ndarray, spread: float) -> np.ndarray:
        angles = np.stack([np.cos(2.4 * centre), np.sin(2.4 * centre)], axis=1)
        return 4 * angles + generator.normal(0, spread, (len(centre), 2))

    placed = around(neurons // 3, 0.5)
    content = {
        "key": CandidateTable.open(run).key,
        "candidates": around(cluster, 0.6).tolist(),
        "neurons": {
            "neuron": neurons.tolist(),
            "x": placed[:, 0].tolist(),
            "y": placed[:, 1].tolist(),
            "cluster": (neurons // 3).tolist(),
        },
    }
    (run / "map.json").write_text(json.dumps(content))
