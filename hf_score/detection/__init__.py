"""Finding spurious-positive samples: scan, masks, candidates, and the decision about them as a file."""

from .candidates import Candidates, Original
from .clusters import Cluster, ClusterNeuron, cluster_candidates, describe_clusters
from .decide import (
    decide_at_random,
    decide_by_cluster,
    decide_by_file,
    decide_by_oracle,
    decide_by_proposal,
    region_shares,
)
from .evidence import find_evidence, hue_contrast, transfer
from .find import explain_hits, find_candidates
from .masks import relevance_mask
from .objects import ObjectFinder
from .ranking import suspicion
from .samples import SpuriousSamples
from .scan import ScanHit, ScanResult, UnreadableImage, scan
from .selection import Decision, Selection

__all__ = [
    "Candidates",
    "Cluster",
    "ClusterNeuron",
    "Decision",
    "ObjectFinder",
    "Original",
    "ScanHit",
    "ScanResult",
    "Selection",
    "SpuriousSamples",
    "UnreadableImage",
    "cluster_candidates",
    "decide_at_random",
    "decide_by_cluster",
    "decide_by_file",
    "decide_by_oracle",
    "decide_by_proposal",
    "describe_clusters",
    "explain_hits",
    "find_candidates",
    "find_evidence",
    "hue_contrast",
    "region_shares",
    "relevance_mask",
    "scan",
    "suspicion",
    "transfer",
]
