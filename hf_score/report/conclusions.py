"""What a run shows, in words: the worst group beside its controls, and the verdict that needs no groups.

Pure functions of the `results.json` dictionary. Terminal, page, card and Space print the same sentences.
"""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from .methods import find_method, label_of
from .summary import EMPTY, MethodSummary, Spread, summarise

__all__ = [
    "Conclusion",
    "Outcome",
    "class_cells",
    "conclusions",
    "judge",
    "judge_regions",
    "region_cells",
    "region_outcome",
    "render_conclusions",
]

Outcome = Literal["improved", "unchanged", "worse", "cannot tell"]

#: With fewer test images nothing is said of a region.
FEWEST_PICTURES = 10
#: With fewer, that none changed leaves room for changes of more than 5 points (3 / n).
FEWEST_UNCHANGED = 60
#: Changes of the lowest accuracy that lie within this, up and down, are no change to speak of. Set on the rows of
#: `benchmarks/protocol.yaml`: with half of it, twice as many runs whose worst group stayed were called improved.
NO_CHANGE = 0.1
#: An interval of a change that is wider than this says nothing.
WIDEST = 0.4


@dataclass(frozen=True)
class Conclusion:
    """What the run shows. `holds`: True or False, or None where the run cannot tell, or says both.

    Attributes:
        not_checked: sentences; of the verdict without groups.
    """

    holds: bool | None
    headline: str
    sentence: str
    not_checked: tuple[str, ...] = ()


def conclusions(results: Mapping[str, Any]) -> list[Conclusion]:
    """All that the run shows: of the worst group where there are groups, of the judged regions where measured."""
    found = [judge(results)] if _has_groups(results) else []
    regions = judge_regions(results)
    return [*found, *([regions] if regions else [])] or [judge(results)]


def render_conclusions(results: Mapping[str, Any]) -> str:
    """`conclusions` as plain text, a paragraph each."""
    paragraphs = []
    for found in conclusions(results):
        not_checked = f" Not checked: {' '.join(found.not_checked)}" if found.not_checked else ""
        paragraphs.append(f"{found.headline}. {found.sentence}{not_checked}")
    return "\n\n".join(paragraphs)


# ---- The worst group, beside controls ----


def judge(results: Mapping[str, Any]) -> Conclusion:
    """Say in words whether SCORE raised the worst-group accuracy, and whether that is more than its controls do.

    SCORE is compared with the starting model and with the best of its controls (`Method.is_control`). A difference is
    one when it exceeds the standard deviation of a difference between two runs, √(s₁² + s₂²) over seeds: no less for
    a control that is ahead than for one that is behind. Without groups it is `judge_regions`' conclusion.
    """
    methods = summarise(results)
    score, erm = methods.get("score"), methods.get("erm")
    after = score.worst_group_accuracy if score else None
    before = erm.worst_group_accuracy if erm else None
    if after is None:
        return judge_regions(results) or _nothing_to_judge(score is None)
    name = label_of("score", results)
    change = f"With {name} the worst-group accuracy {_went(before, after)}"
    if score and score.accuracy:
        change += f" and average accuracy {_went(erm.accuracy if erm else None, score.accuracy)}"
    change += f" ({after.count} seeds, ± is the standard deviation)." if after.count > 1 else " (one seed)."
    if before is not None and after.mean <= before.mean:
        return Conclusion(False, f"{name} did not help", f"{change} It did not help the worst group here.")
    if before is not None and _lead(after, before) == "within":
        text = f"{change} That is within the noise: seeds differ by as much."
        return Conclusion(None, "No change beyond the noise", text)
    controls = [m for m in methods.values() if _is_control(m.key) and m.worst_group_accuracy is not None]
    if not controls:
        text = f"{change} No control was run, so what caused the change is open."
        return Conclusion(None, "Changed, but not controlled", text)
    return _beside_controls(change, after, controls, name)


