"""The methods of a run, each in one row: what tables, figures, pages and cards call it, and how they show it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ..renamed import with_new_names

__all__ = ["FORMS", "METHODS", "Method", "find_method", "form_of", "form_of_results", "label_of"]

#: `score_form` → what tables and cards call it: SCORE is the paper's, the others are ours.
FORMS = {"paper": "SCORE", "exchange": "SCORE-X", "both": "SCORE-B"}


@dataclass(frozen=True)
class Method:
    """One method of a run.

    Attributes:
        key: its name in `results.json`, and of its folder in a run.
        label: its name for readers, of the paper's form where it has one: `called`.
        supervision: what it needs to know, for the column of that name.
        colour: of its bars and curves, from Okabe and Ito's palette, which stays apart for colour-blind readers: greys
            for what was there before, muted colours for controls, green for the repair, blue for SCORE.
        is_control: whether SCORE has to be better than this for its samples to be what helps.
        meaning: what follows where it does as well as SCORE; the rest of a sentence that begins with "So".
    """

    key: str
    label: str
    supervision: str
    colour: str
    is_control: bool = True
    meaning: str = ""

    def called(self, form: str | None) -> str:
        """The label with the name of SCORE's form; as it is where the form is not known."""
        return self.label.replace("SCORE", FORMS.get(form or "", "SCORE"))


#: By key, in the order of the tables: what was there before, the controls, the repair without training, then SCORE.
METHODS = {
    method.key: method
    for method in (
        Method("erm", "ERM", "class labels", "#8a9099", is_control=False),
        Method(
            "continued_erm",
            "continued ERM (λ = 0)",
            "class labels",
            "#c4c9d0",
            meaning="training on, without the samples, does it: nothing here is due to SCORE",
        ),
        Method(
            "random_samples",
            "SCORE, random samples",
            "class labels + which class has the shortcut",
            "#e69f00",
            meaning="which pictures of the class were chosen does not matter here; that this class has the shortcut "
            "is what has to be known",
        ),
        Method(
            "random_regions",
            "SCORE, random regions",
            "class labels + decisions",
            "#f0e442",
            meaning="where the mask is does not matter here: it is not the region that helps",
        ),
        Method(
            "exchange_only",
            "exchanged copies only (λ → 0)",
            "class labels + decisions",
            "#56b4e9",
            meaning="the copies with exchanged regions do it, and the penalty adds nothing to be seen",
        ),
        Method(
            "random_neurons",
            "SCORE, random neurons",
            "class labels + decisions",
            "#cc79a7",
            meaning="which neurons are penalised does not matter here",
        ),
        Method("repair", "repair, no training", "class labels + decisions", "#009e73", is_control=False),
        Method("score", "SCORE", "class labels + decisions", "#0072b2", is_control=False),
    )
}
#: Keys in results of earlier versions → keys now.
_BEFORE = {"swap_only": "exchange_only"}


def find_method(key: str) -> Method | None:
    """The method of a key in `results.json`, also of an earlier version's; None for one that is not of a run."""
    return METHODS.get(_BEFORE.get(key, key))


def form_of(config: Mapping[str, Any]) -> str | None:
    """SCORE's form in a configuration, also of an earlier version; None where it says nothing of it."""
    return with_new_names(config).get("score_form")


def label_of(key: str, results: Mapping[str, Any]) -> str:
    """What to call a method of `results.json`; an earlier version called every form SCORE."""
    method, label = find_method(key), results["methods"].get(key, {}).get("label", key)
    return method.called(form_of_results(results)) if method and label == method.label else label


def form_of_results(results: Mapping[str, Any]) -> str | None:
    """SCORE's form in a run: the one that it was given, or that every seed has chosen; None where they differ."""
    chosen = {run.get("score_form") for run in results["methods"].get("score", {}).get("runs", ())}
    (only,) = chosen if len(chosen) == 1 else (None,)
    return only or form_of(results.get("config") or {})
