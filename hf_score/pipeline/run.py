"""One run of SCORE from data to report, as steps over a run folder.

The script (`examples/run_score.py`), the command line (`hf_score.cli`) and tests call the same steps: `erm`, `scan`,
`decide`, `train`, `evaluate`, `report`. Each leaves a file or folder that a person can open, and is skipped where that
is already there, so that an interrupted run goes on with `--resume`.
"""

from __future__ import annotations

import dataclasses
import shutil
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from PIL import Image
from transformers import PreTrainedModel

from ..data import ImageData
from ..detection import (
    Candidates,
    Selection,
    SpuriousSamples,
    decide_by_file,
    decide_by_oracle,
    decide_by_proposal,
    find_candidates,
    find_evidence,
)
from ..errors import DecisionNeeded, InactiveError, SelectionError
from ..evaluation import Verdicts
from ..files import atomic_folder, write_bytes, write_json, write_text
from ..models import checkpoint_digest
from ..provenance import to_jsonable
from ..publishing import push_run
from ..report import METHODS, label_of, render_conclusions, render_model_card, render_table, write_report
from ..report.figures import png_bytes
from ..report.schema import read_results
from ..training import SCOREConfig, SCORETrainer
from .arguments import RunArguments, parse_arguments
from .checks import check_run
from .choice import Choice, chooses, trials_of
from .controls import methods_of, random_samples
from .estimate import estimate_run, in_one_line
from .pictures import figures_of, pictures_of_models, write_contact_sheets
from .quiet import in_few_words
from .results import (
    examples_of,
    judged_regions,
    merge_results,
    methods_of_results,
    results_head,
    starting_figures,
    test_logits,
    test_metrics,
    training_cost,
)
from .run_folder import RunFolder, refuse_foreign_folder, write_options
from .saving import SaveEveryMinute
from .words import what_to_decide
from .workspace import Workspace

__all__ = ["SeedRun", "finish_runs", "run", "start_runs"]


