"""`RunArguments`: what to run SCORE on. How to fine-tune is `SCOREConfig`'s.

Options come from the command line, from a file (`--config`), or from the run folder, whose `run.yaml` is such a file.
"""

from __future__ import annotations

import argparse
import difflib
import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from enum import Enum
from pathlib import Path
from typing import Any, Literal

from transformers import HfArgumentParser

from ..data.classes import clean_name, parse_class_names
from ..errors import HFScoreError
from ..files import as_type, read_yaml
from ..renamed import in_new_words
from ..report import FORMS
from ..training import SCOREConfig

__all__ = ["OPTIONS_FILE", "RunArguments", "given_options", "parse_arguments", "read_options"]

#: Holds a run's options in its folder.
OPTIONS_FILE = "run.yaml"
#: Options that are not written there: where the file lies says where the run is.
_NOT_KEPT = ("output_dir", "resume", "quiet", "verbose")


@dataclass
class RunArguments:
    """What to run SCORE on. How to fine-tune is [`SCOREConfig`]'s.

    Raises:
        HFScoreError: λ that are no numbers above 0, or that do not go together.
    """

    model: str = field(metadata={"help": "Hub id, local folder, or timm name."})
    dataset: str = field(metadata={"help": "Hub id, local imagefolder with metadata.csv, or registered data set."})
    data_dir: str | None = field(
        default=None, metadata={"help": "A registered data set's raw folder, or what `hf-score build` made of it."}
    )
    label: str | None = field(
        default=None, metadata={"help": "The output of a multi-label model to look at, by name or number."}
    )
    weights: str | None = field(default=None, metadata={"help": "Local .safetensors or .pth weights for a timm name."})
    from_scratch: bool = field(default=False, metadata={"help": "Start a timm model from random weights."})
    image_size: int | None = field(default=None, metadata={"help": "Input size in pixels. Default: the model's."})
    revision: str | None = field(default=None, metadata={"help": "Revision of the model on the Hub."})
    trust_remote_code: bool = field(default=False, metadata={"help": "Run code that comes with a Hub model."})
    label_column: str | None = field(default=None, metadata={"help": "Column of the class labels. Default: label."})
    group_column: str | None = field(default=None, metadata={"help": "Column of the groups, for evaluation only."})
    test_share: float = field(
        default=0.2, metadata={"help": "Share of the images kept for testing, where there is no test split."}
    )
    split_by: str | None = field(
        default=None, metadata={"help": "Column whose values, such as patients, stay on one side of that split."}
    )
    config_name: str | None = field(default=None, metadata={"help": "Configuration of a data set on the Hub."})
    masks: str | None = field(
        default=None, metadata={"help": "Folder, pattern or column of masks of the spurious region."}
    )
    invert_masks: bool = field(default=False, metadata={"help": "The masks mark the object, not the shortcut."})
    value_range: list[float] | None = field(
        default=None,
        metadata={"help": "Values that are black and white in images of more than 8 bits: -160 240 for CT."},
    )
    drop_minority: bool = field(default=False, metadata={"help": "Drop training rows with minority = 1."})
    strict: bool = field(default=False, metadata={"help": "Stop at a training image that cannot be read."})
    class_names: list[str] | None = field(default=None, metadata={"help": "Names of the classes 0, 1, ..."})
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
            "help": "For a shortcut that is everything except the object (a background): masks leave out what this "
            "model, a classifier with a head of its own such as google/vit-base-patch16-224 or a timm name, sees as "
            "the object."
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
    lambdas: list[float] | None = field(
        default=None, metadata={"help": "Several λ to choose from, label-free; overrides score_lambda."}
    )
    score_forms: list[str] | None = field(
        default=None,
        metadata={"help": "Several forms to choose from, label-free: paper exchange both; overrides score_form."},
    )
    cluster_lambdas: list[str] | None = field(
        default=None, metadata={"help": "λ of single clusters, as CLUSTER=λ; the others have score_lambda."}
    )
    controls: bool = field(default=False, metadata={"help": "Also run the controls, to see what makes the change."})
    num_seeds: int = field(default=1, metadata={"help": "Repeat with this many seeds, from --seed on."})
    resume: bool = field(default=False, metadata={"help": "Go on with the run in the output folder."})
    quiet: bool = field(default=False, metadata={"help": "Say nothing but warnings and what came out."})
    verbose: bool = field(default=False, metadata={"help": "Show what the libraries say too, and every logged row."})

    def __post_init__(self) -> None:
        for name, fits, needed in _RANGES:
            if not fits(value := getattr(self, name)):
                raise HFScoreError(f"{name} is {value}: give {needed}.")
        self.class_names, self.cluster_lambdas = _names(self.class_names), _names(self.cluster_lambdas)
        if self.lambdas is not None:
            self.lambdas = _numbers(self.lambdas)
        if self.score_forms is not None:
            self.score_forms = _names(self.score_forms)
            if unknown := [form for form in self.score_forms or [""] if form not in FORMS]:
                raise HFScoreError(f"score_forms has {unknown[0]!r}: give some of {', '.join(FORMS)}.")
            if self.controls:
                raise HFScoreError("controls are of one form: give --score_form, or leave --controls off.")
        if self.cluster_lambdas and self.lambdas:
            raise HFScoreError(
                "cluster_lambdas fixes what lambdas would choose: give it with score_lambda, or give lambdas alone."
            )

    @property
    def decided_by(self) -> str:
        """`decider` with `auto` resolved."""
        if self.decider == "auto":
            return "file" if self.selection else "oracle"
        return self.decider

    def cluster_weights(self, score_lambda: float) -> dict[int, float]:
        """Cluster → its λ as a multiple of `score_lambda`.

        Raises:
            HFScoreError: not a cluster and a number.
        """
        try:
            pairs = [part.split("=") for part in self.cluster_lambdas or ()]
            weights = {int(cluster): float(value) / score_lambda for cluster, value in pairs}
            if any(not 0 <= weight < math.inf for weight in weights.values()):
                raise ValueError
        except (ValueError, ZeroDivisionError):
            raise HFScoreError(
                f"cluster_lambdas is {' '.join(self.cluster_lambdas or ())!r}: give a cluster and its λ such as 3=1.0 "
                "5=10, with score_lambda above 0."
            ) from None
        return weights


