"""What a run shows without group labels: what the judged regions do to test images, before and after.

A spurious region is inserted into test images of other classes, and removed from the samples that it was judged on;
so are regions of the same size at random places. The object is what is outside. All are measured on the same pictures
for every model, so that differences are paired. The words for these figures are in `hf_score.report`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..data.blending import paste
from ..detection import SpuriousSamples
from ..margins import margin, margin_difference
from .intervals import Estimate, bootstrap, means_of_clusters, paired_difference, percentiles, share
from .probabilities import auroc, brier_score, calibration_error

__all__ = ["JudgedRegions", "RegionLogits", "Verdicts", "flips", "region_figures"]

#: Test images that a region is inserted into; more would narrow the intervals by little.
MOST_HOSTS = 256
#: Images that take the place of a sample's region; they cost a pass each and add less than a sample does.
REMOVALS_PER_SAMPLE = 4
#: With fewer held-out samples all that were kept measure.
FEWEST_HELD_OUT = 10
#: With more, the area under the curve is left out, and figures by class are of the lowest so many.
MOST_CLASSES_WITH_AREA, MOST_CLASSES_LISTED = 10, 20
#: A class's accuracy has fallen where it lost more than this, and more than chance would take.
FALL = 0.02
NUM_EXAMPLES = 3


@dataclass(frozen=True)
class RegionLogits:
    """A model's logits for pairs of a test image and a sample of another class, with exchanged regions.

    Attributes:
        plain: (n, K), of the test images as they are.
        inserted: (n, K), with the sample's region.
        random_inserted: (n, K), with a region of the sample, as large, from a random place; None where the regions
            cover half of the images.
        images: (m, K), of the samples of the first pairs of each.
        removed: (m, K), with the test image's content in the region.
        random_removed: (m, K), with its content at the random place.
        blended_inserted: (n, K), with the sample's region and no edge around it (`data.blending`, seamless); with its
            edge where the regions cover half of the images: it is the object's outline then.
        blended_removed: (m, K), likewise with the test image's content.
        pair_of_removal: (m,), which of the n pairs it is.
        sample: (n,), the row of the pair's sample.
        labels: (n,), the class that the region is evidence for.
        host_labels: (n,), the class of the test image.
    """

    plain: Tensor
    inserted: Tensor
    random_inserted: Tensor | None
    images: Tensor
    removed: Tensor
    random_removed: Tensor | None
    blended_inserted: Tensor
    blended_removed: Tensor
    pair_of_removal: Tensor
    sample: Tensor
    labels: Tensor
    host_labels: Tensor


def flips(before: Tensor, after: Tensor) -> np.ndarray:
    """(n,) bool: whether the answer is another one, from logits (n, K) twice."""
    return (before.argmax(dim=1) != after.argmax(dim=1)).numpy()


@dataclass(frozen=True)
class Figure:
    """A figure of one model: its value and interval, and what the difference from another model's is made of."""

    estimate: Estimate
    hits: np.ndarray | None = None  # of independent pictures
    replicates: np.ndarray | None = None

    def since(self, before: Figure) -> Estimate:
        """This − before, paired."""
        if self.hits is not None and before.hits is not None:
            return paired_difference(before.hits, self.hits)
        assert self.replicates is not None and before.replicates is not None
        value = self.estimate.value - before.estimate.value
        return percentiles(value, self.replicates - before.replicates, self.estimate.count)


def _share(hits: np.ndarray) -> Figure:
    return Figure(share(hits), hits=hits)


def _of_clusters(values: np.ndarray, clusters: np.ndarray) -> Figure:
    """The mean over pictures; of shares of hits, where it is a share, with an interval that is never a point."""
    means = means_of_clusters(values, clusters)
    replicates = bootstrap(lambda weights: weights @ means / len(means), len(means))
    if values.dtype == bool:
        return Figure(share(means), replicates=replicates)
    return Figure(percentiles(float(means.mean()), replicates, len(means)), replicates=replicates)


