"""A newcomer's ten minutes: from what `make run` starts to a called tool and an edited row, by mouse."""

from __future__ import annotations

import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import expect

from tests.harness import DEADLINE_S, REPOSITORY, clean_environment
from tests.studio.chromium import NoChromium, Watched, chromium

COMMAND = (sys.executable, "-m", "local_mcp_gateway", "--config", "examples/demo.toml")


@pytest.fixture
def link(tmp_path: Path) -> Iterator[str]:
    """Start the demo in a folder of its own; return the link that `open` prints."""
    shutil.copytree(REPOSITORY / "examples", tmp_path / "examples")
    env = clean_environment(tmp_path)
    with (tmp_path / "log").open("wb") as log:
        demo = subprocess.Popen(
            [sys.executable, "examples/run_demo.py"], cwd=tmp_path, env=env, stdout=log, stderr=log
        )
        try:
            end = time.monotonic() + DEADLINE_S
            while time.monotonic() < end:
                asked = [*COMMAND, "open", "--print"]
                opened = subprocess.run(
                    asked, cwd=tmp_path, env=env, capture_output=True, text=True, check=False
                )
                if opened.returncode == 0:
                    break
            assert opened.returncode == 0, (tmp_path / "log").read_text()
            yield opened.stdout.strip()
        finally:
            demo.terminate()
            assert demo.wait(DEADLINE_S) == 0


@pytest.mark.nightly
def test_a_newcomer_calls_a_tool_and_edits_a_row_without_a_keyboard(link: str) -> None:
    try:
        with chromium() as browser:
            watched = Watched(browser, link.partition("/studio")[0])
            page = watched.enter(link)
            expect(page.locator("h1")).to_contain_text("Serving")
            page.get_by_role("link", name="Tools").click()
            page.get_by_role("link", name="list_notes").click()
            page.get_by_role("button", name="Call").click()
            expect(page.locator("#answer")).to_contain_text("What was sent")
            page.get_by_role("link", name="Calls").click()
            called = page.locator("#live-list tbody tr", has_text="list_notes")
            expect(called.first).to_be_visible(timeout=20_000)
            page.get_by_role("link", name="Data").click()
            page.get_by_role("link", name="profiles", exact=True).click()
            page.locator("tr", has_text="demo").locator("a[data-row]").click()
            page.get_by_role("combobox", name="prefix").select_option("never")
            page.get_by_role("button", name="Save").click()
            expect(page.locator("#toast")).to_contain_text("prefix of this row is changed.")
            page.get_by_role("button", name="Undo").click()
            expect(page.locator("#toast")).to_contain_text("The change is taken back.")
            page.get_by_role("link", name="Profiles", exact=True).click()
            page.get_by_role("link", name="demo").click()
            page.get_by_role("button", name="Copy address").click()
            assert watched.complaints == []
            watched.context.close()
    except NoChromium as why:
        pytest.skip(str(why))
