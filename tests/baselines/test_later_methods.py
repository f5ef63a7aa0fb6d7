"""SPARE, TAB, FG-CCDB, DEDIER, UV-DRO, NeuronTune, DPE, ExMap, DCWP, SAE muting, copies, energy loss, GALS: formulas
against slow ones, and what each moves on images in which a bright square says the class in all but a few."""

import copy
import math
import statistics

import numpy as np
import pytest
import tiny
import torch
from gates import idle
from torch import nn

from hf_score.baselines import BASELINES, Supervision
from hf_score.baselines.asm import principal_components
from hf_score.baselines.clustering import kmeans_within
from hf_score.baselines.dedier import early_readout_weights
from hf_score.baselines.dpe import likeness, prototype_head
from hf_score.baselines.energy import energy_in_region
from hf_score.baselines.exmap import spectral_clusters
from hf_score.baselines.fg_ccdb import cell_weights, most_confident
from hf_score.baselines.gals import loss_gradient_penalty
from hf_score.baselines.neurontune import biased_dimensions
from hf_score.baselines.sae_muting import SparseAutoencoder, correlations, without_directions
from hf_score.baselines.spare import cluster_weights
from hf_score.baselines.tab import upsampled
from hf_score.baselines.uv_dro import worst_case
from hf_score.data import PixelDataset

COUNT = 128