#: Option → what it has to be, in code and in words.
_RANGES: tuple[tuple[str, Callable[[Any], bool], str], ...] = (
    ("image_size", lambda size: size is None or size >= 1, "a number of pixels"),
    ("held_out", lambda share: 0 < share < 1, "a share above 0 and below 1"),
    ("test_share", lambda share: 0 < share < 1, "a share above 0 and below 1"),
    ("erm_epochs", lambda epochs: 0 < epochs < math.inf, "a number above 0"),
    ("erm_learning_rate", lambda rate: 0 < rate < math.inf, "a number above 0"),
    ("num_candidates", lambda number: number >= 1, "a number of at least 1"),
    ("mask_share", lambda share: 0 < share <= 1, "a share above 0 and at most 1"),
    ("mask_area", lambda share: 0 < share <= 1, "a share above 0 and at most 1"),
    ("object_share", lambda share: 0 < share <= 1, "a share above 0 and at most 1"),
    ("num_keep", lambda number: number >= 1, "a number of at least 1"),
    ("oracle_threshold", lambda share: 0 <= share <= 1, "a share from 0 to 1"),
    ("num_seeds", lambda number: number >= 1, "a number of at least 1"),
)


def parse_arguments(words: Sequence[str], *, prog: str | None = None) -> tuple[RunArguments, SCOREConfig]:
    """The command line's words as arguments and configuration.

    Args:
        words: without the program's name. A run folder in the first place, or right after `--resume`, goes on with the
            run there, with its options; `--config FILE` takes options from a file. What stands beside overrides them.
            `--help-all` prints all options and exits.
        prog: what help and errors call the program.

    Raises:
        HFScoreError: a value or a combination that is refused, or a file of options that cannot be read.
    """
    parser = HfArgumentParser([RunArguments, SCOREConfig], prog=prog, allow_abbrev=False)  # type: ignore[list-item]
    parser.add_argument("--help-all", action="help", help=argparse.SUPPRESS)
    parser.add_argument(
        "--config", metavar="FILE.yaml", default=argparse.SUPPRESS, help="Take options from this file."
    )
    try:
        split = _apart(in_new_words(_with_options_of_files(list(words))))
        arguments, config, rest = parser.parse_args_into_dataclasses(
            split, return_remaining_strings=True, look_for_args_file=False
        )
    except ValueError as error:  # TrainingArguments refuses combinations of its own
        raise error if isinstance(error, HFScoreError) else HFScoreError(str(error)) from error
    if rest:
        option = rest[0].partition("=")[0]
        if not option.startswith("-"):
            raise HFScoreError(f"{option!r} belongs to no option: a run folder stands before all options.")
        near = difflib.get_close_matches(option, parser._option_string_actions, n=1)
        hint = f"did you mean {near[0]!r}?" if near else "--help-all has all options."
        raise HFScoreError(f"there is no option {option!r}: {hint}")
    return arguments, config  # type: ignore[return-value]


