"""The command line: one word per step, no logic of its own. `hf-score STEP --help` lists the options of a step.

What takes seconds to import is imported where a step needs it, after its words are parsed.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from .errors import HFScoreError

__all__ = ["main", "run_script"]

USAGE = """usage: hf-score STEP [options]

  run       all steps below, before/after table, report and model (also: accelerate launch examples/run_score.py)
  scan      find the images that activate each class most, explain and mask them
  decide    keep the spurious-positive ones: by --selection FILE, or by --masks as an oracle
  train     fine-tune with the SCORE penalty
  evaluate  measure every trained model, by group where groups are known
  report    write the page again from results.json
  review    hf-score review RUN: judge the candidates in the browser, or --export FILE.html for a colleague
  push      hf-score push RUN --repo_id USER/NAME: put the debiased model on the Hub
  card      hf-score card RUN --output_dir DIR: write the model card and its pictures, as push makes them
  push-metric  hf-score push-metric --repo_id USER/worst_group_accuracy: put the evaluate metric on the Hub, as a Space
  bench     hf-score bench PLAN.yaml: methods × data sets × models × seeds, one row per run, tables and plots
  space     hf-score space RUN --repo_id USER/NAME: a web page where anybody can try both models, as a Space
  families  list the models that can be explained, and how
  benchmarks  list the data sets known by name; hf-score benchmarks NAME tells all about one
  build     hf-score build NAME --source RAW --output_dir FOLDER: make one of them from its raw public files

