"""`datasets` builders that read the raw public folders of the benchmarks, one file per set."""

from .base import FolderBuilder
from .celeba import CelebA
from .isic import ISIC, ISICConfig
from .knee import Knee, KneeConfig
from .waterbirds import Waterbirds, WaterbirdsConfig

__all__ = ["ISIC", "CelebA", "FolderBuilder", "ISICConfig", "Knee", "KneeConfig", "Waterbirds", "WaterbirdsConfig"]
