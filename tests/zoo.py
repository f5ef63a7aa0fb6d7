"""A small model with random weights for every example in the table of families."""

import timm
import torch
import transformers
from torch import nn

_HIDDEN = {"hidden_size": 48, "num_hidden_layers": 2, "num_attention_heads": 3, "intermediate_size": 96}
_VIT = {**_HIDDEN, "image_size": 32, "patch_size": 8, "initializer_range": 0.2}
_CONFIGS = {
    "ResNetForImageClassification": {"embedding_size": 8, "hidden_sizes": [64, 128], "depths": [1, 2]},
    "SwinForImageClassification": {
        "image_size": 32,
        "patch_size": 2,
        "embed_dim": 12,
        "depths": [2, 2],
        "num_heads": [2, 2],
        "window_size": 4,
        "initializer_range": 0.2,
    },
}
#: Settings that make timm's models small, and the smallest image that they take.
_TIMM = {
    "resnet18": {"layers": (1, 1, 1, 1)},
    "wide_resnet50_2": {"layers": (1, 1, 1, 1)},
    "resnext50_32x4d": {"layers": (1, 1, 1, 1)},
    "seresnet18": {"layers": (1, 1, 1, 1)},
    "ecaresnet26t": {"layers": (1, 1, 1, 1)},
    "resnetv2_18": {"layers": (1, 1, 1, 1)},
    "densenet121": {"block_config": (2, 2, 2, 2)},
    "vgg11": {"mlp_ratio": 0.02},
    "vgg11_bn": {"mlp_ratio": 0.02},
    "deit_tiny_patch16_224": {"depth": 3, "img_size": 64},
    "deit_tiny_distilled_patch16_224": {"depth": 3, "img_size": 64},
    "deit3_small_patch16_224": {"depth": 3, "img_size": 64},
    "eva02_tiny_patch14_224": {"depth": 3, "img_size": 56},
    "vit_small_patch16_dinov3": {"depth": 3, "img_size": 64},
    "swin_tiny_patch4_window7_224": {"depths": (2, 2), "embed_dim": 24, "num_heads": (2, 4), "img_size": 56},
    "maxvit_rmlp_pico_rw_256": {"img_size": 64},
    "coatnet_nano_rw_224": {"img_size": 64},
}
_SIZES = {"inception_v3": 96}


def make(name: str, *, num_classes: int = 5) -> tuple[nn.Module, int]:
    """The model, in evaluation mode, and the size of its images."""
    if name == "torch.nn.Sequential":
        return _sequential(num_classes), 32
    if name.startswith("torchvision"):
        return _torchvision(name.removeprefix("torchvision "), num_classes), 32
    if name.endswith("ForImageClassification"):
        return _transformers(name, num_classes), 32
    settings = _TIMM.get(name, {})
    model = timm.create_model(name, num_classes=num_classes, **settings)
    return _lively(model.eval()), _SIZES.get(name, settings.get("img_size", 64))


def _lively(model: nn.Module) -> nn.Module:
    """Layer scales start near zero, and heads too: all that a test could see would be the residual stream."""
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.endswith((".gamma", ".gamma_1", ".gamma_2")) and parameter.ndim == 1:
                parameter.fill_(0.5)
        heads = [m for m in model.modules() if isinstance(m, nn.Linear | nn.Conv2d)]
        heads[-1].weight.normal_(std=0.1)
    return model


def _transformers(name: str, num_classes: int) -> nn.Module:
    kind = name.removesuffix("ForImageClassification")
    config_class = getattr(transformers, f"{kind}Config")
    settings = _CONFIGS.get(name, _VIT)
    if kind in ("CLIP", "Siglip"):
        config = config_class(vision_config=settings)
        config.num_labels = num_classes
        config.initializer_factor = 5.0
    else:
        config = config_class(**settings, num_labels=num_classes)
    return getattr(transformers, name)(config).eval()


def _torchvision(name: str, num_classes: int) -> nn.Module:
    from torchvision import models
    from torchvision.models import resnet, vgg

    if name.startswith("vgg"):
        model = vgg.VGG(vgg.make_layers([8, "M", 16, 16, "M"], batch_norm=True))
        model.classifier = nn.Sequential(
            nn.Linear(16 * 49, 32), nn.ReLU(True), nn.Dropout(), nn.Linear(32, num_classes)
        )
        return model.eval()
    if name.startswith("resnet"):
        return resnet.ResNet(resnet.BasicBlock, [1, 1, 1, 1], num_classes=num_classes).eval()
    if name.startswith("densenet"):
        small = {"growth_rate": 8, "block_config": (2, 2, 2, 2), "num_init_features": 16}
        return models.DenseNet(**small, num_classes=num_classes).eval()
    if name.startswith("convnext"):
        stages = [models.convnext.CNBlockConfig(16, 32, 2), models.convnext.CNBlockConfig(32, None, 2)]
        return _lively(models.ConvNeXt(stages, layer_scale=0.5, num_classes=num_classes).eval())
    if name.startswith("swin"):
        v2 = "v2" in name
        parts = {
            "block": models.swin_transformer.SwinTransformerBlockV2 if v2 else None,
            "downsample_layer": models.swin_transformer.PatchMergingV2 if v2 else models.swin_transformer.PatchMerging,
        }
        size = {"patch_size": [2, 2], "embed_dim": 12, "depths": [2, 2], "num_heads": [2, 2], "window_size": [4, 4]}
        return _lively(models.SwinTransformer(**size, **parts, num_classes=num_classes).eval())
    if name.startswith("efficientnet_v2"):
        from torchvision.models.efficientnet import EfficientNet, FusedMBConvConfig, MBConvConfig

        stages = [FusedMBConvConfig(1, 3, 1, 24, 24, 1), MBConvConfig(4, 3, 2, 24, 48, 2)]
        return _lively(EfficientNet(stages, dropout=0.2, last_channel=96, num_classes=num_classes).eval())
    settings = {"width_mult": 0.5} if name.startswith("mobilenet") else {}
    model = getattr(models, name)(num_classes=num_classes, **settings).eval()
    for module in model.modules():
        if isinstance(module, nn.Conv2d):  # torchvision starts depthwise ones so small that the signal fades
            nn.init.kaiming_normal_(module.weight)
    return _lively(model)


def _sequential(num_classes: int) -> nn.Module:
    return nn.Sequential(
        nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(inplace=True), nn.MaxPool2d(2)),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(4, num_classes),
    ).eval()
