"""What a person does on the pages, click by click, in a real browser before a gateway in dev mode."""

from __future__ import annotations

import sys
from collections.abc import Iterator

import pytest
from playwright.sync_api import Page, Route, expect

from tests.issuer import Issuer
from tests.studio.chromium import Watched
from tests.studio.conftest import PLAIN
from tests.studio.scene import Scene, scene


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scene]:
    root = tmp_path_factory.mktemp("flows")
    in_code = {"LMG_MIGRATIONS__SCHEMA": str(root / "schema.sql")}
    with scene(root, "--dev", env=in_code, pending=False) as made:
        made.gateway.wait_for("dev.watching")
        yield made


@pytest.fixture
def page(page: Page, watched: Watched) -> Iterator[Page]:
    """A page whose scripts never fail, whatever the test does."""
    watched.complaints.clear()
    yield page
    assert [said for said in watched.complaints if "status of 400" not in said] == []


def cities(shop: Scene) -> list[tuple[object, ...]]:
    return shop.place.query("SELECT city FROM customers WHERE id < 3")


def test_a_row_is_edited_and_the_edit_undone_with_the_mouse(page: Page, shop: Scene) -> None:
    before = cities(shop)
    page.goto("/studio/data/customers")
    page.get_by_label("Open row [1]").click()
    page.get_by_role("textbox", name="city").fill("Vienna")
    page.get_by_role("button", name="Save").click()
    expect(page.locator("#toast")).to_contain_text("changed")
    assert cities(shop)[0] == ("Vienna",)
    page.get_by_role("button", name="Undo").click()
    expect(page.locator("#toast")).to_have_text("The change is taken back.")
    assert cities(shop) == before


def test_a_row_is_inserted_by_choosing_its_values(page: Page, shop: Scene) -> None:
    page.goto("/studio/data/orders/new")
    page.get_by_role("combobox", name="state").select_option("returned")
    page.get_by_role("combobox", name="customer_id").fill("hopper")
    offered = page.locator("#v1-list option")
    expect(offered.first).to_have_text("Grace Hopper")
    page.get_by_role("combobox", name="customer_id").fill(str(offered.first.get_attribute("value")))
    page.get_by_role("textbox", name="ordered_at").fill("1795930673367")
    page.get_by_role("button", name="Insert").click()
    expect(page.locator("#toast")).to_contain_text("The row is there.")
    expect(page.get_by_text("refers to Grace Hopper of customers")).to_be_visible()
    assert page.get_by_role("combobox", name="state").locator("option").all_inner_texts() == [
        *("open", "sent", "returned")
    ]
    page.get_by_role("button", name="Undo").click()
    expect(page.locator("#toast")).to_contain_text("taken back")


def test_a_change_that_a_constraint_forbids_is_refused_and_kept_on_the_page(
    page: Page, shop: Scene
) -> None:
    page.goto("/studio/data/products/new")
    page.get_by_role("textbox", name="name").fill("Bargain")
    page.get_by_role("textbox", name="price_cents").fill("-5")
    page.get_by_role("button", name="Insert").click()
    expect(page.locator("#problem")).to_contain_text("CHECK constraint failed: price_cents >= 0")
    expect(page.get_by_role("textbox", name="name")).to_have_value("Bargain")
    assert shop.place.query("SELECT count(*) FROM products WHERE name = 'Bargain'") == [(0,)]


def test_a_server_is_added_tested_and_seen_healthy(page: Page) -> None:
    page.goto("/studio/servers")
    page.get_by_role("link", name="Add a server").click()
    page.get_by_label("Command or URL").fill(f"{sys.executable} {PLAIN}")
    page.get_by_label("Name", exact=True).fill("added")
    page.get_by_role("button", name="Add", exact=True).click()
    expect(page.locator("#toast")).to_contain_text("added is added")
    page.get_by_role("button", name="Test").click()
    expect(page.locator("#toast")).to_contain_text("added works: 13 tools")
    page.get_by_role("link", name="Servers", exact=True).click()
    expect(page.locator("tr", has_text="added")).to_be_visible()


def test_a_tool_is_called_from_its_form_and_its_answer_shown(page: Page) -> None:
    page.goto("/studio/tools?text=find_orders")
    page.get_by_role("link", name="find_orders").click()
    page.get_by_label("state").select_option("sent")
    page.get_by_label("limit").fill("3")
    page.get_by_label("city").fill("Oslo")
    page.get_by_role("button", name="Call").click()
    answer = page.locator("#answer")
    expect(answer).to_contain_text('"customer": "Ada Lovelace"')
    answer.get_by_text("What was sent").click()
    expect(answer).to_contain_text('"ship_to"')
    expect(answer).not_to_contain_text('"tags"')


