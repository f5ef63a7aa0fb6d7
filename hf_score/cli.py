"""The command line: one word per step, no logic of its own. `hf-score STEP --help` lists the options of a step.

What takes seconds to import is imported where a step needs it, after its words are parsed.
"""

from __future__ import annotations

import argparse
import difflib
import os
import shlex
import signal
import sys
import threading
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from . import __version__
from .errors import DecisionNeeded, HFScoreError
from .renamed import PLAN, in_new_words

if TYPE_CHECKING:
    from .pipeline import SeedRun

__all__ = ["RUN_STEPS", "main", "make_parser", "run_script"]

#: The steps of a run: they take the options of `run`, and run the steps before them where needed.
RUN_STEPS = {
    "run": "all steps below, before/after table, report and model (also: accelerate launch examples/run_score.py)",
    "scan": "find the images that activate each class most, explain and mask them",
    "decide": "keep the spurious-positive ones: by --selection FILE, or by --masks as an oracle",
    "train": "fine-tune with the penalty",
    "evaluate": "measure every trained model, by group where groups are known",
    "report": "write the page again from results.json",
}

#: What people need first; `--help-all` has the rest.
RUN_HELP = """usage: hf-score {step} --model MODEL --dataset DATA --output_dir RUN [options]
       hf-score {step} RUN [options]

{help}.
RUN alone goes on with the run in that folder, with its options; others beside it override them.

what to run on
  --model MODEL                   Hub id, local folder, or timm name
  --dataset DATA                  Hub id, local folder of images, or registered data set (hf-score datasets)
  --weights FILE                  local safetensors weights for a timm name
  --class_names A B ...           names of the classes 0, 1, ...
  --image_size PIXELS             input size (default: the model's)
  --output_dir RUN                run folder: every step leaves its files there
  --resume                        go on with the run in the output folder
  --config FILE.yaml              take options from a file, such as another run's run.yaml

what is judged
  --mask_area SHARE               largest share of the image that a mask keeps: enough to cover the shortcut (0.2)
  --object_model MODEL            the shortcut is everything except the object: a classifier that sees the object
  --masks FOLDER                  masks of the spurious region: an oracle decides by them
  --decider WHO                   auto, file, oracle or proposal (default: auto)

how it is trained out
  --score_form FORM               paper (SCORE), exchange (SCORE-X, the default) or both (SCORE-B)
  --score_lambda LAMBDA           weight of the penalty (default: 3)
  --lambdas A B ...               several, to choose from without group labels
  --score_forms A B ...           several forms, to choose from without group labels
  --num_train_epochs EPOCHS       of fine-tuning; with --patience, the most (default: 3)
  --patience N                    stop when N epochs have not raised the label-free estimate
  --controls                      also run the controls, to see what makes the change
  --num_seeds N                   repeat with so many seeds

  --quiet, --verbose              say less, or all that the libraries say too
  --help-all                      all options, those of transformers.TrainingArguments too
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point of `hf-score`; returns the exit status.

    0; 2 with one sentence on stderr; 130 or 143 where Ctrl+C or SIGTERM stopped it, with the command that goes on.
    """
    words = list(sys.argv[1:] if argv is None else argv)
    parser = make_parser()
    step = words[0] if words else ""
    if step in RUN_STEPS:
        return _guarded(lambda: _run_step(step, words[1:]))
    known = parser.step_names  # type: ignore[attr-defined]
    if step and not step.startswith("-") and step not in known:
        near = difflib.get_close_matches(step, known, n=1)
        hint = f"did you mean {near[0]!r}?" if near else f"use one of {', '.join(known)}."
        print(f"error: there is no step {step!r}: {hint}", file=sys.stderr)
        return 2
    if not words:
        parser.print_help()
        return 0
    return _guarded(lambda: _other_step(parser, in_new_words(words, PLAN) if step == "bench" else words))


def _other_step(parser: argparse.ArgumentParser, words: list[str]) -> None:
    options = vars(parser.parse_args(words))
    action = options.pop("action")
    action(**options)


