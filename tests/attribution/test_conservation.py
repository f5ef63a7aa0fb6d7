"""Relevance is neither made nor lost: without biases it sums to the explained logit, at the pixels and at layers."""

import pytest
import timm
import torch

from hf_score.attribution import Explainer, find_family

CNNS = {
    "test_resnet": {},
    "resnet10t": {},
    "resnet18": {},
    "resnet50": {},
    "resnetblur18": {},
    "vgg11": {"mlp_ratio": 0.02},  # a narrower head: the stock one has a hundred million weights
    "vgg11_bn": {"mlp_ratio": 0.02},
    "tf_efficientnet_lite0": {},
}


@pytest.mark.parametrize("name", CNNS)
def test_cnn_relevance_sums_to_the_logit(name, zero_biases):
    model = zero_biases(timm.create_model(name, num_classes=5, **CNNS[name]))
    with Explainer(model) as explainer:
        explanation = explainer.explain(torch.randn(1, 3, 48, 48), 3, layer="stage2")
    logit = explanation.logits[:, 3]
    assert explanation.convergence_delta.abs() < 1e-3
    torch.testing.assert_close(explanation.relevance.sum((1, 2)), logit, rtol=1e-3, atol=0)
    torch.testing.assert_close(explanation.layer_relevance.sum((1, 2)), logit, rtol=1e-3, atol=0)


@pytest.mark.parametrize("pixels", [True, False])
def test_every_stage_sums_to_the_logit(pixels, zero_biases):
    model = zero_biases(timm.create_model("test_resnet", num_classes=5))
    stages = find_family(model).layers(model)
    assert list(stages) == ["stage1", "stage2", "stage3", "stage4"]
    images, targets = torch.randn(2, 3, 48, 48), [1, 3]
    with Explainer(model) as explainer:
        for stage in stages:
            explanation = explainer.explain(images, targets, layer=stage, pixels=pixels)
            logit = explanation.logits[torch.arange(2), targets]
            torch.testing.assert_close(explanation.layer_relevance.sum((1, 2)), logit, rtol=1e-3, atol=0)
            assert (explanation.relevance is not None) is pixels


@pytest.mark.parametrize("objective", ["logit", "margin"])
@pytest.mark.parametrize("method", ["epsilon_plus_flat", "epsilon_plus", "epsilon"])
def test_every_composite_and_objective_conserves(method, objective, zero_biases):
    model = zero_biases(timm.create_model("test_resnet", num_classes=5))
    with Explainer(model, method=method) as explainer:
        explanation = explainer.explain(torch.randn(2, 3, 48, 48), 2, objective=objective)
    others = explanation.logits.clone()
    others[:, 2] = -torch.inf
    explained = explanation.logits[:, 2] - (others.amax(1) if objective == "margin" else 0)
    torch.testing.assert_close(explanation.relevance.sum((1, 2)), explained, rtol=1e-3, atol=0)


def make_vit(name, transformers_vit):
    if name.startswith("timm"):
        settings = {"num_classes": 5, "img_size": 32, "patch_size": 8}
        pool = name.partition(" ")[2] or "token"
        return timm.create_model("vit_tiny_patch16_224", embed_dim=48, depth=3, global_pool=pool, **settings)
    kind, attention = name.split(" ")
    return transformers_vit(kind, attention=attention)


VITS = ["timm", "timm avg", "vit sdpa", "vit eager", "deit sdpa"]


@pytest.mark.parametrize("name", VITS)
def test_cp_lrp_sums_to_the_logit(name, zero_biases, transformers_vit):
    """Exact at the tokens; at the pixels too once the class token and position embeddings take nothing."""
    model = zero_biases(make_vit(name, transformers_vit)).double()
    pixels, targets = torch.randn(2, 3, 32, 32, dtype=torch.float64), [1, 3]
    with Explainer(model, method="cp_lrp") as explainer:
        for block in range(3):
            at_block = explainer.explain(pixels, targets, layer=block, pixels=False)
            assert at_block.convergence_delta.abs().max() < 1e-9
        share_taken_by_embeddings = explainer.explain(pixels, targets).convergence_delta.abs()
    with torch.no_grad():
        for key, parameter in model.named_parameters():
            if "pos_embed" in key or "position_embeddings" in key or key.endswith("_token"):
                parameter.zero_()
    with Explainer(model, method="cp_lrp") as explainer:
        assert explainer.explain(pixels, targets).convergence_delta.abs().max() < 1e-9
    # With nothing but zeros for embeddings in the first place (DeiT's start), there is nothing they could take.
    assert share_taken_by_embeddings.min() > 1e-3 or name == "deit sdpa"


def test_cp_lrp_sums_to_the_logit_in_single_precision(zero_biases, transformers_vit):
    model = zero_biases(transformers_vit())
    with Explainer(model, method="cp_lrp") as explainer:
        explanation = explainer.explain(torch.randn(8, 3, 32, 32), 2, layer=0, pixels=False)
    # Relative to what is summed up, since positive and negative relevance nearly cancel in some of these logits
    missing = explanation.layer_relevance.sum((1, 2)) - explanation.logits[:, 2]
    assert (missing.abs() / explanation.layer_relevance.abs().sum((1, 2))).max() < 1e-6


def test_attnlrp_does_not_conserve_through_softmax(transformers_vit, zero_biases):
    """So a small convergence delta must not be expected of it; this keeps us from claiming otherwise."""
    with Explainer(zero_biases(transformers_vit())) as explainer:
        assert explainer.method == "attnlrp"
        delta = explainer.explain(torch.randn(4, 3, 32, 32), 2, layer=0, pixels=False).convergence_delta
    assert delta.abs().max() > 1e-2


def test_convergence_delta_reports_what_biases_absorb():
    model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(3 * 4 * 4, 2)).double()
    pixels = torch.randn(3, 3, 4, 4, dtype=torch.float64)
    with Explainer(model, method="epsilon", epsilon=1e-12) as explainer:
        explanation = explainer.explain(pixels, 1)
    expected = -model[1].bias[1] / explanation.logits[:, 1].abs()
    torch.testing.assert_close(explanation.convergence_delta, expected.detach())