def _nothing_to_judge(no_score: bool) -> Conclusion:
    if no_score:
        return Conclusion(
            None, "No run of SCORE", "These results hold no run of SCORE, so there is nothing to compare."
        )
    text = (
        "The test data has no groups, and these results do not say what the judged regions do: measure again with "
        "this version of hf-score (`hf-score evaluate`)."
    )
    return Conclusion(None, "Not measured", text)


def _beside_controls(change: str, after: Spread, controls: Sequence[MethodSummary], name: str) -> Conclusion:
    best = max(controls, key=lambda method: method.worst_group_accuracy.mean)  # type: ignore[union-attr]
    control = best.worst_group_accuracy
    assert control is not None
    points = 100 * (after.mean - control.mean)
    where = f"{abs(points):.1f} points {'above' if points >= 0 else 'below'} the best control, “{best.label}”"
    text = f"{change} That is {where} ({control.percent()} %)"
    lead = _lead(after, control)
    if lead is None:
        text += ", but with a single seed it may be chance."
        headline = "Above its controls, on one seed" if points > 0 else "A control does as well, on one seed"
        return Conclusion(None, headline, text + _where_and_which(after, controls))
    noise = 100 * _noise(after, control)
    text += f", and the spread over seeds of such a difference is {noise:.1f} points"
    if lead == "above":
        return Conclusion(True, "The gain survives its controls", f"{text}.{_where_and_which(after, controls)}")
    if lead == "below":
        text += f": the control does better. {_meaning(best)}{_where_and_which(after, controls)}"
        return Conclusion(False, f"A control does better than {name}", text)
    text += f": it is within the noise. {_meaning(best)}{_where_and_which(after, controls, told=best.key)}"
    return Conclusion(None, f"{name} helped, and one control as much", text)


def _meaning(control: MethodSummary) -> str:
    method = find_method(control.key)
    return f"So {method.meaning}." if method and method.meaning else ""


def _where_and_which(after: Spread, controls: Sequence[MethodSummary], told: str = "") -> str:
    """The two controls that say what of the samples matters, each beside SCORE."""
    sentences = []
    for key, what in (("random_samples", "which pictures were chosen"), ("random_regions", "where the mask is")):
        control = next((m.worst_group_accuracy for m in controls if m.key == key), None)
        lead = _lead(after, control) if control else None
        if control is None or lead is None or key == told:
            continue
        matters = "matters" if lead == "above" else "does not matter"
        name = key.replace("_", " ").capitalize()
        sentences.append(f" {name} reach {control.percent()} %: {what} {matters} here.")
    return "".join(sentences)


def _noise(one: Spread, other: Spread) -> float:
    assert one.std is not None and other.std is not None
    return (one.std**2 + other.std**2) ** 0.5


def _lead(one: Spread, other: Spread) -> Literal["above", "within", "below"] | None:
    """Where one lies beside the other, by more than the noise or not; None where one seed cannot say."""
    if one.std is None or other.std is None:
        return None
    difference, noise = one.mean - other.mean, _noise(one, other)
    return "within" if abs(difference) <= noise else "above" if difference > 0 else "below"


def _is_control(key: str) -> bool:
    method = find_method(key)
    return method is not None and method.is_control


def _has_groups(results: Mapping[str, Any]) -> bool:
    return any(method.worst_group_accuracy for method in summarise(results).values())


def _went(before: Spread | None, after: Spread) -> str:
    return f"went from {before.percent()} % to {after.percent()} %" if before else f"is {after.percent()} %"


# ---- The judged regions ----


