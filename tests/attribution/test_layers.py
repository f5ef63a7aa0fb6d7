"""Probe layers: addressed in words, recorded during training under every wrapper, and gone without a trace."""

import pytest
import timm
import torch
import torch.distributed as dist
from torch import nn

from hf_score.attribution import ProbeLayer, find_layer
from hf_score.errors import ModelError, UnsupportedArchitectureError


@pytest.fixture
def resnet():
    return timm.create_model("test_resnet", num_classes=3)


@pytest.fixture
def vit():
    return timm.create_model("test_vit", num_classes=3, img_size=32, patch_size=8)


PIXELS = (2, 3, 32, 32)


@pytest.mark.parametrize(
    ("layer", "name"),
    [
        ("last", "layer4.0"),
        (-1, "layer4.0"),
        (-2, "layer3.0"),
        (0, "layer1.0"),
        ("stage1", "layer1.0"),
        ("stage3", "layer3.0"),
        ("layer2", "layer2"),
        ("layer2.0.conv1", "layer2.0.conv1"),
    ],
)
def test_layers_of_a_cnn(resnet, layer, name):
    probe = find_layer(resnet, layer)
    assert probe.name == name
    assert probe.module is resnet.get_submodule(name)
    assert find_layer(resnet, probe) == probe


@pytest.mark.parametrize(
    ("layer", "name"),
    [
        ("last", "blocks.5"),
        (3, "blocks.3"),
        ("block3", "blocks.3"),
        (-2, "blocks.4"),
        ("blocks.1.mlp.fc1", "blocks.1.mlp.fc1"),
    ],
)
def test_layers_of_a_vit(vit, layer, name):
    assert find_layer(vit, layer).name == name


def test_vgg_stages_end_with_a_pool():
    with torch.device("meta"):
        vgg = timm.create_model("vgg11_bn")
    assert [type(find_layer(vgg, k).module) for k in range(5)] == [nn.MaxPool2d] * 5


def test_layers_of_wrapped_and_native_models(transformers_vit):
    from transformers import TimmWrapperConfig, TimmWrapperForImageClassification

    wrapped = TimmWrapperForImageClassification(TimmWrapperConfig(architecture="test_resnet", num_labels=2))
    assert find_layer(wrapped, "stage2").name == "timm_model.layer2.0"
    native = transformers_vit()
    probe = find_layer(native, 1)
    assert type(probe.module).__name__ == "ViTLayer"
    assert probe == find_layer(native, -2) == find_layer(native, "block1")


@pytest.mark.parametrize("layer", [4, -5, "block1", "layer9", ""])
def test_a_layer_that_is_not_there(resnet, layer):
    with pytest.raises(ModelError, match="'last', one of stage1, stage2, stage3, stage4, an index from -4 to 3"):
        find_layer(resnet, layer)


def test_only_dotted_names_without_a_family():
    model = nn.ModuleDict({"a": nn.Tanh()})
    assert find_layer(model, "a").module is model["a"]
    with pytest.raises(UnsupportedArchitectureError):
        find_layer(model, "last")


def test_positions_come_before_neurons():
    probe = ProbeLayer("any", nn.Identity())
    features = torch.randn(2, 5, 3, 4)
    positions = probe.to_positions(features)
    assert positions.shape == (2, 12, 5)
    assert torch.equal(positions[1, 1 * 4 + 2], features[1, :, 1, 2])
    tokens = torch.randn(2, 7, 5)
    assert torch.equal(probe.to_positions(tokens), tokens)
    assert probe.to_positions(torch.randn(2, 5)).shape == (2, 1, 5)
    with pytest.raises(ModelError, match="cannot be probed"):
        probe.to_positions(torch.randn(2, 3, 4, 5, 6))


def hooks(model):
    return sum(len(module._forward_hooks) for module in model.modules())


