"""What is planted is found and named, and what is not planted is not found; the statistics hold their error rates."""

import numpy as np
import pytest
import torch
from planted import Reading, candidates, images
from scipy.stats import binomtest
from tiny import tiny_processor

from hf_score.audit import cluster_findings, probe_findings, probe_flips, probe_presence, region_pairs
from hf_score.audit.chance import expected_wrong, false_discovery_rates, sign_test
from hf_score.audit.flips import Flips, PixelScale, exchange_flips
from hf_score.data import ImageCollator
from hf_score.data.exchange import OtherClassPartners

NAMES = ["blue", "green"]
CORNER, TOP_RIGHT = (slice(0, 9), slice(0, 9)), (slice(0, 9), slice(20, 29))
LOWER = (slice(16, 32), slice(0, 32))


def findings_of_probes(shortcut: float, *, red: bool = True) -> dict[str, dict]:
    held_out = images(64, seed=1)
    flips = probe_flips(Reading(shortcut), held_out.pixel_values, held_out.labels.numpy(), processor=None)
    train = images(64, red=red)
    known = {"presence": probe_presence(train.pixel_values, processor=None), "train_labels": train.labels.numpy()}
    return {one["title"]: one for one in probe_findings(flips, [0, 1], NAMES, **known) if one["class"] == "green"}


def test_a_planted_redness_is_found_by_red_probes_alone():
    found = findings_of_probes(8.0)
    assert found["a tint of red"]["found"] and not found["a white sticker"]["found"]
    assert found["a tint of red"]["rate"] < 0.05 < found["a white sticker"]["rate"]
    difference = found["a tint of red"]["difference"]
    assert (
        difference["low"]
        < difference["value"]
        == pytest.approx(
            found["a tint of red"]["flips"]["value"] - found["a tint of red"]["placebo"]["value"], abs=1e-4
        )
    )


def test_what_no_training_image_looks_like_is_no_finding_whatever_the_model_says_of_it():
    tint = findings_of_probes(8.0, red=False)["a tint of red"]
    assert tint["difference"]["low"] > 0.1 and abs(tint["presence"] - 0.5) < 0.2 and not tint["found"]


def test_a_model_without_a_shortcut_has_none():
    found = findings_of_probes(0.0)
    assert not [title for title, one in found.items() if one["found"]]


def test_the_mirror_image_of_a_probe_is_a_finding_by_its_own_name():
    labels, plain = np.zeros(40, dtype=int), np.zeros(40, dtype=int)
    flips = Flips("tint_red", "a tint of red", "a tint of cyan", True, labels, plain, plain, np.ones(40, dtype=int))
    (one,) = probe_findings(
        [flips], [0, 1], NAMES, presence={}, train_labels=labels
    )  # nothing can flip to class 0: all are of it
    assert one["title"] == "a tint of cyan" and one["beside"] == "a tint of red" and one["found"]
    assert one["difference"]["value"] == 1


def region_findings(shortcut: float) -> dict[int, dict]:
    train, held_out = images(48, red=True), images(40, seed=2)
    partners = OtherClassPartners(held_out, held_out.labels.tolist(), ImageCollator(), seed=0)
    chosen = candidates(train, {0: CORNER, 1: TOP_RIGHT, 2: LOWER})
    pairs = region_pairs(chosen, Reading(shortcut), train, partners)
    return {one["cluster"]: one for one in cluster_findings(chosen, pairs)}


def test_a_region_that_overrules_what_is_still_to_be_seen_is_found():
    found = region_findings(8.0)
    assert found[0]["found"] and found[0]["overruled"]["value"] > 0.5 and found[0]["rate"] < 0.05
    assert not found[1]["found"] and found[1]["rate"] > 0.05  # it does nothing
    assert not found[2]["found"]  # it is what makes the class: it moves the margin, and covers what it overrules


def test_without_a_shortcut_no_region_overrules():
    assert not [one for one in region_findings(0.0).values() if one["found"]]


def test_pairs_do_not_depend_on_the_batch_size():
    train, held_out = images(16, red=True), images(12, seed=2)
    partners = OtherClassPartners(held_out, held_out.labels.tolist(), ImageCollator(), seed=0)
    chosen = candidates(train, {0: CORNER, 1: LOWER})
    one, other = (region_pairs(chosen, Reading(3.0), train, partners, batch_size=size) for size in (7, 64))
    for name in ("candidate", "recognised", "intact", "overruled"):
        np.testing.assert_array_equal(getattr(one, name), getattr(other, name))
    np.testing.assert_allclose(one.gain, other.gain, atol=1e-5)


def test_exchanged_regions_flip_towards_the_class_that_they_come_from():
    held_out = images(32, seed=3, red=True)
    partners = OtherClassPartners(held_out, held_out.labels.tolist(), ImageCollator(), seed=0)
    regions = torch.zeros(32, 32, 32, dtype=torch.bool)
    regions[:, *CORNER] = True
    flips = exchange_flips(Reading(8.0), held_out.pixel_values, held_out.labels.numpy(), regions, partners)
    found = {
        one["class"]: one
        for one in probe_findings([flips], [0, 1], NAMES, presence={}, train_labels=held_out.labels.numpy())
    }
    assert found["green"]["found"] and found["green"]["placebo"]["value"] == 0


def test_the_sign_test_is_mcnemars_and_leaves_ties_out():
    assert sign_test([1, 1, 1, -1, 0, 0], alternative="two-sided") == binomtest(3, 4, 0.5).pvalue
    assert sign_test([0, 0]) == 1.0
    assert sign_test(np.ones(5)) == pytest.approx(0.5**5)


def test_false_discovery_rates_are_benjamini_and_hochbergs():
    p = np.array([0.01, 0.04, 0.03, 0.5])
    by_hand = [min(p[j] * 4 / (p <= p[j]).sum() for j in range(4) if p[j] >= p[i]) for i in range(4)]
    np.testing.assert_allclose(false_discovery_rates(p), by_hand)
    assert len(false_discovery_rates([])) == 0 and expected_wrong() == "1 in 20"


def test_under_the_null_few_clusters_are_found():
    """Regions that do no more than placebos: the share of audits with any finding stays at the level."""
    generator = np.random.default_rng(0)
    wrong = 0
    for _ in range(400):
        p = [sign_test(generator.normal(size=20)) for _ in range(6)]
        wrong += bool((false_discovery_rates(p) <= 0.05).any())
    assert binomtest(wrong, 400, 0.05, alternative="greater").pvalue > 0.01


def test_pixel_values_are_scaled_back_to_what_they_were():
    scale, values = PixelScale(tiny_processor()), torch.rand(2, 3, 32, 32) * 2 - 1
    torch.testing.assert_close(scale.pixel_values(scale.shares(values)), values)
    assert scale.shares(values).min() >= 0
