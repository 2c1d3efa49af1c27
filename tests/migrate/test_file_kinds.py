"""A file that is not a migration is known by its name or its marks, whichever tool it was written for."""

from __future__ import annotations

from pathlib import Path

import pytest

from local_mcp_gateway.errors import ProblemCode, UsageProblem
from local_mcp_gateway.migrate.folder import read_folder
from local_mcp_gateway.migrate.importers import FolderFormat, convert, detect
from local_mcp_gateway.migrate.resolution import resolve
from tests.migrate.workshop import NOW_MS, write

BACK = {
    "U1__c.sql": "V1__c.sql",
    "U1.0__undo_c.sql": "V1__c.sql",
    "down.sql": "up.sql",
    "3_c.Down.sql": "3_c.sql",
    "3_c-down.sql": "3_c-up.sql",
    "3_c_down.sql": "3_c_up.sql",
    "3_c.undo.sql": "3_c.do.sql",
    "3.undo.c.sql": "3.do.c.sql",
    "3_c.rollback.sql": "3_c.sql",
}
"""A way back by each tool's name for it, and its step forward."""


@pytest.mark.parametrize("journaled", [False, True])
@pytest.mark.parametrize("back", BACK)
def test_a_way_back_never_becomes_a_migration(tmp_path: Path, back: str, journaled: bool) -> None:
    tag = BACK[back].removesuffix(".sql")
    write(tmp_path, {BACK[back]: "CREATE TABLE c(x);"})
    if journaled:
        convert(tmp_path, FolderFormat.PLAIN, now_ms=NOW_MS)
    write(tmp_path, {back: "DROP TABLE c;"})
    for dev in (False, True):
        (problem,) = [
            p for p in read_folder(tmp_path, journal_new_files=dev).problems if back in p.message
        ]
        assert (problem.code, "way back" in problem.message) == (ProblemCode.UNJOURNALED, True)
        assert [m.tag for m in read_folder(tmp_path, journal_new_files=True).migrations] == [tag]
    assert convert(tmp_path, detect(tmp_path), now_ms=NOW_MS).left_out == ()
    found = read_folder(tmp_path, journal_new_files=True)
    assert found.problems == ()
    ((name, down),) = [(m.tag, m.down and m.down.read_text()) for m in found.migrations]
    assert (name, down) == (tag, "DROP TABLE c;")
    assert (tmp_path / "meta" / "adopted" / back).read_text() == "DROP TABLE c;"
    assert not (tmp_path / back).exists()


def test_a_way_back_of_nothing_is_kept_apart_and_told(tmp_path: Path) -> None:
    write(tmp_path, {"V1__a.sql": "SELECT 1;", "U2__b.sql": "DROP TABLE b;"})
    converted = convert(tmp_path, FolderFormat.PLAIN, now_ms=NOW_MS)
    assert ([e.tag for e in converted.entries], converted.left_out) == (["V1__a"], ("U2__b.sql",))
    assert (tmp_path / "meta" / "adopted" / "U2__b.sql").exists()
    assert resolve(read_folder(tmp_path), ()).problems == ()


def test_a_migration_may_be_called_like_a_way_back(tmp_path: Path) -> None:
    write(tmp_path, {"1_slow_down.sql": "SELECT 1;", "2_rollback_2.sql": "", "U3_users.sql": ""})
    entries = convert(tmp_path, FolderFormat.PLAIN, now_ms=NOW_MS).entries
    assert [e.tag for e in entries] == ["1_slow_down", "2_rollback_2", "U3_users"]


OTHERS = {
    "R__views.sql": "repeatable migration",
    "r__views.sql": "repeatable migration",
    "afterMigrate.sql": "callback",
    "beforeEachMigrate__lock.sql": "callback",
    "B5__base.sql": "baseline",
    "00002_rows.go": "is a program",
    "20240101000000_rows.ts": "is a program",
}


@pytest.mark.parametrize("form", [FolderFormat.PLAIN, FolderFormat.JOURNAL])
@pytest.mark.parametrize("other", OTHERS)
def test_what_cannot_be_a_migration_here_is_refused_by_name(
    tmp_path: Path, other: str, form: FolderFormat
) -> None:
    write(tmp_path, {"V1__a.sql": "SELECT 1;"})
    if form is FolderFormat.JOURNAL:
        convert(tmp_path, FolderFormat.PLAIN, now_ms=NOW_MS)
        write(tmp_path, {"V2__b.sql": "SELECT 2;"})
    write(tmp_path, {other: "SELECT 3;"})
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(UsageProblem, match=OTHERS[other]) as raised:
        convert(tmp_path, form, now_ms=NOW_MS)
    assert other in raised.value.message
    assert "move this file" in raised.value.hint
    assert sorted(tmp_path.rglob("*")) == before
    if other.endswith(".sql"):
        in_dev = read_folder(tmp_path, journal_new_files=True)
        assert [p.message for p in in_dev.problems if other in p.message]
        assert other.removesuffix(".sql") not in [m.tag for m in in_dev.migrations]


MARKS = [
    ("-- migrate:up", "-- migrate:down"),
    ("-- +goose Up", "-- +goose Down"),
    ("-- +micrate Up", "-- +micrate Down"),
    ("-- rambler up", "-- rambler down"),
    ("-- Up Migration", "-- Down Migration"),
    ("-- Up", "-- Down"),
    ("-- !Ups", "-- !Downs"),
    ("-- first", "-- //@UNDO"),
    ("-- first", "---- create above / drop below ----"),
]


@pytest.mark.parametrize("marks", MARKS)
def test_dev_journals_no_file_with_its_way_back_in_it(
    tmp_path: Path, marks: tuple[str, str]
) -> None:
    up, down = marks
    write(tmp_path, {"0000_a.sql": f"{up}\nCREATE TABLE a(x);\n{down}\nDROP TABLE a;\n"})
    (problem,) = read_folder(tmp_path, journal_new_files=True).problems
    assert f"0000_a.sql holds its way back too, after the mark `{down}`" in problem.message
    with pytest.raises(UsageProblem, match="holds its way back too"):
        convert(tmp_path, FolderFormat.PLAIN, now_ms=NOW_MS)


def test_versions_are_ordered_by_their_numbers(tmp_path: Path) -> None:
    names = ["V1__a", "V1.2__b", "V1_9__c", "V1.10__d", "V2__e", "V10__f"]
    write(tmp_path, {f"{name}.sql": "" for name in reversed(names)})
    assert [m.tag for m in read_folder(tmp_path, journal_new_files=True).migrations] == names
    assert [e.tag for e in convert(tmp_path, FolderFormat.PLAIN, now_ms=NOW_MS).entries] == names
