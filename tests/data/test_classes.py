"""Names of classes: the same whatever their spelling, in one order for data, options and model, and safe as files."""

import random
import unicodedata
from collections import Counter

import numpy as np
import pytest
import torch
from datasets import ClassLabel, Dataset, Features, Image, Value
from PIL import Image as PILImage
from transformers import ViTConfig, ViTForImageClassification, ViTImageProcessor

from hf_score.data import load_data
from hf_score.data.classes import (
    ClassNames,
    checked_names,
    class_key,
    file_names,
    match_classes,
    natural_order,
    parse_class_names,
    sorted_names,
)
from hf_score.data.labels import Groups, in_order, read_labels
from hf_score.errors import DataError, HFScoreError, ModelError
from hf_score.models import load_model, own_class_names
from hf_score.models.loading import _check_order

NFD = unicodedata.normalize("NFD", "mélanome")


def test_names_that_differ_in_spelling_alone_are_the_same():
    assert class_key(" Mélanome\u00a0") == class_key(NFD.upper()) == class_key("mélanome")
    assert class_key("not  blond") == class_key("Not blond")
    assert class_key("ＨＥＲ２＋") == class_key("her2+") != class_key("her2-")
    assert class_key("STRASSE") == class_key("straße")


@pytest.mark.parametrize("names", [["a", "A "], ["mélanome", NFD], ["a", " "]])
def test_names_that_are_equal_or_empty_are_refused(names):
    with pytest.raises(DataError, match=r"the same but for|is empty"):
        checked_names(names, "class_names")


def test_a_command_lines_names():
    assert parse_class_names('malignant, benign ,"one, two"') == ["malignant", "benign", "one, two"]


def test_numbers_are_sorted_by_value_and_words_as_text():
    assert sorted_names(map(str, range(12))) == list(map(str, range(12)))
    assert sorted_names(["stage2", "stage10", "Z", "a"]) == ["Z", "a", "stage10", "stage2"]
    assert natural_order(["stage10", "stage2", "a"]) == ["a", "stage2", "stage10"]
    assert sorted_names(["0", "1"]).stated  # there is but one way to sort them
    assert not sorted_names(map(str, range(12))).stated
    assert not sorted_names(["benign", "malignant"]).stated


STATED = [str(i) for i in range(12)]


@pytest.mark.parametrize(
    ("ours", "theirs", "order"),
    [
        (["benign", "malignant"], ["Malignant", "Benign "], [1, 0]),
        (STATED, sorted(STATED), [0, 1, 10, 11, *range(2, 10)]),
        (ClassNames(STATED, stated=False), STATED, list(range(12))),
        (STATED, [f"LABEL_{i}" for i in range(12)], list(range(12))),
        (STATED, [f"class {i}" for i in range(12)], list(range(12))),
        (["benign", "malignant"], ["LABEL_0", "LABEL_1"], [0, 1]),
    ],
)
def test_matching(ours, theirs, order):
    assert match_classes(ours, theirs) == order


@pytest.mark.parametrize(
    ("ours", "theirs", "match"),
    [
        (ClassNames(["benign", "malignant"], stated=False), ["LABEL_0", "LABEL_1"], "only that of sorting"),
        (ClassNames(STATED, stated=False), [f"LABEL_{i}" for i in range(12)], "only that of sorting"),
        (["1", "2"], ["LABEL_0", "LABEL_1"], "does not name its classes"),
        (["class 0", "class 1"], ["Malignant", "Benign"], "labels are numbers"),
        (["benign", "nevus"], ["benign", "melanoma"], "'nevus' is none of the classes"),
        (["a", "b"], ["a", "b", "c"], "3 classes and the data 2"),
    ],
)
def test_what_cannot_be_matched_is_refused(ours, theirs, match):
    with pytest.raises(ModelError, match=match):
        match_classes(ours, theirs)


def test_file_names_are_unique_and_safe_everywhere():
    names = ["HER2+", "HER2-", "benign", "CON", "黒", "白", "a/b", "x" * 300, "her2-0", "Nul.png", "é", "", ".."]
    files = file_names(names)
    assert len({file.casefold() for file in files}) == len(names)
    assert all(0 < len(file) <= 70 and file.strip("abcdefghijklmnopqrstuvwxyz0123456789-") == "" for file in files)
    assert files[2] == "benign" and not {"con", "nul"} & set(files)
    assert file_names(["a"] * 300) == [f"a-{i}" for i in range(300)]


# ---- A perfect model is right, or refused ----

WORDS = ["benign", "malignant", "Mélanome", "nævus", "HER2+", "HER2-", "straße", "not blond", "NA", "None", "Ünk", "z"]


