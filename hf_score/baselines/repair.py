"""Repair: edits of the last layer that take a shortcut out of the representation, without training.

An edit is a linear map A of what is taken out: the head then sees x − s·A (x − μ), μ the mean representation, which is
a head with the weight W − s·W A and the bias b + s·W A μ. So the checkpoint stays a stock one, and the mean image's
logits stay as they were.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, ClassVar, NamedTuple

import torch
from torch import Tensor
from transformers import PreTrainedModel

from ..data.exchange import OtherClassPartners
from ..detection import SpuriousSamples
from ..errors import HFScoreError
from ..evaluation import SELECTION, Estimates
from ..evaluation.estimates import Answers
from ..models import classifier_head
from .base import BaselineConfig
from .last_layer import LastLayerTrainer

__all__ = ["Edit", "PairFeatures", "RepairConfig", "RepairTrainer", "Repaired", "best_edit", "edits_of", "fold"]

#: Shares of the representation's dimensions that are shrunk, numbers of directions that are projected out, and
#: strengths of every edit.
_SHARES, _RANKS, _STRENGTHS = (0.02, 0.1, 0.3), (3, 8), (0.5, 1.0)
#: Of the mean variance of a dimension: what keeps few images from deciding on many dimensions.
_RIDGE = 1e-2
#: Pairs of each sample.
_DRAWS = 4


@dataclass
class RepairConfig(BaselineConfig):
    """Configuration of [`RepairTrainer`].

    Parameters:
        repair_max_loss: points of held-out accuracy that an edit may cost.
        repair_held_out_share: share of the samples that makes no edit and chooses among them.
    """

    repair_max_loss: float = field(default=1.0, metadata={"help": "Points of held-out accuracy it may cost."})
    repair_held_out_share: float = field(default=0.25, metadata={"help": "Share of the samples that chooses."})

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 <= self.repair_max_loss <= 100 or not 0 < self.repair_held_out_share < 1:
            raise HFScoreError(
                f"repair_max_loss is {self.repair_max_loss} and repair_held_out_share {self.repair_held_out_share}: "
                "give points from 0 to 100, and a share above 0 and below 1."
            )


class PairFeatures(NamedTuple):
    """Representations (P, D) of P images with and without the region, the images' classes (P,), and the classes that
    the region is spurious evidence for (P,)."""

    with_region: Tensor
    without_region: Tensor
    labels: Tensor
    shortcut_labels: Tensor


class Edit(NamedTuple):
    """What is taken out of the representation: a name, A (D, D), and how much of it."""

    name: str
    taken_out: Tensor
    strength: float


class Repaired(NamedTuple):
    """The chosen edit's name, and label-free estimate and held-out accuracy before and after it."""

    name: str
    estimate_before: float
    estimate_after: float
    accuracy_before: float
    accuracy_after: float


def fold(weight: Tensor, bias: Tensor, edit: Edit, *, centre: Tensor) -> tuple[Tensor, Tensor]:
    """Weight (K, D) and bias (K,) of a head that takes representations as they come, and gives the logits that the
    present head gives x − s·A (x − centre)."""
    change = edit.strength * weight @ edit.taken_out
    return weight - change, bias + change @ centre


