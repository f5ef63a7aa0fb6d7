"""Old names of options, accepted for one release: what each is called now, and a warning that says so.

`OPTIONS` are the fields of the configurations, `PLAN` the words of a benchmark's plan, rows and command line.
"""

from __future__ import annotations

import functools
import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

from .errors import HFScoreError

__all__ = ["OPTIONS", "PLAN", "accepts_old_names", "in_new_words", "with_new_names"]

#: Old name → the new one, or a function from the old value to the new names and values.
Renamed = Mapping[str, str | Callable[[Any], dict[str, Any]]]
_Class = TypeVar("_Class", bound=type)


def _form(value: Any) -> dict[str, Any]:
    return {"score_form": {"margin": "exchange", "neurons": "paper"}.get(value, value)}


def _penalised(value: Any) -> dict[str, Any]:
    if value is None:  # in a plan: as if it had not been said
        return {"score_form": None, "score_neuron_strength": None}
    if value == "difference":
        return {"score_form": "exchange"}
    return {"score_form": "paper", "score_neuron_strength": value}


OPTIONS: Renamed = {
    "score_penalised": _penalised,
    "score_penalty": _form,
    "score_reading": "score_granularity",
    "score_swap_weight": "score_exchange_weight",
    "afr_pull": "afr_l2_to_start",
    "cb_llr_pull": "cb_llr_l2_to_start",
    "self_pull": "self_l2_to_start",
    "prusc_pull": "prusc_l2_to_start",
}
PLAN: Renamed = {"set": "dataset", "sets": "datasets", "by_set": "by_dataset"}


def with_new_names(fields: Mapping[str, Any], table: Renamed = OPTIONS, *, where: str | None = None) -> dict[str, Any]:
    """The same fields under their new names, each where the old one stood.

    Args:
        fields: name → value.
        table: what was renamed.
        where: where the fields come from, to warn that an old name stands there; None for what no person wrote.

    Raises:
        HFScoreError: an old name beside its new one.
    """
    found: dict[str, Any] = {}
    for name, value in fields.items():
        new = table.get(name, name)
        translated = {new: value} if isinstance(new, str) else new(value)
        if name in table:
            if both := sorted(translated.keys() & fields.keys()):
                raise HFScoreError(f"{where or 'the options'}: {name} is the old name of {both[0]}: give one of them.")
            if where is not None:
                said = ", ".join(f"{k}={v!r}" for k, v in translated.items()) if callable(new) else new
                warnings.warn(
                    f"{where}: {name} is called {said} now: the old name is accepted in this release only.",
                    FutureWarning,
                    stacklevel=3,
                )
        found |= translated
    return found


def accepts_old_names(config_class: _Class) -> _Class:
    """Class decorator, above `@dataclass`: keywords may have their old names, with a `FutureWarning`."""
    make: Any = config_class.__init__  # type: ignore[misc]

    @functools.wraps(make)
    def __init__(self: Any, *args: Any, **kwargs: Any) -> None:
        make(self, *args, **with_new_names(kwargs, where=config_class.__name__))

    config_class.__init__ = __init__  # type: ignore[misc]
    return config_class


def in_new_words(words: Sequence[str], table: Renamed = OPTIONS) -> list[str]:
    """A command line's words with the new options, with a `FutureWarning` for every old one.

    `--old value` and `--old=value`, with `_` or `-` between the parts of a name.
    """
    found: list[str] = []
    rest = list(words)
    while rest:
        word = rest.pop(0)
        option, equals, value = word.partition("=")
        name = option[2:].replace("-", "_")
        if not option.startswith("--") or name not in table:
            found.append(word)
            continue
        if not equals and (not rest or rest[0].startswith("--")):
            raise HFScoreError(f"{option} has no value: give one.")
        value = value if equals else rest.pop(0)
        for new, new_value in with_new_names({name: value}, table, where="the command line").items():
            found += [f"--{new}", new_value]
    return found
