"""Estimates of worst-group accuracy without group labels, for any classifier: its accuracy where it would be lowest.

A group is a class with the shortcut, or without it. Those that data lack are made: images of other classes with a
sample's region, and samples without theirs. Such pictures are foreign to a model that never saw one, and it may fail
on them for that alone. So each has placebos: the same done at a random place, or with the content of an image of the
same class, which is no news. What the placebos lose is not the region's doing. Ours.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ..data.blending import PASTING, erase, paste
from ..data.exchange import OtherClassPartners
from ..detection import SpuriousSamples
from ..errors import HFScoreError
from ..models import eval_mode

__all__ = ["ESTIMATES", "SELECTION", "Answers", "Estimates"]

#: How regions are put into images of other classes, and how they are taken out of samples.
_KINDS = {**{how: (how, how) for how in PASTING}, "filled": ("seamless", "filled")}
#: What is set beside the pictures: nothing, the same at a random place, the same with an image of the own class.
_PLACEBOS = ("", "_moved", "_own")
_MEANS = ("mean", "mean_moved", "mean_own")
#: The names of all estimates: of every kind as it comes and beside each placebo, and the means over kinds.
ESTIMATES = (*(f"{kind}{placebo}" for placebo in _PLACEBOS for kind in _KINDS), *_MEANS)
#: The estimate by which λ, form and epoch are chosen.
SELECTION = "seamless_moved"
#: Fewest pairs of a sample and a partner in all, and of each sample.
_PAIRS, _PAIRS_PER_SAMPLE = 128, 4


class Answers(NamedTuple):
    """Of some pictures, their classes (n,), and whether a model was right (n,) bool."""

    labels: Tensor
    right: Tensor


class Estimates:
    """Label-free estimates of a model's worst-group accuracy, the same pictures for every model and method.

    Class labels are read, groups never. What is drawn depends on the seed of the partners alone.

    Args:
        samples: spurious-positive samples that train nothing, and their regions.
        partners: held-out images of all classes.
        device: where to compute.
        batch_size: images per forward pass.
        names: which of `ESTIMATES` to compute; all by default.

    Raises:
        HFScoreError: no samples, or a name that there is not.
    """

    def __init__(
        self,
        samples: SpuriousSamples,
        partners: OtherClassPartners,
        *,
        device: torch.device | str,
        batch_size: int = 64,
        names: Sequence[str] = ESTIMATES,
    ) -> None:
        if not len(samples):
            raise HFScoreError("there are no samples to estimate by: keep some from training (score_held_out_share).")
        if unknown := sorted(set(names) - set(ESTIMATES)):
            raise HFScoreError(f"there is no estimate {unknown[0]!r}: use {', '.join(ESTIMATES)}.")
        self._samples, self._partners = samples, partners
        # masks of most of the image leave no other place: what is around an object, moved, would cover the object
        has_places = bool(samples.masks.float().mean() < 0.5)
        self._elsewhere = samples.move_masks(seed=0).masks if has_places else None
        self._device, self._batch_size, self.names = device, batch_size, tuple(names)
        wanted = {name.split("_")[0] for name in names}
        self._kinds = [kind for kind in _KINDS if kind in wanted or "mean" in wanted]
        endings = {name.removeprefix(name.split("_")[0]) for name in names}
        self._placebos = [ending for ending in _PLACEBOS if ending in endings]

    def __call__(self, model: Any) -> dict[str, float]:
        """Each of `names`, from 0 to 1.

        Args:
            model: an image classifier; it is measured in eval mode and left as it was.
        """
        return self.of_answers(self.answers(model))

    def of_answers(self, answers: Mapping[str, Answers]) -> dict[str, float]:
        """Each of `names`, of answers to all `pictures` by their names."""
        plain = _by_class(answers["plain"])
        found: dict[str, float] = {}
        for placebo in self._placebos:
            for kind in self._kinds:
                pasting, erasing = _KINDS[kind]
                parts = [f"paste {pasting}", f"erase {erasing}"]
                accuracies = [
                    accuracy
                    for part in parts
                    for accuracy in _beside(answers[part], answers.get(f"{part}{placebo}"), plain)
                ]
                found[f"{kind}{placebo}"] = min([*plain.values(), *accuracies])
            of_kinds = [found[f"{kind}{placebo}"] for kind in self._kinds]
            found[f"mean{placebo}"] = sum(of_kinds) / len(of_kinds)
        return {name: found[name] for name in self.names}

    def answers(self, model: Any) -> dict[str, Answers]:
        """How a model answers all pictures: `plain`, and by what was done: `paste cut`, `paste cut_moved`, ..."""
        parts: dict[str, list[Answers]] = defaultdict(list)
        with eval_mode(model), torch.no_grad():
            for name, pictures, labels in self.pictures():
                logits = [model(pixel_values=some).logits for some in pictures.split(self._batch_size)]
                parts[name].append(Answers(labels.cpu(), torch.cat(logits).argmax(1).cpu() == labels.cpu()))
        return {name: Answers(*map(torch.cat, zip(*some, strict=True))) for name, some in parts.items()}

    def pictures(self) -> Iterator[tuple[str, Tensor, Tensor]]:
        """What is shown to a model: a name, images (n, 3, H, W), and their classes (n,); the same in every call."""
        count = len(self._samples)
        draws = torch.arange(count * max(_PAIRS_PER_SAMPLE, -(-_PAIRS // count)))
        self._keep_partners(draws.tolist(), self._samples.labels[draws % count].tolist())
        for part in draws.split(self._batch_size):
            samples = self._samples[part % count].to(self._device)
            x, labels = samples.pixel_values, samples.labels
            drawn = self._partners.draw(labels.tolist(), part.tolist())
            others, other_labels = (tensor.to(self._device) for tensor in drawn)
            (own, own_labels), (own_of_others, _) = (
                [tensor.to(self._device) for tensor in self._partners.draw_of(classes.tolist(), part.tolist())]
                for classes in (labels, other_labels)
            )
            yield "plain", torch.cat([others, own_of_others, own]), torch.cat([other_labels, other_labels, own_labels])
            # whose content goes into the others and into the samples, and where
            ways = {"": (x, others, samples.masks), "_own": (own_of_others, own, samples.masks)}
            if self._elsewhere is not None:
                ways["_moved"] = (x, others, self._elsewhere[part % count].to(self._device))
            else:
                ways["_moved"] = ways["_own"]
            for ending in dict.fromkeys(("", *self._placebos)):
                shortcut, instead, masks = ways[ending]
                for pasting in dict.fromkeys(_KINDS[kind][0] for kind in self._kinds):
                    yield f"paste {pasting}{ending}", paste(shortcut, masks, others, how=pasting), other_labels
                for erasing in dict.fromkeys(_KINDS[kind][1] for kind in self._kinds):
                    # a fill has no other content to be beside: its placebo is moved, or there is none
                    if erasing == "filled" and masks is samples.masks and ending:
                        continue
                    yield f"erase {erasing}{ending}", erase(x, masks, instead, how=erasing), labels

    def _keep_partners(self, draws: list[int], labels: list[int]) -> None:
        """Read what `_pictures` draws at its next and all later evaluations, as far as it is not read yet."""
        partners = self._partners
        others = partners.positions(labels, draws)
        own_of_others = partners.positions_of(partners.classes[others].tolist(), draws)
        partners.keep([*others, *own_of_others, *partners.positions_of(labels, draws)])


def _by_class(answers: Answers) -> dict[int, float]:
    """Accuracy of each class."""
    classes = answers.labels.unique().tolist()
    return {label: float(answers.right[answers.labels == label].float().mean()) for label in classes}


def _beside(made: Answers, placebo: Answers | None, plain: dict[int, float]) -> list[float]:
    """Of each class, the accuracy on pictures; beside a placebo, that on images as they are times the share of it that
    pictures keep of the placebo's, 0 where no placebo is answered rightly and nothing is known."""
    accuracies = _by_class(made)
    if placebo is None or made is placebo:
        return list(accuracies.values())
    of_placebos = _by_class(placebo)
    return [
        plain.get(label, 1.0) * min(1.0, accuracies[label] / of_placebos[label]) if of_placebos[label] else 0.0
        for label in accuracies
    ]
