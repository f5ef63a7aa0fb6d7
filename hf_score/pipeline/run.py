"""One run of SCORE from data to report, as steps over a run folder.

The script (`examples/run_score.py`), the command line (`hf_score.cli`) and tests call the same steps: `erm`, `scan`,
`decide`, `train`, `evaluate`, `report`. Each leaves a file or folder that a person can open, and is skipped where that
is already there, so that an interrupted run goes on with `--resume`.
"""

from __future__ import annotations

import csv
import dataclasses
import json
import logging
import math
import shutil
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import numpy as np
from accelerate import PartialState
from PIL import Image
from torch import Tensor
from transformers import AutoModelForImageClassification, PreTrainedModel, set_seed

from ..attribution import Explainer, find_layer
from ..data import ImageCollator, ImageData, load_data, preprocess, to_uint8
from ..data.exchange import OtherClassPartners
from ..data.registry.specs import find_dataset
from ..detection import (
    Candidates,
    ObjectFinder,
    Selection,
    SpuriousSamples,
    decide_at_random,
    decide_by_file,
    decide_by_oracle,
    decide_by_proposal,
    find_candidates,
    find_evidence,
)
from ..detection.candidates import explain_hits
from ..detection.scan import ScanHit
from ..errors import HFScoreError, SelectionError
from ..evaluation import group_metrics
from ..evaluation.explained_test_set import ExplainedTestSet
from ..files import atomic_folder, write_bytes, write_json, write_text
from ..models import base_model_id, checkpoint_digest, checkpoint_state, describe_model, load_model
from ..provenance import Manifest, provenance, to_jsonable
from ..report import contact_sheet, group_bars, render_model_card, render_table, training_curves, write_report
from ..report.figures import png_bytes
from ..training.score_config import SCOREConfig
from ..training.score_trainer import SCORETrainer

__all__ = ["METHODS", "Run", "RunArguments", "run"]

logger = logging.getLogger(__name__)

#: Above this a split is read from its images again in every epoch.
IN_MEMORY_BYTES = 4 * 2**30
#: key → (label, supervision), in the order of the tables.
METHODS = {
    "erm": ("ERM", "class labels"),
    "continued_erm": ("continued ERM (λ = 0)", "class labels"),
    "random_samples": ("SCORE, random samples", "class labels"),
    "random_regions": ("SCORE, random regions", "class labels + decisions"),
    "swap_only": ("exchanged copies only (λ → 0)", "class labels + decisions"),
    "random_neurons": ("SCORE, random neurons", "class labels + decisions"),
    "score": ("SCORE", "class labels + decisions"),
}
#: Part of a run folder → the options that decide it, beside those of what it is made from. A model of `METHODS` is
#: decided by the config and the decisions too.
DECIDE = {
    "erm": (
        *("dataset", "data_dir", "label_column", "class_names", "held_out", "drop_minority", "strict"),
        *("model", "weights", "from_scratch", "image_size", "revision", "erm_epochs", "erm_learning_rate"),
    ),
    "candidates": ("num_candidates", "mask_share", "mask_area", "object_model", "object_weights", "object_share"),
    "selection.json": ("num_keep", "oracle_threshold"),
    "model": ("lambdas", "cluster_lambdas"),
}