def run_script(script: Callable[[], None]) -> int:
    """What a script of ours does, with errors as `main` has them: its exit status."""

    def stoppable() -> None:
        with _stops(_resumed):
            script()

    return _guarded(stoppable)


def make_parser() -> argparse.ArgumentParser:
    """The parser of all steps but those of a run, which it only lists."""
    parser = argparse.ArgumentParser(
        prog="hf-score",
        description="Find the shortcuts an image classifier has learned and train them out, with no group labels.",
        epilog="The steps from run to report take the options of run, or the run folder alone. A step runs the steps "
        "before it where needed.",
    )
    parser.add_argument("--version", action="version", version=f"hf-score {__version__}")
    steps = parser.add_subparsers(title="steps", metavar="STEP", required=True)
    for name, text in RUN_STEPS.items():
        steps.add_parser(name, help=text, add_help=False)

    def add(name: str, text: str, action: Callable[..., None]) -> argparse.ArgumentParser:
        step = steps.add_parser(name, help=text, description=f"{text[0].upper()}{text[1:]}.", allow_abbrev=False)
        step.set_defaults(action=action)
        return step

    _add_review(add("review", "judge a run's candidates in the browser", _review))
    _add_audit(
        add("audit", "look for shortcuts in a trained model: no training, no group labels, ten minutes", _audit)
    )
    _add_repair(
        add("repair", "edit the last layer of a run's starting model by its samples, without training", _repair)
    )
    _add_push(add("push", "put a run's debiased model on the Hub", _push))
    _add_card(add("card", "write a run's model card and its pictures, as push makes them", _card))
    _add_push_metric(add("push-metric", "put the evaluate metric on the Hub, as a Space", _push_metric))
    _add_space(add("space", "make a web page where anybody can try both models of a run, as a Space", _space))
    _add_bench(add("bench", "methods × data sets × models × seeds: run what is missing of a plan", _bench))
    add("families", "list the models that can be explained, and how", _families)
    datasets = add("datasets", "list the data sets known by name, or tell all about some", _datasets)
    datasets.add_argument("names", nargs="*", metavar="NAME")
    build = add("build", "make one of them from its raw public files; its options: hf-score build NAME --help", _build)
    build.add_argument("name", metavar="NAME", help="a registered data set, see `hf-score datasets`")
    build.add_argument("words", nargs=argparse.REMAINDER, metavar="...", help="its options")
    old = steps.add_parser("benchmarks")  # of before 0.1; not listed
    old.add_argument("names", nargs="*")
    old.set_defaults(action=_benchmarks)
    parser.step_names = list(steps.choices)  # type: ignore[attr-defined]
    return parser


def _guarded(action: Callable[[], None]) -> int:
    try:
        action()
        distributed = getattr(sys.modules.get("torch"), "distributed", None)
        if distributed and distributed.is_available() and distributed.is_initialized():
            distributed.destroy_process_group()  # a process that is gone first makes gloo abort in the others
    except DecisionNeeded as waiting:
        if os.environ.get("RANK", "0") == "0":
            print(f"\n{waiting}", flush=True)
    except HFScoreError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt as stopped:
        if os.environ.get("RANK", "0") == "0":
            print(f"\n{stopped or 'Stopped.'}", file=sys.stderr, flush=True)
        return 143 if isinstance(stopped, _Terminated) else 130
    return 0


class _Terminated(KeyboardInterrupt):
    """SIGTERM: ends what runs as Ctrl+C does."""


@contextmanager
def _stops(again: Callable[[], str]) -> Iterator[None]:
    """Ctrl+C and SIGTERM end what is inside with one sentence: the command that goes on."""
    process = os.getpid()

    def terminate(*_: object) -> None:
        if os.getpid() != process:  # a worker that was forked from it
            os._exit(143)
        raise _Terminated

    in_main_thread = threading.current_thread() is threading.main_thread()
    before = signal.signal(signal.SIGTERM, terminate) if in_main_thread else None
    try:
        yield
    except KeyboardInterrupt as stopped:
        raise type(stopped)(f"Stopped. This goes on: {again()}") from None
    finally:
        if in_main_thread:
            signal.signal(signal.SIGTERM, before)


