"""The scan: the same candidates for any source, number of processes and interruption, and nothing lost on the way."""

import io
import json
import sys
import time

import numpy as np
import processes
import pytest
import torch
from datasets import ClassLabel, Dataset, Features, Image, IterableDataset, Value, load_dataset
from PIL import Image as PILImage
from tiny import square_images, tiny_processor, tiny_vit

from hf_score.data import PixelDataset
from hf_score.detection import Candidates, find_candidates, scan
from hf_score.errors import DataError, SelectionError


def png(seed: int, size: int = 32) -> bytes:
    pixels = np.random.default_rng(seed).integers(0, 255, (size, size, 3), dtype=np.uint8)
    buffer = io.BytesIO()
    PILImage.fromarray(pixels).save(buffer, "PNG")
    return buffer.getvalue()


def image_dataset(count: int = 50, *, broken: tuple[int, ...] = (), labelled: bool = True) -> Dataset:
    columns = {
        "idx": [100 + i for i in range(count)],
        "image": [{"bytes": png(i)[: 100 if i in broken else None], "path": None} for i in range(count)],
    }
    features = {"idx": Value("int64"), "image": Image()}
    if labelled:
        columns["label"], features["label"] = [i % 2 for i in range(count)], ClassLabel(names=["plain", "square"])
    return Dataset.from_dict(columns, features=Features(features))


@pytest.fixture
def small_shards(monkeypatch):
    monkeypatch.setattr(sys.modules["hf_score.detection.scan"], "SHARD_SIZE", 16)
    monkeypatch.setattr(sys.modules["hf_score.detection.scan"], "SAVE_SECONDS", -1.0)


def places(result) -> dict:
    return {label: [(hit.idx, round(hit.logit, 5)) for hit in hits] for label, hits in result.hits.items()}


def test_the_strongest_images_of_each_class_are_kept(small_shards):
    model, data = tiny_vit(), square_images(50)
    found = scan(model, data, num_candidates=5, batch_size=7)
    with torch.no_grad():
        logits = model(data.pixel_values).logits
    for label in (0, 1):
        members = (data.labels == label).nonzero().flatten()
        expected = members[logits[members, label].argsort(descending=True)][:5]
        assert [hit.position for hit in found.hits[label]] == expected.tolist()
        torch.testing.assert_close(torch.tensor([h.logit for h in found.hits[label]]), logits[expected, label])
    assert found.num_images == 50
    assert not found.unreadable


def test_equal_logits_keep_the_order_of_the_data(small_shards):
    data = square_images(40)
    model = tiny_vit()
    torch.nn.init.zeros_(model.classifier.weight)
    found = scan(model, data, num_candidates=3, batch_size=8)
    assert [hit.position for hit in found.hits[1]] == [1, 3, 5]


def test_a_stream_gives_the_same_as_the_data_set_and_so_do_workers(small_shards):
    model, processor = tiny_vit(), tiny_processor()
    data = image_dataset()
    expected = scan(model, data, processor=processor, num_candidates=4, batch_size=8)
    stream = scan(model, data.to_iterable_dataset(num_shards=3), processor=processor, num_candidates=4, batch_size=8)
    workers = scan(model, data, processor=processor, num_candidates=4, batch_size=8, num_workers=2)
    assert places(stream) == places(expected)
    assert workers == expected
    assert stream.num_images == 50


def test_candidates_of_a_stream_are_those_of_the_data_set(small_shards, tmp_path):
    model, processor = tiny_vit(), tiny_processor()
    data = image_dataset()
    options = {"dataset_fingerprint": "d", "processor": processor, "num_candidates": 4, "batch_size": 8}
    one = find_candidates(model, data, **options)
    other = find_candidates(model, data.to_iterable_dataset(num_shards=3), **options)
    np.testing.assert_array_equal(one.idx, other.idx)
    np.testing.assert_allclose(one.heatmaps, other.heatmaps, atol=1e-5)
    loaded = Candidates.load(other.save(tmp_path / "candidates"))
    assert loaded.class_names == ("plain", "square")
    for idx, image in zip(loaded.idx, loaded.images, strict=True):  # of the model's size already
        np.testing.assert_array_equal(np.asarray(image), np.asarray(PILImage.open(io.BytesIO(png(int(idx) - 100)))))


def test_a_stream_is_read_once_to_scan_and_once_to_explain():
    starts = []

    def rows():
        starts.append(1)
        for i in range(20):
            yield {"image": {"bytes": png(i), "path": None}, "label": i % 2}

    features = Features({"image": Image(), "label": ClassLabel(names=["plain", "square"])})
    stream = IterableDataset.from_generator(rows, features=features)
    find_candidates(
        tiny_vit(), stream, processor=tiny_processor(), dataset_fingerprint="d", num_candidates=10, batch_size=4
    )
    assert len(starts) == 2


def test_a_parquet_stream_from_disk_can_be_scanned(tmp_path):
    for part in range(2):
        image_dataset().shard(num_shards=2, index=part, contiguous=True).to_parquet(tmp_path / f"{part}.parquet")
    stream = load_dataset("parquet", data_files=str(tmp_path / "*.parquet"), split="train", streaming=True)
    found = scan(tiny_vit(), stream, processor=tiny_processor(), num_candidates=4)
    expected = scan(tiny_vit(), image_dataset(), processor=tiny_processor(), num_candidates=4)
    assert places(found) == places(expected)


