"""`load_model`: heads, sizes and weights, and checkpoints that load without hf-score."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
import zoo
from datasets import ClassLabel, Dataset, Features
from PIL import Image
from safetensors.torch import load_file, save_file
from transformers import (
    AutoImageProcessor,
    AutoModelForImageClassification,
    DeiTConfig,
    DeiTForImageClassification,
    DeiTImageProcessor,
    ViTConfig,
    ViTForImageClassification,
    ViTImageProcessor,
)

from hf_score.data.classes import ClassNames
from hf_score.errors import ModelError
from hf_score.models import (
    base_model_id,
    check_label_ids,
    checkpoint_state,
    classifier_head,
    eval_mode,
    load_model,
    own_class_names,
)

CLASSES = ["benign", "melanoma"]


@pytest.fixture
def image():
    return Image.fromarray(np.random.default_rng(0).integers(0, 255, (40, 40, 3), dtype=np.uint8))


def logits(model, processor, image):
    with torch.no_grad():
        return model(**processor(images=[image], return_tensors="pt")).logits


@pytest.fixture(scope="module")
def vit_folder(tmp_path_factory):
    """A small transformers ViT for the classes benign and melanoma."""
    return save_vit(tmp_path_factory.mktemp("vit"), CLASSES)


def save_vit(folder: Path, classes: list[str]) -> Path:
    torch.manual_seed(0)
    config = ViTConfig(
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=4,
        intermediate_size=64,
        image_size=32,
        patch_size=8,
        id2label=dict(enumerate(classes)),
        label2id={name: i for i, name in enumerate(classes)},
    )
    ViTForImageClassification(config).save_pretrained(folder)
    ViTImageProcessor(size={"height": 32, "width": 32}).save_pretrained(folder)
    return folder


def body(model):
    return {key: value for key, value in model.state_dict().items() if not key.startswith("classifier")}


def same(first, second):
    return first.keys() == second.keys() and all(torch.equal(value, second[key]) for key, value in first.items())


# ---- what is saved loads anywhere ----


@pytest.mark.parametrize(
    ("name", "image_size"),
    [
        ("test_resnet", None),
        ("test_resnet", 48),
        ("test_vit", None),
        ("timm/test_vit.r160_in1k", 64),
        ("test_vit2", 32),
    ],
)
def test_timm_model_reloads_with_stock_classes(name, image_size, image, tmp_path):
    model, processor, has_head = load_model(name, class_names=CLASSES, image_size=image_size, from_scratch=True)
    assert not has_head
    assert not model.training
    model.save_pretrained(tmp_path, state_dict=checkpoint_state(model))
    processor.save_pretrained(tmp_path)
    stock, stock_processor = (
        kind.from_pretrained(tmp_path) for kind in (AutoModelForImageClassification, AutoImageProcessor)
    )
    assert stock.config.id2label == {0: "benign", 1: "melanoma"}
    assert same(model.state_dict(), stock.state_dict())
    pixels = stock_processor(images=[image], return_tensors="pt")["pixel_values"]
    assert torch.equal(pixels, processor(images=[image], return_tensors="pt")["pixel_values"])
    assert pixels.shape[-1] == (image_size or 160)
    # Kernels may sum in another order for weights that lie elsewhere in memory.
    assert torch.allclose(logits(model, processor, image), logits(stock, stock_processor, image), atol=1e-5)
    again, _, has_head = load_model(tmp_path, class_names=CLASSES)
    assert has_head
    assert same(again.state_dict(), model.state_dict())
    by_timm = timm.create_model(f"local-dir:{tmp_path}", pretrained=True)
    assert same(by_timm.state_dict(), model.timm_model.state_dict())
    assert by_timm.pretrained_cfg["label_names"] == CLASSES
    assert timm.data.resolve_model_data_config(by_timm)["input_size"][-1] == (image_size or 160)


def test_pipeline_loads_the_folder_without_hf_score(image, tmp_path):
    expected = {}
    for name in ("test_resnet", "test_vit"):
        model, processor, _ = load_model(name, class_names=CLASSES, image_size=64, from_scratch=True)
        model.save_pretrained(tmp_path / name)
        processor.save_pretrained(tmp_path / name)
        expected[name] = logits(model, processor, image).softmax(-1)[0].tolist()
    image.save(tmp_path / "image.png")
    program = f"""
