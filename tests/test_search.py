"""The experiment harness: a stopped search goes on where it was, and its table says what the rows say."""

import importlib.util
import json
from pathlib import Path

import pytest
import yaml

BENCHMARKS = Path(__file__).resolve().parents[1] / "benchmarks"


@pytest.fixture
def search(capsys, monkeypatch):
    """The script's `main`, which gives what it prints."""
    monkeypatch.syspath_prepend(BENCHMARKS)
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    spec = importlib.util.spec_from_file_location("search", BENCHMARKS / "search.py")
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)

    def run(*words):
        script.main([str(word) for word in words])
        return capsys.readouterr().out

    return run


def test_a_search_runs_what_is_missing_and_its_table_has_the_means(tmp_path, search):
    whole = yaml.safe_load((BENCHMARKS / "search.yaml").read_text())
    cnn = {**whole["models"]["cnn"], "erm": {"num_train_epochs": 2, "learning_rate": 2e-3}}
    cnn["load"] = {**cnn["load"], "image_size": 16}
    cnn["score"] = {"num_train_epochs": 1, "learning_rate": 5e-4}
    cells = [
        {**c, "sets": ["fashion"]} for c in whole["cells"] if c["name"] in ("erm", "reference", "score", "uniform")
    ]
    plan = {"seeds": [0], "sets": {"fashion": whole["sets"]["fashion"]}, "models": {"cnn": cnn}, "cells": cells[:3]}
    path, rows = tmp_path / "plan.yaml", tmp_path / "plan.jsonl"
    path.write_text(yaml.safe_dump(plan))
    search(path, "--cache", tmp_path / "cache")
    first = rows.read_text()
    found = {row["cell"]: row for row in map(json.loads, first.splitlines())}
    assert list(found) == [cell["name"] for cell in cells[:3]]
    path.write_text(yaml.safe_dump({**plan, "cells": cells}))
    search(path, "--cache", tmp_path / "cache")
    assert rows.read_text().startswith(first) and len(rows.read_text().splitlines()) == 4
    score = found["score"]
    assert score["wga"] == min(score["groups"]) and len(score["history"]) == 1
    assert f"| {100 * score['wga']:.1f} |" in search(path, "--table")
