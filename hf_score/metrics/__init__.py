"""Figures for evaluation, as plain numpy functions: accuracy per group, and relevance inside the spurious region."""

from hf_score.metrics.relevance import relevance_in_region
from hf_score.metrics.worst_group_accuracy.groups import group_metrics

__all__ = ["group_metrics", "relevance_in_region"]
