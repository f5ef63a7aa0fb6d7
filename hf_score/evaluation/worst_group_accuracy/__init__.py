"""Accuracy per group, and its `evaluate` metric: this folder is also the metric's Space, and needs no hf-score."""
