"""From data to report: the steps of a run over a run folder, and what a run and a benchmark share."""

from .run import Run, RunArguments, run

__all__ = ["Run", "RunArguments", "run"]
