import json
from dataclasses import replace

import numpy as np
import pytest
from judged_run import COLOURS, make_run
from PIL import Image

from hf_score import HFScoreError
from hf_score.detection import Candidates
from hf_score.review import CandidateTable
from hf_score.review.describe import describe_table
from hf_score.review.layout import lay_out
from hf_score.review.pictures import FILL, MISSING, VIEWS, encode, picture


def alter(run, **fields):
    path = run / "candidates" / "candidates.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **fields}))


def test_clusters_are_ranked_by_suspicion_then_size_with_the_unclustered_last(make):
    table = CandidateTable.open(make(rows=40))
    assert [cluster.number for cluster in table.clusters] == [1, 2, 3, 0, -1]
    assert sorted(row for cluster in table.clusters for row in cluster.rows) == list(range(40))
    for cluster in table.clusters:
        assert sorted(cluster.typical) == cluster.rows
        assert set(table.labels[cluster.rows]) == {cluster.label}


def test_what_the_scan_writes_can_be_reviewed(tmp_path):
    generator = np.random.default_rng(0)
    candidates = Candidates(
        idx=np.array([7, 9, 11]),
        position=np.arange(3),
        labels=np.array([0, 1, 0]),
        logits=np.ones(3, np.float32),
        masked_margins=np.ones(3, np.float32),
        heatmaps=generator.normal(size=(3, 16, 16)).astype(np.float32),
        masks=generator.random((3, 16, 16)) > 0.5,
        shortcut_relevance=generator.random((3, 4)).astype(np.float32),
        cluster=np.array([0, 1, 0]),
        dataset_fingerprint="data0",
        model_fingerprint="model0",
        layer="layer4",
        class_names=("a", "b"),
        images=[Image.new("RGB", (16, 16), "red")] * 3,
    )
    candidates.save(tmp_path / "candidates")
    table = CandidateTable.open(tmp_path)
    assert [(one.label, one.rows, sorted(one.typical)) for one in table.clusters] == [
        (0, [0, 2], [0, 2]),
        (1, [1], [1]),
    ]
    heatmap, mask = table.maps(1)
    largest = np.abs(candidates.heatmaps[1]).max()
    np.testing.assert_allclose(heatmap, candidates.heatmaps[1], rtol=2**-11, atol=largest * 2**-24)  # half precision
    assert (mask == candidates.masks[1]).all()
    assert np.asarray(table.image(1))[0, 0].tolist() == [255, 0, 0]
    json.dumps(describe_table(table), allow_nan=False)


def test_the_map_is_laid_out_once_and_keeps_what_is_alike_together(tmp_path, capsys):
    pytest.importorskip("umap")
    table = CandidateTable.open(make_run(tmp_path, rows=60, relevance_of_clusters=True))
    (tmp_path / "map.json").unlink()
    table = CandidateTable.open(tmp_path)
    assert not np.isfinite(table.embedding).any() and table.neuron_embedding is None
    table = lay_out(table)
    assert "Laying out" in capsys.readouterr().out
    members = [table.embedding[table.cluster == cluster] for cluster in range(4)]
    centres = np.stack([points.mean(0) for points in members])
    for cluster, points in enumerate(members):
        assert (np.linalg.norm(points[:, None] - centres, axis=2).argmin(1) == cluster).all()
    assert set(table.neuron_embedding) == {"neuron", "x", "y", "cluster"}
    again = lay_out(CandidateTable.open(tmp_path))
    assert capsys.readouterr().out == "" and np.array_equal(again.embedding, table.embedding)


def test_the_masked_picture_shows_the_mask_and_nothing_else(run):
    table = CandidateTable.open(run)
    _, mask = table.maps(0)
    masked = np.asarray(picture(table, 0, "masked"))
    assert (masked[~mask] == FILL).all() and (masked[mask] == COLOURS[0]).all()
    assert (np.asarray(picture(table, 0, "original"))[mask] == COLOURS[0]).all()


@pytest.mark.parametrize("options", [{"missing": (2, 3)}, {"with_image": False}], ids=["broken", "no column"])
def test_a_missing_image_is_a_grey_placeholder_over_which_the_heatmap_stays(make, options):
    table = CandidateTable.open(make(**options))
    for row in (2, 3):
        assert table.image(row) is None
        for kind in ("original", "masked"):
            shown = np.asarray(picture(table, row, kind))
            assert (shown[0, 0] == MISSING).all() and min(shown.shape[:2]) >= 128
            assert 50 < (shown != MISSING).any(axis=-1).sum() < 0.3 * shown[..., 0].size  # the words
        heatmap, mask = np.asarray(picture(table, row, "heatmap")).astype(int), table.maps(row)[1]
        assert (heatmap[mask][:, 0] - heatmap[mask][:, 1]).mean() > 100  # red
    if options.get("missing"):
        assert table.image(4) is not None


def test_a_table_that_names_a_file_of_this_machine_shows_none(make, tmp_path, monkeypatch):
    secret = tmp_path / "secret.png"
    Image.new("RGB", (32, 32), "red").save(secret)
    table = CandidateTable.open(make())
    images = [{"image": {"bytes": None, "path": str(secret)}}]
    assert replace(table, _images=images).image(0) is None


def test_pictures_have_the_shape_of_the_map_and_show_more_of_a_finer_image(make, monkeypatch):
    table = CandidateTable.open(make())
    monkeypatch.setattr(CandidateTable, "image", lambda self, row: Image.new("RGB", (200, 100), "red"))
    assert {picture(table, 0, kind).size for kind in VIEWS} == {(64, 64)}
    assert picture(table, 0, "masked", longest=16).size == (16, 16)
    assert encode(Image.new("RGB", (128, 128)))[1] == "image/png"
    assert encode(Image.new("RGB", (129, 128)))[1] == "image/jpeg"


def test_what_json_cannot_hold_becomes_null(run):
    alter(run, clusters=[{"cluster": 1, "label": 1, "suspicion": float("nan"), "evidence": {"a": float("inf")}}])
    described = describe_table(CandidateTable.open(run))
    json.dumps(described, allow_nan=False)
    (one,) = (cluster for cluster in described["clusters"] if cluster["number"] == 1)
    assert one["suspicion"] is None and one["evidence"] == {"a": None} and one["neurons"] == []


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (lambda run: alter(run, schema="hf-score/candidates/1"), "schema 'hf-score/candidates/1' instead of"),
        (lambda run: (run / "candidates" / "candidates.json").write_text("{"), "cannot be read"),
        (lambda run: (run / "candidates" / "candidates.json").unlink(), "holds no candidates"),
        (lambda run: (run / "candidates").rename(run / "seed-0") and None, "holds no candidates"),
        (lambda run: next((run / "candidates").glob("*.arrow")).unlink(), "cannot be read"),
    ],
)
def test_an_unusable_run_is_refused_in_one_sentence(run, spoil, words):
    spoil(run)
    with pytest.raises(HFScoreError, match=words) as caught:
        CandidateTable.open(run)
    assert "\n" not in str(caught.value)


def test_a_run_with_seeds_is_told_from_one_without(run):
    (run / "seed-0").mkdir()
    (run / "candidates").rename(run / "seed-0" / "candidates")
    with pytest.raises(HFScoreError, match="one run per seed: give one of them, such as"):
        CandidateTable.open(run)


def test_a_run_without_candidates_is_refused(make):
    with pytest.raises(HFScoreError, match="is empty"):
        CandidateTable.open(make(rows=0))