class Draw:
    """One random task: K classes, data that label them somehow, a model that knows them, and a user's options."""

    def __init__(self, seed: int) -> None:
        self.rng = rng = random.Random(seed)
        count = rng.choice([2, 2, 3, 5, 11, 12])
        kind = rng.choice(["words", "words", "stages", "from 0", "from 1"])
        self.truth = {
            "words": rng.sample(WORDS, count),
            "stages": [f"stage{i}" for i in range(1, count + 1)],
            "from 0": [str(i) for i in range(count)],
            "from 1": [str(i) for i in range(1, count + 1)],
        }[kind]
        self.data_ids: list[str] | None = None  # what the data's numbers stand for, where they are numbers
        self.class_names: list[str] | None = None
        self.splits = self._splits(rng.choice(["text", "ClassLabel", "numbers"]))
        self.named = rng.random() < 0.7
        self.model = rng.sample(self.truth, count)  # by output
        self._options()

    def respelled(self, name: str) -> str:
        name = self.rng.choice([str, str.upper, str.title, str.casefold])(name)
        name = unicodedata.normalize(self.rng.choice(["NFC", "NFD"]), name)
        return self.rng.choice(["", "", " "]) + name + self.rng.choice(["", "", " ", "\u00a0"])

    def _splits(self, kind: str) -> dict[str, Dataset]:
        self.shown = dict.fromkeys(("train", "test"), self.truth * 2)
        for labels in self.shown.values():
            self.rng.shuffle(labels)
        if kind == "text":  # one spelling in each split
            spelled = {split: {name: self.respelled(name) for name in self.truth} for split in self.shown}
            columns = {split: [spelled[split][name] for name in names] for split, names in self.shown.items()}
            feature = Value("string")
        else:
            self.data_ids = self.rng.sample(self.truth, len(self.truth))
            if kind == "numbers" and self.truth[0].isdigit():
                kind, self.data_ids = "own numbers", self.truth if self.truth[0] == "0" else None
        if kind == "own numbers":
            columns = {split: [int(name) for name in names] for split, names in self.shown.items()}
            feature = Value("int64")
        elif self.data_ids is not None:
            columns = {split: [self.data_ids.index(name) for name in names] for split, names in self.shown.items()}
            names = [self.respelled(name) for name in self.data_ids]
            feature = ClassLabel(names=names) if kind == "ClassLabel" else Value("int64")
        self.numbers = kind == "numbers" or (kind == "own numbers" and self.data_ids is not None)
        features = Features(label=feature)
        return {split: Dataset.from_dict({"label": column}, features=features) for split, column in columns.items()}

    def _options(self) -> None:
        """What a user says is true: what the data's numbers stand for, and the order of a model that has no names."""
        given = self.rng.random() < 0.5
        if not self.named and self.data_ids is not None:
            self.model = self.data_ids  # trained on the ids of the data
        elif not self.named and self.truth[0] == "0" and len(self.truth) <= 10:
            self.model = self.truth  # the numbers from 0 are ids, also as text; from 10 on, sorting is in doubt
        if given and self.numbers:
            self.class_names = self.data_ids
        elif given:
            self.class_names = self.model if not self.named else self.rng.sample(self.truth, len(self.truth))
        if self.class_names is not None:
            self.class_names = [self.respelled(name) for name in self.class_names]

    @property
    def own(self) -> list[str]:
        if self.named:
            return [self.respelled(name) for name in self.model]
        return [f"LABEL_{i}" for i in range(len(self.model))]

    def accuracy(self) -> float:
        own = self.own
        labels, names = read_labels(self.splits, "label", self.class_names, "draw")
        labels, names, _ = in_order(labels, names, Groups({}), own)
        _check_order(names, own, "model")  # what load_model does with the names of the data
        predicted = [self.model.index(name) for name in self.shown["test"]]
        return float(np.mean(labels["test"] == predicted))


def test_a_perfect_model_is_right_or_refused(caplog):
    caplog.set_level("ERROR")
    outcomes = Counter()
    for seed in range(1200):
        draw = Draw(seed)
        try:
            accuracy = draw.accuracy()
        except HFScoreError as error:
            assert str(error).endswith(".") and "\n" not in str(error)
            outcomes["refused, named" if draw.named and not draw.numbers else "refused"] += 1
            continue
        assert accuracy == 1, (seed, draw.class_names, draw.own, draw.splits["train"].features, draw.truth)
        outcomes["right"] += 1
    assert outcomes["right"] > 600
    # where both name their classes there is nothing to doubt
    assert outcomes["refused, named"] == 0


# ---- From folders and checkpoints ----

COLOURS = [(250 * (i % 2), 80 * (i % 4), 20 * i) for i in range(12)]


def write_folders(folder, names):
    """Four images of one colour for each class; more than one file size, so that all differ."""
    for i, name in enumerate(names):
        for split, count in (("train", 3), ("test", 1)):
            (folder / split / name).mkdir(parents=True)
            for number in range(count):
                image = PILImage.new("RGB", (8, 8), COLOURS[i])
                image.putpixel((number, 7), (number, i, len(split)))
                image.save(folder / split / name / f"{number}.png")