def region_outcome(verdict: Mapping[str, Any]) -> Outcome:
    """Whether a model is right more often than the starting model where the judged regions speak against it, from the
    interval of the difference.

    `lowest` decides: the lowest accuracy among test images as they are, with the region, and samples without it. It
    stands for the worst group; that fewer answers change is not enough, for a model that is always wrong there changes
    none. `improved` and `worse`: by more than 10 points beyond the interval. `cannot tell`: fewer than 10 test images
    (60 where nothing changed), an interval wider than 40 points, or results of an older version.

    Args:
        verdict: of a run in `results.json`, with `change`.
    """
    lowest = verdict["change"].get("lowest")
    if lowest is None or lowest["count"] < FEWEST_PICTURES:
        return "cannot tell"
    if lowest["high"] < -NO_CHANGE:
        return "worse"
    if lowest["low"] > NO_CHANGE:
        return "improved"
    sure = lowest["count"] >= FEWEST_UNCHANGED and lowest["high"] - lowest["low"] <= WIDEST
    return "unchanged" if sure else "cannot tell"


def judge_regions(results: Mapping[str, Any]) -> Conclusion | None:
    """The verdict that needs no groups, for SCORE beside the starting model; None where it was not measured.

    What is said of several seeds is said if all of them say it; shares are means over seeds, and intervals reach from
    the lowest to the highest end of the seeds'.
    """
    before, after = _verdicts(results, "erm"), _verdicts(results, "score")
    if not before or not after or not all("change" in verdict for verdict in after):
        return None
    outcomes = {region_outcome(verdict) for verdict in after}
    outcome: Outcome = next(iter(outcomes)) if len(outcomes) == 1 else "cannot tell"
    fallen = sorted({name for verdict in after for name in verdict.get("fallen") or ()})
    decider = _decider(results)
    claimed = decider != "proposal"
    holds: bool | None = None
    if outcome == "worse" or (fallen and outcome == "unchanged"):
        holds = False
    elif outcome == "improved" and claimed and not fallen:
        holds = True
    measured = "inserted" in after[0]["figures"]
    sentences = [
        *(_falls(after, fallen) if fallen else ()),
        *(_regions_in_words(before, after, decider) if measured else ()),
        *([f"The seeds disagree: {', '.join(sorted(outcomes))}."] if len(outcomes) > 1 else []),
        *_controls_in_words(results),
        _classes_in_words(results, after),
        _quality_in_words(before, after),
    ]
    not_checked = [*after[0].get("not_checked", ())]
    if not claimed:
        not_checked.insert(0, "Whether these regions show a spurious attribute at all: nobody has looked at them.")
    if not _has_groups(results):
        not_checked.append("The worst group: the test data has no groups.")
    headline = _headline(outcome, fallen, "judged" if claimed else "proposed")
    return Conclusion(holds, headline, " ".join(s for s in sentences if s), tuple(not_checked))


def _headline(outcome: Outcome, fallen: Sequence[str], regions: str) -> str:
    headline = {
        "improved": f"Improved: the {regions} regions mislead the model less",
        "unchanged": f"Unchanged: the {regions} regions mislead the model as before",
        "worse": f"Worse: the {regions} regions mislead the model more",
        "cannot tell": f"Cannot tell whether the {regions} regions mislead the model less",
    }[outcome]
    if not fallen:
        return headline
    names = " and ".join(f"“{name}”" for name in fallen[:3]) + (" and others" if len(fallen) > 3 else "")
    return f"{names} recognised less often. {headline}"


def _verdicts(results: Mapping[str, Any], key: str) -> list[Mapping[str, Any]]:
    runs = results["methods"].get(key, {}).get("runs", ())
    return [run["verdict"] for run in runs if run.get("verdict")]


def _decider(results: Mapping[str, Any]) -> str:
    """Who kept the samples: `proposal` where any of them was seen by nobody."""
    selection = results.get("selection") or {}
    kept_by = str(selection.get("kept_by") or selection.get("decided_by") or "nobody")
    return "proposal" if "proposal" in kept_by.split("+") else kept_by


