"""Measures of faithfulness, on models whose right heatmap is known."""

import pytest
import timm
import torch
from torch import nn

from hf_score.attribution import Explainer, attention_rollout, pixel_flipping, randomisation_check, search_gamma
from hf_score.errors import ModelError


class Corner(nn.Module):
    """Class 1 in proportion to the brightness of the top left 8 × 8 pixels, class 0 constant."""

    def forward(self, pixel_values):
        score = pixel_values[:, :, :8, :8].mean((1, 2, 3))
        return torch.stack([torch.zeros_like(score), 4 * score], 1)


@pytest.fixture
def bright():
    pixels = torch.zeros(2, 3, 32, 32)
    pixels[:, :, :8, :8] = 1.0
    return pixels


def at(row: int, column: int) -> torch.Tensor:
    relevance = torch.zeros(2, 32, 32)
    relevance[:, row : row + 8, column : column + 8] = 1.0
    return relevance


def test_flipping_the_evidence_first_is_seen_in_both_curves(bright):
    areas = {}
    for order in ("deletion", "insertion"):
        for name, relevance in (("right", at(0, 0)), ("wrong", at(16, 16))):
            curve = pixel_flipping(Corner(), bright, 1, relevance=relevance, order=order, patch_size=8, steps=16)
            areas[order, name] = curve.area
            assert curve.probability.shape == curve.logit.shape == (2, 17)
            start, end = (curve.logit[:, k] for k in (0, -1))
            assert ((start > end) if order == "deletion" else (start < end)).all()
    assert (areas["deletion", "right"] < areas["deletion", "wrong"]).all()
    assert (areas["insertion", "right"] > areas["insertion", "wrong"]).all()


def test_the_first_flip_is_the_most_relevant_patch(bright):
    curve = pixel_flipping(Corner(), bright, 1, relevance=at(0, 0), patch_size=8, steps=16)
    drop = curve.logit[:, 0] - curve.logit[:, 1]
    assert (drop > 0).all()
    torch.testing.assert_close(curve.logit[:, 1], curve.logit[:, -1])  # nothing else matters
    assert curve.logit[0, 0] == 4.0  # the whole image first


def test_the_ends_are_the_image_and_the_blurred_image(bright):
    deletion = pixel_flipping(Corner(), bright, 1, relevance=at(0, 0), order="deletion", patch_size=8)
    insertion = pixel_flipping(Corner(), bright, 1, relevance=at(8, 8), order="insertion", patch_size=8)
    torch.testing.assert_close(deletion.logit[:, 0], insertion.logit[:, -1])
    torch.testing.assert_close(deletion.logit[:, -1], insertion.logit[:, 0])


def test_heatmaps_of_another_size_are_refused(bright):
    with pytest.raises(ModelError, match=r"\(2, 16, 16\).*need \(2, 32, 32\)"):
        pixel_flipping(Corner(), bright, 1, relevance=torch.zeros(2, 16, 16))


@pytest.mark.parametrize("name", ["test_resnet", "test_vit"])
def test_a_map_loses_its_likeness_with_the_weights(name):
    settings = {"img_size": 32, "patch_size": 8} if "vit" in name else {}
    model = timm.create_model(name, num_classes=4, **settings).eval()
    before = {key: value.clone() for key, value in model.state_dict().items()}
    pixels = torch.randn(2, 3, 32, 32)
    likeness = randomisation_check(model, pixels, 1, steps=2)
    assert likeness[0] == pytest.approx(1, abs=1e-5)
    assert abs(likeness[-1]) < 0.9
    assert likeness == randomisation_check(model, pixels, 1, steps=2)
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())


@pytest.mark.parametrize("fused", [True, False])
def test_rollout_follows_attention_by_hand(fused):
    model = timm.create_model("test_vit", img_size=32, patch_size=8).eval()
    pixels, probabilities = torch.randn(2, 3, 32, 32), []
    for block in model.blocks:
        block.attn.fused_attn = fused

        def look(module, args, output):
            query, key, _ = module.qkv(args[0]).reshape(2, 17, 3, module.num_heads, -1).permute(2, 0, 3, 1, 4)
            probabilities.append((query @ key.mT / query.shape[-1] ** 0.5).softmax(-1).mean(1))

        block.attn.register_forward_hook(look)
    found = attention_rollout(model, pixels)
    with torch.no_grad():
        model(pixels)
    rolled = torch.eye(17)
    for probability in probabilities:
        rolled = (0.5 * probability + 0.5 * torch.eye(17)) @ rolled
    expected = rolled[:, 0, 1:].view(2, 4, 4).detach()
    torch.testing.assert_close(found[:, ::8, ::8], expected)


def test_a_model_without_attention_has_no_rollout():
    with pytest.raises(ModelError, match="attend over the same tokens"):
        attention_rollout(timm.create_model("test_resnet"), torch.randn(1, 3, 32, 32))


def test_gamma_is_searched_by_faithfulness():
    model = timm.create_model("test_resnet", num_classes=4).eval()
    pixels = torch.randn(2, 3, 32, 32)
    best, rows = search_gamma(model, pixels, 1, linear=(0.0,), convolution=(0.1, 1.0), patch_size=8, steps=4)
    assert len(rows) == 2
    winner = max(rows, key=lambda row: row["insertion"] - row["deletion"])
    assert best == {"linear": 0.0, "convolution": winner["convolution"]}
    with Explainer(model, method="epsilon_gamma_flat", gamma=best) as explainer:
        relevance = explainer.explain(pixels, 1).relevance
    area = pixel_flipping(model, pixels, 1, relevance=relevance, patch_size=8, steps=4).area.mean()
    assert float(area) == pytest.approx(winner["deletion"], abs=1e-5)
