"""What a run says that it will take, and what a scan says that it found."""

from types import SimpleNamespace

import pytest

from hf_score.pipeline.arguments import parse_arguments
from hf_score.pipeline.estimate import estimate_run, in_one_line
from hf_score.pipeline.run import SeedRun
from hf_score.pipeline.words import what_was_found


def test_stages_add_up_over_seeds():
    line = in_one_line({"reading": 30.0, "scan": 90.0, "training": 3600.0}, 2e9, seeds=2)
    assert line.startswith("Estimate, from 4 measured images: reading under 1 min, scan 2 min, training 60 min")
    assert line.endswith("for each of 2 seeds; in all 2.1 h, and 4.0 GB of disk.")


def test_the_most_suspicious_clusters_are_named_first():
    def cluster(number, suspicion):
        return SimpleNamespace(cluster=number, suspicion=suspicion, size=10 + number, label=number % 2)

    class Found:
        class_names = ("cat", "dog")

        def __init__(self, *suspicions):
            self.suspicions = suspicions

        def __len__(self):
            return 40

        def describe_clusters(self):
            return [cluster(number, one) for number, one in enumerate(self.suspicions)]

    lines = what_was_found(Found(0.1, 0.9, 0.6, 0.2)).splitlines()
    assert lines[0] == "Found: 40 candidates in 4 clusters."
    assert lines[1] == "Look first at cluster 1: 11 images of “dog”, very suspicious."
    assert lines[2] == "Then cluster 2: 12 images of “cat”, somewhat suspicious."
    assert "only a look can tell" in lines[-1]
    assert what_was_found(Found(None, None)).splitlines()[1] == "Look first at cluster 1: 11 images of “dog”."


@pytest.mark.parametrize("layers", ["last", "stage2,stage3"])
def test_a_run_with_any_probe_layers_is_estimated(layers, tmp_path):
    words = ["--model", "test_resnet", "--from_scratch", "--image_size", "32", "--dataset", "fashion_patch"]
    words += ["--score_form", "paper", "--score_layer", layers, "--use_cpu", "--output_dir", str(tmp_path / "run")]
    arguments, config = parse_arguments(words)
    one = SeedRun(tmp_path / "run", arguments, config)
    seconds, disk = estimate_run(arguments, config, one.workspace, one.folder, ["erm", "score"])
    assert set(seconds) == {"reading", "starting model", "scan", "training", "measuring"} and disk > 0
    assert all(spent > 0 for spent in seconds.values())
