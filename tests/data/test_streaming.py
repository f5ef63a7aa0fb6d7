"""Training streams: the same rows as without streaming, no groups, and a scan that takes them."""

import numpy as np
import pytest
from datasets import Image
from raw_folders import write_celeba, write_cub, write_knee, write_waterbirds
from tiny import tiny_processor, tiny_vit

from hf_score.data import build, load_data, stream_train
from hf_score.data.registry.builders import CelebA, Knee, Waterbirds
from hf_score.detection.scan import scan
from hf_score.errors import DataError


def whole(name, **options):
    """The training rows without streaming, by idx."""
    data = load_data(name, held_out=0, verify=False, **options)
    return {row["idx"]: (row["label"], np.asarray(row["image"])) for row in data.train}


RAW = {
    "waterbirds_95": lambda folder: write_cub(folder, {"009.Bobolink": (20, 4), "001.Laysan_Albatross": (12, 4)}),
    "celeba": lambda folder: write_celeba(folder, kind="csv"),
    "knee_markers": write_knee,
}


@pytest.mark.parametrize("name", RAW)
def test_a_stream_has_the_same_rows(name, tmp_path):
    folder = RAW[name](tmp_path / "raw")
    expected = whole(name, data_dir=folder, check_counts=False)
    stream = stream_train(name, data_dir=folder, check_counts=False)
    assert stream.column_names == ["idx", "image", "label"]
    rows = list(stream)
    assert [row["idx"] for row in rows] == list(expected)
    for row in rows:
        label, image = expected[row["idx"]]
        assert row["label"] == label
        assert np.array_equal(np.asarray(row["image"]), image)
        assert set(row) == {"idx", "image", "label"}


@pytest.mark.parametrize("split", ["train", "validation", "test"])
def test_builders_stream_every_split(split, tmp_path):
    for builder in (CelebA(write_celeba(tmp_path / "celeba", kind="txt")), Knee(write_knee(tmp_path / "knee", 3))):
        builder.download_and_prepare()
        without = builder.as_dataset(split)
        streamed = list(builder.as_streaming_dataset(split))
        assert list(streamed[0]) == without.column_names
        for row, same in zip(streamed, without, strict=True):
            assert {k: v for k, v in row.items() if k not in ("image", "mask")} == {
                k: v for k, v in same.items() if k not in ("image", "mask")
            }
            assert np.array_equal(np.asarray(row["image"]), np.asarray(same["image"]))


def test_a_stream_leaves_out_what_the_benchmark_leaves_out(tmp_path):
    counts = {"train": (30, 4, 3, 20), "validation": (1, 1, 1, 1), "test": (1, 1, 1, 1)}
    folder = write_waterbirds(tmp_path, counts)
    rows = list(stream_train("waterbirds_100_dropped", data_dir=folder, check_counts=False))
    expected = whole("waterbirds_100_dropped", data_dir=folder, check_counts=False)
    assert [row["idx"] for row in rows] == list(expected)
    assert np.bincount([row["label"] for row in rows]).tolist() == [30, 20]


def test_built_folders_parquet_and_image_folders_stream(tmp_path, image_folder):
    built = build("knee_markers", write_knee(tmp_path / "raw"), tmp_path / "built", check_counts=False)
    for source in (built, "fashion_patch_100", image_folder()):
        stream = stream_train(source)
        assert set(stream.column_names) == {"image", "label"}
        expected = load_data(source, held_out=0, verify=False).train
        rows = list(stream.cast_column("image", Image(decode=False)))
        assert [row["label"] for row in rows] == expected["label"][:]
        for row, other in zip(stream.take(10), expected, strict=False):
            assert np.array_equal(np.asarray(row["image"]), np.asarray(other["image"]))


def test_labels_that_are_names_need_an_order(image_folder):
    def rows(prefix, count):
        return [{"file_name": f"{prefix}{i}.png", "label": ("water", "land")[i % 2]} for i in range(count)]

    folder = image_folder(train=rows("tr", 8), validation=None, test=rows("te", 2))
    with pytest.raises(DataError, match="a stream does not know them all"):
        stream_train(folder)
    assert [row["label"] for row in stream_train(folder, class_names=["water", "land"])] == [0, 1] * 4
    with pytest.raises(DataError, match="the label 'water', which is not one of the classes"):
        list(stream_train(folder, class_names=["lake", "land"]))
    with pytest.raises(DataError, match="it needs images and 'kind'"):
        stream_train(folder, label_column="kind")


def test_counts_are_checked_before_streaming(tmp_path):
    folder = write_waterbirds(tmp_path, {"train": (9, 1, 1, 9), "validation": (1,) * 4, "test": (1,) * 4})
    with pytest.raises(DataError, match="has 9 images instead of 3498"):
        stream_train("waterbirds_95", data_dir=folder)


def test_a_scan_of_the_stream_finds_what_a_scan_of_the_data_set_finds(tmp_path):
    folder = write_knee(tmp_path)
    model, processor = tiny_vit(), tiny_processor()
    data = load_data("knee_markers", data_dir=folder, check_counts=False, held_out=0)
    stream = stream_train("knee_markers", data_dir=folder, check_counts=False)
    expected, found = (scan(model, rows, processor=processor, num_candidates=5) for rows in (data.train, stream))
    assert found.num_images == expected.num_images == 40
    ids = [{c: [hit.idx for hit in hits] for c, hits in result.hits.items()} for result in (found, expected)]
    assert ids[0] == ids[1]


def test_shards(tmp_path, monkeypatch):
    """Shards are for sharing a stream out; together they are all rows, each with its own idx."""
    monkeypatch.setattr("hf_score.data.registry.builders.base.SHARD_SIZE", 16)
    folder = write_knee(tmp_path)
    stream = stream_train("knee_markers", data_dir=folder, check_counts=False)
    assert stream.num_shards == 3
    assert [row["idx"] for i in range(3) for row in stream.shard(3, i)] == list(range(40))
    assert Waterbirds.mask_column not in stream.column_names