import json, sys
sys.modules["hf_score"] = None  # any import of it fails
from transformers import pipeline
scores = {{}}
for name in {list(expected)}:
    result = pipeline("image-classification", model="{tmp_path}/" + name)("{tmp_path}/image.png")
    by_label = {{row["label"]: row["score"] for row in result}}
    scores[name] = [by_label[c] for c in {CLASSES}]
print(json.dumps(scores))
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    found = json.loads(done.stdout.splitlines()[-1])
    assert found == {name: pytest.approx(scores, abs=1e-5) for name, scores in expected.items()}


def test_timm_name_takes_the_hubs_weights(tmp_path, monkeypatch):
    """From a repository in timm's own format, by name and by id, with the real client."""
    monkeypatch.syspath_prepend(Path(__file__).parent)
    from hub_server import HubServer

    original = timm.create_model("test_resnet", num_classes=1000)
    timm.models.save_for_hf(original, tmp_path / "repo", safe_serialization=True)
    program = f"""
from hf_score.models import load_model
from hf_score.errors import ModelError
for name in ("test_resnet", "timm/test_resnet.r160_in1k"):
    model, processor, has_head = load_model(name, class_names={CLASSES}, image_size=64)
    assert not has_head and processor.data_config["input_size"] == (3, 64, 64), (has_head, processor)
    model.save_pretrained(r"{tmp_path}/saved")
try:
    load_model("timm/none", class_names={CLASSES})
except ModelError as error:
    print(error)
"""
    with HubServer(tmp_path / "hub") as hub:
        hub.add_repo("timm/test_resnet.r160_in1k", tmp_path / "repo")
        done = subprocess.run(
            [sys.executable, "-c", program],
            env=hub.environment(tmp_path / "home"),
            capture_output=True,
            text=True,
            check=True,
        )
    assert "no public repository of that name" in done.stdout
    loaded = AutoModelForImageClassification.from_pretrained(tmp_path / "saved").timm_model.state_dict()
    for key, value in original.state_dict().items():
        assert torch.equal(loaded[key], value) or key.startswith("fc."), key


def test_base_model_is_what_the_hub_knows(vit_folder, monkeypatch):
    assert base_model_id("google/vit-base-patch16-224") == "google/vit-base-patch16-224"
    assert base_model_id("resnet18") == "timm/resnet18.a1_in1k"
    assert base_model_id("timm/test_vit.r160_in1k") == "timm/test_vit.r160_in1k"
    assert base_model_id("resnet18", from_scratch=True) is None
    assert base_model_id("resnet18", weights="resnet18.safetensors") is None
    monkeypatch.chdir(vit_folder.parent.parent)
    assert base_model_id(f"{vit_folder.parent.name}/{vit_folder.name}") is None


# ---- heads ----


def test_a_fitting_checkpoint_comes_with_its_head_and_all_its_weights(vit_folder, image):
    """transformers writes a ViT under older names of its weights: see that every one comes back, to the bit."""
    model, processor, has_head = load_model(vit_folder, class_names=CLASSES)
    assert has_head
    torch.manual_seed(0)
    assert same(model.state_dict(), ViTForImageClassification(model.config).state_dict())
    assert processor.size["height"] == 32


def test_another_number_of_classes_gets_a_new_head_and_keeps_the_body(vit_folder):
    original, _, _ = load_model(vit_folder, class_names=CLASSES)
    model, _, has_head = load_model(vit_folder, class_names=["a", "b", "c"])
    assert not has_head
    assert model.classifier.weight.shape == (3, 32)
    assert model.config.id2label == {0: "a", 1: "b", 2: "c"}
    assert same(body(model), body(original))


