import torch
from tiny import square_samples


def test_moved_masks_keep_their_size_and_leave_their_place():
    samples = square_samples(8)
    moved = samples.move_masks(seed=0)
    assert torch.equal(moved.masks.sum(dim=(1, 2)), samples.masks.sum(dim=(1, 2)))
    assert (moved.masks & samples.masks).sum() < 0.3 * samples.masks.sum()
    assert torch.equal(moved.pixel_values, samples.pixel_values)
    assert torch.equal(moved.masks, samples.move_masks(seed=0).masks)
