"""Gates: what shows that a method did in a run what it is there to do. A run that fails one says nothing of it."""

from __future__ import annotations

import json
import math
import operator
from collections.abc import Callable, Mapping

__all__ = ["WANTED", "judged_gates"]

_IS: dict[str, Callable[[float, float], bool]] = {">=": operator.ge, "<=": operator.le, ">": operator.gt}

#: Name of a gate, as a trainer's `gates()` gives it → what its value has to be, where its class does not say so in
#: `wanted_gates`. One that is in neither is shown and fails nothing.
WANTED: dict[str, str] = {
    "share_of_samples_active": ">= 0.5",  # r > 0 somewhere
    "share_of_activations_penalised": ">= 0.001",
    "penalty_start": "> 0",
}


def judged_gates(gates: Mapping[str, float], wanted_gates: Mapping[str, str] | None = None) -> tuple[str, str]:
    """The columns `gates` and `inactive` of a row.

    Args:
        gates: name → value, of a trainer after training.
        wanted_gates: name → what the value has to be, of its class; before `WANTED`.

    Returns:
        JSON of name → `value`, `wanted` (None where nothing is) and `passed`, and the names of those that failed,
        joined by a comma: "" for a run that counts. A value that is not finite fails.
    """
    judged = {}
    for name, value in gates.items():
        wanted = {**WANTED, **(wanted_gates or {})}.get(name)
        passed = math.isfinite(value) and (wanted is None or _holds(value, wanted))
        judged[name] = {"value": value if math.isfinite(value) else None, "wanted": wanted, "passed": passed}
    return json.dumps(judged), ", ".join(name for name, gate in judged.items() if not gate["passed"])


def _holds(value: float, wanted: str) -> bool:
    sign, number = wanted.split()
    return _IS[sign](value, float(number))
