from collections.abc import Callable
from pathlib import Path

import pytest
from judged_run import make_run


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """24 candidates in 4 clusters of 2 classes; the third class has none."""
    return make_run(tmp_path / "run")


@pytest.fixture
def make(tmp_path: Path) -> Callable[..., Path]:
    return lambda **options: make_run(tmp_path / "made", **options)
