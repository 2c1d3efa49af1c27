"""Every page in a real browser: three sizes, light and dark, keyboard, screen reader."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import pytest
from playwright.sync_api import Page, expect

from tests.studio.chromium import (
    LARGE,
    SIZES,
    THEMES,
    Watched,
    axe_source,
    cut_off,
    findings,
    overflow,
    screenshots,
)
from tests.studio.scene import Scene, scene

PAGES = {
    "overview": "/studio/",
    "servers": "/studio/servers",
    "server": "/studio/servers/desk",
    "server-down": "/studio/servers/tracker",
    "server-add": "/studio/add",
    "tools": "/studio/tools",
    "tool": "/studio/tools/default/find_orders",
    "held": "/studio/held/desk",
    "tokens": "/studio/tokens",
    "profiles": "/studio/profiles",
    "profile": "/studio/profiles/default",
    "calls": "/studio/calls",
    "migrations": "/studio/migrations",
    "migration": "/studio/migrations/file/0000_initial",
    "backups": "/studio/migrations/backups",
    "compare": "/studio/migrations/compare",
    "code": "/studio/migrations/code",
    "draft": "/studio/migrations/draft",
    "data": "/studio/data",
    "rows": "/studio/data/orders",
    "structure": "/studio/data/orders/structure",
    "diagram": "/studio/diagram",
    "row": "/studio/data/orders/row?key=%5B5%5D",
    "row-new": "/studio/data/orders/new",
    "sql": "/studio/sql",
    "not-there": "/studio/nowhere",
}
CHECKED = ((360, "dark"), (1280, "light"))
"""Where axe looks: colours depend on the theme, and what is shown on the width."""


def after_midnight() -> str:
    """Return a time zone in which it is five past midnight: most times on a page are of another day."""
    past = (datetime.now(UTC) - timedelta(minutes=5)).time()
    return f"<made>{past:%H:%M}"


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scene]:
    with scene(tmp_path_factory.mktemp("scene"), env={"TZ": after_midnight()}) as made:
        assert made.place.run("call", "hire").code == 0
        yield made


@pytest.fixture(scope="module")
def watched(watched: Watched, pytestconfig: pytest.Config) -> Watched:
    # axe is not a script of the page, so the policy of the page must not keep it out.
    watched.context.add_init_script(axe_source(pytestconfig))
    return watched


@pytest.mark.npm
@pytest.mark.parametrize("name", PAGES)
def test_every_page_is_well_at_every_size_in_light_and_dark(
    page: Page, watched: Watched, pytestconfig: pytest.Config, name: str
) -> None:
    folder = screenshots(pytestconfig)
    watched.complaints.clear()
    page.emulate_media(color_scheme="light")
    answer = page.goto(PAGES[name])
    assert answer is not None
    assert answer.status == (404 if name == "not-there" else 200)
    problems: list[str] = []
    for width, (_, height) in SIZES.items():
        page.set_viewport_size({"width": width, "height": height})
        if over := overflow(page):
            problems.append(f"{width}: {over} px wider than the window")
        problems += [f"{width}: {name!r} is cut off" for name in cut_off(page)]
        for theme in THEMES:
            page.emulate_media(color_scheme=theme)
            picture = folder / f"{name}-{width}-{theme}"
            if width < LARGE:
                page.screenshot(path=f"{picture}.png", full_page=True)
            else:  # a window is enough to see how the page is laid out
                page.screenshot(path=f"{picture}.jpg", type="jpeg", quality=80)
            if (width, theme) in CHECKED:
                problems += [f"{width} {theme}: {found}" for found in findings(page)]
    if name == "not-there":
        watched.complaints[:] = [said for said in watched.complaints if "404" not in said]
    assert not problems + watched.complaints, "\n".join(problems + watched.complaints)


STOPS = """() => [...document.querySelectorAll('a[href], button, input, select, textarea, summary, [tabindex="0"]')]
  .filter(one => one.checkVisibility({checkVisibilityCSS: true}) && one.tabIndex >= 0 && !one.disabled
    && one.type !== 'hidden').length"""
REACHED = """() => {
  const one = document.activeElement;
  if (one === document.body || one.dataset.reached) return null;
  one.dataset.reached = 1;
  return getComputedStyle(one).outlineStyle;
}"""


@pytest.mark.parametrize("name", ["overview", "server", "tool", "rows", "sql"])
def test_every_control_is_reached_with_tab_and_shows_that_it_is(page: Page, name: str) -> None:
    page.set_viewport_size({"width": 1280, "height": 860})
    page.goto(PAGES[name])
    stops = page.evaluate(STOPS)
    outlines = []
    for _ in range(stops + 1):
        page.keyboard.press("Tab")
        if (outline := page.evaluate(REACHED)) is None:
            break
        outlines.append(outline)
    assert len(outlines) == stops
    assert stops > 8
    assert set(outlines) <= {"solid", "auto"}


def test_tab_enters_a_grid_once_and_arrows_move_in_it(page: Page) -> None:
    page.goto(PAGES["rows"])
    assert page.locator("[data-grid] tbody").locator("[tabindex='0']").count() == 1
    page.locator("[data-grid] td[tabindex='0']").focus()
    for key in ("ArrowDown", "ArrowRight", "ArrowRight"):
        page.keyboard.press(key)
    focused = page.locator("td:focus")
    assert focused.inner_text() == page.locator("tbody tr").nth(1).locator("td").nth(2).inner_text()
    page.keyboard.press("Enter")
    page.wait_for_url("**/studio/data/customers?where=*")
    page.go_back()
    page.locator("[data-grid] td[tabindex='0']").press("Enter")
    page.wait_for_url("**/studio/data/orders/row?key=*")


def test_a_row_stands_upright_beside_the_grid_on_a_large_screen(page: Page) -> None:
    page.set_viewport_size({"width": 1920, "height": 1080})
    page.goto(PAGES["rows"])
    page.locator("[data-grid] td[tabindex='0']").press(".")
    detail = page.locator("#detail")
    expect(detail.locator("h2")).to_have_text("Row 1")
    page.keyboard.press("ArrowDown")
    expect(detail.locator("h2")).to_have_text("Row 2")
    page.locator("tbody tr").nth(4).locator("td").nth(1).click()
    expect(detail.locator("h2")).to_have_text("Row 5")
    assert "row=%5B5%5D" in page.url
    page.get_by_role("link", name="Close the row").click()
    expect(detail).to_have_count(0)
    page.set_viewport_size({"width": 1280, "height": 860})
    page.locator("[data-grid] td[tabindex='0']").press(".")
    page.wait_for_url("**/studio/data/orders/row?key=*")


def test_moving_in_a_grid_leaves_what_a_person_is_told_for_the_next_page(
    page: Page, watched: Watched
) -> None:
    page.set_viewport_size({"width": 1920, "height": 1080})
    page.goto(f"{PAGES['rows']}?row=[1]")
    token = page.locator("input[name=form_token]").first.input_value()
    watched.context.request.post(
        "/studio/profiles/default/edit",
        form={"form_token": token, "description": "told"},
        headers={"origin": watched.url},
        max_redirects=0,
    )
    page.keyboard.press("ArrowDown")
    expect(page.locator("#detail h2")).to_have_text("Row 2")
    page.goto(PAGES["data"])
    expect(page.locator("#toast")).to_contain_text("The profile is changed.")


def test_keys_lead_to_pages_and_can_be_turned_off(page: Page) -> None:
    page.goto(PAGES["overview"])
    page.keyboard.press("g")
    page.keyboard.press("t")
    page.wait_for_url("**/studio/tools")
    page.keyboard.press("/")
    assert page.locator("input[name=text]:focus").count() == 1
    page.keyboard.press("Escape")
    page.keyboard.press("?")
    page.get_by_role("button", name="Turn the keys off").click()
    page.get_by_role("button", name="Close").click()
    page.keyboard.press("/")
    assert page.locator("input[name=text]:focus").count() == 0
    page.evaluate("localStorage.removeItem('studio-keys')")


def test_the_menu_of_a_phone_opens_and_closes_by_keyboard(page: Page) -> None:
    page.set_viewport_size({"width": 360, "height": 780})
    page.goto(PAGES["overview"])
    link = page.get_by_role("link", name="Servers")
    assert not link.first.is_visible()
    page.get_by_role("button", name="Menu").press("Enter")
    assert link.first.is_visible()
    page.keyboard.press("Escape")
    assert not link.first.is_visible()


def test_nothing_moves_for_those_who_ask_for_less_motion(page: Page) -> None:
    moving = "document.getAnimations().filter(one => one.playState === 'running').length"
    page.set_viewport_size({"width": 1280, "height": 860})
    page.emulate_media(reduced_motion="no-preference")
    page.goto(PAGES["overview"])
    page.locator("#live-state.live").wait_for()
    assert page.evaluate(moving) == 1
    page.emulate_media(reduced_motion="reduce")
    assert page.evaluate(moving) == 0
    page.emulate_media(reduced_motion="null")


IN_THE_BACK = """() => {
  Object.defineProperty(document, 'hidden', {value: true, configurable: true});
  document.dispatchEvent(new Event('visibilitychange'));
}"""
SEEN_AGAIN = "delete document.hidden; document.dispatchEvent(new Event('visibilitychange'))"


def test_any_number_of_tabs_is_open_and_one_that_comes_back_shows_what_it_missed(
    page: Page, watched: Watched, shop: Scene
) -> None:
    state, newest = page.locator("#live-state"), page.locator("#live-list tbody tr").first
    page.set_viewport_size({"width": 1280, "height": 860})
    page.goto(PAGES["calls"])
    expect(state).to_have_text("live")
    page.evaluate(IN_THE_BACK)
    before = newest.inner_text()
    others = [watched.context.new_page() for _ in range(7)]  # a browser opens six connections
    for other in others:
        other.goto(PAGES["calls"])
        expect(other.locator("#live-state")).to_have_text("live")
        other.evaluate(IN_THE_BACK)
    assert shop.place.run("call", "quote", "grams=500").code == 0
    page.evaluate(SEEN_AGAIN)
    expect(newest).not_to_have_text(before)
    for other in others:
        other.close()


def test_a_page_says_that_its_login_is_over(watched: Watched, shop: Scene) -> None:
    browser = watched.context.browser
    assert browser is not None
    alone = Watched(browser, watched.url)
    page = alone.enter(shop.place.link())
    expect(page.locator("#live-state")).to_have_text("live")
    expect(page.locator("#ended")).to_be_hidden()
    other = alone.context.new_page()
    other.goto(PAGES["data"])
    other.get_by_role("button", name="Leave").click()
    expect(other.locator("h1")).to_have_text("The gateway runs")
    assert shop.place.run("call", "quote", "grams=500").code == 0
    expect(page.locator("#ended")).to_contain_text("local-mcp-gateway open")
    expect(page.locator("#live-state")).to_have_text("signed out")
    alone.context.close()


def test_the_pages_work_without_their_script(watched: Watched, shop: Scene) -> None:
    browser = watched.context.browser
    assert browser is not None
    plain = Watched(browser, watched.url, java_script_enabled=False)
    page = plain.enter(shop.place.link())
    page.get_by_role("link", name="Data").click()
    page.get_by_role("link", name="customers", exact=True).click()
    page.locator("tbody a[data-row]").first.click()
    page.get_by_role("textbox", name="city").fill("Vienna")
    page.get_by_role("button", name="Save").click()
    page.get_by_role("button", name="Undo").wait_for()
    assert shop.place.query("SELECT city FROM customers WHERE id = 1") == [("Vienna",)]
    page.get_by_role("button", name="Undo").click()
    page.get_by_text("The change is taken back").wait_for()
    assert shop.place.query("SELECT city FROM customers WHERE id = 1") == [("Berlin",)]
    plain.context.close()
