"""The registry, the command line around it, and group labels that stay out of training."""

import json

import pytest
from raw_folders import OFFICIAL_95, write_celeba, write_cub, write_knee, write_waterbirds
from transformers import HfArgumentParser

from hf_score.cli import main
from hf_score.data import list_datasets, load_data
from hf_score.data.registry.build import recipe_of
from hf_score.data.registry.specs import compare_counts
from hf_score.errors import DataError


def test_rows_are_complete():
    for benchmark in list_datasets():
        assert benchmark.licence and benchmark.description
        assert benchmark.citation.startswith("@") and benchmark.citation.count("{") == benchmark.citation.count("}")
        assert benchmark.path or benchmark.builder
        assert len(benchmark.cues) in (0, 2)
        for counts in benchmark.counts.values():
            assert len(counts) == len(benchmark.group_names)
        if benchmark.builder is not None:
            assert benchmark.builder.class_names == benchmark.class_names
            assert benchmark.masks == benchmark.builder.mask_column


def test_recipes_are_options_of_the_command_line():
    for benchmark in list_datasets():
        recipe = recipe_of(benchmark)
        (parsed,) = HfArgumentParser(recipe).parse_args_into_dataclasses([])
        assert parsed == recipe()
        for name, value in benchmark.options.items():
            assert getattr(parsed, name) == value


def test_the_counts_of_waterbirds():
    assert next(b.counts for b in list_datasets() if b.name == "waterbirds_95") == OFFICIAL_95


def test_counts_that_differ():
    expected = {"train": (3, None), "test": (1, 1)}
    compare_counts("x", {"train": [3, 8], "test": [1, 1]}, expected, ["a", "b"])
    with pytest.raises(DataError, match="Group 'b' of split 'test' of 'x' has 0 images instead of 1;"):
        compare_counts("x", {"train": [3, 8], "test": [1, 0]}, expected, ["a", "b"])
    with pytest.raises(DataError, match="Group 'a' of split 'test' of 'x' has 0 images"):
        compare_counts("x", {"train": [3, 8]}, expected, ["a", "b"])


def test_training_has_no_attribute_anywhere(tmp_path):
    """Of a raw folder too; that of ISIC is looked at with its recipe."""
    counts = dict.fromkeys(OFFICIAL_95, (6, 6, 6, 6))
    folders = {
        "waterbirds_95": write_waterbirds(tmp_path / "wb", counts),
        "celeba": write_celeba(tmp_path / "celeba", kind="csv"),
        "knee_markers": write_knee(tmp_path / "knee"),
    }
    for name, folder in folders.items():
        data = load_data(name, data_dir=folder, check_counts=False)
        for view in (data.train, data.held_out):
            assert set(view.column_names) == set(view[0]) == {"idx", "image", "label"}
        for view in (data.validation, data.test):
            assert set(view.column_names) == {"idx", "image", "label", "group"}
        assert data.train_groups is None


def test_sources_that_do_not_go_together(tmp_path, image_folder):
    with pytest.raises(DataError, match="'knee_markers' is made from files of yours: give their folder as data_dir"):
        load_data("knee_markers")
    with pytest.raises(DataError, match="data_dir goes with the name of a benchmark"):
        load_data(image_folder(), data_dir=tmp_path)
    with pytest.raises(DataError, match="'fashion_patch' is included in hf-score"):
        load_data("fashion_patch", data_dir=tmp_path)
    (tmp_path / "build.json").write_text('{"benchmark": "nothing", "counts": {}}')
    with pytest.raises(DataError, match=r"no record of a build \(there is no benchmark 'nothing'\)"):
        load_data(tmp_path)


def test_command_line(tmp_path, capsys):
    assert main(["benchmarks"]) == 0
    listing = capsys.readouterr().out
    assert all(benchmark.name in listing for benchmark in list_datasets())
    assert main(["benchmarks", "waterbirds_100_dropped"]) == 0
    about = capsys.readouterr().out
    assert "3498 / 184 / 56 / 1057" in about and "@inproceedings{sagawa2020" in about and "metadata.csv" in about
    assert main(["benchmarks", "nothing"]) == 2
    assert "There is no benchmark 'nothing'" in capsys.readouterr().err


def test_build_on_the_command_line(tmp_path, capsys):
    raw = write_cub(tmp_path / "raw", {"009.Bobolink": (20, 4), "001.Laysan_Albatross": (12, 4)})
    words = ["build", "waterbirds_100_regenerated", "--source", str(raw), "--output_dir", str(tmp_path / "out")]
    assert main(words) == 2
    assert "instead of 3694" in capsys.readouterr().err
    assert main([*words, "--any_counts", "--seed", "3"]) == 0
    assert capsys.readouterr().out.strip() == str(tmp_path / "out")
    record = json.loads((tmp_path / "out" / "build.json").read_text())
    assert record["recipe"] == {"seed": 3, "correlation": 1.0}
    data = load_data(tmp_path / "out")
    assert data.name == "waterbirds_100_regenerated"
    assert data.train_group_counts[1:3] == [0, 0]
    assert load_data("waterbirds_100_regenerated", data_dir=tmp_path / "out").fingerprint == data.fingerprint
    with pytest.raises(DataError, match="was built as 'waterbirds_100_regenerated'"):
        load_data("waterbirds_95", data_dir=tmp_path / "out")


def test_a_step_takes_the_raw_folder(tmp_path):
    from hf_score.pipeline import RunArguments, SeedRun
    from hf_score.training.score_config import SCOREConfig

    folder = write_knee(tmp_path / "raw")
    arguments = RunArguments(
        model="test_vit.r160_in1k", from_scratch=True, dataset="knee_markers", data_dir=str(folder)
    )
    with pytest.raises(DataError, match="instead of 167"):
        _ = SeedRun(tmp_path / "run", arguments, SCOREConfig(str(tmp_path / "run"))).workspace.data
