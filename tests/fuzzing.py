"""Wrong files for every reader: valid ones changed at random, in what they say and byte by byte.

A reader may take a changed file or refuse it with `HFScoreError`; anything else is a fault. `test_fuzzing.py` runs a
few hundred of them and the corpus of those that once got through; `python tests/fuzzing.py --count 200000` is the
campaign. A fault is printed with the seed that makes it again.
"""

from __future__ import annotations

import argparse
import copy
import io
import json
import random
import signal
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from hf_score.errors import HFScoreError

#: What takes the place of a value.
ODD: list[Any] = [
    None,
    True,
    -1,
    0,
    2**63,
    10**400,
    1e308,
    float("nan"),
    float("inf"),
    "",
    "\x00",
    "\ud800",
    "‮",
    "x" * 10_000,
    "../../etc/passwd",
    "{{ 7 * 7 }}",
    "<script>1</script>",
    [],
    {},
    [[]],
    [None],
    {"": {}},
    "12",
    "1e5",
    0.5,
    -0.5,
]
SECONDS = 10  # for one file: more is a hang


@dataclass(frozen=True)
class Reader:
    """A reader and a valid file of it.

    Attributes:
        name: of the reader.
        path: the file that is changed.
        read: reads it, and does with it what the program does next.
        content: the file as values.
    """

    name: str
    path: Path
    read: Callable[[], Any]
    content: Any

    def text(self, content: Any) -> bytes:
        """The file with this content."""
        if self.path.suffix == ".yaml":
            return yaml.safe_dump(content).encode("utf-8", "surrogatepass")
        return json.dumps(content).encode()


def places(content: Any, place: tuple = ()) -> Iterator[tuple]:
    """Every place in nested lists and dicts."""
    yield place
    children = (
        content.items() if isinstance(content, dict) else enumerate(content) if isinstance(content, list) else ()
    )
    for key, child in children:
        yield from places(child, (*place, key))


def change_values(content: Any, chance: random.Random) -> Any:
    """One to three values replaced, left out, doubled, nested or renamed."""
    content = copy.deepcopy(content)
    for _ in range(chance.randint(1, 3)):
        *place, key = chance.choice([p for p in places(content) if p] or [("",)])
        parent = content
        for step in place:
            parent = parent[step]
        how = chance.randrange(6)
        try:
            if how == 0:
                del parent[key]
            elif how == 1 and isinstance(parent, dict):
                parent[chance.choice(["", "x", "__class__", str(key) * 2])] = parent.pop(key)
            elif how == 2 and isinstance(parent, list):
                parent.extend(copy.deepcopy(parent))
            elif how == 3:
                parent[key] = [parent[key]]
            else:
                parent[key] = copy.deepcopy(chance.choice(ODD))
        except (KeyError, IndexError, TypeError):
            continue
    return content


def change_bytes(text: bytes, chance: random.Random) -> bytes:
    """Cut, spliced, overwritten, in another encoding, or nested very deeply."""
    where = chance.randrange(len(text) + 1)
    how = chance.randrange(7)
    if how == 0:
        return text[:where]
    if how == 1:
        return text[:where] + text[chance.randrange(len(text)) :]
    if how == 2:
        return text[:where] + bytes(chance.randrange(256) for _ in range(chance.randint(1, 4))) + text[where + 1 :]
    if how == 3:
        return text.decode("utf-8", "surrogatepass").encode(
            chance.choice(["utf-16", "utf-32", "utf-8-sig"]), "replace"
        )
    if how == 4:
        return chance.choice([b"[", b'{"a":']) * chance.choice([50, 5_000, 100_000])
    if how == 5:
        return chance.choice(
            [b"", b"\x00" * 50, b"null", b"[]", b"{}", b'"x"', b"1", b"NaN", b"!!python/none", b"- &a [*a]"]
        )
    flipped = bytearray(text)
    for _ in range(chance.randint(1, 8)):
        flipped[chance.randrange(len(text))] ^= 1 << chance.randrange(8)
    return bytes(flipped)


def wrong_file(reader: Reader, seed: int) -> bytes:
    """The changed file of a seed."""
    chance = random.Random(f"{reader.name} {seed}")
    if chance.random() < 0.7:
        try:
            return reader.text(change_values(reader.content, chance))
        except (ValueError, yaml.YAMLError, RecursionError):  # what this form cannot hold
            pass
    return change_bytes(reader.text(reader.content), chance)


class Hang(Exception):
    """A file that was not done with in time."""


@contextmanager
def time_limit(seconds: int) -> Iterator[None]:
    """Raises `Hang` after so many seconds."""

    def stop(*_: Any) -> None:
        raise Hang(f"more than {seconds} s")

    before = signal.signal(signal.SIGALRM, stop)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


def outcome(reader: Reader, file: bytes) -> BaseException | str:
    """`"taken"`, `"refused"`, or the fault; the valid file is there again afterwards."""
    reader.path.write_bytes(file)
    try:
        with time_limit(SECONDS), redirect_stdout(io.StringIO()), redirect_stderr(io.StringIO()):
            reader.read()
    except HFScoreError as error:
        said = str(error)
        one_sentence = "\n" not in said and said.endswith(".")
        return "refused" if one_sentence else AssertionError(f"not one sentence: {said!r}")
    except BaseException as error:
        return error
    finally:
        reader.path.write_bytes(reader.text(reader.content))
    return "taken"


# ---- The readers ----


