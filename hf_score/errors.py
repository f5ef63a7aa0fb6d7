"""The errors a user can cause and fix. Each message is one sentence: what was wrong, where, and what to do.

The command line prints the message alone and exits with status 2; Python callers catch `HFScoreError`.
"""

__all__ = [
    "DataError",
    "DecisionNeeded",
    "HFScoreError",
    "InactiveError",
    "ModelError",
    "SelectionError",
    "SupervisionError",
    "UnsupportedArchitectureError",
    "first_line",
]


class HFScoreError(ValueError):
    """Base class of every error that hf-score raises about what it was given."""


class DataError(HFScoreError):
    """A data set that is missing, unreadable, or not of the shape described in `hf_score.data`."""


class ModelError(HFScoreError):
    """A model that cannot be loaded, or that does not fit the data set."""


class UnsupportedArchitectureError(ModelError):
    """A model with a module for which no LRP rule is known."""


class SelectionError(HFScoreError):
    """A selection file that cannot be read, or that belongs to another model or data set."""


class DecisionNeeded(SelectionError):
    """Candidates are there, and a person has to say which are spurious. No failure: a run waits here, and goes on."""


class SupervisionError(HFScoreError):
    """A method that reads supervision it did not declare, or does not get what it declared."""


class InactiveError(HFScoreError):
    """A method that finds nothing to act on, so that training on would be training without it."""


def first_line(said: BaseException | str) -> str:
    """The first line of what an error said (its class where that is nothing), without the closing full stop."""
    return (str(said).strip() or type(said).__name__).splitlines()[0].rstrip(".:")
