"""The jinja2 environment of the report and the card, and the wording that both of them use."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jinja2

__all__ = ["cell", "environment", "how_decided", "plain", "which_lambda", "which_shortcuts"]

#: Who chose the spurious-positive samples, in the words that page and card print.
DECIDERS = {
    "person": "A person looked at the masked images and kept those that show nothing but a spurious feature.",
    "file": "A selection file says which samples to keep; it records who decided on each of them.",
    "oracle": (
        "An oracle decided: it kept the samples whose positive relevance lies in the region of the spurious attribute "
        "that the data set ships. The oracle stands in for a person looking at the masked images and knows something "
        "that a user without region masks would not."
    ),
    "proposal": (
        "A proposal decided: the samples with the most evidence for a shortcut were taken, and nobody has looked at "
        "them. The evidence compares samples with each other, so some are taken even where there is no shortcut."
    ),
    "random": "The samples were drawn at random; this is a control, not the method.",
}


#: With more classes than these, those of which nothing was kept are not listed.
MANY = 20


#: Where the card's template is in a clone; a wheel has it beside the others (`force-include` in pyproject.toml).
_MODEL_CARDS = Path(__file__).parents[2] / "model_cards"


def environment(*, autoescape: bool, package: str = "hf_score.report") -> jinja2.Environment:
    """The templates of a package; parts of the results that are optional may be missing in them."""
    templates = jinja2.Environment(
        loader=jinja2.ChoiceLoader([jinja2.PackageLoader(package), jinja2.FileSystemLoader(_MODEL_CARDS)]),
        autoescape=autoescape,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    templates.filters["fold"] = fold
    templates.filters["plain"] = plain
    templates.filters["cell"] = cell
    templates.filters["plain_paragraphs"] = lambda text: "\n\n".join(map(plain, text.split("\n\n")))
    return templates


def plain(text: str) -> str:
    """A sentence in markdown, whose names of classes and methods stay text: no mark-up, one line."""
    for mark in "\\*_`[]":
        text = text.replace(mark, f"\\{mark}")
    return " ".join(text.replace("&", "&amp;").replace("<", "&lt;").split())


def cell(value: object) -> str:
    """What stands in a cell of a table in markdown, as `plain` has it."""
    return plain(str(value)).replace("|", "\\|")


def fold(command: str, width: int = 88) -> str:
    r"""A long command line over several, broken before options, that a shell still reads as the same one.

    >>> print(fold("train --data 'my  images' --rate 2e-3", width=24))
    train \
        --data 'my  images' \
        --rate 2e-3
    """
    try:
        words = shlex.split(command)
    except ValueError:  # an unbalanced quote: better long than another command
        return command
    options: list[list[str]] = [[]]
    for word in words:
        if word.startswith("-"):
            options.append([])
        options[-1].append(shlex.quote(word))
    lines = [""]
    for option in (" ".join(words) for words in options if words):
        if lines[-1].strip() and len(lines[-1]) + 1 + len(option) + 2 > width:
            lines[-1] += " \\"
            lines.append("   ")
        lines[-1] += f" {option}" if lines[-1] else option
    return "\n".join(lines)


def how_decided(results: Mapping[str, Any]) -> str:
    """Who decided on the spurious-positive samples and how many were kept, or that it is not recorded."""
    selection = results.get("selection") or {}
    decided_by = selection.get("decided_by")
    text = "Who chose the spurious-positive samples is not recorded."
    if decided_by:
        text = DECIDERS.get(decided_by, f"Decided by: {decided_by}.")
    kept, candidates = selection.get("classes") or {}, selection.get("candidates") or {}
    counts = [
        f"{name}: {count} of {candidates[name]} candidates" if name in candidates else f"{name}: {count}"
        for name, count in kept.items()
        if count or len(kept) <= MANY
    ]
    said = [text, f"Kept: {'; '.join(counts)}." if counts else "", which_shortcuts(results)]
    return " ".join(part for part in said if part)


def which_shortcuts(results: Mapping[str, Any]) -> str:
    """The names that a person gave to the shortcuts, by class; empty where nobody named one."""
    named = (results.get("selection") or {}).get("shortcuts") or {}
    parts = [f"{', '.join(f'“{name}”' for name in names)} ({label})" for label, names in named.items()]
    return f"The shortcut, in the words of who judged: {'; '.join(parts)}." if parts else ""


def which_lambda(results: Mapping[str, Any]) -> str:
    """The weight of SCORE's penalty, and where several were tried the label-free estimates it was chosen by."""
    runs = (results.get("methods") or {}).get("score", {}).get("runs", ())
    tried = [
        f"λ = {run['score_lambda']:g} for seed {run['seed']} "
        f"({', '.join(f'{value:g}: {100 * estimate:.1f} %' for value, estimate in run['lambda_estimates'])})"
        for run in runs
        if run.get("lambda_estimates") and run.get("score_lambda") is not None
    ]
    scale = "where the penalty is 1 on the starting model"
    if tried:
        return f"Weight of the penalty, {scale}, by the best label-free estimate: {'; '.join(tried)}."
    config = results.get("config") or {}
    return f"Weight of the penalty: λ = {config['score_lambda']}, {scale}." if "score_lambda" in config else ""
