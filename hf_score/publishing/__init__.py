"""Publishing: checkpoints with card and results, the `evaluate` metric and Spaces, on the Hugging Face Hub.

`push_files` is the one way out, and `guard` looks at all that goes through it.
"""

from .push import push_checkpoint, push_files, push_metric, push_run, write_card
from .space import make_space, push_space, space_from_run

__all__ = [
    "make_space",
    "push_checkpoint",
    "push_files",
    "push_metric",
    "push_run",
    "push_space",
    "space_from_run",
    "write_card",
]
