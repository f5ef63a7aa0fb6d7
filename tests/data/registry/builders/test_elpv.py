"""Solar cells: the declared recipe."""

import pytest
from raw_folders import content, write_elpv

from hf_score.data import build, load_data
from hf_score.data.registry.builders import ELPV
from hf_score.data.registry.opening import counts_of
from hf_score.errors import DataError


@pytest.fixture(scope="module")
def raw(tmp_path_factory):
    return write_elpv(tmp_path_factory.mktemp("elpv"))


def test_the_correlation_is_made_by_leaving_out(raw):
    """Functional 30 mono, 40 poly; defective 20 and 25. Of each, 5 are for testing and 2 for validation."""
    assert counts_of(ELPV(raw).plan()) == {"train": [23, 1, 1, 18], "validation": [2] * 4, "test": [5] * 4}
    assert counts_of(ELPV(raw, correlation=1.0).plan())["train"] == [23, 0, 0, 18]
    # 13 and 33 are left of the rarer kinds: all of the usual ones fit, then as many as keep the share
    assert counts_of(ELPV(raw, correlation=0.5).plan())["train"] == [23, 23, 13, 13]
    assert counts_of(ELPV(raw, correlation=0.8).plan())["train"] == [23, 6, 4, 18]
    with_doubtful = counts_of(ELPV(raw, doubtful=True).plan())
    assert sum(map(sum, with_doubtful.values())) > 50 and with_doubtful["test"] == [6] * 4


def test_splits_are_apart_and_repeat(raw, tmp_path):
    for seed in range(3):
        names = [row["name"] for rows in ELPV(raw, seed=seed).plan().values() for row in rows]
        assert len(set(names)) == len(names)
    folder = build("elpv", raw, tmp_path / "a")
    assert content(folder) == content(build("elpv", raw, tmp_path / "b"))
    assert (
        content(folder)["test/metadata.csv"]
        != content(build("elpv", raw, tmp_path / "c", seed=1))["test/metadata.csv"]
    )
    data = load_data(folder)
    assert data.group_names[1] == "functional, poly"
    assert data.train_group_counts == [23, 1, 1, 18]
    assert not data.has_regions


def test_what_is_wrong(raw, tmp_path):
    with pytest.raises(DataError, match=r"correlation is 0.2: give a share from 0.5 to 1"):
        ELPV(raw, correlation=0.2).plan()
    with pytest.raises(DataError, match=r"The smallest group .* has 20 cells"):
        ELPV(raw, test_share=0.95).plan()
    with pytest.raises(DataError, match=r"has no labels.csv; give the folder elpv_dataset/data"):
        ELPV(tmp_path).plan()
    (tmp_path / "labels.csv").write_text("images/a.png 0.0 mono\nimages/b.png 0.0 thin\n")
    with pytest.raises(DataError, match=r"Line 2 of .* is 'images/b.png 0.0 thin'"):
        ELPV(tmp_path).plan()
