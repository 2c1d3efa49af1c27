"""One row on the pages: changed, inserted, deleted, undone, and refused in SQLite's words."""

from __future__ import annotations

import re
from urllib.parse import quote

from tests.studio.conftest import Browser, Running

DIGEST = re.compile(r'name="(w\d+)" value="([^"]+)"')
FIELD = re.compile(r'name="(v\d+)" value="([^"]*)"')
CHOSEN = re.compile(r'name="(v\d+)">(?:<option[^>]*>[^<]*</option>)*?<option selected>([^<]*)')
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
        **dict(CHOSEN.findall(text)),
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
    audited = "SELECT who, action, object, detail FROM audit_log WHERE action GLOB 'row.*'"
    assert running.place.query(f"{audited} ORDER BY id DESC LIMIT 2") == [
        ("pages", "row.undo", "profiles", None),
        ("pages", "row.edit", "profiles", "description"),
    ]
    assert "seen on a page" not in browser.page("/studio/data/profiles").words
    assert browser.post("/studio/undo", number=number).status == 400


def test_a_stale_form_and_a_broken_constraint_change_nothing_and_keep_what_was_typed(
    browser: Browser,
) -> None:
    key = first_key(browser, "profiles")
    form = form_of(browser, "profiles", key)
    stale = browser.post("/studio/data/profiles/row", **{**form, "v2": "kept", "w2": "0"})
    assert stale.status == 400
    assert "description was changed in the meantime" in stale.words
    refused = browser.post("/studio/data/profiles/row", **{**form, "v3": "sideways"})
    assert "SQLite refused: CHECK constraint failed" in refused.words
    assert "<option selected>sideways</option>" in refused.text


def test_two_forms_of_a_row_may_change_different_columns_and_not_the_same(
    browser: Browser, running: Running
) -> None:
    key, stored = first_key(browser, "profiles"), "SELECT description, updated_at FROM profiles"
    before = running.place.query(f"{stored} WHERE name = 'default'")
    form = form_of(browser, "profiles", key)
    first = browser.sent("/studio/data/profiles/row", **{**form, "v2": "first", "n2": ""})
    second = browser.sent("/studio/data/profiles/row", **{**form, "v5": "5"})
    assert "updated_at of this row is changed." in second.words
    assert running.place.query(f"{stored} WHERE name = 'default'") == [("first", 5)]
    late = browser.post("/studio/data/profiles/row", **{**form, "v2": "second", "n2": ""})
    assert late.status == 400
    assert "description was changed in the meantime" in late.words
    assert "stored now: first" in late.words
    assert 'name="v2" value="second"' in late.text
    assert 'name="v5" value="5"' in late.text
    for page in (second, first):
        number = page.text.partition('name="number" value="')[2].partition('"')[0]
        browser.sent("/studio/undo", number=number)
    assert running.place.query(f"{stored} WHERE name = 'default'") == before


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