def edits_of(pairs: PairFeatures, features: Tensor) -> Iterator[Edit]:
    """The candidates, each in two strengths.

    `shrink`: the dimensions that the region changes most, beside what tells classes apart where there is no region:
    the idea of NeuronTune (ICML 2025), with pairs in place of wrong and right answers. `project`: orthogonal to the
    mean difference that the region makes, as in P-ClArC (Anders et al., 2022), or to the strongest directions of all
    differences. `rank_one`: the mean difference k is mapped to 0 by W − W k (C⁻¹k)ᵀ / kᵀC⁻¹k, with C the covariance of
    representations, so that least is changed for what images look like (Meng et al., 2022, equation 2). Each shortcut
    class has a mean difference of its own.

    Args:
        pairs: images with and without the region.
        features: (N, D), of held-out images.
    """
    pairs = PairFeatures(*(part.double() if part.is_floating_point() else part for part in pairs))
    features = features.double()
    differences = pairs.with_region - pairs.without_region
    means = torch.stack(
        [differences[pairs.shortcut_labels == label].mean(0) for label in pairs.shortcut_labels.unique()]
    )
    identity = torch.eye(features.shape[1], dtype=torch.double)
    order = _changed_most(means, pairs).argsort(descending=True)
    for share in _SHARES:
        kept = order[: max(1, round(share * len(order)))]
        diagonal = torch.zeros(len(order), dtype=torch.double)
        diagonal[kept] = 1.0
        yield from _in_strengths(f"shrink {len(kept)} dimensions", torch.diag(diagonal))
    directions = _orthonormal(means)
    yield from _in_strengths("project out the mean difference", directions.T @ directions)
    for rank in _RANKS:
        if len(directions) < rank <= min(differences.shape):
            rows = torch.linalg.svd(differences, full_matrices=False).Vh[:rank]
            yield from _in_strengths(f"project out {rank} directions", rows.T @ rows)
    covariance = torch.cov(features.T) + _RIDGE * features.var(0).mean().clamp(min=1e-12) * identity
    keys = directions.T  # (D, r)
    solved = torch.linalg.solve(covariance, keys)
    yield from _in_strengths("rank-one edit", keys @ torch.linalg.solve(keys.T @ solved, solved.T))


def _in_strengths(name: str, taken_out: Tensor) -> Iterator[Edit]:
    for strength in _STRENGTHS:
        yield Edit(f"{name}, {100 * strength:.0f} %", taken_out, strength)


def _changed_most(means: Tensor, pairs: PairFeatures) -> Tensor:
    """(D,): squared mean difference over the variance of class means, both without the region."""
    of_classes = [pairs.without_region[pairs.labels == label].mean(0) for label in pairs.labels.unique()]
    signal = torch.stack(of_classes).var(0, correction=0)
    return means.square().amax(0) / (signal + _RIDGE * signal.mean().clamp(min=1e-12))


def _orthonormal(rows: Tensor) -> Tensor:
    """(r, D): a basis of what the rows (n, D) span, directions that are nearly none left out."""
    _, sizes, basis = torch.linalg.svd(rows, full_matrices=False)
    return basis[sizes > 1e-3 * sizes.max().clamp(min=1e-12)]


def best_edit(
    weight: Tensor,
    bias: Tensor,
    edits: Iterator[Edit],
    *,
    centre: Tensor,
    estimate: Callable[[Tensor, Tensor], float],
    accuracy: Callable[[Tensor, Tensor], float],
    max_loss: float,
) -> tuple[Tensor, Tensor, Repaired]:
    """The edit with the highest estimate among those that cost no more accuracy than allowed; of equals, the one with
    the higher accuracy, then the first. Where all are worse than the present head, that stays.

    Args:
        weight, bias: (K, D) and (K,), of the present head.
        edits: to choose from.
        centre: (D,), see `fold`.
        estimate: weight and bias → label-free estimate of the worst group.
        accuracy: weight and bias → held-out accuracy.
        max_loss: from 0 to 1.

    Returns:
        weight, bias, and what was chosen.
    """
    before = (estimate(weight, bias), accuracy(weight, bias))
    best: tuple[Tensor, Tensor, str, tuple[float, float]] = (weight, bias, "none", before)
    for edit in edits:
        edited = fold(weight, bias, edit, centre=centre)
        score = (estimate(*edited), accuracy(*edited))
        is_better = score > best[3] or (score == before and best[2] == "none")
        if is_better and score[1] >= before[1] - max_loss:
            best = (*edited, edit.name, score)
    weight, bias, name, after = best
    return weight, bias, Repaired(name, before[0], after[0], before[1], after[1])


