"""How long the review page of 10,000 candidates takes: to its first picture, and to save one decision.

    python benchmarks/review.py                    # 10,000 candidates of 32 px
    python benchmarks/review.py --rows 200 --size 96

Needs playwright and Chromium. Seconds from the browser's navigation until the first original, heatmap and masked image
are all decoded, each time in a new browser process with an empty cache; the server has been started before.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
import threading
import time
from pathlib import Path

import uvicorn
from playwright.sync_api import sync_playwright

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
from judged_run import make_run

from hf_score.review import CandidateTable, DecisionStore
from hf_score.review.app import build_app
from hf_score.review.page import _listen

SHOWN = """() => ["original", "heatmap", "masked"].every(
    (kind) => document.querySelector(`[data-at=${kind}]`)?.naturalWidth > 0)"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=10_000)
    parser.add_argument("--size", type=int, default=32)
    parser.add_argument("--clusters", type=int, default=40)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--chromium", default="/usr/bin/chromium")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        run = make_run(Path(folder) / "run", options.rows, options.size, clusters=options.clusters)
        start = time.perf_counter()
        app = build_app(CandidateTable.open(run))
        print(f"server ready after {time.perf_counter() - start:.2f} s (imports included)")
        listener = _listen()
        address = f"http://127.0.0.1:{listener.getsockname()[1]}/"
        server = uvicorn.Server(uvicorn.Config(app, log_level="warning"))
        threading.Thread(target=server.run, kwargs={"sockets": [listener]}, daemon=True).start()
        with sync_playwright() as started:
            seconds = [first_picture(started, options.chromium, address) for _ in range(options.rounds)]
        print(f"first pictures after {statistics.median(seconds):.2f} s (median of {sorted(seconds)})")
        store = DecisionStore(run)
        store.decide(range(options.rows), "core")
        times = []
        for row in range(10):
            start = time.perf_counter()
            store.decide([row], "spurious")
            times.append(time.perf_counter() - start)
        print(f"one decision among {options.rows} saved after {statistics.median(times):.3f} s (median of 10)")


def first_picture(started, chromium: str, address: str) -> float:
    browser = started.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
    page = browser.new_page(viewport={"width": 1440, "height": 900})
    start = time.perf_counter()
    page.goto(address, wait_until="commit")
    page.wait_for_function(SHOWN, timeout=60_000)
    seconds = time.perf_counter() - start
    browser.close()
    return round(seconds, 2)


if __name__ == "__main__":
    main()
