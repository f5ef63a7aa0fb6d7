"""`hf-score audit`: from the names of a model and a data set to a page, a JSON file, a card section and a badge."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch

from ..data.views import is_stream
from ..errors import DataError
from ..pipeline import Workspace
from .audit import AuditOptions, audit
from .page import write_audit

__all__ = ["run_audit"]


def run_audit(
    model: str,
    dataset: Any,
    output_dir: str | os.PathLike[str] | None = None,
    *,
    weights: str | None = None,
    image_size: int | None = None,
    class_names: Sequence[str] | None = None,
    label_column: str | None = None,
    masks: str | None = None,
    invert_masks: bool = False,
    options: AuditOptions | None = None,
    batch_size: int = 32,
    say: Callable[[str], None] = print,
) -> Path:
    """Audit a trained classifier, and write what was found.

    Args:
        model: Hub id, local folder, or timm name.
        dataset: what `load_data` takes; no stream.
        output_dir: folder to write; default: `audits/` and the model's name.
        weights: local weights for a timm name.
        image_size: input size, if not the model's own.
        class_names: names of the classes 0, 1, ...
        label_column: column of the labels.
        masks, invert_masks: masks of a region, such as the background, to exchange; see `load_data`.
        options: how much is looked at.
        batch_size: images per forward pass.
        say: told what is being done.

    Returns:
        the page's path.

    Raises:
        DataError: a stream, data that cannot be read, or of one class.
        ModelError: a model that cannot be loaded, has no head for the classes, or has them in another order.
    """
    if is_stream(dataset):
        raise DataError(
            "An audit draws images of every class from all of the data, and a stream can only be read from its "
            "beginning: give a folder, a Hub id or a data set with a length."
        )
    workspace = Workspace(
        {
            "name_or_path": dataset,
            "class_names": class_names,
            "label_column": label_column,
            "masks": masks,
            "invert_masks": invert_masks,
        },
        {"name_or_path": model, "weights": weights, "image_size": image_size},
        seed=0 if options is None else options.seed,
        device="cuda" if torch.cuda.is_available() else "cpu",
        batch_size=batch_size,
    )
    found = audit(workspace, options, model_name=model, say=say)
    folder = Path(output_dir or Path("audits") / Path(model).name)
    page = write_audit(folder, found)
    summary = found.content["summary"]
    say("\n".join([f"\n{summary['headline']}.", *summary["sentences"], ""]))
    return page
