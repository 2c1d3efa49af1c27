"""The data on the pages of a gateway: edited and undone, refused, masked, protected, exported."""

from __future__ import annotations

import re
from urllib.parse import quote

import pytest

from tests.studio.conftest import Browser, Running

DIGEST = re.compile(r'name="(w\d+)" value="([^"]+)"')
FIELD = re.compile(r'name="(v\d+)" value="([^"]*)"')
AREA = re.compile(r'name="(v\d+)" rows[^>]*>([^<]*)</textarea>')


def form_of(browser: Browser, table: str, key: str) -> dict[str, str]:
    """Return the form of a row as a browser would send it untouched."""
    text = browser.page(f"/studio/data/{table}/row?key={quote(key)}").text
    ticked = re.findall(r'name="(n\d+)" value="1" checked', text)
    return {
        "key": key,
        **dict(DIGEST.findall(text)),
        **dict(FIELD.findall(text)),
        **dict(AREA.findall(text)),
        **dict.fromkeys(ticked, "1"),
    }


def first_key(browser: Browser, table: str) -> str:
    found = re.search(
        r'data-row aria-label="Open row ([^"]+)"', browser.page(f"/studio/data/{table}").text
    )
    assert found
    return found[1].replace("&#34;", '"')


def test_a_row_is_changed_on_a_page_and_undone(browser: Browser, running: Running) -> None:
    key = first_key(browser, "profiles")
    form = form_of(browser, "profiles", key)
    page = browser.sent("/studio/data/profiles/row", **{**form, "v2": "seen on a page", "n2": ""})
    assert "description of this row is changed." in page.words
    assert (
        running.place.query("SELECT description FROM profiles WHERE name = 'default'")[0][0]
        == "seen on a page"
    )
    number = page.text.partition('name="number" value="')[2].partition('"')[0]
    assert "taken back" in browser.sent("/studio/undo", number=number).words
    assert "seen on a page" not in browser.page("/studio/data/profiles").words
    assert browser.post("/studio/undo", number=number).status == 400


def test_a_stale_form_and_a_broken_constraint_change_nothing_and_keep_what_was_typed(
    browser: Browser,
) -> None:
    key = first_key(browser, "profiles")
    form = form_of(browser, "profiles", key)
    stale = browser.post("/studio/data/profiles/row", **{**form, "v2": "kept", "w2": "0"})
    assert stale.status == 400
    assert "changed this row in the meantime" in stale.words
    refused = browser.post("/studio/data/profiles/row", **{**form, "v3": "sideways"})
    assert "SQLite refused: CHECK constraint failed" in refused.words
    assert 'value="sideways"' in refused.text


def test_a_row_is_inserted_shown_and_deleted_with_a_way_back(
    browser: Browser, running: Running
) -> None:
    fields = {"v0": "p-1", "v1": "by-hand", "v4": "1", "v5": "1"}
    page = browser.sent("/studio/data/profiles/new", **fields)
    assert "The row is there." in page.words
    assert "by-hand" in browser.page("/studio/profiles").words  # the gateway has noticed
    key = re.search(r'name="key" value="([^"]+)"', page.text)
    assert key
    page = browser.sent("/studio/data/profiles/delete", key=key[1])
    assert "The row is deleted." in page.words
    number = page.text.partition('name="number" value="')[2].partition('"')[0]
    browser.sent("/studio/undo", number=number)
    assert running.place.query("SELECT count(*) FROM profiles WHERE name = 'by-hand'")[0][0] == 1
    browser.sent("/studio/data/profiles/delete", key=key[1])


def test_sealed_values_are_neither_shown_nor_filtered_exported_or_changed(browser: Browser) -> None:
    key = first_key(browser, "mcp_servers")
    for path in (
        "/studio/data/mcp_servers",
        f"/studio/data/mcp_servers/row?key={quote(key)}",
        *(f"/studio/data/mcp_servers/export?form={form}" for form in ("csv", "json", "sql")),
    ):
        text = browser.page(path).text
        assert "A_TOKEN" not in text
        assert "sealed:" not in text
    assert (
        browser.get(
            '/studio/data/mcp_servers?where=["env","starts","{"]'.replace('"', "%22").replace(
                "{", "%7B"
            )
        ).status
        == 400
    )
    assert browser.get(f"/studio/data/mcp_servers/blob?column=env&key={quote(key)}").status == 400


@pytest.mark.parametrize("table", ["__guard_history", "__drizzle_migrations", "audit_log"])
def test_the_tables_of_the_guard_and_the_audit_are_only_shown(browser: Browser, table: str) -> None:
    page = browser.page(f"/studio/data/{table}")
    assert "the program keeps this table" in page.words
    assert "Insert a row" not in page.words
    for path in ("row", "delete", "new"):
        reply = browser.post(f"/studio/data/{table}/{path}", key="[1]", v0="9", w0="x")
        assert reply.status == 400
        assert "not changed here" in reply.words


def test_an_export_comes_as_a_file(browser: Browser) -> None:
    reply = browser.page("/studio/data/profiles/export?form=csv")
    assert reply.headers["content-disposition"] == 'attachment; filename="profiles.csv"'
    assert "default" in reply.text
    assert browser.get("/studio/data/profiles/export?form=exe").status == 400


def test_what_is_not_there_is_said_in_a_sentence(browser: Browser) -> None:
    assert "There is no table" in browser.get("/studio/data/nothing").words
    assert browser.get("/studio/data/profiles/row?key=[99]").status == 404
    assert browser.get("/studio/data/profiles/row?key=x").status == 400
    assert (
        browser.get("/studio/data/profiles?sort=nothing&offset=99999999999999999999").status == 200
    )


def test_a_filter_is_added_and_its_address_leads_back(browser: Browser) -> None:
    page = browser.sent(
        "/studio/data/profiles/filter", column="name", operator="=", value="default"
    )
    assert "1 row that match" in page.words
    page = browser.sent("/studio/data/profiles/filter", column="name", operator="=", value="nobody")
    assert "No row matches" in page.words
