"""Files that are wrong in any way are refused in one sentence: random ones, and those that once were not."""

import json

import pytest
from fuzzing import outcome, readers, wrong_file

#: Reader to files that ended in a traceback.
CORPUS: dict[str, list[bytes]] = {
    "selection": [
        b"[" * 100_000,
        b'{"schema": "hf-score/selection/1", "decisions": 3}',
        b'{"schema": "hf-score/selection/1", "decisions": [{"idx": [], "label": 0, "verdict": "core"}]}',
        b"\xff\xfe",
    ],
    "candidates": [b"[]", b"{}", b'{"schema": "hf-score/candidates/2", "class_names": 3}'],
    "map": [b"[]", b'{"key": "k", "candidates": 3}'],
    "scan": [b'{"schema": "hf-score/scan/1"}', b"null"],
    "run": [b"[]", b'{"seed": "\\ud800"}'],
    "made with": [b"[]", b'{"model": 3}', b'{"model": {"seed": 1'],
    "build": [b'{"benchmark": [], "counts": {}}'],
    "options": [b"&a [*a, *a]", b"3", b"- 1", b"a: " + b"[" * 5_000, b"x: !!python/object:os.system {}"],
    "results": [b'{"methods": {}}', b'{"methods": {"score": {"runs": []}}}'],
}


@pytest.fixture(scope="module")
def known(tmp_path_factory):
    return {reader.name: reader for reader in readers(tmp_path_factory.mktemp("files"))}


@pytest.mark.parametrize("name", CORPUS)
def test_what_once_was_a_traceback_is_refused(known, name):
    found = [outcome(known[name], file) for file in CORPUS[name]]
    assert found == ["taken" if name == "map" else "refused"] * len(found)  # a wrong map is made anew


def test_random_files_are_taken_or_refused_in_a_sentence(known):
    for reader in known.values():
        found = [outcome(reader, wrong_file(reader, seed)) for seed in range(8 if reader.name == "results" else 40)]
        faults = [(seed, repr(one)) for seed, one in enumerate(found) if not isinstance(one, str)]
        assert not faults, (reader.name, faults)
        assert outcome(reader, reader.text(reader.content)) == "taken"


def test_a_wrong_field_is_named(known):
    reader = known["selection"]
    content = json.loads(json.dumps(reader.content))
    content["decisions"][1]["idx"] = "seven"
    reader.path.write_text(json.dumps(content))
    with pytest.raises(ValueError, match=r"decisions\[1\]\.idx: expected `int`, got `str`"):
        reader.read()
    reader.path.write_bytes(reader.text(reader.content))
