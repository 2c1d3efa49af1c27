"""`open` and `db studio`, as a person runs them."""

from __future__ import annotations

import signal
import sqlite3
import subprocess
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.harness import COMMAND, Place, clean_environment
from tests.studio.conftest import Browser, come_in
from tests.studio.odd import make_odd


@contextmanager
def studio(place: Place, *arguments: str) -> Iterator[Browser]:
    """Run `db studio` and yield a browser that has come in; it has to end cleanly."""
    process = subprocess.Popen(
        [*COMMAND, "db", "studio", "--print", *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=clean_environment(place.home),
        cwd=place.root,
    )
    try:
        assert process.stdout is not None
        link = process.stdout.readline().strip()
        assert link.startswith("http://127.0.0.1:"), process.communicate()
        yield come_in(link.partition("/studio/")[0], link)
        process.send_signal(signal.SIGINT)
        _, said = process.communicate(timeout=60)
        assert process.returncode == 0, said
    finally:
        process.kill()
        process.communicate()


def test_any_database_is_shown_without_a_gateway_and_without_a_change(place: Place) -> None:
    path = make_odd(place.root / "odd.db")
    before = path.read_bytes()
    with studio(place, "--database", str(path)) as browser:
        page = browser.page("/studio/data")
        assert "people" in page.words
        assert "Overview" not in page.words
        for name in (
            "people",
            "keyed",
            "plain",
            "files",
            "broken",
            "texts",
            "shadowed",
            "computed",
            "",
            "select%20%22all%22%20%F0%9F%90%98%2F..%2F",
        ):
            for place_ in (f"data/{name}", f"data/{name}/structure"):
                assert browser.page(f"/studio/{place_}").words
        assert "This view fails" in browser.page("/studio/data/broken").words
        assert "Insert a row" not in browser.page("/studio/data/people").words
        refused = browser.post("/studio/data/people/delete", key="[1]")
        assert "open for reading only" in refused.words
        assert browser.get("/studio/servers").status == 404
        blob = browser.get("/studio/data/files/blob?column=body&key=%5B2%5D")
        assert blob.headers["content-type"] == "application/octet-stream"
        # The database of another program stays free while the pages are open.
        with closing(sqlite3.connect(path, timeout=0)) as other:
            other.execute("BEGIN EXCLUSIVE")
            other.rollback()
    assert path.read_bytes() == before
    assert sorted(file.name for file in place.root.iterdir()) == [
        "data",
        "home",
        "migrations",
        "odd.db",
    ]


def test_with_write_a_row_is_changed_and_another_programs_lock_is_respected(place: Place) -> None:
    path = make_odd(place.root / "odd.db")
    with studio(place, "--database", str(path), "--write") as browser:
        page = browser.sent("/studio/data/people/new", v1="Eve")
        assert "The row is there." in page.words
        number = page.text.partition('name="number" value="')[2].partition('"')[0]
        with closing(sqlite3.connect(path, timeout=0)) as other:
            other.execute("BEGIN IMMEDIATE")
            held = browser.post("/studio/data/people/new", v1="Mallory")
            assert "Another program holds the write lock" in held.words
            assert 'value="Mallory"' in held.text
        browser.sent("/studio/undo", number=number)
        with closing(sqlite3.connect(path)) as other:
            assert other.execute("SELECT count(*) FROM people").fetchone() == (3,)


def test_a_port_answers_nobody_without_the_link(place: Place) -> None:
    path = make_odd(place.root / "odd.db")
    with studio(place, "--database", str(path)) as browser:
        stranger = Browser(browser.url)
        assert "Ada" not in stranger.get("/studio/data/people").text
        foreign = stranger.ask(
            "POST", "/studio/sql", "sql=SELECT 1", Origin="https://local.drizzle.studio"
        )
        assert foreign.status == 403
        assert "access-control-allow-origin" not in foreign.headers


def test_what_is_no_database_is_said_before_anything_listens(place: Place) -> None:
    (place.root / "text.db").write_text(
        "this is no database, and long enough to be read as one " * 20
    )
    done = place.run("db", "studio", "--print", "--database", place.root / "text.db")
    assert done.code == 6
    assert place.run("db", "studio", "--database", place.root / "none.db").code == 7


def test_open_says_that_no_gateway_runs(place: Place) -> None:
    done = place.run("open")
    assert done.code == 2
    assert "No gateway is running" in done.stderr


@pytest.mark.parametrize("json", [True, False])
def test_open_prints_a_link_where_there_is_no_desktop(
    gateway_process: object,
    shipped: Place,
    validate_json: Callable[[str, Any], None],
    json: bool,
) -> None:
    done = shipped.run(
        "open", *(["--json"] if json else []), env={"SSH_CONNECTION": "x", "DISPLAY": ":0"}
    )
    if json:
        validate_json("open", done.json())
    link = done.json()["url"] if json else done.stdout.strip()
    assert "/studio/enter?token=" in link


def test_the_wal_of_another_program_is_read_and_left_alone(place: Place) -> None:
    path = place.root / "wal.db"
    with closing(sqlite3.connect(path)) as writer:
        writer.execute("PRAGMA journal_mode = WAL")
        writer.execute("CREATE TABLE t (a)")
        writer.execute("INSERT INTO t VALUES ('in the log')")
        writer.commit()
        size = Path(f"{path}-wal").stat().st_size
        with studio(place, "--database", str(path)) as browser:
            assert "in the log" in browser.page("/studio/data/t").words
        assert Path(f"{path}-wal").stat().st_size == size
