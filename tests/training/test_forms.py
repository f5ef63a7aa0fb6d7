"""The forms of SCORE: the paper's is active by construction, layers are averaged, and both is the sum of two."""

import pytest
import timm
import torch
from score_runs import assert_same, config, score_trainer, square_vit, weights
from tiny import square_images, square_samples

from hf_score import HFScoreError, SCOREConfig
from hf_score.attribution import Explainer, find_activations, find_layer
from hf_score.errors import InactiveError, ModelError
from hf_score.models import eval_mode
from hf_score.training import BothPenalties, MarginPenalty, NeuronPenalty


def penalty_of(trainer):
    """The mean over layers of Σ r·|a| over the samples that are left in, with loops: (value, samples left in)."""
    model, samples, args = trainer.model, trainer.spurious_samples, trainer.args
    with torch.no_grad(), eval_mode(model):
        logits = model(pixel_values=samples.masked).logits
    sufficient = [row for row, label in enumerate(samples.labels.tolist()) if logits[row].argmax() == label]
    values = []
    for layer in args.layers:
        probe = find_layer(model, layer)
        with torch.no_grad(), eval_mode(model), probe.capture() as captured:
            model(pixel_values=samples.pixel_values)
        total = 0.0
        for row in sufficient:
            label = int(samples.labels[row])
            with Explainer(model) as explainer:
                objective = "logit" if args.score_objective == "logit" and logits[row, label] > 0 else "margin"
                image = samples.masked[row : row + 1]
                found = explainer.explain(image, label, layer=probe, objective=objective, pixels=False)
            positive = found.layer_relevance[0].double().clamp(min=0)
            activation = captured.activation[row].double()
            if args.score_granularity == "spatial":
                total += float((positive / positive.sum() * activation.abs()).sum())
            else:
                total += float((positive.sum(0) / positive.sum() * activation.abs().mean(0)).sum())
        values.append(total / len(samples))
    return values, len(sufficient)


def started(tmp_path, model=None, samples=None, **fields):
    """A trainer of the paper's form whose penalty has been computed once, on the starting model."""
    trainer = score_trainer(
        tmp_path, model=model, **({"samples": samples} if samples else {}), **{"score_form": "paper", **fields}
    )
    trainer.current_gradient_accumulation_steps = 1
    trainer.penalty(trainer.model, trainer._draw(0), step=0)
    return trainer


def negative_vit():
    """Both logits are negative for every image, and the squares' is the larger one."""
    model = square_vit()
    model.classifier.bias.data -= 50.0
    return model


@pytest.mark.parametrize("granularity", ["channel", "spatial"])
@pytest.mark.parametrize("make_model", [square_vit, negative_vit])
def test_the_penalty_by_hand(tmp_path, granularity, make_model):
    trainer = started(tmp_path, make_model(), score_granularity=granularity)
    (expected,), active = penalty_of(trainer)
    gates = trainer.gates()
    assert active == 6 and gates["share_of_samples_active"] == 1.0
    assert gates["penalty_start"] == pytest.approx(expected, rel=1e-4) and expected > 0
    assert gates["penalty_end"] == pytest.approx(1.0, rel=1e-5)
    assert 0 < gates["share_of_activations_penalised"] <= 1


def test_a_sample_whose_masked_image_alone_does_not_get_its_class_is_left_out(tmp_path):
    """Samples of class 0 are masked to the square too, which alone is of class 1."""
    samples = square_samples()
    samples.labels[:4] = 0
    trainer = started(tmp_path, samples=samples)
    (expected,), active = penalty_of(trainer)
    relevance = trainer.extra_state()["relevance"].sum(dim=(1, 2))
    assert (relevance > 0).tolist() == (trainer.spurious_samples.labels == 1).tolist() and active == 3
    assert trainer.gates()["share_of_samples_active"] == pytest.approx(0.5)
    assert trainer.gates()["penalty_start"] == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize("fields", [{}, {"score_layer": "block0,block1"}, {"score_form": "both"}])
def test_no_sample_that_is_sufficient_stops_the_run(tmp_path, fields):
    samples = square_samples()
    samples.labels[:] = 0
    with pytest.raises(InactiveError, match="none of their masked images alone gets its class"):
        started(tmp_path, samples=samples, **fields)


def test_several_layers_are_the_mean_of_the_single_ones(tmp_path):
    found = []
    for layers in ("block0", "block1", "block0, block1"):
        trainer = started(tmp_path, score_layer=layers)
        value = trainer.penalty(trainer.model, trainer._draw(1), step=1)[0]["neurons"]
        found.append((float(value.detach()), trainer.gates()))
    (first, of_first), (second, of_second), (both, of_both) = found
    assert first != second and both == pytest.approx((first + second) / 2, rel=1e-5)
    for name in of_both:
        assert of_both[name] == pytest.approx((of_first[name] + of_second[name]) / 2, rel=1e-4)


