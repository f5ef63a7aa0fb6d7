"""The columns of a data set: which a training set may carry, and how labels are read from whatever holds them.

Here is the wall between group labels and training: `TRAINING_COLUMNS` is a list of what may pass.
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import islice
from typing import Any

from datasets import Dataset

from ..data.adapt import as_trainable
from ..data.classes import ClassNames, class_names_of, sorted_names
from ..data.loading import ImageData
from ..data.views import is_stream
from ..errors import DataError
from ..models import classes_of_model
from .base_config import BaseConfig

__all__ = [
    "TRAINING_COLUMNS",
    "adapted",
    "adapted_for_evaluation",
    "class_labels",
    "class_names",
    "column",
    "column_names",
    "refuse_groups_in_selection",
    "refuse_groups_in_training",
]

#: All that a training set may carry. A group or an attribute has no way in, whatever it is called.
TRAINING_COLUMNS = frozenset({"idx", "image", "pixel_values", "label", "labels"})

_ITEMS_LOOKED_AT = 32


def column(dataset: Any, name: str) -> list | None:
    """The values of a column, or of an item's key, in the data set's order; None where there is none."""
    if name not in (column_names(dataset) or ()):
        return None
    if hasattr(dataset, "column_names"):
        return list(dataset[name])
    return [item[name] for item in dataset]


def class_labels(dataset: Any) -> list | None:
    """The class ids of a data set in its order; None where it has no label column that can be read, as in a stream."""
    if is_stream(dataset):
        return None
    return column(dataset, "label") or column(dataset, "labels")


def class_names(dataset: Any) -> ClassNames | None:
    """The names of a data set's classes by id, stated where they are not merely sorted; None where it has none."""
    names = class_names_of(dataset)
    if names is None:
        return None
    by_sorting = sorted_names(names)
    return ClassNames(names, stated=by_sorting.stated or names != by_sorting)


def column_names(dataset: Any) -> list[str] | None:
    """The columns of a data set, or the keys of its first item; None where neither is known."""
    names = getattr(dataset, "column_names", None)
    if names is None and dataset is not None and hasattr(dataset, "__getitem__") and len(dataset):
        first = dataset[0]
        names = list(first) if isinstance(first, Mapping) else None
    return names


def adapted(dataset: Any, model: Any, what: str = "the training set", *, labelled: bool = True) -> Any:
    """The data set as `hf_score.data.adapt` makes it readable, with labels that are words mapped by the model's names.

    Raises:
        DataError: as `as_trainable`.
    """
    if isinstance(dataset, ImageData):
        raise DataError(f"{what} is all that load_data gives; give one view of it, such as data.train or data.test.")
    named = classes_of_model(model)
    return as_trainable(dataset, what=what, class_names=[named[i] for i in sorted(named)], labelled=labelled)


def adapted_for_evaluation(dataset: Any, model: Any, *, labelled: bool = True) -> Any:
    """One evaluation set, or each of several by name, as `adapted`."""
    if isinstance(dataset, dict):
        return {
            name: adapted(one, model, f"the evaluation set '{name}'", labelled=labelled)
            for name, one in dataset.items()
        }
    return adapted(dataset, model, "the evaluation set", labelled=labelled)


def _keys(dataset: Any) -> set[str]:
    """The columns of a data set and the keys of its items: of all in a list, else of some that are evenly spread, or
    of a stream's first."""
    if isinstance(dataset, Mapping | ImageData):  # several sets by mistake, which `adapted` refuses
        return set()
    keys = set(getattr(dataset, "column_names", None) or ())
    if is_stream(dataset):
        first = () if keys else islice(dataset, _ITEMS_LOOKED_AT)
        return keys.union(*(item for item in first if isinstance(item, Mapping)))
    formatted = isinstance(dataset, Dataset) and dataset.format["type"] == "custom"
    if (keys and not formatted) or not hasattr(dataset, "__getitem__") or not hasattr(dataset, "__len__"):
        return keys
    count = len(dataset)
    seen = range(count) if isinstance(dataset, list | tuple) else range(0, count, max(1, count // _ITEMS_LOOKED_AT))
    for position in {*seen, *range(max(0, count - 1), count)}:
        item = dataset[position]
        keys |= set(item) if isinstance(item, Mapping) else set()
    return keys


def refuse_groups_in_training(dataset: Any) -> None:
    extra = sorted(_keys(dataset) - TRAINING_COLUMNS)
    if extra:
        raise DataError(
            f"the training set has the column{'s' if len(extra) > 1 else ''} {', '.join(extra)}: group and attribute "
            "labels must not reach training, so drop all columns but idx, image and label "
            "(hf_score.data.load_data(...).train is that view)."
        )


def refuse_groups_in_selection(dataset: Any, args: BaseConfig) -> None:
    chooses = args.load_best_model_at_end or args.metric_for_best_model is not None
    datasets = dataset.values() if isinstance(dataset, dict) else [dataset]
    if chooses and not args.allow_group_oracle and any("group" in _keys(d) for d in datasets):
        raise DataError(
            "the evaluation set that would choose the checkpoint has a group column, and an average over a set "
            "balanced by group leaks the groups: choose on data held out from training "
            "(hf_score.data.load_data(...).held_out), or set allow_group_oracle=True."
        )
