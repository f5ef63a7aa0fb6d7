"""The Python and data blocks of README and docs: run, or read by what reads such a file.

A page is one reader: its blocks run in order, in one namespace and one folder.
"""

import ast
import csv
import inspect
import io
import json
import sys
from importlib import import_module
from types import ModuleType
from typing import Any

import pytest
import torch
from documents import BLOCKS, COMMANDS, NOT_RUN, ROOT, Block

from hf_score import Selection, load_model
from hf_score.attribution import families
from hf_score.bench import Plan

#: Blocks that stand inside a module of the package, and see its names.
INSIDE = {("docs/how-to/add-a-model-family.md", "("): families}
#: Blocks in these languages are not code.
PROSE = {"text": "a formula or a folder's layout"}


def python_pages() -> list[str]:
    return sorted({block.page for block in BLOCKS if block.language == "python"})


def first_python_block(page: str) -> str:
    return next(block.text for block in BLOCKS if block.page == page and block.language == "python")


def given() -> dict[str, Any]:
    """What a page may use without making it: a model in hand, its processor and a batch of images."""
    model, processor, _ = load_model("path/to/checkpoint", class_names=["0", "1"])
    torch.manual_seed(0)
    return {"model": model, "processor": processor, "pixel_values": torch.randn(2, 3, 32, 32), "targets": [0, 1]}


@pytest.mark.parametrize("page", python_pages())
def test_python_blocks_run(page, reader, monkeypatch):
    monkeypatch.setenv("ACCELERATE_USE_CPU", "true")
    script = ModuleType("__main__")  # as a reader's script is: what a block defines can be pickled
    monkeypatch.setitem(sys.modules, "__main__", script)
    namespace = vars(script)
    namespace.update(given())
    for block in BLOCKS:
        if block.page != page or block.language != "python":
            continue
        key = (page, block.first)
        if key in NOT_RUN:
            check_calls(block)
            continue
        names = dict(vars(INSIDE[key])) if key in INSIDE else namespace
        try:
            # As many lines before it as on the page: a traceback then names the page's line.
            exec(compile("\n" * block.line + block.text, str(ROOT / page), "exec"), names)
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


@pytest.mark.parametrize("block", [b for b in BLOCKS if b.language not in ("python", "bash")], ids=str)
def test_data_blocks_are_what_they_say(block, tmp_path):
    path = tmp_path / f"block.{block.language}"
    path.write_text(block.text)
    if block.language == "json":
        assert json.loads(block.text)["schema"] == "hf-score/selection/1"
        assert Selection.load(path).spurious
    elif block.language == "yaml":
        if "modules: [mine.py]" in block.text and block.page.endswith("add-a-baseline.md"):
            (tmp_path / "mine.py").write_text(first_python_block(block.page))
        elif "modules: [mine.py]" in block.text:
            pytest.fail(f"{block} names a module that its page does not define")
        assert Plan(path).cells()
    elif block.language == "csv":
        rows = list(csv.DictReader(io.StringIO(block.text)))
        assert rows and all({"file_name", "label"} <= row.keys() and None not in row.values() for row in rows)
    else:
        assert block.language in PROSE, f"{block}: nothing here reads {block.language!r}"


def test_what_is_not_run_is_still_there():
    shown = {(block.page, block.first) for block in BLOCKS if block.language == "python"}
    assert NOT_RUN.keys() <= shown | {(command.page, command.text) for command in COMMANDS}
    assert INSIDE.keys() <= shown
