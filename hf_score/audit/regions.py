"""A null for suspicion: what a cluster's regions do to images of other classes, beside what regions do that are none.

Suspicion ranks candidates, and somebody is always at the top. Here each region is put into images of other classes,
and so are two placebos: the same image's content at a random place, and the content of another image of the *other*
image's own class at the region's place, which is no news there. What exceeds both is the region's doing. It may still
be the object: where it covers the other image's object, the answer rightly changes. So a region *overrules* an image
only where that is recognised without what the region covers, and its object is still to be seen. Where a class is but
the absence of the other, the object overrules it too, and the pictures have to tell. Ours.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from scipy.stats import norm
from torch import Tensor, nn

from ..data.blending import erase, paste
from ..data.exchange import OtherClassPartners
from ..data.reading import fetch, pixels_of
from ..detection import Candidates, SpuriousSamples
from ..evaluation.intervals import Estimate, bootstrap, means_of_clusters, percentiles
from ..margins import margin
from ..models import eval_mode
from .chance import LEVEL, false_discovery_rates, sign_test

__all__ = ["LEAST_OVERRULED", "RegionPairs", "cluster_findings", "region_pairs"]

#: A cluster that overrules fewer images than this beyond its placebos is no finding, however sure the figure is.
LEAST_OVERRULED = 0.4
#: Pairs of a candidate and an image of another class, in all and of each candidate.
_PAIRS, _FEWEST, _MOST = 256, 2, 6
_COLUMNS = ("candidate", "gain", "recognised", "intact", "overruled")
#: Of an image's margin, what is left of it where a region's place shows nothing that the class is recognised by: where
#: it is filled in smoothly, and where it shows the image's pixels in random order, which are news to a model.
_INTACT = {"filled": 0.9, "mixed": 0.5}


@dataclass(frozen=True)
class RegionPairs:
    """What m pairs of a candidate and an image of another class show.

    Attributes:
        candidate: (m,), the candidate's row.
        gain: (m,), change of the margin of the candidate's class by its region, less that by the placebo that changes
            it more, in logits.
        recognised: (m,) bool: the image is, as it is.
        intact: (m,) bool: it is, and keeps nearly all of its margin where the region's
            place is filled in smoothly, and half of it where it shows the image's pixels in random order.
        overruled: (m,): 1 where the region makes the answer the candidate's class, less 1 where a placebo does.
    """

    candidate: np.ndarray
    gain: np.ndarray
    recognised: np.ndarray
    intact: np.ndarray
    overruled: np.ndarray


def region_pairs(
    candidates: Candidates,
    model: nn.Module,
    dataset: Any,
    partners: OtherClassPartners,
    *,
    processor: Any = None,
    batch_size: int = 32,
    seed: int = 0,
    progress: Callable[[int], Any] = lambda count: None,
) -> RegionPairs:
    """Put the candidates' regions and their placebos into images of other classes.

    Args:
        candidates: n of them.
        model: the classifier that they were found with, left as it was.
        dataset: the view that they were found in.
        partners: held-out images of all classes.
        processor: image processor, where items carry images.
        batch_size: images per forward pass, about; the draws do not depend on it.
        seed: of the places that masks are moved to.
        progress: told how many images have gone through the model.
    """
    device = next(model.parameters()).device
    each = min(_MOST, max(_FEWEST, _PAIRS // max(1, len(candidates))))
    parts: dict[str, list[np.ndarray]] = {name: [] for name in _COLUMNS}
    masks = torch.from_numpy(np.asarray(candidates.masks[np.arange(len(candidates))]))
    elsewhere = _moved(masks, seed=seed)
    size = max(1, batch_size // each)
    with eval_mode(model), torch.no_grad():
        for start in range(0, len(candidates), size):
            rows = np.arange(start, min(start + size, len(candidates)))
            own = pixels_of(fetch(dataset, candidates.position[rows].tolist()), processor)
            rows = np.repeat(rows, each)
            images = own.repeat_interleave(each, dim=0).to(device)
            inside, moved = masks[rows].to(device), elsewhere[rows].to(device)
            draws = (rows * each + np.tile(np.arange(each), len(own))).tolist()
            labels = torch.from_numpy(candidates.labels[rows])
            others, other_labels = partners.draw(labels.tolist(), draws)
            others, of_others = others.to(device), partners.draw_of(other_labels.tolist(), draws)[0].to(device)
            pictures = {
                "plain": others,
                "region": paste(images, inside, others, how="cut"),
                "moved": paste(images, moved, others, how="cut"),
                "own": paste(of_others, inside, others, how="cut"),
                "filled": erase(others, inside, others, how="filled"),
                "mixed": torch.where(inside[:, None], _mixed(others, draws), others),
            }
            logits = {name: model(pixel_values=some).logits.float().cpu() for name, some in pictures.items()}
            progress(len(pictures) * len(rows))
            margins = {name: margin(some, labels) for name, some in logits.items()}
            said = {name: some.argmax(1) for name, some in logits.items()}
            placebo = torch.maximum(margins["moved"], margins["own"])
            hits = (said["region"] == labels).int()
            by_placebo = ((said["moved"] == labels) | (said["own"] == labels)).int()
            left = {name: margin(logits[name], other_labels) for name in ("plain", "filled", "mixed")}
            kept = [left[name] >= share * left["plain"] for name, share in _INTACT.items()]
            intact = (left["plain"] > 0) & kept[0] & kept[1]
            parts["candidate"].append(rows)
            parts["gain"].append((margins["region"] - placebo).numpy())
            parts["recognised"].append((left["plain"] > 0).numpy())
            parts["intact"].append(intact.numpy())
            parts["overruled"].append((hits - by_placebo).numpy())
    return RegionPairs(**{name: np.concatenate(some) for name, some in parts.items()})


def _mixed(images: Tensor, seeds: list[int]) -> Tensor:
    """Images (n, 3, H, W) with their pixels in random order."""
    orders = [torch.randperm(images[0, 0].numel(), generator=torch.Generator().manual_seed(seed)) for seed in seeds]
    index = torch.stack(orders).to(images.device)[:, None].expand(-1, 3, -1)
    return images.flatten(2).gather(2, index).view_as(images)


def _moved(masks: Tensor, *, seed: int) -> Tensor:
    """(n, H, W): each mask at a random place; of eight, the one that overlaps it least."""
    nothing = torch.empty(len(masks), 0)
    samples = SpuriousSamples(nothing, masks, torch.arange(len(masks)), torch.arange(len(masks)))
    tried = torch.stack([samples.move_masks(seed=8 * seed + number).masks for number in range(8)])
    least = (tried & masks).flatten(2).sum(2).argmin(0)
    return tried[least, torch.arange(len(masks))]


def cluster_findings(
    candidates: Candidates, pairs: RegionPairs, *, least: float = LEAST_OVERRULED
) -> list[dict[str, Any]]:
    """For each cluster, whether its regions do more than their placebos, and how many images they overrule.

    A sign test over candidates, each with the mean gain of its pairs; all clusters together are held to a false
    discovery rate of `LEVEL`. A cluster whose masks cover half of the image has no other place to be moved to: the
    placebo at a random place is then nearly the region itself, and the cluster no finding.

    Args:
        candidates: with their clusters.
        pairs: of `region_pairs`.
        least: smallest share of overruled images that is a finding.

    Returns:
        one entry each, the strongest first: `cluster`, `class`, `size`, `suspicion` (None without evidence); `gain`,
        in logits, and `overruled`, the share of recognised images that are overruled (None where none is recognised;
        one that is recognised by what the region covers counts as not overruled), each with `value`, `low`, `high`
        (95 %, over candidates) and `count`; `p`, and `rate`, the false discovery rate at which the
        regions do more than placebos; `found`.
    """
    found: list[dict[str, Any]] = []
    suspicion = candidates.suspicion
    for cluster in np.unique(candidates.cluster):
        rows = np.flatnonzero(candidates.cluster == cluster)
        here = np.isin(pairs.candidate, rows)
        gains = means_of_clusters(pairs.gain[here], pairs.candidate[here])
        seen = here & pairs.recognised
        overruled = pairs.overruled * pairs.intact
        found.append(
            {
                "cluster": int(cluster),
                "class": candidates.class_names[int(candidates.labels[rows[0]])],
                "size": len(rows),
                "suspicion": None if suspicion is None else round(float(suspicion[rows].mean()), 4),
                "gain": _mean(gains),
                "overruled": _share(means_of_clusters(overruled[seen], pairs.candidate[seen])) if seen.any() else None,
                "p": sign_test(gains),
            }
        )
    for one, rate in zip(found, false_discovery_rates([one["p"] for one in found]).tolist(), strict=True):
        overruled = one["overruled"]
        one |= {"rate": rate, "found": bool(rate <= LEVEL and overruled and overruled["value"] >= least)}
    return sorted(found, key=lambda one: (not one["found"], -(one["overruled"] or {"value": -1.0})["value"]))


def _share(differences: np.ndarray) -> dict[str, float | int]:
    """Of shares from −1 to 1, with an interval like that of `paired_difference`: one more of each extreme, so that it
    is no point where all are alike."""
    more = np.append(differences, (1.0, -1.0))
    reach = norm.ppf(0.975) * float(more.std()) / len(more) ** 0.5
    value, low, high = (float(v) for v in (differences.mean(), more.mean() - reach, more.mean() + reach))
    return Estimate(value, max(-1.0, min(value, low)), min(1.0, max(value, high)), len(differences)).described()


def _mean(values: np.ndarray) -> dict[str, float | int]:
    replicates = bootstrap(lambda weights: weights @ values / len(values), len(values))
    return percentiles(float(values.mean()), replicates, len(values)).described()