class RepairTrainer(LastLayerTrainer):
    """Edits the ERM model's last layer by pairs of images that exchanged the samples' regions; nothing is trained.

    The edit is chosen by the label-free estimate on samples that made none, among those that cost held-out images no
    more than `repair_max_loss` points; where all make it worse the model stays as it is. Ours, of known parts
    (`edits_of`).

    Supervision: decisions.
    """

    name = "repair"
    title = "repair, no training"
    paper = "ours, after NeuronTune (ICML 2025), P-ClArC (arXiv 1912.11425) and ROME (arXiv 2202.05262)"
    supervision_kinds = ("samples",)
    config_class = RepairConfig
    args: RepairConfig  # type: ignore[assignment]
    grid: ClassVar[dict[str, list[Any]]] = {
        "repair_max_loss": [0.5, 1.0, 2.0, 5.0],
        "repair_held_out_share": [0.25, 0.5],
    }
    #: What was chosen; None before `train`.
    repaired: Repaired | None = None

    def new_head(self) -> tuple[Tensor, Tensor]:
        samples = self.supervision.samples
        making, choosing = samples.split(held_out_share=self.args.repair_held_out_share, seed=self.args.seed)
        choosing = choosing if len(choosing) else making
        model: Any = self.model
        _, features, labels = self.held_out()
        features = features.double()
        pairs = self.pair_features(model, making)
        partners = OtherClassPartners(self.eval_dataset, labels.tolist(), self.data_collator, seed=self.args.seed)
        estimates = Estimates(
            choosing,
            partners,
            device=self.args.device,
            batch_size=self.args.per_device_eval_batch_size,
            names=(SELECTION,),
        )
        shown = self._shown(model, estimates)

        def estimate(weight: Tensor, bias: Tensor) -> float:
            answers = {
                name: Answers(classes, (x @ weight.T + bias).argmax(1) == classes)
                for name, (x, classes) in shown.items()
            }
            return estimates.of_answers(answers)[SELECTION]

        def accuracy(weight: Tensor, bias: Tensor) -> float:
            return float(((features @ weight.T + bias).argmax(1) == labels).double().mean())

        head = classifier_head(model)
        weight, bias, self.repaired = best_edit(
            head.weight.detach().double().cpu(),
            head.bias.detach().double().cpu(),
            edits_of(pairs, features),
            centre=features.mean(0),
            estimate=estimate,
            accuracy=accuracy,
            max_loss=self.args.repair_max_loss / 100,
        )
        return weight, bias

    def gates(self) -> dict[str, float]:
        """How much the estimate rose, and held-out accuracy fell."""
        if self.repaired is None:
            return {}
        chosen = self.repaired
        return {
            "estimate_gain": chosen.estimate_after - chosen.estimate_before,
            "accuracy_loss": chosen.accuracy_before - chosen.accuracy_after,
        }

    def pair_features(self, model: PreTrainedModel, samples: SpuriousSamples) -> PairFeatures:
        """Representations of samples and training images of other classes, before and after they exchange regions."""
        partners = OtherClassPartners(
            self.train_dataset, self.train_labels().tolist(), self.data_collator, seed=self.args.seed
        )
        parts: list[PairFeatures] = []
        draws = torch.arange(len(samples) * _DRAWS)
        for some in draws.split(max(1, self.args.per_device_eval_batch_size // 4)):
            chosen = samples.to("cpu")[some % len(samples)]
            pairs = chosen.exchanged_with(*partners.draw(chosen.labels.tolist(), some.tolist()))
            having, lacking = (self._features(model, some) for some in (pairs.with_region, pairs.without_region))
            parts.append(PairFeatures(having, lacking, pairs.labels, pairs.shortcut_labels))
        return PairFeatures._make(map(torch.cat, zip(*parts, strict=True)))

    def _features(self, model: PreTrainedModel, pixel_values: Tensor) -> Tensor:
        model.eval()
        with torch.no_grad():
            return self.forward_with_features(model, pixel_values.to(self.args.device))[1].double().cpu()

    def _shown(self, model: PreTrainedModel, estimates: Estimates) -> dict[str, tuple[Tensor, Tensor]]:
        """Name → representations (n, D) and classes (n,) of the pictures that the estimate is of: computed once, as an
        edit changes what is made of them alone."""
        parts: dict[str, list[tuple[Tensor, Tensor]]] = defaultdict(list)
        for name, pictures, classes in estimates.pictures():
            for images, some in zip(
                pictures.split(self.args.per_device_eval_batch_size),
                classes.cpu().split(self.args.per_device_eval_batch_size),
                strict=True,
            ):
                parts[name].append((self._features(model, images), some))
        return {
            name: (torch.cat([x for x, _ in some]), torch.cat([classes for _, classes in some]))
            for name, some in parts.items()
        }
