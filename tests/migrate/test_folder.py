"""What is read from a folder, and what is said about folders that are not right."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest

from local_mcp_gateway.errors import MigrationsFolderProblem
from local_mcp_gateway.migrate.folder import NEW, Folder, read_folder
from local_mcp_gateway.migrate.journal import Entry, write_journal
from tests.migrate.workshop import Workshop


def codes(folder: Folder) -> list[str]:
    return [problem.code for problem in folder.problems]


def test_migrations_come_in_the_journals_order_with_their_hashes(shop: Workshop) -> None:
    shop.add("0001_b", "SELECT 1;\r\n", down="SELECT 0;")
    shop.add("0000_a", b"\xef\xbb\xbfSELECT 2;")
    folder = shop.read()
    assert [m.tag for m in folder.migrations] == ["0001_b", "0000_a"]
    assert folder.migrations[0].hash == hashlib.sha256(b"SELECT 1;\r\n").hexdigest()
    assert folder.migrations[1].hash == hashlib.sha256(b"\xef\xbb\xbfSELECT 2;").hexdigest()
    assert folder.migrations[0].down == shop.path / "0001_b.down.sql"
    assert folder.migrations[1].down is None
    assert folder.problems == ()
    assert folder.unjournaled == ()


def test_a_large_file_is_read_whole(shop: Workshop) -> None:
    text = "-- " + "x" * 3_000_000 + "\nSELECT 1;"
    shop.add("0000_a", text)
    assert shop.read().migrations[0].sql == text


def test_a_folder_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(MigrationsFolderProblem, match="no migrations folder"):
        read_folder(tmp_path / "none")
    (tmp_path / "file").touch()
    with pytest.raises(MigrationsFolderProblem, match="is a file"):
        read_folder(tmp_path / "file")


def test_an_empty_folder_has_no_migrations_and_no_problem(tmp_path: Path) -> None:
    assert read_folder(tmp_path) == Folder(tmp_path, ())


@pytest.mark.parametrize(
    "content",
    [
        "{not json",
        "[]",
        '{"entries": {}}',
        '{"entries": [1]}',
        '{"entries": [{"idx": 0, "when": 1}]}',
        '{"entries": [{"idx": 0, "when": "x", "tag": "a"}]}',
        '{"entries": [{"idx": "0", "when": 1, "tag": "a"}]}',
        '{"entries": [{"idx": 0, "when": 1, "tag": "../../etc/passwd"}]}',
        '{"entries": [{"idx": 0, "when": true, "tag": "a"}]}',
        '{"entries": [{"idx": 0, "when": 9223372036854775808, "tag": "a"}]}',
        "<<<<<<< HEAD",
    ],
)
def test_a_malformed_journal_is_one_problem(shop: Workshop, content: str) -> None:
    shop.add("0000_a", "SELECT 1;")
    (shop.path / "meta" / "_journal.json").write_text(content)
    folder = shop.read()
    assert codes(folder) == ["bad_journal"]
    assert "_journal.json" in folder.problems[0].message
    assert folder.migrations == ()


def test_a_postgresql_folder_is_refused_as_that(shop: Workshop) -> None:
    shop.add("0000_a", "CREATE TABLE t(a timestamp with time zone DEFAULT now())")
    shop.write_journal(dialect="postgresql")
    assert codes(shop.read()) == ["dialect"]
    assert "postgresql" in shop.read().problems[0].message


def test_invalid_utf8_is_refused_with_its_line(shop: Workshop) -> None:
    shop.add("0000_a", b"SELECT 1;\nSELECT '\xe9t\xe9';")
    (problem,) = shop.read().problems
    assert (problem.code, problem.tag) == ("bad_encoding", "0000_a")
    assert "line 2" in problem.message


def test_utf16_is_refused(shop: Workshop) -> None:
    shop.add("0000_a", "SELECT 1;".encode("utf-16"))
    shop.add("0001_b", "SELECT 1;".encode("utf-16-be"))
    assert codes(shop.read()) == ["bad_encoding", "bad_encoding"]


def test_a_journaled_file_that_is_missing_is_named(shop: Workshop) -> None:
    shop.add("0000_a", "SELECT 1;")
    (shop.path / "0000_a.sql").unlink()
    (problem,) = shop.read().problems
    assert (problem.code, problem.tag) == ("missing", "0000_a")


def test_a_tag_listed_twice_is_a_duplicate(shop: Workshop) -> None:
    shop.add("0000_a", "SELECT 1;")
    shop.entries.append(shop.entries[0])
    shop.write_journal()
    assert codes(shop.read()) == ["duplicate"]


def test_files_beside_the_journal_are_unjournaled_but_not_downs(shop: Workshop) -> None:
    shop.add("0000_a", "SELECT 1;", down="SELECT 0;")
    (shop.path / "0001_b.sql").write_text("SELECT 2;")
    (shop.path / "0001_b.down.sql").write_text("SELECT 2;")
    (shop.path / "notes.txt").write_text("hello")
    assert shop.read().unjournaled == (shop.path / "0001_b.sql",)
    folder = read_folder(shop.path, journal_new_files=True)
    assert [(m.tag, m.idx) for m in folder.migrations] == [("0000_a", 0), ("0001_b", NEW)]
    assert folder.migrations[1].when > folder.migrations[0].when
    assert folder.unjournaled == ()


def test_the_journal_is_extended_and_keeps_what_it_had(shop: Workshop) -> None:
    shop.add("0000_a", "SELECT 1;")
    shop.write_journal(extra="kept")
    write_journal(shop.path, [Entry(1, "0001_b", 5)])
    journal = json.loads((shop.path / "meta" / "_journal.json").read_text())
    assert journal["extra"] == "kept"
    assert journal["entries"][1] == {
        "idx": 1,
        "version": "6",
        "when": 5,
        "tag": "0001_b",
        "breakpoints": True,
    }
    assert [file.name for file in (shop.path / "meta").iterdir()] == ["_journal.json"]


def test_a_drizzle_1_folder_is_read_in_the_order_of_its_stamps(tmp_path: Path) -> None:
    for name in ("20250102030405_b", "20240102030405_a"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "migration.sql").write_text(f"SELECT '{name}';")
    (tmp_path / "20240102030405_a" / "down.sql").write_text("SELECT 0;")
    folder = read_folder(tmp_path)
    assert [m.tag for m in folder.migrations] == ["20240102030405_a", "20250102030405_b"]
    assert folder.migrations[0].when == 1_704_164_645_000
    assert folder.migrations[0].down == tmp_path / "20240102030405_a" / "down.sql"
    assert folder.is_v1


def test_a_drizzle_1_migration_beside_a_journal_is_not_passed_over(shop: Workshop) -> None:
    shop.add("0000_a", "SELECT 1;")
    (shop.path / "20240102030405_b").mkdir()
    (shop.path / "20240102030405_b" / "migration.sql").write_text("SELECT 2;")
    assert shop.read().unjournaled == (shop.path / "20240102030405_b" / "migration.sql",)
    assert shop.codes() == ["unjournaled"]
