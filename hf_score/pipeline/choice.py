"""Which of several fine-tunings a run keeps: the one whose label-free estimate of the worst group is the highest."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from ..training import SCOREConfig, SCORETrainer
from ..training.convergence import best_epoch
from .arguments import RunArguments
from .controls import CHANGES
from .results import training_cost

__all__ = ["Choice", "Trial", "chooses", "trials_of"]


@dataclass(frozen=True)
class Trial:
    """One fine-tuning: what its checkpoints are called, and the options that are its own."""

    name: str
    fields: dict[str, Any]


def trials_of(method: str, arguments: RunArguments, config: SCOREConfig) -> list[Trial]:
    """The fine-tunings that a method chooses from: one for every form and λ, or one alone where nothing is to be
    chosen."""
    changes = CHANGES.get(method, {})
    fixed = [changes.get("score_lambda", config.score_lambda)]
    lambdas, forms = fixed, [config.score_form]
    if chooses(method, arguments):
        lambdas, forms = arguments.lambdas or fixed, arguments.score_forms or forms  # type: ignore[assignment]
    return [
        Trial(
            "-".join([method, *([form] if len(forms) > 1 else []), f"{value:g}"]),
            {**changes, "score_form": form, "score_lambda": value},
        )
        for form in forms
        for value in lambdas
    ]


def chooses(method: str, arguments: RunArguments) -> bool:
    """Whether a method's form and λ are among several, and not its own."""
    return bool(arguments.lambdas or arguments.score_forms) and "score_lambda" not in CHANGES.get(method, {})


@dataclass
class Choice:
    """The best of the fine-tunings so far; of equals, the first.

    Args:
        measures: whether there is anything to choose, so that each is measured.
    """

    measures: bool
    #: The trainer with the highest estimate.
    trainer: SCORETrainer | None = None
    _cost: dict[str, float] = field(default_factory=dict)
    _estimates: list[tuple[str, float, float]] = field(default_factory=list)

    def add(self, trainer: SCORETrainer, say: Callable[[str], None]) -> None:
        """Measure a trained model, beside those before it."""
        for name, spent in training_cost(trainer).items():
            self._cost[name] = self._cost.get(name, 0.0) + spent
        estimate = 0.0
        if self.measures:
            estimate = trainer.evaluate()["eval_selection"]
            say(f"  {trainer.title}, λ = {trainer.args.score_lambda:g}: label-free estimate {estimate:.3f}")
        if self.trainer is None or estimate > max(before for *_, before in self._estimates):
            self.trainer = trainer
        self._estimates.append((trainer.args.score_form, trainer.args.score_lambda, estimate))

    @property
    def outcome(self) -> dict[str, Any]:
        """What `results.json` says of it: the cost of all, and the chosen one's λ, best epoch and mechanism."""
        assert self.trainer is not None
        args = self.trainer.args
        outcome: dict[str, Any] = {**self._cost, "best_epoch": best_epoch(self.trainer.state, args)}
        if gates := self.trainer.gates():
            outcome["mechanism"] = gates
        if self.measures:
            of_form = [(value, estimate) for form, value, estimate in self._estimates if form == args.score_form]
            outcome |= {"score_lambda": args.score_lambda, "lambda_estimates": of_form}
            if len({form for form, *_ in self._estimates}) > 1:
                outcome |= {"score_form": args.score_form, "form_estimates": self._estimates}
        return outcome
