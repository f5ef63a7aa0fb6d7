"""Small models, images and samples for tests, made on the spot."""

import numpy as np
import torch
from transformers import ViTConfig, ViTForImageClassification, ViTImageProcessor

from hf_score.data import PixelDataset
from hf_score.detection import SpuriousSamples


def tiny_vit(seed: int = 0, **changes) -> ViTForImageClassification:
    """A ViT of 3 blocks on 32-pixel images."""
    torch.manual_seed(seed)
    config = ViTConfig(
        hidden_size=32,
        num_hidden_layers=3,
        num_attention_heads=4,
        intermediate_size=64,
        image_size=32,
        patch_size=8,
        num_labels=2,
        id2label={0: "plain", 1: "square"},
        label2id={"plain": 0, "square": 1},
        **changes,
    )
    return ViTForImageClassification(config).eval()


def tiny_processor() -> ViTImageProcessor:
    return ViTImageProcessor(size={"height": 32, "width": 32})


def square_images(count: int = 32, *, size: int = 32, seed: int = 0) -> PixelDataset:
    """Noise images; those of class 1 carry a bright square in the corner."""
    generator = torch.Generator().manual_seed(seed)
    pixel_values = torch.randn(count, 3, size, size, generator=generator) * 0.3
    labels = torch.arange(count) % 2
    pixel_values[labels == 1, :, : size // 4, : size // 4] += 2.0
    return PixelDataset(pixel_values=pixel_values, labels=labels, idx=torch.arange(count))


def square_samples(count: int = 8, *, size: int = 32, seed: int = 1) -> SpuriousSamples:
    """Spurious-positive samples of class 1, masked to the square."""
    images = square_images(2 * count, size=size, seed=seed)
    chosen = np.flatnonzero(images.labels.numpy() == 1)
    masks = torch.zeros(count, size, size, dtype=torch.bool)
    masks[:, : size // 4, : size // 4] = True
    return SpuriousSamples(images.pixel_values[chosen], masks, images.labels[chosen], images.idx[chosen])
