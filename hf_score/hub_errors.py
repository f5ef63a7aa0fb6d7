"""Why the Hub could not be read from or written to, in words for a user: shared by data, models and publishing."""

from __future__ import annotations

import errno
import re
from collections.abc import Iterator
from contextlib import contextmanager

from datasets.exceptions import DatasetNotFoundError
from huggingface_hub import HfApi
from huggingface_hub.errors import (
    GatedRepoError,
    HfHubHTTPError,
    HFValidationError,
    HTTPError,
    LocalEntryNotFoundError,
    OfflineModeIsEnabled,
    RepositoryNotFoundError,
)
from safetensors import SafetensorError

from .errors import HFScoreError, first_line

__all__ = ["HUB_ID", "hub_errors", "hub_problem"]

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


@contextmanager
def hub_errors(repo_id: str) -> Iterator[None]:
    """Turn what saving or the Hub's client raises in the body into an HFScoreError of one sentence."""
    try:
        yield
    except HFScoreError:
        raise
    except (HTTPError, OSError, ValueError, RuntimeError, SafetensorError) as error:
        # The client wraps what an upload of a large file raises.
        cause = error.__cause__ if isinstance(error, RuntimeError) else None
        raise HFScoreError(_reason(cause if isinstance(cause, HTTPError) else error, repo_id)) from error


def _reason(error: BaseException, repo_id: str) -> str:
    """One sentence for what was raised: what failed, and what to do."""
    if isinstance(error, OfflineModeIsEnabled):
        return f"{repo_id} was not pushed because HF_HUB_OFFLINE is set: unset it and repeat the command."
    if isinstance(error, HFValidationError):
        return f"{repo_id!r} is not a repository id: give OWNER/NAME in letters, digits, '-', '_' and '.'."
    if isinstance(error, HfHubHTTPError):
        status = error.response.status_code
        said = first_line(error.server_message or f"status {status}")
        if status == 401 or isinstance(error, RepositoryNotFoundError):
            return (
                f"The Hub refused the token for {repo_id}: give one with write access to it (`hf auth login` or "
                "HF_TOKEN)."
            )
        if status in (403, 409):
            return (
                f"The Hub does not let you write to {repo_id} ({said}): give another name where this one is somebody "
                "else's, or a token with write access."
            )
        if status in (402, 413, 507):
            return f"The Hub has no room for {repo_id} ({said}): free some of your storage there and repeat."
        return f"The Hub did not accept {repo_id} ({said}): repeat the command, or correct what it names."
    if isinstance(error, HTTPError | ConnectionError):
        return (
            f"{HfApi().endpoint} cannot be reached ({first_line(error)}): connect to the network and repeat the "
            "command."
        )
    full = getattr(error, "errno", None) in (errno.ENOSPC, errno.EDQUOT)
    if full or "No space left" in str(error):  # safetensors has an error of its own
        return f"{repo_id} was not pushed because the disk is full: free some space and repeat the command."
    return f"{repo_id} was not pushed ({first_line(error)}): correct it and repeat the command."
