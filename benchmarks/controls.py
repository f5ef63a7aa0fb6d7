"""What SCORE is compared with in `search.py`: other uses of the same samples, masks and activations."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from hf_score.attribution import Explainer, find_layer
from hf_score.data import PixelDataset
from hf_score.detection import relevance_mask
from hf_score.trainer import SCORETrainer

__all__ = ["TRAINERS", "cut_out"]


class _OfSamples(SCORETrainer):
    """λ · a loss on the step's samples, 1 on the starting model; no exchanged copies."""

    def _penalty(self, share: int) -> tuple[Tensor, Tensor]:
        assert self.spurious_samples is not None
        model = self.accelerator.unwrap_model(self.model)
        samples = self.spurious_samples.to(self.args.device)[self._samples_of(self._turns_of(share))]
        value = self.sample_loss(model, samples)
        if self._scale is None:
            self._scale = value.detach().clamp(min=1e-12)
        return value / self._scale, torch.zeros_like(value)


class UniformTarget(_OfSamples):
    """The masked images should be uninformative: cross-entropy to the uniform distribution, above its least."""

    def sample_loss(self, model: nn.Module, samples: Any) -> Tensor:
        logits = model(pixel_values=samples.masked).logits.float()
        classes = torch.tensor(float(logits.shape[1]))
        return -logits.log_softmax(dim=1).mean(dim=1).mean() - classes.log()


class L2Activations(_OfSamples):
    """Mean a² of all neurons at the probe layer, of the same samples."""

    def sample_loss(self, model: nn.Module, samples: Any) -> Tensor:
        with find_layer(model, self.args.score_layer).capture() as captured:
            model(pixel_values=samples.pixel_values)
        return captured.activation.float().square().mean()


def cut_out(model: nn.Module, train: PixelDataset, *, mask_share: float, mask_area: float) -> PixelDataset:
    """Every training image twice: as it is, and with the most relevant region of its class filled (MaskTune-like)."""
    images, labels, cut = train.pixel_values, train.labels, []
    with Explainer(model, batch_size=50) as explainer:
        for part in torch.arange(len(labels)).split(50):
            relevance = explainer.explain(images[part], labels[part]).relevance
            masks = relevance_mask(relevance, share=mask_share, max_area=mask_area)
            cut.append(images[part] * ~masks[:, None])
    return PixelDataset(torch.cat([images, *cut]), torch.cat([labels, labels]), torch.cat([train.idx, train.idx]))


TRAINERS = {"score": SCORETrainer, "uniform": UniformTarget, "l2": L2Activations, "cut_out": SCORETrainer}
