"""The methods that SCORE is compared with, one file each, and what each is told beyond class labels.

`BASELINES` maps names to trainers. A baseline is a [`BaselineTrainer`] with a `BaselineConfig`: the same pattern as
`SCORETrainer` and `SCOREConfig`, the same data.
"""

from ..training.supervision import SUPERVISION_KINDS, Supervision
from .afr import AFRConfig, AFRTrainer
from .asm import ASMConfig, ASMTrainer
from .base import BaselineConfig, BaselineTrainer
from .cdep import CDEPConfig, CDEPTrainer
from .cnc import CnCConfig, CnCTrainer
from .copies import CopiesConfig, CopiesTrainer
from .dcwp import DCWPConfig, DCWPTrainer
from .dedier import DEDIERConfig, DEDIERTrainer
from .dfr import DFRConfig, DFRTrainer
from .dpe import DPEConfig, DPETrainer
from .energy import EnergyConfig, EnergyTrainer
from .erm import ContinuedERMTrainer, ERMTrainer
from .exmap import ExMapConfig, ExMapTrainer
from .fg_ccdb import FGCCDBConfig, FGCCDBTrainer
from .gals import GALSConfig, GALSTrainer
from .group_dro import GroupDROConfig, GroupDROTrainer
from .jtt import JTTConfig, JTTTrainer
from .last_layer import CBLLRConfig, CBLLRTrainer
from .lff import LfFConfig, LfFTrainer
from .masktune import MaskTuneConfig, MaskTuneTrainer
from .neurontune import NeuronTuneConfig, NeuronTuneTrainer
from .prusc import PruSCConfig, PruSCTrainer
from .repair import RepairConfig, RepairTrainer
from .reweighting import ReweightingTrainer
from .rr_clarc import RRClArCConfig, RRClArCSamplesTrainer, RRClArCTrainer
from .rrr import RRRConfig, RRRTrainer
from .sae_muting import SAEMutingConfig, SAEMutingTrainer
from .self_ import SELFConfig, SELFTrainer
from .spare import SPAREConfig, SPARETrainer
from .subsampling import SubsamplingTrainer
from .tab import TABTrainer
from .uv_dro import UVDROConfig, UVDROTrainer

__all__ = [
    "BASELINES",
    "SUPERVISION_KINDS",
    "AFRConfig",
    "AFRTrainer",
    "ASMConfig",
    "ASMTrainer",
    "BaselineConfig",
    "BaselineTrainer",
    "CBLLRConfig",
    "CBLLRTrainer",
    "CDEPConfig",
    "CDEPTrainer",
    "CnCConfig",
    "CnCTrainer",
    "ContinuedERMTrainer",
    "CopiesConfig",
    "CopiesTrainer",
    "DCWPConfig",
    "DCWPTrainer",
    "DEDIERConfig",
    "DEDIERTrainer",
    "DFRConfig",
    "DFRTrainer",
    "DPEConfig",
    "DPETrainer",
    "ERMTrainer",
    "EnergyConfig",
    "EnergyTrainer",
    "ExMapConfig",
    "ExMapTrainer",
    "FGCCDBConfig",
    "FGCCDBTrainer",
    "GALSConfig",
    "GALSTrainer",
    "GroupDROConfig",
    "GroupDROTrainer",
    "JTTConfig",
    "JTTTrainer",
    "LfFConfig",
    "LfFTrainer",
    "MaskTuneConfig",
    "MaskTuneTrainer",
    "NeuronTuneConfig",
    "NeuronTuneTrainer",
    "PruSCConfig",
    "PruSCTrainer",
    "RRClArCConfig",
    "RRClArCSamplesTrainer",
    "RRClArCTrainer",
    "RRRConfig",
    "RRRTrainer",
    "RepairConfig",
    "RepairTrainer",
    "ReweightingTrainer",
    "SAEMutingConfig",
    "SAEMutingTrainer",
    "SELFConfig",
    "SELFTrainer",
    "SPAREConfig",
    "SPARETrainer",
    "SubsamplingTrainer",
    "Supervision",
    "TABTrainer",
    "UVDROConfig",
    "UVDROTrainer",
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
        SPARETrainer,
        TABTrainer,
        FGCCDBTrainer,
        DEDIERTrainer,
        UVDROTrainer,
        MaskTuneTrainer,
        AFRTrainer,
        CBLLRTrainer,
        SELFTrainer,
        NeuronTuneTrainer,
        DPETrainer,
        ExMapTrainer,
        ASMTrainer,
        PruSCTrainer,
        DCWPTrainer,
        RRClArCSamplesTrainer,
        SAEMutingTrainer,
        CopiesTrainer,
        RepairTrainer,
        RRRTrainer,
        CDEPTrainer,
        EnergyTrainer,
        GALSTrainer,
        DFRTrainer,
        GroupDROTrainer,
        SubsamplingTrainer,
        ReweightingTrainer,
        RRClArCTrainer,
    )
}