def test_a_picture_that_a_tool_answers_with_is_seen(page: Page) -> None:
    page.goto("/studio/tools?text=chart")
    page.get_by_role("link", name="chart").click()
    page.get_by_role("button", name="Call").click()
    picture = page.locator("#answer img")
    assert picture.evaluate("one => one.naturalWidth") == 112


def test_a_new_tool_is_held_seen_at_once_and_approved(page: Page, watched: Watched) -> None:
    page.goto("/studio/")
    expect(page.locator("#live-state")).to_have_text("live")
    other = watched.context.new_page()
    other.goto("/studio/tools?text=hire")
    other.get_by_role("link", name="hire").click()
    other.get_by_role("button", name="Call").click()
    expect(other.locator("#answer")).to_contain_text("Welcome.")
    other.close()
    task = page.locator("#live-tasks li", has_text="of desk is held")
    task.get_by_role("link", name="Compare").click()
    expect(page.locator("ins").first).to_contain_text("<script>document.title = 'taken'")
    page.get_by_role("button", name="Approve refund").click()
    expect(page.locator("#toast")).to_contain_text("approved")
    page.goto("/studio/servers/desk")
    expect(page.locator("#live-wrote")).to_contain_text("hired somebody <script>")
    page.goto("/studio/tools?text=refund")
    page.get_by_role("link", name="refund").click()
    expect(page.locator("h1")).to_have_text("refund")
    assert "taken" not in page.title()


def test_a_migration_that_is_saved_appears_on_the_open_page_with_the_line_of_its_error(
    page: Page, shop: Scene
) -> None:
    page.goto("/studio/migrations")
    expect(page.locator("#live-state")).to_have_text("live")
    tag = shop.place.folder.add("wishes", "CREATE TABLE wishes (\n  id INTEGER PRIMARY KEY,\n  text TXET NOT NUL\n)")  # fmt: skip
    refused = page.locator("#live-refused")
    expect(refused).to_contain_text(f"{tag}.sql, line 3")
    expect(refused.locator("pre")).to_contain_text("^")
    shop.place.folder.write(tag, "CREATE TABLE wishes (id INTEGER PRIMARY KEY, text TEXT)")
    expect(page.locator(".past").first).to_contain_text(tag)
    expect(refused).to_have_text("")
    page.get_by_role("button", name="Take back…").click()
    page.get_by_label(f"Type {tag} to confirm").fill(tag)
    page.get_by_role("button", name="Take back", exact=True).click()
    expect(page.locator("#toast")).to_contain_text(f"{tag} is taken back")
    assert shop.place.query("SELECT name FROM sqlite_schema WHERE name = 'wishes'") == []
    assert not (shop.place.folder.path / f"{tag}.sql").exists()


def test_a_migration_is_generated_from_the_schema_in_code_after_it_was_looked_at(
    page: Page, shop: Scene
) -> None:
    made = shop.place.query(
        "SELECT sql FROM sqlite_schema WHERE sql IS NOT NULL AND tbl_name NOT LIKE '\\_\\_%' ESCAPE '\\'"
    )
    sql = ";\n".join(str(text) for (text,) in made)
    changed = sql.replace("city TEXT", "town TEXT").replace(
        "note TEXT,", "note TEXT, size TEXT NOT NULL,"
    )
    (shop.place.root / "schema.sql").write_text(changed)
    page.goto("/studio/migrations/code")
    expect(page.locator("h1")).to_have_text("3 differences between the database and the code")
    page.get_by_role("link", name="Generate a migration…").click()
    expect(page.locator("pre.sql")).to_contain_text("DROP COLUMN city")
    expect(page.locator("aside")).to_contain_text("existing rows have no value")
    page.get_by_label("Value of orders.size").fill("'small'")
    page.get_by_role("textbox", name="Name").fill("towns")
    page.get_by_label("customers.city is removed").select_option("it is now customers.town")
    expect(page.locator("pre.sql")).to_contain_text("RENAME COLUMN city TO town")
    expect(page.locator("pre.sql")).to_contain_text("'small'")
    (shop.place.root / "schema.sql").write_text(changed + ";\nCREATE TABLE late (x)")
    page.get_by_role("button", name="Write the migration").click()
    expect(page.locator("#problem")).to_contain_text("has changed since this was shown")
    expect(page.locator("pre.sql")).to_contain_text("CREATE TABLE late")
    page.get_by_role("button", name="Write the migration").click()
    expect(page.locator("#toast")).to_contain_text("_towns is written")
    expect(page.locator(".past").first).to_contain_text("_towns")
    assert shop.place.query("SELECT DISTINCT size FROM orders") == [("small",)]
    ((tag,),) = shop.place.query("SELECT object FROM audit_log WHERE action = 'db.generate'")
    assert str(tag).endswith("_towns")


