"""What axe finds on a page, and whether it fits the width: for every page that hf-score makes.

The script of axe-core comes with the package axe-playwright-python; nothing is asked of the network.
"""

from __future__ import annotations

from typing import Any

import pytest

__all__ = ["WIDTHS", "findings", "too_wide"]

#: Pixels: a telephone, a tablet, a laptop.
WIDTHS = (390, 768, 1280)


def findings(page: Any) -> list[str]:
    """Serious and critical findings of axe on the page as it is shown, a line for each kind."""
    axe = pytest.importorskip("axe_playwright_python.sync_playwright").Axe()
    found = axe.run(page).response["violations"]
    return [
        f"{one['id']} ({one['impact']}): {one['help']}; {[node['target'] for node in one['nodes'][:3]]}"
        for one in found
        if one["impact"] in ("serious", "critical")
    ]


def too_wide(page: Any) -> list[str]:
    """What reaches beyond the page's right edge, so that it would have to be scrolled sideways; empty if nothing."""
    return page.evaluate(
        """() => document.documentElement.scrollWidth <= innerWidth ? [] : [...document.querySelectorAll("body *")]
        .filter((node) => node.getBoundingClientRect().right > innerWidth)
        .map((node) => `${node.tagName} ${node.className} ${node.getBoundingClientRect().right}`).slice(0, 8)"""
    )
