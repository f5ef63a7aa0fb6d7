"""The promise of a card: a pushed model runs where hf-score was never installed, and says the same to the bit."""

from importlib.metadata import version
from pathlib import Path

import pytest
from environments import make_environment, needs_uv

from hf_score.publishing.push import push_run

from .conftest import Client, make_run

CNN = Path(__file__).parents[2] / "examples" / "space" / "debiased"
# In hexadecimal: the model's logits of given pixels; then those of images that have to be enlarged, made smaller, and
# taken as they are.
CLASSIFY = """
import sys
import numpy as np
import torch
from PIL import Image
from transformers import pipeline
torch.set_num_threads(1)
classify = pipeline("image-classification", model=sys.argv[1], function_to_apply="none")
noise = np.random.default_rng(0)
with torch.no_grad():
    logits = classify.model(torch.from_numpy(noise.standard_normal((2, 3, 32, 32), dtype=np.float32))).logits
print(*(value.hex() for value in logits.flatten().tolist()))
for height, width in ((16, 20), (240, 320), (32, 32)):
    image = Image.fromarray(noise.integers(0, 255, (height, width, 3), dtype=np.uint8))
    print(*(f"{one['label']} {one['score'].hex()}" for one in classify(image)))
"""
HAS = """
from importlib.util import find_spec
print(*(name for name in ("hf_score", "timm", "zennit", "datasets") if find_spec(name)))
"""


@pytest.mark.slow  # an environment with its own PyTorch: 5 GB, linked where uv has it in its cache
@needs_uv
@pytest.mark.parametrize("kind", ["vit", "timm"])
def test_logits_are_identical_where_only_transformers_is_installed(hub, logged_in, checkpoint, tmp_path, kind):
    packages, checkpoint = ([], checkpoint) if kind == "vit" else (["timm"], CNN)
    # The versions are those here, for a bit may differ between versions of PyTorch; the rest is what a user gets.
    pinned = [f"{name}=={version(name)}" for name in ("torch", "transformers", *packages)]
    python = make_environment(tmp_path / "fresh", *pinned, "pillow")
    run = make_run(tmp_path / "runs" / "one", checkpoint)
    push_run(run, f"tester/{kind}")

    fresh, here = Client(hub, tmp_path, python), Client(hub, tmp_path)
    assert fresh(HAS).stdout.split() == packages
    pushed = fresh(CLASSIFY, f"tester/{kind}").stdout.splitlines()
    local, fresh_local = (client(CLASSIFY, run / "model").stdout.splitlines() for client in (here, fresh))
    assert len(pushed) == 4
    assert pushed == fresh_local
    # Without torchvision, which timm brings, transformers itself prepares images by Pillow and rounds differently.
    assert pushed[:1] == local[:1]
    if kind == "timm":
        assert pushed == local