_TAKEN = {
    "person": "regions that a person judged to be a shortcut",
    "file": "regions that the selection file names as a shortcut",
    "oracle": "regions that an oracle took for the known attribute",
    "proposal": "regions that a proposal, seen by nobody, took",
    "random": "regions of samples drawn at random",
}


def _regions_in_words(
    before: Sequence[Mapping[str, Any]], after: Sequence[Mapping[str, Any]], decider: str
) -> list[str]:
    hosts = after[0]["figures"]["inserted"]["count"]
    samples = after[0]["samples"]
    regions = _TAKEN.get(decider, "regions that were judged to be a shortcut")
    kind = "held out of the penalty" if samples["held_out"] else "the same that were penalised"
    sentences = [
        f"The {regions} ({samples['count']} samples, {kind}) were pasted into {hosts} test images of other classes: "
        f"{_before_after(before, after, 'inserted', 'of the answers changed')}.",
        f"Taken out of the samples they change {_before_after(before, after, 'removed', 'of the answers')}.",
    ]
    if all("lowest" in verdict["figures"] for verdict in (*before, *after)):
        sentences.append(
            "With the region put in without an edge, "
            f"{_before_after(before, after, 'right_inserted', 'of those images got their own class')}; the lowest "
            "accuracy among test images as they are, with the region, and samples without it, which stands for the "
            f"worst group, is {_before_after(before, after, 'lowest', '')}.".replace("  ", " ")
        )
    if "random_inserted" in after[0]["figures"]:
        sentences.append(
            "What must not change: regions as large from random places, pasted in, change "
            f"{_before_after(before, after, 'random_inserted', 'of the answers')}, and where one object takes the "
            f"place of another {_before_after(before, after, 'object', 'of the answers')} follow it."
        )
    if hosts < FEWEST_PICTURES:
        sentences.append("Those are too few pictures for a verdict.")
    return sentences


def _before_after(
    before: Sequence[Mapping[str, Any]], after: Sequence[Mapping[str, Any]], name: str, what: str
) -> str:
    one, other = _pooled(before, name), _pooled(after, name)
    return f"{_percent(one)} {what} before and {_percent(other)} after"


def _falls(after: Sequence[Mapping[str, Any]], fallen: Sequence[str]) -> list[str]:
    losses = []
    for name in fallen[:3]:
        values = [v["class_change"][name]["value"] for v in after if name in v["class_change"]]
        losses.append(f"“{name}” by {-100 * statistics.fmean(values):.1f} points" if values else f"“{name}”")
    return [f"First: accuracy fell, beyond chance, for {', '.join(losses)}."]


def _controls_in_words(results: Mapping[str, Any]) -> list[str]:
    """What the same insertion does to the controls, after their training."""
    told = []
    for key, method in summarise(results).items():
        found = [v for v in _verdicts(results, key) if "inserted" in v["figures"]]
        if _is_control(key) and found:
            told.append(f"“{method.label}” {_percent(_pooled(found, 'inserted'))}")
    return [f"With the controls, pasted in, they change {'; '.join(told)}."] if told else []


def _classes_in_words(results: Mapping[str, Any], after: Sequence[Mapping[str, Any]]) -> str:
    """Sensitivity and specificity where there are two classes, else the class that changed most."""
    names, before = results["dataset"]["class_names"], _verdicts(results, "erm")
    parts = []
    if len(names) == 2:
        for name, measure in ((names[1], "sensitivity"), (names[0], "specificity")):
            if all(name in verdict["classes"] for verdict in (*before, *after)):
                one, other = (_pooled(verdicts, name, "classes") for verdicts in (before, after))
                parts.append(f"“{name}” ({measure}) {_percent(one)} before and {_percent(other)} after")
        return f"Recognised are {'; '.join(parts)}." if parts else ""
    changes = after[0]["class_change"]
    if not changes:
        return ""
    name = min(changes, key=lambda name: changes[name]["value"])
    change = _pooled(after, name, "class_change")
    return f"Of {len(names)} classes “{name}” changed least for the better: {_points(change)}."


