"""Gates: what shows that a method did in a run what it is there to do. A run that fails one says nothing of it."""

from __future__ import annotations

import json
import math
import operator
from collections.abc import Callable, Mapping

__all__ = ["WANTED", "judged_gates"]

_IS: dict[str, Callable[[float, float], bool]] = {">=": operator.ge, "<=": operator.le, ">": operator.gt}

#: Name of a gate, as a trainer's `gates()` gives it → what its value has to be. One that is not here is shown and
#: fails nothing.
WANTED: dict[str, str] = {
    "share_of_samples_active": ">= 0.5",  # r > 0 somewhere
    "share_of_activations_penalised": ">= 0.001",
    "penalty_start": "> 0",
    "group_weight_range": ">= 0.1",  # of GroupDRO's q, between the group with most and with least
    "pruned_share": ">= 0.01",
}


def judged_gates(gates: Mapping[str, float]) -> tuple[str, str]:
    """The columns `gates` and `inactive` of a row.

    Args:
        gates: name → value, of a trainer after training.

    Returns:
        JSON of name → `value`, `wanted` (None where nothing is) and `passed`, and the names of those that failed,
        joined by a comma: "" for a run that counts. A value that is not finite fails.
    """
    judged = {}
    for name, value in gates.items():
        wanted = WANTED.get(name)
        passed = math.isfinite(value) and (wanted is None or _holds(value, wanted))
        judged[name] = {"value": value if math.isfinite(value) else None, "wanted": wanted, "passed": passed}
    return json.dumps(judged), ", ".join(name for name, gate in judged.items() if not gate["passed"])


def _holds(value: float, wanted: str) -> bool:
    sign, number = wanted.split()
    return _IS[sign](value, float(number))
