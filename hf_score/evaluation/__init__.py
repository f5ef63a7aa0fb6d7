"""Figures for evaluation: accuracy per group and class, relevance inside the spurious region, what inserting it does.

One definition of every measure. Group labels are read here.
"""

from .beside_worst_group import auroc_within_attribute, balanced_accuracy, chance_levels
from .classes import classification_metrics
from .estimates import ESTIMATES, SELECTION, Estimates
from .explained_test_set import ExplainedTestSet
from .insertion import insertion_effects
from .probabilities import auroc, brier_score, calibration_error
from .relevance import relevance_in_region
from .shortcut_gaps import shortcut_gaps
from .verdict import JudgedRegions, Verdicts, region_figures
from .worst_group_accuracy.groups import group_metrics

__all__ = [
    "ESTIMATES",
    "SELECTION",
    "Estimates",
    "ExplainedTestSet",
    "JudgedRegions",
    "Verdicts",
    "auroc",
    "auroc_within_attribute",
    "balanced_accuracy",
    "brier_score",
    "calibration_error",
    "chance_levels",
    "classification_metrics",
    "group_metrics",
    "insertion_effects",
    "region_figures",
    "relevance_in_region",
    "shortcut_gaps",
]
