"""Agreement with other implementations: captum, zennit's own torchvision support, and the same weights elsewhere."""

import pytest
import timm
import torch
from safetensors.torch import load_file
from torch import nn
from transformers import DeiTConfig, TimmWrapperConfig, TimmWrapperForImageClassification
from zennit.canonizers import AttributeCanonizer, CompositeCanonizer, SequentialMergeBatchNorm
from zennit.composites import COMPOSITES
from zennit.layer import Sum
from zennit.torchvision import ResNetCanonizer, VGGCanonizer

from hf_score.attribution import Explainer


def test_epsilon_rule_agrees_with_captum():
    from captum.attr import LRP
    from captum.attr._utils.lrp_rules import EpsilonRule

    layers = [nn.Conv2d(3, 6, 3), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(6, 8, 3, padding=1), nn.ReLU()]
    layers += [nn.AvgPool2d(2), nn.Flatten(), nn.Linear(8 * 3 * 3, 16), nn.ReLU(), nn.Linear(16, 4)]
    model = nn.Sequential(*layers).double().eval()

    class Functional(nn.Module):  # captum has no rule for nn.Flatten
        def __init__(self):
            super().__init__()
            self.features, self.head = nn.Sequential(*layers[:6]), nn.Sequential(*layers[7:])

        def forward(self, x):
            return self.head(self.features(x).flatten(1))

    pixels, targets = torch.randn(3, 3, 14, 14, dtype=torch.float64), torch.tensor([0, 3, 1])
    with Explainer(model, method="epsilon", epsilon=1e-12) as explainer:
        explanation = explainer.explain(pixels, targets)
    reference = Functional()
    for module in reference.modules():
        if isinstance(module, nn.Conv2d | nn.Linear | nn.AvgPool2d | nn.MaxPool2d):
            module.rule = EpsilonRule(epsilon=1e-12)
    expected, delta = LRP(reference).attribute(pixels, target=targets, return_convergence_delta=True)
    torch.testing.assert_close(explanation.relevance, expected.sum(1).detach(), rtol=1e-8, atol=1e-12)
    # captum's delta is the logit's distance from the sum of relevance
    logits = explanation.logits[torch.arange(3), targets]
    torch.testing.assert_close(explanation.convergence_delta * logits.abs(), -delta.detach(), rtol=1e-6, atol=1e-10)


def small_torchvision(kind: str) -> nn.Module:
    from torchvision.models import resnet, vgg

    if kind == "vgg":
        model = vgg.VGG(vgg.make_layers([8, "M", 16, 16, "M"], batch_norm=True))
        model.classifier = nn.Sequential(nn.Linear(16 * 49, 32), nn.ReLU(True), nn.Dropout(), nn.Linear(32, 5))
        return model
    model = resnet.ResNet(resnet.BasicBlock if kind == "basic" else resnet.Bottleneck, [1, 2, 1, 1], num_classes=5)
    return model


class TimmResNetCanonizer(CompositeCanonizer):
    """What zennit's `ResNetCanonizer` does for torchvision, for timm, which zennit does not know."""

    def __init__(self):
        super().__init__((SequentialMergeBatchNorm(), AttributeCanonizer(self._attributes)))

    @classmethod
    def _attributes(cls, name, module):
        if type(module) not in (timm.models.resnet.BasicBlock, timm.models.resnet.Bottleneck):
            return None
        return {"forward": cls._forward.__get__(module), "canonizer_sum": Sum()}

    @staticmethod
    def _forward(self, x):
        shortcut = x if self.downsample is None else self.downsample(x)
        x = self.act1(self.bn1(self.conv1(x)))
        x = self.bn2(self.conv2(x))
        if hasattr(self, "conv3"):
            x, act = self.bn3(self.conv3(self.act2(x))), self.act3
        else:
            act = self.act2
        return act(self.canonizer_sum(torch.stack([shortcut, x], dim=-1)))


def shallow_timm(kind: str) -> nn.Module:
    from timm.models.resnet import BasicBlock, Bottleneck, ResNet

    if kind == "vgg":
        return timm.create_model("vgg11_bn", num_classes=5, mlp_ratio=0.02)
    return ResNet(BasicBlock if kind == "basic" else Bottleneck, (1, 2, 1, 1), num_classes=5)


