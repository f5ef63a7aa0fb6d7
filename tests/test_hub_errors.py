"""Data sets from the Hub: a loopback one and the real client."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

from hf_score.data import list_datasets, load_data


def test_a_hub_data_set_is_the_same_as_its_files(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(Path(__file__).parent)
    from hub_server import HubServer

    source = Path(next(b.path for b in list_datasets() if b.name == "fashion_patch"))
    (tmp_path / "repo" / "data").mkdir(parents=True)
    for split, name in {"train": "train", "validation": "valid", "test": "test"}.items():
        shutil.copy(source / f"{split}.parquet", tmp_path / "repo" / "data" / f"{name}-00000-of-00001.parquet")
    program = """
import json
from hf_score.data import load_data
from hf_score.errors import DataError
data = load_data("user/garments", masks="region")
print(json.dumps([data.fingerprint, data.class_names, len(data.validation), data.source, data.has_regions]))
try:
    load_data("user/none")
except DataError as error:
    print(error)
"""
    with HubServer(tmp_path / "hub") as hub:
        hub.add_repo("user/garments", tmp_path / "repo", repo_type="dataset")
        done = subprocess.run(
            [sys.executable, "-c", program],
            env=hub.environment(tmp_path / "home"),
            capture_output=True,
            text=True,
            check=True,
        )
    found, refusal = done.stdout.splitlines()
    expected = load_data("fashion_patch").fingerprint
    place = "https://huggingface.co/datasets/user/garments"
    assert json.loads(found) == [expected, ["pullover", "shirt"], 400, place, True]
    assert "user/none" in refusal
    assert "no public data set of that name" in refusal