The steps from run to report take the options of run, --output_dir is the run folder. A step runs the steps before it
where needed.
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point of `hf-score`; returns the exit status: 0, or 2 with one sentence on stderr."""
    words = list(sys.argv[1:] if argv is None else argv)
    steps: dict[str, Callable[[list[str]], None]] = {
        "run": _run,
        "scan": lambda rest: _step(rest, "scan"),
        "decide": lambda rest: _step(rest, "decide"),
        "train": lambda rest: _step(rest, "train"),
        "evaluate": lambda rest: _step(rest, "evaluate"),
        "report": lambda rest: _step(rest, "report"),
        "review": _review,
        "push": _push,
        "card": _card,
        "push-metric": _push_metric,
        "bench": _bench,
        "space": _space,
        "families": _families,
        "benchmarks": _benchmarks,
        "build": _build,
    }
    if not words or words[0] in ("-h", "--help"):
        print(USAGE, end="")
        return 0
    if words[0] not in steps:
        print(f"error: there is no step {words[0]!r}: use one of {', '.join(steps)}.", file=sys.stderr)
        return 2
    return _guarded(lambda: steps[words[0]](words[1:]))


def run_script() -> int:
    """Entry point of `examples/run_score.py`."""
    return _guarded(lambda: _run(sys.argv[1:]))


def _guarded(action: Callable[[], None]) -> int:
    try:
        action()
        import torch  # here, so that help and a mistyped word do not wait for it

        if torch.distributed.is_initialized():  # a process that is gone first makes gloo abort in the others
            torch.distributed.destroy_process_group()
    except HFScoreError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


def _run(words: list[str]) -> None:
    from .pipeline import parse_arguments, run

    run(*parse_arguments(words))


def _step(words: list[str], step: str) -> None:
    from .pipeline import SeedRun, parse_arguments

    arguments, config = parse_arguments(words)
    seed_run = SeedRun(config.output_dir or "score-run", arguments, config)
    seed_run.check()
    outcome = getattr(seed_run, step)()
    if seed_run.is_main_process:
        if step == "evaluate":
            from .report import render_table

            print(render_table(outcome))
        print(outcome if isinstance(outcome, Path) else f"{step}: done, see {seed_run.folder.path}")


def _families(words: list[str]) -> None:
    from .attribution.families import FAMILIES, REFUSED

    rows = [(f.name, f.methods[0], ", ".join(f.methods[1:]), ", ".join(f.examples)) for f in FAMILIES]
    for name, default, others, examples in rows:
        print(f"{name}\n    default   {default}\n    also      {others}\n    tested on {examples}")
    for kind, reason in REFUSED.items():
        print(f"not {kind}, because {reason}")


def _benchmarks(words: list[str]) -> None:
    from .data import list_datasets
    from .data.registry.build import describe, registered

    for benchmark in [registered(word) for word in words] or list_datasets():
        print(describe(benchmark) if words else f"{benchmark.name}\n    {benchmark.description}")


def _build(words: list[str]) -> None:
    from transformers import HfArgumentParser

    from .data.registry.build import build, recipe_of, registered

    names = argparse.ArgumentParser(prog="hf-score build", usage="hf-score build NAME [--help] [options]")
    names.add_argument("name", help="a benchmark, see `hf-score benchmarks`")
    name = names.parse_args(words[:1]).name
    parser = HfArgumentParser(recipe_of(registered(name)), prog=f"hf-score build {name}")  # type: ignore[arg-type]
    parser.add_argument("--source", required=True, help="folder with the raw public files")
    parser.add_argument("--output_dir", required=True, help="folder to write")
    parser.add_argument("--any_counts", action="store_true", help="do not insist on the official counts")
    options = vars(parser.parse_args(words[1:]))
    any_counts = options.pop("any_counts")
    print(build(name, options.pop("source"), options.pop("output_dir"), check_counts=not any_counts, **options))


def _push(words: list[str]) -> None:
    parser = argparse.ArgumentParser(prog="hf-score push", description="Put a run's debiased model on the Hub.")
    parser.add_argument("run_folder", type=Path, metavar="RUN", help="run folder")
    parser.add_argument("--repo_id", required=True, help="USER/NAME on the Hub")
    parser.add_argument("--private", action="store_true", default=None, help="create a private repository")
    parser.add_argument("--revision", help="branch to push to (default: main)")
    _add_card_options(parser)
    options = vars(parser.parse_args(words))
    from .publishing.push import push_run

    print(push_run(**options))


def _card(words: list[str]) -> None:
    parser = argparse.ArgumentParser(prog="hf-score card", description="Write a run's model card and its pictures.")
    parser.add_argument("run_folder", type=Path, metavar="RUN", help="run folder")
    parser.add_argument("--output_dir", type=Path, required=True, help="where to; the folder's name is the model's")
    parser.add_argument("--repo_id", help="USER/NAME on the Hub (default: a placeholder)")
    _add_card_options(parser)
    options = vars(parser.parse_args(words))
    from .publishing.push import write_card

    print(write_card(**options))


def _add_card_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--license", help="the checkpoint's licence for the card, such as apache-2.0")
    parser.add_argument(
        "--publish_images",
        action=argparse.BooleanOptionalAction,
        help="publish images of the data set in card and report (default: where its licence is known to allow it)",
    )


def _push_metric(words: list[str]) -> None:
    parser = argparse.ArgumentParser(prog="hf-score push-metric", description="Put the evaluate metric on the Hub.")
    parser.add_argument("--repo_id", required=True, help="USER/worst_group_accuracy on the Hub")
    parser.add_argument("--private", action="store_true", default=None, help="create a private Space")
    options = parser.parse_args(words)
    from .publishing.push import push_metric

    print(push_metric(options.repo_id, private=options.private))


def _space(words: list[str]) -> None:
    parser = argparse.ArgumentParser(prog="hf-score space", description="Make a Gradio Space of a run's two models.")
    parser.add_argument("run", type=Path, help="run folder")
    parser.add_argument("--repo_id", help="OWNER/NAME of the Space on the Hub; without, nothing is pushed")
    parser.add_argument("--private", action="store_true", default=None, help="create a private repository")
    parser.add_argument("--output_dir", type=Path, help="folder to write the Space to")
    parser.add_argument("--model_id", help="OWNER/NAME of the debiased model, if pushed; default: a copy in the Space")
    options = vars(parser.parse_args(words))
    from .publishing.space import space_from_run

    print(space_from_run(options.pop("run"), **options))


def _review(words: list[str]) -> None:
    parser = argparse.ArgumentParser(prog="hf-score review", description="Judge a run's candidates in the browser.")
    parser.add_argument("run", type=Path, help="run folder that has been scanned")
    parser.add_argument("--port", type=int, default=7860, help="on 127.0.0.1; 0 takes a free one (default: 7860)")
    parser.add_argument("--no_browser", action="store_true", help="only print the address")
    parser.add_argument("--export", type=Path, metavar="FILE.html", help="write one offline page instead of serving")
    options = parser.parse_args(words)
    if options.export:
        from .review import export_page

        print(export_page(options.run, options.export))
        return
    from .review.page import serve

    serve(options.run, port=options.port, browser=not options.no_browser)


def _bench(words: list[str]) -> None:
    parser = argparse.ArgumentParser(prog="hf-score bench", description="Run what is missing of a benchmark plan.")
    parser.add_argument("plan", type=Path, metavar="PLAN.yaml")
    parser.add_argument("--rows", type=Path, metavar="FILE.parquet", help="default: beside the plan")
    parser.add_argument("--data", metavar="DIR", help="what $DATA in the plan stands for")
    parser.add_argument("--cache", type=Path, default=Path("runs/bench"), help="images and starting models")
    parser.add_argument("--workers", type=int, default=1, help="processes (default: 1)")
    for name in ("sets", "models", "methods", "seeds", "rounds"):
        parser.add_argument(f"--{name}", metavar="A,B", help=f"only these {name}")
    parser.add_argument("--tables", type=Path, metavar="DIR", help="write tables and plots of the rows, run nothing")
    options = parser.parse_args(words)
    from .bench import Plan, RowFile, run_plan, write_tables

    if options.data:
        os.environ["DATA"] = str(Path(options.data).resolve())
    plan, rows = Plan(options.plan), options.rows or options.plan.with_suffix(".parquet")
    if options.tables:
        print(write_tables(plan, RowFile(rows), options.tables))
        return
    keys = {"sets": "set", "models": "model", "methods": "name", "seeds": "seed", "rounds": "round"}
    only = {key: getattr(options, name).split(",") for name, key in keys.items() if getattr(options, name)}
    run_plan(plan, rows, cache=options.cache, workers=options.workers, only=only)
