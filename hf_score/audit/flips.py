"""How many answers a planted probe flips towards each class, beside its placebo, on images that nobody trained on."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from PIL import Image
from scipy.stats import mannwhitneyu
from torch import Tensor

from ..data import ImageCollator
from ..data.exchange import OtherClassPartners
from ..evaluation.intervals import paired_difference, share
from ..models import eval_mode
from .chance import LEVEL, false_discovery_rates, sign_test
from .probes import PROBES, Probe

__all__ = [
    "LEAST_FLIPS",
    "LEAST_PRESENCE",
    "Flips",
    "PixelScale",
    "exchange_flips",
    "probe_findings",
    "probe_flips",
    "probe_presence",
]

#: Where training images of a class look less like a probe than this, it is no finding: the chance that one of them
#: looks more like it than one of another class.
LEAST_PRESENCE = 0.6
#: A probe that flips fewer answers than this beyond its placebo is no finding, however sure the figure is.
LEAST_FLIPS = 0.1


class PixelScale:
    """The way from a model's pixel values to shares of the way from black to white, and back.

    Args:
        processor: the model's image processor; None where pixel values are shares already.
    """

    def __init__(self, processor: Any) -> None:
        self._low, self._span = torch.zeros(1, 3, 1, 1), torch.ones(1, 3, 1, 1)
        if processor is not None:
            collate = ImageCollator(processor)
            black, white = (
                collate([{"image": Image.new("RGB", (64, 64), colour)}])["pixel_values"]
                for colour in ("black", "white")
            )
            # what the processor does to values is the same at every place, but for padding, where both are alike
            span = (white - black).abs().flatten(2)
            place = int(span.sum(1)[0].argmax())
            self._low = black.flatten(2)[:, :, place, None, None]
            self._span = (white - black).flatten(2)[:, :, place, None, None]

    def shares(self, pixel_values: Tensor) -> Tensor:
        """(n, 3, H, W), from 0 to 1, of pixel values (n, 3, H, W)."""
        return ((pixel_values - self._low.to(pixel_values)) / self._span.to(pixel_values)).clamp(0, 1)

    def pixel_values(self, shares: Tensor) -> Tensor:
        """The way back."""
        return self._low.to(shares) + shares * self._span.to(shares)


@dataclass(frozen=True)
class Flips:
    """A model's answers to images as they are, with a probe, and with its placebo: (n,) class ids each.

    `towards` (n,) is the class that the change comes from, where it comes from another image; else None.
    """

    probe: str
    title: str
    beside: str
    is_mirrored: bool
    labels: np.ndarray
    plain: np.ndarray
    changed: np.ndarray
    placebo: np.ndarray
    towards: np.ndarray | None = None


def probe_flips(
    model: Any,
    pixel_values: Tensor,
    labels: np.ndarray,
    *,
    processor: Any,
    probes: Sequence[Probe] = tuple(PROBES.values()),
    device: torch.device | str = "cpu",
    batch_size: int = 32,
    seed: int = 0,
    progress: Callable[[int], Any] = lambda count: None,
) -> list[Flips]:
    """The answers to images with each probe and its placebo.

    Args:
        model: an image classifier, left as it was.
        pixel_values: (n, 3, H, W), as the processor makes them.
        labels: (n,), their classes.
        processor: the model's; None where pixel values go from 0 to 1.
        probes: which.
        device: where to compute.
        batch_size: images per forward pass; the result does not depend on it.
        seed: of what the probes draw.
        progress: told how many images have gone through the model.
    """
    scale = PixelScale(processor)
    seeds = np.random.default_rng(seed).integers(0, 2**31, len(pixel_values))

    def answers(change: Any) -> np.ndarray:
        found = []
        for rows in torch.arange(len(pixel_values)).split(batch_size):
            images = pixel_values[rows]
            if change is not None:
                changed = change(scale.shares(images), seeds[rows.numpy()].tolist())
                images = scale.pixel_values(changed)
            found.append(model(pixel_values=images.to(device)).logits.argmax(1).cpu())
            progress(len(rows))
        return torch.cat(found).numpy()

    with eval_mode(model), torch.no_grad():
        plain = answers(None)
        return [
            Flips(
                probe.name,
                probe.title,
                probe.beside,
                probe.is_mirrored,
                labels,
                plain,
                answers(probe.change),
                answers(probe.placebo),
            )
            for probe in probes
        ]


def exchange_flips(
    model: Any,
    pixel_values: Tensor,
    labels: np.ndarray,
    regions: Tensor,
    partners: OtherClassPartners,
    *,
    device: torch.device | str = "cpu",
    batch_size: int = 32,
) -> Flips:
    """The answers where a known region, such as the background, shows what it shows in an image of another class; its
    placebo takes an image of the same class.

    Args:
        model, pixel_values, labels, device, batch_size: as for `probe_flips`.
        regions: (n, H, W) bool.
        partners: images of all classes.
    """
    found: dict[str, list[Tensor]] = {name: [] for name in ("plain", "changed", "placebo", "towards")}
    with eval_mode(model), torch.no_grad():
        for rows in torch.arange(len(pixel_values)).split(batch_size):
            images, inside, classes = pixel_values[rows], regions[rows][:, None], labels[rows.numpy()].tolist()
            others, other_labels = partners.draw(classes, rows.tolist())
            own, _ = partners.draw_of(classes, rows.tolist())
            pictures = {"plain": images, "changed": torch.where(inside, others, images)}
            pictures["placebo"] = torch.where(inside, own, images)
            for name, some in pictures.items():
                found[name].append(model(pixel_values=some.to(device)).logits.argmax(1).cpu())
            found["towards"].append(other_labels)
    joined = {name: torch.cat(some).numpy() for name, some in found.items()}
    return Flips(
        "region_exchange",
        "the known region of an image of another class",
        "the same region of an image of the same class",
        False,
        labels,
        **joined,
    )


def probe_presence(
    pixel_values: Tensor, *, processor: Any, probes: Sequence[Probe] = tuple(PROBES.values())
) -> dict[str, np.ndarray]:
    """Name of a probe → (n,), how much images (n, 3, H, W) look as if they had it already."""
    shares = PixelScale(processor).shares(pixel_values)
    return {probe.name: probe.presence(shares).numpy() for probe in probes}


def probe_findings(
    flips: Sequence[Flips],
    classes: Sequence[int],
    class_names: Sequence[str],
    *,
    presence: Mapping[str, np.ndarray],
    train_labels: np.ndarray,
    least: float = LEAST_FLIPS,
) -> list[dict[str, Any]]:
    """For each probe and class, how many answers flip to the class, and whether that is more than its placebo does.

    Of images whose class it is not and that are not taken for it as they are. A picture that is like none before may
    make a model say anything, so a finding needs both: answers flip to the class (McNemar's exact test), and training
    images of the class look more like the probe than others do (Mann and Whitney's). The larger p is that of both
    together (an intersection-union test), one for each probe and class, all held to a false discovery rate of `LEVEL`.

    Args:
        flips: of the probes.
        presence: of `probe_presence`, of training images; a probe that is not there needs the flips alone.
        train_labels: (m,), the classes of these.
        classes: class ids to look at.
        class_names: name per class id.
        least: smallest difference that is a finding.

    Returns:
        one entry each, the strongest first: `probe`, `title`, `beside`, `class`; `flips`, `placebo` and `difference`
        (paired), each with `value`, `low`, `high` (95 %) and `count`; `presence`, the chance that a training image of
        the class looks more like the probe than one of another class (None where it is not known); `p`, and `rate`,
        the false discovery rate at which it is a finding; `found`. A mirrored probe whose placebo flips more stands
        there as its mirror image. Probes and classes without images are left out.
    """
    found: list[dict[str, Any]] = []
    for one in flips:
        for label in classes:
            open_ = (one.labels != label) & (one.plain != label)
            if one.towards is not None:
                open_ &= one.towards == label
            if not open_.any():
                continue
            hits, placebo = one.changed[open_] == label, one.placebo[open_] == label
            title, beside = one.title, one.beside
            p = sign_test(hits.astype(int) - placebo, alternative="two-sided" if one.is_mirrored else "greater")
            values, like = presence.get(one.probe), None
            if one.is_mirrored and placebo.sum() > hits.sum():
                title, beside, hits, placebo = beside, title, placebo, hits
                values = None if values is None else -values
            own = train_labels == label
            if values is not None and own.any() and not own.all():
                test = mannwhitneyu(values[own], values[~own], alternative="greater")
                p, like = max(p, float(test.pvalue)), float(test.statistic) / (own.sum() * (~own).sum())
            found.append(
                {
                    "probe": one.probe,
                    "title": title,
                    "beside": beside,
                    "class": class_names[label],
                    "flips": share(hits).described(),
                    "placebo": share(placebo).described(),
                    "difference": paired_difference(placebo, hits).described(),
                    "presence": None if like is None else round(like, 4),
                    "p": p,
                }
            )
    rates = false_discovery_rates([entry["p"] for entry in found])
    for entry, rate in zip(found, rates.tolist(), strict=True):
        like = entry["presence"] is None or entry["presence"] >= LEAST_PRESENCE
        entry |= {"rate": rate, "found": bool(rate <= LEVEL and like and entry["difference"]["value"] >= least)}
    return sorted(found, key=lambda entry: (not entry["found"], -entry["difference"]["value"]))
