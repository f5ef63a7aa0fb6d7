"""What needs no groups and is the same for every method of a job: the verdict beside its ERM model, and estimates."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from transformers import PreTrainedModel

from ..data import ImageCollator
from ..detection import SpuriousSamples
from ..evaluation import Estimates, JudgedRegions, Verdicts
from ..evaluation.verdict import FEWEST_HELD_OUT
from ..pipeline import Workspace
from ..report.conclusions import region_outcome
from ..training import SCOREConfig
from .samples import CHOOSERS, SAMPLES

__all__ = ["Judge"]


class Judge:
    """Judges the models of one job by the same samples and pictures; its ERM model is measured once.

    The samples are those that the data set's entry in the plan asks for, an oracle's by default and proposals where no
    region is known; of them those that SCORE never trains on, where there are enough.

    Args:
        workspace: the job's.
        fields: the data set's own `samples` in the plan.
        choose: fields of `samples` → samples.
        start: the job's ERM model.
        logits: a model's, (N, K) of the test images.
        seed: the job's.
    """

    def __init__(
        self,
        workspace: Workspace,
        fields: Mapping[str, Any],
        *,
        choose: Callable[[dict[str, Any]], SpuriousSamples],
        start: PreTrainedModel,
        logits: Callable[[Any], np.ndarray],
        seed: int,
    ) -> None:
        said = {name: value for name, value in fields.items() if value is not None}
        if not workspace.data.has_regions and said.get("choose") != "file":
            said["choose"] = "proposals"
        chosen = choose(said)
        self._decided_by = CHOOSERS[said.get("choose", SAMPLES["choose"])]
        held_out = chosen.split(held_out_share=SCOREConfig.score_held_out_share, seed=seed)[1]
        enough = len(held_out) >= FEWEST_HELD_OUT
        samples = (held_out if enough else chosen) if len(chosen) else None
        test = workspace.view("test")
        labels, regions = test.labels.tolist(), None
        if samples is not None:
            collate = ImageCollator(workspace.processor)
            about: dict[str, Any] = {"held_out": enough, "device": workspace.device, "seed": seed}
            regions = JudgedRegions(samples, test, labels, collate=collate, **about)
        self._verdicts = Verdicts(regions, labels, workspace.data.class_names)
        self._verdicts(start.eval(), logits(start))
        #: The label-free estimates, measured at every evaluation of any method; None where nobody found a sample.
        self.estimates: Estimates | None = None
        if samples is not None:
            self.estimates = Estimates(samples, workspace.partners("held_out"), device=workspace.device)

    def verdict(self, model: Any, logits: np.ndarray) -> dict[str, Any]:
        """Whether the judged regions mislead a model less than the ERM model: what `Verdicts` says, with `outcome`
        (improved, unchanged, worse or unknown) and `decided_by`.

        Args:
            model: in eval mode.
            logits: (N, K), of the test images.
        """
        found = self._verdicts(model, logits)
        found.pop("examples", None)
        outcome = region_outcome(found)
        return {"outcome": "unknown" if outcome == "cannot tell" else outcome, "decided_by": self._decided_by, **found}

    def estimate(self, model: Any) -> dict[str, float]:
        """The label-free estimates of a model's worst group by name; none where nobody found a sample."""
        return self.estimates(model) if self.estimates is not None else {}
