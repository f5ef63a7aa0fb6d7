"""RRR, CDEP and RR-ClArC: penalties against slow references, and what training with them changes."""

import copy
import re

import pytest
import tiny
import torch
from torch import nn

from hf_score.baselines import (
    CDEPConfig,
    CDEPTrainer,
    ERMTrainer,
    RRClArCConfig,
    RRClArCSamplesTrainer,
    RRClArCTrainer,
    RRRConfig,
    RRRTrainer,
    Supervision,
)
from hf_score.baselines.base import BaselineConfig
from hf_score.baselines.cdep import contextual_decomposition
from hf_score.baselines.rr_clarc import pattern_cav
from hf_score.baselines.rrr import input_gradient_penalty
from hf_score.errors import DataError, UnsupportedArchitectureError
from hf_score.models import load_model

FIELDS = {
    "num_train_epochs": 2,
    "learning_rate": 1e-3,
    "per_device_train_batch_size": 16,
    "report_to": "none",
    "save_strategy": "no",
    "use_cpu": True,
    "disable_tqdm": True,
}


class Answer:
    def __init__(self, logits):
        self.logits = logits


class Wrapped(nn.Module):
    def __init__(self, *layers):
        super().__init__()
        self.layers = nn.Sequential(*layers)

    def forward(self, pixel_values):
        return Answer(self.layers(pixel_values))


def regions_of(dataset):
    """The bright square of `tiny.square_images`, in the images of class 1."""
    region = torch.zeros(32, 32, dtype=torch.bool)
    region[:8, :8] = True
    has = {int(i): int(label) == 1 for i, label in zip(dataset.idx, dataset.labels, strict=True)}
    return lambda idx: region.numpy() if has[idx] else None


def trained(kind, config, tmp_path, data, **kwargs):
    model = tiny.tiny_vit()
    trainer = kind(model, config(tmp_path, **FIELDS), train_dataset=data, **kwargs)
    trainer.train()
    return trainer.model.eval()


def test_the_input_gradient_is_that_of_finite_differences():
    torch.manual_seed(0)
    model = Wrapped(nn.Flatten(), nn.Linear(12, 8), nn.Tanh(), nn.Linear(8, 3)).double()
    images = torch.randn(2, 3, 2, 2, dtype=torch.double)
    regions = torch.tensor([[[True, False], [True, True]], [[False, False], [False, True]]])

    def summed(x):
        return model(pixel_values=x[None]).logits.log_softmax(1).sum().item()

    expected = []
    for image, region in zip(images, regions, strict=True):
        total = 0.0
        for channel in range(3):
            for row, column in region.nonzero().tolist():
                step = torch.zeros_like(image)
                step[channel, row, column] = 1e-6
                total += ((summed(image + step) - summed(image - step)) / 2e-6) ** 2
        expected.append(total)
    # The model's logits are made float32 before the softmax, as in training.
    found = input_gradient_penalty(model, images, regions)
    assert found.tolist() == pytest.approx(expected, rel=1e-3)


def test_rrr_lowers_the_gradient_in_the_region(tmp_path):
    data = tiny.square_images(64)
    regions = regions_of(data)
    plain = trained(ERMTrainer, BaselineConfig, tmp_path, data)
    right = trained(RRRTrainer, RRRConfig, tmp_path, data, supervision=Supervision(regions=regions))
    squares = data.pixel_values[data.labels == 1]
    masks = torch.as_tensor(regions(1)).expand(len(squares), -1, -1)
    before, after = (input_gradient_penalty(m, squares, masks).mean().item() for m in (plain, right))
    assert after < before / 3


def test_a_set_without_regions_is_refused(tmp_path):
    data = tiny.square_images(8)
    with pytest.raises(DataError, match="RRR penalises annotated regions, and no training image has one"):
        RRRTrainer(
            tiny.tiny_vit(),
            RRRConfig(tmp_path, **FIELDS),
            train_dataset=data,
            supervision=Supervision(regions=lambda idx: None),
        )