def _quality_in_words(before: Sequence[Mapping[str, Any]], after: Sequence[Mapping[str, Any]]) -> str:
    words = {
        "auroc": "area under the ROC curve",
        "calibration_error": "calibration error",
        "brier_score": "Brier score",
    }
    parts = [
        f"{word} {_plain(_pooled(before, name))} → {_plain(_pooled(after, name))}"
        for name, word in words.items()
        if name in after[0]["figures"] and name in before[0]["figures"]
    ]
    text = ", ".join(parts)
    return f"{text[:1].upper()}{text[1:]}." if parts else ""


# ---- Tables of the verdict ----

_COLUMNS = {
    "inserted": ("inserted", True),
    "removed": ("removed", True),
    "random_inserted": ("random region inserted", True),
    "object": ("object exchanged", True),
    "reliance": ("reliance in logits", False),
    "auroc": ("AUROC", False),
    "calibration_error": ("calibration error", False),
    "brier_score": ("Brier score", False),
}


def region_cells(results: Mapping[str, Any]) -> tuple[list[str], list[list[str]]]:
    """Header and rows of the verdict's table, a row per method; no rows where nothing was measured."""
    found = {key: verdicts for key in summarise(results) if (verdicts := _verdicts(results, key))}
    names = [n for n in _COLUMNS if any(n in verdict["figures"] for v in found.values() for verdict in v)]
    rows = []
    for key, verdicts in found.items():
        cells = [EMPTY if (figure := _pooled(verdicts, n)) is None else _cell(figure, _COLUMNS[n][1]) for n in names]
        rows.append([label_of(key, results), *cells])
    return ["method", *(_COLUMNS[name][0] for name in names)], rows


def class_cells(results: Mapping[str, Any]) -> tuple[list[str], list[list[str]]]:
    """Header and rows of accuracy by class, before and after SCORE; at most 20 classes, those that changed worst."""
    before, after = _verdicts(results, "erm"), _verdicts(results, "score")
    rows = []
    for name in after[0].get("class_change", ()) if before and after else ():
        figures = (_pooled(before, name, "classes"), _pooled(after, name, "classes"))
        cells = [EMPTY if figure is None else _cell(figure, True) for figure in figures]
        rows.append([name, *cells, _points(_pooled(after, name, "class_change"))])
    return ["class", "before", "after", "change in points"], rows


def _pooled(verdicts: Sequence[Mapping[str, Any]], name: str, kind: str = "figures") -> dict[str, float] | None:
    """Mean over seeds, and the outermost ends of their intervals; None where no seed has the figure."""
    found = [verdict[kind][name] for verdict in verdicts if name in verdict.get(kind, ())]
    if not found:
        return None
    return {
        "value": statistics.fmean(one["value"] for one in found),
        "low": min(one["low"] for one in found),
        "high": max(one["high"] for one in found),
    }


def _percent(figure: Mapping[str, float] | None) -> str:
    if figure is None:
        return EMPTY
    value, low, high = (round(100 * figure[name]) for name in ("value", "low", "high"))
    return f"{value} % ({low} to {high} %)"


def _cell(figure: Mapping[str, float], percent: bool) -> str:
    if percent:
        return "{:.1f} ({:.1f} to {:.1f})".format(*(100 * figure[name] for name in ("value", "low", "high")))
    return "{:.3f} ({:.3f} to {:.3f})".format(*(figure[name] for name in ("value", "low", "high")))


def _plain(figure: Mapping[str, float] | None) -> str:
    return EMPTY if figure is None else f"{figure['value']:.2f}"


def _points(figure: Mapping[str, float] | None) -> str:
    if figure is None:
        return EMPTY
    value, low, high = (f"{100 * figure[name]:+.1f}".replace("-", "−") for name in ("value", "low", "high"))
    return f"{value} ({low} to {high})"