@dataclass
class RunArguments:
    """What to run SCORE on. How to fine-tune is [`SCOREConfig`]'s."""

    model: str = field(metadata={"help": "Hub id, local folder, or timm name."})
    dataset: str = field(metadata={"help": "Hub id, local imagefolder with metadata.csv, or registered benchmark."})
    data_dir: str | None = field(
        default=None, metadata={"help": "A benchmark's raw folder, or what `hf-score build` made of it."}
    )
    weights: str | None = field(default=None, metadata={"help": "Local safetensors weights for a timm name."})
    from_scratch: bool = field(default=False, metadata={"help": "Start a timm model from random weights."})
    image_size: int | None = field(default=None, metadata={"help": "Input size in pixels. Default: the model's."})
    revision: str | None = field(default=None, metadata={"help": "Revision of the model on the Hub."})
    trust_remote_code: bool = field(default=False, metadata={"help": "Run code that comes with a Hub model."})
    label_column: str | None = field(default=None, metadata={"help": "Column of the class labels. Default: label."})
    group_column: str | None = field(default=None, metadata={"help": "Column of the groups, for evaluation only."})
    masks: str | None = field(
        default=None, metadata={"help": "Folder, pattern or column of masks of the spurious region."}
    )
    invert_masks: bool = field(default=False, metadata={"help": "The masks mark the object, not the shortcut."})
    drop_minority: bool = field(default=False, metadata={"help": "Drop training rows with minority = 1."})
    strict: bool = field(default=False, metadata={"help": "Stop at a training image that cannot be read."})
    class_names: str | None = field(default=None, metadata={"help": "Comma-separated names of the classes 0, 1, ..."})
    held_out: float = field(default=0.15, metadata={"help": "Share of the training set kept for label-free choices."})
    erm_epochs: float = field(default=5.0, metadata={"help": "Epochs of fine-tuning a model without a head for this."})
    erm_learning_rate: float = field(default=1e-4, metadata={"help": "Learning rate of that fine-tuning."})
    num_candidates: int = field(default=100, metadata={"help": "Images per class to judge (m)."})
    mask_share: float = field(default=0.95, metadata={"help": "Share of positive relevance that a mask holds."})
    mask_area: float = field(
        default=0.2, metadata={"help": "Largest share of the image that a mask keeps; it has to cover the shortcut."}
    )
    object_model: str | None = field(
        default=None,
        metadata={
            "help": "For a shortcut that is all but the object (a background): masks are all but what this model, a "
            "classifier with a head of its own such as google/vit-base-patch16-224 or a timm name, sees as the object."
        },
    )
    object_weights: str | None = field(
        default=None, metadata={"help": "Local safetensors weights for a timm name in object_model."}
    )
    object_share: float = field(default=0.8, metadata={"help": "Share of that model's relevance the object holds."})
    decider: Literal["auto", "file", "oracle", "proposal"] = field(
        default="auto",
        metadata={
            "help": "Who decides. auto: the selection file if given, else the oracle. proposal: the evidence alone, "
            "unseen by anybody; the report and the card say so."
        },
    )
    selection: str | None = field(default=None, metadata={"help": "Selection file (JSON) to decide by."})
    num_keep: int = field(default=40, metadata={"help": "Spurious-positive samples per class for the oracle (t)."})
    oracle_threshold: float = field(default=0.15, metadata={"help": "Least share of relevance in the region."})
    lambdas: str | None = field(
        default=None, metadata={"help": "Comma-separated λ to choose from, label-free; overrides score_lambda."}
    )
    cluster_lambdas: str | None = field(
        default=None,
        metadata={"help": "λ of single clusters, as CLUSTER=λ with commas between; the others have score_lambda."},
    )
    controls: bool = field(
        default=False, metadata={"help": "Also run the controls (METHODS of hf_score.pipeline.run)."}
    )
    num_seeds: int = field(default=1, metadata={"help": "Repeat with this many seeds, from --seed on."})
    resume: bool = field(default=False, metadata={"help": "Go on with the run in the output folder."})