def test_timm_checkpoint_for_other_classes(tmp_path):
    """The label list in a timm configuration must not bring the old names back."""
    first, _, _ = load_model("test_resnet", class_names=["a", "b", "c"], from_scratch=True)
    first.save_pretrained(tmp_path / "first")
    model, _, has_head = load_model(tmp_path / "first", class_names=CLASSES)
    assert not has_head
    model.save_pretrained(tmp_path / "second")
    assert AutoModelForImageClassification.from_pretrained(tmp_path / "second").config.id2label == {
        0: "benign",
        1: "melanoma",
    }


def test_a_checkpoint_without_a_head(vit_folder, tmp_path):
    """A pretrained body names two placeholder classes: they are no head."""
    base = ViTForImageClassification.from_pretrained(vit_folder).vit
    base.config.id2label = {0: "LABEL_0", 1: "LABEL_1"}
    base.save_pretrained(tmp_path)
    ViTImageProcessor(size={"height": 32, "width": 32}).save_pretrained(tmp_path)
    model, _, has_head = load_model(tmp_path, class_names=CLASSES)
    assert not has_head
    assert same(model.vit.state_dict(), {k: v for k, v in base.state_dict().items() if not k.startswith("pooler")})


def test_placeholder_names_are_taken_in_order_with_a_warning(tmp_path, caplog):
    save_vit(tmp_path, ["LABEL_0", "LABEL_1"])
    model, _, has_head = load_model(tmp_path, class_names=CLASSES)
    assert has_head
    assert model.config.id2label[1] == "melanoma"
    assert "LABEL_1" in caplog.text


def test_case_of_class_names_does_not_matter(vit_folder):
    assert load_model(vit_folder, class_names=["Benign", "Melanoma"])[2]


def test_label_ids_that_differ_are_refused(vit_folder):
    advice = r"load_data\(..., model_classes=\['benign', 'melanoma'\]\)"
    refused(
        rf"the model says 0 = 'benign', the data says 0 = 'melanoma'; .*{advice}",
        vit_folder,
        class_names=["melanoma", "benign"],
    )
    refused("'nevus' is none of the classes of", vit_folder, class_names=["benign", "nevus"])
    refused("labels are numbers", vit_folder, class_names=["class 0", "class 1"])


def test_the_models_own_spelling_stays(vit_folder):
    model, _, has_head = load_model(vit_folder, class_names=["BENIGN ", "Melanoma"])
    assert has_head and list(model.config.id2label.values()) == CLASSES


def test_an_order_that_nobody_stated_is_not_trusted(tmp_path):
    """`load_data` marks names that it only sorted; a model that does not name its classes cannot be held to them."""
    save_vit(tmp_path / "vit", ["LABEL_0", "LABEL_1"])
    torch.manual_seed(0)
    save_file(timm.create_model("test_resnet", num_classes=2).state_dict(), tmp_path / "w.safetensors")
    for name, weights in ((tmp_path / "vit", None), ("test_resnet", tmp_path / "w.safetensors")):
        refused("state with class_names", name, class_names=ClassNames(CLASSES, stated=False), weights=weights)
        assert load_model(name, class_names=ClassNames(CLASSES), weights=weights).has_head


def test_own_class_names(vit_folder, tmp_path):
    assert own_class_names(vit_folder, image_size=64) == CLASSES
    assert own_class_names(vit_folder, from_scratch=True) is None
    assert own_class_names("test_resnet", weights=tmp_path / "w.safetensors") is None
    assert own_class_names(save_vit(tmp_path, ["LABEL_0", "LABEL_1"])) is None
    with pytest.raises(ModelError, match="There is no model folder"):
        own_class_names("./none")


