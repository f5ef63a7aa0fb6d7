"""What `Explainer` promises beside its numbers: the model is left alone, and the surroundings do not matter."""

import copy

import pytest
import timm
import torch
from torch import nn

from hf_score.attribution import Explainer, find_layer
from hf_score.errors import HFScoreError, ModelError

NAMES = ["test_resnet", "test_vit"]


@pytest.fixture(params=NAMES)
def model(request):
    settings = {"img_size": 32, "patch_size": 8} if request.param == "test_vit" else {}
    return timm.create_model(request.param, num_classes=4, **settings)


@pytest.fixture
def pixels():
    return torch.randn(3, 3, 32, 32)


def snapshot(model: nn.Module) -> dict:
    """Everything about a model that explaining it could change."""
    return {
        "state": {key: (value.data_ptr(), value.clone()) for key, value in model.state_dict().items()},
        "parameters": [(name, id(p), p.requires_grad, p.grad) for name, p in model.named_parameters()],
        "modules": [(name, id(m), type(m), m.training, sorted(vars(m))) for name, m in model.named_modules()],
        "hooks": [
            (name, attribute, list(value.items()))
            for name, m in model.named_modules()
            for attribute, value in vars(m).items()
            if attribute.endswith("hooks")
        ],
        "in place": [getattr(m, "inplace", None) for m in model.modules()],
        "random": torch.get_rng_state(),
    }


def assert_same(before: dict, after: dict) -> None:
    assert list(before["state"]) == list(after["state"])
    for key, (pointer, value) in before["state"].items():
        assert after["state"][key][0] == pointer
        assert torch.equal(value.flatten().view(torch.uint8), after["state"][key][1].flatten().view(torch.uint8)), key
    for (name, *before_parameter, gradient), (_, *after_parameter, new) in zip(
        before["parameters"], after["parameters"], strict=True
    ):
        assert before_parameter == after_parameter, name
        assert gradient is new
    for key in ("modules", "hooks", "in place"):
        assert before[key] == after[key], key
    assert torch.equal(before["random"], after["random"])


class Interruption(Exception):
    pass


@pytest.mark.parametrize("interrupted", [False, True])
@pytest.mark.parametrize("method", [None, "input_x_gradient"])
def test_the_model_is_left_exactly_as_it_was(model, pixels, method, interrupted):
    model.train()
    list(model.modules())[3].eval()
    parameters = list(model.parameters())
    parameters[0].requires_grad_(False)
    parameters[1].grad = torch.ones_like(parameters[1])
    fired = []
    for module in model.modules():
        module.register_forward_hook(lambda *args: fired.append(args))
        module.register_forward_pre_hook(lambda *args: fired.append(args))
    before = snapshot(model)
    try:
        with Explainer(model, method=method) as explainer:
            explainer.explain(pixels, 1, layer="last")
            if interrupted:
                raise Interruption
    except Interruption:
        pass
    assert_same(before, snapshot(model))
    assert not fired


def test_the_model_is_left_alone_when_explaining_fails(model):
    four_channels = torch.randn(1, 4, 32, 32)
    before = snapshot(model)
    with pytest.raises(ModelError), Explainer(model) as explainer:
        explainer.explain(four_channels, 0)
    assert_same(before, snapshot(model))
    with Explainer(model) as explainer:
        explainer.explain(four_channels[:, :3], 0)


def test_weights_are_those_of_the_moment_of_entering(model, pixels):
    explainer = Explainer(model)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(1.5)
    expected = model.eval()(pixels)
    with explainer:
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.mul_(1.5)
        torch.testing.assert_close(explainer.explain(pixels, 0).logits, expected, rtol=1e-4, atol=1e-5)
    with explainer:
        torch.testing.assert_close(explainer.explain(pixels, 0).logits, model(pixels), rtol=1e-4, atol=1e-5)


