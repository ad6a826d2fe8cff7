"""axe-core's rules on an open page, in both themes."""

from __future__ import annotations

from typing import Any

from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Page

from tests.dashboards.browser import idle

STREAMLITS = (
    # region: a hint lies outside of the page's landmarks.
    "#stFloatingOverlayPortal",
    # color-contrast: the label of a widget that is off is grey, which WCAG allows; axe does not see
    # that it belongs to one.
    "[data-testid=stWidgetLabel] > [aria-hidden=true]",
)
"""What Streamlit's own widgets break; `docs/page.md` names them."""


def violations(page: Page) -> list[str]:
    """What of a page breaks a rule of axe-core's, in either theme, Streamlit's own left out."""
    found: list[str] = []
    for theme in ("light", "dark"):
        page.emulate_media(color_scheme=theme)
        page.wait_for_timeout(100)
        idle(page)
        left_out = {"exclude": [[each] for each in STREAMLITS]}
        told: Any = Axe().run(page, left_out).response["violations"]
        found += [
            f"{theme}: {rule['id']}: {node['html'][:200]}"
            for rule in told
            for node in rule["nodes"]
        ]
    return found