def test_several_layers_survive_a_checkpoint(tmp_path):
    fields = {"max_steps": 4, "save_strategy": "steps", "save_steps": 2, "score_form": "both"}
    fields |= {"score_layer": "block0,block1", "score_refresh_steps": 0}
    whole = score_trainer(tmp_path / "whole", **fields)
    whole.train()
    again = score_trainer(tmp_path / "again", model=square_vit(seed=5), **fields)
    again.train(resume_from_checkpoint=str(tmp_path / "whole" / "checkpoint-2"))
    assert_same(weights(again.model), weights(whole.model))
    for name, value in whole.gates().items():
        assert again.gates()[name] == pytest.approx(value, rel=1e-5)


@pytest.mark.parametrize("address", ["-2", "1", "block1"])
def test_a_layer_by_number_is_that_of_the_list(tmp_path, address):
    assert find_layer(square_vit(), config(tmp_path, score_layer=address).layers[0]).name.endswith("1")


def test_both_is_the_sum_of_its_parts(tmp_path):
    fields = {"score_lambda": 2.0, "freeze_batch_norm": True}
    parts = {}
    for form in ("exchange", "paper", "both"):
        neurons = {"score_neuron_lambda": 0.5} if form == "both" else {}
        trainer = score_trainer(tmp_path, score_form=form, **neurons, **fields)
        trainer.current_gradient_accumulation_steps = 1
        paid, copies = trainer.penalty(trainer.model, trainer._draw(0), step=0)
        parts[form] = {**{k: float(v.detach()) for k, v in paid.items()}, "copies": float(copies.detach())}
        inputs = {"pixel_values": square_images().pixel_values[:8], "labels": square_images().labels[:8]}
        trainer._micro_step = (-1, 0)
        parts[form]["loss"] = float(trainer.batch_loss(trainer.model, inputs, None)[0].detach())
        kinds = {"exchange": MarginPenalty, "paper": NeuronPenalty, "both": BothPenalties}
        assert isinstance(trainer.penalty, kinds[form])
    both = parts["both"]
    assert both["exchange"] == parts["exchange"]["exchange"] and both["copies"] == parts["exchange"]["copies"]
    assert both["neurons"] == pytest.approx(parts["paper"]["neurons"], rel=1e-6) and parts["paper"]["copies"] == 0
    assert both["loss"] == pytest.approx(parts["exchange"]["loss"] + 0.5 * both["neurons"], rel=1e-5)


def test_both_without_weight_on_neurons_is_the_exchange_to_the_bit(tmp_path):
    found = []
    for fields in ({}, {"score_form": "both", "score_neuron_lambda": 0.0}):
        trainer = score_trainer(tmp_path, **fields)
        trainer.train()
        found.append(weights(trainer.model))
    assert_same(*found)


@pytest.mark.parametrize("form", ["paper", "both"])
@pytest.mark.parametrize("control", ["score_random_neurons", "score_unmasked"])
def test_controls_train_the_same_samples_by_another_relevance(tmp_path, form, control):
    plain = started(tmp_path, score_form=form)
    changed = started(tmp_path, score_form=form, **{control: True})
    one, other = plain.gates(), changed.gates()
    assert one["share_of_samples_active"] == other["share_of_samples_active"] == 1.0
    assert one["penalty_start"] != other["penalty_start"] > 0
    changed.train()
    assert changed.gates()["penalty_end"] < 1


def test_what_the_penalty_acts_on_is_logged_and_goes_into_the_results(tmp_path):
    trainer = score_trainer(tmp_path, score_form="both", score_lambda=1.0, score_neuron_lambda=3.0)
    assert trainer.gates() == {} and trainer.title == "SCORE-B"
    trainer.train()
    first = trainer.state.log_history[0]
    assert first["penalty"] == pytest.approx((first["exchange_penalty"] + 3 * first["neurons_penalty"]) / 4, abs=1e-5)
    assert first["share_of_samples_active"] == 1 and 0 < first["share_of_activations_penalised"] <= 1
    run = trainer._results()["methods"]["score"]["runs"][0]
    assert run["mechanism"] == trainer.gates()
    assert {"penalty_start", "penalty_end", "exchange_penalty_start", "exchange_penalty_end"} < run["mechanism"].keys()


