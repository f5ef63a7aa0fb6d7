"""Image data sets with label-free views for training and group labels for evaluation only.

Loading and checking (`load_data`, `stream_train`), the registry of benchmarks and their making from raw folders
(`build`), and turning images into pixel tensors (`preprocess`).
Nothing here knows of models or of explanations.
"""

from .loading import ImageData, dataset_fingerprint, load_data
from .pixels import ImageCollator, PixelDataset, preprocess, resize_mask, stretched, to_rgb, viewable
from .regions import Regions
from .registry.build import build
from .registry.specs import Benchmark, list_benchmarks
from .streaming import stream_train

__all__ = [
    "Benchmark",
    "ImageCollator",
    "ImageData",
    "PixelDataset",
    "Regions",
    "build",
    "dataset_fingerprint",
    "list_benchmarks",
    "load_data",
    "preprocess",
    "resize_mask",
    "stream_train",
    "stretched",
    "to_rgb",
    "viewable",
]