def test_unreadable_images_are_listed_and_skipped_or_fatal(small_shards, tmp_path):
    model, data = tiny_vit(), image_dataset(broken=(3, 20))
    found = scan(model, data, processor=tiny_processor(), num_candidates=50)
    assert [bad.idx for bad in found.unreadable] == [103, 120]
    assert found.num_images == 50
    assert sum(map(len, found.hits.values())) == 48
    with pytest.raises(DataError, match="image 103 cannot be read"):
        scan(model, data, processor=tiny_processor(), strict=True)
    candidates = find_candidates(model, data, processor=tiny_processor(), num_candidates=2, dataset_fingerprint="d")
    loaded = Candidates.load(candidates.save(tmp_path / "candidates"))
    assert loaded.unreadable == tuple(found.unreadable)
    assert loaded.num_images == 50


def test_without_labels_the_predicted_class_counts(small_shards):
    model, processor = tiny_vit(), tiny_processor()
    found = scan(model, image_dataset(labelled=False), processor=processor, num_candidates=50)
    pixels = torch.cat(
        [processor(images=[image], return_tensors="pt")["pixel_values"] for image in image_dataset()["image"]]
    )
    with torch.no_grad():
        predicted = model(pixels).logits.argmax(1)
    for label in (0, 1):
        expected = {100 + int(i) for i in (predicted == label).nonzero()}
        assert {hit.idx for hit in found.hits.get(label, [])} == expected


def test_an_empty_data_set_and_the_folder_of_another_scan_are_refused(small_shards, tmp_path):
    data = square_images(40)
    with pytest.raises(DataError, match="empty"):
        scan(tiny_vit(), data.__class__(data.pixel_values[:0], data.labels[:0], data.idx[:0]))
    scan(tiny_vit(), data, folder=tmp_path, fingerprint="one")
    with pytest.raises(SelectionError, match="another model or data set"):
        scan(tiny_vit(), data, folder=tmp_path, fingerprint="two")
    for content, words in (("{", "part of a scan .* cannot be read as JSON"), ("{}", "is no part of a scan")):
        next(tmp_path.glob("*.json")).write_text(content)
        with pytest.raises(SelectionError, match=words):
            scan(tiny_vit(), data, folder=tmp_path, fingerprint="one")


class Slow(PixelDataset):
    """Notes which shards are read, and takes its time."""

    def __getitem__(self, item):
        if item % 16 == 0:
            self.__dict__.setdefault("shards", []).append(item // 16)
        time.sleep(0.01)
        return super().__getitem__(item)


def scan_into(out, folder):
    """What each process does."""
    data = square_images(200)
    slow = Slow(data.pixel_values, data.labels, data.idx)
    found = scan(tiny_vit(), slow, num_candidates=7, batch_size=5, folder=folder)
    rows = {str(label): [[hit.logit.hex(), hit.position] for hit in hits] for label, hits in found.hits.items()}
    out.write_text(json.dumps({"hits": rows, "num_images": found.num_images, "shards": slow.shards}))


def two_processes(tmp_path, folder=None) -> list[dict]:
    outs = [tmp_path / f"{rank}.json" for rank in (0, 1)]
    processes.run_as_one_of_two(scan_into, lambda rank: (outs[rank], folder))
    return [json.loads(out.read_text()) for out in outs]


def finished_shards(folder) -> list[int]:
    return [shard for part in folder.glob("part*") for shard in json.loads(part.read_text())["shards"]]


@pytest.fixture
def undisturbed(small_shards, tmp_path) -> dict:
    """The hits of one process that nothing happens to."""
    scan_into(tmp_path / "undisturbed.json", None)
    return json.loads((tmp_path / "undisturbed.json").read_text())


def test_killed_three_times_and_resumed_by_two_processes_the_result_is_the_same(tmp_path, undisturbed):
    folder = tmp_path / "progress"
    done: list = []
    for shards in (2, 4, 7):
        process = processes.start(scan_into, tmp_path / "killed.json", folder)
        deadline = time.time() + 240
        while len(done) < shards:
            done = finished_shards(folder)
            assert time.time() < deadline
            time.sleep(0.01)
        process.kill()
        process.join()
    assert not (tmp_path / "killed.json").exists()
    done = finished_shards(folder)
    results = two_processes(tmp_path, folder)
    for result in results:
        assert result["hits"] == undisturbed["hits"]
        assert result["num_images"] == 200
        assert not set(done) & set(result["shards"])
    assert sorted([*done, *results[0]["shards"], *results[1]["shards"]]) == list(range(13))


def test_what_was_done_is_written_down_now_and_then_and_where_a_scan_ends(small_shards, tmp_path, monkeypatch):
    monkeypatch.setattr(sys.modules["hf_score.detection.scan"], "SAVE_SECONDS", 3600.0)
    model, data = tiny_vit(), square_images(64)
    seen = []

    def stop(module, args) -> None:
        seen.append(finished_shards(tmp_path))
        if len(seen) == 6:
            raise KeyboardInterrupt

    hook = model.register_forward_pre_hook(stop)
    with pytest.raises(KeyboardInterrupt):
        scan(model, data, batch_size=8, folder=tmp_path)
    assert seen == [[]] * 6 and finished_shards(tmp_path) == [0, 1]
    hook.remove()
    assert scan(model, data, batch_size=8, folder=tmp_path) == scan(model, data, batch_size=8)
    assert sorted(finished_shards(tmp_path)) == [0, 1, 2, 3]


def test_two_processes_find_what_one_finds(tmp_path, undisturbed):
    for result in two_processes(tmp_path):
        assert result["hits"] == undisturbed["hits"]
        assert result["num_images"] == 200
