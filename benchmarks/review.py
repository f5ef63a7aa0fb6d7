"""How long the review page of 10,000 candidates takes: to its first picture, and to save one decision.

    python benchmarks/review.py                    # 10,000 candidates of 32 px
    python benchmarks/review.py --rows 200 --size 96
    python benchmarks/review.py --rows 100000 --size 224 --classes 1000 --pictures 1000

Needs playwright and Chromium. Seconds from the browser's navigation until the first original, heatmap and masked image
are all decoded, each time in a new browser process with an empty cache; the server has been started before. With
`--pictures`, so many pictures and maps lie on disk and come again under other numbers: 100,000 of 224 px would take
26 GB.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
import threading
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import uvicorn
from playwright.sync_api import sync_playwright

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
from judged_run import make_run

from hf_score.review import CandidateTable, DecisionStore
from hf_score.review.app import build_app
from hf_score.review.page import _listen
from hf_score.review.table import _clusters

SHOWN = """() => ["original", "heatmap", "masked"].every(
    (kind) => document.querySelector(`[data-at=${kind}]`)?.naturalWidth > 0)"""
READY = "() => document.querySelector('.hfs')?.dataset.ready === 'yes'"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=10_000)
    parser.add_argument("--size", type=int, default=32)
    parser.add_argument("--clusters", type=int, default=40)
    parser.add_argument("--classes", type=int, help="with a cluster of its own each, instead of --clusters")
    parser.add_argument("--pictures", type=int, help="different pictures; default: as many as rows")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--chromium", default="/usr/bin/chromium")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        names = {"classes": tuple(f"class {k}" for k in range(options.classes + 1))} if options.classes else {}
        clusters = options.classes or options.clusters
        pictures = options.pictures or options.rows
        run = make_run(Path(folder) / "run", pictures, options.size, clusters=clusters, **names)
        start = time.perf_counter()
        table = CandidateTable.open(run)
        if pictures < options.rows:
            table = repeated(table, options.rows)
        app = build_app(table)
        print(f"server ready after {time.perf_counter() - start:.2f} s (imports included)")
        listener = _listen()
        address = f"http://127.0.0.1:{listener.getsockname()[1]}/"
        server = uvicorn.Server(uvicorn.Config(app, log_level="warning"))
        threading.Thread(target=server.run, kwargs={"sockets": [listener]}, daemon=True).start()
        with sync_playwright() as started:
            seconds = [first_picture(started, options.chromium, address) for _ in range(options.rounds)]
        for what, times in zip(("first pictures", "ready for keys"), zip(*seconds, strict=True), strict=True):
            print(f"{what} after {statistics.median(times):.2f} s (median of {sorted(times)})")
        store = DecisionStore(run, table)
        store.decide(range(options.rows), "core")
        times = []
        for row in range(10):
            start = time.perf_counter()
            store.decide([row], "spurious")
            times.append(time.perf_counter() - start)
        print(f"one decision among {options.rows} saved after {statistics.median(times):.3f} s (median of 10)")


def repeated(table: CandidateTable, rows: int) -> CandidateTable:
    """A table of so many rows over the pictures of a smaller one; each with a number, logit and margin of its own."""
    again = np.arange(rows) % len(table)
    labels, cluster = table.labels[again], table.cluster[again]
    random = np.random.default_rng(0)
    about = json.loads((table.run / "candidates" / "candidates.json").read_text())["clusters"]
    return replace(
        table,
        idx=np.arange(rows),
        labels=labels,
        cluster=cluster,
        logits=random.normal(10, 2, rows),
        masked_margins=random.normal(1, 1, rows),
        embedding=np.full((rows, 2), np.nan, np.float32),  # more than are laid out
        originals=[(f"image_{row:06d}.jpg", 3024, 4032) for row in range(rows)],
        clusters=_clusters(cluster, labels, about),
        neuron_embedding=None,
        _images=table._images.select(again),
        _heatmaps=table._heatmaps.at(again),
        _masks=table._masks.at(again),
    )


def first_picture(started, chromium: str, address: str) -> tuple[float, float]:
    """Seconds until the pictures are there, and until the page listens."""
    browser = started.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
    page = browser.new_page(viewport={"width": 1440, "height": 900})
    start = time.perf_counter()
    page.goto(address, wait_until="commit")
    seconds = []
    for condition in (SHOWN, READY):
        while not page.evaluate(condition):  # the page's policy lets no condition be evaluated within it
            time.sleep(0.005)
        seconds.append(round(time.perf_counter() - start, 2))
    browser.close()
    return seconds[0], seconds[1]


if __name__ == "__main__":
    main()
