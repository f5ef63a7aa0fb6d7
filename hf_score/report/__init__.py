"""What a run leaves to look at: figures, the offline HTML page, the before/after table and the model card.

Everything here is made from the `results.json` dictionary and images already computed; no model is run.
"""

from .card import render_model_card
from .conclusions import Conclusion, conclusions, judge, judge_regions, region_outcome, render_conclusions
from .figures import candidate_sheet, contact_sheet, heatmap_pairs, overlay, png_bytes
from .html import render_report, write_report
from .methods import FORMS, METHODS, Method, find_method, form_of, label_of
from .plots import group_bars, training_curves
from .summary import MethodSummary, Spread, render_table, summarise

__all__ = [
    "FORMS",
    "METHODS",
    "Conclusion",
    "Method",
    "MethodSummary",
    "Spread",
    "candidate_sheet",
    "conclusions",
    "contact_sheet",
    "find_method",
    "form_of",
    "group_bars",
    "heatmap_pairs",
    "judge",
    "judge_regions",
    "label_of",
    "overlay",
    "png_bytes",
    "region_outcome",
    "render_conclusions",
    "render_model_card",
    "render_report",
    "render_table",
    "summarise",
    "training_curves",
    "write_report",
]
