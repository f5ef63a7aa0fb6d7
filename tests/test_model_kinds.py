"""Models as people have them: yes/no outputs read as two classes, weights from files, and what is refused by name."""

import copy
import pickle

import numpy as np
import pytest
import timm
import torch
from model_inputs import FINDING, FINDINGS, MODEL_INPUTS, MULTI, TWO, save_vit
from PIL import Image
from tiny import square_images, square_samples
from torch.nn.functional import binary_cross_entropy_with_logits, cross_entropy
from transformers import AutoModelForImageClassification, pipeline

from hf_score.attribution import Explainer
from hf_score.data.classes import ClassNames, class_key
from hf_score.detection import find_candidates
from hf_score.errors import HFScoreError, ModelError
from hf_score.margins import margin
from hf_score.models import (
    check_model,
    classes_of_model,
    classifier_head,
    load_checkpoint,
    load_model,
    own_class_names,
)
from hf_score.training import SCOREConfig, SCORETrainer

X = torch.randn(6, 3, 32, 32, generator=torch.Generator().manual_seed(0))


def images(*sizes):
    noise = np.random.default_rng(0)
    made = [Image.fromarray(noise.integers(0, 255, (h, w, 3), dtype=np.uint8)) for w, h in sizes]
    return [{"image": image, "label": i % 2, "idx": i} for i, image in enumerate(made)]


@pytest.mark.parametrize("row", MODEL_INPUTS, ids=lambda row: row.name)
def test_every_input_is_read_or_refused_in_one_sentence(row, tmp_path):
    what, _, words = row.expected.partition(": ")
    options = row.make(tmp_path)

    def use():
        model, processor, _ = load_model(**options)
        if options["class_names"] is not None:
            check_model(model, processor, images((40, 30), (64, 80), (32, 32), (20, 90)), options["class_names"])
        return model

    if what == "read":
        model = use()
        assert model.dtype == torch.float32 and not model.training
        named = classes_of_model(model).values()
        assert [class_key(name) for name in named] == [class_key(name) for name in options["class_names"]]
        return
    with pytest.raises(HFScoreError, match=words) as caught:
        use()
    assert str(caught.value).endswith(".") and "\n" not in str(caught.value)


# ---- yes/no outputs ----


@pytest.mark.parametrize(
    ("outputs", "classes", "label", "output", "sign"),
    [
        (["malignant"], TWO, None, 0, 1),
        (["Benign "], TWO, None, 0, -1),  # the output speaks for class 0
        (["malignant"], TWO[::-1], None, 0, -1),
        (FINDINGS, FINDING, "pneumonia", 1, 1),
        (FINDINGS, ["Mass", "no Mass"], "Mass", 2, -1),
        (FINDINGS, ["yes", "no"], "0", 0, -1),
        (["1", "0"], ["0", "1"], "0", 1, -1),  # a name goes before a number, and says which class it is
    ],
)
def test_an_output_is_two_classes(outputs, classes, label, output, sign, tmp_path):
    kind = MULTI if len(outputs) > 1 else {}
    z = save_vit(tmp_path, outputs, **kind)(X).logits[:, output].detach()
    model, _, has_head = load_model(tmp_path, class_names=classes, label=label)
    assert has_head
    labels = torch.tensor([0, 1, 1, 0, 1, 0])
    said = model(pixel_values=X, labels=labels)
    torch.testing.assert_close(said.logits, sign * torch.stack([-z / 2, z / 2], 1))
    torch.testing.assert_close(said.logits.softmax(1)[:, 1], (sign * z).sigmoid())
    torch.testing.assert_close(said.loss, binary_cross_entropy_with_logits(sign * z, labels.float()))
    torch.testing.assert_close(margin(said.logits, torch.ones(6, dtype=torch.long)), sign * z)


