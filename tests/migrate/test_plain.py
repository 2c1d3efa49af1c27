"""Folders of other tools become ours, and nothing of theirs is lost."""

from __future__ import annotations

from pathlib import Path

import pytest

from local_mcp_gateway.errors import UsageProblem
from local_mcp_gateway.migrate.folder import read_folder
from local_mcp_gateway.migrate.plain import Format, convert, detect
from local_mcp_gateway.migrate.resolve import resolve

NOW_MS = 1_800_000_000_000


def write(folder: Path, files: dict[str, str]) -> None:
    for name, text in files.items():
        (folder / name).write_text(text)


def adopted(folder: Path, form: Format) -> list[tuple[str, str, str | None]]:
    assert detect(folder) is form
    convert(folder, form, now_ms=NOW_MS)
    found = read_folder(folder)
    assert found.problems == ()
    assert resolve(found, ()).problems == ()
    return [(m.tag, m.sql, m.down.read_text() if m.down else None) for m in found.migrations]


def test_a_plain_folder_keeps_its_files_and_sorts_by_number(tmp_path: Path) -> None:
    write(
        tmp_path,
        {
            "10_c.sql": "SELECT 3;",
            "2_b.sql": "SELECT 2;",
            "1_a.sql": "SELECT 1;",
            "2_b.down.sql": "SELECT 0;",
        },
    )
    assert adopted(tmp_path, Format.PLAIN) == [
        ("1_a", "SELECT 1;", None),
        ("2_b", "SELECT 2;", "SELECT 0;"),
        ("10_c", "SELECT 3;", None),
    ]


def test_times_in_names_become_the_journals_times(tmp_path: Path) -> None:
    write(tmp_path, {"1694438752000_a.sql": "", "20240102030405_b.sql": "", "zz.sql": ""})
    convert(tmp_path, Format.PLAIN, now_ms=NOW_MS)
    assert [(m.tag, m.when) for m in read_folder(tmp_path).migrations] == [
        ("1694438752000_a", 1_694_438_752_000),
        ("20240102030405_b", 1_704_164_645_000),
        ("zz", NOW_MS - 1),
    ]


def test_ups_and_downs_in_files_of_their_own(tmp_path: Path) -> None:
    write(
        tmp_path,
        {"1_a.up.sql": "SELECT 1;", "1_a.down.sql": "SELECT 0;", "2_b.up.sql": "SELECT 2;"},
    )
    assert adopted(tmp_path, Format.UPDOWN) == [
        ("1_a", "SELECT 1;", "SELECT 0;"),
        ("2_b", "SELECT 2;", None),
    ]
    assert sorted(f.name for f in (tmp_path / "meta" / "adopted").iterdir()) == [
        "1_a.up.sql",
        "2_b.up.sql",
    ]


def test_dbmates_marks_are_taken_apart(tmp_path: Path) -> None:
    write(
        tmp_path,
        {
            "20240101000000_a.sql": "-- migrate:up\nCREATE TABLE a(x);\n\n-- migrate:down\nDROP TABLE a;\n",
            "20240101000001_b.sql": "-- migrate:up transaction:false\nVACUUM;\n-- migrate:down\n",
        },
    )
    assert adopted(tmp_path, Format.DBMATE) == [
        ("20240101000000_a", "CREATE TABLE a(x);\n", "DROP TABLE a;\n"),
        ("20240101000001_b", "-- guard: no-transaction\nVACUUM;\n", None),
    ]
    assert "migrate:down" in (tmp_path / "meta" / "adopted" / "20240101000000_a.sql").read_text()


def test_gooses_marks_are_taken_apart(tmp_path: Path) -> None:
    write(
        tmp_path,
        {
            "00001_a.sql": "-- +goose Up\n-- +goose StatementBegin\nCREATE TABLE a(x);\n-- +goose StatementEnd\n\n-- +goose Down\nDROP TABLE a;\n",
            "00002_b.sql": "-- +goose NO TRANSACTION\n-- +goose up\nCREATE TABLE b(x);\n",
        },
    )
    first, second = adopted(tmp_path, Format.GOOSE)
    assert (first[0], first[2]) == ("00001_a", "DROP TABLE a;\n")
    assert "CREATE TABLE a(x);" in first[1]
    assert "DROP" not in first[1]
    assert second == ("00002_b", "CREATE TABLE b(x);\n", None)


def test_sql_migrates_marks_are_gooses(tmp_path: Path) -> None:
    write(
        tmp_path,
        {"1-a.sql": "-- +migrate Up\nCREATE TABLE a(x);\n-- +migrate Down\nDROP TABLE a;\n"},
    )
    assert adopted(tmp_path, Format.GOOSE) == [("1-a", "CREATE TABLE a(x);\n", "DROP TABLE a;\n")]


@pytest.mark.parametrize("form", [Format.PLAIN, Format.UPDOWN, Format.JOURNAL])
@pytest.mark.parametrize("marks", ["-- migrate:up", "-- +goose Up", "-- +migrate Up"])
def test_a_file_with_its_way_back_in_it_is_never_taken_as_it_is(
    tmp_path: Path, form: Format, marks: str
) -> None:
    if form is Format.JOURNAL:
        write(tmp_path, {"0000_a.sql": "SELECT 1;"})
        convert(tmp_path, Format.PLAIN, now_ms=NOW_MS)
    down = marks.lower().replace("up", "down")
    write(tmp_path, {"0001_b.sql": f"{marks}\nCREATE TABLE b(x);\n{down}\nDROP TABLE b;\n"})
    with pytest.raises(UsageProblem, match="holds its way back too"):
        convert(tmp_path, form, now_ms=NOW_MS)
    assert "0001_b" not in [m.tag for m in read_folder(tmp_path).migrations]


def test_files_beside_a_journal_get_their_entries(tmp_path: Path) -> None:
    write(tmp_path, {"0000_a.sql": "SELECT 1;"})
    convert(tmp_path, Format.PLAIN, now_ms=NOW_MS)
    write(tmp_path, {"0001_b.sql": "SELECT 2;"})
    assert [entry.tag for entry in convert(tmp_path, detect(tmp_path), now_ms=NOW_MS)] == ["0001_b"]
    found = read_folder(tmp_path).migrations
    assert [(m.tag, m.idx) for m in found] == [("0000_a", 0), ("0001_b", 1)]
    assert found[1].when > found[0].when


def test_a_folder_that_is_ours_already_is_left_alone(tmp_path: Path) -> None:
    write(tmp_path, {"0000_a.sql": "SELECT 1;"})
    convert(tmp_path, Format.PLAIN, now_ms=NOW_MS)
    with pytest.raises(UsageProblem, match="journal already"):
        convert(tmp_path, Format.PLAIN, now_ms=NOW_MS)
    with pytest.raises(UsageProblem, match="no files"):
        convert(tmp_path, Format.JOURNAL, now_ms=NOW_MS)