class SeedRun:
    """The steps of one run with one seed in one folder.

    Args:
        folder: the run folder.
        arguments: what to run on.
        config: how to fine-tune; its `seed` is the run's.
        workspace: data and models, where the caller has them already.
    """

    def __init__(
        self,
        folder: str | Path,
        arguments: RunArguments,
        config: SCOREConfig,
        *,
        workspace: Workspace | None = None,
    ) -> None:
        self.folder = RunFolder(folder)
        if config.eval_strategy == "no":
            # The report shows held-out accuracy per epoch, and curves of loss and penalty.
            steps = min(config.logging_steps, 10)
            config = dataclasses.replace(config, eval_strategy="epoch", logging_steps=steps)
        config = dataclasses.replace(config, save_total_limit=config.save_total_limit or 1)  # beside the best one
        self.arguments, self.config = arguments, config.with_defaults(samples=True)
        self.workspace = workspace or _workspace(arguments, config)
        self.is_main_process = self.folder.state.is_main_process

    def check(self) -> None:
        """Find out what is wrong with options, data, model or layer before anything is written (`check_run`)."""
        self.arguments.cluster_weights(self.config.score_lambda)
        self.check_parts()
        check_run(self.arguments, self.config, self.workspace)

    def check_parts(self) -> None:
        """Raise HFScoreError where a part that is in the folder already was made with other options or decisions."""
        self.folder.check_parts(self.arguments, self.config)

    # ---- Steps ----

    def erm(self) -> PreTrainedModel:
        """The starting model: as given if it has a head for the task, else fine-tuned first. → `erm/`"""
        if not self.folder.has("erm"):
            loaded, name = self.workspace.loaded, self.arguments.model
            if loaded.has_head:
                self.say(f"{name} has a head for these classes: starting from it as it is.")
            else:
                self.say(
                    f"{name} has no head for these classes: fine-tuning it first "
                    f"(ERM, {self.arguments.erm_epochs:g} epochs)."
                )
                trainer = self._trainer(
                    loaded.model,
                    folder=self.folder.checkpoints("erm"),
                    score_lambda=0.0,
                    freeze_batch_norm=False,
                    class_balanced=self.config.class_balanced,
                    num_train_epochs=self.arguments.erm_epochs,
                    max_steps=-1,
                    learning_rate=self.arguments.erm_learning_rate,
                    patience=None,  # it is to learn the shortcut, and nothing tells when it has
                )
                start = starting_figures(trainer)
                trainer.train(resume_from_checkpoint=self._last_checkpoint("erm"))
                _write_history(self.folder, "erm", trainer, training_cost(trainer), start=start)
            self._record("erm")
            self.folder.save_model("erm", loaded.model, loaded.processor)
            self.folder.remove_checkpoints("erm")
        return self._load("erm")

    def scan(self) -> Candidates:
        """The images that activate each class most, explained and masked. → `candidates/`, `contact_sheets/`"""
        if not self.folder.has("candidates"):
            model, view = self.erm(), self.workspace.view("train")
            self.say(f"Scan: {len(view)} training images.")
            candidates = find_candidates(
                model,
                view,
                **self._explaining(),
                num_candidates=self.arguments.num_candidates,
                folder=self.folder / "scan",
                num_workers=self.config.dataloader_num_workers,
            )
            if self.is_main_process:
                self._record("candidates")
                evidence = find_evidence(
                    candidates,
                    model,
                    view,
                    self.workspace.partners("held_out"),
                    processor=self.workspace.processor,
                    batch_size=self.workspace.batch_size,
                )
                dataclasses.replace(candidates, evidence=evidence).save(self.folder / "candidates")
                shutil.rmtree(self.folder / "scan", ignore_errors=True)
                write_contact_sheets(self.folder / "contact_sheets", candidates)
            self.wait()
        return Candidates.load(self.folder / "candidates")

    def decide(self) -> Selection:
        """Which candidates are spurious-positive. → `selection.json`

        Raises:
            DecisionNeeded: a person has to.
            SelectionError: nothing was kept.
        """
        path, candidates, decider = self.folder / "selection.json", self.scan(), self.arguments.decided_by
        if path.is_file() and not self.arguments.selection:
            selection = decide_by_file(candidates, path)
            if selection.spurious:
                return selection
        else:
            selection = self._decide(candidates, decider)
        if not selection.spurious:
            raise SelectionError(
                f"none of the {len(candidates)} candidates was kept as spurious-positive: the model may not use the "
                f"shortcut; look at the candidates with 'hf-score review {self.folder.path}'."
            )
        if self.is_main_process:
            if decider != "file":
                self._record("selection.json")
            selection.save(path)
            write_contact_sheets(self.folder / "contact_sheets", candidates, selection)
        self.wait()
        return selection

    def _decide(self, candidates: Candidates, decider: str) -> Selection:
        a = self.arguments
        if decider == "file" and a.selection:
            return decide_by_file(candidates, a.selection)
        if decider == "oracle" and self.workspace.data.has_regions:
            regions = self.workspace.regions("train", candidates.idx)
            return decide_by_oracle(candidates, regions, num_keep=a.num_keep, threshold=a.oracle_threshold)
        if decider == "proposal":
            assert candidates.suspicion is not None
            return decide_by_proposal(
                candidates, candidates.suspicion, num_keep=a.num_keep, evidence=candidates.evidence
            )
        raise DecisionNeeded(
            what_to_decide(candidates, self.folder.path, run=Path(self.config.output_dir or "score-run"))
        )

    def train(self, method: str = "score") -> PreTrainedModel:
        """Fine-tune the starting model by one of `METHODS`. → `<method>/`"""
        if method == "erm":
            return self.erm()
        if not self.folder.has(method):
            samples = self._samples(method)
            self.say(f"Fine-tuning: {METHODS[method].called(self.config.score_form)}.")
            trials = trials_of(method, self.arguments, self.config)
            choice = Choice(measures=chooses(method, self.arguments))
            start: dict[str, float] | None = None  # the same for all
            for trial in trials:
                decided = {name: getattr(self.config, name) for name in ("freeze_batch_norm", "class_balanced")}
                trainer = self._trainer(
                    self.erm(),
                    folder=self.folder.checkpoints(trial.name),
                    samples=samples,
                    **{**trial.fields, **decided},
                )
                start = starting_figures(trainer) if start is None else start
                try:
                    trainer.train(resume_from_checkpoint=self._last_checkpoint(trial.name))
                except InactiveError as error:
                    if trial is trials[-1] and choice.trainer is None:
                        raise
                    self.say(f"  {trainer.title} is left out, because {error}")
                    continue
                choice.add(trainer, self.say)
            assert choice.trainer is not None
            _write_history(self.folder, method, choice.trainer, choice.outcome, start=start or {})
            self._record(method)
            self.folder.save_model(method, choice.trainer.model, self.workspace.processor)  # type: ignore[arg-type]
            self.folder.remove_checkpoints()
        self.folder.check(method, self.arguments, self.config)  # the decisions may have come since `check_parts`
        return self._load(method)

    def evaluate(self) -> dict[str, Any]:
        """Metrics of every method trained so far, and what its models look at. → `results.json`"""
        head = results_head(self.arguments, self.config, self.workspace)
        data = self.workspace.data
        self.say(f"Measuring: {', '.join(METHODS[key].label for key in self.folder.trained)}.")
        regions = judged_regions(self.folder, self.workspace, self.config)
        verdicts = Verdicts(regions, data.test["label"][:], data.class_names)
        measured = {key: self._measure(key, verdicts) for key in self.folder.trained}
        summary, histories = self.folder.selection_summary(data.class_names), self.folder.histories()
        results = {
            **head,
            "selection": summary,
            "methods": methods_of_results(
                measured, histories, config=self.config, decided_by=(summary or {}).get("decided_by", "")
            ),
            "history": histories,
        }
        self._record("results.json")
        if self.is_main_process:
            write_json(self.folder / "results.json", results)
        self.folder.remove_checkpoints()
        self.wait()
        return results

    def report(self, results: dict[str, Any] | None = None) -> Path:
        """Pictures and tables in one page that needs nothing else. → `report/index.html`"""
        if results is None:
            self.folder.check("results.json", self.arguments, self.config)
            results = read_results(self.folder / "results.json")
        pictures: dict[str, tuple[Image.Image, str]] = {}
        if "score" in results["methods"]:
            pictures = pictures_of_models(
                self.workspace,
                (self._load("erm"), self._load("score")),
                name=label_of("score", results),
                spurious_classes=sorted({decision.label for decision in self.decide().spurious}),
                regions=judged_regions(self.folder, self.workspace, self.config),
                pairs=examples_of(results),
            )
        figures = {**figures_of(results, self.folder / "contact_sheets"), **pictures}
        page = write_report(self.folder / "report", results, figures)
        for name in ("heatmaps", "insertions"):  # for the card
            path = page.parent / f"{name}.png"
            path.unlink(missing_ok=True)  # of models of before
            if name in pictures:
                write_bytes(path, png_bytes(pictures[name][0]))
        return page

    # ---- Pieces ----

    def say(self, message: str) -> None:
        """Print on the main process."""
        if self.is_main_process and not self.arguments.quiet:
            print(message, flush=True)

    def wait(self) -> None:
        """Until all processes are here."""
        self.folder.state.wait_for_everyone()

    def _samples(self, method: str) -> SpuriousSamples:
        candidates, selection, view = self.scan(), self.decide(), self.workspace.view("train")
        if method == "random_samples":
            return random_samples(
                selection,
                self.erm(),
                view,
                self.workspace.data.train,
                seed=self.config.seed,
                explaining=self._explaining(),
            )
        samples = candidates.samples(
            selection,
            view,
            processor=self.workspace.processor,
            cluster_weights=self.arguments.cluster_weights(self.config.score_lambda),
        )
        return samples.move_masks(seed=self.config.seed) if method == "random_regions" else samples

    def _explaining(self) -> dict[str, Any]:
        a = self.arguments
        share = None if a.object_model is None else a.object_share
        return self.workspace.explaining(
            layer=self.config.layers[-1], mask_share=a.mask_share, mask_area=a.mask_area, object_share=share
        )

    def _trainer(
        self, model: PreTrainedModel, *, folder: Path, samples: SpuriousSamples | None = None, **changes: Any
    ) -> SCORETrainer:
        trainer = SCORETrainer(
            model=model,
            args=dataclasses.replace(self.config, output_dir=str(folder), push_to_hub=False, **changes),
            train_dataset=self.workspace.view("train"),
            eval_dataset=self.workspace.view("held_out"),
            spurious_samples=samples,
            processing_class=self.workspace.processor,
            callbacks=[SaveEveryMinute()],
        )
        return in_few_words(trainer, self.arguments)

    def _measure(self, method: str, verdicts: Verdicts) -> dict[str, Any]:
        model = self._load(method)
        trainer = self._trainer(model, folder=self.folder.checkpoints("eval"), score_lambda=0.0)
        logits = test_logits(trainer, self.workspace)
        return {
            "metrics": test_metrics(logits, self.workspace.data),
            "verdict": verdicts(model, logits),
            "relevance_in_region": self.workspace.explained_test_set.relevance_in_region(model),
            "weights_sha256": checkpoint_digest(self.folder / method),
        }

    def _load(self, method: str) -> PreTrainedModel:
        return self.folder.load_model(method, self.config.device)

    def _record(self, part: str) -> None:
        self.folder.record(part, self.arguments, self.config)

    def _last_checkpoint(self, name: str) -> str | None:
        return self.folder.last_checkpoint(name, self.arguments, self.config)


