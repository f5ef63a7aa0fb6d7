"""What a region does, on models whose answers are known by construction: one reads the corner, the other the rest."""

import json

import numpy as np
import pytest
import torch
from tiny import square_images, square_samples
from torch import nn
from transformers.modeling_outputs import ImageClassifierOutput

from hf_score.evaluation import JudgedRegions, Verdicts, region_figures
from hf_score.report import region_outcome

SIZE = 32
OBJECT = (slice(16, 24), slice(16, 24))


class Reader(nn.Module):
    """A linear model: class 1 where the mean of one part of the image is above 0.5."""

    def __init__(self, rows: slice, columns: slice) -> None:
        super().__init__()
        self.rows, self.columns = rows, columns

    def forward(self, pixel_values):
        score = pixel_values[:, :, self.rows, self.columns].mean(dim=(1, 2, 3)) - 0.5
        return ImageClassifierOutput(logits=torch.stack([-score, score], dim=1))


BY_CORNER, BY_OBJECT = Reader(slice(0, 8), slice(0, 8)), Reader(*OBJECT)


def with_object(data):
    """Class 1 has an object in the middle too."""
    data.pixel_values[data.labels == 1, :, *OBJECT] += 2
    return data


def collate(items):
    return {"pixel_values": torch.stack([torch.as_tensor(item["pixel_values"]) for item in items])}


def regions(count=40, samples=12, **changes):
    data, chosen = with_object(square_images(count, seed=3)), square_samples(samples)
    chosen.pixel_values[:, :, *OBJECT] += 2
    options = {"collate": collate, "held_out": True, "device": "cpu", "seed": 0, **changes}
    return JudgedRegions(chosen, data, data.labels.tolist(), **options), data


def said(model, data):
    return model(data.pixel_values).logits.numpy()


def test_a_model_that_reads_the_corner_and_one_that_does_not():
    judged, _ = regions()
    assert len(judged) == 20 and set(judged.host_labels) == {0}  # those of the other class
    by_corner, by_object = (region_figures(judged.logits(model)) for model in (BY_CORNER, BY_OBJECT))
    values = {name: (by_corner[name].estimate.value, by_object[name].estimate.value) for name in by_corner}
    assert values["inserted"] == values["removed"] == (1, 0)
    assert values["object"] == (0, 1)
    assert values["reliance"][0] > 3 and values["reliance"][1] == 0
    assert values["excess"][0] > 0.8 and values["random_inserted"][0] < 0.2
    assert by_corner["inserted"].estimate.count == 20 and by_corner["removed"].estimate.count == 12
    assert by_corner["inserted"].estimate.low > 0.8 and by_object["inserted"].estimate.high < 0.2


def test_what_is_measured_does_not_depend_on_the_batch_size():
    small, large = (regions(batch_size=size)[0].logits(BY_CORNER) for size in (1, 64))
    assert all(torch.equal(getattr(small, name), getattr(large, name)) for name in vars(small))


def test_a_verdict_before_and_after():
    judged, data = regions()
    verdicts = Verdicts(judged, data.labels.tolist(), ["plain", "square"])
    before = verdicts(BY_CORNER, said(BY_CORNER, data))
    after = verdicts(BY_OBJECT, said(BY_OBJECT, data))
    assert "change" not in before and region_outcome(after) == "improved"
    assert after["change"]["inserted"]["value"] == -1 and after["change"]["object"]["value"] == 1
    assert after["fallen"] == [] and after["classes"]["square"] == before["classes"]["square"]
    assert len(after["examples"]) == 3 and after["samples"] == {"count": 12, "held_out": True}
    inserted, masks, labels = judged.with_region(after["examples"])
    assert (BY_CORNER(inserted).logits.argmax(1) == 1).all() and (BY_OBJECT(inserted).logits.argmax(1) == 0).all()
    assert masks[:, :8, :8].all() and labels.tolist() == [1, 1, 1]
    assert json.loads(json.dumps(after)) == after

    reverse = Verdicts(judged, data.labels.tolist(), ["plain", "square"])
    reverse(BY_OBJECT, said(BY_OBJECT, data))
    assert region_outcome(reverse(BY_CORNER, said(BY_CORNER, data))) == "worse"


def test_the_same_model_is_unchanged_where_there_are_pictures_enough():
    for count, outcome in ((40, "cannot tell"), (400, "unchanged"), (12, "cannot tell")):
        judged, data = regions(count)
        verdicts = Verdicts(judged, data.labels.tolist(), ["plain", "square"])
        verdicts(BY_CORNER, said(BY_CORNER, data))
        assert region_outcome(verdicts(BY_CORNER, said(BY_CORNER, data))) == outcome