def test_the_papers_form_makes_copies_only_where_asked(tmp_path):
    assert [config(tmp_path, score_form=form).exchange_weight for form in ("paper", "exchange", "both")] == [0, 1, 1]
    assert config(tmp_path, score_form="paper", score_exchange_weight=0.5).exchange_weight == 0.5
    assert not score_trainer(tmp_path, score_form="paper")._makes_copies
    assert config(tmp_path, score_form="both", score_lambda=2.0).neuron_lambda == 2.0
    assert config(tmp_path, score_form="both", score_lambda=0.0, score_neuron_lambda=5.0).neuron_lambda == 0.0


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"score_neuron_lambda": 1.0}, "score_neuron_lambda is of score_form='both'"),
        ({"score_form": "both", "score_neuron_lambda": -1.0}, "score_neuron_lambda is -1.0"),
        ({"score_layer": "block1,"}, "several with commas between"),
        ({"score_fine_tuning_set": "some"}, "give one of all, samples, samples_and_random"),
    ],
)
def test_what_does_not_go_together_is_refused(tmp_path, fields, words):
    with pytest.raises(HFScoreError, match=words):
        SCOREConfig(tmp_path, **fields)


# ---- Layers after their activation ----


@pytest.mark.parametrize(
    ("name", "layers"),
    [
        ("tf_efficientnet_lite0", {"stage1": "blocks.1.0.bn1.act", "stage2": "blocks.2.0.bn1.act", "last": "bn2.act"}),
        ("mobilenetv2_050", {"stage3": "blocks.3.0.bn1.act", "last": "bn2.act"}),
        ("mobilenetv3_small_050", {"stage1": "blocks.1.0.bn1.act", "last": "blocks.5.0"}),
    ],
)
def test_a_stage_that_ends_with_a_linear_bottleneck_gives_the_next_activation(name, layers):
    torch.manual_seed(0)
    model = timm.create_model(name, num_classes=2).eval()
    for address, dotted in layers.items():
        probe = find_activations(model, address)
        assert probe.name == dotted
        with torch.no_grad(), probe.capture() as captured:
            model(torch.randn(1, 3, 64, 64))
        assert captured.activation.min() >= (0 if "v3" not in name else -0.4)


@pytest.mark.parametrize(
    ("name", "address", "instead"),
    [
        ("tf_efficientnet_lite0", "blocks.1.1", "blocks.2.0.bn1.act"),
        ("tf_efficientnet_lite0", "blocks.1", "blocks.2.0.bn1.act"),
        ("tf_efficientnet_lite0", "blocks.1.1.bn3", "blocks.2.0.bn1.act"),
        ("resnet18", "layer2.0.conv1", "layer2.0.act1"),
    ],
)
def test_a_linear_bottleneck_by_name_is_refused(name, address, instead):
    with torch.device("meta"):
        model = timm.create_model(name)
    with pytest.raises(ModelError, match=rf"'{address}' cannot be penalised.*use '{instead}'"):
        find_activations(model, address)
    assert find_layer(model, address).name == address  # to look at it is no harm
    assert find_activations(model, instead).name == instead


@pytest.mark.parametrize("name", ["resnet18", "vgg11_bn", "densenet121", "vit_tiny_patch16_224", "convnext_atto"])
def test_other_networks_have_their_layers_as_they_were(name):
    with torch.device("meta"):
        model = timm.create_model(name)
    assert find_activations(model, "last") == find_layer(model, "last")


# ---- The fine-tuning set ----


def drawn(trainer) -> set[int]:
    return set(trainer._get_train_sampler(trainer.train_dataset))


@pytest.mark.parametrize("balanced", [False, True])
def test_the_fine_tuning_set(tmp_path, balanced):
    images = square_images(64)
    samples = square_samples()
    samples.idx[:] = images.idx[1::2][:8]  # images of class 1
    fields = {"train_dataset": images, "samples": samples, "class_balanced": balanced}
    made = {
        kind: score_trainer(tmp_path, score_fine_tuning_set=kind, **fields)
        for kind in ("all", "samples", "samples_and_random")
    }
    penalised = set(made["samples"].spurious_samples.idx.tolist())
    assert drawn(made["samples"]) == penalised and len(penalised) == 6
    with_random = drawn(made["samples_and_random"])
    assert penalised < with_random and len(with_random) == 12
    held_out = set(samples.idx.tolist()) - penalised
    assert len(drawn(made["all"]) - held_out) > 30
    for trainer in made.values():
        assert len(list(trainer._get_train_sampler(images))) == 64  # an epoch is as long whichever it is
    weight = made["samples_and_random"].sample_weights()
    by_class = torch.stack([weight[images.labels == label].sum() for label in (0, 1)])
    assert (by_class[0] == by_class[1]) == balanced


def test_a_fine_tuning_set_without_its_samples_is_refused(tmp_path):
    samples = square_samples()
    samples.idx[:] += 1000
    with pytest.raises(HFScoreError, match="has no image with the idx of a sample"):
        score_trainer(tmp_path, samples=samples, score_fine_tuning_set="samples")
    plain = score_trainer(tmp_path, score_lambda=0.0, score_fine_tuning_set="samples")  # the starting model's training
    assert plain.sample_weights() is None