def _write_history(
    folder: RunFolder, method: str, trainer: SCORETrainer, outcome: dict[str, Any], *, start: dict[str, float]
) -> None:
    log = [{"step": 0, **start}, *trainer.state.log_history]
    folder.write_history(method, log, last_step=trainer.state.global_step, outcome=outcome)


def data_of_run(folder: Path, verify: bool = True) -> ImageData:
    """The data set that a run was made from, as its options say; `verify` as in `load_data`.

    Raises:
        HFScoreError: the folder has no options of a run, or the data set cannot be loaded.
    """
    return _workspace(*parse_arguments([str(folder), "--use_cpu"]), verify=verify).data


def _workspace(a: RunArguments, config: SCOREConfig, *, verify: bool = True) -> Workspace:
    return Workspace(
        {
            "verify": verify,
            "name_or_path": a.dataset,
            "data_dir": a.data_dir,
            "label_column": a.label_column,
            "group_column": a.group_column,
            "class_names": a.class_names,
            "held_out": a.held_out,
            "test_share": a.test_share,
            "split_by": a.split_by,
            "config_name": a.config_name,
            "masks": a.masks,
            "invert_masks": a.invert_masks,
            "value_range": a.value_range,
            "drop_minority": a.drop_minority,
            "strict": a.strict,
        },
        {
            "name_or_path": a.model,
            "label": a.label,
            "image_size": a.image_size,
            "weights": a.weights,
            "from_scratch": a.from_scratch,
            "revision": a.revision,
            "trust_remote_code": a.trust_remote_code,
        },
        object_model=None
        if a.object_model is None
        else {
            "name_or_path": a.object_model,
            "weights": a.object_weights,
            "trust_remote_code": a.trust_remote_code,
        },
        seed=config.seed,
        device=config.device,
        batch_size=config.per_device_eval_batch_size,
    )


