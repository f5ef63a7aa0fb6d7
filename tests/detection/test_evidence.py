"""A model that looks at one corner for red: what is known about its candidates is by construction."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import nn

from hf_score.data import ImageCollator, PixelDataset
from hf_score.data.exchange import OtherClassPartners
from hf_score.detection import Candidates, decide_by_proposal, hue_contrast, suspicion, transfer


class RedCorner(nn.Module):
    """Logit 1 is the redness of the top left corner; logit 0 is 0."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(1))

    def forward(self, pixel_values: torch.Tensor) -> SimpleNamespace:
        corner = pixel_values[:, :, :8, :8].mean(dim=(2, 3))
        red = self.weight * (corner[:, 0] - corner[:, 1:].mean(dim=1))
        return SimpleNamespace(logits=torch.stack([torch.zeros_like(red), red], dim=1))


@pytest.fixture
def images() -> PixelDataset:
    """32 grey noise images of 32 px; the even ones of class 1 carry a red square in the corner."""
    generator = torch.Generator().manual_seed(0)
    pixels = (torch.randn(32, 1, 32, 32, generator=generator) * 0.3).repeat(1, 3, 1, 1)
    labels = torch.arange(32) // 16
    pixels[16::2, 0, :8, :8] += 2.0
    return PixelDataset(pixels, labels, torch.arange(32) + 100)


@pytest.fixture
def candidates(images) -> Candidates:
    """All images; masks on the square where there is one, on grey noise in the middle otherwise."""
    masks = np.zeros((32, 32, 32), dtype=bool)
    masks[:, 12:20, 12:20] = True
    masks[16::2] = False
    masks[16::2, :8, :8] = True
    return Candidates(
        idx=images.idx.numpy(),
        position=np.arange(32),
        labels=images.labels.numpy(),
        logits=np.zeros(32, dtype=np.float32),
        masked_margins=np.zeros(32, dtype=np.float32),
        heatmaps=masks.astype(np.float32),
        masks=masks,
        shortcut_relevance=np.zeros((32, 4), dtype=np.float32),
        cluster=np.zeros(32, dtype=np.int64),
        dataset_fingerprint="data",
        model_fingerprint="model",
        layer="last",
    )


SQUARES = np.arange(32) >= 16
SQUARES[17::2] = False


def partners_of(images: PixelDataset) -> OtherClassPartners:
    return OtherClassPartners(images, images.labels.tolist(), ImageCollator(None), seed=0)


def test_a_region_that_is_evidence_in_any_image_transfers_and_another_changes_nothing(images, candidates):
    scores = transfer(candidates, RedCorner(), images, partners_of(images))
    assert scores[SQUARES] == pytest.approx(2.0, abs=1e-5)
    assert scores[~SQUARES] == pytest.approx(0.0, abs=1e-6)


def test_transfer_does_not_depend_on_the_batch_size_and_leaves_the_model_as_it_was(images, candidates):
    model = RedCorner().train()
    partners = partners_of(images)
    scores = [
        transfer(candidates, model, images, partners, num_partners=3, batch_size=size) for size in (1, 7, 64, 64)
    ]
    for other in scores[1:]:
        np.testing.assert_allclose(scores[0], other, atol=1e-6)
    np.testing.assert_array_equal(scores[2], scores[3])
    assert model.training and model.weight.grad is None


def test_hue_contrast_is_the_distance_of_mean_colours_whatever_the_brightness(images, candidates):
    images.pixel_values[:, :, 12:20, 12:20] += 3.0
    scores = hue_contrast(candidates, images, batch_size=5)
    assert scores[SQUARES] == pytest.approx(2.0 * (2 / 3) ** 0.5, abs=1e-5)  # of (2, 0, 0) less its mean
    assert scores[~SQUARES] == pytest.approx(0.0, abs=1e-5)
    np.testing.assert_allclose(scores, hue_contrast(candidates, images), atol=1e-6)


@pytest.mark.parametrize("everything", [False, True])
def test_hue_contrast_without_an_inside_or_an_outside_is_zero(images, candidates, everything):
    candidates.masks[:] = everything
    assert (hue_contrast(candidates, images) == 0).all()


def test_suspicion_puts_first_what_all_scores_put_first():
    found = suspicion({"one": np.array([0.0, 1.0, 2.0]), "other": np.array([-5.0, -5.0, 100.0])})
    assert found == pytest.approx([0.125, 0.375, 1.0])
    assert suspicion({"one": np.array([3.0])}) == pytest.approx([0.0])


def test_the_proposal_is_the_squares_and_says_why(images, candidates):
    evidence = {
        "transfer": transfer(candidates, RedCorner(), images, partners_of(images)),
        "hue": hue_contrast(candidates, images),
    }
    found = suspicion(evidence)
    selection = decide_by_proposal(candidates, found, threshold=0.7, evidence=evidence)
    assert [d.idx for d in selection.spurious] == (np.flatnonzero(SQUARES) + 100).tolist()
    assert {d.verdict for d in selection.decisions} == {"spurious", "unsure"}
    assert selection.decided_by == "proposal" and "transfer 2.00, hue 1.63" in selection.spurious[0].note
    most = decide_by_proposal(candidates, found, num_keep=3, threshold=0.0)
    assert most.counts(["plain", "red"]) == {"plain": 3, "red": 3}