def readers(folder: Path) -> list[Reader]:
    """All of them, each with a valid file in `folder`."""
    import judged_run
    from tiny_results import RESULTS

    from hf_score.bench import Plan
    from hf_score.data.registry.opening import read_record
    from hf_score.detection import Candidates, Selection
    from hf_score.detection.scan import read_part
    from hf_score.pipeline.arguments import read_options
    from hf_score.provenance import Manifest, read_run
    from hf_score.review.store import DecisionStore
    from hf_score.review.table import CandidateTable

    run = judged_run.make_run(folder / "run")
    decided = DecisionStore(run)
    decided.decide([0, 1, 2], "spurious")
    selection, candidates = run / "selection.json", run / "candidates" / "candidates.json"
    values = {path: json.loads(path.read_text()) for path in (selection, candidates)}
    part = {
        "schema": "hf-score/scan/1",
        "settings": {"num_candidates": 3},
        "attempt": 1,
        "shards": [0, 1],
        "num_images": 12,
        "unreadable": [{"position": 3, "idx": 3, "reason": "truncated"}],
        "hits": [[0, 1.5, -2, 2], [1, 0.5, -4, 4]],
    }
    options = {"model": "resnet18", "dataset": "pictures", "learning_rate": 1e-3, "cluster_lambdas": {"0": 1.0}}
    plan = {
        "seeds": [0],
        "datasets": {"fashion": {"load": {"dataset": "fashion_patch"}, "samples": {"mask_area": 0.1}}},
        "models": {
            "cnn": {"load": {"name_or_path": "test_resnet"}, "erm": {"num_train_epochs": 3}, "finetune": {"seed": 1}}
        },
        "methods": [{"method": "erm"}, {"method": "score", "grid": {"score_lambda": [1.0, 3.0]}, "seeds": [0]}],
    }
    made_with = {"model": {"score_lambda": 3.0}, "candidates": {"seed": 0}}
    build = {"benchmark": "isic_patches", "counts": {"train": [1, 2, 3, 0]}}
    other = {
        "part.json": part,
        "run.json": {"seed": 0, "num_seeds": 1, "dataset": "pictures", "held_out": 0.1, "drop_minority": False},
        "results.json": RESULTS,
        "made_with.json": made_with,
        "build.json": build,
        "map.json": {"key": "k", "candidates": [[0.0, 1.0]], "neurons": {"neuron": [0], "x": [0.0], "y": [1.0]}},
        "run.yaml": options,
        "plan.yaml": plan,
    }

    def of(name: str, path: Path, read: Callable[[], Any], content: Any) -> Reader:
        reader = Reader(name, path, read, content)
        path.write_bytes(reader.text(content))
        return reader

    found = [
        of("selection", selection, lambda: Selection.load(selection), values[selection]),
        of("review", selection, lambda: DecisionStore(run), values[selection]),
        of("candidates", candidates, lambda: Candidates.load(run / "candidates"), values[candidates]),
        of("review table", candidates, lambda: CandidateTable.open(run), values[candidates]),
        of("map", run / "map.json", lambda: CandidateTable.open(run), other["map.json"]),
    ]
    file = folder / "part.json"
    found.append(of("scan", file, lambda file=file: read_part(file), part))
    found.append(of("run", folder / "run.json", lambda: read_run(folder), other["run.json"]))
    results = folder / "results.json"
    found.append(of("results", results, lambda: use_results(results), RESULTS))
    found.append(
        of("made with", folder / "made_with.json", lambda: Manifest(folder).check("model", {"seed": 1}), made_with)
    )
    found.append(of("build", folder / "build.json", lambda: read_record(folder), build))
    found.append(of("options", folder / "run.yaml", lambda: read_options(folder / "run.yaml"), options))
    found.append(of("plan", folder / "plan.yaml", lambda: Plan(folder / "plan.yaml").cells(), plan))
    return found


def use_results(path: Path) -> None:
    """Everything that is made of a results file."""
    from hf_score.report import render_conclusions, render_model_card, render_table
    from hf_score.report.html import render_report
    from hf_score.report.schema import read_results

    results = read_results(path)
    render_table(results)
    render_conclusions(results)
    render_model_card(results, model_name="model")
    render_report(results, {})


def main() -> int:
    """The campaign: so many files in all, seeds from `--seed` on; status 1 with any fault."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=200_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", help="one reader")
    arguments = parser.parse_args()
    faults: dict[str, int] = {}
    began = time.monotonic()
    with tempfile.TemporaryDirectory() as temporary:
        known = [r for r in readers(Path(temporary)) if arguments.only in (None, r.name)]
        counts = {r.name: {"taken": 0, "refused": 0, "faults": 0} for r in known}
        for seed in range(arguments.seed, arguments.seed + arguments.count // len(known)):
            for reader in known:
                found = outcome(reader, wrong_file(reader, seed))
                if isinstance(found, str):
                    counts[reader.name][found] += 1
                    continue
                counts[reader.name]["faults"] += 1
                where = traceback.extract_tb(found.__traceback__)[-1]
                kind = f"{reader.name}: {type(found).__name__} at {Path(where.filename).name}:{where.lineno}"
                faults[kind] = faults.get(kind, 0) + 1
                if faults[kind] == 1:
                    print(f"{kind}, seed {seed}: {str(found)[:200]}", flush=True)
    print(f"{'reader':<14}{'taken':>8}{'refused':>9}{'faults':>8}")
    for name, count in counts.items():
        print(f"{name:<14}{count['taken']:>8}{count['refused']:>9}{count['faults']:>8}")
    print(f"{sum(sum(c.values()) for c in counts.values())} files in {time.monotonic() - began:.0f} s")
    return 1 if faults else 0


if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parent))
    sys.exit(main())