def _resumed() -> str:
    from .provenance import command

    words = command()
    return words if "--resume" in sys.argv else f"{words} --resume"


# ---- The steps of a run ----


def _run_step(step: str, words: list[str]) -> None:
    if {"-h", "--help"} & {*words}:
        print(RUN_HELP.format(step=step, help=f"{RUN_STEPS[step][0].upper()}{RUN_STEPS[step][1:]}"), end="")
        raise SystemExit(0)
    if "--quiet" in words or not sys.stderr.isatty():
        os.environ.setdefault("TQDM_DISABLE", "1")  # which tqdm reads when it is imported
    folder: list[Path] = []

    def again() -> str:
        if folder:  # else it was stopped in the middle of an import: nothing can be imported
            from .pipeline.arguments import OPTIONS_FILE
            from .pipeline.words import go_on

            if (folder[0] / OPTIONS_FILE).is_file():
                return go_on(folder[0], step)
        return shlex.join(["hf-score", step, *words])

    with _stops(again):
        from .pipeline import SeedRun, parse_arguments, run
        from .pipeline.quiet import only_our_words
        from .pipeline.run_folder import write_options

        arguments, config = parse_arguments(words, prog=f"hf-score {step}")
        folder.append(Path(config.output_dir or "score-run"))
        with nullcontext() if arguments.verbose else only_our_words():
            if step == "run":
                run(arguments, config)
                return
            if arguments.num_seeds > 1:
                raise HFScoreError(
                    f"{step} is about one seed, not {arguments.num_seeds}: use 'hf-score run' for several."
                )
            seed_run = SeedRun(folder[0], arguments, config)
            seed_run.check()
            if seed_run.is_main_process:
                write_options(folder[0], arguments, config)
            _tell(step, seed_run, getattr(seed_run, step)())


def _tell(step: str, seed_run: SeedRun, outcome: Any) -> None:
    if seed_run.is_main_process:
        if step == "evaluate":
            from .report import render_conclusions, render_table

            print(f"{render_table(outcome)}\n\n{render_conclusions(outcome)}")
        if step == "scan":
            from .pipeline.words import go_on, what_was_found

            place = seed_run.folder.path
            print(
                f"{what_was_found(outcome)}\n\n  {shlex.join(['hf-score', 'review', str(place)])}\n  {go_on(place)}\n"
            )
        print(outcome if isinstance(outcome, Path) else f"{step}: done, see {seed_run.folder.path}")


# ---- The other steps: options, then what is done ----


