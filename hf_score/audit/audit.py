"""An audit: scan, regions beside their null, and planted probes on test images. No training, no group label."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from datasets import Dataset
from PIL import Image
from scipy.optimize import linear_sum_assignment
from tqdm.auto import tqdm

from ..data import ImageCollator, ImageData, preprocess
from ..data.exchange import OtherClassPartners
from ..detection import Candidates, find_candidates
from ..detection.evidence import hue_contrast
from ..errors import DataError, ModelError
from ..evaluation.intervals import means_of_clusters, share
from ..models import check_model, describe_model
from ..pipeline import Workspace
from ..provenance import provenance
from .chance import LEVEL, expected_wrong
from .flips import LEAST_FLIPS, LEAST_PRESENCE, Flips, exchange_flips, probe_findings, probe_flips, probe_presence
from .pictures import probe_strip
from .probes import PROBES
from .regions import LEAST_OVERRULED, cluster_findings, region_pairs

__all__ = ["AUDIT_SCHEMA", "Audit", "AuditOptions", "audit"]

AUDIT_SCHEMA = "hf-score/audit/1"
#: Forward passes that explaining and masking an image is worth.
_PASSES_TO_EXPLAIN = 8
#: Test images to put regions into, at most.
_PARTNERS = 1000
#: Images of which the interval of a share says something.
_FEWEST = 10
#: Where so large a share of flips may have been missed, nothing is said to be absent.
_TOO_MUCH = 0.5


@dataclass(frozen=True)
class AuditOptions:
    """How much is looked at.

    Attributes:
        num_candidates: training images per class that are explained.
        most_classes: classes that are looked at, those with the most training images.
        most_images: training images that are scanned.
        num_probed: test images that probes are put into.
        seed: of all that is drawn.
    """

    num_candidates: int = 40
    most_classes: int = 8
    most_images: int = 1500
    num_probed: int = 96
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("num_candidates", "most_classes", "most_images", "num_probed"):
            if getattr(self, name) < (least := 2 if name == "most_classes" else 1):
                raise DataError(f"{name} is {getattr(self, name)}: give a number of at least {least}.")


@dataclass(frozen=True)
class Audit:
    """What an audit has found.

    Attributes:
        content: of `audit.json`.
        candidates: the scanned images that were explained, with their clusters.
        probes: a test image with each probe.
    """

    content: dict[str, Any]
    candidates: Candidates
    probes: Image.Image


def audit(
    workspace: Workspace,
    options: AuditOptions | None = None,
    *,
    model_name: str = "",
    say: Callable[[str], None] = print,
) -> Audit:
    """Look for shortcuts in a trained classifier. Long because it is the list of what is looked at.

    Args:
        workspace: data and model.
        options: how much is looked at.
        model_name: what to call the model.
        say: told how long it will take, and what is being done.

    Raises:
        ModelError: the model has no head for the classes, or has them in another order.
        DataError: a class is alone, among the classes that are looked at, in the test images.
    """
    options, began = options or AuditOptions(), time.monotonic()
    data, model, processor = workspace.data, workspace.loaded.model, workspace.processor
    if not workspace.loaded.has_head:
        raise ModelError(
            "The model has no head for these classes, so there is nothing it could have learned: give a trained "
            "classifier of them, or run 'hf-score run', which trains one first."
        )
    check_model(model, processor, data.train, data.class_names)
    model.to(workspace.device)  # type: ignore[arg-type]
    generator = np.random.default_rng(options.seed)
    counts = np.bincount(data.train["label"][:], minlength=len(data.class_names))
    classes = sorted(np.argsort(-counts, kind="stable")[: options.most_classes].tolist())
    train = _some(data.train, classes, options.most_images, generator)
    # Of the test split, since whoever trained the model may have trained on all others; its groups stay unread.
    test = data.test.select_columns(["idx", "image", "label"])
    probed_rows, host_rows = (_rows(test, classes, most, generator) for most in (options.num_probed, _PARTNERS))
    if len({test[int(row)]["label"] for row in host_rows}) < 2:
        raise DataError(
            f"The test images of '{data.name}' are of one class, and what regions and marks do is seen in images of "
            "other classes: give test images of two classes or more."
        )
    about: dict[str, Any] = {"device": workspace.device, "batch_size": workspace.batch_size}
    checked = preprocess(_some(train, classes, options.num_probed, generator), processor)
    logits, seconds = _timed(model, checked.pixel_values, **about)
    _refuse_swapped_classes(logits, checked.labels.numpy(), data.class_names)
    probed = preprocess(test.select(probed_rows), processor)
    labels = probed.labels.numpy()
    passes = _passes(len(train), len(classes), len(probed), options)
    say(f"About {max(1, round(passes * seconds / 60))} min: {passes} images through the model, without training it.")

    with tqdm(total=passes, desc="Audit", unit="image", leave=False) as bar:
        candidates = find_candidates(
            model,
            train,
            dataset_fingerprint=data.fingerprint,
            processor=processor,
            num_candidates=options.num_candidates,
            batch_size=workspace.batch_size,
        )
        bar.update(len(train) + _PASSES_TO_EXPLAIN * len(candidates))
        hosts = test.select(host_rows)
        partners = OtherClassPartners(hosts, hosts["label"][:], ImageCollator(processor), seed=options.seed)
        pairs = region_pairs(
            candidates,
            model,
            train,
            partners,
            processor=processor,
            batch_size=workspace.batch_size,
            seed=options.seed,
            progress=bar.update,
        )
        evidence = {
            "gain": means_of_clusters(pairs.gain, pairs.candidate),
            "hue_contrast": hue_contrast(candidates, train, processor=processor),
        }
        candidates = dataclasses.replace(candidates, evidence=evidence)
        flips = probe_flips(
            model,
            probed.pixel_values,
            labels,
            processor=processor,
            seed=options.seed,
            progress=bar.update,
            **about,
        )
    exchanged = _exchanged(workspace, probed, labels, partners)
    flips += [exchanged] if exchanged is not None else []
    clusters = cluster_findings(candidates, pairs)
    probes = probe_findings(
        flips,
        classes,
        data.class_names,
        presence=probe_presence(checked.pixel_values, processor=processor),
        train_labels=checked.labels.numpy(),
    )
    content = {
        **provenance(),
        "schema": AUDIT_SCHEMA,
        "model": {"name": model_name, **describe_model(model), "image_size": int(probed.pixel_values.shape[-1])},
        "dataset": {"name": data.name, "fingerprint": data.fingerprint, "class_names": list(data.class_names)},
        "options": dataclasses.asdict(options),
        "thresholds": {"rate": LEVEL, "flips": LEAST_FLIPS, "presence": LEAST_PRESENCE, "overruled": LEAST_OVERRULED},
        "accuracy": share(flips[0].plain == labels).described(),
        "clusters": clusters,
        "probes": probes,
        "summary": _summary(clusters, probes, len(flips)),
        "not_looked_at": _not_looked_at(data, train, classes, exchanged is not None),
        "seconds": round(time.monotonic() - began, 1),
    }
    return Audit(content, candidates, probe_strip(probed.pixel_values[:1], processor, seed=options.seed))


# ---- What is looked at ----


def _rows(rows: Dataset, classes: list[int], most: int, generator: np.random.Generator) -> np.ndarray:
    """Positions of at most `most` images of these classes, of every class as many, where there are."""
    labels = np.asarray(rows["label"][:])
    each = -(-most // len(classes))
    chosen = [generator.permutation(np.flatnonzero(labels == label))[:each] for label in classes]
    return np.sort(np.concatenate(chosen))


def _some(rows: Dataset, classes: list[int], most: int, generator: np.random.Generator) -> Dataset:
    return rows.select(_rows(rows, classes, most, generator))


def _passes(scanned: int, classes: int, probed: int, options: AuditOptions) -> int:
    """Images that go through the model: in the scan, to explain, with regions, and with probes."""
    explained = min(scanned, classes * options.num_candidates)
    in_pairs = 6 * explained * min(6, max(2, 256 // max(1, explained)))
    return scanned + _PASSES_TO_EXPLAIN * explained + in_pairs + probed * (1 + 2 * len(PROBES))


def _timed(
    model: Any, pixel_values: torch.Tensor, *, device: torch.device | str, batch_size: int
) -> tuple[np.ndarray, float]:
    """The logits (n, K), and seconds for an image."""
    parts, began = [], time.monotonic()
    with torch.no_grad():
        for some in pixel_values.split(batch_size):
            parts.append(model(pixel_values=some.to(device)).logits.float().cpu())
    return torch.cat(parts).numpy(), (time.monotonic() - began) / len(pixel_values)


def _exchanged(workspace: Workspace, probed: Any, labels: np.ndarray, partners: OtherClassPartners) -> Flips | None:
    """What exchanging the known regions does; None where no test image has one."""
    regions = workspace.regions("test", probed.idx.tolist())
    known = [row for row, region in enumerate(regions) if region is not None]
    if len(known) < 2:
        return None
    masks = torch.from_numpy(np.stack([regions[row] > 0.5 for row in known]))  # type: ignore[operator]
    images = probed.pixel_values[known]
    about: dict[str, Any] = {"device": workspace.device, "batch_size": workspace.batch_size}
    return exchange_flips(workspace.loaded.model, images, labels[known], masks, partners, **about)


# ---- What is refused and said ----


def _refuse_swapped_classes(logits: np.ndarray, labels: np.ndarray, class_names: list[str]) -> None:
    """Raise where training images are answered worse than by chance, and much better in another order of the classes.

    Of training images: a model with a shortcut may be below chance on test images that lack it.
    """
    accuracy = share(logits.argmax(1) == labels)
    confusion = np.zeros((logits.shape[1],) * 2)
    np.add.at(confusion, (logits.argmax(1), labels), 1)
    answers, order = linear_sum_assignment(-confusion)
    best = float(confusion[answers, order].sum()) / len(labels)
    if accuracy.high < 1 / len(np.unique(labels)) and best > accuracy.value + 0.2:
        names = ", ".join(f"'{class_names[label]}'" for label in order)
        raise ModelError(
            f"The model answers {100 * accuracy.value:.0f} % of training images rightly, and {100 * best:.0f} % if "
            f"its outputs are {names} in this order: state that order with class_names."
        )


def _summary(clusters: list[dict[str, Any]], probes: list[dict[str, Any]], num_probes: int) -> dict[str, Any]:
    """The outcome, its headline, and sentences."""
    regions, marks = ([one for one in some if one["found"]] for some in (clusters, probes))
    wrong = f"{expected_wrong()} such findings would be chance"
    sentences = []
    for one in regions:
        overruled = one["overruled"]
        sentences.append(
            f"Regions of {one['size']} training images of “{one['class']}” (cluster {one['cluster']}) overrule "
            f"{_percent(overruled)} of test images of other classes beyond their placebos."
        )
    for one in marks:
        sentences.append(
            f"With {one['title']}, {_percent(one['flips'])} of images of other classes are taken for "
            f"“{one['class']}”; with {one['beside']}, {100 * one['placebo']['value']:.0f} %."
            + ("" if one["presence"] is None else f" {_more_like(one)}")
        )
    differences = [one["difference"] for one in probes if one["difference"]["count"] >= _FEWEST]
    most = max((max(LEAST_FLIPS, one["high"] - one["value"]) for one in differences), default=1.0)
    if regions or marks:
        outcome, headline = "suspected", "Shortcuts suspected"
        sentences.append(
            f"{wrong[0].upper()}{wrong[1:]}. Whether a region is the object itself, only a person can say: look at "
            "the pictures."
        )
    elif most > _TOO_MUCH:
        outcome, headline = "too few images", "Too few images to tell"
        sentences.append(
            "Nothing was found, and little could have been: with so few images a probe that flips "
            f"{100 * _TOO_MUCH:.0f} % of answers may be missed. Give more test images, or look at more (--num_probed)."
        )
    else:
        outcome, headline = "nothing found", "No shortcut found"
        sentences.append(
            f"None of {len(clusters)} clusters of regions and of {num_probes} probes is suspected; a probe that flips "
            f"less than {100 * most:.0f} % of answers could have been missed."
        )
    return {"outcome": outcome, "headline": headline, "sentences": sentences, "findings": len(regions) + len(marks)}


def _more_like(one: dict[str, Any]) -> str:
    return (
        f"Of a training image of the class and one of another, the first looks more like it in "
        f"{100 * one['presence']:.0f} of 100 cases."
    )


def _percent(figure: dict[str, Any]) -> str:
    low, high = 100 * figure["low"], 100 * figure["high"]
    return f"{100 * figure['value']:.0f} % ({low:.0f} to {high:.0f})"


def _not_looked_at(data: ImageData, train: Dataset, classes: list[int], has_regions: bool) -> list[str]:
    sentences = []
    if len(train) < len(data.train):
        sentences.append(f"{len(data.train) - len(train)} of {len(data.train)} training images were not scanned.")
    if len(classes) < len(data.class_names):
        others = len(data.class_names) - len(classes)
        sentences.append(f"{others} of {len(data.class_names)} classes were left out: those with the fewest images.")
    if not has_regions:
        sentences.append("No background was exchanged: there are no masks of it.")
    sentences += [
        "Regions of more than a fifth of the image, such as a whole background, are not found by the scan.",
        "Probes are a few texts, colours, places and strengths; a model may go by others.",
        "Accuracy is of a sample of the test images, and nothing is said of groups.",
    ]
    return sentences
