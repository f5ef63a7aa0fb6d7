"""The Python and data blocks of README and docs: run, or read by what reads such a file.

A page is one reader: its blocks run in order, in one namespace and one folder.
"""

import ast
import csv
import inspect
import io
import json
from importlib import import_module
from typing import Any

import pytest
import torch
from documents import PAGES, ROOT, Block, blocks

from hf_score import Selection, load_model
from hf_score.attribution import Family, families
from hf_score.bench import Plan

BLOCKS = [block for page in PAGES for block in blocks(page)]
#: The one list of blocks that are not run: (page, first line that is code) → why. Their calls are still checked.
NOT_RUN = {
    ("docs/benchmarks.md", 'load_data("waterbirds_95")  # from the Hub'): (
        "needs the Hub and the official files; tests/data has both in small"
    ),
    ("docs/benchmarks.md", 'stream = stream_train("waterbirds_95", data_dir="path/to/raw/files")'): (
        "needs the official files; tests/data/test_streaming.py has them in small"
    ),
}
#: Blocks in these languages are not code.
PROSE = {"text": "a formula or a folder's layout"}


def first_line(block: Block) -> str:
    """The first line that is no import."""
    lines = (line for line in block.text.splitlines() if line and not line.startswith(("import ", "from ")))
    return next(lines, "")


def python_pages() -> list[str]:
    return sorted({block.page for block in BLOCKS if block.language == "python"})


def given(page: str) -> dict[str, Any]:
    """What a page may use without making it: a model in hand, its processor and a batch of images."""
    model, processor, _ = load_model("path/to/checkpoint", class_names=["0", "1"])
    torch.manual_seed(0)
    names = {"model": model, "processor": processor, "pixel_values": torch.randn(2, 3, 32, 32), "targets": [0, 1]}
    # "Write the row" is about a row inside that module.
    return {**(vars(families) if page == "docs/how-to/add-a-model-family.md" else {}), **names}


@pytest.mark.parametrize("page", python_pages())
def test_python_blocks_run(page, reader, monkeypatch):
    monkeypatch.setenv("ACCELERATE_USE_CPU", "true")
    namespace = given(page) | {"__name__": "__main__"}
    for block in BLOCKS:
        if block.page == page and block.language == "python":
            if (page, first_line(block)) in NOT_RUN:
                check_calls(block)
                continue
            try:
                # As many lines before it as on the page: a traceback then names the page's line.
                exec(compile("\n" * block.line + block.text, str(ROOT / page), "exec"), namespace)
            except Exception as error:
                raise AssertionError(f"{block} does not run: {type(error).__name__}: {error}") from error


def check_calls(block: Block) -> None:
    """All that is imported exists, and every call of it has arguments that it takes."""
    known: dict[str, Any] = {}
    tree = ast.parse(block.text)
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom):
            assert node.module
            known |= {a.asname or a.name: getattr(import_module(node.module), a.name) for a in node.names}
    called = [n for n in ast.walk(tree) if isinstance(n, ast.Call) and isinstance(n.func, ast.Name)]
    assert called, f"{block} calls nothing"
    for call in called:
        assert isinstance(call.func, ast.Name)
        keywords = {str(keyword.arg): keyword.value for keyword in call.keywords}
        inspect.signature(known[call.func.id]).bind(*call.args, **keywords)


def test_a_row_of_the_table_of_families_is_one():
    page = "docs/how-to/add-a-model-family.md"
    (block,) = [b for b in BLOCKS if b.page == page and "Family(" in b.text]
    (row,) = eval(block.text, dict(vars(families)))
    assert isinstance(row, Family)


@pytest.mark.parametrize("block", [b for b in BLOCKS if b.language not in ("python", "bash")], ids=str)
def test_data_blocks_are_what_they_say(block, tmp_path):
    path = tmp_path / f"block.{block.language}"
    path.write_text(block.text)
    if block.language == "json":
        assert json.loads(block.text)["schema"] == "hf-score/selection/1"
        assert Selection.load(path).spurious
    elif block.language == "yaml":
        assert Plan(path).cells()
    elif block.language == "csv":
        rows = list(csv.DictReader(io.StringIO(block.text)))
        assert rows and all({"file_name", "label"} <= row.keys() and None not in row.values() for row in rows)
    else:
        assert block.language in PROSE, f"{block}: nothing here reads {block.language!r}"


def test_what_is_not_run_is_still_there():
    shown = {(block.page, first_line(block)) for block in BLOCKS if block.language == "python"}
    assert NOT_RUN.keys() <= shown
