"""Take the pictures of docs/studio.md: six pages of a made-up shop, in light and dark.

    .venv/bin/python -m docs.screenshots

Needs Chromium. Run it when a page has changed its looks; the pictures are kept in the repository.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

from tests.studio.chromium import THEMES, NoChromium, Watched, chromium
from tests.studio.scene import scene

FOLDER = Path(__file__).parent / "studio"
PAGES = {
    "overview": "/studio/",
    "tool": "/studio/tools/default/find_orders",
    "held": "/studio/held/desk",
    "migrations": "/studio/migrations",
    "rows": "/studio/data/orders",
    "diagram": "/studio/diagram?around=orders",
}


def take() -> None:
    """Write the pictures; raises NoChromium."""
    FOLDER.mkdir(exist_ok=True)
    with (
        chromium() as browser,
        tempfile.TemporaryDirectory() as root,
        scene(Path(root)) as shop,
    ):
        shop.place.run("call", "hire")
        watched = Watched(browser, shop.gateway.url)
        page = watched.enter(shop.place.link())
        for name, path in PAGES.items():
            page.goto(path)
            if name == "tool":
                page.get_by_label("state").select_option("open")
                page.get_by_role("button", name="Call").click()
                page.locator("#answer pre").first.wait_for()
            for theme in THEMES:
                page.emulate_media(color_scheme=theme)
                page.screenshot(path=FOLDER / f"{name}-{theme}.png")
        watched.context.close()


if __name__ == "__main__":
    try:
        take()
    except NoChromium as why:
        sys.exit(str(why))
