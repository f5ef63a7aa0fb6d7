"""What the site takes from the code itself: the tables of options and of model families, written when it is built."""

from __future__ import annotations

import dataclasses
import re
from importlib import import_module
from typing import Any

from hf_score.attribution import FAMILIES
from hf_score.attribution.families import REFUSED
from hf_score.cli import make_parser

__all__ = ["on_page_markdown"]


def on_page_markdown(markdown: str, **_: Any) -> str:
    """Called by mkdocs: put in what `<!-- usage -->`, `<!-- options: ... -->`, `<!-- families -->` stand for."""
    markdown = markdown.replace("<!-- usage -->", f"```text\n{make_parser().format_help()}```")
    markdown = markdown.replace("<!-- families -->", _families())
    return re.sub(r"<!-- options: (\S+)\.(\w+) -->", lambda found: _options(found[1], found[2]), markdown)


def _options(module: str, name: str) -> str:
    """The options that this dataclass declares itself, with default and help."""
    kind = getattr(import_module(module), name)
    own = kind.__annotations__
    rows = ["| option | default | |", "|---|---|---|"]
    for field in dataclasses.fields(kind):
        if field.name in own:
            required = field.default is dataclasses.MISSING
            default = "*required*" if required else "" if field.default is None else f"`{field.default}`"
            rows.append(f"| `--{field.name}` | {default} | {field.metadata['help']} |")
    return "\n".join(rows)


def _families() -> str:
    rows = ["| family | default method | others | tested on |", "|---|---|---|---|"]
    for family in FAMILIES:
        default, *others = (f"`{method}`" for method in family.methods)
        rows.append(f"| {family.name} | {default} | {', '.join(others)} | {', '.join(family.examples)} |")
    refused = [f"Not `{kind}`, because {reason}." for kind, reason in REFUSED.items()]
    return "\n".join(rows) + "\n\n" + "\n\n".join(refused)
