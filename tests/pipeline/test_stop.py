"""Stopping a run and going on with it: one sentence, the same result, and never half of it with other options."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from pipeline_runs import TINY, folder_of_squares

from hf_score.cli import main
from hf_score.pipeline import SeedRun, parse_arguments
from hf_score.pipeline.run_folder import RunFolder
from hf_score.training import SCORETrainer

FAST = [*TINY, "--num_candidates", "4", "--decider", "proposal", "--num_keep", "2", "--erm_epochs", "1"]
