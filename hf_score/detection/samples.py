"""Spurious-positive samples as tensors, ready for the penalty, and how much a model relies on them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields

import torch
from torch import Tensor, nn

__all__ = ["SpuriousSamples", "reliance", "swap_regions"]


@dataclass(frozen=True)
class SpuriousSamples:
    """The samples S of METHOD step 5.

    Attributes:
        pixel_values: (t, 3, H, W), the processed original images.
        masks: (t, H, W), bool; True on the most relevant region.
        labels: (t,), the class whose evidence is spurious.
        idx: (t,), the stable ids in the data set.
    """

    pixel_values: Tensor
    masks: Tensor
    labels: Tensor
    idx: Tensor

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def masked(self) -> Tensor:
        """(t, 3, H, W): only the most relevant region is kept; the fill is 0, the processor's mean."""
        return self.pixel_values * self.masks[:, None]

    def __getitem__(self, chosen: Tensor | slice | Sequence[int]) -> SpuriousSamples:
        return SpuriousSamples(**{f.name: getattr(self, f.name)[chosen] for f in fields(self)})

    def to(self, device: torch.device | str) -> SpuriousSamples:
        """The same samples on `device`."""
        return SpuriousSamples(**{f.name: getattr(self, f.name).to(device) for f in fields(self)})

    def split(self, *, held_out_share: float, seed: int) -> tuple[SpuriousSamples, SpuriousSamples]:
        """A seeded split, class by class, into samples to penalise and samples that only measure reliance.

        A class with one sample gives it to the penalty.
        """
        generator = torch.Generator().manual_seed(seed)
        penalised: list[int] = []
        held_out: list[int] = []
        for label in self.labels.unique().tolist():
            members = (self.labels == label).nonzero().flatten()
            members = members[torch.randperm(len(members), generator=generator)].tolist()
            cut = min(round(len(members) * held_out_share), len(members) - 1)
            held_out += members[:cut]
            penalised += members[cut:]
        return self[sorted(penalised)], self[sorted(held_out)]


def swap_regions(samples: SpuriousSamples, hosts: Tensor, host_labels: Tensor) -> tuple[Tensor, Tensor]:
    """Swap what is inside the mask between each sample and its host; both keep the label of what is outside.

    "This region should not be used for prediction", said with examples: hosts get the spurious attribute and stay what
    they are, samples lose it and stay what they are. Ours, not the paper's.

    Args:
        samples: t spurious-positive samples.
        hosts: (t, 3, H, W), images of any class.
        host_labels: (t,).

    Returns:
        images (2t, 3, H, W) and their labels (2t,), the hosts first.
    """
    masks = samples.masks[:, None]
    images = torch.cat(
        [torch.where(masks, samples.pixel_values, hosts), torch.where(masks, hosts, samples.pixel_values)]
    )
    return images, torch.cat([host_labels, samples.labels])


def reliance(model: nn.Module, samples: SpuriousSamples, *, batch_size: int = 64) -> Tensor:
    """Mean class margin that the masked images have over an empty image, in logits (METHOD step 6, ours).

    0 means: the region tells the model nothing about the class. The empty image is subtracted because a class prior
    alone is no evidence.

    Args:
        model: classifier in eval mode whose output has `.logits` (B, K), K ≥ 2.
        samples: on the model's device.

    Returns:
        scalar tensor on the CPU; divide by the starting model's for a share.
    """
    empty = _margins(model, torch.zeros_like(samples.pixel_values[:1]))[0]
    differences = []
    for start in range(0, len(samples), batch_size):
        part = samples[slice(start, start + batch_size)]
        of_class = _margins(model, part.masked).gather(1, part.labels[:, None])[:, 0]
        differences.append(of_class - empty[part.labels])
    return torch.cat(differences).mean().float().cpu()


def _margins(model: nn.Module, pixel_values: Tensor) -> Tensor:
    """(B, K): each logit minus the strongest of the others."""
    logits = model(pixel_values=pixel_values).logits.float()
    top = logits.topk(2, dim=1)
    is_top = torch.arange(logits.shape[1], device=logits.device) == top.indices[:, :1]
    return logits - torch.where(is_top, top.values[:, 1:], top.values[:, :1])
