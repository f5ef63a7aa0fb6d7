"""The experiment harness: a stopped search goes on where it was, and its table says what the rows say."""

import json
import os
import subprocess
import sys
from pathlib import Path

import yaml

BENCHMARKS = Path(__file__).resolve().parents[1] / "benchmarks"


def search(plan: Path, *options: str) -> str:
    command = [sys.executable, str(BENCHMARKS / "search.py"), str(plan), *options]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


def test_a_search_runs_what_is_missing_and_its_table_has_the_means(tmp_path):
    whole = yaml.safe_load((BENCHMARKS / "search.yaml").read_text())
    cnn = {**whole["models"]["cnn"], "erm": {"num_train_epochs": 2, "learning_rate": 2e-3}}
    cnn["score"] = {"num_train_epochs": 1, "learning_rate": 5e-4}
    cells = [
        {**c, "sets": ["fashion"]} for c in whole["cells"] if c["name"] in ("erm", "reference", "score", "uniform")
    ]
    plan = {"seeds": [0], "sets": {"fashion": whole["sets"]["fashion"]}, "models": {"cnn": cnn}, "cells": cells[:3]}
    path, rows = tmp_path / "plan.yaml", tmp_path / "plan.jsonl"
    path.write_text(yaml.safe_dump(plan))
    search(path, "--cache", str(tmp_path / "cache"))
    first = rows.read_text()
    found = {row["cell"]: row for row in map(json.loads, first.splitlines())}
    assert list(found) == [cell["name"] for cell in cells[:3]]
    path.write_text(yaml.safe_dump({**plan, "cells": cells}))
    search(path, "--cache", str(tmp_path / "cache"))
    assert rows.read_text().startswith(first) and len(rows.read_text().splitlines()) == 4
    score = found["score"]
    assert score["wga"] == min(score["groups"]) and len(score["history"]) == 1
    assert f"| {100 * score['wga']:.1f} |" in search(path, "--table")
