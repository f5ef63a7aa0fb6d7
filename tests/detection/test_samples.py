import pytest
import torch
from tiny import square_images, square_samples

from hf_score import HFScoreError
from hf_score.data import ImageCollator
from hf_score.detection import HostImages, OwnClassImages, exchange_regions


def hosts_of(labels, seed=0) -> HostImages:
    images = square_images(len(labels))
    images = type(images)(images.pixel_values, torch.as_tensor(labels), images.idx)
    return HostImages(images, labels, ImageCollator(None), seed=seed)


def test_exchanged_images_equal_their_definition_pixel_by_pixel():
    samples = square_samples(3)
    hosts, host_labels = torch.randn(3, 3, 32, 32), torch.tensor([0, 0, 0])
    pairs = exchange_regions(samples, hosts, host_labels)
    for n in range(3):
        for y, x in ((0, 0), (7, 7), (8, 8), (31, 0)):
            inside = bool(samples.masks[n, y, x])
            sample, host = samples.pixel_values[n, :, y, x], hosts[n, :, y, x]
            assert torch.equal(pairs.without_region[n, :, y, x], host if inside else sample)
            assert torch.equal(pairs.with_region[3 + n, :, y, x], sample if inside else host)
    assert torch.equal(pairs.with_region[:3], samples.pixel_values) and torch.equal(pairs.without_region[3:], hosts)
    assert pairs.labels.tolist() == [1, 1, 1, 0, 0, 0] and pairs.shortcut_labels.tolist() == [1] * 6
    copies = pairs.counterfactuals(pairs.with_region, pairs.without_region)
    assert torch.equal(copies, torch.cat([pairs.without_region[:3], pairs.with_region[3:]]))


def test_hosts_are_of_other_classes_each_equally_often():
    hosts = hosts_of([0] * 90 + [1] * 9 + [2])
    _, labels = hosts.draw([0] * 600, range(600))
    counts = torch.bincount(labels, minlength=3)
    assert counts[0] == 0 and 230 < counts[1] < 370


def test_a_host_depends_on_its_turn_alone():
    labels = [0, 1] * 8
    together = hosts_of(labels).draw([0, 1, 0, 1], [5, 6, 7, 8])[0]
    apart = torch.cat(
        [hosts_of(labels).draw([c], [turn])[0] for c, turn in zip([0, 1, 0, 1], [5, 6, 7, 8], strict=True)]
    )
    other = hosts_of(labels, seed=1).draw([0, 1, 0, 1], [5, 6, 7, 8])[0]
    assert torch.equal(together, apart) and not torch.equal(together, other)


def test_one_class_is_refused():
    with pytest.raises(HFScoreError, match="one class"):
        hosts_of([1, 1, 1])


def test_an_image_takes_a_region_from_its_own_class_and_nothing_else():
    known = square_images(12)
    labels = torch.arange(12) % 3
    own = OwnClassImages(known, labels.tolist(), ImageCollator(None), seed=0)
    images, classes = torch.randn(9, 3, 32, 32), torch.arange(9) % 3
    masks = torch.zeros(2, 32, 32, dtype=torch.bool)
    masks[0, :8], masks[1, :, 20:] = True, True
    exchanged = own.exchange(images, classes, masks, turns=range(9))
    used = set()
    for n in range(9):
        origins = [
            (mask, place)
            for mask, inside in enumerate(masks)
            for place in (labels == classes[n]).nonzero().flatten().tolist()
            if torch.equal(exchanged[n], torch.where(inside, known.pixel_values[place], images[n]))
        ]
        assert len(origins) == 1
        used.add(origins[0])
    assert len(used) > 4
    alone = own.exchange(images[4:5], classes[4:5], masks, turns=[4])
    assert torch.equal(alone[0], exchanged[4])


def test_of_more_classes_than_are_kept_the_rest_stay_as_they_are():
    own = OwnClassImages(square_images(6), [0, 1, 2, 3, 0, 1], ImageCollator(None), seed=0, size=2)
    images, masks = torch.randn(4, 3, 32, 32), torch.ones(1, 32, 32, dtype=torch.bool)
    exchanged = own.exchange(images, torch.arange(4), masks, turns=range(4))
    assert [torch.equal(exchanged[n], images[n]) for n in range(4)] == [False, False, True, True]
    assert torch.equal(own.exchange(images[2:], torch.tensor([2, 3]), masks, turns=[0, 1]), images[2:])


def test_moved_masks_keep_their_size_and_leave_their_place():
    samples = square_samples(8)
    moved = samples.move_masks(seed=0)
    assert torch.equal(moved.masks.sum(dim=(1, 2)), samples.masks.sum(dim=(1, 2)))
    assert (moved.masks & samples.masks).sum() < 0.3 * samples.masks.sum()
    assert torch.equal(moved.pixel_values, samples.pixel_values)
    assert torch.equal(moved.masks, samples.move_masks(seed=0).masks)
