import io

import numpy as np
import pytest
import torch
from PIL import Image
from tiny import square_images, square_samples, tiny_processor

from hf_score import HFScoreError
from hf_score.data import ImageCollator
from hf_score.data.exchange import OtherClassPartners, SameClassPartners
from hf_score.data.reading import Workers


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


# ---- Read by others, and before they are asked for ----


class Jpegs(torch.utils.data.Dataset):
    """Images of three classes as files; `read` has what this process has decoded."""

    def __init__(self, count: int = 12) -> None:
        self.labels, self.read, self._files = [i % 3 for i in range(count)], [], []
        for pixels in np.random.default_rng(0).integers(0, 255, (count, 50, 60, 3), dtype=np.uint8):
            file = io.BytesIO()
            Image.fromarray(pixels).save(file, "JPEG")
            self._files.append(file.getvalue())

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, item: int) -> dict:
        self.read.append(item)
        return {"image": Image.open(io.BytesIO(self._files[item])), "label": self.labels[item]}

    def partners(self, workers: int = 0) -> OtherClassPartners:
        collator = ImageCollator(tiny_processor())
        return OtherClassPartners(self, self.labels, collator, seed=3, workers=Workers(workers))


def drawn_by_hand(images: Jpegs, label: int, draw_index: int) -> torch.Tensor:
    """As partners have always been drawn: a class, then one of its images."""
    generator = torch.Generator().manual_seed(3 * 1_000_003 + draw_index)
    other = [c for c in range(3) if c != label][int(torch.randint(2, (1,), generator=generator))]
    members = [i for i, c in enumerate(images.labels) if c == other]
    place = members[int(torch.randint(len(members), (1,), generator=generator))]
    return ImageCollator(tiny_processor())([images[place]])["pixel_values"][0]


def test_partners_read_ahead_are_those_drawn_one_by_one_and_this_process_reads_none():
    images = Jpegs()
    batches = [([0, 1, 2], range(start, start + 3)) for start in range(0, 30, 3)]
    now = 0
    partners = images.partners(workers=2).ahead(lambda: iter(batches[now:]))
    state, found = torch.get_rng_state(), {}
    for now in (0, 1, 2, 6, 7, 3):  # 6 and 3 are not what was foreseen
        pixel_values, labels = partners.draw(*batches[now])
        assert not set(labels.tolist()) - {0, 1, 2}
        found[now] = pixel_values
    partners.close()
    assert images.read == [] and torch.equal(torch.get_rng_state(), state)
    for now, pixel_values in found.items():
        for label, draw_index, pixels in zip(*batches[now], pixel_values, strict=True):
            assert torch.equal(pixels, drawn_by_hand(images, label, draw_index))


@pytest.mark.parametrize("workers", [0, 1])
def test_images_that_are_kept_are_read_once(workers):
    images = Jpegs()
    partners, labels, draws = images.partners(workers), [0, 1, 2, 0], [5, 6, 7, 8]
    expected = images.partners().draw(labels, draws)
    positions = partners.positions(labels, draws)
    images.read.clear()
    partners.keep(positions)
    partners.keep(positions)
    assert sorted(images.read) == ([] if workers else sorted(set(positions)))
    images.read.clear()
    for found, value in zip(partners.draw(labels, draws), expected, strict=True):
        assert torch.equal(found, value)
    assert images.read == []
    others = [9, 10, 11, 12]  # some of them kept, some not
    assert torch.equal(partners.draw(labels, others)[0], images.partners().draw(labels, others)[0])


def test_no_more_images_are_kept_than_memory_is_given(monkeypatch):
    images = Jpegs()
    partners = images.partners()
    monkeypatch.setattr("hf_score.data.exchange._KEPT_BYTES", 2 * 3 * 32 * 32 * 4)
    positions = list(range(12))
    partners.keep(positions)
    partners.keep(positions)
    assert len(images.read) == 2 and len(partners._kept) == 2
