"""Where the object is in an image: masks for a shortcut that is everything else, such as a background."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from ..attribution import Explainer
from ..data import to_model_size
from .masks import relevance_mask

if TYPE_CHECKING:
    from transformers import PreTrainedModel

__all__ = ["ObjectFinder"]


@dataclass(frozen=True)
class ObjectFinder:
    """Finds the object by the explanation of a model that names objects, for `find_candidates(find_object=...)`.

    A classifier that goes by the background cannot show where the background ends: its relevance covers a part of it,
    and of the object too. A model trained to name objects (on ImageNet) can: the region that holds most of the
    relevance of the class it says is the object, whatever that class is. Ours, not the paper's. Any other callable
    (B, H, W, 3) uint8 → (B, H, W) bool, a segmentation model, takes its place.

    Attributes:
        model: an image classifier with the head it was trained with: `load_model(name, class_names=None)`.
        processor: its image processor. Images are seen whole and at this model's own input size.
        share: of the relevance that the object holds (see `relevance_mask`). More takes in all of the object and some
            of what is around it.
        batch_size: images per forward pass.
    """

    model: PreTrainedModel
    processor: Any
    share: float = 0.8
    batch_size: int = 32

    def __call__(self, images: np.ndarray) -> Tensor:
        """(B, H, W) bool, True on the object, of (B, H, W, 3) uint8."""
        device = next(self.model.parameters()).device
        found = []
        with Explainer(self.model) as explainer:
            for part in np.array_split(images, max(1, -(-len(images) // self.batch_size))):
                pixel_values = to_model_size(part, self.processor).to(device)
                with torch.no_grad():
                    said = self.model(pixel_values=pixel_values).logits.argmax(dim=1)
                relevance = explainer.explain(pixel_values, said).relevance
                assert relevance is not None
                mask = relevance_mask(relevance, share=self.share, max_area=1.0).float()
                mask = torch.nn.functional.interpolate(mask[:, None], images.shape[1:3], mode="area")[:, 0]
                found.append(mask.cpu() > 0.5)
        return torch.cat(found)
