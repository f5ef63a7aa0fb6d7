"""What the whole suite shares: no downloads, one thread per process, and the optional folder of real images."""

import os

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

from pathlib import Path

import pytest
import torch

# Here too, for fixtures of a module: the last bits of weights must not depend on which test comes first.
torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def one_thread():
    """The suite runs in two processes on two cores; more threads only make small tensors slower."""
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def real_data() -> Path:
    """The optional folder of real images and weights."""
    default = Path(__file__).resolve().parents[2] / "shared" / "data"
    folder = Path(os.environ.get("HF_SCORE_DATA", default))
    if not folder.is_dir():
        pytest.skip("no folder of real images: set HF_SCORE_DATA")
    return folder