def given_options(arguments: RunArguments, config: SCOREConfig) -> dict[str, Any]:
    """The options that differ from their defaults, as `run.yaml` keeps them."""
    plain = SCOREConfig(config.output_dir, use_cpu=config.use_cpu, disable_tqdm=False)  # which the machine decides
    pairs: tuple[tuple[Any, Any], ...] = ((arguments, RunArguments(model="", dataset="")), (config, plain))
    found = {
        f.name: getattr(given, f.name)
        for given, default in pairs
        for f in fields(default)
        if f.init and f.name not in _NOT_KEPT and getattr(given, f.name) != getattr(default, f.name)
    }
    if config.use_cpu:
        found["use_cpu"] = True
    return {name: value.value if isinstance(value, Enum) else value for name, value in found.items()}


def read_options(path: Path) -> dict[str, Any]:
    """Option → value, from a file of options.

    Raises:
        HFScoreError: it is not there, or holds anything else.
    """
    advice = "give lines such as 'model: resnet18'"
    options = read_yaml(path, object, what="file of options", advice=advice)
    return as_type(options or {}, dict[str, Any], where=f"{path} holds no options", advice=advice)


def _with_options_of_files(words: list[str]) -> list[str]:
    """The words with the options of the run folder and of `--config` in front, where later ones override them."""
    found: list[str] = []
    for place in (0, *(i + 1 for i, word in enumerate(words) if word == "--resume")):
        if place < len(words) and not words[place].startswith("-") and not _is_truth(words[place]):
            folder = Path(words.pop(place))
            path = folder / OPTIONS_FILE
            if not path.is_file():
                raise HFScoreError(
                    f"{folder} has no {OPTIONS_FILE} with the options of a run: give them, with --output_dir {folder}."
                )
            options = read_options(path)
            if (folder / "selection.json").is_file():
                options.pop("selection", None)  # has decided; what a person judged since then counts
            found += [*_as_words(options), f"--output_dir={folder}", "--resume=true"]
            break
    for place, word in enumerate(words):
        option, equals, value = word.partition("=")
        if option == "--config":
            if not equals and place + 1 == len(words):
                raise HFScoreError("--config has no file: give one.")
            path = Path(value if equals else words[place + 1])
            del words[place : place + (1 if equals else 2)]
            return [*found, *_as_words(read_options(path)), *words]
    return [*found, *words]


def _is_truth(word: str) -> bool:
    return word.lower() in ("true", "false", "yes", "no", "t", "f", "y", "n", "0", "1")


def _as_words(options: Mapping[str, Any]) -> list[str]:
    words: list[str] = []
    for name, value in options.items():
        if isinstance(value, list):
            words += [f"--{name}", *map(str, value)]
        elif value is not None:
            text = json.dumps(value) if isinstance(value, bool | dict) else str(value)
            words.append(f"--{name}={text}")
    return words


def _apart(words: Sequence[str]) -> list[str]:
    """`--lambdas 1,3,10` is `--lambdas 1 3 10`; forms likewise."""
    split: list[str] = []
    for word in words:
        several = len(split) > 0 and split[-1] in ("--lambdas", "--score_forms") and "," in word
        split += [part for part in word.split(",") if part] if several else [word]
    return split


def _names(values: Sequence[str] | str | None) -> list[str] | None:
    """One text with commas between, or several texts: as a list."""
    if values is None:
        return None
    texts = [values] if isinstance(values, str) else list(values)
    return parse_class_names(texts[0]) if len(texts) == 1 else [clean_name(text) for text in texts]


def _numbers(values: Sequence[float] | str) -> list[float]:
    parts: Sequence[float | str] = values.split(",") if isinstance(values, str) else values
    try:
        numbers = [float(part) for part in parts]
        if not numbers or not all(0 < number < math.inf for number in numbers):
            raise ValueError
    except ValueError:
        told = values if isinstance(values, str) else " ".join(f"{part:g}" for part in values)
        raise HFScoreError(f"lambdas is {told!r}: give numbers above 0 such as 1 3 10.") from None
    return numbers
