"""The cards in `model_cards/`, made of the results beside them; and `hf-score card`, which writes such folders."""

import json
import os
import re
from pathlib import Path

import pytest
from huggingface_hub import ModelCard

from hf_score.cli import main
from hf_score.report import render_model_card
from hf_score.report.redact import TOKEN_PATTERN

CARDS = [path.parent for path in sorted((Path(__file__).parents[2] / "model_cards").glob("*/score_report.json"))]


def pictures(card):
    """Path → caption."""
    return {path: caption for caption, path in re.findall(r"!\[(.*?)\]\((.*?)\)", card)}


def render_again(folder):
    card = ModelCard.load(folder / "README.md")
    results = json.loads((folder / "score_report.json").read_text(encoding="utf-8"))
    return render_model_card(
        results, model_name=folder.name, license=card.data.license, pictures=pictures(card.content)
    )


@pytest.mark.parametrize("folder", CARDS, ids=lambda folder: folder.name)
def test_our_cards_are_made_by_the_template_and_valid(hub, logged_in, folder, tmp_path):
    """After a wanted change: run with HF_SCORE_UPDATE=1, and read the difference before committing it."""
    kept = (folder / "README.md").read_text(encoding="utf-8")
    made = render_again(folder)
    if os.environ.get("HF_SCORE_UPDATE"):
        (folder / "README.md").write_text(made, encoding="utf-8")
        kept = made
    assert kept == made
    card = ModelCard(kept)
    card.validate()  # at the loopback Hub
    assert card.data.eval_results and card.data.license
    shown = pictures(kept)
    assert shown and {folder / name for name in shown} == set((folder / "assets").iterdir())
    for path in folder.rglob("*"):
        assert path.is_dir() or not re.search(rf"{TOKEN_PATTERN}|/home/|/root/|/tmp/".encode(), path.read_bytes())


def test_a_card_is_written_as_push_would_make_it(pushed, run_folder, tmp_path, capsys):
    folder = tmp_path / "cards" / "score-vit"
    words = ["card", str(run_folder), "--output_dir", str(folder), "--repo_id", pushed.repo_id]
    assert main(words) == 0
    assert capsys.readouterr().out.strip() == str(folder)
    written = {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    on_the_hub = pushed.hub.files(pushed.repo_id)
    assert written == {name: on_the_hub[name] for name in ("README.md", "score_report.json", *pictures_of(on_the_hub))}
    assert main([*words, "--license", "mit", "--no-publish_images"]) == 0  # a card is replaced by a card
    card = ModelCard.load(folder / "README.md")
    assert card.data.license == "mit" and not pictures(card.content)
    assert not (folder / "assets").exists()


def pictures_of(files):
    return [name for name in files if name.startswith("assets/")]


def test_a_card_replaces_nothing_else(run_folder, tmp_path, capsys):
    (tmp_path / "thesis.tex").write_text("years of work")
    assert main(["card", str(run_folder), "--output_dir", str(tmp_path)]) == 2
    assert "holds something else than a card: give a new or empty folder." in capsys.readouterr().err
    (run_folder / "results.json").unlink()
    assert main(["card", str(run_folder), "--output_dir", str(tmp_path / "new")]) == 2
    assert "there is no results file" in capsys.readouterr().err
    assert (tmp_path / "thesis.tex").is_file() and not (tmp_path / "new").exists()
