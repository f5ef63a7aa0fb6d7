"""Every baseline moves its own signature statistic in the right direction, and its formulas equal slow ones."""

import math

import numpy as np
import pytest
import tiny
import torch
from torch import nn

from hf_score.baselines import BASELINES, Supervision
from hf_score.baselines.afr import AFRConfig, AFRTrainer
from hf_score.baselines.base import BaselineConfig
from hf_score.baselines.clustering import kmeans, kmeans_within
from hf_score.baselines.cnc import contrastive_loss
from hf_score.baselines.dfr import logistic_regression
from hf_score.baselines.erm import ERMTrainer
from hf_score.baselines.last_layer import class_balance, descend, refit
from hf_score.baselines.lff import generalised_cross_entropy
from hf_score.baselines.masktune import salient
from hf_score.baselines.pruning import Gate
from hf_score.baselines.self_ import disagreement
from hf_score.bench.job import GroupedPixels
from hf_score.data import PixelDataset
from hf_score.evaluation import group_metrics
from hf_score.models import classifier_head


def biased(count: int, *, minority: float, seed: int, edge_strength: float = 0.25) -> GroupedPixels:
    """Noise images: a vertical edge says the class in 3 of 4, a bright square in the corner in all but the minority.
    Group = 2 · class + square."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(count) % 2
    conflicts = torch.rand(count, generator=generator) < minority
    square = torch.where(conflicts, 1 - labels, labels)
    pixels = torch.randn(count, 3, 32, 32, generator=generator) * 0.3
    edge = torch.where(torch.rand(count, generator=generator) < 0.25, 1 - labels, labels)
    pixels[edge == 1, :, :, 16:] += edge_strength
    pixels[square == 1, :, :8, :8] += 2.0
    return GroupedPixels(pixels, labels, torch.arange(count), 2 * labels + square)


def bare(data: GroupedPixels) -> PixelDataset:
    return PixelDataset(data.pixel_values, data.labels, data.idx)


TRAIN = biased(192, minority=0.08, seed=0)
HELD_OUT = biased(96, minority=0.08, seed=1)
VALIDATION = biased(96, minority=0.5, seed=2)
TEST = biased(128, minority=0.5, seed=3)
GROUPS = dict(zip(TRAIN.idx.tolist(), TRAIN.group.tolist(), strict=True))


def fields(folder, epochs=6):
    return {
        "output_dir": str(folder),
        "num_train_epochs": epochs,
        "learning_rate": 2e-3,
        "per_device_train_batch_size": 32,
        "report_to": "none",
        "save_strategy": "no",
        "use_cpu": True,
        "disable_tqdm": True,
        "dataloader_pin_memory": False,
    }


def fit(name, folder, *, model=None, epochs=6, train=TRAIN, **changes):
    kind = BASELINES[name]
    trainer = kind(
        model or tiny.tiny_vit(),
        kind.config_class(**fields(folder, epochs), **changes),
        train_dataset=bare(train),
        eval_dataset=bare(HELD_OUT),
        supervision=Supervision(train_groups=GROUPS, validation=VALIDATION),
        reference_model=EARLY if kind.second_model else None,
    )
    trainer.train()
    return trainer


def worst_group(model) -> float:
    with torch.no_grad():
        logits = model.eval()(pixel_values=TEST.pixel_values).logits
    names = ["0", "1", "2", "3"]
    return group_metrics(logits, TEST.labels, TEST.group, group_names=names)["worst_group_accuracy"]


def erm_model(folder, data):
    torch.manual_seed(0)
    trainer = ERMTrainer(tiny.tiny_vit(), BaselineConfig(**fields(folder)), train_dataset=bare(data))
    trainer.train()
    return trainer.model.eval()


@pytest.fixture(scope="module", autouse=True)
def erm(tmp_path_factory):
    """The ERM model, which goes by the square; and in `EARLY` one that goes by nothing else, as early models do."""
    global EARLY
    EARLY = erm_model(tmp_path_factory.mktemp("early"), biased(192, minority=0.0, seed=4, edge_strength=0.0))
    return erm_model(tmp_path_factory.mktemp("erm"), TRAIN)


def copy_of(model):
    fresh = tiny.tiny_vit()
    fresh.load_state_dict(model.state_dict())
    return fresh


def test_group_dro_weights_groups_by_their_loss(tmp_path):
    trainer = fit("group_dro", tmp_path, epochs=1, group_dro_step_size=0.5, group_dro_loss_momentum=0.0)
    before = trainer.group_weights.clone()
    chosen = torch.cat([(TRAIN.group == g).nonzero()[:4, 0] for g in range(4)])
    inputs = {"pixel_values": TRAIN.pixel_values[chosen], "labels": TRAIN.labels[chosen]}
    loss, outputs = trainer.batch_loss(trainer.model.eval(), inputs, TRAIN.idx[chosen])
    losses = nn.functional.cross_entropy(outputs.logits, inputs["labels"], reduction="none")
    per_group = losses.detach().reshape(4, 4).mean(dim=1)
    expected = before * torch.exp(0.5 * per_group)
    expected = expected / expected.sum()
    torch.testing.assert_close(trainer.group_weights, expected)
    torch.testing.assert_close(loss, (expected * losses.reshape(4, 4).mean(dim=1)).sum())


@pytest.mark.parametrize("name", ["reweighting", "subsampling", "group_dro"])
def test_groups_are_drawn_equally(name, tmp_path):
    weights = fit(name, tmp_path, epochs=1).sample_weights()
    shares = torch.stack([weights[TRAIN.group == g].sum() for g in range(4)]) / weights.sum()
    assert shares.tolist() == pytest.approx([0.25] * 4)


def test_subsampling_takes_as_many_of_every_group(tmp_path):
    weights = fit("subsampling", tmp_path, epochs=1).sample_weights()
    assert {int((weights[TRAIN.group == g] > 0).sum()) for g in range(4)} == {int(torch.bincount(TRAIN.group).min())}


def test_lff_weights_what_the_biased_model_finds_harder(tmp_path):
    trainer = fit("lff", tmp_path, epochs=1, lff_momentum=0.5)
    trainer._losses[:] = torch.nan
    first = trainer._difficulty(torch.tensor([0, 2]), torch.tensor([[4.0, 1.0], [1.0, 2.0]]))
    # Both are of class 0: losses are divided by the largest of each model.
    assert first.tolist() == pytest.approx([1.0 / 1.5, 0.25 / 1.25])
    again = trainer._difficulty(torch.tensor([2]), torch.tensor([[3.0], [0.0]]))
    assert again.tolist() == pytest.approx([(2.0 / 4.0) / (2.0 / 4.0 + 1.0)])


def test_generalised_cross_entropy_has_the_papers_gradient():
    logits = torch.randn(5, 3, dtype=torch.double, requires_grad=True)
    labels = torch.tensor([0, 1, 2, 0, 1])
    (found,) = torch.autograd.grad(generalised_cross_entropy(logits, labels, q=0.7).sum(), logits)
    probability = logits.softmax(1).gather(1, labels[:, None])[:, 0]
    (papers,) = torch.autograd.grad(((1 - probability**0.7) / 0.7).sum(), logits)
    torch.testing.assert_close(found, 0.7 * papers)


def test_the_contrastive_loss_by_hand():
    torch.manual_seed(0)
    features = torch.randn(6, 4, dtype=torch.double)
    labels, first = [0, 0, 0, 1, 1, 1], [0, 0, 1, 1, 0, 1]
    unit = [[v / math.sqrt(sum(w * w for w in row)) for v in row] for row in features.tolist()]
    anchors = []
    for i in range(6):
        positive = [j for j in range(6) if labels[j] == labels[i] and first[j] != first[i]]
        negative = [j for j in range(6) if labels[j] != labels[i] and first[j] == first[i]]
        e = [math.exp(sum(a * b for a, b in zip(unit[i], unit[j], strict=True)) / 0.1) for j in range(6)]
        if positive:
            below = sum(e[n] for n in negative)
            anchors.append(sum(-math.log(e[p] / (e[p] + below)) for p in positive) / len(positive))
    y, f = torch.tensor(labels), torch.tensor(first)
    found = contrastive_loss(
        features,
        positives=(y[:, None] == y) & (f[:, None] != f),
        negatives=(y[:, None] != y) & (f[:, None] == f),
        temperature=0.1,
    )
    assert float(found) == pytest.approx(sum(anchors) / len(anchors), rel=1e-5)


def test_what_is_salient():
    relevance = torch.full((1, 32, 32), 0.01)
    relevance[:, 4:10, 4:10] = 1.0
    assert salient(relevance, deviations=2.0)[0, 6, 6]
    assert not salient(relevance, deviations=2.0)[0, 20:, 20:].any()


def test_what_speaks_against_a_class_does_not_change_what_is_salient():
    relevance = torch.rand(1, 32, 32, generator=torch.Generator().manual_seed(0))
    relevance[:, :, 16:] = 0
    against = relevance.clone()
    against[:, :, 20:] = -5.0
    assert salient(relevance, deviations=2.0).any()
    assert torch.equal(salient(relevance, deviations=2.0), salient(against, deviations=2.0))
    assert not salient(-relevance, deviations=2.0).any()


@pytest.mark.parametrize("name", ["afr", "cb_llr", "self", "dfr"])
def test_last_layer_methods_change_the_head_alone(name, erm, tmp_path):
    model = fit(name, tmp_path, model=copy_of(erm)).model
    changed = {key for key, value in model.state_dict().items() if not torch.equal(value, erm.state_dict()[key])}
    assert changed == {"classifier.weight", "classifier.bias"}


def test_a_logistic_regression_as_logits_says_what_scikit_learn_says():
    from sklearn.linear_model import LogisticRegression

    generator = np.random.default_rng(0)
    inputs = generator.normal(size=(60, 5))
    labels = (inputs[:, 0] + 0.3 * generator.normal(size=60) > 0).astype(int)
    weight, bias = logistic_regression(inputs, labels, penalty=0.7)
    theirs = LogisticRegression(penalty="l1", C=0.7, solver="liblinear", random_state=0, max_iter=200).fit(
        inputs, labels
    )
    logits = torch.as_tensor(inputs @ weight.T + bias)
    np.testing.assert_allclose(logits.softmax(1).numpy(), theirs.predict_proba(inputs), atol=1e-8)


def test_afr_weights_fall_with_the_probability_of_the_true_class(erm, tmp_path):
    trainer = AFRTrainer(copy_of(erm), AFRConfig(**fields(tmp_path)), train_dataset=bare(TRAIN))
    logits, labels = torch.tensor([[2.0, 0.0], [0.0, 2.0], [0.0, 1.0]]), torch.tensor([0, 0, 1])
    p = [math.exp(2) / (math.exp(2) + 1), 1 / (1 + math.exp(2)), math.exp(1) / (math.exp(1) + 1)]
    expected = [0.25 * math.exp(-4 * p[0]), 0.25 * math.exp(-4 * p[1]), 0.5 * math.exp(-4 * p[2])]
    assert trainer.weights(logits, labels).tolist() == pytest.approx(expected)


def test_a_refit_is_where_the_gradient_vanishes():
    torch.manual_seed(0)
    head, features, labels = nn.Linear(4, 2), torch.randn(40, 4), torch.arange(40) % 2
    weight, bias = (
        part.requires_grad_() for part in refit(head, features, labels, class_balance(labels), l2_to_start=0.1)
    )
    loss = nn.functional.cross_entropy(features.double() @ weight.T + bias, labels)
    loss = loss + 0.1 * ((weight - head.weight).square().sum() + (bias - head.bias).square().sum())
    for gradient in torch.autograd.grad(loss, [weight, bias]):
        assert gradient.abs().max() < 1e-4


def test_disagreement_is_the_kl_divergence():
    early, final = torch.randn(4, 3).double(), torch.randn(4, 3).double()
    p, q = early.softmax(1), final.softmax(1)
    torch.testing.assert_close(disagreement(early, final), (p * (p / q).log()).sum(1))


def test_prusc_cuts_weights_out_and_leaves_the_others(erm, tmp_path):
    trainer = fit("prusc", tmp_path, model=copy_of(erm), epochs=4)
    assert 0.05 < trainer.kept < 0.99
    for name, value in trainer.model.state_dict().items():
        before = erm.state_dict()[name]
        if not name.startswith("classifier."):
            assert ((value == before) | (value == 0)).all(), name
    trainer.model.save_pretrained(tmp_path / "saved")
    loaded = type(trainer.model).from_pretrained(tmp_path / "saved").eval()
    with torch.no_grad():
        logits = [m.eval()(pixel_values=TEST.pixel_values).logits for m in (trainer.model, loaded)]
    assert torch.equal(*logits)


def test_two_clusters_of_a_class_are_found():
    torch.manual_seed(0)
    centres = torch.tensor([[1.0, 0, 0], [0, 1.0, 0]])
    which = (torch.arange(40) // 2 % 5 == 0).long()
    features = centres[which] + 0.05 * torch.randn(40, 3)
    found = kmeans_within(features, torch.arange(40) % 2, 2, seed=0)
    assert torch.equal(found, which)  # the larger one is 0
    assert kmeans(torch.ones(5, 2), 3, seed=0).tolist() == [0] * 5


def test_group_dros_running_losses_and_step(tmp_path):
    trainer = fit("group_dro", tmp_path, epochs=1)
    assert trainer.step_size == pytest.approx(100 / 6)  # of 6 steps
    trainer._losses[:] = torch.tensor([1.0, 2.0, torch.nan, 4.0])
    trainer.group_weights[:] = 0.25
    rows = (TRAIN.group == 1).nonzero()[:4, 0]
    inputs = {"pixel_values": TRAIN.pixel_values[rows], "labels": TRAIN.labels[rows]}
    _, outputs = trainer.batch_loss(trainer.model.eval(), inputs, TRAIN.idx[rows])
    loss = nn.functional.cross_entropy(outputs.logits, inputs["labels"]).item()
    moved = [1.0, 0.8 * 2.0 + 0.2 * loss, 0.0, 4.0]  # a group never seen keeps its weight
    raw = [0.25 * math.exp(100 / 6 * (value - 4.0)) for value in moved]
    assert trainer.group_weights.tolist() == pytest.approx([r / sum(raw) for r in raw], abs=1e-6)


def test_descent_takes_the_steps_of_gradient_descent():
    torch.manual_seed(0)
    head, features, labels = nn.Linear(4, 3).double(), torch.randn(20, 4).double(), torch.arange(20) % 3
    weights = torch.rand(20).double()
    slow = [head.weight.detach().clone().requires_grad_(), head.bias.detach().clone().requires_grad_()]
    start = [part.detach().clone() for part in slow]
    optimizer = torch.optim.SGD(slow, lr=0.3)
    for _ in range(5):
        losses = nn.functional.cross_entropy(features @ slow[0].T + slow[1], labels, reduction="none")
        pull = sum((part - before).square().sum() for part, before in zip(slow, start, strict=True))
        optimizer.zero_grad()
        ((weights * losses).sum() / weights.sum() + 0.2 * pull).backward()
        optimizer.step()
    found = descend(head, features, labels, weights, l2_to_start=0.2, steps=5, learning_rate=0.3)
    for part, expected in zip(found, slow, strict=True):
        torch.testing.assert_close(part, expected.detach())


def test_a_gate_is_open_as_often_as_its_logit_says_and_passes_the_gradient():
    torch.manual_seed(0)
    gate = Gate(torch.ones(100, 100)).train()
    gate.logits.data[:50] = -2.0
    out = gate(torch.full((100, 100), 3.0))
    assert set(out.unique().tolist()) == {0.0, 3.0}
    shares = [(out[:50] > 0).float().mean().item(), (out[50:] > 0).float().mean().item()]
    assert shares == pytest.approx([1 / (1 + math.exp(2)), 1 / (1 + math.exp(-1.5))], abs=0.02)
    out.sum().backward()
    assert (gate.logits.grad > 0).all()
    assert torch.equal(gate.eval()(torch.ones(100, 100)), (gate.logits >= 0).float())


def test_the_head_is_found():
    model = tiny.tiny_vit()
    assert classifier_head(model) is model.classifier