def test_logits_and_activations_are_the_models_own(model, pixels):
    probe = find_layer(model, -2)
    with probe.capture() as captured:
        logits = model.eval()(pixels)
    with Explainer(model) as explainer:
        explanation = explainer.explain(pixels, 0, layer=probe)
    torch.testing.assert_close(explanation.layer_activation, captured.activation, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(explanation.logits, logits, rtol=1e-4, atol=1e-5)
    assert explanation.layer_relevance.shape == explanation.layer_activation.shape
    assert explanation.relevance.shape == (3, 32, 32)
    tensors = [value for value in vars(explanation).values() if isinstance(value, torch.Tensor)]
    assert all(value.dtype == torch.float32 and not value.requires_grad for value in tensors)


def test_a_sample_does_not_depend_on_its_batch(model, pixels):
    with Explainer(model) as explainer:
        together = explainer.explain(pixels, [0, 1, 2], layer="last")
        for i in range(3):
            alone = explainer.explain(pixels[i : i + 1], [i], layer="last")
            for field in ("relevance", "layer_relevance", "layer_activation", "logits"):
                one, other = getattr(alone, field)[0], getattr(together, field)[i]
                assert (one - other).abs().max() <= 1e-4 * other.abs().max(), field


def test_stopping_at_the_layer_gives_the_same_relevance_there(model, pixels):
    with Explainer(model) as explainer:
        full = explainer.explain(pixels, 1, layer=1)
        short = explainer.explain(pixels, 1, layer=1, pixels=False)
    assert short.relevance is None
    assert torch.equal(short.layer_relevance, full.layer_relevance)


@pytest.mark.parametrize("surroundings", [torch.no_grad, torch.inference_mode, lambda: torch.autocast("cpu")])
def test_surroundings_do_not_matter(model, pixels, surroundings):
    with Explainer(model) as explainer:
        expected = explainer.explain(pixels, 1, layer="last")
    with surroundings():
        inside, targets = pixels * 1, torch.tensor([1, 1, 1])
        with Explainer(model) as explainer:
            explanation = explainer.explain(inside, targets, layer="last")
    assert torch.equal(explanation.relevance, expected.relevance)
    assert torch.equal(explanation.layer_relevance, expected.layer_relevance)


def test_a_half_precision_model_is_explained_in_single_precision(model, pixels):
    half = copy.deepcopy(model).bfloat16()
    with Explainer(copy.deepcopy(half).float()) as explainer:
        expected = explainer.explain(pixels, 1).relevance
    with Explainer(half) as explainer:
        assert torch.equal(explainer.explain(pixels, 1).relevance, expected)
    assert {parameter.dtype for parameter in half.parameters()} == {torch.bfloat16}


def test_a_model_prepared_for_mixed_precision_is_explained_in_single_precision(model, pixels):
    from accelerate import Accelerator
    from accelerate.state import AcceleratorState, PartialState

    with Explainer(model) as explainer:
        expected = explainer.explain(pixels, 1).relevance
    try:
        prepared = Accelerator(cpu=True, mixed_precision="bf16").prepare(model)
        forward = prepared.forward
        with Explainer(prepared) as explainer:
            assert torch.equal(explainer.explain(pixels, 1).relevance, expected)
        assert prepared.forward is forward
    finally:
        AcceleratorState._reset_state()
        PartialState._reset_state()


def test_input_x_gradient_is_what_it_says(model, pixels):
    with Explainer(model, method="input_x_gradient") as explainer:
        explanation = explainer.explain(pixels, 1, layer=0)
    x = pixels.clone().requires_grad_()
    with find_layer(model, 0).capture() as captured:
        logits = model.eval()(x)
    gradients = torch.autograd.grad(logits[:, 1].sum(), [x, captured.activation], allow_unused=True)
    torch.testing.assert_close(explanation.relevance, (x * gradients[0]).sum(1).detach(), rtol=1e-4, atol=1e-6)


def test_margin_is_the_difference_of_two_explanations(model, pixels):
    """LRP is linear in what it starts from, so R(margin) = R(class) − R(strongest other class)."""
    with Explainer(model) as explainer:
        margin = explainer.explain(pixels, 2, objective="margin")
        others = margin.logits.clone()
        others[:, 2] = -torch.inf
        of_class = explainer.explain(pixels, 2).relevance
        of_other = explainer.explain(pixels, others.argmax(1)).relevance
    torch.testing.assert_close(margin.relevance, of_class - of_other, rtol=1e-3, atol=1e-5)


def test_an_activation_is_recorded_before_the_relu_that_overwrites_it(pixels):
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(inplace=True), nn.Flatten(), nn.Linear(4 * 30 * 30, 2))
    expected = model[0](pixels).flatten(2).transpose(1, 2)
    for method in ("epsilon", "input_x_gradient"):
        with Explainer(model, method=method) as explainer:
            explanation = explainer.explain(pixels, 1, layer="0")
        torch.testing.assert_close(explanation.layer_activation, expected)
        # Nothing passes through a unit that is off.
        assert explanation.layer_relevance[expected < 0].abs().max() == 0