MODELS = {
    "test_resnet": 32,
    "test_efficientnet": 32,
    "test_vit": 160,
    "transformers ViT": 32,
}


@pytest.mark.parametrize("name", MODELS)
def test_both_parts_add_up_to_the_logits(name):
    size = MODELS[name]
    torch.manual_seed(0)
    if name == "transformers ViT":
        model = tiny.tiny_vit()
    else:
        model, _, _ = load_model(name, class_names=["a", "b"], from_scratch=True, image_size=size)
    model = model.double().eval()
    images = torch.randn(2, 3, size, size, dtype=torch.double)
    regions = torch.zeros(2, size, size, dtype=torch.bool)
    regions[:, : size // 2, : size // 3] = True
    region, rest = contextual_decomposition(model, images, regions)
    logits = model(pixel_values=images).logits
    torch.testing.assert_close(region + rest, logits, rtol=1e-10, atol=1e-12)
    nothing, everything = contextual_decomposition(model, images, torch.zeros_like(regions))
    assert nothing.abs().max() < 1e-10 * max(1, logits.abs().max())
    torch.testing.assert_close(everything, logits, rtol=1e-10, atol=1e-12)


def test_decomposition_of_a_small_network_by_hand():
    torch.manual_seed(0)
    first, second = nn.Linear(4, 5), nn.Linear(5, 2)
    model = Wrapped(nn.Flatten(), first, nn.ReLU(), second).double()
    image = torch.randn(1, 1, 2, 2, dtype=torch.double)
    region = torch.tensor([[[True, False], [False, True]]])
    beta = [float(v) if r else 0.0 for v, r in zip(image.flatten(), region.flatten(), strict=True)]
    gamma = [0.0 if r else float(v) for v, r in zip(image.flatten(), region.flatten(), strict=True)]

    def layer(linear, beta, gamma):
        outs = []
        for weights, bias in zip(linear.weight.tolist(), linear.bias.tolist(), strict=True):
            b = sum(w * v for w, v in zip(weights, beta, strict=True))
            g = sum(w * v for w, v in zip(weights, gamma, strict=True))
            share = abs(b) / (abs(b) + abs(g))
            outs.append((b + share * bias, g + (1 - share) * bias))
        return [b for b, _ in outs], [g for _, g in outs]

    beta, gamma = layer(first, beta, gamma)
    halves = [(max(b + g, 0) - max(g, 0) + max(b, 0)) / 2 for b, g in zip(beta, gamma, strict=True)]
    gamma = [max(b + g, 0) - half for b, g, half in zip(beta, gamma, halves, strict=True)]
    beta, gamma = layer(second, halves, gamma)
    found = contextual_decomposition(model, image, region)
    assert found[0][0].tolist() == pytest.approx(beta, rel=1e-10)
    assert found[1][0].tolist() == pytest.approx(gamma, rel=1e-10)


def test_a_function_without_a_rule_is_refused_by_name():
    class Odd(nn.Module):
        def forward(self, x):
            return torch.cumsum(x, dim=-1)

    model = Wrapped(Odd(), nn.Flatten(), nn.Linear(12, 2))
    with pytest.raises(UnsupportedArchitectureError, match=r"no rule for torch\.cumsum"):
        contextual_decomposition(model, torch.randn(1, 3, 2, 2), torch.ones(1, 2, 2, dtype=torch.bool))


def test_cdep_lowers_what_the_region_contributes(tmp_path):
    data = tiny.square_images(64)
    regions = regions_of(data)
    plain = trained(ERMTrainer, BaselineConfig, tmp_path, data)
    penalised = trained(CDEPTrainer, CDEPConfig, tmp_path, data, supervision=Supervision(regions=regions))
    squares = data.pixel_values[data.labels == 1]
    masks = torch.as_tensor(regions(1)).expand(len(squares), -1, -1)
    scores = [
        torch.sigmoid(torch.sub(*contextual_decomposition(m, squares, masks))).mean() for m in (plain, penalised)
    ]
    assert scores[1] < scores[0] - 0.05


def test_the_pattern_points_from_images_without_to_images_with_the_artefact():
    torch.manual_seed(0)
    direction = nn.functional.normalize(torch.randn(6), dim=0)
    artefact = torch.arange(200) % 2 == 1
    activations = torch.randn(200, 6) * 0.1 + artefact[:, None] * direction
    found = pattern_cav(activations, artefact, torch.zeros(200))
    means = activations[artefact].mean(0) - activations[~artefact].mean(0)
    torch.testing.assert_close(found, nn.functional.normalize(means, dim=0))
    assert found @ direction > 0.99


def test_the_direction_of_a_shortcut_is_not_that_of_its_class():
    torch.manual_seed(0)
    of_class, of_artefact = torch.eye(6)[:2]
    classes = torch.arange(400) % 2
    artefact = (classes == 1) ^ (torch.arange(400) % 20 < 2)  # in 90 % of one class and 10 % of the other
    activations = torch.randn(400, 6) * 0.1 + 3 * classes[:, None] * of_class + artefact[:, None] * of_artefact
    assert pattern_cav(activations, artefact, classes) @ of_artefact > 0.98
    typical = artefact == (classes == 1)  # without the others, class and artefact cannot be told apart
    assert pattern_cav(activations[typical], artefact[typical], classes[typical]) @ of_class > 0.9


def test_rr_clarc_turns_the_gradient_away_from_the_artefact(tmp_path):
    data = tiny.square_images(64)
    groups = {int(i): int(2 * (i % 4 >= 2)) + int(label) for i, label in zip(data.idx, data.labels, strict=True)}
    model = tiny.tiny_vit()
    trained_first, trained_before = copy.deepcopy(model), copy.deepcopy(model)
    fields = {**FIELDS, "num_train_epochs": 8}  # the head alone is trained
    config = RRClArCConfig(tmp_path, **fields, rr_clarc_lambda=10.0)
    trainer = RRClArCTrainer(model, config, train_dataset=data, supervision=Supervision(train_groups=groups))
    trainer.train()
    images = data.pixel_values[:16]
    after = trainer.latent_gradient(trainer.model.eval(), images).square().mean()
    plain = ERMTrainer(trained_first, BaselineConfig(tmp_path, **fields), train_dataset=data)
    plain.train()
    before = trainer.latent_gradient(plain.model.eval(), images).square().mean()
    assert after < before / 3
    start = dict(trained_before.named_parameters())
    moved = {name for name, value in trainer.model.named_parameters() if not value.equal(start[name])}
    # The second of three blocks is where the direction is: what comes after it is trained, nothing before.
    assert all(re.search(r"layers?\.2\.|vit\.layernorm|classifier", name) for name in moved)
    assert sum(".2." in name for name in moved) > 10
    assert trainer.gates()["positions_with_gradient"] == 1.0
    assert all(parameter.requires_grad for parameter in trainer.model.parameters())


def test_rr_clarc_learns_the_direction_of_a_region_from_exchanged_copies(tmp_path):
    data = tiny.square_images(64)
    samples = tiny.square_samples()
    trainer = RRClArCSamplesTrainer(
        tiny.tiny_vit(),
        RRClArCConfig(tmp_path, **FIELDS),
        train_dataset=data,
        supervision=Supervision(samples=samples),
    )
    activations, artefact, classes = trainer.examples(trainer.model)
    assert len(activations) == len(artefact) == len(classes) == 4 * len(samples)
    with torch.no_grad(), trainer.layer.capture() as captured:
        trainer.model.eval()(pixel_values=samples.pixel_values)
    torch.testing.assert_close(activations[: len(samples)], captured.activation.amax(dim=1))
    assert artefact[: len(samples)].all() and classes[: len(samples)].equal(samples.labels)
    assert not artefact[2 * len(samples) :].any()