def region_figures(logits: RegionLogits) -> dict[str, Figure]:
    """What the regions do to a model.

    Returns:
        For the judged regions: `inserted`, the share of test images whose answer changes; `removed`, the share of
        samples; `reliance`, the mean |change of the margin of the region's class|, in logits. `random_inserted`,
        `random_removed` and `random_reliance`: the same for regions at random places. `excess`: `inserted` −
        `random_inserted`. `right_inserted` and `right_removed`: the share of blended pictures that get the class of
        what is outside the region. `lowest`: see `_lowest_accuracy`. `object`: the share of answers that
        follow where one object takes the place of another and no picture shows the region. Shares have Wilson's
        interval; `reliance` is bootstrapped over samples and `excess` over test images. Pairs of
        one sample count as one picture in `removed`, `reliance` and `object`.
    """
    pair, samples = logits.pair_of_removal, logits.sample[logits.pair_of_removal].numpy()
    labels = logits.labels[pair]

    def of(inserted: Tensor, removed: Tensor, prefix: str) -> dict[str, Figure]:
        changes = margin_difference(inserted[pair], logits.plain[pair], labels)
        changes = (changes + margin_difference(logits.images, removed, labels)) / 2
        return {
            f"{prefix}inserted": _share(flips(logits.plain, inserted)),
            f"{prefix}removed": _of_clusters(flips(logits.images, removed), samples),
            f"{prefix}reliance": _of_clusters(changes.numpy(), samples),
        }

    figures = of(logits.inserted, logits.removed, "")
    if logits.random_inserted is not None and logits.random_removed is not None:
        figures |= of(logits.random_inserted, logits.random_removed, "random_")
        more = flips(logits.plain, logits.inserted).astype(float) - flips(logits.plain, logits.random_inserted)
        figures["excess"] = _of_clusters(more, np.arange(len(more)))
    figures["right_inserted"] = _share(_right(logits.blended_inserted, logits.host_labels))
    figures["right_removed"] = _of_clusters(_right(logits.blended_removed, labels), samples)
    figures["lowest"] = _lowest_accuracy(logits)
    figures["object"] = _of_clusters(flips(logits.plain[pair], logits.removed), samples)
    return figures


def _right(logits: Tensor, labels: Tensor) -> np.ndarray:
    return (logits.argmax(dim=1) == labels).numpy()


def _lowest_accuracy(logits: RegionLogits) -> Figure:
    """The lowest accuracy among what stands for groups: test images of each class, as they are and with the region,
    and the samples of each class without theirs, blended. Bootstrapped over test images and over samples."""
    shares: list[tuple[float, np.ndarray]] = []

    def add(right: np.ndarray, labels: np.ndarray, pictures: np.ndarray) -> None:
        """Of pictures: one picture's rows are drawn together."""
        count, members = int(pictures.max()) + 1, np.eye(int(pictures.max()) + 1)[pictures]
        for label in np.unique(labels):
            hits, rows = (right & (labels == label)) @ members, (labels == label) @ members
            of_draws = bootstrap(lambda weights, h=hits, r=rows: (weights @ h) / (weights @ r), count)  # type: ignore[misc]
            shares.append((float(hits.sum() / rows.sum()), of_draws))

    hosts, each = logits.host_labels.numpy(), np.arange(len(logits.host_labels))
    labels = logits.labels[logits.pair_of_removal]
    with np.errstate(invalid="ignore"):  # draws without a picture of a class
        add(_right(logits.plain, logits.host_labels), hosts, each)
        add(_right(logits.blended_inserted, logits.host_labels), hosts, each)
        add(_right(logits.blended_removed, labels), labels.numpy(), logits.sample[logits.pair_of_removal].numpy())
        replicates = np.fmin.reduce([of_draws for _, of_draws in shares])
    return Figure(percentiles(min(value for value, _ in shares), replicates, len(hosts)), replicates=replicates)