def test_capture_records_the_activation_and_leaves_no_hook(resnet):
    probe = find_layer(resnet, "stage2")
    resnet.eval()
    seen = []
    handle = probe.module.register_forward_hook(lambda module, args, output: seen.append(output.clone()))
    pixels = torch.randn(PIXELS)
    with probe.capture() as captured:
        resnet(pixels)
    assert torch.equal(captured.activation, seen[0].flatten(2).transpose(1, 2))
    handle.remove()
    assert hooks(resnet) == 0
    with pytest.raises(RuntimeError, match="interrupted"), probe.capture():
        raise RuntimeError("interrupted")
    assert hooks(resnet) == 0


def test_capture_does_not_change_what_the_model_computes(resnet):
    resnet.eval()
    pixels = torch.randn(PIXELS)
    expected = resnet(pixels)
    expected.sum().backward()
    gradients = [parameter.grad.clone() for parameter in resnet.parameters()]
    resnet.zero_grad()
    with find_layer(resnet, "layer1.0.conv1").capture() as captured:
        logits = resnet(pixels)
    (logits.sum() + 0 * captured.activation.sum()).backward()
    assert torch.equal(logits, expected)
    for parameter, gradient in zip(resnet.parameters(), gradients, strict=True):
        assert torch.equal(parameter.grad, gradient)


def test_capture_sees_the_output_before_a_relu_overwrites_it():
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(inplace=True))
    with find_layer(model, "0").capture() as captured:
        model(torch.randn(PIXELS))
    assert captured.activation.min() < 0


def test_gradients_reach_exactly_the_weights_up_to_the_layer(vit):
    with find_layer(vit, 2).capture() as captured:
        vit(torch.randn(PIXELS))
    captured.activation.abs().sum().backward()
    moved = {name for name, parameter in vit.named_parameters() if parameter.grad is not None}
    expected = {
        name for name, _ in vit.named_parameters() if not name.startswith("blocks") or int(name.split(".")[1]) <= 2
    } - {name for name, _ in vit.named_parameters() if name.startswith(("norm.", "fc_norm", "head"))}
    assert moved == expected


def test_a_layer_that_did_not_run():
    model = nn.Sequential(nn.Identity())
    with find_layer(model, "0").capture() as captured:
        pass
    with pytest.raises(ModelError, match="'0' did not run"):
        _ = captured.activation


def gradients_of_penalty(model, probe, pixels):
    model.zero_grad()
    with probe.capture() as captured:
        output = model(pixels)
    logits = getattr(output, "logits", output)
    (logits.logsumexp(1).sum() + captured.activation.square().mean()).backward()
    return [parameter.grad.clone() for parameter in model.parameters() if parameter.grad is not None]


@pytest.mark.parametrize("kind", ["resnet", "vit", "transformers"])
def test_capture_with_activation_checkpointing(kind, request, transformers_vit):
    model = transformers_vit() if kind == "transformers" else request.getfixturevalue(kind)
    model.train()
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.eval()
    probe, pixels = find_layer(model, -2), torch.randn(PIXELS)
    expected = gradients_of_penalty(model, probe, pixels)
    if kind == "transformers":
        model.gradient_checkpointing_enable({"use_reentrant": False})
    else:
        model.set_grad_checkpointing()
    for gradient, reference in zip(gradients_of_penalty(model, probe, pixels), expected, strict=True):
        torch.testing.assert_close(gradient, reference)


def test_capture_under_distributed_data_parallel(resnet, tmp_path):
    resnet.eval()
    probe, pixels = find_layer(resnet, "stage3"), torch.randn(PIXELS)
    expected = gradients_of_penalty(resnet, probe, pixels)
    dist.init_process_group("gloo", init_method=f"file://{tmp_path}/store", rank=0, world_size=1)
    try:
        wrapped = nn.parallel.DistributedDataParallel(resnet)
        assert find_layer(wrapped, "stage3") == probe
        for gradient, reference in zip(gradients_of_penalty(wrapped, probe, pixels), expected, strict=True):
            torch.testing.assert_close(gradient, reference)
    finally:
        dist.destroy_process_group()
