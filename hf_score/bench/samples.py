"""Who decides on spurious-positive samples in a benchmark: an oracle, a hasty person, the tool alone, or chance."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import PreTrainedModel

from ..detection import (
    Candidates,
    ScanHit,
    Selection,
    SpuriousSamples,
    decide_at_random,
    decide_by_cluster,
    decide_by_oracle,
    decide_by_proposal,
    explain_hits,
    find_candidates,
    find_evidence,
)
from ..errors import HFScoreError
from ..pipeline import Workspace
from ..pipeline.controls import random_hits

__all__ = ["CHOOSERS", "SAMPLES", "ChosenSamples", "told"]

#: How a plan's `samples` may ask for the spurious-positive samples, with the defaults.
SAMPLES: dict[str, Any] = {
    "choose": "oracle",
    "selection": None,  # of `choose: file`, a selection file
    "masks": "found",  # found | moved (control) | true (the known region)
    "num_keep": 40,
    "mask_area": 0.2,
    "mask_share": 0.95,
    "object_share": None,  # of the pretrained model's relevance: masks are everything except the object that it sees
    "threshold": 0.15,
    "wrong_share": 0.0,  # of the samples, replaced by random images of their class
}
#: What `choose` may be → what a method is told by it.
CHOOSERS = {
    "oracle": "oracle decisions",
    "clusters": "one oracle decision per cluster",
    "proposals": "proposals nobody looked at",
    "file": "decisions of a file",
    "random": "which classes have the shortcut",  # random images of them
    "random_any": "nothing",  # random images of all classes
}
_WITH_REGIONS = ("oracle", "clusters")


def told(samples: Mapping[str, Any]) -> str:
    """What samples of a plan tell a method, in words for the column of supervision.

    Args:
        samples: fields of `SAMPLES`, those with another value than the default at least.
    """
    how = {**SAMPLES, **samples}
    words = CHOOSERS[how["choose"]]
    if how["wrong_share"]:
        words += f", {100 * how['wrong_share']:g} % of them wrong"
    if how["masks"] == "true":
        words += " + their true regions"
    return words + (" + everything except the object" if how["object_share"] is not None else "")


class ChosenSamples:
    """The samples of one job: those that somebody decided on, or what a control puts in their place.

    Args:
        workspace: the job's.
        folder: where candidates are kept.
        start: makes a fresh copy of the starting model.
        seed: of random draws.
    """

    def __init__(self, workspace: Workspace, *, folder: Path, start: Callable[[], PreTrainedModel], seed: int) -> None:
        self._workspace, self._folder, self._start, self._seed = workspace, folder, start, seed

    def __call__(self, fields: Mapping[str, Any]) -> SpuriousSamples:
        """The samples that a plan asks for.

        Args:
            fields: of `SAMPLES`.

        Raises:
            HFScoreError: nobody can decide so on this data set, or a file that is about other images.
        """
        how = {**SAMPLES, **fields}
        samples = self._of_file(how) if how["choose"] == "file" else self._of_candidates(how)
        if how["choose"].startswith("random") or how["wrong_share"]:
            samples = self._with_random(samples, how)
        if how["masks"] == "moved":
            return samples.move_masks(seed=self._seed)
        if how["masks"] == "true":
            nothing = np.zeros(samples.masks.shape[1:])
            known = self._workspace.regions("train", samples.idx.tolist())
            masks = np.stack([nothing if region is None else region for region in known])
            return dataclasses.replace(samples, masks=torch.as_tensor(masks) > 0.5)
        return samples

    def candidates(self, *, mask_share: float, mask_area: float, object_share: float | None = None) -> Candidates:
        """The starting model's candidates."""
        of_object = "" if object_share is None else f"-{object_share:g}"
        folder = self._folder / f"candidates-{mask_share:g}-{mask_area:g}{of_object}"
        if not (folder / "candidates.json").is_file():
            masks = {"mask_share": mask_share, "mask_area": mask_area, "object_share": object_share}
            found = find_candidates(self._start(), self._train, **self._explaining(masks))
            found.save(folder)
        return Candidates.load(folder)

    @property
    def _train(self) -> Any:
        return self._workspace.view("train")

    def _explaining(self, masks: Mapping[str, Any]) -> dict[str, Any]:
        return {**self._workspace.explaining(layer="last", **masks), "batch_size": 50}

    def _of_candidates(self, how: Mapping[str, Any]) -> SpuriousSamples:
        candidates = self.candidates(**_masks(how))
        return candidates.samples(self._decide(candidates, how), self._train)

    def _decide(self, candidates: Candidates, how: Mapping[str, Any]) -> Selection:
        has_regions = self._workspace.data.has_regions
        if how["choose"] in _WITH_REGIONS and not has_regions:
            raise HFScoreError(
                f"an oracle decides on samples from known regions, and '{self._workspace.data.name}' has none: add "
                "masks to its `load`, or say `choose: proposals`, or `choose: file` with a `selection`, in `samples`."
            )
        if how["choose"] == "proposals" or not has_regions:
            partners = self._workspace.partners("held_out")
            evidence = find_evidence(candidates, self._start(), self._train, partners)
            candidates = dataclasses.replace(candidates, evidence=evidence)
            assert candidates.suspicion is not None
            return decide_by_proposal(candidates, candidates.suspicion, num_keep=how["num_keep"])
        decide = decide_by_cluster if how["choose"] == "clusters" else decide_by_oracle
        regions = self._workspace.regions("train", candidates.idx)
        return decide(candidates, regions, num_keep=how["num_keep"], threshold=how["threshold"])

    def _of_file(self, how: Mapping[str, Any]) -> SpuriousSamples:
        """The pictures that a file calls spurious, explained by this job's model, whichever they were found with."""
        path = how["selection"]
        selection = Selection.load(path, dataset_fingerprint=self._workspace.data.fingerprint)
        position_of = {int(idx): position for position, idx in enumerate(self._train.idx)}
        missing = [d.idx for d in selection.spurious if d.idx not in position_of]
        if missing or not selection.spurious:
            what = f"keeps sample {missing[0]}, which is not trained on" if missing else "keeps no sample"
            raise HFScoreError(f"{path} {what}: give decisions on training images of '{self._workspace.data.name}'.")
        hits = [ScanHit(0.0, position_of[d.idx], d.idx, d.label) for d in selection.spurious]
        return self._explained(hits, how)

    def _explained(self, hits: list[ScanHit], how: Mapping[str, Any]) -> SpuriousSamples:
        explained = explain_hits(self._start(), self._train, hits, **self._explaining(_masks(how)))
        return explained.samples(decide_at_random(explained), self._train)

    def _with_random(self, samples: SpuriousSamples, how: Mapping[str, Any]) -> SpuriousSamples:
        """Random images in place of all samples (control), or of some of each class (a worse person)."""
        generator = np.random.default_rng(self._seed)
        labels, ids = self._train.labels.cpu().numpy(), self._train.idx.numpy()
        share = 1.0 if how["choose"].startswith("random") else how["wrong_share"]
        keep: list[int] = []
        hits: list[ScanHit] = []
        for label in samples.labels.unique().tolist():
            rows = generator.permutation(np.flatnonzero(samples.labels.numpy() == label))
            count = round(share * len(rows))
            keep += rows[count:].tolist()
            any_class = how["choose"] == "random_any"
            hits += random_hits(labels, ids, label=label, count=count, generator=generator, any_class=any_class)
        if not hits:  # a tenth of fewer than five samples
            return samples
        return samples[keep].joined(self._explained(hits, how))


def _masks(how: Mapping[str, Any]) -> dict[str, Any]:
    return {name: how[name] for name in ("mask_share", "mask_area", "object_share")}