class Run:
    """The steps of one run with one seed in one folder.

    Args:
        folder: the run folder.
        arguments: what to run on.
        config: how to fine-tune; its `seed` is the run's.
        data: the loaded data, where the caller has it already.
    """

    def __init__(
        self, folder: str | Path, arguments: RunArguments, config: SCOREConfig, *, data: ImageData | None = None
    ) -> None:
        self.folder = Path(folder)
        self.arguments = arguments
        self.config = config
        self.state = PartialState()
        self._manifest = Manifest(self.folder)
        if data is not None:
            self.data = data

    # ---- What the steps work on ----

    @cached_property
    def data(self) -> ImageData:
        """The data set; its training views carry no groups."""
        a = self.arguments
        return load_data(
            a.dataset,
            data_dir=a.data_dir,
            label_column=a.label_column,
            group_column=a.group_column,
            class_names=a.class_names.split(",") if a.class_names else None,
            held_out=a.held_out,
            masks=a.masks,
            invert_masks=a.invert_masks,
            drop_minority=a.drop_minority,
            strict=a.strict,
        )

    @cached_property
    def processor(self) -> Any:
        """The image processor that goes with the model."""
        return self._start[1]

    @cached_property
    def train_view(self) -> Any:
        return self._view("train")

    @cached_property
    def held_out_view(self) -> Any:
        return self._view("held_out")

    @cached_property
    def test_view(self) -> Any:
        return self._view("test")

    def _view(self, split: str) -> Any:
        """The split preprocessed in memory, or as it is where it would not fit: the collator reads both."""
        dataset = getattr(self.data, split)
        pixel_bytes = ImageCollator(self.processor)([dataset[0]])["pixel_values"].nbytes
        if len(dataset) * pixel_bytes > IN_MEMORY_BYTES:
            return dataset.select_columns(["idx", "image", "label"])
        return preprocess(dataset, self.processor)

    def _pixel_values(self, view: Any, places: Iterable[int]) -> Tensor:
        return ImageCollator(self.processor)([view[int(place)] for place in places])["pixel_values"]

    @cached_property
    def _start(self) -> tuple[PreTrainedModel, Any, bool]:
        a = self.arguments
        set_seed(self.config.seed)
        return load_model(
            a.model,
            class_names=self.data.class_names,
            image_size=a.image_size,
            weights=a.weights,
            from_scratch=a.from_scratch,
            revision=a.revision,
            trust_remote_code=a.trust_remote_code,
        )

    def check(self) -> None:
        """Find out what is wrong with options, data, model or layer before anything is written."""
        self._cluster_weights()
        self._lambdas()
        self.check_parts()
        self._object_finder()
        model, _, _ = self._start
        one = self._pixel_values(self.data.train, [0])
        with Explainer(model) as explainer:  # a function without a rule shows when it runs
            explainer.explain(one, 0, layer=find_layer(model, self.config.score_layer))

    def check_parts(self) -> None:
        """Raise HFScoreError where a part that is in the folder already was made with other options or decisions."""
        models = dict.fromkeys(METHODS, "config.json")
        for part, file in {"erm": "config.json", "candidates": "candidates.json", **models}.items():
            if (self.folder / part / file).is_file():
                self._manifest.check(part, self._inputs_of(part))
        path = self.folder / "selection.json"
        if (
            path.is_file()
            and not self.arguments.selection
            and Selection.load(path).decided_by in ("oracle", "proposal")
        ):
            self._manifest.check(path.name, self._inputs_of(path.name))  # of no account once a person has decided

    def _inputs_of(self, part: str) -> dict[str, Any]:
        """What decides a part of the folder."""

        def options(of: str) -> dict[str, Any]:
            return {name: getattr(self.arguments, name) for name in DECIDE[of]}

        settings = options("erm") | {"seed": self.config.seed}
        if part == "erm":
            return settings
        settings |= options("candidates") | {"score_layer": self.config.score_layer}
        if part == "candidates":
            return settings
        if part == "selection.json":
            return settings | options(part) | {"decider": self._decider}
        settings |= options("model")
        path = Path(self.arguments.selection or self.folder / "selection.json")
        decisions = {"decisions": Selection.load(path).digest} if path.is_file() else {}
        return settings | self.config.described() | decisions

    @property
    def _decider(self) -> str:
        if self.arguments.decider == "auto":
            return "file" if self.arguments.selection else "oracle"
        return self.arguments.decider

    def _record(self, part: str) -> None:
        """Write down what a part was made with: before it is there, lest it be there without."""
        if self.state.is_main_process:
            self._manifest.record(part, self._inputs_of(part))

    # ---- Steps ----

    def erm(self) -> PreTrainedModel:
        """The starting model: as given if it has a head for the task, else fine-tuned first. → `erm/`"""
        folder = self.folder / "erm"
        if not (folder / "config.json").is_file():
            model, _, has_head = self._start
            trainer_folder = self.folder / "checkpoints" / "erm"
            if has_head:
                self._say(f"{self.arguments.model} has a head for these classes: starting from it as it is.")
            else:
                self._say(
                    f"{self.arguments.model} has no head for these classes: fine-tuning it first "
                    f"(ERM, {self.arguments.erm_epochs:g} epochs)."
                )
                trainer = self._trainer(
                    model,
                    folder=trainer_folder,
                    score_lambda=0.0,
                    freeze_batch_norm=False,
                    class_balanced=self.config.class_balanced,
                    num_train_epochs=self.arguments.erm_epochs,
                    max_steps=-1,
                    learning_rate=self.arguments.erm_learning_rate,
                )
                trainer.train(resume_from_checkpoint=self._last_checkpoint(trainer_folder))
                self._write_history("erm", trainer, **_cost(trainer))
            self._record("erm")
            self._save_model(model, folder)
            shutil.rmtree(trainer_folder, ignore_errors=True)
        return self._load(folder)

    def scan(self) -> Candidates:
        """The images that activate each class most, explained and masked. → `candidates/`, `contact_sheets/`"""
        folder = self.folder / "candidates"
        if not (folder / "candidates.json").is_file():
            model = self.erm()
            candidates = find_candidates(
                model,
                self.train_view,
                **self._explaining(),
                num_candidates=self.arguments.num_candidates,
                folder=self.folder / "scan",
                num_workers=self.config.dataloader_num_workers,
            )
            if self.state.is_main_process:
                self._record("candidates")
                self._with_evidence(candidates, model).save(folder)
                shutil.rmtree(self.folder / "scan", ignore_errors=True)
                self._contact_sheets(candidates, None)
            self.state.wait_for_everyone()
        return Candidates.load(folder)

    def _explaining(self) -> dict[str, Any]:
        """How candidates are explained and masked, for `find_candidates` and `explain_hits`."""
        return {
            "dataset_fingerprint": self.data.fingerprint,
            "processor": self.processor,
            "layer": self.config.score_layer,
            "mask_share": self.arguments.mask_share,
            "mask_area": self.arguments.mask_area,
            "find_object": self._object_finder(),
            "batch_size": self.config.per_device_eval_batch_size,
        }

    def _object_finder(self) -> ObjectFinder | None:
        """Loaded anew each time, so that its model takes no memory while another one trains."""
        a = self.arguments
        if a.object_model is None:
            return None
        model, processor, _ = load_model(
            a.object_model, class_names=None, weights=a.object_weights, trust_remote_code=a.trust_remote_code
        )
        model.to(self.config.device)  # type: ignore[arg-type]
        size = self.config.per_device_eval_batch_size
        return ObjectFinder(model, processor, share=a.object_share, batch_size=size)

    def _with_evidence(self, candidates: Candidates, model: PreTrainedModel) -> Candidates:
        """The candidates, with what speaks for a shortcut in them: the order in which a person looks at them."""
        hosts = OtherClassPartners(
            self.held_out_view, self.data.held_out["label"][:], ImageCollator(self.processor), seed=self.config.seed
        )
        evidence = find_evidence(
            candidates,
            model,
            self.train_view,
            hosts,
            processor=self.processor,
            batch_size=self.config.per_device_eval_batch_size,
        )
        return dataclasses.replace(candidates, evidence=evidence)

    def decide(self) -> Selection:
        """Which candidates are spurious-positive. → `selection.json`

        Raises:
            SelectionError: nobody to decide, or nothing was kept.
        """
        path = self.folder / "selection.json"
        candidates = self.scan()
        decider = self._decider
        if path.is_file() and not self.arguments.selection:
            selection = decide_by_file(candidates, path)
            if selection.spurious:
                return selection
        elif decider == "file" and self.arguments.selection:
            selection = decide_by_file(candidates, self.arguments.selection)
        elif decider == "oracle" and self.data.has_regions:
            regions = self.data.regions("train").preprocessed(candidates.idx, self.processor)
            selection = decide_by_oracle(
                candidates, regions, num_keep=self.arguments.num_keep, threshold=self.arguments.oracle_threshold
            )
        elif decider == "proposal":
            assert candidates.suspicion is not None
            selection = decide_by_proposal(
                candidates, candidates.suspicion, num_keep=self.arguments.num_keep, evidence=candidates.evidence
            )
        else:
            raise SelectionError(
                f"nobody has decided yet which candidates are spurious: run 'hf-score review {self.folder}', "
                "then this again with --resume."
            )
        if not selection.spurious:
            raise SelectionError(
                f"none of the {len(candidates)} candidates was kept as spurious-positive: the model may not use the "
                f"shortcut; look at the candidates with 'hf-score review {self.folder}'."
            )
        if self.state.is_main_process:
            if decider != "file":
                self._record("selection.json")
            selection.save(path)
            self._contact_sheets(candidates, selection)
        self.state.wait_for_everyone()
        return selection

    def train(self, method: str = "score") -> PreTrainedModel:
        """Fine-tune the starting model by one of `METHODS`. → `<method>/`"""
        if method == "erm":
            return self.erm()
        folder = self.folder / method
        if not (folder / "config.json").is_file():
            samples = self._samples(method)
            changes: dict[str, Any] = {
                "freeze_batch_norm": self.config.freeze_batch_norm,
                "class_balanced": self.config.class_balanced,
            }
            if method == "continued_erm":
                changes["score_lambda"] = 0.0
            elif method == "swap_only":
                changes["score_lambda"] = 1e-9  # the copies stay, the penalty weighs nothing
            elif method == "random_neurons":
                changes["score_random_neurons"] = True
            chooses = self.arguments.lambdas is not None and "score_lambda" not in changes
            self._say(f"Fine-tuning: {METHODS[method][0]}.")
            best: tuple[float, float, SCORETrainer] | None = None
            estimates: list[tuple[float, float]] = []
            outcome: dict[str, Any] = {}
            for value in self._lambdas() if chooses else [changes.get("score_lambda", self.config.score_lambda)]:
                trainer_folder = self.folder / "checkpoints" / f"{method}-{value:g}"
                fields = {**changes, "score_lambda": value}
                trainer = self._trainer(self.erm(), folder=trainer_folder, samples=samples, **fields)
                trainer.train(resume_from_checkpoint=self._last_checkpoint(trainer_folder))
                for name, spent in _cost(trainer).items():
                    outcome[name] = outcome.get(name, 0.0) + spent
                estimate = 0.0
                if chooses:
                    estimate = trainer.evaluate()["eval_selection"]
                    estimates.append((value, estimate))
                    self._say(f"  λ = {value:g}: label-free estimate {estimate:.3f}")
                if best is None or estimate > best[0]:
                    best = (estimate, value, trainer)
            assert best is not None
            if chooses:
                outcome |= {"score_lambda": best[1], "lambda_estimates": estimates}
            self._write_history(method, best[2], **outcome)
            self._record(method)
            self._save_model(best[2].model, folder)  # type: ignore[arg-type]
            if self.state.is_main_process:
                shutil.rmtree(self.folder / "checkpoints", ignore_errors=True)
        self._manifest.check(method, self._inputs_of(method))  # the decisions may have come since `check_parts`
        return self._load(folder)

    def evaluate(self) -> dict[str, Any]:
        """Metrics of every method trained so far, and what its models look at. → `results.json`"""
        trained = [key for key in METHODS if (self.folder / key / "config.json").is_file()]
        histories = {
            key: json.loads((self.folder / "history" / f"{key}.json").read_text(encoding="utf-8"))
            for key in trained
            if (self.folder / "history" / f"{key}.json").is_file()
        }
        methods = {
            key: {
                "label": METHODS[key][0],
                "supervision": self._supervision(key, METHODS[key][1]),
                "runs": [{"seed": self.config.seed, **self._measure(key), **_outcome(histories.get(key, []))}],
            }
            for key in trained
        }
        config = to_jsonable({**asdict(self.arguments), **self.config.described()})
        if self.arguments.lambdas:
            del config["score_lambda"]  # each run says which one was chosen
        model = self._start[0]
        data = self.data
        benchmark = find_dataset(data.name)
        results = {
            **provenance(),
            "model": {
                "name": self.arguments.model,
                "base_model": base_model_id(
                    self.arguments.model, weights=self.arguments.weights, from_scratch=self.arguments.from_scratch
                ),
                **describe_model(model),
                "layer": find_layer(model, self.config.score_layer).name,
                "image_size": int(self._pixel_values(self.test_view, [0]).shape[-1]),
            },
            "dataset": {
                "name": data.name,
                "fingerprint": data.fingerprint,
                "class_names": data.class_names,
                "group_names": data.group_names,
                "train_group_counts": data.train_group_counts,
                "licence": data.licence,
                "source": data.source,
                "description": f"{benchmark.description}." if benchmark else None,
                "citation": getattr(benchmark, "citation", None),
                "counts": {split: len(getattr(data, split)) for split in ("train", "held_out", "test")},
            },
            "config": config,
            "seeds": [self.config.seed],
            "selection": self._selection_summary(),
            "methods": methods,
            "history": histories,
        }
        self._record("results.json")
        if self.state.is_main_process:
            write_json(self.folder / "results.json", results)
            shutil.rmtree(self.folder / "checkpoints", ignore_errors=True)
        self.state.wait_for_everyone()
        return results

    def report(self, results: dict[str, Any] | None = None) -> Path:
        """Pictures and tables in one page that needs nothing else. → `report/index.html`"""
        if results is None:
            self._manifest.check("results.json", self._inputs_of("results.json"))
            results = json.loads((self.folder / "results.json").read_text(encoding="utf-8"))
        figures: dict[str, tuple[Any, str]] = {}
        sheets = self.folder / "contact_sheets"
        if "score" in results["methods"] and self._explained.shown:
            models = (self._load(self.folder / method) for method in ("erm", "score"))
            picture = self._explained.before_and_after(*models)
            figures["heatmaps"] = (picture, "Heatmaps of the class logit before and after SCORE.")
        if data_has_groups(results):
            figures["group_bars"] = (group_bars(results), "Accuracy per group of the test set, by method.")
        for sheet in sorted(sheets.glob("*.png")):
            with Image.open(sheet) as image:
                figures[f"contact_sheet/{sheet.stem}"] = (image.copy(), f"Candidates of class {sheet.stem}.")
        if results["history"]:
            labels = {key: method["label"] for key, method in results["methods"].items()}
            figures["training_curves"] = (
                training_curves(results["history"], labels=labels),
                "Loss, penalty, held-out accuracy and reliance over the optimizer steps.",
            )
        page = write_report(self.folder / "report", results, figures)
        if "heatmaps" in figures:
            write_bytes(page.parent / "heatmaps.png", png_bytes(figures["heatmaps"][0]))  # for the card
        return page

    # ---- Pieces ----

    def _samples(self, method: str) -> SpuriousSamples:
        candidates, selection = self.scan(), self.decide()
        if method != "random_samples":
            samples = candidates.samples(
                selection, self.train_view, processor=self.processor, cluster_weights=self._cluster_weights()
            )
            return samples.move_masks(seed=self.config.seed) if method == "random_regions" else samples
        generator = np.random.default_rng(self.config.seed)
        labels, ids = np.asarray(self.data.train["label"]), np.asarray(self.data.train["idx"])
        hits = []
        for label in {decision.label for decision in selection.spurious}:
            size = sum(decision.label == label for decision in selection.spurious)
            members = np.flatnonzero(labels == label)
            for position in generator.choice(members, size=min(size, len(members)), replace=False):
                hits.append(ScanHit(math.nan, int(position), int(ids[position]), label))
        drawn = explain_hits(self.erm(), self.train_view, hits, **self._explaining())
        return drawn.samples(decide_at_random(drawn), self.train_view, processor=self.processor)

    def _cluster_weights(self) -> dict[int, float]:
        """Cluster → its λ as a multiple of `score_lambda`."""
        text = self.arguments.cluster_lambdas
        if text and self.arguments.lambdas:
            raise HFScoreError(
                "cluster_lambdas fixes what lambdas would choose: give it with score_lambda, or give lambdas alone."
            )
        try:
            pairs = [part.split("=") for part in text.split(",")] if text else []
            weights = {int(cluster): float(value) / self.config.score_lambda for cluster, value in pairs}
            if any(not 0 <= weight < math.inf for weight in weights.values()):
                raise ValueError
        except (ValueError, ZeroDivisionError):
            raise HFScoreError(
                f"cluster_lambdas is {text!r}: give a cluster and its λ such as 3=1.0,5=10, with score_lambda above 0."
            ) from None
        return weights

    def _lambdas(self) -> list[float]:
        """The λ to try."""
        text = self.arguments.lambdas
        try:
            lambdas = [float(value) for value in text.split(",")] if text else [self.config.score_lambda]
            if text and not all(0 < value < math.inf for value in lambdas):
                raise ValueError
        except ValueError:
            raise HFScoreError(f"lambdas is {text!r}: give numbers above 0 such as 1,3,10.") from None
        return lambdas

    def _trainer(
        self, model: PreTrainedModel, *, folder: Path, samples: SpuriousSamples | None = None, **changes: Any
    ) -> SCORETrainer:
        config = dataclasses.replace(self.config, output_dir=str(folder), push_to_hub=False, **changes)
        return SCORETrainer(
            model=model,
            args=config,
            train_dataset=self.train_view,
            eval_dataset=self.held_out_view,
            spurious_samples=samples,
            processing_class=self.processor,
        )

    def _measure(self, method: str) -> dict[str, Any]:
        model = self._load(self.folder / method)
        trainer = self._trainer(model, folder=self.folder / "checkpoints" / "eval", score_lambda=0.0)
        logits = trainer.predict(self.test_view).predictions
        logits = logits[0] if isinstance(logits, tuple) else logits
        labels = np.asarray(self.data.test["label"])
        measured: dict[str, Any]
        if "group" in self.data.test.column_names:
            measured = group_metrics(
                logits.argmax(-1),
                labels,
                np.asarray(self.data.test["group"]),
                group_names=self.data.group_names,
                train_group_counts=self.data.train_group_counts,
            )
        else:
            measured = {"accuracy": float((logits.argmax(-1) == labels).mean())}
        # Without regions nobody needs to have decided yet.
        share = self._explained.relevance_in_region(model) if self.data.has_regions else None
        digest = checkpoint_digest(self.folder / method)
        return {"metrics": measured, "relevance_in_region": share, "weights_sha256": digest}

    @cached_property
    def _explained(self) -> ExplainedTestSet:
        return ExplainedTestSet(
            self.data,
            self.test_view,
            self.processor,
            spurious_classes=[decision.label for decision in self.decide().spurious],
            device=self.config.device,
            batch_size=self.config.per_device_eval_batch_size,
        )

    def _contact_sheets(self, candidates: Candidates, selection: Selection | None) -> None:
        verdicts = {d.idx: d.verdict for d in selection.decisions} if selection else {}
        with atomic_folder(self.folder / "contact_sheets") as folder:
            for label in np.unique(candidates.labels):
                part = candidates.take(np.flatnonzero(candidates.labels == label))
                pixel_values = self._pixel_values(self.train_view, part.position)
                sheet = contact_sheet(
                    to_uint8(pixel_values, self.processor),
                    part.heatmaps,
                    part.masks,
                    captions=[f"#{i}  logit {logit:.1f}" for i, logit in zip(part.idx, part.logits, strict=True)],
                    kept=[verdicts.get(int(idx)) == "spurious" for idx in part.idx] if selection else None,
                    title=f"{self.data.class_names[label]}: original, masked, heatmap",
                )
                sheet.save(folder / f"{_slug(self.data.class_names[label])}.png")

    def _selection_summary(self) -> dict[str, Any] | None:
        if not (self.folder / "selection.json").is_file():
            return None
        selection = Selection.load(self.folder / "selection.json")
        labels = Candidates.load(self.folder / "candidates").labels
        return {
            "decided_by": selection.decided_by,
            "classes": selection.counts(self.data.class_names),
            "candidates": {name: int((labels == k).sum()) for k, name in enumerate(self.data.class_names)},
        }

    def _supervision(self, method: str, supervision: str) -> str:
        by = (self._selection_summary() or {}).get("decided_by", "")
        return supervision.replace("decisions", f"{by} decisions") if method != "erm" else supervision

    def _write_history(self, method: str, trainer: SCORETrainer, **outcome: Any) -> None:
        """The curves of a training, and in the last row what else is known of it."""
        if self.state.is_main_process:
            names = {"eval_accuracy": "held_out_accuracy", "eval_reliance": "reliance"}
            keys = ("loss", "penalty", "eval_accuracy", "eval_reliance")
            rows = [
                {"step": entry["step"], **{names.get(k, k): entry[k] for k in keys if k in entry}}
                for entry in trainer.state.log_history
            ]
            last = {"step": trainer.state.global_step, **outcome}
            write_json(self.folder / "history" / f"{method}.json", [row for row in [*rows, last] if len(row) > 1])

    def _save_model(self, model: PreTrainedModel, folder: Path) -> None:
        if self.state.is_main_process:
            with atomic_folder(folder) as temporary:
                model.save_pretrained(temporary, state_dict=checkpoint_state(model))
                self.processor.save_pretrained(temporary)
        self.state.wait_for_everyone()

    def _load(self, folder: Path) -> PreTrainedModel:
        return AutoModelForImageClassification.from_pretrained(folder).to(self.config.device)  # type: ignore[arg-type]

    def _last_checkpoint(self, folder: Path) -> str | None:
        from transformers.trainer_utils import get_last_checkpoint

        return get_last_checkpoint(str(folder)) if self.arguments.resume and folder.is_dir() else None

    def _say(self, message: str) -> None:
        if self.state.is_main_process:
            print(message, flush=True)


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
    folder = Path(config.output_dir or "score-run")
    if config.eval_strategy == "no":
        # The report shows held-out accuracy per epoch, and curves of loss and penalty.
        config = dataclasses.replace(config, eval_strategy="epoch", logging_steps=min(config.logging_steps, 10))
    config.device  # noqa: B018  starts torch.distributed where there are several processes
    _check_folder(folder, arguments)
    seeds = [config.seed + n for n in range(arguments.num_seeds)]
    if arguments.selection and arguments.num_seeds > 1:
        raise SelectionError("a selection file is about one model's candidates: use it with num_seeds=1.")
    configs = [dataclasses.replace(config, seed=seed) for seed in seeds]

    def of_seed(config: SCOREConfig, **given: Any) -> Run:
        return Run(folder if len(seeds) == 1 else folder / f"seed-{config.seed}", arguments, config, **given)

    first = of_seed(configs[0])
    first.check()
    for seed_config in configs[1:]:
        of_seed(seed_config).check_parts()
    first.state.wait_for_everyone()
    if first.state.is_main_process:
        write_json(folder / "run.json", to_jsonable({**asdict(arguments), **config.described()}))
    methods = [m for m in METHODS if m != "random_neurons" or config.score_penalised != "difference"]
    if not arguments.controls:
        methods = ["erm", "score"]
    results: dict[str, Any] = {}
    for seed_config in configs:
        one = first
        if seed_config is not configs[0]:
            one = of_seed(seed_config, data=first.data)
            for view in ("train_view", "held_out_view", "test_view"):
                setattr(one, view, getattr(first, view))
        if len(seeds) > 1:
            one._say(f"\nSeed {seed_config.seed}")
        one.decide()
        for method in methods:
            one.train(method)
        results = _merge(results, one.evaluate())
    if first.state.is_main_process:
        write_json(folder / "results.json", results)
        page = first.report(results)
        if first.folder != folder:
            shutil.copytree(page.parent, folder / "report", dirs_exist_ok=True)
            page = folder / "report" / page.name
        with atomic_folder(folder / "model") as temporary:
            shutil.copytree(first.folder / "score", temporary, dirs_exist_ok=True)
            name = f"{Path(arguments.model).name}-{Path(first.data.name).name}-score"
            card = render_model_card(results, model_name=name)
            write_text(temporary / "README.md", card)
        print(f"\n{render_table(results)}\n\nmodel:   {folder / 'model'}\nreport:  {page}", flush=True)
        if config.push_to_hub:
            from ..publishing.push import push_run  # needs the network; nothing else here does

            print(f"pushed:  {push_run(folder, config.hub_model_id or folder.name, private=config.hub_private_repo)}")
    first.state.wait_for_everyone()
    return results