def test_explaining_the_margin_explains_the_output(tmp_path):
    """The margin of (−z/2, z/2) is z, and a rule that is linear in the explained output gives z's own relevance."""
    stock = save_vit(tmp_path, ["malignant"])
    model, _, _ = load_model(tmp_path, class_names=TWO)
    with Explainer(stock) as explainer:
        expected = explainer.explain(X, 0, layer="last")
    with Explainer(model) as explainer:
        found = explainer.explain(X, 1, layer="last", objective="margin")
        half = explainer.explain(X, 1)
    torch.testing.assert_close(found.relevance, expected.relevance, rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(found.layer_relevance, expected.layer_relevance, rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(half.relevance, expected.relevance / 2, rtol=1e-4, atol=1e-6)


def trainer(model, folder, **settings):
    config = SCOREConfig(
        output_dir=str(folder),
        max_steps=4,
        learning_rate=1e-3,
        per_device_train_batch_size=8,
        report_to=[],
        use_cpu=True,
        disable_tqdm=True,
        save_strategy="no",
        **settings,
    )
    samples = square_samples(8) if config.score_lambda > 0 else None
    return SCORETrainer(model, config, train_dataset=square_images(16), spurious_samples=samples)


@pytest.mark.parametrize("label", [None, "Mass"])
def test_what_is_saved_is_the_stock_checkpoint(label, tmp_path):
    """After SCORE's training: same class, same outputs, same names; `pipeline` gives each output's sigmoid."""
    outputs, classes = (["malignant"], TWO) if label is None else (FINDINGS, ["no Mass", "Mass"])
    stock = save_vit(tmp_path / "stock", outputs, **({} if label is None else MULTI))
    model, processor, _ = load_model(tmp_path / "stock", class_names=classes, label=label)
    trained = trainer(model, tmp_path / "out", score_lambda=1.0)
    trained.train()
    trained.save_model(str(tmp_path / "saved"))
    processor.save_pretrained(tmp_path / "saved")
    saved, info = AutoModelForImageClassification.from_pretrained(tmp_path / "saved", output_loading_info=True)
    assert not info["missing_keys"] and not info["unexpected_keys"]
    assert saved.state_dict().keys() == stock.state_dict().keys()
    assert list(saved.config.id2label.values()) == outputs
    output = 0 if label is None else 2
    z = saved(X).logits[:, output]
    assert not torch.allclose(z, stock(X).logits[:, output])
    torch.testing.assert_close(model.cpu().eval()(X).logits[:, 1], z / 2)
    torch.testing.assert_close(load_checkpoint(tmp_path / "saved")(X).logits[:, 1], z / 2)
    again, _, has_head = load_model(tmp_path / "saved", class_names=classes)  # it remembers the label
    assert has_head
    torch.testing.assert_close(again(X).logits[:, 1], z / 2)
    image = images((40, 40))[0]["image"]
    said = {row["label"]: row["score"] for row in pipeline("image-classification", str(tmp_path / "saved"))(image)}
    expected = saved(**processor(images=[image], return_tensors="pt")).logits.sigmoid()[0].tolist()
    assert said == {name: pytest.approx(score, abs=1e-5) for name, score in zip(outputs, expected, strict=True)}


def test_the_other_labels_are_kept(tmp_path):
    """What they lose by training without their loss, they keep with it."""
    stock = save_vit(tmp_path, FINDINGS, **MULTI)
    images_of_training = square_images(16).pixel_values
    change = {}
    for keep in (True, False):
        model, _, _ = load_model(tmp_path, class_names=["no Mass", "Mass"], label="Mass")
        trained = trainer(model, tmp_path / "out", score_lambda=0.0)
        if not keep:
            trained._kept_outputs = None
        trained.args.max_steps = 30
        trained.train()
        saved = copy.deepcopy(stock)
        saved.load_state_dict(model.cpu().state_dict())
        before, after = (m.eval()(images_of_training).logits.sigmoid() for m in (stock, saved))
        change[keep] = (after - before).abs().mean(0)
    assert change[True][:2].max() < 0.5 * change[False][:2].max()
    assert change[True][2] > 2 * change[True][:2].max()  # the chosen label has learned


def test_the_other_labels_loss(tmp_path):
    """At the start its gradient is 0, and the loss is the cross-entropy plus the others' entropy."""
    stock = save_vit(tmp_path, FINDINGS, **MULTI)
    model, _, _ = load_model(tmp_path, class_names=["no Mass", "Mass"], label="Mass")
    trained = trainer(model, tmp_path / "out", score_lambda=0.0)
    labels = torch.tensor([0, 1, 1, 0, 1, 0])
    loss = trained.compute_loss(model.train(), {"pixel_values": X, "labels": labels})
    z = stock(X).logits.detach()
    others = binary_cross_entropy_with_logits(z[:, :2], z[:, :2].sigmoid(), reduction="none").sum(1).mean()
    torch.testing.assert_close(loss, binary_cross_entropy_with_logits(z[:, 2], labels.float()) + others)


def test_candidates_of_one_output_are_of_two_classes(tmp_path):
    save_vit(tmp_path, ["malignant"])
    model, processor, _ = load_model(tmp_path, class_names=TWO)
    found = find_candidates(
        model, square_images(12), dataset_fingerprint="x", processor=processor, num_candidates=3, layer="last"
    )
    assert found.class_names == tuple(TWO)
    assert sorted(found.labels) == [0, 0, 0, 1, 1, 1]


def test_what_cannot_work_on_yes_no_outputs_says_so(tmp_path):
    stock = save_vit(tmp_path, FINDINGS, **MULTI)
    model, _, _ = load_model(tmp_path, class_names=["no", "yes"], label="Mass")
    with pytest.raises(ModelError, match="needs an output per class"):
        classifier_head(model)
    with pytest.raises(ModelError, match="class labels would be compared with all of them"):
        trainer(stock, tmp_path / "out", score_lambda=0.0)
    with pytest.raises(ModelError, match="one logit has no margin"):
        margin(torch.zeros(2, 1), torch.zeros(2, dtype=torch.long))


def test_nothing_is_guessed_of_an_output_without_a_name(tmp_path):
    """Which class it speaks for is the stated second one; an order that is only that of sorting is not taken."""
    save_vit(tmp_path, ["LABEL_0"])
    with pytest.raises(ModelError, match="does not name its output"):
        load_model(tmp_path, class_names=ClassNames(TWO, stated=False))
    assert load_model(tmp_path, class_names=ClassNames(TWO)).has_head
    save_vit(tmp_path, ["Malignant"])
    assert load_model(tmp_path, class_names=ClassNames(TWO, stated=False)).has_head


def test_own_class_names_are_those_an_output_was_read_as(tmp_path):
    """A stock checkpoint does not say in which order the data's classes are; one that was saved here does."""
    save_vit(tmp_path / "stock", ["malignant"])
    assert own_class_names(tmp_path / "stock") is None
    load_model(tmp_path / "stock", class_names=TWO).model.save_pretrained(tmp_path / "saved")
    assert own_class_names(tmp_path / "saved") == TWO


# ---- the loss ----


@pytest.mark.parametrize("problem_type", [None, "regression", "single_label_classification"])
@pytest.mark.parametrize("by_load_model", [True, False])
def test_training_loss_is_cross_entropy(problem_type, by_load_model, tmp_path, caplog):
    model = save_vit(tmp_path, ["a", "b", "c"], problem_type=problem_type)
    if by_load_model:
        model, _, _ = load_model(tmp_path, class_names=["a", "b", "c"])
    labels = torch.tensor([0, 1, 2, 0, 1, 2])
    expected = cross_entropy(model(X).logits, labels)
    loss = trainer(model, tmp_path / "out", score_lambda=0.0).compute_loss(
        model, {"pixel_values": X, "labels": labels}
    )
    torch.testing.assert_close(loss, expected)
    assert ("by cross-entropy" in caplog.text) == (problem_type == "regression")


def test_a_model_with_adapters_is_refused_by_the_trainer(tmp_path):
    peft = pytest.importorskip("peft")
    model = peft.get_peft_model(save_vit(tmp_path, TWO), peft.LoraConfig(target_modules=["q_proj"]))
    with pytest.raises(ModelError, match="merge them first"):
        trainer(model, tmp_path / "out", score_lambda=0.0)


def test_a_frozen_model_is_refused_by_the_trainer(tmp_path):
    with pytest.raises(ModelError, match="All weights of ViTForImageClassification are frozen"):
        trainer(save_vit(tmp_path, TWO).requires_grad_(False), tmp_path / "out", score_lambda=0.0)


# ---- weights ----


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_checkpoints_become_single(dtype, tmp_path):
    expected = save_vit(tmp_path / "half", TWO, dtype=dtype).float()(X).logits
    model, _, _ = load_model(tmp_path / "half", class_names=TWO)
    torch.testing.assert_close(model(X).logits, expected)
    model.save_pretrained(tmp_path / "saved")
    saved = AutoModelForImageClassification.from_pretrained(tmp_path / "saved")
    assert saved.dtype == torch.float32
    torch.testing.assert_close(saved(X).logits, expected)


@pytest.mark.parametrize("row", [row for row in MODEL_INPUTS if "timm ." in row.name], ids=lambda row: row.name)
def test_weights_from_files_are_the_models(row, tmp_path):
    """Every wrapping gives the same weights; of a training, the averaged ones."""
    model, _, has_head = load_model(**row.make(tmp_path))
    assert has_head
    torch.manual_seed(0)
    outputs = {"timm .pth with one output": 1, "timm .pth, multi-label": 3}.get(row.name, 2)
    expected = timm.create_model("test_resnet", num_classes=outputs).state_dict()
    for key, value in model.timm_model.state_dict().items():
        assert torch.equal(value, expected[key]), key


def test_code_in_a_pickle_does_not_run(tmp_path):
    class Code:
        def __reduce__(self):
            return (open, (str(tmp_path / "ran"), "w"))

    with open(tmp_path / "w.pth", "wb") as file:
        pickle.dump({"state_dict": Code()}, file)
    with pytest.raises(ModelError, match="would run code"):
        load_model("test_resnet", class_names=TWO, weights=tmp_path / "w.pth")
    assert not (tmp_path / "ran").exists()


# ---- data and model together ----


def test_images_of_one_size_need_no_resizing(tmp_path):
    save_vit(tmp_path, TWO, processor={"do_resize": False})
    model, processor, _ = load_model(tmp_path, class_names=TWO)
    check_model(model, processor, images(*[(32, 32)] * 4), TWO)


def test_a_model_for_other_classes_than_the_datas(tmp_path):
    save_vit(tmp_path, ["a", "b", "c"])
    model, processor, _ = load_model(tmp_path, class_names=["a", "b", "c"])
    with pytest.raises(ModelError, match="3 logits for the 2 classes"):
        check_model(model, processor, images((32, 32)), TWO)
