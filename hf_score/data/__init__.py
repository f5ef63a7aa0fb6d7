"""Image data sets with label-free views for training and group labels for evaluation only.

Loading and checking (`load_data`, `stream_train`), the registry of benchmarks and their making from raw folders
(`build`), and turning images into pixel tensors (`preprocess`).
Nothing here knows of models or of explanations.
"""

from .decode import FormatError, open_image
from .loading import ImageData, dataset_fingerprint, load_data
from .pixels import ImageCollator, PixelDataset, preprocess, preprocess_mask, to_model_size, to_rgb, to_uint8
from .regions import Regions
from .registry.build import build
from .registry.specs import Benchmark, list_datasets
from .streaming import stream_train

__all__ = [
    "Benchmark",
    "FormatError",
    "ImageCollator",
    "ImageData",
    "PixelDataset",
    "Regions",
    "build",
    "dataset_fingerprint",
    "list_datasets",
    "load_data",
    "open_image",
    "preprocess",
    "preprocess_mask",
    "stream_train",
    "to_model_size",
    "to_rgb",
    "to_uint8",
]
