"""What an audit leaves: one offline page, one JSON file, a section for a model card, and a badge."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ..files import write_json, write_text
from ..report.figures import candidate_sheet
from ..report.html import data_uri
from ..report.redact import redact
from ..report.templating import environment
from .audit import Audit
from .chance import expected_wrong

__all__ = ["render_badge", "render_card_section", "render_page", "write_audit"]

#: Clusters that are shown, and candidates of each; lines of the table of probes.
_CLUSTERS, _EACH, _LINES = 6, 8, 24
_COLOURS = {"nothing found": "#00704a", "suspected": "#a61b1b", "too few images": "#80560a"}


def write_audit(folder: str | Path, audit: Audit) -> Path:
    """Write `index.html`, `card_section.md`, `badge.svg` and last `audit.json`, each whole or not at all.

    Returns:
        the page's path.
    """
    folder = Path(folder)
    page = write_text(folder / "index.html", render_page(audit))
    write_text(folder / "card_section.md", render_card_section(audit.content))
    write_text(folder / "badge.svg", render_badge(audit.content))
    write_json(folder / "audit.json", audit.content)
    return page


def render_page(audit: Audit) -> str:
    """The page; it needs no other file and makes no request. Local paths are not shown."""
    content = redact(audit.content)
    return (
        environment(autoescape=True)
        .get_template("audit.html.jinja")
        .render(
            audit=content,
            created=str(content["created"])[:16].replace("T", " "),
            wrong=expected_wrong(),
            clusters=_cluster_cells(content["clusters"]),
            probes=_probe_cells(content["probes"][:_LINES]),
            left_out=max(0, len(content["probes"]) - _LINES),
            sheets=_sheets(audit),
            strip={
                "source": data_uri(audit.probes),
                "alt": "A test image with every probe and its placebo.",
                "caption": "A test image with each probe; below it the placebo.",
            },
        )
    )


def render_card_section(content: Mapping[str, Any]) -> str:
    """A section in markdown for a model card: what was found, and what was not looked at."""
    content = redact(dict(content))
    tables = {"clusters": _cluster_cells(content["clusters"]), "probes": _probe_cells(content["probes"][:8])}
    template = environment(autoescape=False).get_template("audit_section.md.jinja")
    return template.render(audit=content, wrong=expected_wrong(), **tables)


def render_badge(content: Mapping[str, Any]) -> str:
    """A small picture (SVG) with the outcome."""
    summary = content["summary"]
    count = summary["findings"]
    said = f"{count} finding{'s' * (count != 1)}" if count else summary["outcome"]
    template = environment(autoescape=True).get_template("audit_badge.svg.jinja")
    return template.render(left="shortcut audit", right=said, colour=_COLOURS[summary["outcome"]])


Cells = tuple[list[str], list[list[str]]]


def _cluster_cells(clusters: Sequence[Mapping[str, Any]]) -> Cells:
    header = ["cluster", "images", "suspicion", "overrules", "more than placebo, logits", "false discovery rate", ""]
    rows = [
        [
            f"{one['class']}, {one['cluster']}",
            str(one["size"]),
            "–" if one["suspicion"] is None else f"{one['suspicion']:.2f}",
            _share(one["overruled"]),
            _number(one["gain"]),
            _rate(one["rate"]),
            "suspected" if one["found"] else "",
        ]
        for one in clusters
    ]
    return header, rows


def _probe_cells(probes: Sequence[Mapping[str, Any]]) -> Cells:
    header = [
        "probe",
        "taken for",
        "with it",
        "with its placebo",
        "difference",
        "presence",
        "false discovery rate",
        "",
    ]
    rows = [
        [
            one["title"],
            one["class"],
            _share(one["flips"]),
            _share(one["placebo"]),
            _share(one["difference"]),
            "–" if one["presence"] is None else f"{one['presence']:.2f}",
            _rate(one["rate"]),
            "suspected" if one["found"] else "",
        ]
        for one in probes
    ]
    return header, rows


def _share(figure: Mapping[str, Any] | None) -> str:
    if figure is None:
        return "–"
    return f"{100 * figure['value']:.0f} % ({100 * figure['low']:.0f} to {100 * figure['high']:.0f})"


def _number(figure: Mapping[str, Any]) -> str:
    return f"{figure['value']:.2f} ({figure['low']:.2f} to {figure['high']:.2f})"


def _rate(rate: float) -> str:
    return "< 0.001" if rate < 0.001 else f"{rate:.3f}"


def _sheets(audit: Audit) -> list[dict[str, str]]:
    """The strongest clusters in pictures, those that were found first."""
    sheets = []
    typical = {cluster.cluster: cluster.typical for cluster in audit.candidates.describe_clusters()}
    for one in audit.content["clusters"][:_CLUSTERS]:
        rows = np.asarray(typical[one["cluster"]][:_EACH])
        said = "suspected" if one["found"] else "no finding"
        sheets.append(
            {
                "source": data_uri(candidate_sheet(audit.candidates.take(rows))),
                "alt": f"Candidates of cluster {one['cluster']}, each as image, masked image and heatmap.",
                "caption": f"{one['class']}, cluster {one['cluster']}: {said}. Overrules {_share(one['overruled'])}.",
            }
        )
    return sheets