def data_has_groups(results: dict[str, Any]) -> bool:
    """Whether the runs were evaluated by group."""
    return any("group_accuracy" in r["metrics"] for m in results["methods"].values() for r in m["runs"])


def _check_folder(folder: Path, arguments: RunArguments) -> None:
    if folder.is_dir() and any(folder.iterdir()) and not arguments.resume:
        raise HFScoreError(
            f"the output folder {folder} is not empty: give another --output_dir, or --resume this run."
        )
    if arguments.resume and (folder / "run.json").is_file():
        before = json.loads((folder / "run.json").read_text(encoding="utf-8")).get("num_seeds")
        if before != arguments.num_seeds:  # they lie in other folders
            raise HFScoreError(
                f"the run in {folder} has num_seeds {before}, not {arguments.num_seeds}: resume with as many, or give "
                "another --output_dir."
            )


def _merge(results: dict[str, Any], more: dict[str, Any]) -> dict[str, Any]:
    """Add the runs of another seed to the results."""
    if not results:
        return more
    for key, method in more["methods"].items():
        results["methods"][key]["runs"] += method["runs"]
    results["seeds"] = results["seeds"] + more["seeds"]
    return results


def _cost(trainer: SCORETrainer) -> dict[str, float]:
    """Seconds of training, and kg of CO₂ equivalents where codecarbon measured them (`--report_to codecarbon`)."""
    runtimes = [row["train_runtime"] for row in trainer.state.log_history if "train_runtime" in row]
    cost = {"train_seconds": sum(runtimes)} if runtimes else {}
    emissions = Path(trainer.args.output_dir or ".") / "emissions.csv"
    if emissions.is_file():
        with emissions.open(encoding="utf-8", newline="") as file:
            cost["emissions_kg"] = sum(float(row["emissions"]) for row in csv.DictReader(file))
    return cost


def _outcome(history: list[dict[str, Any]]) -> dict[str, Any]:
    """What is known of a training beside its curves."""
    names = ("train_seconds", "emissions_kg", "score_lambda", "lambda_estimates")
    return {name: row[name] for row in history for name in names if name in row}


def _slug(name: str) -> str:
    return "".join(c if c.isalnum() else "-" for c in name.lower()).strip("-") or "class"
