"""What results say of where they come from, also where hf-score was never installed."""

import json
import os
import shutil
import subprocess
import sys
import sysconfig
from importlib.metadata import version
from pathlib import Path

import pytest
import timm

import hf_score
from hf_score.provenance import PACKAGES, versions

ROOT = Path(__file__).resolve().parents[1]
TELL = """
import json
import hf_score
from hf_score.provenance import provenance
print(json.dumps([hf_score.__file__, provenance()["versions"]]))
"""


@pytest.fixture
def source_tree(tmp_path):
    """A copy of the tree, and a folder of all packages but hf-score; those of timm and zennit are without metadata."""
    tree, packages = tmp_path / "tree", tmp_path / "packages"
    shutil.copytree(ROOT / "hf_score", tree / "hf_score", ignore=shutil.ignore_patterns("__pycache__"))
    packages.mkdir()
    for entry in Path(sysconfig.get_path("purelib")).iterdir():
        if not (entry.name.startswith(("hf_score", "timm-", "zennit-")) or entry.suffix == ".pth"):
            (packages / entry.name).symlink_to(entry)
    return tree, packages


def test_a_source_tree_that_is_not_installed_knows_its_versions(source_tree):
    tree, packages = source_tree
    done = subprocess.run(
        [sys.executable, "-S", "-c", TELL],  # -S: without site-packages, and so without an editable install
        env={**os.environ, "PYTHONPATH": f"{tree}{os.pathsep}{packages}"},
        cwd=tree,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    file, found = json.loads(done.stdout.splitlines()[-1])
    assert file == str(tree / "hf_score" / "__init__.py")
    without = {"hf-score": hf_score.__version__, "timm": timm.__version__, "zennit": found["zennit"]}
    assert found == {name: version(name) for name in PACKAGES if name not in without} | without
    assert found["zennit"] in (version("zennit"), "unknown")  # as its module happens to say it


def test_what_is_missing_is_said_to_be(monkeypatch):
    monkeypatch.setattr("hf_score.provenance.PACKAGES", ("torch", "no-such-package"))
    assert versions() == {"torch": version("torch"), "no-such-package": "not installed"}
