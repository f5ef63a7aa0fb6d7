import pytest
import torch
from tiny import square_images, square_samples

from hf_score import HFScoreError
from hf_score.data import ImageCollator
from hf_score.data.exchange import OtherClassPartners, SameClassPartners


def partners_of(labels, seed=0) -> OtherClassPartners:
    images = square_images(len(labels))
    images = type(images)(images.pixel_values, torch.as_tensor(labels), images.idx)
    return OtherClassPartners(images, labels, ImageCollator(None), seed=seed)


def test_exchanged_images_equal_their_definition_pixel_by_pixel():
    samples = square_samples(3)
    partners, partner_labels = torch.randn(3, 3, 32, 32), torch.tensor([0, 0, 0])
    pairs = samples.exchanged_with(partners, partner_labels)
    for n in range(3):
        for y, x in ((0, 0), (7, 7), (8, 8), (31, 0)):
            inside = bool(samples.masks[n, y, x])
            sample, partner = samples.pixel_values[n, :, y, x], partners[n, :, y, x]
            assert torch.equal(pairs.without_region[n, :, y, x], partner if inside else sample)
            assert torch.equal(pairs.with_region[3 + n, :, y, x], sample if inside else partner)
    assert torch.equal(pairs.with_region[:3], samples.pixel_values) and torch.equal(pairs.without_region[3:], partners)
    assert pairs.labels.tolist() == [1, 1, 1, 0, 0, 0] and pairs.shortcut_labels.tolist() == [1] * 6
    copies = pairs.counterfactuals(pairs.with_region, pairs.without_region)
    assert torch.equal(copies, torch.cat([pairs.without_region[:3], pairs.with_region[3:]]))


def test_hosts_are_of_other_classes_each_equally_often():
    partners = partners_of([0] * 90 + [1] * 9 + [2])
    _, labels = partners.draw([0] * 600, range(600))
    counts = torch.bincount(labels, minlength=3)
    assert counts[0] == 0 and 230 < counts[1] < 370


def test_a_partner_depends_on_the_index_of_its_draw_alone():
    labels = [0, 1] * 8
    together = partners_of(labels).draw([0, 1, 0, 1], [5, 6, 7, 8])[0]
    apart = torch.cat(
        [partners_of(labels).draw([c], [index])[0] for c, index in zip([0, 1, 0, 1], [5, 6, 7, 8], strict=True)]
    )
    other = partners_of(labels, seed=1).draw([0, 1, 0, 1], [5, 6, 7, 8])[0]
    assert torch.equal(together, apart) and not torch.equal(together, other)


def test_one_class_is_refused():
    with pytest.raises(HFScoreError, match="one class"):
        partners_of([1, 1, 1])


def test_an_image_takes_a_region_from_its_own_class_and_nothing_else():
    known = square_images(12)
    labels = torch.arange(12) % 3
    own = SameClassPartners(known, labels.tolist(), ImageCollator(None), seed=0)
    images, classes = torch.randn(9, 3, 32, 32), torch.arange(9) % 3
    masks = torch.zeros(2, 32, 32, dtype=torch.bool)
    masks[0, :8], masks[1, :, 20:] = True, True
    exchanged = own.exchange(images, classes, masks, draw_indices=range(9))
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
    alone = own.exchange(images[4:5], classes[4:5], masks, draw_indices=[4])
    assert torch.equal(alone[0], exchanged[4])


def test_no_class_is_without_partners_however_many_there_are():
    known = square_images(6)
    own = SameClassPartners(known, [0, 1, 2, 3, 0, 1], ImageCollator(None), seed=0, size=2)
    images, masks = torch.randn(4, 3, 32, 32), torch.ones(1, 32, 32, dtype=torch.bool)
    exchanged = own.exchange(images, torch.arange(4), masks, draw_indices=range(4))
    assert torch.equal(exchanged[2:], known.pixel_values[2:4])  # the one image of its class, mask over all of it
