"""The comparisons that a plan declares before its runs, and what its rows say of them."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

import pandas as pd

from ..errors import HFScoreError
from ..evaluation.hierarchical import Mean, holm
from .measured import Measured

__all__ = ["Contrast", "Finding", "contrast_table", "contrasts_of", "findings"]

LEVEL = 0.05
_FIELDS = {"name", "better", "than", "same", "margin", "datasets", "models"}


@dataclass(frozen=True)
class Contrast:
    """One declared comparison of worst groups, made on each of its data sets and models.

    Attributes:
        name: what it is called in the table.
        first, second: names of methods; the difference is first − second.
        equivalence: whether the claim is that they differ by less than `margin`, rather than that the first is ahead
            by more.
        margin: as a share from 0 to 1; in a plan it is in points.
        datasets, models: where it is made.
    """

    name: str
    first: str
    second: str
    equivalence: bool
    margin: float
    datasets: tuple[str, ...]
    models: tuple[str, ...]


def contrasts_of(
    entries: Any, where: str, *, methods: Collection[str], datasets: Collection[str], models: Collection[str]
) -> list[Contrast]:
    """The contrasts of a plan's section `contrasts`.

    Args:
        entries: the section's content.
        where: the plan, for messages.
        methods, datasets, models: names that the plan has.

    Raises:
        HFScoreError: an entry that is not a contrast, or names what the plan has not.
    """
    if not isinstance(entries, list) or not all(isinstance(entry, Mapping) for entry in entries):
        raise HFScoreError(f"{where}: contrasts are a list of {{name, better, than}} or {{name, same, margin}}.")
    found = [_contrast(entry, where, methods=methods, datasets=datasets, models=models) for entry in entries]
    names = [contrast.name for contrast in found]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise HFScoreError(f"{where}: two contrasts are called {twice[0]!r}: give each its own name.")
    return found


def _contrast(
    entry: Mapping[str, Any],
    where: str,
    *,
    methods: Collection[str],
    datasets: Collection[str],
    models: Collection[str],
) -> Contrast:
    here = f"{where}: contrast {entry.get('name', '')!r}"
    if unknown := sorted(set(entry) - _FIELDS):
        raise HFScoreError(f"{here} has the field {unknown[0]!r}: use one of {sorted(_FIELDS)}.")
    equivalence = "same" in entry
    pair = entry.get("same") if equivalence else [entry.get("better"), entry.get("than")]
    if not entry.get("name") or not isinstance(pair, list) or len(pair) != 2 or equivalence == ("better" in entry):
        raise HFScoreError(f"{here} is not {{name, better, than}} or {{name, same: [a, b], margin}}: correct it.")
    margin = entry.get("margin", 5 if equivalence else 0)
    if not isinstance(margin, int | float) or not 0 <= margin < 100 or (equivalence and margin == 0):
        raise HFScoreError(f"{here} has the margin {margin!r}: give points from 0 to 100, above 0 for `same`.")
    places = {kind: tuple(entry.get(kind, known)) for kind, known in (("datasets", datasets), ("models", models))}
    for kind, names, known in (
        ("methods", pair, methods),
        ("datasets", places["datasets"], datasets),
        ("models", places["models"], models),
    ):
        if unknown := [name for name in names if name not in known]:
            raise HFScoreError(f"{here}: there are no {kind} {unknown}; there are {sorted(known)}.")
    return Contrast(str(entry["name"]), pair[0], pair[1], equivalence, margin / 100, **places)


@dataclass(frozen=True)
class Finding:
    """What the rows say of a contrast on one data set and model.

    Attributes:
        difference: of the worst groups; None where rows are missing.
        missing: why there is none.
        p, adjusted: before and after Holm's correction over all of the plan; of a missing one both are 1, so that
            what was not run makes no other contrast easier.
        verdict: `better`, `not shown`, `equivalent within 5`, `not shown to be equivalent` or `missing`.
    """

    contrast: Contrast
    dataset: str
    model: str
    difference: Mean | None
    missing: str
    p: float
    adjusted: float
    verdict: str


def findings(
    contrasts: list[Contrast], places: Mapping[str, Collection[tuple[str, str]]], measured: Measured
) -> list[Finding]:
    """Every declared contrast on every data set and model that the plan runs both of its methods on.

    Args:
        contrasts: the plan's.
        places: for each method, the data sets and models that it is run on.
        measured: the rows, of a grid the chosen ones.
    """
    made: list[tuple[Contrast, str, str, Mean | None, str]] = []
    for contrast in contrasts:
        there = [
            (dataset, model)
            for dataset, model in places.get(contrast.first, ())
            if (dataset, model) in places.get(contrast.second, ())
            if dataset in contrast.datasets and model in contrast.models
        ]
        made += [(contrast, *place, *_difference(contrast, measured.at(*place))) for place in there]
        if not there:
            made.append((contrast, "", "", None, "the plan runs the two nowhere together"))
    p_values = [_p(contrast, difference) for contrast, _, _, difference, _ in made]
    adjusted = holm(p_values).tolist()
    return [
        Finding(contrast, dataset, model, difference, missing, p, after, _verdict(contrast, difference, after))
        for (contrast, dataset, model, difference, missing), p, after in zip(made, p_values, adjusted, strict=True)
    ]


def _difference(contrast: Contrast, here: Measured) -> tuple[Mean | None, str]:
    for name in (contrast.first, contrast.second):
        if not len(here.of(name).rows):
            return None, here.why_none(name)
    difference = here.of(contrast.first).minus(here.of(contrast.second))
    if difference is None:
        return None, "no seed in common, or no groups"
    if difference.seeds < 2:
        return None, "one seed in common, which says nothing of others"
    return difference, ""


def _p(contrast: Contrast, difference: Mean | None) -> float:
    if difference is None:
        return 1.0
    return difference.p_equivalent(contrast.margin) if contrast.equivalence else difference.p_better(contrast.margin)


def _verdict(contrast: Contrast, difference: Mean | None, adjusted: float) -> str:
    if difference is None:
        return "missing"
    shown = adjusted <= LEVEL
    if contrast.equivalence:
        return f"equivalent within {100 * contrast.margin:g}" if shown else "not shown to be equivalent"
    return "better" if shown else "not shown"


def contrast_table(found: list[Finding], *, title: dict[tuple[str, str], str]) -> pd.DataFrame:
    """A line per finding, in points.

    Args:
        found: the findings.
        title: of each data set and model.
    """
    lines = []
    for finding in found:
        contrast = finding.contrast
        line = {"contrast": contrast.name, "where": title.get((finding.dataset, finding.model), "–")}
        if contrast.equivalence:
            line["claim"] = f"{contrast.first} within {100 * contrast.margin:g} of {contrast.second}"
        else:
            by = f" by more than {100 * contrast.margin:g}" if contrast.margin else ""
            line["claim"] = f"{contrast.first} above {contrast.second}{by}"
        if finding.difference is None:
            cells = ["–", "–", "–", "–", "–", f"missing: {finding.missing}"]
        else:
            interval = finding.difference.interval(lowest=-1.0)
            cells = [
                f"{100 * interval.value:+.1f}",
                f"{100 * interval.low:+.1f} to {100 * interval.high:+.1f}",
                str(interval.count),
                p_text(finding.p),
                p_text(finding.adjusted),
                finding.verdict,
            ]
        lines.append(line | dict(zip(_HEADINGS, cells, strict=True)))
    return pd.DataFrame(lines)


_HEADINGS = ("difference", "95 % interval", "seeds", "p", "p, Holm", "verdict")


def p_text(p: float) -> str:
    """To three digits after the point."""
    return "< 0.001" if p < 0.001 else f"{p:.3f}"