def images(seed: int, *, minority: int = 8) -> PixelDataset:
    """Noise; all but one in `minority` of class 1, and one in `minority` of class 0, have a bright square in the
    corner."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(COUNT) % 2
    square = torch.where(torch.arange(COUNT) // 2 % minority == 0, 1 - labels, labels)
    pixels = torch.randn(COUNT, 3, 32, 32, generator=generator) * 0.3
    pixels[square == 1, :, :8, :8] += 2.0
    return PixelDataset(pixels, labels, torch.arange(COUNT))


TRAIN, HELD_OUT = images(0), images(1)
FEW = torch.arange(COUNT) // 2 % 8 == 0
SQUARE = torch.zeros(32, 32, dtype=torch.bool)
SQUARE[:8, :8] = True


def regions(idx):
    return SQUARE.numpy() if bool(FEW[idx]) != (idx % 2 == 1) else None


def trainer_of(name, folder, *, model=None, early=None, train=TRAIN, **changes):
    kind = BASELINES[name]
    config = kind.config_class(
        **{
            "output_dir": str(folder),
            "max_steps": 12,
            "learning_rate": 2e-3,
            "per_device_train_batch_size": 32,
            "report_to": "none",
            "save_strategy": "no",
            "use_cpu": True,
            "disable_tqdm": True,
            "dataloader_pin_memory": False,
            **changes,
        }
    )
    samples = tiny.square_samples(8)
    return kind(
        copy.deepcopy(model) if model is not None else tiny.tiny_vit(),
        config,
        train_dataset=train,
        eval_dataset=HELD_OUT,
        supervision=Supervision(regions=regions, samples=samples),
        reference_model=copy.deepcopy(early) if kind.second_model else None,
    )


@pytest.fixture(scope="module")
def erm(tmp_path_factory):
    """A model that goes by the square: right where it says the class, wrong about the few, which it never saw."""
    folder = tmp_path_factory.mktemp("erm")
    settings = {"max_steps": 60, "learning_rate": 4e-3, "lr_scheduler_type": "constant"}
    torch.manual_seed(0)
    trainer = trainer_of("erm", folder, train=images(2, minority=COUNT), **settings)
    trainer.train()
    right = trainer.predict_logits(trainer.model, TRAIN).argmax(1) == TRAIN.labels
    assert right[~FEW].double().mean() > 0.9 and right[FEW].double().mean() < 0.3
    return trainer.model.eval()


# ---- What each does in a short run ----


def test_spares_small_clusters_are_the_few(erm, tmp_path):
    trainer = trainer_of("spare", tmp_path, early=erm)
    weights = trainer.sample_weights()
    assert weights[FEW].mean() > 3 * weights[~FEW].mean()
    assert not idle(trainer)


def test_tabs_smaller_clusters_are_richer_in_the_few(erm, tmp_path):
    trainer = trainer_of("tab", tmp_path, model=erm, max_steps=8, learning_rate=5e-4)
    trainer.train()
    assert trainer.histories.shape == (COUNT, 2)  # 8 steps are two epochs
    smaller = trainer.clusters == 1
    assert FEW[smaller].double().mean() > 3 * FEW.double().mean()
    assert not idle(trainer)


def test_fg_ccdb_weighs_what_the_biased_model_confuses(erm, tmp_path):
    trainer = trainer_of("fg_ccdb", tmp_path, model=erm, max_steps=4)
    trainer.train()
    wrong = trainer.predictions != TRAIN.labels
    assert FEW[wrong].double().mean() > 3 * FEW.double().mean()
    weights = trainer.sample_weights()
    assert weights[wrong].mean() > 2 * weights[~wrong].mean()
    assert not idle(trainer)


def test_dediers_weights_are_higher_for_the_few(erm, tmp_path):
    trainer = trainer_of("dedier", tmp_path, early=erm, max_steps=1)
    trainer.train()
    assert trainer.weights[FEW].mean() > 1.5 * trainer.weights[~FEW].mean()
    assert not idle(trainer)


def test_uv_dro_moves_weight_to_the_clusters_of_the_few(erm, tmp_path):
    trainer = trainer_of("uv_dro", tmp_path, model=erm, max_steps=6)
    trainer.train()
    shares = torch.stack([FEW[trainer.variable == c].double().mean() for c in trainer.variable.unique()])
    worst = trainer._losses.nan_to_num().argmax()
    assert shares[worst] > FEW.double().mean()
    assert not idle(trainer)


@pytest.mark.parametrize("name", ["asm", "dpe", "exmap", "sae_muting"])
def test_head_methods_change_the_head_alone_and_pass_their_gates(name, erm, tmp_path):
    trainer = trainer_of(name, tmp_path, model=erm)
    trainer.train()
    before, after = erm.state_dict(), trainer.model.state_dict()
    assert {key for key in after if not torch.equal(after[key], before[key])} <= {
        "classifier.weight",
        "classifier.bias",
    }
    assert not idle(trainer), trainer.gates()


def test_neurontune_takes_the_biased_dimensions_out_of_the_head(erm, tmp_path):
    trainer = trainer_of("neurontune", tmp_path, model=erm)
    logits, features, labels = trainer.held_out()
    biased = biased_dimensions(features, labels, logits.argmax(1))
    trainer.train()
    assert torch.equal((trainer.model.classifier.weight == 0).all(dim=0), biased)
    assert trainer.gates()["muted_share"] == pytest.approx(biased.float().mean().item())


def test_sae_muting_makes_the_head_deaf_to_the_square(erm, tmp_path):
    trainer = trainer_of("sae_muting", tmp_path, model=erm, sae_share=0.05)

    def effect(model):
        features, present = trainer.examples(model)
        logits = model.classifier(features)
        return (logits[present] - logits[~present]).diff(dim=1).abs().mean().item()

    before = effect(trainer.model)
    trainer.train()
    assert effect(trainer.model) < 0.7 * before


@pytest.mark.parametrize("name", ["exmap", "asm"])
def test_pseudo_groups_tell_images_with_the_square_from_those_without(name, erm, tmp_path):
    trainer = trainer_of(name, tmp_path, model=erm)
    labels = HELD_OUT.labels
    groups = trainer.pseudo_groups(labels) if name == "exmap" else 2 * labels + trainer.clusters()
    shares = torch.stack([FEW[groups == g].double().mean() for g in groups.unique()])
    assert shares.max() > 2 * FEW.double().mean()


def test_dcwp_prunes_and_draws_what_the_biased_model_gets_wrong(erm, tmp_path):
    trainer = trainer_of("dcwp", tmp_path, model=erm, early=erm, max_steps=8, dcwp_steps_share=1.0)
    trainer.train()
    assert not idle(trainer), trainer.gates()
    weights = trainer.sample_weights()
    assert weights[FEW].mean() > 2 * weights[~FEW].mean()


def test_mrm_restores_the_weights_of_before_erm_under_the_mask(erm, tmp_path):
    trainer = trainer_of("dcwp", tmp_path, early=erm, dcwp_mrm=True, learning_rate=1e-12, weight_decay=0.0)
    before = {key: value.clone() for key, value in trainer.model.state_dict().items()}
    trainer.train()
    after = trainer.model.state_dict()
    assert after.keys() == before.keys() and 0 < trainer.kept < 1
    for key, value in after.items():
        kept = value != 0
        torch.testing.assert_close(value[kept], before[key][kept], atol=1e-8, rtol=0)


def test_training_on_copies_makes_the_square_count_for_less(erm, tmp_path):
    trainer = trainer_of("copies", tmp_path, model=erm)

    def effect(model):
        without = TRAIN.pixel_values.clone()
        without[:, :, :8, :8] = HELD_OUT.pixel_values[2, :, :8, :8]  # an image that has none
        added = torch.where(SQUARE, without + 2.0, without)
        with torch.no_grad():
            return (model(pixel_values=added).logits - model(pixel_values=without).logits).diff(dim=1).mean().item()

    before = effect(erm)
    trainer.train()
    assert effect(trainer.model.eval()) < 0.5 * before
    assert not idle(trainer)


@pytest.mark.parametrize("name", ["energy", "gals"])
def test_penalties_on_regions_fall(name, erm, tmp_path):
    trainer = trainer_of(name, tmp_path, model=erm, max_steps=10)
    trainer.train()
    assert not idle(trainer), trainer.gates()


# ---- Formulas ----


def test_weights_of_clusters_and_cells_by_counting():
    labels = torch.tensor([0, 0, 0, 0, 1, 1, 1, 0, 1, 1])
    other = torch.tensor([0, 0, 1, 0, 1, 1, 0, 0, 1, 0])
    pairs = list(zip(labels.tolist(), other.tolist(), strict=True))
    expected = [pairs.count(pair) ** -2.0 for pair in pairs]
    assert cluster_weights(other, labels, power=2.0).tolist() == pytest.approx(expected)
    cells = []
    for i, j in pairs:
        column = sum(1 for _, b in pairs if b == j)
        share_of_class = sum(1 for a, _ in pairs if a == i) / len(pairs)
        cells.append(share_of_class / (pairs.count((i, j)) / column * pairs.count((i, j))))
    assert cell_weights(labels, other).tolist() == pytest.approx(cells)
    weights = upsampled(kmeans_within(other[:, None].double(), labels, 2, seed=0), labels)
    for label in (0, 1):
        totals = [weights[(labels == label) & (other == j)].sum().item() for j in (0, 1)]
        assert totals[0] == pytest.approx(totals[1])


def test_the_most_confident_of_each_class():
    confidence = torch.tensor([0.9, 0.1, 0.5, 0.7, 0.2, 0.3])
    labels = torch.tensor([0, 0, 0, 0, 1, 1])
    assert most_confident(confidence, labels, 0.5).tolist() == [True, False, False, True, False, True]


def test_biased_dimensions_by_medians():
    generator = torch.Generator().manual_seed(0)
    features = torch.randn(60, 7, generator=generator)
    labels, predictions = torch.arange(60) % 3, torch.randint(3, (60,), generator=generator)
    expected = []
    for d in range(7):
        deltas = []
        for y in range(3):
            rows = [r for r in range(60) if labels[r] == y]
            wrong = [features[r, d].item() for r in rows if predictions[r] != y]
            right = [features[r, d].item() for r in rows if predictions[r] == y]
            deltas.append(statistics.median_low(wrong) - statistics.median_low(right))
        expected.append(min(deltas) > 0)
    assert biased_dimensions(features, labels, predictions).tolist() == expected
    assert not biased_dimensions(features, labels, labels).any()


def test_principal_components_are_those_of_scikit_learn():
    from sklearn.decomposition import PCA
    from sklearn.preprocessing import MinMaxScaler

    points = torch.randn(20, 6, generator=torch.Generator().manual_seed(0)).double()
    theirs = PCA(3).fit_transform(MinMaxScaler().fit_transform(points.numpy()))
    found = principal_components(points, 3).numpy()
    np.testing.assert_allclose(np.abs(found), np.abs(theirs), atol=1e-8)  # up to the sign of a component


def test_a_prototype_head_says_what_distances_say():
    torch.manual_seed(0)
    prototypes, inputs = torch.randn(3, 5).double(), torch.randn(8, 5).double()
    weight, bias = prototype_head(prototypes, scale=0.7)
    distances = torch.stack([(inputs - p).square().sum(1) for p in prototypes], dim=1)
    torch.testing.assert_close((inputs @ weight.T + bias).softmax(1), (-0.7 * distances).softmax(1))
    others = [torch.randn(3, 5).double() for _ in range(2)]
    slow = []
    for other in others:
        for own, theirs in zip(prototypes - prototypes.mean(0), other - other.mean(0), strict=True):
            slow.append((float(own @ theirs) / float(own.norm() * theirs.norm())) ** 2)
    assert float(likeness(prototypes, others)) == pytest.approx(sum(slow) / len(slow))
    assert float(likeness(prototypes, [prototypes])) == pytest.approx(1.0)


class Answer:
    def __init__(self, logits):
        self.logits = logits


class Wrapped(nn.Module):
    def __init__(self, *layers):
        super().__init__()
        self.layers = nn.Sequential(*layers)

    def forward(self, pixel_values):
        return Answer(self.layers(pixel_values))


def test_energy_in_a_region_of_a_linear_model():
    torch.manual_seed(0)
    linear = nn.Linear(12, 3).double()
    pixels, labels = torch.randn(4, 3, 2, 2).double(), torch.tensor([0, 2, 1, 1])
    region = torch.tensor([[[True, False], [False, True]]]).expand(4, -1, -1)
    found = energy_in_region(Wrapped(nn.Flatten(), linear), pixels, region, labels)
    for n in range(4):
        weights = linear.weight[labels[n]].reshape(3, 2, 2)
        energy = [
            [max(0.0, sum((weights[c, i, j] * pixels[n, c, i, j]).item() for c in range(3))) for j in (0, 1)]
            for i in (0, 1)
        ]
        inside = energy[0][0] + energy[1][1]
        assert float(found[n]) == pytest.approx(inside / max(1e-12, inside + energy[0][1] + energy[1][0]))


def test_the_gradient_of_the_loss_is_that_of_finite_differences():
    torch.manual_seed(0)
    model = Wrapped(nn.Flatten(), nn.Linear(12, 8), nn.Tanh(), nn.Linear(8, 3)).double()
    pixels, label = torch.randn(1, 3, 2, 2).double(), torch.tensor([2])
    region = torch.tensor([[[True, False], [True, True]]])

    def loss(x):
        return -float(model(pixel_values=x).logits.log_softmax(1)[0, 2])

    total = 0.0
    for channel in range(3):
        for row, column in region[0].nonzero().tolist():
            step = torch.zeros_like(pixels)
            step[0, channel, row, column] = 1e-6
            total += abs(loss(pixels + step) - loss(pixels - step)) / 2e-6
    assert float(loss_gradient_penalty(model, pixels, region, label)) == pytest.approx(total, rel=1e-3)


def test_spectral_clusters_follow_shapes_that_k_means_cannot():
    angles = torch.linspace(0, 2 * math.pi, 41)[:-1]
    ring = torch.stack([angles.cos(), angles.sin()], dim=1)
    points = torch.cat([3 * ring, ring[:30]])
    found = spectral_clusters(points, neighbours=4, most=2, seed=0)
    assert torch.equal(found, (torch.arange(70) >= 40).long())
    blobs = torch.cat([torch.randn(15, 2, generator=torch.Generator().manual_seed(0)) + 20 * k for k in range(3)])
    assert len(spectral_clusters(blobs, neighbours=5, most=5, seed=0).unique()) == 3


def test_a_head_without_directions_sees_features_without_them():
    torch.manual_seed(0)
    head, features, directions = nn.Linear(6, 3).double(), torch.randn(9, 6).double(), torch.randn(2, 6).double()
    mean, deviation = features.mean(0), features.std(0)
    weight, bias = without_directions(head, directions, mean=mean, deviation=deviation)
    standard = (features - mean) / deviation
    part = torch.linalg.lstsq(directions.T, standard.T).solution  # how much of each direction is in them
    kept = (standard - part.T @ directions) * deviation + mean
    torch.testing.assert_close(features @ weight.T + bias, head(kept))


def test_correlations_are_those_of_numpy_and_the_autoencoder_learns():
    torch.manual_seed(0)
    units, present = torch.rand(30, 4), torch.arange(30) % 3 == 0
    units[:, 3] = 0.5
    expected = [np.corrcoef(units[:, k].numpy(), present.numpy())[0, 1] for k in range(3)]
    assert correlations(units, present).tolist() == pytest.approx([*expected, 0.0], abs=1e-6)
    features = torch.randn(200, 3) @ torch.randn(3, 8)
    coder = SparseAutoencoder(8, 32)

    def error():
        return (coder.decoder(coder.encode(features)) - features).square().mean().item()

    before = error()
    coder.fit(features, l1=0.01, steps=200)
    assert error() < before / 4
    torch.testing.assert_close(coder.decoder.weight.norm(dim=0), torch.ones(32))


def test_the_worst_case_is_that_of_the_dual():
    generator = torch.Generator().manual_seed(0)
    for alpha in (0.1, 0.35, 1.0):
        losses = torch.rand(6, generator=generator).double()
        shares = torch.rand(6, generator=generator).double()
        shares /= shares.sum()
        found = worst_case(losses, shares, alpha=alpha)
        dual = min(eta + sum(shares * (losses - eta).clamp(min=0)) / alpha for eta in losses)  # piecewise linear in η
        assert float(found @ losses) == pytest.approx(float(dual))
        assert float(found.sum()) == pytest.approx(1.0) and (found <= shares / alpha + 1e-12).all()


def test_weights_of_an_early_readout_by_hand():
    logits = torch.tensor([[2.0, 0.0, 1.0], [0.0, 3.0, 0.0], [1.0, 0.0, 0.0]])
    first = [math.exp(v) / sum(map(math.exp, (2, 0, 1))) for v in (2, 0, 1)]
    third = [math.exp(v) / (math.e + 2) for v in (1, 0, 0)]
    expected = [math.exp(2 * (first[0] - first[2]) ** 0.5), 1.0, math.exp(2 * (third[0] - third[1]) ** 0.5)]
    found = early_readout_weights(logits, torch.tensor([1, 1, 2]), alpha=0.5, beta=2.0)
    assert found.tolist() == pytest.approx(expected)


def test_copies_take_or_lose_the_square(tmp_path):
    trainer = trainer_of("copies", tmp_path)  # all samples are of class 1
    chosen, labels = TRAIN.pixel_values[:6], TRAIN.labels[:6]
    copies = trainer.copies(chosen, labels, list(range(6)))
    assert torch.equal(copies[:, :, ~SQUARE], chosen[:, :, ~SQUARE])
    inside = {tuple(x) for x in trainer.supervision.samples.pixel_values[:, 0, 0, :4].tolist()}
    others = {tuple(x) for x in TRAIN.pixel_values[TRAIN.labels == 0][:, 0, 0, :4].tolist()}
    for copied, label in zip(copies, labels.tolist(), strict=True):
        assert tuple(copied[0, 0, :4].tolist()) in (others if label == 1 else inside)
    assert torch.equal(copies, trainer.copies(chosen, labels, list(range(6))))
