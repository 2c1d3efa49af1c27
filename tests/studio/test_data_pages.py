"""The data on the pages of a gateway: shown, masked, protected, filtered, exported."""

from __future__ import annotations

from urllib.parse import quote

import pytest

from tests.studio.conftest import Browser
from tests.studio.test_row_pages import first_key


def test_one_row_is_shown_upright_beside_the_others(browser: Browser) -> None:
    key = first_key(browser, "profiles")
    assert 'id="detail"' not in browser.page("/studio/data/profiles").text
    text = browser.page(f"/studio/data/profiles?row={quote(key)}").text
    assert text.count('<tr aria-selected="true">') == 1
    assert "description" in text.partition('id="detail"')[2]
    assert 'id="detail"' not in browser.page('/studio/data/profiles?row=["none"]').text
    assert browser.get("/studio/data/profiles?row=none").status == 400


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
