"""From data to report: the steps of a run over a run folder, and what a run and a benchmark share."""

from .arguments import RunArguments, parse_arguments
from .controls import methods_of
from .results import merge_results
from .run import SeedRun, data_of_run, finish_runs, run, start_runs
from .run_folder import RunFolder
from .workspace import Workspace

__all__ = [
    "RunArguments",
    "RunFolder",
    "SeedRun",
    "Workspace",
    "data_of_run",
    "finish_runs",
    "merge_results",
    "methods_of",
    "parse_arguments",
    "run",
    "start_runs",
]
