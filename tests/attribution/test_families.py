"""The table of families, row by row: every model in it is explained soundly, every other one is refused."""

import re

import pytest
import timm
import torch
from torch import nn
from zoo import make

from hf_score.attribution import FAMILIES, Explainer, find_family, find_layer
from hf_score.attribution.families import REFUSED
from hf_score.cli import main
from hf_score.errors import UnsupportedArchitectureError

EXAMPLES = [name for family in FAMILIES for name in family.examples]
#: z⁺ drops what an output without any positive contribution has been given. Behind a ReLU such an output is 0 and has
#: been given nothing. Behind SiLU or hard swish, or where narrow groups end in a sum without a ReLU, it may be
#: negative: there the default composite loses some relevance, which `absorbed["rules"]` shows.
PLUS_IS_EXACT = {
    "resnet18",
    "wide_resnet50_2",
    "vgg11",
    "vgg11_bn",
    "densenet121",
    "inception_v3",
    "torchvision resnet18",
    "torchvision vgg11_bn",
    "torch.nn.Sequential",
}


@pytest.mark.parametrize("name", EXAMPLES)
def test_a_model_of_the_family_is_explained(name):
    model, size = make(name)
    family = find_family(model)
    assert name in family.examples
    pixels, targets = torch.randn(3, 3, size, size), [1, 3, 0]
    before = {key: value.clone() for key, value in model.state_dict().items()}
    roles = list(family.layers(model).values())
    assert len(set(roles)) == len(roles) >= 1
    with Explainer(model, batch_size=3) as explainer:
        together = explainer.explain(pixels, targets, layer="last")
        short = explainer.explain(pixels, targets, layer="last", pixels=False)
        first = explainer.explain(pixels, targets, layer=0, pixels=False)
        alone = explainer.explain(pixels[1:2], targets[1:2], layer="last")
    with torch.no_grad():
        output = model(pixels)
    assert torch.equal(together.logits, getattr(output, "logits", output))
    assert together.relevance.isfinite().all()
    for explanation in (together, short, first):
        assert (explanation.layer_relevance.abs().sum((1, 2)) > 0).all()
    probe = find_layer(model, "last")
    with probe.capture() as captured, torch.no_grad():
        model(pixels)
    torch.testing.assert_close(together.layer_activation, captured.activation)
    for field in ("relevance", "layer_relevance"):
        one, other = getattr(alone, field)[0], getattr(together, field)[1]
        # Fifty random layers of group norm amplify rounding: 2.4e-5 was seen.
        bound = 1e-4 if name == "resnetv2_50x1_bit" else 1e-5
        assert (one - other).abs().max() <= bound * other.abs().max(), field
    torch.testing.assert_close(short.layer_relevance, together.layer_relevance, rtol=1e-5, atol=1e-8)
    for key, value in model.state_dict().items():
        assert torch.equal(value, before[key])
    named = sum(together.absorbed.values())
    torch.testing.assert_close(named, -together.convergence_delta, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", EXAMPLES)
def test_without_biases_all_relevance_arrives(name, homogeneous):
    """With LRP-ε, or with attention as a constant (CP-LRP); AttnLRP's softmax rule does not conserve."""
    model, size = make(name)
    model = homogeneous(model.double())
    family = find_family(model)
    pixels, targets = torch.randn(2, 3, size, size, dtype=torch.float64), [1, 3]
    exact = "cp_lrp" if "cp_lrp" in family.methods else "epsilon"
    for method in (exact, *(["epsilon_plus_flat"] if name in PLUS_IS_EXACT else [])):
        with Explainer(model, method=method, epsilon=1e-20) as explainer:
            for layer, pixels_too in (("last", True), (0, False)):
                explanation = explainer.explain(pixels, targets, layer=layer, pixels=pixels_too)
                scale = explanation.logits.abs().max() / explanation.logits[torch.arange(2), targets].abs()
                assert (explanation.convergence_delta.abs() < 1e-9 * scale).all(), (method, layer)


@pytest.mark.slow
@pytest.mark.parametrize("name", EXAMPLES)
def test_no_image_gives_a_nan(name):
    model, size = make(name)
    constant = torch.stack([torch.full((3, size, size), value) for value in (-2.0, 0.0, 1e-6, 1.0, 2.6)])
    with Explainer(model) as explainer:
        for pixels in (torch.randn(256, 3, size, size), constant):
            for part in pixels.split(64):
                explanation = explainer.explain(part, 1, layer="last")
                assert explanation.relevance.isfinite().all()
                assert explanation.layer_relevance.isfinite().all()


class Tanh(nn.Module):
    def forward(self, x):
        return torch.tanh(x)


def with_tanh():
    return nn.Sequential(nn.Conv2d(3, 4, 3), Tanh(), nn.Flatten(), nn.Linear(4 * 36, 2))


def transformers_gelu_in_python():
    from transformers import ViTConfig, ViTForImageClassification

    small = {"hidden_size": 12, "num_hidden_layers": 1, "intermediate_size": 24, "image_size": 8, "patch_size": 4}
    return ViTForImageClassification(ViTConfig(**small, num_attention_heads=2, hidden_act="gelu_python"))


@pytest.mark.parametrize(
    ("make_model", "words"),
    [
        (with_tanh, r"'tanh' in .*test_families\.Tanh"),
        (transformers_gelu_in_python, r"'erf' in transformers\.activations\.GELUActivation"),
        (lambda: timm.create_model("resnet10t", act_layer="tanh", num_classes=2), r"'tanh'"),
    ],
)
def test_a_function_without_a_rule_is_refused_by_name(make_model, words):
    model = make_model()
    with pytest.raises(UnsupportedArchitectureError, match=words) as caught, Explainer(model) as explainer:
        explainer.explain(torch.randn(1, 3, 8, 8), 0)
    assert "use a model" in str(caught.value)


def test_what_the_logits_do_not_use_needs_no_rule():
    """SigLIP computes an attention pooling by `nn.MultiheadAttention` that its classifier ignores."""
    model, size = make("SiglipForImageClassification")
    assert any(isinstance(module, nn.MultiheadAttention) for module in model.modules())
    with Explainer(model) as explainer:
        assert explainer.explain(torch.randn(1, 3, size, size), 0).relevance.abs().sum() > 0


@pytest.mark.parametrize(
    ("make_model", "words"),
    [
        (lambda: timm.create_model("hrnet_w18_small"), r"'model' \(timm\.models\.hrnet\.HighResolutionNet\)"),
        (lambda: timm.create_model("mixer_s16_224"), r"MlpMixer\)"),
        (lambda: __import__("torchvision").models.vit_b_16(), r"because nn\.MultiheadAttention"),
    ],
)
def test_an_unknown_family_is_refused_by_name_before_anything_runs(make_model, words):
    with torch.device("meta"):
        model = make_model()
    with pytest.raises(UnsupportedArchitectureError, match=words) as caught:
        Explainer(model)
    assert "use a model" in str(caught.value)


def test_a_wrapped_model_is_refused_with_its_full_path():
    from transformers import TimmWrapperConfig, TimmWrapperForImageClassification

    model = TimmWrapperForImageClassification(TimmWrapperConfig(architecture="hrnet_w18_small", num_labels=2))
    with pytest.raises(UnsupportedArchitectureError, match=r"'timm_model' \(timm\.models\.hrnet"):
        Explainer(model)


def test_rows_do_not_overlap():
    roots = [root for family in FAMILIES for root in family.roots]
    assert len(set(roots)) == len(roots)
    assert not set(roots) & set(REFUSED)
    assert all(re.fullmatch(r"[\w.]+\.[A-Z]\w+", root) for root in [*roots, *REFUSED])


def test_the_command_prints_every_row(capsys):
    assert main(["families"]) == 0
    printed = capsys.readouterr().out
    for family in FAMILIES:
        assert all(words in printed for words in (family.name, *family.methods, *family.examples))
    assert all(reason in printed for reason in REFUSED.values())