def run(arguments: RunArguments, config: SCOREConfig) -> dict[str, Any]:
    """All steps, for every seed, ending with the table, `results.json`, `report/` and `model/`.

    Args:
        arguments: what to run on.
        config: how to fine-tune; `output_dir` is the run folder.

    Returns:
        the content of `results.json`.

    Raises:
        HFScoreError: anything the user can fix; nothing is written before data, model and layer were checked.
    """
    results: dict[str, Any] = {}
    seed_runs = start_runs(arguments, config)
    seed_runs[0].say(_estimate(seed_runs))
    for seed_run in seed_runs:
        if len(seed_runs) > 1:
            seed_run.say(f"\nSeed {seed_run.config.seed}")
        seed_run.decide()
        for method in methods_of(config, controls=arguments.controls):
            try:
                seed_run.train(method)
            except InactiveError as error:
                if not METHODS[method].is_control:
                    raise
                seed_run.say(f"Left out, because {error}")
        results = merge_results(results, seed_run.evaluate())
    finish_runs(seed_runs, results)
    return results


def _estimate(seed_runs: Sequence[SeedRun]) -> str:
    first = seed_runs[0]
    methods = methods_of(first.config, controls=first.arguments.controls)
    seconds, disk = estimate_run(first.arguments, first.config, first.workspace, first.folder, methods)
    return in_one_line(seconds, disk, seeds=len(seed_runs))