def test_a_backup_is_restored_after_its_name_is_typed(page: Page, shop: Scene) -> None:
    page.goto("/studio/migrations/backups")
    page.get_by_role("button", name="Back up now").click()
    expect(page.locator("#toast")).to_contain_text("Made and verified")
    shop.place.write("DELETE FROM customers WHERE id = 5")
    page.get_by_role("link", name="Compare").first.click()
    expect(page.locator("tr", has_text="customers")).to_contain_text("-1")
    page.go_back()
    page.get_by_role("button", name="Restore the backup").first.click()
    sheet = page.locator(".sheet:popover-open")
    field = sheet.get_by_label("Type gateway.db")
    told, box = sheet.locator("p").bounding_box(), field.bounding_box()
    assert told is not None
    assert box is not None
    assert (box["x"], box["width"]) == (
        told["x"],
        told["width"],
    )  # as wide as the text, one line high
    assert box["height"] < 50
    field.fill("gateway.db")
    sheet.get_by_role("button", name="Restore", exact=True).click()
    expect(page.locator("#toast")).to_contain_text("The database is as it was")
    assert shop.place.query("SELECT count(*) FROM customers WHERE id = 5") == [(1,)]


WATCH_PROGRESS = """() => {
  const box = document.querySelector("#progress");
  const [words, bar] = box.children;
  const note = () => {
    const shown = [words.textContent, bar.getAttribute("value"), box.matches(":popover-open")];
    sessionStorage.told = `${sessionStorage.told ?? ""}${shown}\\n`;
  };
  for (const name of ["toggle", "beforetoggle"]) box.addEventListener(name, () => setTimeout(note));
  new MutationObserver(() => setTimeout(note)).observe(box, { subtree: true, childList: true, attributes: true });
}"""


def test_long_work_tells_how_far_it_is_on_the_page_that_waits_for_it(page: Page) -> None:
    page.goto("/studio/migrations/backups")
    page.evaluate(WATCH_PROGRESS)  # Playwright itself sees nothing of a page that is about to go
    held: list[Route] = []
    answers: list[dict[str, object]] = [
        {"words": None, "percent": None},
        {"words": "reading back 20 GiB", "percent": 40},
        {"words": "checking the copy", "percent": None},
    ]

    def hold(route: Route) -> None:
        held.append(route)

    def answer(route: Route) -> None:
        route.fulfill(json=answers.pop(0) if answers else {"words": "the last", "percent": None})
        if not answers and held:
            held.pop().continue_()

    page.route("**/migrations/backups", hold, times=1)
    page.route("**/working?*", answer)
    page.get_by_role("button", name="Back up now").click(no_wait_after=True)
    expect(page.locator("#toast")).to_contain_text("Made and verified")
    expect(page.locator("#progress")).to_be_hidden()
    page.unroute_all(behavior="ignoreErrors")
    told = page.evaluate("sessionStorage.told").splitlines()
    assert "reading back 20 GiB,40,true" in told
    assert "checking the copy,,true" in told
    assert not any(line.startswith(",") and line.endswith("true") for line in told)


def test_calls_appear_on_the_open_page(page: Page, shop: Scene) -> None:
    page.goto("/studio/calls")
    expect(page.locator("#live-state")).to_have_text("live")
    before = page.locator("#live-list tbody tr").first.inner_text()
    assert shop.place.run("call", "quote", "grams=31000").code == 1
    newest = page.locator("#live-list tbody tr").first
    expect(newest).not_to_have_text(before)
    expect(newest).to_contain_text("quote")


def test_a_person_signs_in_to_a_server_that_wants_it(
    page: Page, shop: Scene, watched: Watched, issuer: Issuer
) -> None:
    assert shop.place.run("server", "add", "private", "--url", issuer.url).code == 0
    shop.place.run("call", "whoami")
    page.goto("/studio/")
    expect(page.locator("#nav a[data-key='s'] .count")).to_have_text("2 not up")
    page.locator("#live-tasks li", has_text="private").get_by_role("link").click()
    page.get_by_role("button", name="Sign in").click()
    watched.complaints.clear()
    with page.expect_request("**/studio/sign-in?*") as answer:
        page.get_by_role("link", name="Go on to").click()
    expect(page.locator("#toast")).to_contain_text("Signed in to private")
    expect(page.locator("#live-facts")).to_contain_text(issuer.origin)
    watched.complaints[:] = [s for s in watched.complaints if issuer.origin not in s]
    for address in (answer.value.url, "/studio/sign-in?state=stolen&code=1"):
        page.goto(address)
        expect(page.locator("main")).to_contain_text(
            "belongs to no sign-in that this browser began"
        )