def _add_review(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("run", type=Path, metavar="RUN", help="run folder that has been scanned")
    parser.add_argument("--port", type=int, help="on 127.0.0.1; 0 takes a free one (default: 7860, or a free one)")
    parser.add_argument("--no_browser", action="store_true", help="only print the address")
    parser.add_argument("--export", type=Path, metavar="FILE.html", help="write one offline page instead of serving")


def _review(run: Path, port: int | None, no_browser: bool, export: Path | None) -> None:
    if export:
        from .review import export_page

        print(export_page(run, export))
        return
    from .review.page import serve

    serve(run, port=port, browser=not no_browser, load=_data_of(run))


def _data_of(folder: Path) -> Callable[[bool], Any] | None:
    """How to load the data set that a run folder, or that of one of its seeds, was made from; None if not known."""
    from .pipeline.arguments import OPTIONS_FILE

    for place in (folder, folder.resolve().parent):
        if (place / OPTIONS_FILE).is_file():
            from .pipeline import data_of_run

            return partial(data_of_run, place)
    return None


def _add_audit(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("model", metavar="MODEL", help="Hub id, local folder, or timm name of a trained classifier")
    parser.add_argument("--dataset", required=True, help="Hub id, local folder of images, or registered data set")
    parser.add_argument("--output_dir", type=Path, help="folder to write (default: audits/ and the model's name)")
    parser.add_argument("--weights", metavar="FILE", help="local safetensors weights for a timm name")
    parser.add_argument("--image_size", type=int, metavar="PIXELS", help="input size (default: the model's)")
    parser.add_argument("--class_names", nargs="+", metavar="NAME", help="names of the classes 0, 1, ...")
    parser.add_argument("--label_column", help="column of the labels, if not 'label'")
    parser.add_argument("--masks", metavar="FOLDER", help="masks of a region to exchange, such as the background")
    parser.add_argument(
        "--invert_masks", action="store_true", help="the masks show the object, the region is the rest"
    )
    parser.add_argument("--num_candidates", type=int, default=40, help="training images per class (default: 40)")
    parser.add_argument("--most_classes", type=int, default=8, help="classes that are looked at (default: 8)")
    parser.add_argument("--most_images", type=int, default=1500, help="training images scanned (default: 1500)")
    parser.add_argument("--num_probed", type=int, default=96, help="test images with probes (default: 96)")
    parser.add_argument("--seed", type=int, default=0, help="of all that is drawn (default: 0)")
    parser.add_argument("--batch_size", type=int, default=32, help="images per forward pass (default: 32)")


def _audit(
    model: str, num_candidates: int, most_classes: int, most_images: int, num_probed: int, seed: int, **rest: Any
) -> None:
    if not sys.stderr.isatty():
        os.environ.setdefault("TQDM_DISABLE", "1")  # which tqdm reads when it is imported
    from .audit import AuditOptions, run_audit

    options = AuditOptions(
        num_candidates=num_candidates,
        most_classes=most_classes,
        most_images=most_images,
        num_probed=num_probed,
        seed=seed,
    )
    print(run_audit(model, options=options, **rest))


def _add_repair(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("run", type=Path, metavar="RUN", help="run folder whose samples have been decided on")
    parser.add_argument(
        "--max_loss", type=float, default=1.0, help="points of held-out accuracy it may cost (default: 1)"
    )


def _repair(run: Path, max_loss: float) -> None:
    from .pipeline.repair import repair_run

    print(repair_run(run, max_loss=max_loss))


def _add_push(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("run_folder", type=Path, metavar="RUN", help="run folder")
    parser.add_argument("--repo_id", required=True, help="USER/NAME on the Hub")
    parser.add_argument("--private", action="store_true", default=None, help="create a private repository")
    parser.add_argument("--revision", help="branch to push to (default: main)")
    _add_card_options(parser)


def _push(**options: Any) -> None:
    from .publishing import push_run

    print(push_run(**options))


def _add_card(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("run_folder", type=Path, metavar="RUN", help="run folder")
    parser.add_argument("--output_dir", type=Path, required=True, help="where to; the folder's name is the model's")
    parser.add_argument("--repo_id", help="USER/NAME on the Hub (default: a placeholder)")
    _add_card_options(parser)


def _card(**options: Any) -> None:
    from .publishing import write_card

    print(write_card(**options))


def _add_card_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--license", help="the checkpoint's licence for the card, such as apache-2.0")
    parser.add_argument(
        "--publish_images",
        action=argparse.BooleanOptionalAction,
        help="publish images of the data set in card and report (default: where its licence is known to allow it)",
    )


def _add_push_metric(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--repo_id", required=True, help="USER/worst_group_accuracy on the Hub")
    parser.add_argument("--private", action="store_true", default=None, help="create a private Space")


def _push_metric(repo_id: str, private: bool | None) -> None:
    from .publishing import push_metric

    print(push_metric(repo_id, private=private))


def _add_space(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("run_folder", type=Path, metavar="RUN", help="run folder")
    parser.add_argument("--repo_id", help="OWNER/NAME of the Space on the Hub; without, nothing is pushed")
    parser.add_argument("--private", action="store_true", default=None, help="create a private repository")
    parser.add_argument("--output_dir", type=Path, help="folder to write the Space to")
    parser.add_argument("--model_id", help="OWNER/NAME of the debiased model, if pushed; default: a copy in the Space")
    parser.add_argument(
        "--examples",
        nargs="+",
        default=(),
        type=Path,
        metavar="FILE",
        help="pictures that may be shown, or folders of them, instead of the data set's",
    )
    parser.add_argument("--patch", type=Path, metavar="FILE", help="a picture of the shortcut that may be shown")
    parser.add_argument(
        "--publish_images",
        action=argparse.BooleanOptionalAction,
        help="show images of the data set: examples, and the shortcut cut out of one (default: where its licence is "
        "known to allow it)",
    )
    parser.add_argument("--license", help="the Space's licence for its front matter (default: none is named)")


def _space(**options: Any) -> None:
    from .publishing import space_from_run

    print(space_from_run(**options))


def _add_bench(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("plans", type=Path, nargs="+", metavar="PLAN.yaml")
    parser.add_argument("--rows", type=Path, metavar="FILE.parquet", help="of a single plan; default: beside it")
    parser.add_argument("--data", metavar="DIR", help="what $DATA in the plan stands for")
    parser.add_argument("--cache", type=Path, default=Path("runs/bench"), help="images and starting models")
    parser.add_argument("--workers", type=int, default=1, help="processes (default: 1)")
    for name in ("datasets", "models", "methods", "seeds", "rounds"):
        parser.add_argument(f"--{name}", metavar="A,B", help=f"only these {name}")
    parser.add_argument("--tables", type=Path, metavar="DIR", help="write tables, contrasts and plots, run nothing")


def _bench(
    plans: list[Path],
    rows: Path | None,
    data: str | None,
    cache: Path,
    workers: int,
    tables: Path | None,
    **only: str | None,
) -> None:
    from .bench import Plan, RowFile, run_plan, write_studies, write_tables

    if data:
        os.environ["DATA"] = str(Path(data).resolve())
    if rows and len(plans) > 1:
        raise HFScoreError(f"--rows {rows} is of a single plan: leave it out, or give one plan.")
    read, files = [Plan(plan) for plan in plans], [rows or plan.with_suffix(".parquet") for plan in plans]
    if tables:
        stores = [RowFile(file) for file in files]
        for plan, store in zip(read, stores, strict=True):
            print(write_tables(plan, store, tables if len(read) == 1 else tables / plan.path.stem))
        for page in write_studies(read, stores, tables):
            print(page)
        return
    keys = {"datasets": "dataset", "models": "model", "methods": "name", "seeds": "seed", "rounds": "round"}
    wanted = {keys[name]: values.split(",") for name, values in only.items() if values}
    for plan, file in zip(read, files, strict=True):
        run_plan(plan, file, cache=cache, workers=workers, only=wanted)


def _families() -> None:
    from .attribution.families import FAMILIES, REFUSED

    for family in FAMILIES:
        print(f"{family.name}\n    default   {family.methods[0]}\n    also      {', '.join(family.methods[1:])}")
        print(f"    tested on {', '.join(family.examples)}")
    for kind, reason in REFUSED.items():
        print(f"not {kind}, because {reason}")


def _datasets(names: list[str]) -> None:
    from .data import list_datasets
    from .data.registry.build import describe, registered

    for spec in [registered(name) for name in names] or list_datasets():
        print(describe(spec) if names else f"{spec.name}\n    {spec.description}")


def _benchmarks(names: list[str]) -> None:
    warnings.warn("`hf-score benchmarks` is now `hf-score datasets`.", FutureWarning, stacklevel=2)
    _datasets(names)


def _build(name: str, words: list[str]) -> None:
    from transformers import HfArgumentParser

    from .data.registry.build import build, recipe_of, registered
    from .data.registry.opening import read_record

    benchmark = registered(name)
    parser = HfArgumentParser(recipe_of(benchmark), prog=f"hf-score build {name}")  # type: ignore[arg-type]
    parser.add_argument("--source", required=benchmark.source is None, help="folder with the raw public files")
    parser.add_argument("--output_dir", required=True, help="folder to write")
    parser.add_argument("--any_counts", action="store_true", help="do not insist on the official counts")
    options = vars(parser.parse_args(words))
    any_counts = options.pop("any_counts")
    folder = build(name, options.pop("source"), options.pop("output_dir"), check_counts=not any_counts, **options)
    for split, counts in read_record(folder)["counts"].items():  # stdout is the folder alone
        print(f"{split}: {' / '.join(map(str, counts))}", file=sys.stderr)
    print(folder)