@pytest.mark.parametrize("method", ["epsilon_plus_flat", "epsilon_plus", "epsilon_alpha2_beta1", "gamma_box"])
@pytest.mark.parametrize("kind", ["basic", "bottleneck", "vgg"])
@pytest.mark.parametrize("library", ["torchvision", "timm"])
def test_composites_agree_with_zennit(library, kind, method, zero_biases):
    """Up to rounding: in float64, and with a stabiliser too small to show."""
    canonizer = {"torchvision": ResNetCanonizer, "timm": TimmResNetCanonizer}[library]
    model = {"torchvision": small_torchvision, "timm": shallow_timm}[library](kind).double().eval()
    zero_biases(model)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim == 1:
                parameter += 0.05 * torch.randn_like(parameter)  # and some bias after all
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.eps = 1e-12  # zennit's canonizer applies it a second time after merging, which moves the logits
    stabilised = {"epsilon": 1e-12, "stabilizer": 1e-12}
    if method == "gamma_box":
        stabilised |= {"low": -3.0, "high": 3.0}
    make = COMPOSITES["epsilon_gamma_box" if method == "gamma_box" else method]
    pixels = torch.randn(1, 3, 32, 32, dtype=torch.float64)
    with Explainer(model, method=make(**stabilised) if method == "gamma_box" else method, epsilon=1e-12) as explainer:
        explanation = explainer.explain(pixels, 2)
    x = pixels.clone().requires_grad_()
    with make(**stabilised, canonizers=[VGGCanonizer() if kind == "vgg" else canonizer()]).context(model):
        logits = model(x)
        (relevance,) = torch.autograd.grad(logits, x, logits.detach() * torch.eye(5)[[2]])
    expected = relevance.sum(1)
    for one, other in zip(explanation.relevance, expected, strict=True):
        assert (one - other).abs().max() < 1e-4 * other.abs().max()


def to_transformers(state: dict) -> dict:
    """timm's weights, `qkv` split in three, under "<block> <end of a transformers name>" or timm's own name."""
    names = {
        "patch_embed.proj": "patch_embeddings.projection",
        "norm1": "layernorm_before",
        "norm2": "layernorm_after",
        "attn.proj": "o_proj",
        "mlp.fc1": "mlp.fc1",
        "mlp.fc2": "mlp.fc2",
    }
    renamed = {}
    for key, value in state.items():
        parts = {}
        if ".qkv." in key:
            block, kind = key.split(".")[1], key.rpartition(".")[2]
            for part, name in zip(value.chunk(3), "qkv", strict=True):
                parts[f"{block} {name}_proj.{kind}"] = part
        elif key.startswith("blocks."):
            _, block, rest = key.split(".", 2)
            module, _, kind = rest.rpartition(".")
            parts[f"{block} {names[module]}.{kind}"] = value
        else:
            parts[key] = value
        renamed.update(parts)
    return renamed


def load_transformers_vit(state: dict, **settings) -> nn.Module:
    """A ViT with the weights of timm's `deit_tiny_patch16_224`, which has no distillation token."""
    from transformers import ViTConfig, ViTForImageClassification

    model = ViTForImageClassification(ViTConfig(**settings, layer_norm_eps=1e-6)).eval()
    parts = to_transformers(state)
    own = model.state_dict()
    for key in own:
        if ".layers." in key or ".layer." in key:
            block = next(part for part in key.split(".") if part.isdigit())
            tail = next(part for part in parts if part.startswith(f"{block} ") and key.endswith(part.split(" ")[1]))
        else:
            special = {"cls_token": "cls_token", "position_embeddings": "pos_embed", "vit.layernorm": "norm"}
            special |= {"projection": "patch_embed.proj", "classifier": "head"}
            part = next(timm_name for name, timm_name in special.items() if name in key)
            tail = part if part in parts else f"{part}.{key.rpartition('.')[2]}"
        own[key] = parts[tail].reshape(own[key].shape)
    model.load_state_dict(own)
    return model


