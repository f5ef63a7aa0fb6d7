"""The selection file: which candidates were judged spurious-positive, by whom or what, for which model and data."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal, get_args

from ..errors import SelectionError
from ..files import write_json

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
        return write_json(path, {"schema": SCHEMA, **asdict(self)})

    @classmethod
    def load(
        cls, path: str | Path, *, dataset_fingerprint: str | None = None, model_fingerprint: str | None = None
    ) -> Selection:
        """Read a selection file.

        Raises:
            SelectionError: not a selection file, or one for another data set or model than the fingerprints given.
        """
        path = Path(path)
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
        except FileNotFoundError:
            raise SelectionError(f"there is no selection file {path}: check the path.") from None
        except (OSError, ValueError) as error:
            raise SelectionError(f"{path} cannot be read as JSON ({error}): give a selection file.") from None
        if not isinstance(content, dict) or content.get("schema") != SCHEMA:
            found = content.get("schema") if isinstance(content, dict) else type(content).__name__
            raise SelectionError(
                f"{path} has schema {found!r} instead of {SCHEMA!r}: give a selection file of hf-score."
            )
        try:
            content.pop("schema")
            content["decisions"] = tuple(Decision(**decision) for decision in content["decisions"])
            selection = cls(**content)
        except (KeyError, TypeError) as error:
            raise SelectionError(f"{path} does not fit schema {SCHEMA} ({error}): write it again.") from None
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
