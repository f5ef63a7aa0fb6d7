"""Probes are functions of an image and its seed; a placebo changes as much and shows nothing."""

import numpy as np
import pytest
import torch

from hf_score.audit import PROBES
from hf_score.audit.probes import blurred, bordered, brightened, scrambled, stickered, tinted

MARKS = [probe for probe in PROBES.values() if not probe.is_mirrored]
MIRRORED = [probe for probe in PROBES.values() if probe.is_mirrored]
IMAGES = torch.rand(4, 3, 40, 48, generator=torch.Generator().manual_seed(0)) * 0.6 + 0.2
SEEDS = [3, 14, 15, 92]


@pytest.mark.parametrize("probe", PROBES.values(), ids=list(PROBES))
def test_a_probe_depends_on_each_image_and_its_seed_alone(probe):
    before = IMAGES.clone()
    for change in (probe.change, probe.placebo):
        together = change(IMAGES, SEEDS)
        assert together.shape == IMAGES.shape and together.min() >= 0 and together.max() <= 1
        alone = torch.cat([change(IMAGES[i : i + 1], SEEDS[i : i + 1]) for i in (2, 0)])
        torch.testing.assert_close(together[[2, 0]], alone)
        assert (together != IMAGES).flatten(1).any(1).all()
    assert torch.equal(IMAGES, before)


@pytest.mark.parametrize("probe", MARKS, ids=lambda probe: probe.name)
def test_the_placebo_of_a_mark_changes_as_many_pixels_and_keeps_its_colours_out(probe):
    changed, placebo = (
        (change(IMAGES, SEEDS) != IMAGES).any(1).flatten(1).sum(1) for change in (probe.change, probe.placebo)
    )
    assert 0.01 < changed.float().mean() / (40 * 48) < 0.5
    torch.testing.assert_close(placebo.float(), changed.float(), rtol=0.02, atol=2)  # a pixel may meet its equal
    # what a placebo shows are pixels of the image itself, or halfway between two of them
    assert probe.placebo(IMAGES, SEEDS).max() <= IMAGES.max() + 1e-6


def test_a_scrambled_mark_is_moved_and_shows_the_images_own_pixels():
    masks, colours = scrambled(IMAGES, bordered(IMAGES, SEEDS)[0], SEEDS)
    assert torch.equal(masks.sum((1, 2)), bordered(IMAGES, SEEDS)[0].sum((1, 2)))
    for image, mixed in zip(IMAGES, colours, strict=True):
        assert torch.equal(mixed.flatten(1).sort(1).values, image.flatten(1).sort(1).values)
        pixels = {tuple(p) for p in image.flatten(1).T.tolist()}
        assert {tuple(p) for p in mixed.flatten(1).T.tolist()} == pixels  # colours stay whole


def test_a_sticker_is_a_square_of_its_colour_in_a_corner():
    masks, _ = stickered(IMAGES, range(4), colour=(1, 0, 0))
    corners = set()
    for mask in masks:
        rows, columns = np.nonzero(mask.numpy())
        side = round(48 * 0.2)
        assert len(rows) == side**2 and np.ptp(rows) == np.ptp(columns) == side - 1
        corners.add((rows[0] > 20, columns[0] > 20))
    assert len(corners) > 1


@pytest.mark.parametrize("channel", [0, 1, 2])
def test_a_tint_keeps_the_brightness_and_has_an_opposite(channel):
    more, less = tinted(IMAGES, channel=channel), tinted(IMAGES, channel=channel, strength=-0.15)
    torch.testing.assert_close(more.mean(1), IMAGES.mean(1))
    torch.testing.assert_close(more - IMAGES, IMAGES - less)
    assert (more[:, channel] > IMAGES[:, channel]).all()


def test_blur_and_light_have_opposites():
    soft, sharp = blurred(IMAGES), blurred(IMAGES, strength=-1.0)
    assert soft.std() < IMAGES.std() < sharp.std()
    torch.testing.assert_close(brightened(brightened(IMAGES), strength=-0.2), IMAGES)


@pytest.mark.parametrize("probe", PROBES.values(), ids=list(PROBES))
def test_an_image_with_a_probe_looks_more_like_it_than_one_without(probe):
    with_it, without = probe.presence(probe.change(IMAGES, range(4))), probe.presence(IMAGES)
    assert with_it.shape == (4,) and (with_it > without).all()
    if probe.is_mirrored:
        assert (without > probe.presence(probe.placebo(IMAGES, range(4)))).all()
