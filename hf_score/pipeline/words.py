"""What a run says to the person at the terminal."""

from __future__ import annotations

import shlex
from importlib.util import find_spec
from pathlib import Path

from ..detection import Candidates

__all__ = ["go_on", "what_to_decide"]


def go_on(folder: Path, step: str = "run") -> str:
    """The command that goes on with the run of a folder."""
    return f"hf-score {step} {'--resume ' if step == 'run' else ''}{shlex.quote(str(folder))}"


def what_to_decide(candidates: Candidates, folder: Path, *, run: Path) -> str:
    """After a scan: what was found, where to look first, and the two commands that go on.

    Args:
        candidates: with their evidence, or without.
        folder: the folder with the candidates: of one seed.
        run: the run folder.
    """
    clusters = sorted(candidates.describe_clusters(), key=lambda c: (-(c.suspicion or 0.0), -c.size))
    names = candidates.class_names
    first = clusters[0]
    lines = [
        f"{len(candidates)} candidates in {len(clusters)} clusters wait for a decision: which show a shortcut?",
        f"Look first at cluster {first.cluster}: {first.size} images of \u201c{names[first.label]}\u201d.",
    ]
    if first.suspicion is not None:
        lines[-1] += (
            " What the model looks at in them does most in images of other classes too, or is of a colour of its own; "
            "whether that is a shortcut, only a look can tell."
        )
    missing = [name for name in ("fastapi", "uvicorn") if find_spec(name) is None]
    if missing:
        lines.append(f"The review page needs {' and '.join(missing)}: pip install 'hf-score[review]'.")
    return "\n".join([*lines, "", f"  hf-score review {shlex.quote(str(folder))}", f"  {go_on(run)}"])