def start_runs(arguments: RunArguments, config: SCOREConfig) -> list[SeedRun]:
    """A checked run for every seed: in the output folder itself, or in a folder of its own there. → `run.json`

    Raises:
        HFScoreError: as `run`.
    """
    folder = Path(config.output_dir or "score-run")
    refuse_foreign_folder(folder, arguments)
    if arguments.selection and arguments.num_seeds > 1:
        raise SelectionError("a selection file is about one model's candidates: use it with num_seeds=1.")
    if arguments.num_seeds == 1:
        seed_runs = [SeedRun(folder, arguments, config)]
    else:
        first = SeedRun(folder / f"seed-{config.seed}", arguments, config)
        seed_runs = [first]
        for seed in range(config.seed + 1, config.seed + arguments.num_seeds):
            of_seed = dataclasses.replace(config, seed=seed)
            workspace = first.workspace.with_seed(seed)
            seed_runs.append(SeedRun(folder / f"seed-{seed}", arguments, of_seed, workspace=workspace))
    seed_runs[0].check()
    for seed_run in seed_runs[1:]:
        seed_run.check_parts()
    seed_runs[0].wait()
    if seed_runs[0].is_main_process:
        write_json(folder / "run.json", to_jsonable({**asdict(arguments), **seed_runs[0].config.described()}))
        write_options(folder, arguments, config)
    return seed_runs


def finish_runs(seed_runs: Sequence[SeedRun], results: dict[str, Any]) -> None:
    """Print the table of all seeds, push where asked to. → `results.json`, `report/`, `model/` (the first seed's)"""
    first = seed_runs[0]
    arguments, config = first.arguments, first.config
    folder = Path(config.output_dir or "score-run")
    if first.is_main_process:
        write_json(folder / "results.json", results)
        page = first.report(results)
        if first.folder.path != folder:
            shutil.copytree(page.parent, folder / "report", dirs_exist_ok=True)
            page = folder / "report" / page.name
        with atomic_folder(folder / "model") as temporary:
            shutil.copytree(first.folder / "score", temporary, dirs_exist_ok=True)
            name = f"{Path(arguments.model).name}-{Path(first.workspace.data.name).name}-score"
            write_text(temporary / "README.md", render_model_card(results, model_name=name))
        print(f"\n{render_table(results)}\n\n{render_conclusions(results)}\n")
        print(f"model:   {folder / 'model'}\nreport:  {page}", flush=True)
        if config.push_to_hub:
            print(f"pushed:  {push_run(folder, config.hub_model_id or folder.name, private=config.hub_private_repo)}")
    first.wait()