def test_a_class_that_fell_is_named_and_chance_is_not():
    _, data = regions(400)
    verdicts = Verdicts(None, data.labels.tolist(), ["plain", "square"])
    logits = said(BY_OBJECT, data)
    verdicts(BY_OBJECT, logits)
    worse, hardly = logits.copy(), logits.copy()
    worse[np.flatnonzero(data.labels == 1)[:20]] *= -1
    hardly[np.flatnonzero(data.labels == 1)[:5]] *= -1
    assert verdicts(BY_OBJECT, worse)["fallen"] == ["square"]
    assert verdicts(BY_OBJECT, hardly)["fallen"] == []  # 2.5 points, and it may be chance
    nothing = verdicts(BY_OBJECT, logits)
    assert "samples" not in nothing and "there are none" in nothing["not_checked"][0]
    assert region_outcome(nothing) == "cannot tell"


def test_regions_that_cover_most_of_the_image_have_no_random_place():
    judged, data = regions()
    judged.samples.masks[:] = True
    wide = JudgedRegions(
        judged.samples, data, data.labels.tolist(), collate=collate, held_out=False, device="cpu", seed=0
    )
    assert "random_inserted" not in region_figures(wide.logits(BY_CORNER))
    not_checked = Verdicts(wide, data.labels.tolist(), ["plain", "square"])(BY_CORNER, said(BY_CORNER, data))[
        "not_checked"
    ]
    assert any("cover half" in one for one in not_checked) and any("fewer than 10" in one for one in not_checked)


def test_many_classes_leave_a_short_entry():
    generator = np.random.default_rng(0)
    labels = np.repeat(np.arange(50), 4)
    verdicts = Verdicts(None, labels, [str(k) for k in range(50)])
    verdicts(None, generator.normal(size=(200, 50)))
    entry = verdicts(None, generator.normal(size=(200, 50)))
    assert len(entry["class_change"]) == len(entry["classes"]) == 20 and "auroc" not in entry["figures"]


class ByTheCornerWhereItIsBright(nn.Module):
    """Class 1 where the corner is bright; a model that says class 1 of everything else too changes no answer there."""

    def __init__(self, share_right: float) -> None:
        super().__init__()
        self.share_right = share_right

    def forward(self, pixel_values):
        corner = pixel_values[:, :, 0:8, 0:8].mean(dim=(1, 2, 3)) > 0.5
        draw = (pixel_values.sum(dim=(1, 2, 3)).abs() * 997) % 1  # of the picture alone
        says_one = torch.where(corner, draw > self.share_right, torch.zeros_like(corner))
        return ImageClassifierOutput(logits=torch.stack([~says_one, says_one], dim=1).float())


def test_fewer_changed_answers_are_no_improvement_if_all_were_wrong_before():
    """That answers change less often is not enough: where a model says the region's class anyway, none can change."""
    always_one = Reader(slice(0, 8), slice(0, 8))
    always_one.forward = lambda pixel_values: ImageClassifierOutput(  # type: ignore[method-assign]
        logits=torch.tensor([[0.0, 1.0]]).repeat(len(pixel_values), 1)
    )
    judged, data = regions(400)
    verdicts = Verdicts(judged, data.labels.tolist(), ["plain", "square"])
    verdicts(BY_CORNER, said(BY_CORNER, data))
    entry = verdicts(always_one, said(always_one, data))
    assert entry["change"]["inserted"]["high"] < 0  # no answer changes any more
    assert region_outcome(entry) == "unchanged"


def test_the_lowest_accuracy_is_that_of_the_worst_group():
    """By hand: of images of class 0 with the region blended in, a share is right; samples without theirs are."""
    judged, _ = regions(400)
    for share in (0.2, 0.7):
        model = ByTheCornerWhereItIsBright(share)
        found = region_figures(judged.logits(model))
        answers = judged.logits(model)
        by_group = [
            float((answers.plain.argmax(1) == answers.host_labels).float().mean()),
            float((answers.blended_inserted.argmax(1) == answers.host_labels).float().mean()),
            float((answers.blended_removed.argmax(1) == answers.labels[answers.pair_of_removal]).float().mean()),
        ]
        lowest = found["lowest"].estimate
        assert lowest.value == pytest.approx(min(by_group)) and lowest.low <= lowest.value <= lowest.high
