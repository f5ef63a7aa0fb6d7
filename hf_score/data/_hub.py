"""Why a Hub id could not be loaded, in words for a user: shared by data sets and models."""

from __future__ import annotations

import re
from collections.abc import Iterator

from datasets.exceptions import DatasetNotFoundError
from huggingface_hub.errors import GatedRepoError, LocalEntryNotFoundError, RepositoryNotFoundError

from hf_score.errors import first_line

__all__ = ["HUB_ID", "hub_problem"]

HUB_ID = re.compile(r"\w[\w.-]*/[\w.-]+")


def hub_problem(error: BaseException) -> str:
    """One clause with the cause and the fix, from whatever the Hub's client libraries raised."""
    causes = list(_chain(error))
    if any(isinstance(cause, GatedRepoError) for cause in causes):
        return "it is gated: ask for access on its page, then log in with `hf auth login`"
    if any(isinstance(cause, RepositoryNotFoundError) for cause in causes):
        return "the Hub has no public repository of that name: check the spelling, or log in with `hf auth login`"
    # Libraries wrap the same dead line in different ways: a ConnectionError, or an entry missing from the cache.
    if any(isinstance(cause, (ConnectionError, LocalEntryNotFoundError)) for cause in causes):
        return (
            "the Hub cannot be reached and nothing is cached: give a local folder, or run once on a machine that is "
            "online (with HF_HUB_OFFLINE unset)"
        )
    if any(isinstance(cause, DatasetNotFoundError) for cause in causes):
        return "the Hub has no public data set of that name: check the spelling, or log in with `hf auth login`"
    return first_line(error)


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__