@pytest.mark.parametrize(
    ("names", "match"),
    [
        (["Benign", "melanoma "], None),
        (["melanoma", "benign"], "the model says 0 = 'benign', the data set says 0 = 'melanoma'"),
        (["benign", "nevus"], "the data set says 1 = 'nevus'"),
        (["benign", "melanoma", "nevus"], "has 2 outputs"),
        (["class 0", "class 1"], None),
    ],
)
def test_label_ids_of_a_data_set_are_compared_with_the_models(vit_folder, names, match):
    model, _, _ = load_model(vit_folder, class_names=None)
    dataset = Dataset.from_dict({"label": [0, 1]}, features=Features(label=ClassLabel(names=names)))
    for given in (dataset, names):
        if match is None:
            check_label_ids(model, given)
        else:
            with pytest.raises(ModelError, match=match):
                check_label_ids(model, given)


# ---- sizes ----


def test_vit_position_embeddings_are_interpolated(vit_folder, image, tmp_path):
    model, processor, has_head = load_model(vit_folder, class_names=CLASSES, image_size=64)
    original, _, _ = load_model(vit_folder, class_names=CLASSES)
    assert has_head
    assert (model.config.image_size, processor.size["height"]) == (64, 64)
    old, new = (m.vit.embeddings.position_embeddings for m in (original, model))
    assert new.shape == (1, 1 + 8 * 8, 32)
    assert torch.equal(new[:, :1], old[:, :1])  # the class token's
    rows = old[:, 1:].reshape(1, 4, 4, 32).permute(0, 3, 1, 2)
    expected = torch.nn.functional.interpolate(rows, size=(8, 8), mode="bicubic", antialias=True, align_corners=False)
    assert torch.allclose(new[:, 1:], expected.permute(0, 2, 3, 1).reshape(1, 64, 32), atol=1e-6)
    rest = {key: value for key, value in model.state_dict().items() if "position" not in key}
    assert same(rest, {key: value for key, value in original.state_dict().items() if "position" not in key})
    model.save_pretrained(tmp_path)
    processor.save_pretrained(tmp_path)
    stock = AutoModelForImageClassification.from_pretrained(tmp_path)
    stock_processor = AutoImageProcessor.from_pretrained(tmp_path)
    assert torch.allclose(logits(stock, stock_processor, image), logits(model, processor, image), atol=1e-5)


def test_timm_vit_position_embeddings_are_interpolated(tmp_path):
    native, processor, _ = load_model("test_vit", class_names=CLASSES, from_scratch=True)
    native.save_pretrained(tmp_path)
    model, processor, has_head = load_model(tmp_path, class_names=CLASSES, image_size=64)
    assert has_head
    theirs = timm.create_model("test_vit", num_classes=2, img_size=64)
    theirs.load_state_dict(  # timm's own conversion
        timm.models.vision_transformer.checkpoint_filter_fn(native.timm_model.state_dict(), theirs)
    )
    assert same(model.timm_model.state_dict(), theirs.state_dict())
    assert processor.data_config["input_size"] == (3, 64, 64)


def test_resize_and_crop_keep_their_proportion(tmp_path):
    config = DeiTConfig(hidden_size=32, num_hidden_layers=1, num_attention_heads=2, intermediate_size=32)
    DeiTForImageClassification(config).save_pretrained(tmp_path)
    DeiTImageProcessor().save_pretrained(tmp_path)
    model, processor, _ = load_model(tmp_path, class_names=CLASSES, image_size=112)
    assert (processor.size["height"], processor.crop_size["height"]) == (128, 112)
    assert model.deit.embeddings.position_embeddings.shape[1] == 7 * 7 + 2


def test_sizes_that_do_not_fit_are_refused(vit_folder):
    refused("image size 60 is no multiple of the patch size 8", vit_folder, class_names=CLASSES, image_size=60)
    refused("no multiple of the patch size 16", "test_vit", class_names=CLASSES, image_size=60, from_scratch=True)


# ---- weights ----


