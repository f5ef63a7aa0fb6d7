"""What a run says to the person at the terminal."""

from __future__ import annotations

import shlex
from importlib.util import find_spec
from pathlib import Path

from ..detection import Candidates

__all__ = ["go_on", "what_to_decide", "what_was_found"]

#: Clusters that are named.
SHOWN = 3


def go_on(folder: Path, step: str = "run") -> str:
    """The command that goes on with the run of a folder."""
    return f"hf-score {step} {'--resume ' if step == 'run' else ''}{shlex.quote(str(folder))}"


def what_was_found(candidates: Candidates) -> str:
    """After a scan: how many candidates and clusters, and the most suspicious clusters, a line each."""
    clusters = sorted(candidates.describe_clusters(), key=lambda c: (-(c.suspicion or 0.0), -c.size))
    lines = [f"Found: {len(candidates)} candidates in {len(clusters)} clusters."]
    for number, one in enumerate(clusters[:SHOWN]):
        first = "Look first at cluster" if number == 0 else "Then cluster"
        line = f"{first} {one.cluster}: {one.size} images of \u201c{candidates.class_names[one.label]}\u201d"
        if one.suspicion is not None:
            line += f", {_suspicion(one.suspicion)}"
        lines.append(f"{line}.")
    if clusters and clusters[0].suspicion is not None:
        lines.append(
            "Suspicious: what the model looks at in them does much in images of other classes too, or is of a colour "
            "of its own. It compares candidates with each other; whether that is a shortcut, only a look can tell."
        )
    return "\n".join(lines)


def _suspicion(value: float) -> str:
    """In words: from the level on at which candidates are proposed, from the middle on, or below."""
    return "very suspicious" if value >= 0.7 else "somewhat suspicious" if value >= 0.5 else "little suspicious"


def what_to_decide(candidates: Candidates, folder: Path, *, run: Path) -> str:
    """After a scan: what was found, where to look first, and the two commands that go on.

    Args:
        candidates: with their evidence, or without.
        folder: the folder with the candidates: of one seed.
        run: the run folder.
    """
    found = what_was_found(candidates)
    lines = [f"{found}\nThey wait for a decision: which of them show a shortcut?"]
    missing = [name for name in ("fastapi", "uvicorn") if find_spec(name) is None]
    if missing:
        lines.append(f"The review page needs {' and '.join(missing)}: pip install 'hf-score[review]'.")
    return "\n".join([*lines, "", f"  hf-score review {shlex.quote(str(folder))}", f"  {go_on(run)}"])
