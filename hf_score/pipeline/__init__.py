"""From data to report: the steps of a run over a run folder, and what a run and a benchmark share."""

from .arguments import RunArguments, parse_arguments
from .run import SeedRun, run
from .run_folder import RunFolder
from .workspace import Workspace

__all__ = ["RunArguments", "RunFolder", "SeedRun", "Workspace", "parse_arguments", "run"]