def assert_same_explanation(one: nn.Module, other: nn.Module, size: int, layers: tuple, rtol: float = 1e-4) -> None:
    pixels, targets = torch.randn(1, 3, size, size), [2]
    results = []
    for model, layer in zip((one, other), layers, strict=True):
        with Explainer(model) as explainer:
            results.append(explainer.explain(pixels, targets, layer=layer))
    for field in ("logits", "relevance", "layer_relevance", "layer_activation"):
        a, b = (getattr(result, field) for result in results)
        assert (a - b).abs().max() < rtol * b.abs().max(), field


def test_timm_and_transformers_agree_on_the_same_weights():
    timm_model = timm.create_model(
        "deit_tiny_patch16_224", embed_dim=48, depth=3, num_heads=3, num_classes=5, img_size=32, patch_size=8
    )
    with torch.no_grad():
        for parameter in timm_model.parameters():
            parameter.normal_(std=0.2)
    settings = {"hidden_size": 48, "num_hidden_layers": 3, "num_attention_heads": 3, "intermediate_size": 192}
    settings |= {"image_size": 32, "patch_size": 8, "num_labels": 5}
    other = load_transformers_vit(timm_model.state_dict(), **settings)
    assert_same_explanation(timm_model, other, 32, ("block1", -2))


def test_real_deit_tiny_agrees_between_libraries(weights_folder):
    state = {
        key: value.float()
        for key, value in load_file(weights_folder / "deit_tiny_patch16_224_fp16.safetensors").items()
    }
    timm_model = timm.create_model("deit_tiny_patch16_224")
    timm_model.load_state_dict(state, strict=False)
    settings = {"hidden_size": 192, "num_hidden_layers": 12, "num_attention_heads": 3, "intermediate_size": 768}
    other = load_transformers_vit(state, **settings, num_labels=1000)
    assert_same_explanation(timm_model, other, 224, ("block4", 4), rtol=1e-3)


@pytest.mark.parametrize("name", ["test_resnet", "test_vit"])
def test_wrapped_timm_model_gives_what_the_bare_one_gives(name):
    config = TimmWrapperConfig(architecture=name, num_labels=4, model_args={"img_size": 64} if "vit" in name else None)
    wrapped = TimmWrapperForImageClassification(config)
    assert_same_explanation(wrapped, wrapped.timm_model, 64, ("last", "last"), rtol=1e-7)


@pytest.mark.parametrize("method", ["attnlrp", "attnlrp_gamma", "cp_lrp"])
def test_eager_and_fused_attention_agree(method, transformers_vit):
    eager = transformers_vit(attention="eager")
    fused = transformers_vit(attention="sdpa")
    fused.load_state_dict(eager.state_dict())
    pixels = torch.randn(2, 3, 32, 32)
    results = []
    for model in (eager, fused):
        with Explainer(model, method=method) as explainer:
            results.append(explainer.explain(pixels, 1, layer=0))
    for field in ("relevance", "layer_relevance"):
        torch.testing.assert_close(*(getattr(result, field) for result in results), rtol=1e-4, atol=1e-6)


def test_timm_eager_and_fused_attention_agree():
    model = timm.create_model("test_vit", img_size=64)
    pixels = torch.randn(2, 3, 64, 64)
    results = []
    for fused in (True, False):
        for block in model.blocks:
            block.attn.fused_attn = fused
        with Explainer(model) as explainer:
            results.append(explainer.explain(pixels, 1).relevance)
    torch.testing.assert_close(*results, rtol=1e-4, atol=1e-6)


def test_distilled_deit_is_explained_through_both_its_heads(transformers_vit):
    from transformers import DeiTForImageClassificationWithTeacher

    settings = {"hidden_size": 48, "num_hidden_layers": 2, "num_attention_heads": 3, "intermediate_size": 96}
    config = DeiTConfig(**settings, image_size=32, patch_size=8, num_labels=5)
    model = DeiTForImageClassificationWithTeacher(config).eval()
    pixels = torch.randn(1, 3, 32, 32)
    with Explainer(model, method="input_x_gradient") as explainer:
        explanation = explainer.explain(pixels, 2, layer="last")
    assert torch.equal(explanation.logits, model(pixels).logits.detach())
    by_token = explanation.layer_relevance[0].abs().sum(1)
    assert (by_token[:2] > 0).all()
    assert by_token[2:].sum() == 0  # after the last block only the two tokens with heads matter
