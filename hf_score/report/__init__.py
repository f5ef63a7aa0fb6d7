"""What a run leaves to look at: figures, the offline HTML page, the before/after table and the model card.

Everything here is made from the `results.json` dictionary and images already computed; no model is run.
"""

from .card import render_model_card
from .figures import contact_sheet, group_bars, heatmap_pairs, training_curves
from .html import render_report, write_report
from .summary import Conclusion, MethodSummary, Spread, judge, render_table, summarise

__all__ = [
    "Conclusion",
    "MethodSummary",
    "Spread",
    "contact_sheet",
    "group_bars",
    "heatmap_pairs",
    "judge",
    "render_model_card",
    "render_report",
    "render_table",
    "summarise",
    "training_curves",
    "write_report",
]