def class_figures(logits: np.ndarray, labels: np.ndarray, class_names: Sequence[str]) -> dict[str, Figure]:
    """Accuracy of each class of the test set: sensitivity and specificity where there are two."""
    right = logits.argmax(axis=1) == labels
    return {class_names[label]: _share(right[labels == label]) for label in np.unique(labels)}


def quality_figures(logits: np.ndarray, labels: np.ndarray) -> dict[str, Figure]:
    """`auroc` (with few classes alone), `calibration_error` and `brier_score`, bootstrapped over test images."""
    measures: dict[str, Callable[..., np.ndarray]] = {
        "auroc": auroc,
        "calibration_error": calibration_error,
        "brier_score": brier_score,
    }
    if not 2 <= logits.shape[1] <= MOST_CLASSES_WITH_AREA or len(np.unique(labels)) < 2:
        del measures["auroc"]
    figures = {}
    for name, measure in measures.items():
        replicates = bootstrap(lambda weights, measure=measure: measure(logits, labels, weights), len(labels))  # type: ignore[misc]
        estimate = percentiles(float(measure(logits, labels)[0]), replicates, len(labels))
        figures[name] = Figure(estimate, replicates=replicates)
    return figures


class JudgedRegions:
    """The pictures that a verdict without groups is about: at most 256 test images, each with a region of another
    class to be inserted, and four of them for each sample to take the region's place. Drawn once, for all models.

    Args:
        samples: those kept as spurious-positive whose regions are measured.
        view: the test split, items as `collate` reads them.
        labels: (N,), their class ids.
        collate: makes `{"pixel_values": (n, 3, H, W)}` of n items.
        held_out: whether no training has exchanged these samples' regions.
        device: where to compute.
        seed: of the draws.
        batch_size: images per forward pass.
    """

    def __init__(
        self,
        samples: SpuriousSamples,
        view: Any,
        labels: Sequence[int],
        *,
        collate: Callable[[list], Any],
        held_out: bool,
        device: torch.device | str,
        seed: int = 0,
        batch_size: int = 32,
    ) -> None:
        self.samples, self.held_out = samples.to("cpu"), held_out
        self._view, self._collate, self._device = view, collate, device
        self._batch_size = batch_size
        hosts, rows = _pairs(samples.labels.cpu().numpy(), np.asarray(labels), seed=seed)
        self.hosts, self._rows = hosts, torch.as_tensor(rows)
        self.host_labels = np.asarray(labels)[hosts]
        nth = [rows[:place].tolist().count(row) for place, row in enumerate(rows.tolist())]
        self._removals = torch.tensor([n < REMOVALS_PER_SAMPLE for n in nth], dtype=torch.bool)
        self._blended_pairs: dict[int, tuple[Tensor, Tensor]] = {}
        self._elsewhere = self._moved(seed) if self.samples.masks.float().mean() < 0.5 and len(hosts) else None

    def __len__(self) -> int:
        return len(self.hosts)

    def with_region(self, pairs: Sequence[int]) -> tuple[Tensor, Tensor, Tensor]:
        """The test images of these pairs with the region inserted (n, 3, H, W), the regions (n, H, W) bool, and the
        classes that they are evidence for (n,)."""
        chosen = self.samples[self._rows[torch.as_tensor(pairs)]]
        inserted = torch.where(chosen.masks[:, None], chosen.pixel_values, self._host_images(pairs))
        return inserted, chosen.masks, chosen.labels

    def logits(self, model: Any) -> RegionLogits:
        """What a model in eval mode says of all pictures."""
        model.to(self._device)
        of_samples = torch.cat([self._answer(model, x) for x in self.samples.pixel_values.split(self._batch_size)])
        names = ["plain", "inserted", "random_inserted", "blended_inserted"]
        names += ["removed", "random_removed", "blended_removed"]
        parts: dict[str, list[Tensor]] = {name: [] for name in names}
        for pairs in torch.arange(len(self)).split(max(1, self._batch_size // len(names))):
            hosts, chosen = self._host_images(pairs.tolist()), self.samples[self._rows[pairs]]
            removals = self._removals[pairs]
            pictures = {"plain": hosts}
            places = {"": chosen.masks} | ({"random_": self._elsewhere[pairs]} if self._elsewhere is not None else {})
            for prefix, masks in places.items():
                inside = masks[:, None]
                pictures[f"{prefix}inserted"] = torch.where(inside, chosen.pixel_values, hosts)
                pictures[f"{prefix}removed"] = torch.where(inside, hosts, chosen.pixel_values)[removals]
            inserted, removed = self._blended(pairs, hosts)
            pictures |= {"blended_inserted": inserted, "blended_removed": removed[removals]}
            answers = self._answer(model, torch.cat(list(pictures.values())))
            sizes = [len(picture) for picture in pictures.values()]
            for name, answer in zip(pictures, answers.split(sizes), strict=True):
                parts[name].append(answer)
        joined = {name: torch.cat(some) if some else None for name, some in parts.items()}
        pair_of_removal = self._removals.nonzero().flatten()
        return RegionLogits(
            **joined,  # type: ignore[arg-type]
            images=of_samples[self._rows[pair_of_removal]],
            pair_of_removal=pair_of_removal,
            sample=self._rows,
            labels=self.samples.labels[self._rows],
            host_labels=torch.as_tensor(self.host_labels),
        )

    def examples(self, before: RegionLogits, after: RegionLogits) -> list[int]:
        """Up to three pairs whose answer the region changed before and does not after, the largest change first."""
        freed = flips(before.plain, before.inserted) & ~flips(after.plain, after.inserted)
        freed &= after.inserted.argmax(dim=1).numpy() == self.host_labels
        change = margin(before.inserted, before.labels) - margin(before.plain, before.labels)
        order = torch.argsort(change, descending=True, stable=True).tolist()
        return [int(pair) for pair in order if freed[pair]][:NUM_EXAMPLES]

    def _moved(self, seed: int) -> Tensor:
        """(n, H, W) bool: the regions of the pairs at random places."""
        masks = self.samples.masks[self._rows]
        nothing = self.samples.pixel_values.new_empty(len(masks), 0)  # masks alone are moved
        return SpuriousSamples(nothing, masks, self.samples.labels[self._rows], self._rows).move_masks(seed=seed).masks

    def _blended(self, pairs: Tensor, hosts: Tensor) -> tuple[Tensor, Tensor]:
        """(n, 3, H, W) twice: the hosts with the samples' regions, and the samples with the hosts' content, kept for
        the next model."""
        first = int(pairs[0])
        if first not in self._blended_pairs:
            chosen, how = self.samples[self._rows[pairs]], "cut" if self._elsewhere is None else "seamless"
            inserted = paste(chosen.pixel_values, chosen.masks, hosts, how=how)
            self._blended_pairs[first] = inserted, paste(hosts, chosen.masks, chosen.pixel_values, how=how)
        return self._blended_pairs[first]

    def _host_images(self, pairs: Sequence[int]) -> Tensor:
        return self._collate([self._view[int(self.hosts[pair])] for pair in pairs])["pixel_values"].cpu()

    def _answer(self, model: Any, pixel_values: Tensor) -> Tensor:
        with torch.no_grad():
            return model(pixel_values=pixel_values.to(self._device)).logits.float().cpu()


def _pairs(sample_labels: np.ndarray, labels: np.ndarray, *, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Positions of at most 256 test images in random order, and for each the row of a sample of another class; the
    samples take turns."""
    hosts, rows, turn = [], [], 0
    for position in np.random.default_rng(seed).permutation(len(labels)):
        usable = np.flatnonzero(sample_labels != labels[position])
        if len(usable):
            hosts.append(int(position))
            rows.append(int(usable[turn % len(usable)]))
            turn += 1
        if len(hosts) == MOST_HOSTS:
            break
    return np.array(hosts, dtype=np.int64), np.array(rows, dtype=np.int64)


class Verdicts:
    """The figures of one model after the other, and what has changed since the first: the starting model.

    Args:
        regions: the judged regions; None where nobody has decided yet.
        labels: (N,), class ids of the test images.
        class_names: name per class id.
    """

    def __init__(self, regions: JudgedRegions | None, labels: Sequence[int], class_names: Sequence[str]) -> None:
        self._regions = regions if regions is not None and len(regions) else None
        self._labels, self._class_names = np.asarray(labels), list(class_names)
        self._start: tuple[RegionLogits | None, dict[str, Figure], dict[str, Figure]] | None = None

    def __call__(self, model: Any, logits: np.ndarray) -> dict[str, Any]:
        """The entry `verdict` of a run in `results.json`.

        Args:
            model: in eval mode.
            logits: (N, K), of the test images.

        Returns:
            `figures` and `classes` (accuracy by class) by name, each with `value`, `low`, `high` and `count`; for all
            but the first model `change` and `class_change`, after − before, `fallen`, the classes that lost more than
            2 points and more than chance, and `examples`, pairs to show; `samples`; `not_checked`, sentences.
        """
        logits = np.asarray(logits, dtype=np.float64)
        answers = self._regions.logits(model) if self._regions is not None else None
        figures = {**(region_figures(answers) if answers is not None else {}), **quality_figures(logits, self._labels)}
        classes = class_figures(logits, self._labels, self._class_names)
        verdict: dict[str, Any] = {
            "figures": {name: figure.estimate.described() for name, figure in figures.items()},
            "classes": _lowest({name: figure.estimate for name, figure in classes.items()}),
        }
        if self._start is None:
            self._start = (answers, figures, classes)
        else:
            verdict |= self._since_start(answers, figures, classes)
        if self._regions is not None:
            verdict["samples"] = {"count": len(self._regions.samples), "held_out": self._regions.held_out}
        verdict["not_checked"] = self._not_checked()
        return verdict

    def _since_start(
        self, answers: RegionLogits | None, figures: dict[str, Figure], classes: dict[str, Figure]
    ) -> dict[str, Any]:
        assert self._start is not None
        answers_before, figures_before, classes_before = self._start
        changes = {name: figure.since(classes_before[name]) for name, figure in classes.items()}
        level = 1 - 0.05 / max(1, len(classes))  # of many classes one falls by chance (Bonferroni)
        fallen = []
        for name, figure in classes.items():
            strict = paired_difference(classes_before[name].hits, figure.hits, level=level)  # type: ignore[arg-type]
            if strict.value < -FALL and strict.high < 0:
                fallen.append(name)
        entry: dict[str, Any] = {
            "change": {name: figure.since(figures_before[name]).described() for name, figure in figures.items()},
            "class_change": _lowest(changes),
            "fallen": fallen[:MOST_CLASSES_LISTED],
        }
        if self._regions is not None and answers is not None and answers_before is not None:
            entry["examples"] = self._regions.examples(answers_before, answers)
        return entry

    def _not_checked(self) -> list[str]:
        sentences = ["Shortcuts other than those whose regions were judged.", "Pictures from elsewhere."]
        regions = self._regions
        if regions is None:
            return ["What the judged regions do: there are none, or no test images of other classes.", *sentences]
        if not regions.held_out:
            sentences.append(
                f"Regions that no training has seen: fewer than {FEWEST_HELD_OUT} samples were held out, so all "
                "kept ones were used."
            )
        if regions._elsewhere is None:
            sentences.append("Regions at random places: the judged ones cover half of the picture or more.")
        if len(self._class_names) > MOST_CLASSES_WITH_AREA:
            sentences.append(f"The area under the ROC curve: there are more than {MOST_CLASSES_WITH_AREA} classes.")
        return sentences


def _lowest(estimates: dict[str, Estimate]) -> dict[str, dict[str, float | int]]:
    """At most 20, the lowest; in the order of the classes."""
    kept = set(sorted(estimates, key=lambda name: estimates[name].value)[:MOST_CLASSES_LISTED])
    return {name: estimate.described() for name, estimate in estimates.items() if name in kept}
