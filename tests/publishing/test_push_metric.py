"""The `evaluate` metric as a Space: pushed by the command, loaded by its name."""

import pytest

from hf_score.cli import main
from hf_score.errors import HFScoreError
from hf_score.publishing.push import push_metric

LOAD = """
import sys
sys.modules["hf_score"] = None
import evaluate
metric = evaluate.load("tester/worst_group_accuracy")
print(metric.compute(predictions=[0, 0, 1, 1], references=[0, 1, 1, 1], groups=[0, 1, 1, 2])["worst_group_accuracy"])
"""


def test_pushed_metric_loads_by_its_name_without_hf_score(hub, logged_in, client, capsys):
    assert main(["push-metric", "--repo_id", "worst_group_accuracy", "--private"]) == 0
    assert "/spaces/tester/worst_group_accuracy/commit/" in capsys.readouterr().out
    assert hub.commits("tester/worst_group_accuracy", repo_type="space") == [
        "initial commit",
        "Upload metric with hf-score",
    ]
    files = hub.files("tester/worst_group_accuracy", repo_type="space")
    assert set(files) == {
        "README.md",
        "__init__.py",
        "app.py",
        "groups.py",
        "requirements.txt",
        "worst_group_accuracy.py",
    }
    assert 'evaluate.load("tester/worst_group_accuracy")' in files["README.md"].decode()
    hub.repos["space", "tester/worst_group_accuracy"].private = False  # evaluate sends no token
    assert client(LOAD).stdout.splitlines()[-1] == "0.5"


def test_a_name_that_evaluate_would_not_find_is_refused():
    with pytest.raises(HFScoreError, match="give OWNER/worst_group_accuracy as --repo_id"):
        push_metric("tester/wga", token="hf_unused")