def test_weights_from_a_file(tmp_path):
    source = timm.create_model("test_vit", num_classes=10)
    save_file({key: value.half() for key, value in source.state_dict().items()}, tmp_path / "w.safetensors")
    model, _, has_head = load_model("test_vit", class_names=CLASSES, weights=tmp_path / "w.safetensors")
    assert not has_head
    for key, value in source.half().state_dict().items():
        if not key.startswith("head."):
            assert torch.equal(model.timm_model.state_dict()[key], value.float())
    ten = [f"c{i}" for i in range(10)]
    assert load_model("test_vit", class_names=ten, weights=tmp_path / "w.safetensors")[2]


def test_weights_that_do_not_fit_are_refused(tmp_path):
    state = timm.create_model("test_vit", num_classes=2).state_dict()
    file = tmp_path / "w.safetensors"
    save_file({key: value for key, value in state.items() if key != "blocks.0.norm1.weight"}, file)
    refused(r"1 keys are missing \['blocks.0.norm1.weight'\]", "test_vit", class_names=CLASSES, weights=file)
    save_file({**state, "extra": torch.zeros(1)}, file)
    refused(r"1 are unexpected \['extra'\]", "test_vit", class_names=CLASSES, weights=file)
    save_file({**state, "cls_token": torch.zeros(1, 1, 3)}, file)
    refused(r"cls_token has the shape \(1, 1, 3\)", "test_vit", class_names=CLASSES, weights=file)
    file.write_bytes(b"nothing")
    refused("Cannot read the weights", "test_vit", class_names=CLASSES, weights=file)
    refused("Cannot read the weights", "test_vit", class_names=CLASSES, weights=tmp_path / "none.safetensors")
    refused("`weights` goes with a timm name", "user/model", class_names=CLASSES, weights=file)


def test_from_scratch_is_timms_own_initialisation():
    torch.manual_seed(0)
    model, _, _ = load_model("test_resnet", class_names=CLASSES, from_scratch=True)
    theirs = timm.create_model("test_resnet", num_classes=2)
    for (key, ours), value in zip(model.timm_model.state_dict().items(), theirs.state_dict().values(), strict=True):
        if ours.ndim == 4:  # He initialisation: the spread depends on the layer, not on a constant of transformers
            assert ours.std() == pytest.approx(value.std(), rel=0.25), key
    torch.manual_seed(0)
    assert same(model.state_dict(), load_model("test_resnet", class_names=CLASSES, from_scratch=True)[0].state_dict())


def test_from_scratch_with_a_checkpoints_configuration(vit_folder):
    model, processor, has_head = load_model(vit_folder, class_names=CLASSES, from_scratch=True, image_size=16)
    assert not has_head
    assert model.vit.embeddings.position_embeddings.shape[1] == 1 + 2 * 2
    assert processor.size["height"] == 16


def test_a_checkpoint_that_lacks_part_of_its_body_is_refused(tmp_path):
    save_vit(tmp_path, CLASSES)
    state = load_file(tmp_path / "model.safetensors")
    lost = next(key for key in state if "intermediate" in key or "fc1" in key)
    save_file(
        {key: value for key, value in state.items() if key != lost}, tmp_path / "model.safetensors", {"format": "pt"}
    )
    refused("lacks weights of its body, such as vit.", tmp_path, class_names=CLASSES)


@pytest.mark.parametrize(("image_size", "logit_size"), [(None, 224), (112, 112)])
def test_real_deit_weights(real_data, image_size, logit_size):
    """The first block's weights to the bit, and the new size in use."""
    file = real_data / "weights" / "deit_tiny_patch16_224_fp16.safetensors"
    model, processor, has_head = load_model(
        "deit_tiny_patch16_224", class_names=CLASSES, weights=file, image_size=image_size
    )
    assert not has_head
    key = "blocks.0.attn.qkv.weight"
    assert torch.equal(model.timm_model.state_dict()[key], load_file(file)[key].float())
    pixels = processor(images=[Image.new("RGB", (300, 200))], return_tensors="pt")["pixel_values"]
    assert pixels.shape == (1, 3, logit_size, logit_size)
    assert model(pixel_values=pixels).logits.isfinite().all()


