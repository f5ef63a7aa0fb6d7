"""Class and group names of every kind: tables keep their columns, pages their mark-up, and no two files are one."""

import json
import re

import numpy as np
import pytest
from PIL import Image

from hf_score.detection import Candidates
from hf_score.pipeline.pictures import figures_of, write_contact_sheets
from hf_score.report import render_conclusions, render_model_card, render_table, write_report
from hf_score.report.names import drawn_names, in_words

NAMES = ["a|b", '<b>c</b> & "d"\'', "HER2+\n# HER2-", "良性 | 悪性", "x" * 200, "$\\alpha_$ *e* [f](g) `h`"]
PAIRS = [NAMES[:2], NAMES[2:4], NAMES[4:]]


def with_names(results: dict, names: list[str]) -> dict:
    """The results of classes of these names; groups are pairs of class and attribute."""
    renamed = json.loads(json.dumps(results))
    renamed["dataset"]["class_names"] = names
    renamed["config"]["class_names"] = names
    renamed["selection"]["classes"] = dict(zip(names, results["selection"]["classes"].values(), strict=True))
    renamed["selection"]["candidates"] = dict.fromkeys(names, 100)
    groups = [f"{name}, {attribute}" for name in names for attribute in ("no", "yes")]
    renamed["dataset"]["group_names"] = groups
    for method in renamed["methods"].values():
        for run in method["runs"]:
            metrics = run["metrics"]
            metrics["group_accuracy"] = dict(zip(groups, metrics["group_accuracy"].values(), strict=True))
            metrics["worst_group"] = groups[0]
    return renamed


def columns(row: str) -> int:
    return len(re.findall(r"(?<!\\)\|", row.replace("\\\\", "")))


@pytest.mark.parametrize("names", PAIRS)
def test_tables_keep_their_columns(names, results):
    named = with_names(results, names)
    card = render_model_card(named, model_name="m")
    for text in (card, render_table(named, "markdown")):
        tables = re.findall(r"(?:^\|.*\n?)+", text, flags=re.MULTILINE)
        assert tables
        for table in tables:
            assert len({columns(row) for row in table.strip().splitlines()}) == 1, table
    rows = render_table(named, "text").splitlines()
    assert len(rows) > len(named["methods"]) and all("\n" not in row for row in rows)


@pytest.mark.parametrize("names", PAIRS)
def test_no_name_is_mark_up_in_the_card(names, results):
    named = with_names(results, names)
    card = render_model_card(named, model_name="m")
    body = card.split("---\n", 2)[2]
    assert "<b>" not in body and "\n# HER2-" not in body and "[f](g)" not in body
    assert "<b>" not in render_conclusions(named).replace("&lt;", "")


@pytest.mark.parametrize("names", PAIRS)
def test_every_picture_has_a_file_and_a_place_on_the_page(names, results, tmp_path):
    generator = np.random.default_rng(0)
    candidates = Candidates(
        idx=np.arange(4),
        position=np.arange(4),
        labels=np.array([0, 0, 1, 1]),
        logits=np.ones(4, dtype=np.float32),
        masked_margins=np.ones(4, dtype=np.float32),
        heatmaps=np.ones((4, 32, 32), dtype=np.float32),
        masks=np.ones((4, 32, 32), dtype=bool),
        shortcut_relevance=np.ones((4, 2), dtype=np.float32),
        cluster=np.zeros(4, dtype=np.int64),
        layer="layer",
        class_names=tuple(names),
        images=[Image.fromarray(generator.integers(0, 255, (32, 32, 3), dtype=np.uint8)) for _ in range(4)],
        dataset_fingerprint="d",
        model_fingerprint="m",
    )
    write_contact_sheets(tmp_path / "sheets", candidates)
    files = sorted((tmp_path / "sheets").iterdir())
    assert len(files) == 2 and all(re.fullmatch(r"[a-z0-9-]+\.png", file.name) for file in files)
    named = with_names(results, names)
    figures = figures_of(named, tmp_path / "sheets")
    captions = {figures[f"contact_sheet/{file.stem}"][1] for file in files}
    assert captions == {f"Candidates of class {name}." for name in names}
    page = write_report(tmp_path / "report", named, figures).read_text()
    assert "<b>c" not in page and page.count("data:image/png") >= 3
    for name in names:
        assert name.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")[:3] in page


@pytest.mark.parametrize("name", ["悪性", "ورم", "ปกติ", "🩺 scan", "가나다"])
def test_a_name_that_no_figure_can_draw_is_a_number_there_and_a_name_beside_it(name, results, tmp_path, recwarn):
    named = with_names(results, ["benign", name])
    page = write_report(tmp_path / "report", named, {}).read_text()
    assert f"group 2 is “{name}, no”" in page and "group 0 is" not in page
    assert not [str(warning.message) for warning in recwarn if "lyph" in str(warning.message)]
    assert drawn_names(["Größe µ ≤ 3 ✓", name]) == ["Größe µ ≤ 3 ✓", "class 1"]
    assert in_words(["benign", name]) == f" Here class 1 is “{name}”."
    assert in_words(["benign", name], among=[0]) == ""
