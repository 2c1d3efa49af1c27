"""Chromium, driven by Playwright, as a person's browser before the pages."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final, Literal

import pytest
from playwright.sync_api import Browser, BrowserContext, Error, Page, sync_playwright

from tests import fetched

AXE = "axe-core@4.14.1"
REBOUND = "--host-resolver-rules=MAP evil.example 127.0.0.1"
"""A name of somebody else that leads to this machine, as DNS rebinding makes one."""
NAMES = ("chromium", "chromium-browser", "google-chrome")
LARGE = 3840
SIZES = {360: (360, 780), 1280: (1280, 860), LARGE: (LARGE, 2160)}
"""Width in CSS pixels → width and height: a phone, a laptop, a large screen."""
THEMES: Final[tuple[Literal["light", "dark"], ...]] = ("light", "dark")


class NoChromium(Exception):
    """No browser starts on this machine, and why."""


@contextmanager
def chromium() -> Iterator[Browser]:
    """Start the browser of this machine; raises NoChromium with what it said."""
    found = next((path for name in NAMES if (path := shutil.which(name))), None)
    if found is None:
        raise NoChromium("There is no Chromium: `apt install chromium` installs one.")
    with sync_playwright() as playwright:
        try:
            # A container gives Chromium neither its sandbox nor a large /dev/shm.
            browser = playwright.chromium.launch(
                executable_path=found, args=["--no-sandbox", "--disable-dev-shm-usage", REBOUND]
            )
        except Error as error:
            said = error.message.splitlines()[0]
            raise NoChromium(f"Chromium does not start here: {said}") from error
        yield browser
        browser.close()


class Watched:
    """A context whose pages may load nothing from elsewhere and report every complaint of the browser."""

    def __init__(self, browser: Browser, url: str, **options: Any) -> None:
        self.url = url
        self.complaints: list[str] = []
        self.context: BrowserContext = browser.new_context(
            base_url=url, viewport={"width": 1280, "height": 860}, **options
        )
        self.context.set_default_timeout(20_000)
        self.context.on("weberror", lambda error: self.complaints.append(str(error.error)))
        self.context.on("console", lambda said: self._heard(said.type, said.text))
        self.context.on("request", lambda request: self._asked(request.url))

    def enter(self, link: str) -> Page:
        """Open a link as `open` prints it; return the page once it is inside."""
        page = self.context.new_page()
        page.goto(link)
        page.wait_for_url("**/studio/**")
        page.locator("#nav").wait_for(state="attached")
        return page

    def _heard(self, kind: str, text: str) -> None:
        if kind in {"error", "warning"}:
            self.complaints.append(text)

    def _asked(self, url: str) -> None:
        if not url.startswith((self.url, "data:", "blob:")):
            self.complaints.append(f"asked {url}")


def axe_source(config: pytest.Config) -> str:
    """Return the script of axe-core."""
    folder = fetched.npm(config, "axe", [AXE])
    return (folder / "node_modules" / "axe-core" / "axe.min.js").read_text()


def findings(page: Page) -> list[str]:
    """Return what axe holds against the page as it stands; its script is on it already."""
    result = page.evaluate("axe.run(document, {resultTypes: ['violations']})")
    return [
        f"{found['impact']} {found['id']}: {node['html'][:160]} {node['any'][0]['message'] if node['any'] else ''}"
        for found in result["violations"]
        for node in found["nodes"]
    ]


CUT_OFF = """() => {
  const named = (one) => one.getAttribute('aria-label') || one.innerText || one.name;
  const shown = [...document.querySelectorAll('button, a.btn, input[type=checkbox], input[type=radio]')]
    .filter((one) => one.checkVisibility({checkVisibilityCSS: true}));
  const hidden = shown.filter((one) => {
    const box = one.getBoundingClientRect();
    const edge = one.closest('.panel')?.getBoundingClientRect().right ?? innerWidth;
    return box.right > edge || (one.matches('input') && box.width < 16);
  });
  const wider = [...document.querySelectorAll('.panel:not(.drawing)')].filter((one) => one.scrollWidth > one.clientWidth);
  return [...hidden, ...wider].map(named);
}"""


def cut_off(page: Page) -> list[str]:
    """Return the buttons and panels that are cut off, and the boxes to tick that are squeezed.

    A button is behind the edge of its panel, or a panel is wider than it shows. The grid of rows and the
    diagram scroll on purpose.
    """
    found: list[str] = page.evaluate(CUT_OFF)
    return found


def overflow(page: Page) -> int:
    """Return by how many pixels the page is wider than the window."""
    wider: int = page.evaluate("document.documentElement.scrollWidth - innerWidth")
    return max(0, wider)


def screenshots(config: pytest.Config) -> Path:
    """Return the folder of the pictures: STUDIO_SCREENSHOTS, or one in pytest's cache."""
    given = os.environ.get("STUDIO_SCREENSHOTS")
    folder = Path(given) if given else Path(str(config.cache.mkdir("screenshots")))
    folder.mkdir(parents=True, exist_ok=True)
    return folder