def perfect_vit(folder, names, colours):
    """A ViT whose head knows the colours' embeddings by heart: it names each colour's class."""
    torch.manual_seed(0)
    config = ViTConfig(
        hidden_size=32,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=32,
        image_size=8,
        patch_size=4,
        id2label=dict(enumerate(names)),
        label2id={name: i for i, name in enumerate(names)},
    )
    model, processor = ViTForImageClassification(config).eval(), ViTImageProcessor(size={"height": 8, "width": 8})
    images = [PILImage.new("RGB", (8, 8), colour) for colour in colours]
    with torch.no_grad():
        features = model.vit(**processor(images=images, return_tensors="pt")).last_hidden_state[:, 0]
        model.classifier.weight.copy_(2 * features)
        model.classifier.bias.copy_(-(features**2).sum(dim=1))  # the nearest one
    model.save_pretrained(folder)
    processor.save_pretrained(folder)


@pytest.mark.parametrize("seed", range(20))
def test_a_perfect_checkpoint_on_folders_is_right_or_refused(seed, tmp_path):
    rng = random.Random(seed)
    names = rng.choice([["benign", "malignant"], STATED, [f"stage{i}" for i in range(1, 12)], WORDS[:5]])
    write_folders(tmp_path / "data", names)
    order = rng.sample(range(len(names)), len(names))
    own = [names[i].upper() for i in order]
    named = rng.random() < 0.75
    perfect_vit(
        tmp_path / "model", own if named else [f"LABEL_{i}" for i in range(len(own))], [COLOURS[i] for i in order]
    )
    stated = rng.random() < 0.5
    try:
        data = load_data(
            tmp_path / "data",
            model_classes=own_class_names(tmp_path / "model"),
            class_names=[f" {name} " for name in own] if stated else None,
        )
        model, processor, has_head = load_model(tmp_path / "model", class_names=data.class_names)
    except ModelError as error:
        assert not named and not stated, error
        return
    assert has_head and (named or stated)
    images = [image.convert("RGB") for image in data.test["image"]]
    predicted = model(**processor(images=images, return_tensors="pt")).logits.argmax(dim=1)
    assert predicted.tolist() == data.test["label"][:]


def test_following_the_advice_does_not_swap(tmp_path):
    """Folders benign, malignant and a model 0 = Malignant: seen to end in 0 % accuracy."""
    write_folders(tmp_path / "data", ["benign", "malignant"])
    perfect_vit(tmp_path / "model", ["Malignant", "Benign"], [COLOURS[1], COLOURS[0]])
    data = load_data(tmp_path / "data")
    with pytest.raises(ModelError, match=r"model_classes=\['Malignant', 'Benign'\]"):
        load_model(tmp_path / "model", class_names=data.class_names)
    for options in ({"model_classes": ["Malignant", "Benign"]}, {"class_names": ["malignant", " benign"]}):
        data = load_data(tmp_path / "data", **options)
        assert data.test["label"][:] == [1, 0]
        assert load_model(tmp_path / "model", class_names=data.class_names).has_head


def test_groups_follow_the_labels(image_folder, rows_of):
    folder = image_folder(
        test=[{**row, "label": ("land", "water")[row["label"]], "group": ""} for row in rows_of("te", [0, 1, 2, 3])],
        train=[{**row, "label": ("land", "water")[row["label"]]} for row in rows_of("tr", columns="label spurious")],
        validation=None,
    )
    options = {"spurious_column": "spurious", "group_column": "spurious", "with_train_groups": True}
    ours = load_data(folder, **options)
    theirs = load_data(folder, model_classes=["Water", "Land"], **options)
    assert theirs.class_names == ["Water", "Land"]
    assert theirs.test["label"][:] == [1 - label for label in ours.test["label"]]
    assert theirs.group_names == ["Water, spurious=0", "Water, spurious=1", "Land, spurious=0", "Land, spurious=1"]
    assert theirs.test["group"][:] == [2, 3, 0, 1]
    assert theirs.train_group_counts == [18, 2, 2, 18]
    assert theirs.train_groups == {idx: (group + 2) % 4 for idx, group in ours.train_groups.items()}
    assert theirs.train["idx"][:] == ours.train["idx"][:]  # the split does not depend on it
    assert theirs.fingerprint != ours.fingerprint


def test_a_benchmarks_order_follows_the_model():
    ours = load_data("fashion_patch", verify=False)
    theirs = load_data("fashion_patch", verify=False, model_classes=["Shirt", "Pullover"])
    assert (ours.class_names, theirs.class_names) == (["pullover", "shirt"], ["Shirt", "Pullover"])
    assert theirs.train["label"][:] == [1 - label for label in ours.train["label"]]
    assert theirs.test["group"][:] == [(group + 2) % 4 for group in ours.test["group"]]
    with pytest.raises(ModelError, match="'pullover' is none of the classes"):
        load_data("fashion_patch", verify=False, class_names=["dress", "shirt"])


def test_in_memory_labels_that_are_names(tmp_path):
    image = PILImage.new("RGB", (8, 8))
    features = Features(image=Image(), label=ClassLabel(names=["b", "a"]))
    rows = Dataset.from_dict({"image": [image] * 20, "label": [0, 1] * 10}, features=features)
    data = load_data({"train": rows, "test": rows})
    assert (data.class_names, data.class_names.stated) == (["b", "a"], True)
