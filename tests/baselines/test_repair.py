"""Edits of the last layer: what they take out is gone, all else stays, and the choice keeps its word."""

import pytest
import torch

from hf_score.baselines.repair import Edit, PairFeatures, best_edit, edits_of, fold

DIMENSIONS, CLASSES = 12, 2
WEIGHT = torch.randn(CLASSES, DIMENSIONS, dtype=torch.double, generator=torch.Generator().manual_seed(0))
BIAS = torch.tensor([0.3, -0.2], dtype=torch.double)


def features(count: int, *, shortcut: float, seed: int):
    """Class in dimension 0; a region over dimensions 4 to 7, in images of class 1 with that chance, else of 0."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(count) % 2
    x = torch.randn(count, DIMENSIONS, dtype=torch.double, generator=generator) * 0.3
    x[:, 0] += 2.0 * labels - 1
    has = torch.rand(count, generator=generator) < torch.where(labels == 1, shortcut, 1 - shortcut)
    return x + has[:, None] * region(), labels, has


def region() -> torch.Tensor:
    direction = torch.zeros(DIMENSIONS, dtype=torch.double)
    direction[4:8] = torch.tensor([3.0, -2.0, 1.0, 2.0], dtype=torch.double)
    return direction


def pairs(count: int = 60) -> PairFeatures:
    without, labels, _ = features(count, shortcut=0.0, seed=5)
    without[labels == 0] -= region()  # shortcut=0 gave it to all of class 0
    noise = 0.05 * torch.randn(count, DIMENSIONS, dtype=torch.double, generator=torch.Generator().manual_seed(6))
    return PairFeatures(without + region() + noise, without, labels, torch.ones(count, dtype=torch.long))


#: A head that goes by the region more than by the class.
GOES_BY_REGION = torch.zeros(CLASSES, DIMENSIONS, dtype=torch.double)
GOES_BY_REGION[1, 0], GOES_BY_REGION[1, 4:8] = 1.0, region()[4:8] / 6
NO_BIAS = torch.tensor([1.5, 0.0], dtype=torch.double)


def accuracy(weight, bias, *, shortcut: float) -> float:
    x, labels, _ = features(400, shortcut=shortcut, seed=9)
    return float(((x @ weight.T + bias).argmax(1) == labels).double().mean())


def test_a_folded_head_gives_the_logits_of_the_edited_representation():
    x, centre = torch.randn(5, DIMENSIONS).double(), torch.randn(DIMENSIONS).double()
    edit = Edit("any", torch.randn(DIMENSIONS, DIMENSIONS).double(), 0.7)
    weight, bias = fold(WEIGHT, BIAS, edit, centre=centre)
    edited = torch.stack([row - 0.7 * edit.taken_out @ (row - centre) for row in x])
    torch.testing.assert_close(x @ weight.T + bias, edited @ WEIGHT.T + BIAS)
    torch.testing.assert_close(weight @ centre + bias, WEIGHT @ centre + BIAS)


@pytest.mark.parametrize("kind", ["project out the mean difference", "rank-one edit"])
def test_the_regions_direction_is_removed_and_others_are_kept(kind):
    x = features(300, shortcut=0.9, seed=1)[0]
    found = pairs()
    edits = {edit.name: edit for edit in edits_of(found, x)}
    whole, half = (fold(WEIGHT, BIAS, edits[f"{kind}, {part} %"], centre=x.mean(0))[0] for part in (100, 50))
    k = (found.with_region - found.without_region).mean(0)
    torch.testing.assert_close(whole @ k, torch.zeros(CLASSES, dtype=torch.double), atol=1e-9, rtol=0)
    torch.testing.assert_close(half @ k, WEIGHT @ k / 2)
    if kind.startswith("project"):
        across = torch.linalg.svd(k[None]).Vh[1:]  # all that is orthogonal to it
        torch.testing.assert_close(whole @ across.T, WEIGHT @ across.T)


def test_the_rank_one_edit_changes_least_what_images_look_like():
    """Of all heads that map k to 0: by Lagrange's condition its change is C⁻¹k in each row."""
    x = features(300, shortcut=0.9, seed=1)[0]
    found = pairs()
    edit = next(e for e in edits_of(found, x) if e.name == "rank-one edit, 100 %")
    k = (found.with_region - found.without_region).mean(0)
    ridge = 1e-2 * x.var(0).mean() * torch.eye(DIMENSIONS, dtype=torch.double)
    along = torch.linalg.solve(torch.cov(x.T) + ridge, k)
    by_hand = (WEIGHT @ k)[:, None] * along / (k @ along)
    torch.testing.assert_close(WEIGHT @ edit.taken_out, by_hand)


def test_shrinking_takes_the_regions_dimensions_before_the_classes():
    (edit, *_) = [
        e for e in edits_of(pairs(), features(300, shortcut=0.9, seed=1)[0]) if e.name.startswith("shrink 4")
    ]
    assert edit.taken_out.diag().nonzero().flatten().tolist() == [4, 5, 6, 7]


def test_two_shortcuts_of_opposite_direction_do_not_cancel():
    one = pairs()
    other = PairFeatures(one.without_region, one.with_region, one.labels, one.shortcut_labels * 0)
    both = PairFeatures(*(torch.cat(parts) for parts in zip(one, other, strict=True)))
    edit = next(e for e in edits_of(both, features(300, shortcut=0.9, seed=1)[0]) if e.name.startswith("project"))
    torch.testing.assert_close(edit.taken_out @ region(), region(), atol=0.1, rtol=0)


def chosen(max_loss: float, estimate=lambda w, b: accuracy(w, b, shortcut=0.1)):
    x = features(300, shortcut=0.9, seed=1)[0]
    return best_edit(
        GOES_BY_REGION,
        NO_BIAS,
        edits_of(pairs(), x),
        centre=x.mean(0),
        estimate=estimate,
        accuracy=lambda w, b: accuracy(w, b, shortcut=0.5),
        max_loss=max_loss,
    )


def test_the_chosen_edit_repairs_a_head_that_goes_by_the_region():
    weight, bias, repaired = chosen(0.01)
    assert repaired.estimate_before < 0.6 < 0.9 < repaired.estimate_after
    assert repaired.accuracy_after >= repaired.accuracy_before - 0.01
    assert accuracy(weight, bias, shortcut=0.1) == repaired.estimate_after and repaired.name != "none"


def test_an_edit_that_costs_too_much_or_helps_nothing_is_refused():
    # as if without the region all accuracy were lost
    x = features(300, shortcut=0.9, seed=1)[0]
    weight, bias, repaired = best_edit(
        GOES_BY_REGION,
        NO_BIAS,
        edits_of(pairs(), x),
        centre=x.mean(0),
        estimate=lambda w, b: float(w is not GOES_BY_REGION),
        accuracy=lambda w, b: float(w is GOES_BY_REGION),
        max_loss=0.5,
    )
    assert repaired.name == "none" and weight is GOES_BY_REGION and bias is NO_BIAS
    worse = chosen(1.0, estimate=lambda w, b: 1.0 if w is GOES_BY_REGION else 0.5)
    assert worse[2].name == "none" and worse[0] is GOES_BY_REGION
