"""Models and images with a shortcut that is known: linear ones, so that what they go by can be read off them."""

import numpy as np
import torch
from torch import nn

from hf_score.data import PixelDataset
from hf_score.detection import Candidates


class Reading(nn.Module):
    """Logits of two classes: 0 has a blue lower half, 1 a green one; `shortcut` is how much a red upper left corner
    counts for class 1 too.
    """

    def __init__(self, shortcut: float) -> None:
        super().__init__()
        self.shortcut = nn.Parameter(torch.tensor(shortcut))

    def forward(self, pixel_values):
        lower = pixel_values[:, :, 16:].mean((2, 3))
        corner = pixel_values[:, :, :9, :9]
        red = (corner[:, 0] - corner[:, 1:].mean(1)).mean((1, 2))
        margin = 4 * (lower[:, 1] - lower[:, 2]) + self.shortcut * red
        return _Outputs(torch.stack([-margin, margin], dim=1))


class _Outputs:
    def __init__(self, logits):
        self.logits = logits


def images(count: int, *, seed: int = 0, red: bool = False) -> PixelDataset:
    """Noise with a blue or a green lower half; where `red`, images of class 1 have a red corner."""
    generator = torch.Generator().manual_seed(seed)
    pixel_values = torch.rand(count, 3, 32, 32, generator=generator) * 0.3 + 0.2
    labels = torch.arange(count) % 2
    pixel_values[labels == 0, 2, 16:] += 0.45
    pixel_values[labels == 1, 1, 16:] += 0.45
    if red:
        pixel_values[labels == 1, 0, :9, :9] = 1.0
        pixel_values[labels == 1, 1:, :9, :9] = 0.0
    return PixelDataset(pixel_values=pixel_values, labels=labels, idx=torch.arange(count))


def candidates(dataset: PixelDataset, regions: dict[int, tuple[slice, slice]]) -> Candidates:
    """All images of class 1, in clusters in turn, each cluster with its region as mask."""
    rows = np.flatnonzero(dataset.labels.numpy() == 1)
    cluster = np.array([sorted(regions)[n % len(regions)] for n in range(len(rows))])
    masks = np.zeros((len(rows), 32, 32), dtype=bool)
    for mask, number in zip(masks, cluster, strict=True):
        mask[regions[int(number)]] = True
    return Candidates(
        idx=rows,
        position=rows,
        labels=np.ones(len(rows), dtype=np.int64),
        logits=np.ones(len(rows)),
        masked_margins=np.ones(len(rows)),
        heatmaps=masks.astype(np.float32),
        masks=masks,
        shortcut_relevance=np.ones((len(rows), 2), dtype=np.float32),
        cluster=cluster,
        dataset_fingerprint="data",
        model_fingerprint="model",
        layer="last",
        class_names=("blue", "green"),
    )
