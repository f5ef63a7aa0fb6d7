"""`datasets` builders that read the raw public folders of the benchmarks, one file per set."""

from hf_score.data.builders.base import FolderBuilder
from hf_score.data.builders.celeba import CelebA
from hf_score.data.builders.isic import ISIC, ISICConfig
from hf_score.data.builders.knee import Knee, KneeConfig
from hf_score.data.builders.waterbirds import Waterbirds, WaterbirdsConfig

__all__ = ["ISIC", "CelebA", "FolderBuilder", "ISICConfig", "Knee", "KneeConfig", "Waterbirds", "WaterbirdsConfig"]
