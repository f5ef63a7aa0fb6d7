"""Label-free estimates, on models whose answers are known: one reads the corner, the other the object."""

import dataclasses

import pytest
import torch
from tiny import square_images, square_samples
from torch import nn
from transformers.modeling_outputs import ImageClassifierOutput

from hf_score.data import ImageCollator
from hf_score.data.exchange import OtherClassPartners
from hf_score.errors import HFScoreError
from hf_score.evaluation import ESTIMATES, SELECTION, Estimates

OBJECT = (slice(16, 24), slice(16, 24))


class Reader(nn.Module):
    """Class 1 where the mean of one part of the image is above 0.5; what it makes of strong edges, `by_edge` says."""

    def __init__(self, rows: slice, columns: slice, *, by_edge: bool = False) -> None:
        super().__init__()
        self.rows, self.columns, self.by_edge = rows, columns, by_edge

    def forward(self, pixel_values):
        score = pixel_values[:, :, self.rows, self.columns].mean(dim=(1, 2, 3)) - 0.5
        if self.by_edge:
            edge = (pixel_values[:, :, 8, :8] - pixel_values[:, :, 7, :8]).mean(dim=(1, 2)).abs()
            score = torch.where(edge > 0.5, -score, score)
        return ImageClassifierOutput(logits=torch.stack([-score, score], dim=1))


class Linear(nn.Module):
    """Random weights: right by chance."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.head = nn.Linear(3 * 32 * 32, 2)

    def forward(self, pixel_values):
        return ImageClassifierOutput(logits=self.head(pixel_values.flatten(1)))


def estimates(change=lambda pixel_values: None, **options):
    data, chosen = square_images(40, seed=3), square_samples(12)
    data.pixel_values[data.labels == 1, :, *OBJECT] += 2  # class 1 has an object in the middle too
    chosen.pixel_values[:, :, *OBJECT] += 2
    for pixel_values in (data.pixel_values, chosen.pixel_values):
        change(pixel_values)
    partners = OtherClassPartners(data, data.labels.tolist(), ImageCollator(), seed=0)
    return Estimates(chosen, partners, device="cpu", **options)


def test_a_model_that_ignores_the_region_has_1_and_one_that_sees_it_alone_has_0():
    assert estimates()(Reader(*OBJECT)) == dict.fromkeys(ESTIMATES, 1.0)
    assert estimates()(Reader(slice(0, 8), slice(0, 8))) == dict.fromkeys(ESTIMATES, 0.0)


def test_the_same_in_batches_of_any_size_and_again():
    names = ("cut", SELECTION, "outlined_own", "filled_moved")
    many, few = estimates(batch_size=64, names=names), estimates(batch_size=21, names=names)
    first = many(Linear())
    assert first == few(Linear()) == many(Linear())
    assert any(0 < value < 1 for value in first.values())


def test_each_alone_is_what_it_is_beside_the_others():
    of_all = estimates()(Linear())
    for name in ("cut", SELECTION, "filled_own"):
        assert estimates(names=(name,))(Linear()) == {name: of_all[name]}


def shaded(pixel_values):
    """No square in the corner, and every image of a brightness of its own, so that what is cut out of it shows."""
    generator = torch.Generator().manual_seed(len(pixel_values))
    pixel_values[:, :, :8, :8] = 0.1 * torch.randn(pixel_values[:, :, :8, :8].shape, generator=generator)
    pixel_values[:, :, :, :8] += torch.linspace(-1, 1, len(pixel_values))[:, None, None, None]


def test_what_an_edge_alone_does_is_no_fault_of_the_region():
    """There is no shortcut here, but a model that errs where it sees a cut."""
    found = estimates(shaded)(Reader(*OBJECT, by_edge=True))
    assert found["cut"] < 0.8 < 0.95 < found["seamless"]
    assert found["cut_own"] > found["cut"]


def test_masks_of_most_of_the_image_are_not_moved():
    data, chosen = square_images(20), square_samples(4)
    partners = OtherClassPartners(data, data.labels.tolist(), ImageCollator(), seed=0)
    around = dataclasses.replace(chosen, masks=~chosen.masks)
    found = Estimates(around, partners, device="cpu")(Linear())
    assert found["cut_moved"] == found["cut_own"]


def test_what_cannot_be_estimated_is_refused():
    with pytest.raises(HFScoreError, match="no estimate 'best'"):
        estimates(names=("best",))
    partners = OtherClassPartners(data := square_images(8), data.labels.tolist(), ImageCollator(), seed=0)
    with pytest.raises(HFScoreError, match="no samples"):
        Estimates(square_samples(4)[:0], partners, device="cpu")


def test_the_model_stays_as_it_was():
    model = nn.Sequential(Linear())
    model.train()
    estimates(names=("cut",))(model[0])
    assert all(module.training for module in model.modules())
