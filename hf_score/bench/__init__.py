"""Benchmarks: a plan of methods, data sets, models and seeds → one row per run → tables and plots.

`docs/bench.md` has the format of a plan. Training code never sees a group label that its method did not declare.
"""

from .methods import find_method, list_methods
from .plan import Cell, Plan
from .runner import run_plan
from .store import Store

__all__ = ["Cell", "Plan", "Store", "find_method", "list_methods", "run_plan"]
