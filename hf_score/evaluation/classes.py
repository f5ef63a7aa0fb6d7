"""Accuracy by class: what may be known without group labels."""

from __future__ import annotations

import numpy as np
from transformers import EvalPrediction

__all__ = ["classification_metrics"]


def classification_metrics(prediction: EvalPrediction) -> dict[str, float]:
    """Accuracy and worst-class accuracy: what may be known without group labels.

    Args:
        prediction: logits (N, K) and class labels (N,).
    """
    logits = prediction.predictions[0] if isinstance(prediction.predictions, tuple) else prediction.predictions
    labels = np.asarray(prediction.label_ids)
    correct = logits.argmax(axis=-1) == labels
    per_class = [correct[labels == label].mean() for label in np.unique(labels)]
    return {"accuracy": float(correct.mean()), "worst_class_accuracy": float(min(per_class))}
