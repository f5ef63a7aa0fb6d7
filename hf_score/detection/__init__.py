"""Finding spurious-positive samples: scan, masks, candidates, and the decision about them as a file."""

from .candidates import Candidates, find_candidates
from .decide import decide_at_random, decide_by_file, decide_by_oracle
from .masks import relevance_mask
from .samples import SpuriousSamples, reliance
from .scan import scan
from .selection import Decision, Selection

__all__ = [
    "Candidates",
    "Decision",
    "Selection",
    "SpuriousSamples",
    "decide_at_random",
    "decide_by_file",
    "decide_by_oracle",
    "find_candidates",
    "relevance_mask",
    "reliance",
    "scan",
]
