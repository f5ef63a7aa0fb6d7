"""Label-free estimates, on models whose answers are known by construction: one reads the corner, the other the object."""

import pytest
import torch
from tiny import square_images, square_samples
from torch import nn
from transformers.modeling_outputs import ImageClassifierOutput

from hf_score.data.blending import ERASING, PASTING, erase, harmonic_fill, paste
from hf_score.data.exchange import OtherClassPartners
from hf_score.evaluation import ESTIMATES, Estimates

OBJECT = (slice(16, 24), slice(16, 24))


class Reader(nn.Module):
    """Class 1 where the mean of one part of the image is above 0.5; with `afraid_of_edges`, where it has an edge."""

    def __init__(self, rows: slice, columns: slice, *, afraid_of_edges: bool = False) -> None:
        super().__init__()
        self.rows, self.columns, self.afraid_of_edges = rows, columns, afraid_of_edges

    def forward(self, pixel_values):
        score = pixel_values[:, :, self.rows, self.columns].mean(dim=(1, 2, 3)) - 0.5
        if self.afraid_of_edges:  # of a cut of noise: class 1 where rows 7 and 8 differ as they do in no image
            edge = (pixel_values[:, 0, 8, :8] - pixel_values[:, 0, 7, :8]).abs().mean(dim=1)
            score = torch.where(edge > 0.25, torch.ones_like(score), score)
        return ImageClassifierOutput(logits=torch.stack([-score, score], dim=1))


BY_CORNER, BY_OBJECT = Reader(slice(0, 8), slice(0, 8)), Reader(*OBJECT)


def collate(items):
    return {
        "pixel_values": torch.stack([torch.as_tensor(item["pixel_values"]) for item in items]),
        "labels": torch.stack([torch.as_tensor(item["labels"]) for item in items]),
    }


def estimates(**options):
    data, chosen = square_images(40, seed=3), square_samples(12)
    data.pixel_values[data.labels == 1, :, *OBJECT] += 2  # class 1 has an object in the middle too
    chosen.pixel_values[:, :, *OBJECT] += 2
    partners = OtherClassPartners(data, data.labels.tolist(), collate, seed=0)
    return Estimates(chosen, partners, device="cpu", **options)


def test_a_model_that_ignores_the_region_has_1_and_one_that_sees_it_alone_has_0():
    assert estimates()(BY_OBJECT) == dict.fromkeys(ESTIMATES, 1.0)
    assert estimates()(BY_CORNER) == dict.fromkeys(ESTIMATES, 0.0)


def test_the_same_in_batches_of_any_size_and_again():
    of_all, one_by_one = estimates(batch_size=64), estimates(batch_size=5)
    torch.manual_seed(0)
    model = Linear()
    first = of_all(model)
    assert first == one_by_one(model) == of_all(model)
    assert any(0 < value < 1 for value in first.values())


class Linear(nn.Module):
    """Random weights: right by chance."""

    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Linear(3 * 32 * 32, 2)

    def forward(self, pixel_values):
        return ImageClassifierOutput(logits=self.head(pixel_values.flatten(1)))
