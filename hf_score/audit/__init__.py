"""An audit of a trained classifier: does it go by a shortcut, and how often would such a finding be chance?

Training images are scanned, and regions that the classes rest on are put into test images beside placebos; marks that
shortcuts often are are planted beside theirs. Nothing is trained, and no group label is read.
"""

from .audit import AUDIT_SCHEMA, Audit, AuditOptions, audit
from .command import run_audit
from .flips import Flips, exchange_flips, probe_findings, probe_flips, probe_presence
from .page import render_badge, render_card_section, render_page, write_audit
from .probes import PROBES, Probe
from .regions import RegionPairs, cluster_findings, region_pairs

__all__ = [
    "AUDIT_SCHEMA",
    "PROBES",
    "Audit",
    "AuditOptions",
    "Flips",
    "Probe",
    "RegionPairs",
    "audit",
    "cluster_findings",
    "exchange_flips",
    "probe_findings",
    "probe_flips",
    "probe_presence",
    "region_pairs",
    "render_badge",
    "render_card_section",
    "render_page",
    "run_audit",
    "write_audit",
]
