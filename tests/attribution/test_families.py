"""The table of families: what is in it works, and what is not is refused by name before anything runs."""

import pytest
import timm
import torch
import torchvision
from torch import nn

from hf_score.attribution import FAMILIES, Explainer, find_family, find_layer
from hf_score.errors import UnsupportedArchitectureError

EXAMPLES = {
    "timm ResNet": [("test_resnet", {}), ("resnet10t", {}), ("resnet26d", {})],
    "timm VGG": [("vgg11_bn", {"mlp_ratio": 0.02})],
    "timm EfficientNet-Lite": [("tf_efficientnet_lite0", {}), ("efficientnet_lite0", {})],
    "timm VisionTransformer": [
        ("test_vit", {"img_size": 32}),
        ("test_vit2", {"img_size": 32}),
        ("deit_tiny_distilled_patch16_224", {"depth": 2, "img_size": 32}),
    ],
}


def make_sequential():
    return nn.Sequential(
        nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(inplace=True), nn.MaxPool2d(2)),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(4, 2),
    )


def test_every_family_can_be_explained_at_every_layer(transformers_vit):
    models = [
        timm.create_model(name, num_classes=3, **settings)
        for examples in EXAMPLES.values()
        for name, settings in examples
    ]
    small = torchvision.models.resnet.ResNet(torchvision.models.resnet.BasicBlock, [1, 1, 1, 1], num_classes=3)
    vgg = torchvision.models.vgg.VGG(torchvision.models.vgg.make_layers([4, "M", 8, "M"]))
    vgg.classifier = nn.Sequential(nn.Linear(8 * 49, 3))
    models += [small, vgg, make_sequential(), transformers_vit(), transformers_vit("deit")]
    covered = set()
    for model in models:
        family = find_family(model)
        covered.add(family.name)
        roles = family.layers(model)
        assert roles
        with Explainer(model) as explainer:
            explanation = explainer.explain(torch.randn(1, 3, 32, 32), 1, layer="last")
        assert explanation.relevance.isfinite().all()
        assert explanation.relevance.abs().sum() > 0
        assert explanation.layer_relevance.shape[:1] == (1,)
        assert find_layer(model, "last").name == list(roles.values())[-1]
    assert covered == {family.name for family in FAMILIES}


class Tanh(nn.Module):
    def forward(self, x):
        return torch.tanh(x)


class ScaledConv(nn.Conv2d):
    def forward(self, x):
        return 2 * super().forward(x)


def with_changed_forward():
    model = make_sequential()
    model[0][0].forward = lambda x: x
    return model


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: timm.create_model("densenet121"), r"'model' \(timm\.models\.densenet\.DenseNet\)"),
        (lambda: timm.create_model("test_convnext"), r"\(timm\.models\.convnext\.ConvNeXt\)"),
        (lambda: timm.create_model("swin_tiny_patch4_window7_224"), r"SwinTransformer\)"),
        (lambda: timm.create_model("seresnet18"), r"'layer1\.0\.se.*Sigmoid|'layer1\.0\.se' \(timm.*SEModule\)"),
        (lambda: timm.create_model("resnetv2_50"), r"ResNetV2\)"),
        (lambda: timm.create_model("test_efficientnet"), "SqueezeExcite|EdgeResidual"),
        (lambda: timm.create_model("test_vit3"), r"'attn_pool' \(.*AttentionPoolLatent\)"),
        (lambda: timm.create_model("test_vit", act_layer="quick_gelu"), r"'blocks\.0\.mlp\.act' \(.*QuickGELU\)"),
        (lambda: timm.create_model("test_vit", norm_layer="rmsnorm"), r"'blocks\.0\.norm1' \(.*RmsNorm\)"),
        (lambda: timm.create_model("resnet18", act_layer="hard_swish"), r"'act1' \(.*\)"),
        (lambda: timm.create_model("resnet18", norm_layer="groupnorm"), r"'bn1' \(.*GroupNorm\)"),
        (lambda: nn.Sequential(nn.Conv2d(3, 4, 3), Tanh(), nn.Flatten()), r"'1' \(.*Tanh\)"),
        (lambda: nn.Sequential(ScaledConv(3, 4, 3)), r"'0' \(.*ScaledConv\)"),
        (with_changed_forward, r"'0\.0' .* forward was replaced"),
    ],
)
def test_a_module_without_a_rule_is_refused_by_name(make, words):
    with torch.device("meta"):  # nothing may be run
        model = make()
    with pytest.raises(UnsupportedArchitectureError, match=words) as caught:
        Explainer(model)
    assert "use a model" in str(caught.value)


def test_an_activation_written_out_in_python_is_refused(transformers_vit):
    with pytest.raises(UnsupportedArchitectureError, match=r"activation.*written out in Python"):
        Explainer(transformers_vit(hidden_act="gelu_python"))


def test_a_gated_attention_is_refused():
    from timm.layers import Attention

    model = timm.create_model("test_vit")
    model.blocks[1].attn = Attention(64, 2, gated=True)
    with pytest.raises(UnsupportedArchitectureError, match=r"'blocks\.1\.attn' .* gated by a sigmoid"):
        Explainer(model)


def test_a_wrapped_model_is_refused_with_its_full_path():
    from transformers import TimmWrapperConfig, TimmWrapperForImageClassification

    model = TimmWrapperForImageClassification(TimmWrapperConfig(architecture="test_convnext", num_labels=2))
    with pytest.raises(UnsupportedArchitectureError, match=r"'timm_model' \(timm\.models\.convnext\.ConvNeXt\)"):
        Explainer(model)
