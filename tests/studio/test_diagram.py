"""The drawing of tables and foreign keys: what stands where, and what its lines mean."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest

from local_mcp_gateway.errors import UsageProblem
from local_mcp_gateway.studio.diagram import arrange, draw, draw_database, read_schema
from local_mcp_gateway.studio.tables import opened
from local_mcp_gateway.studio.visit import Powers
from tests.harness import Place
from tests.studio.conftest import Browser

CHAIN = """
CREATE TABLE a (id INTEGER PRIMARY KEY);
CREATE TABLE b (id INTEGER PRIMARY KEY, a_id INTEGER NOT NULL REFERENCES a);
CREATE TABLE c (id INTEGER PRIMARY KEY REFERENCES b, a_id REFERENCES a (id));
CREATE TABLE d (c_id UNIQUE REFERENCES c, b_id REFERENCES b, UNIQUE (b_id, c_id));
CREATE TABLE lonely (x);
CREATE TABLE left_ (id INTEGER PRIMARY KEY, r REFERENCES right_);
CREATE TABLE right_ (id INTEGER PRIMARY KEY, l REFERENCES left_, own REFERENCES right_);
"""


def made(path: Path, script: str) -> Path:
    with closing(sqlite3.connect(path)) as connection:
        connection.executescript(script)
    return path


def test_what_is_referred_to_stands_left_and_nothing_stands_on_another(tmp_path: Path) -> None:
    with opened(Powers(made(tmp_path / "x.db", CHAIN))) as connection:
        schema = read_schema(connection)
    width, height = arrange(schema)
    boxes = schema.boxes
    assert boxes["a"].x < boxes["b"].x < boxes["c"].x
    assert boxes["lonely"].y > max(box.y for name, box in boxes.items() if name != "lonely")
    for one in boxes.values():
        assert one.x >= 0
        assert one.x + one.width <= width
        assert one.y + one.height <= height
        for other in boxes.values():
            apart = one.x + one.width < other.x or other.x + other.width < one.x
            assert one is other or apart or one.y + one.height < other.y or other.y + other.height < one.y  # fmt: skip


def test_a_foreign_key_says_whether_it_is_required_and_unique(tmp_path: Path) -> None:
    with opened(Powers(made(tmp_path / "x.db", CHAIN))) as connection:
        edges = {(e.table, e.column): e for e in read_schema(connection).edges}
    assert (edges["b", "a_id"].required, edges["b", "a_id"].unique) == (True, False)
    assert (edges["c", "id"].required, edges["c", "id"].unique) == (True, True)
    assert (edges["d", "c_id"].unique, edges["d", "b_id"].unique) == (True, False)
    assert (edges["c", "a_id"].required, edges["c", "a_id"].to_column) == (False, "id")
    assert ("right_", "own") in edges


def test_the_drawing_is_xml_whatever_the_names_are(database: Path) -> None:
    drawing = draw_database(database)
    texts = [element.text for element in ET.fromstring(drawing).iter() if element.text]
    assert 'select "all" 🐘/../' in texts
    assert "(no name)" in texts
    with pytest.raises(UsageProblem, match="no table 'nothing'"):
        draw_database(database, "nothing")
    assert "pets" in draw_database(database, "PEOPLE")
    assert "computed" not in draw_database(database, "people")


def test_two_thousand_tables_are_drawn_with_their_keys_only(tmp_path: Path) -> None:
    script = "\n".join(
        f"CREATE TABLE t{n} (id INTEGER PRIMARY KEY, word TEXT, up REFERENCES t{n // 3});"
        for n in range(2000)
    )
    with opened(Powers(made(tmp_path / "x.db", script)), limit_s=60) as connection:
        schema = read_schema(connection)
    assert len(schema.boxes) == len(schema.edges) == 2000
    assert [column for column, _, _ in schema.boxes["t9"].columns] == ["id", "up"]
    assert draw(schema).count("<rect") == 4000


def test_the_page_links_to_the_tables_and_zooms(browser: Browser) -> None:
    page = browser.page("/studio/diagram?zoom=200&around=profiles")
    assert 'href="/studio/data/profiles/structure"' in page.text
    assert "profile_mcp_servers" in page.text
    assert "debug_logs</text>" not in page.text
    assert "<style" not in page.text
    assert "foreign key" in browser.page("/studio/diagram?zoom=9&around=nothing").words


def test_the_command_prints_a_file_of_its_own(kept: Place) -> None:
    done = kept.run("db", "diagram")
    assert done.code == 0
    assert ET.fromstring(done.stdout).tag == "{http://www.w3.org/2000/svg}svg"
    assert ">notes</text>" in done.stdout
    assert kept.run("db", "diagram", "--around", "nothing").code == 2
