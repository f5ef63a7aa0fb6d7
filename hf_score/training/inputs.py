"""`InputTrainer`: `transformers.Trainer` that takes data sets of any kind, and how training images are drawn."""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler

from ..data.views import is_stream
from ..errors import DataError
from .base_config import BaseConfig
from .checkpoints import CheckpointedTrainer
from .columns import adapted_for_evaluation, class_labels
from .samplers import WeightedSampler

__all__ = ["InputTrainer"]


class InputTrainer(CheckpointedTrainer):
    """`Trainer`, whose data sets are adapted (`hf_score.data.adapt.as_trainable`), and drawn by class where asked."""

    args: BaseConfig  # type: ignore[assignment]
    #: Whether a training set may be a stream, whose images come one after the other.
    takes_streams: ClassVar[bool] = True

    @classmethod
    def check_stream(cls, train_dataset: Any, args: BaseConfig) -> None:
        """Refuse a stream where training needs more than its images one after the other.

        Raises:
            DataError: the method looks at all training images, classes are to be drawn equally, or the stream has no
                length and nothing says how long to train.
        """
        if not is_stream(train_dataset):
            return
        if not cls.takes_streams:
            raise DataError(
                f"{cls.__name__} looks at all training images, and the training set is a stream; collect it with "
                "Dataset.from_list(list(stream))."
            )
        if args.class_balanced:
            raise DataError(
                "class_balanced draws from the images of each class, and the training set is a stream, which has no "
                "images to choose from; leave it off, or give a stream that is balanced."
            )
        try:
            len(train_dataset)
        except TypeError:
            if args.max_steps <= 0:
                raise DataError(
                    "the training set is a stream without a length, so epochs have no end; set max_steps."
                ) from None

    def sample_weights(self) -> Tensor | None:
        """(N,): how often each training image is drawn, in proportion; None for every image once per epoch."""
        if not self.args.class_balanced:
            return None
        labels = class_labels(self.train_dataset)
        if labels is None:
            raise DataError("class_balanced needs a training set with a label column: give one, or leave it off.")
        classes = torch.as_tensor(labels)
        return 1.0 / torch.bincount(classes).double()[classes]

    def _get_train_sampler(self, train_dataset: Dataset | None = None) -> Sampler | None:
        """Draw by `sample_weights`."""
        weights = self.sample_weights()
        if weights is None:
            return super()._get_train_sampler(train_dataset)
        return WeightedSampler(weights, seed=self.args.seed if self.args.data_seed is None else self.args.data_seed)

    def get_eval_dataloader(self, eval_dataset: Any = None) -> DataLoader:
        """Of a data set of any kind that training takes."""
        given = None if isinstance(eval_dataset, str) else eval_dataset
        return super().get_eval_dataloader(
            eval_dataset if given is None else adapted_for_evaluation(given, self.model, labelled=False)
        )

    def get_test_dataloader(self, test_dataset: Any) -> DataLoader:
        """Of a data set of any kind that training takes, with labels or without."""
        return super().get_test_dataloader(adapted_for_evaluation(test_dataset, self.model, labelled=False))
