"""`hf-score audit` on a trained model: what it leaves, and every input that it refuses in a sentence."""

import json
import re
from xml.etree import ElementTree

import pytest
import torch
from datasets import ClassLabel, IterableDataset

from hf_score.audit import AUDIT_SCHEMA, AuditOptions, render_badge, render_card_section, run_audit
from hf_score.baselines import BASELINES
from hf_score.cli import main
from hf_score.data import load_data, preprocess
from hf_score.errors import DataError, ModelError
from hf_score.models import load_model

FEW = ["--num_candidates", "6", "--most_images", "200", "--num_probed", "24"]
SMALL = AuditOptions(num_candidates=6, most_images=200, num_probed=24)


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    """A CNN that has learned the square of `fashion_patch`."""
    folder = tmp_path_factory.mktemp("model") / "cnn"
    data = load_data("fashion_patch", num_train=600)
    torch.manual_seed(0)
    model, processor, _ = load_model("test_resnet", class_names=data.class_names, from_scratch=True, image_size=32)
    kind = BASELINES["continued_erm"]
    config = kind.config_class(
        output_dir=str(folder.parent),
        num_train_epochs=4,
        learning_rate=2e-3,
        per_device_train_batch_size=32,
        report_to="none",
        save_strategy="no",
        use_cpu=True,
        disable_tqdm=True,
    )
    kind(model, config, train_dataset=preprocess(data.train, processor)).train()
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
    return folder


def test_an_audit_leaves_a_page_figures_a_section_and_a_badge(checkpoint, tmp_path, capsys):
    words = ["audit", str(checkpoint), "--dataset", "fashion_patch", "--output_dir", str(tmp_path), *FEW]
    assert main(words) == 0
    said = capsys.readouterr().out
    assert re.search(r"About \d+ min: \d+ images", said) and str(tmp_path / "index.html") in said
    content = json.loads((tmp_path / "audit.json").read_text())
    assert content["schema"] == AUDIT_SCHEMA and 0 < content["accuracy"]["value"] <= 1
    for one in [*content["clusters"], *content["probes"]]:
        assert 0 <= one["p"] <= one["rate"] + 1e-9 <= 1 + 1e-9 and isinstance(one["found"], bool)
    assert sum(one["size"] for one in content["clusters"]) == 12
    assert {one["probe"] for one in content["probes"]} >= {"text", "ruler", "sticker_red", "blur", "tint_red"}
    assert any("1" in said or "not scanned" in said for said in content["not_looked_at"])
    page = (tmp_path / "index.html").read_text()
    assert "data:image" in page and not re.search(r'(?:src|href)="(?!data:)', page)
    assert str(checkpoint.parent) not in page
    assert content["summary"]["headline"] in page and content["summary"]["headline"] in said
    section = (tmp_path / "card_section.md").read_text()
    assert (
        section.startswith("## Shortcut audit\n")
        and "| --- |" not in section
        and str(checkpoint.parent) not in section
    )
    rows = [line for line in section.splitlines() if line.startswith("| ")]
    assert {line.count("|") for line in rows} == {8, 9}
    badge = ElementTree.parse(tmp_path / "badge.svg").getroot()
    assert badge.attrib["aria-label"].startswith("shortcut audit: ")

    assert main([*words[: -len(FEW) - 1], str(tmp_path / "again"), *FEW]) == 0
    again = json.loads((tmp_path / "again" / "audit.json").read_text())
    assert [again[key] for key in ("clusters", "probes", "accuracy")] == [
        content[key] for key in ("clusters", "probes", "accuracy")
    ]


def test_card_section_and_badge_say_the_outcome():
    content = {
        "summary": {"outcome": "suspected", "headline": "Shortcuts suspected", "sentences": ["A | b."], "findings": 2},
        "clusters": [],
        "probes": [],
        "thresholds": {"rate": 0.05},
        "not_looked_at": ["Much."],
        "versions": {"hf-score": "1"},
        "dataset": {"name": "d", "fingerprint": "f" * 64},
    }
    assert "**Shortcuts suspected.** A | b." in render_card_section(content)
    assert "2 findings" in render_badge(content)
    content["summary"] |= {"outcome": "nothing found", "findings": 0}
    assert "nothing found" in render_badge(content)


def test_a_model_whose_classes_are_in_another_order_is_refused(checkpoint, tmp_path):
    swapped = tmp_path / "swapped"
    model, processor, _ = load_model(checkpoint, class_names=None)
    with torch.no_grad():
        for parameter in model.timm_model.get_classifier().parameters():
            parameter.copy_(parameter.flip(0))
    model.save_pretrained(swapped)
    processor.save_pretrained(swapped)
    with pytest.raises(ModelError, match=r"if its outputs are '(shirt', 'pullover|pullover', 'shirt)' in this"):
        run_audit(str(swapped), "fashion_patch", tmp_path / "out", options=SMALL)
    assert not (tmp_path / "out").exists()
    data = load_data("fashion_patch", num_train=100)
    names = ClassLabel(names=["cat", "dog"])
    others = {split: getattr(data, split).cast_column("label", names) for split in ("train", "test")}
    with pytest.raises(ModelError, match="none of the classes of"):
        run_audit(str(checkpoint), others, tmp_path / "out", options=SMALL)


def test_what_cannot_be_audited_is_refused_in_a_sentence(checkpoint, tmp_path, capsys):
    with pytest.raises(DataError, match="a stream can only be read from its beginning"):
        run_audit(str(checkpoint), IterableDataset.from_generator(lambda: iter(())), tmp_path / "out")
    assert main(["audit", "nobody/no-such-model", "--dataset", "fashion_patch", *FEW]) == 2
    assert capsys.readouterr().err.count("\n") == 1
    assert main(["audit", str(checkpoint), "--dataset", "nobody/no-such-data", *FEW]) == 2
    assert capsys.readouterr().err.count("\n") == 1
    data = load_data("fashion_patch", num_train=100)
    one_class = {
        split: getattr(data, split).filter(lambda label: label == 0, input_columns=["label"])
        for split in ("train", "test")
    }
    with pytest.raises((DataError, ModelError)) as raised:
        run_audit(str(checkpoint), one_class, tmp_path / "out", options=SMALL)
    assert "class" in str(raised.value) and "\n" not in str(raised.value)
    assert main(["audit", str(checkpoint), "--dataset", "fashion_patch", "--num_probed", "0"]) == 2
    assert "num_probed is 0" in capsys.readouterr().err
