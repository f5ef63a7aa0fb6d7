"""The selection file: which candidates were judged spurious-positive, by whom or what, for which model and data."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from dataclasses import dataclass, field, fields
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal, NotRequired, TypedDict, get_args

import msgspec

from ..errors import SelectionError
from ..files import Index, as_type, read_json, write_bytes

__all__ = ["Decision", "Selection"]

SCHEMA = "hf-score/selection/1"
Verdict = Literal["spurious", "core", "unsure"]
DecidedBy = Literal["person", "file", "oracle", "proposal", "random"]


@dataclass(frozen=True)
class Decision:
    """One judged candidate: sample `idx` of class `label`, the verdict, who or what gave it, why, of which shortcut.

    `shortcut` is the name that a person gave to what a spurious one shows; it is told, and decides nothing.
    """

    idx: int
    label: int
    verdict: Verdict
    decided_by: DecidedBy
    note: str = ""
    shortcut: str = ""

    def __post_init__(self) -> None:
        for name, value, allowed in (
            ("verdict", self.verdict, get_args(Verdict)),
            ("decided_by", self.decided_by, get_args(DecidedBy)),
        ):
            if value not in allowed:
                raise SelectionError(f"sample {self.idx} has {name} {value!r}: use one of {', '.join(allowed)}.")


@dataclass(frozen=True)
class Selection:
    """All decisions about one model's candidates from one data set.

    Attributes:
        decisions: at most one per sample.
        dataset_fingerprint, model_fingerprint: what the decisions are about; a file for another is refused.
        created: UTC time, ISO 8601.
    """

    decisions: tuple[Decision, ...]
    dataset_fingerprint: str
    model_fingerprint: str
    created: str = field(default_factory=lambda: datetime.now(UTC).isoformat(timespec="seconds"))

    @property
    def spurious(self) -> tuple[Decision, ...]:
        """The decisions that make a sample a spurious-positive one."""
        return tuple(d for d in self.decisions if d.verdict == "spurious")

    @property
    def decided_by(self) -> str:
        """Who or what decided, joined with + where several did."""
        return "+".join(sorted({d.decided_by for d in self.decisions})) or "nobody"

    @property
    def digest(self) -> str:
        """What training can see of a selection: how many spurious-positive samples, and a hash of which they are."""
        kept = sorted((d.idx, d.label) for d in self.spurious)
        return f"{len(kept)} spurious, {hashlib.sha256(json.dumps(kept).encode()).hexdigest()[:8]}"

    def counts(self, class_names: list[str]) -> dict[str, int]:
        """Number of spurious-positive samples per class name."""
        count = Counter(d.label for d in self.spurious)
        return {name: count.get(label, 0) for label, name in enumerate(class_names)}

    def shortcuts(self, class_names: list[str]) -> dict[str, list[str]]:
        """The names that the shortcuts of each class were given, the most frequent first; classes without are absent.

        They name what was kept: samples that are no spurious-positive ones have no say.
        """
        named: dict[str, Counter[str]] = {}
        for d in self.spurious:
            if d.shortcut and 0 <= d.label < len(class_names):
                named.setdefault(class_names[d.label], Counter())[d.shortcut] += 1
        return {name: [shortcut for shortcut, _ in count.most_common()] for name, count in named.items()}

    def save(self, path: str | Path) -> Path:
        """Write the selection as JSON, atomically."""
        # msgspec, because a decision among 100,000 is to be on disk before the next one is made
        content = {"schema": SCHEMA, **{field.name: getattr(self, field.name) for field in fields(self)}}
        return write_bytes(path, msgspec.json.format(msgspec.json.encode(content), indent=2) + b"\n")

    @classmethod
    def load(
        cls, path: str | Path, *, dataset_fingerprint: str | None = None, model_fingerprint: str | None = None
    ) -> Selection:
        """Read a selection file.

        Raises:
            SelectionError: not a selection file, or one for another data set or model than the fingerprints given.
        """
        path = Path(path)
        content: Any = read_json(
            path, dict, what="selection file", advice="give one of hf-score", error=SelectionError
        )
        if content.get("schema") != SCHEMA:
            raise SelectionError(
                f"{path} has schema {content.get('schema')!r} instead of {SCHEMA!r}: give a selection file."
            )
        where = f"{path} does not fit schema {SCHEMA}"
        given = as_type(content, _Content, where=where, advice="write it again", error=SelectionError)
        decisions = tuple(Decision(**decision) for decision in given["decisions"])  # type: ignore[arg-type]
        seen = Counter(decision.idx for decision in decisions)
        if twice := [idx for idx, count in seen.items() if count > 1]:
            raise SelectionError(f"{path} decides twice about sample {twice[0]}: leave one decision.")
        kept = {name: value for name, value in given.items() if name != "decisions"}
        selection = cls(decisions, **kept)  # type: ignore[arg-type]
        for kind, found, expected in (
            ("data set", selection.dataset_fingerprint, dataset_fingerprint),
            ("model", selection.model_fingerprint, model_fingerprint),
        ):
            if expected is not None and found != expected:
                raise SelectionError(
                    f"{path} was decided for another {kind} (fingerprint {found}, this one has {expected}): "
                    "decide again on this run's candidates."
                )
        return selection


class _Row(TypedDict):
    idx: Index
    label: Index
    verdict: str  # `Decision` knows which
    decided_by: str
    note: NotRequired[str]
    shortcut: NotRequired[str]


class _Content(TypedDict):
    decisions: list[_Row]
    dataset_fingerprint: str
    model_fingerprint: str
    created: NotRequired[str]
