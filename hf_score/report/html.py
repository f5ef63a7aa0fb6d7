"""The report of a run: one HTML page that opens without a network, with every picture inside it."""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from PIL import Image

from ..errors import HFScoreError
from ..files import write_text
from .conclusions import class_cells, conclusions, region_cells
from .figures import png_bytes
from .names import in_words
from .plots import group_bars, training_curves, worst_groups
from .redact import redact
from .summary import summarise, table_cells
from .templating import environment, how_decided, which_lambda

__all__ = ["data_uri", "render_report", "write_report"]

#: Key prefixes of figures, the section they go to, and what a reader who cannot see them reads.
SECTIONS = {
    "group_bars": ("bars", "Bar chart of the accuracies per group; the table above holds the same numbers."),
    "contact_sheet": ("contact_sheets", "Contact sheet of candidates, each as original and masked image."),
    "insertions": ("insertions", "Test images with a judged region pasted in, with heatmaps before and after."),
    "heatmaps": ("heatmaps", "Images with their relevance heatmaps before and after."),
    "training_curves": ("curves", "Loss, penalty and held-out accuracy over the optimizer steps."),
}
PNG_LIMIT = 1_500_000
#: Of all pictures of a page, in characters: what does not fit is left out, contact sheets first, and the page says so.
PAGE_LIMIT = 8_500_000
#: Bars and curves are made here alone.
BARS = "Accuracy per group; with several seeds bars are means and dots are seeds. ▼: worst group of each method."
CURVES = (
    "Loss, penalty, held-out accuracy and reliance, from the starting model on. Held-out data comes from the training "
    "distribution."
)


def write_report(
    folder: str | Path, results: Mapping[str, Any], figures: Mapping[str, tuple[Image.Image, str]]
) -> Path:
    """Write `folder/index.html`, whole or not at all, and return its path; arguments and errors as `render_report`."""
    return write_text(Path(folder) / "index.html", render_report(results, figures))


def render_report(results: Mapping[str, Any], figures: Mapping[str, tuple[Image.Image, str]]) -> str:
    """The page of a run.

    The page needs no other file and makes no request: pictures are data URIs, styles are inside. Bars and curves are
    drawn from `results` where `figures` has none. Local paths and tokens in `results` are not shown.

    Args:
        results: the content of `results.json` (schema `hf-score/results/1`).
        figures: picture and caption by key. A key that starts with `contact_sheet`, `heatmaps`, `insertions`,
            `group_bars` or `training_curves` (such as `contact_sheet/benign`) goes to that section; others come last.
            Contact sheets are thumbnails that open. What would make the page larger than 10 MB is left out.

    Raises:
        HFScoreError: `results` has no methods, or lacks a part that the page is about.
    """
    results = redact(dict(results))
    if not results.get("methods"):
        raise HFScoreError("These results hold no methods, so there is nothing to report: run the evaluation first.")
    methods = summarise(results)
    labels = {key: method.label for key, method in methods.items()}
    sections, left_out = _sections({**_drawn(results, labels), **figures})
    header, rows = table_cells(results)
    try:
        page = (
            environment(autoescape=True)
            .get_template("report.html.jinja")
            .render(
                results=results,
                model=results["model"],
                dataset=results["dataset"],
                verdicts=conclusions(results),
                regions=region_cells(results),
                classes=class_cells(results),
                header=header,
                rows=list(zip(labels, rows, strict=True)),
                figures=sections,
                left_out=left_out,
                how_decided=how_decided(results),
                which_lambda=which_lambda(results),
                created=str(results.get("created") or "")[:16].replace("T", " "),
                test_counts=next(iter(results["methods"].values()))["runs"][0]["metrics"].get("group_count"),
                train_counts=_by_name(results["dataset"].get("train_group_counts"), results["dataset"]),
            )
        )
    except KeyError as error:
        raise HFScoreError(f"These results have no {error}: write them with this version of hf-score.") from error
    return page


def _drawn(results: Mapping[str, Any], labels: Mapping[str, str]) -> dict[str, tuple[Image.Image, str]]:
    """Bars and curves, where the results have their numbers."""
    drawn: dict[str, tuple[Image.Image, str]] = {}
    methods = list(summarise(results).values())
    if any(method.worst_group for method in methods):
        everyone, shown = list(methods[0].group_accuracy), worst_groups(results)
        caption = BARS + in_words(everyone, "group", among=[everyone.index(group) for group in shown])
        if len(shown) < len(everyone):
            caption += f" Shown are {len(shown)} of {len(everyone)} groups, those with the lowest accuracy."
        drawn["group_bars"] = (group_bars(results), caption)
    if results.get("history"):
        drawn["training_curves"] = (training_curves(results["history"], labels=labels), CURVES)
    return drawn


def _sections(figures: Mapping[str, tuple[Image.Image, str]]) -> tuple[dict[str, list[dict[str, str]]], bool]:
    """The pictures by section, as many as `PAGE_LIMIT` allows, and whether some did not fit; contact sheets come last
    to be fitted in, in their order."""
    names = [*(section for section, _ in SECTIONS.values()), "others"]
    sections: dict[str, list[dict[str, str]]] = {name: [] for name in names}
    room, left_out = PAGE_LIMIT, False
    for key, (image, caption) in sorted(figures.items(), key=lambda pair: pair[0].startswith("contact_sheet")):
        prefix = next((prefix for prefix in SECTIONS if key.startswith(prefix)), None)
        section, alt = SECTIONS[prefix] if prefix else ("others", "Picture, described below.")
        which = key.removeprefix(prefix or "").strip("/_ ")
        alt = f"{which}: {alt}" if which else alt
        source = data_uri(image)
        if len(source) > room:
            left_out = True
            continue
        room -= len(source)
        sections[section].append({"source": source, "alt": alt, "caption": caption})
    return sections, left_out


def _by_name(counts: Any, dataset: Mapping[str, Any]) -> dict[str, int] | None:
    """Counts per group by name, from a mapping or from a list in the order of the group names."""
    if not counts or isinstance(counts, Mapping):
        return dict(counts) if counts else None
    return dict(zip(dataset.get("group_names") or (), counts, strict=False))


def data_uri(image: Image.Image) -> str:
    """PNG, or JPEG where a PNG of photographs would make the page heavy."""
    kind, content = "png", png_bytes(image)
    if len(content) > PNG_LIMIT:
        buffer = io.BytesIO()
        image.convert("RGB").save(buffer, "JPEG", quality=88, subsampling=0)
        kind, content = "jpeg", buffer.getvalue()
    return f"data:image/{kind};base64,{base64.b64encode(content).decode()}"