# ---- what cannot be found ----


def refused(match, *arguments, **options):
    with pytest.raises(ModelError, match=match) as caught:
        load_model(*arguments, **options)
    assert "\n" not in str(caught.value)
    assert str(caught.value).endswith(".")


@pytest.mark.parametrize("name", ["/no/such/folder", "./none", "a/b/c"])
def test_no_such_folder(name):
    refused("There is no model folder", name, class_names=CLASSES)


def test_a_misspelt_timm_name_is_guessed():
    refused("did you mean 'resnet18'", "resnet_18", class_names=CLASSES)


def test_hub_id_and_timm_name_without_the_hub():
    for name in ("google/vit-base-patch16-224", "resnet18"):
        refused("which is no local folder: the Hub cannot be reached and nothing is cached", name, class_names=CLASSES)


def test_timm_architecture_without_pretrained_weights():
    refused("no pretrained weights for 'resnet10t_nothing'|did you mean", "resnet10t_nothing", class_names=CLASSES)


def test_a_folder_that_is_no_checkpoint(tmp_path):
    refused("Cannot load the model folder .* must be written by `save_pretrained`", tmp_path, class_names=CLASSES)


@pytest.mark.parametrize(
    "name",
    ["ViTForImageClassification", "ResNetForImageClassification", "test_resnet", "test_efficientnet", "test_vit"],
)
def test_the_classifier_head_gives_the_logits(name):
    if name.endswith("Classification"):
        model, _ = zoo.make(name)
    else:
        model, _, _ = load_model(name, class_names=["a", "b"], from_scratch=True, image_size=32)
    seen = []
    handle = classifier_head(model).register_forward_hook(lambda module, args, output: seen.append((args[0], output)))
    logits = model(pixel_values=torch.rand(2, 3, 32, 32)).logits
    handle.remove()
    ((features, output),) = seen
    assert features.ndim == 2 and torch.equal(output, logits)


def test_two_heads_are_refused():
    model, _, _ = load_model("deit_tiny_distilled_patch16_224", class_names=["a", "b"], from_scratch=True)
    with pytest.raises(ModelError, match="has 2 linear heads"):
        classifier_head(model)


def test_a_model_keeps_its_own_head_when_no_classes_are_given(vit_folder):
    model, _, has_head = load_model(vit_folder, class_names=None)
    assert has_head and list(model.config.id2label.values()) == CLASSES
    saved = load_file(vit_folder / "model.safetensors")
    assert torch.equal(model.classifier.weight, saved["classifier.weight"])


def test_timm_weights_keep_their_own_head_when_no_classes_are_given(tmp_path):
    torch.manual_seed(0)
    own = timm.create_model("test_resnet")  # of 1000 classes
    save_file(own.state_dict(), tmp_path / "own.safetensors")
    model, _, _ = load_model("test_resnet", class_names=None, weights=tmp_path / "own.safetensors")
    assert torch.equal(model.timm_model.get_classifier().weight, own.get_classifier().weight)


def test_a_model_without_a_head_of_its_own_is_refused_when_no_classes_are_given():
    with pytest.raises(ModelError, match="'test_resnet' has no classes of its own that it was trained to name"):
        load_model("test_resnet", class_names=None, from_scratch=True)


def test_eval_mode_gives_every_module_back_the_mode_it_had():
    model = torch.nn.Sequential(torch.nn.BatchNorm1d(2), torch.nn.Dropout())
    model.train()
    model[0].eval()  # frozen, as in fine-tuning
    with pytest.raises(KeyError), eval_mode(model):
        assert not any(module.training for module in model.modules())
        raise KeyError
    assert [module.training for module in model.modules()] == [True, False, True]
