"""The methods that SCORE is compared with, one file each, and what each is told beyond class labels.

`BASELINES` maps names to trainers. A baseline is a [`BaselineTrainer`] with a `BaselineConfig`: the same pattern as
`SCORETrainer` and `SCOREConfig`, the same data.
"""

from ..training.supervision import SUPERVISION_KINDS, Supervision
from .afr import AFRConfig, AFRTrainer
from .base import BaselineConfig, BaselineTrainer
from .cdep import CDEPConfig, CDEPTrainer
from .cnc import CnCConfig, CnCTrainer
from .dfr import DFRConfig, DFRTrainer
from .erm import ContinuedERMTrainer, ERMTrainer
from .group_dro import GroupDROConfig, GroupDROTrainer
from .jtt import JTTConfig, JTTTrainer
from .last_layer import CBLLRConfig, CBLLRTrainer
from .lff import LfFConfig, LfFTrainer
from .masktune import MaskTuneConfig, MaskTuneTrainer
from .prusc import PruSCConfig, PruSCTrainer
from .reweighting import ReweightingTrainer
from .rr_clarc import RRClArCConfig, RRClArCSamplesTrainer, RRClArCTrainer
from .rrr import RRRConfig, RRRTrainer
from .self_ import SELFConfig, SELFTrainer
from .subsampling import SubsamplingTrainer

__all__ = [
    "BASELINES",
    "SUPERVISION_KINDS",
    "AFRConfig",
    "AFRTrainer",
    "BaselineConfig",
    "BaselineTrainer",
    "CBLLRConfig",
    "CBLLRTrainer",
    "CDEPConfig",
    "CDEPTrainer",
    "CnCConfig",
    "CnCTrainer",
    "ContinuedERMTrainer",
    "DFRConfig",
    "DFRTrainer",
    "ERMTrainer",
    "GroupDROConfig",
    "GroupDROTrainer",
    "JTTConfig",
    "JTTTrainer",
    "LfFConfig",
    "LfFTrainer",
    "MaskTuneConfig",
    "MaskTuneTrainer",
    "PruSCConfig",
    "PruSCTrainer",
    "RRClArCConfig",
    "RRClArCSamplesTrainer",
    "RRClArCTrainer",
    "RRRConfig",
    "RRRTrainer",
    "ReweightingTrainer",
    "SELFConfig",
    "SELFTrainer",
    "SubsamplingTrainer",
    "Supervision",
]

#: name → trainer, in the order of the tables.
BASELINES: dict[str, type[BaselineTrainer]] = {
    trainer.name: trainer
    for trainer in (
        ERMTrainer,
        ContinuedERMTrainer,
        LfFTrainer,
        JTTTrainer,
        CnCTrainer,
        MaskTuneTrainer,
        AFRTrainer,
        CBLLRTrainer,
        SELFTrainer,
        PruSCTrainer,
        RRClArCSamplesTrainer,
        RRRTrainer,
        CDEPTrainer,
        DFRTrainer,
        GroupDROTrainer,
        SubsamplingTrainer,
        ReweightingTrainer,
        RRClArCTrainer,
    )
}
