"""`datasets` builders that read the raw public folders of the benchmarks, one file per set or kind of recipe."""

from .base import FolderBuilder
from .birds import BirdsReversed, BirdsReversedConfig
from .celeba import CelebA
from .elpv import ELPV, ELPVConfig
from .isic import ISIC, ISICConfig
from .knee import Knee, KneeConfig
from .layouts import BFFHQ, NICO, CheXpert, MetaShift, Spawrious, UrbanCars
from .mark import Mark, MarkConfig
from .two_cues import FashionTwoCues, FashionTwoCuesConfig
from .waterbirds import Waterbirds, WaterbirdsConfig

__all__ = [
    "BFFHQ",
    "ELPV",
    "ISIC",
    "NICO",
    "BirdsReversed",
    "BirdsReversedConfig",
    "CelebA",
    "CheXpert",
    "ELPVConfig",
    "FashionTwoCues",
    "FashionTwoCuesConfig",
    "FolderBuilder",
    "ISICConfig",
    "Knee",
    "KneeConfig",
    "Mark",
    "MarkConfig",
    "MetaShift",
    "Spawrious",
    "UrbanCars",
    "Waterbirds",
    "WaterbirdsConfig",
]
