"""Worst-group accuracy and its family as a metric of `evaluate`.

`evaluate` copies this file and `groups.py` when it loads them, and reads the imports line by line: one on each.
"""

from typing import Any

import datasets
import evaluate
import numpy as np

from .groups import group_metrics

__all__ = ["WorstGroupAccuracy"]

_DESCRIPTION = """
Accuracy of the worst group, and the averages that are reported beside it. A group is usually a pair of class and
spurious attribute, such as "waterbird on land"; a classifier that relies on the attribute fails in the groups where it
points to another class, which plain accuracy hides when those groups are small.
"""

_KWARGS_DESCRIPTION = """
Args:
    predictions: list of int, the predicted class ids.
    references: list of int, the true class ids.
    groups: list of int, the group of each example, from 0.
    train_group_counts: list of int, the number of training examples of each group (optional). Adds
        `weighted_accuracy`.
    group_names: list of str, the name of each group (optional). Default: its number. Without either of these two, the
        groups are those up to the highest number given.

Returns:
    accuracy: share of all examples that are right.
    worst_group_accuracy: the lowest accuracy of any group.
    mean_group_accuracy: mean of the groups' accuracies, each group weighing the same.
    weighted_accuracy: mean of the groups' accuracies, weighted by their training size. nan where a group with training
        examples has none here.
    group_accuracy/NAME: accuracy of each group. nan for a group without examples, which counts in no average.

Examples:

    >>> import evaluate
    >>> metric = evaluate.load("hf_score/evaluation/worst_group_accuracy")  # on the Hub: OWNER/worst_group_accuracy
    >>> metric.compute(predictions=[0, 0, 1, 1], references=[0, 1, 1, 1], groups=[0, 1, 1, 2])
    {'accuracy': 0.75, 'worst_group_accuracy': 0.5, 'mean_group_accuracy': 0.8333333333333334, \
'group_accuracy/0': 1.0, 'group_accuracy/1': 0.5, 'group_accuracy/2': 1.0}
    >>> metric.compute(
    ...     predictions=[0, 0, 1, 1],
    ...     references=[0, 1, 1, 1],
    ...     groups=[0, 1, 1, 2],
    ...     train_group_counts=[10, 80, 10],
    ...     group_names=["landbird", "waterbird on land", "waterbird on water"],
    ... )["weighted_accuracy"]
    0.6
"""

_CITATION = """
@inproceedings{sagawa2020distributionally,
  title     = {Distributionally Robust Neural Networks for Group Shifts: On the Importance of Regularization for \
Worst-Case Generalization},
  author    = {Sagawa, Shiori and Koh, Pang Wei and Hashimoto, Tatsunori B. and Liang, Percy},
  booktitle = {International Conference on Learning Representations},
  year      = {2020}
}
"""


@evaluate.utils.file_utils.add_start_docstrings(_DESCRIPTION, _KWARGS_DESCRIPTION)
class WorstGroupAccuracy(evaluate.Metric):
    """`hf_score.evaluation.group_metrics`, flat and in floats, as `evaluate` wants it."""

    def _info(self) -> evaluate.MetricInfo:
        whole_numbers = datasets.Value("int64")
        return evaluate.MetricInfo(
            description=_DESCRIPTION,
            citation=_CITATION,
            inputs_description=_KWARGS_DESCRIPTION,
            features=datasets.Features(predictions=whole_numbers, references=whole_numbers, groups=whole_numbers),
            reference_urls=["https://arxiv.org/abs/1911.08731"],
        )

    def _compute(
        self,
        predictions: Any,
        references: Any,
        groups: Any,
        train_group_counts: list[int] | None = None,
        group_names: list[str] | None = None,
    ) -> dict[str, float]:
        if group_names is None:
            known = len(train_group_counts) if train_group_counts is not None else int(np.max(groups, initial=-1)) + 1
            group_names = [str(group) for group in range(known)]
        metrics = group_metrics(
            predictions, references, groups, group_names=group_names, train_group_counts=train_group_counts
        )
        names = ["accuracy", "worst_group_accuracy", "mean_group_accuracy"]
        if train_group_counts is not None:
            names.append("weighted_accuracy")
        flat = {name: metrics[name] for name in names}
        flat |= {f"group_accuracy/{name}": value for name, value in metrics["group_accuracy"].items()}
        return {name: float("nan") if value is None else value for name, value in flat.items()}