def test_a_convolution_merged_with_its_batch_norm_cannot_be_probed(pixels):
    model = timm.create_model("test_resnet")
    with Explainer(model) as explainer:
        with pytest.raises(ModelError, match=r"'layer1\.0\.conv1' .* a batch norm is merged"):
            explainer.explain(pixels, 0, layer="layer1.0.conv1")
        explanation = explainer.explain(pixels, 0, layer="layer1.0.bn1")
    with find_layer(model, "layer1.0.bn1").capture() as captured:
        model.eval()(pixels)
    torch.testing.assert_close(explanation.layer_activation, captured.activation, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", ["blocks.2.attn", "blocks.2.mlp.fc1", "blocks.2.attn.qkv", "patch_embed"])
def test_parts_of_a_block_can_be_explained(pixels, name):
    model = timm.create_model("test_vit", num_classes=4, img_size=32, patch_size=8)
    with Explainer(model) as explainer:
        full = explainer.explain(pixels, 1, layer=name)
        short = explainer.explain(pixels, 1, layer=name, pixels=False)
    assert torch.equal(full.layer_relevance, short.layer_relevance)
    assert full.layer_relevance.abs().sum() > 0


def test_attention_output_that_comes_in_a_tuple(pixels, transformers_vit):
    model = transformers_vit()
    name = next(name for name, _ in model.named_modules() if name.endswith("1.attention"))
    with Explainer(model) as explainer:
        explanation = explainer.explain(pixels, 1, layer=name)
    assert explanation.layer_relevance.shape == (3, 17, 48)


@pytest.mark.parametrize(
    ("call", "words"),
    [
        ({"targets": 4}, "not among the model's 4 classes"),
        ({"targets": [0, -1, 0]}, "not among the model's 4 classes"),
        ({"targets": 0, "pixels": False}, "nothing to explain"),
        ({"targets": 0, "objective": "loss"}, "use 'logit' or 'margin'"),
        ({"targets": 0, "layer": "stage9"}, "no layer 'stage9'; use 'last'"),
    ],
)
def test_bad_requests_are_answered_in_one_sentence(model, pixels, call, words):
    with Explainer(model) as explainer, pytest.raises(HFScoreError, match=words) as caught:
        explainer.explain(pixels, **call)
    assert str(caught.value).count(". ") == 0


def test_explaining_outside_the_context_is_refused(model, pixels):
    explainer = Explainer(model)
    with pytest.raises(HFScoreError, match="with Explainer"):
        explainer.explain(pixels, 0)


def test_an_unknown_method_is_answered_with_the_known_ones(model):
    with pytest.raises(ModelError, match="input_x_gradient"):
        Explainer(model, method="gradcam")


@pytest.mark.slow
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_cuda_agrees_with_the_cpu(model, pixels):
    with Explainer(model) as explainer:
        expected = explainer.explain(pixels, [0, 1, 2], layer="last")
    with Explainer(model.cuda()) as explainer:
        explanation = explainer.explain(pixels, [0, 1, 2], layer="last")
    for field in ("relevance", "layer_relevance"):
        one, other = getattr(explanation, field).cpu(), getattr(expected, field)
        assert (one - other).abs().max() < 1e-3 * other.abs().max()


def test_a_model_with_adapters_is_explained_with_them(transformers_vit, pixels):
    peft = pytest.importorskip("peft")
    model = peft.get_peft_model(
        transformers_vit(), peft.LoraConfig(target_modules=["q_proj", "v_proj"], init_lora_weights=False)
    )
    with torch.no_grad(), Explainer(model) as explainer:
        explanation = explainer.explain(pixels, 1, layer="last")
        merged = model.merge_and_unload().eval()
    torch.testing.assert_close(explanation.logits, merged(pixels).logits.detach(), rtol=1e-4, atol=1e-5)
    assert explanation.relevance.abs().sum() > 0


def test_a_compiled_model_is_explained(model, pixels):
    with Explainer(model) as explainer:
        expected = explainer.explain(pixels, 1).relevance
    with Explainer(torch.compile(model)) as explainer:
        assert torch.equal(explainer.explain(pixels, 1).relevance, expected)


def test_micro_batches_give_the_same(model, pixels):
    with Explainer(model) as explainer:
        expected = explainer.explain(pixels, [0, 1, 2], layer="last")
    with Explainer(model, batch_size=2) as explainer:
        explanation = explainer.explain(pixels, [0, 1, 2], layer="last")
    for field in ("relevance", "layer_relevance", "logits", "convergence_delta"):
        one, other = getattr(explanation, field), getattr(expected, field)
        assert (one - other).abs().max() <= 1e-4 * other.abs().max(), field
    assert explanation.absorbed["biases"].shape == (3,)


def test_the_batch_is_split_when_memory_is_short(model, pixels, monkeypatch):
    sizes = []
    with Explainer(model) as explainer:
        explainer.explain(pixels, 0)
        (of_one,) = explainer._measured.values()
        model_run = explainer._explain
        monkeypatch.setattr(explainer, "_explain", lambda x, *rest: sizes.append(len(x)) or model_run(x, *rest))
        monkeypatch.setattr("psutil.virtual_memory", lambda: type("Memory", (), {"available": 4 * of_one + 1}))
        explainer.explain(pixels, 0)
    assert sizes == [2, 1]


def test_what_biases_absorb_is_what_they_add(pixels):
    """A network of one layer: the logit is the pixels' relevance plus the bias."""
    model = nn.Sequential(nn.Flatten(), nn.Linear(3 * 32 * 32, 2))
    with Explainer(model, method="epsilon", epsilon=1e-9) as explainer:
        explanation = explainer.explain(pixels, 1)
    share = model[1].bias[1].detach() / explanation.logits[:, 1].abs()
    torch.testing.assert_close(explanation.absorbed["biases"], share, rtol=1e-4, atol=1e-6)
    assert explanation.absorbed["rules"].abs().max() < 1e-4


def test_what_the_class_token_takes_is_told(transformers_vit, pixels):
    """With attention a constant and nothing but tokens, class token, positions and biases are all there is."""
    model = transformers_vit().double()
    with Explainer(model, method="cp_lrp") as explainer:
        explanation = explainer.explain(pixels.double(), 1)
    assert explanation.absorbed["class_token"].abs().max() > 0
    assert explanation.absorbed["positions"].abs().max() > 0
    assert explanation.absorbed["rules"].abs().max() < 1e-9


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (lambda x: x[:, :1], r"\(3, 1, 32, 32\), but the model takes \(batch, 3, height, width\)"),
        (lambda x: x[0], r"but the model takes"),
        (lambda x: x.index_fill(0, torch.tensor([1]), torch.nan), "image 1 of the batch are not finite"),
    ],
)
def test_bad_pixels_are_answered_in_one_sentence(model, pixels, spoil, words):
    with Explainer(model) as explainer, pytest.raises(ModelError, match=words):
        explainer.explain(spoil(pixels), 0)
