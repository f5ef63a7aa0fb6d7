"""Small models with known weights for the attribution tests."""

import os
import re
from pathlib import Path

import pytest
import torch
from torch import nn


@pytest.fixture(autouse=True)
def seeded():
    torch.manual_seed(0)


@pytest.fixture
def zero_biases():
    """Make a model homogeneous: random batch norm statistics, and every bias zero once batch norms are merged."""

    def apply(model: nn.Module) -> nn.Module:
        with torch.no_grad():
            for module in model.modules():
                if isinstance(module, nn.BatchNorm2d):
                    module.running_mean.normal_(std=0.1)
                    module.running_var.uniform_(0.5, 1.5)
                    module.weight.uniform_(0.5, 1.5)
                    scale = module.weight / (module.running_var + module.eps).sqrt()
                    module.bias.copy_(module.running_mean * scale)
                elif getattr(module, "bias", None) is not None:
                    module.bias.zero_()
            # timm starts heads with weights so small that the stabilisers would show beside the logits
            for module in [m for m in model.modules() if isinstance(m, nn.Linear)][-1:]:
                module.weight.normal_(std=0.1)
        return model

    return apply


@pytest.fixture
def homogeneous(zero_biases):
    """No biases, and nothing for class tokens and position embeddings: only pixels can have relevance."""

    def apply(model: nn.Module) -> nn.Module:
        zero_biases(model)
        with torch.no_grad():
            for name, parameter in model.named_parameters():
                owner, _, kind = name.rpartition(".")
                if kind.endswith("bias") and not isinstance(model.get_submodule(owner), nn.BatchNorm2d):
                    parameter.zero_()
                if re.search(r"pos_embed|position_embedding|_tokens?$|class_embedding", name):
                    parameter.zero_()
        return model

    return apply


@pytest.fixture
def transformers_vit():
    """Build a tiny transformers ViT or DeiT for 32-pixel images."""
    from transformers import DeiTConfig, DeiTForImageClassification, ViTConfig, ViTForImageClassification

    def build(kind: str = "vit", *, attention: str = "sdpa", **settings) -> nn.Module:
        make_config, make_model = {
            "vit": (ViTConfig, ViTForImageClassification),
            "deit": (DeiTConfig, DeiTForImageClassification),
        }[kind]
        config = make_config(
            **{
                "hidden_size": 48,
                "num_hidden_layers": 3,
                "num_attention_heads": 3,
                "intermediate_size": 96,
                "image_size": 32,
                "patch_size": 8,
                "num_labels": 5,
                "initializer_range": 0.2,  # large enough for attention to be far from uniform
            }
            | settings
        )
        config._attn_implementation = attention
        return make_model(config)

    return build


@pytest.fixture(scope="session")
def weights_folder():
    """The folder with real weights, where there is one."""
    folder = Path(os.environ.get("HF_SCORE_DATA", Path(__file__).parents[3] / "shared" / "data")) / "weights"
    if not folder.is_dir():
        pytest.skip("no real weights here; set HF_SCORE_DATA")
    return folder
