"""Estimates of worst-group accuracy without group labels, for any classifier: its accuracy where it would be lowest.

A group is a class with the shortcut, or without it. Those that data lack are made: images of other classes with a
sample's region, and samples without theirs. Such pictures are foreign to a model that never saw one, and it may fail on
them for that alone. So each has a placebo: the same done with a region that is no news, from an image of the same class
or at a random place. Where the placebo is answered rightly and the picture is not, it is the region's doing. Ours.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ..data.blending import ERASING, PASTING, erase, paste
from ..data.exchange import OtherClassPartners
from ..detection import SpuriousSamples
from ..models import eval_mode

__all__ = ["ESTIMATES", "SELECTION", "Answers", "Estimates"]

#: How regions are put into images of other classes, and how they are taken out of samples. Of each there is an estimate
#: as it comes and, with `_corrected`, one beside the placebos.
_KINDS = {
    "cut": ("cut", "cut"),
    "feathered": ("feathered", "feathered"),
    "outlined": ("outlined", "outlined"),
    "seamless": ("seamless", "seamless"),
    "filled": ("seamless", "filled"),
    "blurred": ("feathered", "blurred"),
}
#: The names of all estimates; `mean_corrected` and `least_corrected` are of the others that are corrected.
ESTIMATES = (*_KINDS, *(f"{kind}_corrected" for kind in _KINDS), "mean_corrected", "least_corrected")
#: The estimate by which λ, form and epoch are chosen.
SELECTION = "cut_corrected"
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
        self._samples, self._partners = samples, partners
        self._elsewhere = samples.move_masks(seed=0).masks
        self._device, self._batch_size, self.names = device, batch_size, tuple(names)
        wanted = [kind for kind in _KINDS if any(name in (kind, f"{kind}_corrected") for name in names)]
        self._kinds = list(_KINDS) if {"mean_corrected", "least_corrected"} & set(names) else wanted

    def __call__(self, model: Any) -> dict[str, float]:
        """Each of `names`, from 0 to 1.

        Args:
            model: an image classifier; it is measured in eval mode and left as it was.
        """
        answers = self.answers(model)
        plain = _by_class(answers["plain"])
        found: dict[str, float] = {}
        for kind in self._kinds:
            pasting, erasing = _KINDS[kind]
            made = [answers[f"paste {pasting}"], answers[f"erase {erasing}"]]
            placebos = [answers[f"paste {pasting}, placebo"], answers[f"erase {erasing}, placebo"]]
            accuracies = [accuracy for part in made for accuracy in _by_class(part).values()]
            found[kind] = min([*plain.values(), *accuracies])
            kept = [_kept(part, placebo, plain) for part, placebo in zip(made, placebos, strict=True)]
            found[f"{kind}_corrected"] = min([*plain.values(), *(share for shares in kept for share in shares)])
        corrected = [found[f"{kind}_corrected"] for kind in self._kinds]
        found |= {"mean_corrected": sum(corrected) / len(corrected), "least_corrected": min(corrected)}
        return {name: found[name] for name in self.names}

    def answers(self, model: Any) -> dict[str, Answers]:
        """How a model answers all pictures: `plain`, and by what was done: `paste cut`, `paste cut, placebo`, ..."""
        parts: dict[str, list[Answers]] = defaultdict(list)
        with eval_mode(model), torch.no_grad():
            for name, pictures, labels in self._pictures():
                logits = [model(pixel_values=some).logits for some in pictures.split(self._batch_size)]
                parts[name].append(Answers(labels.cpu(), torch.cat(logits).argmax(1).cpu() == labels.cpu()))
        return {name: Answers(*map(torch.cat, zip(*some, strict=True))) for name, some in parts.items()}

    def _pictures(self) -> Iterator[tuple[str, Tensor, Tensor]]:
        """What is shown to a model: a name, images (n, 3, H, W), and their classes (n,)."""
        pasting = [how for how in PASTING if any(how == _KINDS[kind][0] for kind in self._kinds)]
        erasing = [how for how in (*PASTING, *ERASING) if any(how == _KINDS[kind][1] for kind in self._kinds)]
        count = len(self._samples)
        draws = torch.arange(count * max(_PAIRS_PER_SAMPLE, -(-_PAIRS // count)))
        for part in draws.split(self._batch_size):
            samples = self._samples[part % count].to(self._device)
            x, masks, labels = samples.pixel_values, samples.masks, samples.labels
            elsewhere = self._elsewhere[part % count].to(self._device)
            drawn = self._partners.draw(labels.tolist(), part.tolist())
            others, other_labels = (tensor.to(self._device) for tensor in drawn)
            same, of_other = (
                self._partners.draw_of(classes.tolist(), part.tolist())[0].to(self._device)
                for classes in (labels, other_labels)
            )
            yield "plain", torch.cat([others, of_other, same]), torch.cat([other_labels, other_labels, labels])
            for how in pasting:
                yield f"paste {how}", paste(x, masks, others, how=how), other_labels
                yield f"paste {how}, placebo", paste(of_other, masks, others, how=how), other_labels
            for how in erasing:
                if how in ERASING:
                    made, placebo = erase(x, masks, how=how), erase(x, elsewhere, how=how)
                else:
                    made, placebo = paste(others, masks, x, how=how), paste(same, masks, x, how=how)
                yield f"erase {how}", made, labels
                yield f"erase {how}, placebo", placebo, labels


def _by_class(answers: Answers) -> dict[int, float]:
    """Accuracy of each class."""
    classes = answers.labels.unique().tolist()
    return {label: float(answers.right[answers.labels == label].float().mean()) for label in classes}


def _kept(made: Answers, placebo: Answers, plain: dict[int, float]) -> list[float]:
    """Of each class, the accuracy on images as they are, times the share of the rightly answered placebos whose
    picture is right too; 0 where no placebo was."""
    kept = []
    for label in made.labels.unique().tolist():
        right = made.right[(made.labels == label) & placebo.right]
        kept.append(plain[label] * float(right.float().mean()) if len(right) else 0.0)
    return kept
