"""Regions put into images and taken out of them: what may change, and what may not."""

import numpy as np
import pytest
import torch

from hf_score.data.blending import ERASING, PASTING, erase, harmonic_fill, paste


@pytest.fixture(scope="module")
def pictures():
    """Two batches of smooth noise, and masks of which one touches the border and one has two parts."""
    generator = torch.Generator().manual_seed(0)
    one, other = (
        torch.nn.functional.interpolate(torch.randn(3, 3, 6, 6, generator=generator), size=(30, 26), mode="bicubic")
        for _ in range(2)
    )
    masks = torch.zeros(3, 30, 26, dtype=torch.bool)
    masks[0, 8:16, 9:20] = True
    masks[1, :7, 20:] = True
    masks[2, 4:9, 4:9] = masks[2, 20:25, 12:22] = True
    return one, other, masks


@pytest.mark.parametrize("how", PASTING)
def test_a_region_of_the_same_image_changes_nothing(pictures, how):
    one, _, masks = pictures
    torch.testing.assert_close(paste(one, masks, one, how=how), one)


@pytest.mark.parametrize("how", ["cut", "outlined", "seamless"])
def test_outside_the_mask_nothing_changes(pictures, how):
    one, other, masks = pictures
    outside = ~masks[:, None].expand_as(one)
    assert torch.equal(paste(one, masks, other, how=how)[outside], other[outside])
    assert not torch.equal(paste(one, masks, other, how=how), other)


def test_a_cut_shows_the_one_inside_and_the_other_outside(pictures):
    one, other, masks = pictures
    assert torch.equal(paste(one, masks, other, how="cut"), torch.where(masks[:, None], one, other))


def test_nothing_stands_out_of_a_region_that_goes_on_like_its_surroundings(pictures):
    _, other, masks = pictures
    flat = torch.full_like(other, 0.7)
    torch.testing.assert_close(paste(flat, masks, other, how="outlined"), other)


def test_a_seamless_region_has_no_step_where_a_cut_has_one(pictures):
    one, other, masks = pictures
    brighter = one + 3

    def step(made):
        return float((made[0, :, 8, 9:20] - made[0, :, 7, 9:20]).abs().mean())

    assert step(paste(brighter, masks, other, how="cut")) > 5 * step(paste(brighter, masks, other, how="seamless"))


@pytest.mark.parametrize("how", ERASING)
def test_a_mark_inside_is_gone_and_the_rest_stays(pictures, how):
    one, other, masks = pictures
    marked = one.clone()
    marked[0, :, 11:13, 14:16] += 50
    erased = erase(marked, masks, other, how=how)
    assert (erased[0, :, 11:13, 14:16] - one[0, :, 11:13, 14:16]).abs().max() < 10
    assert torch.equal(erased[0, :, :5], one[0, :, :5])


def test_a_fill_is_nearly_the_solution_of_laplaces_equation(pictures):
    one, _, masks = pictures
    filled, mask, values = harmonic_fill(one, masks)[0, 0].numpy(), masks[0].numpy(), one[0, 0].numpy()
    cells = [tuple(cell) for cell in np.argwhere(mask)]
    matrix, right = np.eye(len(cells)), np.zeros(len(cells))
    for row, (y, x) in enumerate(cells):
        for near in ((y - 1, x), (y + 1, x), (y, x - 1), (y, x + 1)):
            if mask[near]:
                matrix[row, cells.index(near)] -= 0.25
            else:
                right[row] += values[near] / 4
    exact = np.linalg.solve(matrix, right)
    found = np.array([filled[cell] for cell in cells])
    edge = np.array([values[7, 9:20], values[16, 9:20]]).mean()
    assert np.abs(found - exact).mean() < 0.1 * np.abs(edge - exact).mean()


def test_each_picture_is_its_own_whatever_lies_beside_it(pictures):
    one, other, masks = pictures
    for how in PASTING:
        alone = torch.cat([paste(one[i : i + 1], masks[i : i + 1], other[i : i + 1], how=how) for i in range(3)])
        torch.testing.assert_close(paste(one, masks, other, how=how), alone)


def test_a_region_of_everything_or_nothing(pictures):
    one, other, masks = pictures
    for how in PASTING:
        assert paste(one, torch.ones_like(masks), other, how=how).isfinite().all()
        torch.testing.assert_close(paste(one, torch.zeros_like(masks), other, how=how), other)
    assert torch.equal(harmonic_fill(one, torch.zeros_like(masks)), one)
