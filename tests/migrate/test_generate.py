"""Writing migrations into a folder, and taking them out."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from local_mcp_gateway.errors import HistoryRefused, MigrationsFolderProblem, SchemaProblem
from local_mcp_gateway.migrate.check import check_folder
from local_mcp_gateway.migrate.folder import read_folder
from local_mcp_gateway.migrate.folder_edits import (
    drop_migration,
    next_prefix,
    snapshot_file,
    write_migration,
)
from local_mcp_gateway.migrate.generate import (
    draft,
    open_folder,
    rewrite_snapshots,
    schema_of,
    write,
)
from local_mcp_gateway.schema import compare
from local_mcp_gateway.schema.renames import Renames
from local_mcp_gateway.schema.source import read_sql


def add(path: Path, sql: str, tmp_path: Path) -> str:
    file = tmp_path / "schema.sql"
    file.write_text(sql)
    folder = open_folder(path)
    made = draft(
        schema_of(folder), read_sql(file), Renames(), {}, name=None, first=not folder.migrations
    )
    return write(folder, made).tag


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "migrations"


def test_a_folder_that_does_not_exist_is_created(path: Path, tmp_path: Path) -> None:
    assert add(path, "CREATE TABLE t(a);", tmp_path) == "0000_initial"
    assert read_folder(path).problems == ()


def test_nothing_half_written_is_left_beside_the_files(path: Path, tmp_path: Path) -> None:
    add(path, "CREATE TABLE t(a);", tmp_path)
    assert not [file for file in path.rglob("*") if ".tmp" in file.name]


def test_each_migration_is_later_than_the_one_before_whatever_the_clock_says(path: Path) -> None:
    write_migration(open_folder(path), "a", "SELECT 1;", down=None, snapshot=None, when=5_000)
    write_migration(open_folder(path), "b", "SELECT 1;", down=None, snapshot=None, when=4_000)
    assert [migration.when for migration in read_folder(path).migrations] == [5_000, 5_001]


def test_the_next_number_is_above_every_file_there_is(path: Path) -> None:
    write_migration(open_folder(path), "a", "SELECT 1;", down=None, snapshot=None)
    (path / "0041_other_branch.sql").write_text("SELECT 1;")
    assert next_prefix(read_folder(path), now=0) == "0042"


AT = 1_732_797_296_000  # 2024-11-28 12:34:56 UTC


@pytest.mark.parametrize(
    ("tags", "following"),
    [
        ([], "0000"),
        (["0000_a", "0009_b"], "0010"),
        (["9999_a"], "10000"),
        (["1_a", "31_b", "4_c"], "32"),
        (["001_a"], "002"),
        (["20240101000000_a", "20241128110000_b"], "20241128123456"),
        (["20251128000000_a"], "20251128000001"),  # by a clock that was ahead
        (["1732790000_a"], "1732797296"),
        (["create_a"], "0000"),
        (["0000_a", "20241128_fix"], "20241129"),
    ],
)
def test_the_next_migration_goes_on_in_the_style_of_the_folder(
    path: Path, tags: list[str], following: str
) -> None:
    folder = open_folder(path)._replace(unjournaled=tuple(path / f"{tag}.sql" for tag in tags))
    assert next_prefix(folder, now=AT) == following


def test_migrations_of_one_year_have_snapshots_of_their_own(path: Path) -> None:
    names = ("20250101000000_a", "20250102000000_b", "1_c", "by_hand", "by_me")
    files = [snapshot_file(path, name).name for name in names]
    assert files == [
        "20250101000000_snapshot.json",
        "20250102000000_snapshot.json",
        "1_snapshot.json",
        "by_hand_snapshot.json",
        "by_me_snapshot.json",
    ]


def test_what_was_dropped_leaves_no_trace(path: Path, tmp_path: Path) -> None:
    add(path, "CREATE TABLE t(a);", tmp_path)
    before = {file.name: file.read_bytes() for file in path.rglob("*.*")}
    add(path, "CREATE TABLE t(a, b);", tmp_path)
    folder = read_folder(path)
    drop_migration(folder, folder.migrations[-1])
    assert {file.name: file.read_bytes() for file in path.rglob("*.*")} == before


def test_a_file_in_the_place_of_the_folder_is_refused(path: Path) -> None:
    path.write_text("")
    with pytest.raises(MigrationsFolderProblem):
        open_folder(path)


def test_a_folder_with_problems_is_refused(path: Path, tmp_path: Path) -> None:
    add(path, "CREATE TABLE t(a);", tmp_path)
    (path / "0000_initial.sql").unlink()
    with pytest.raises(HistoryRefused):
        open_folder(path)


def test_snapshots_are_mended_so_that_the_chain_is_whole(path: Path, tmp_path: Path) -> None:
    for columns in ("a", "a, b", "a, b, c", "a, b, c, d"):
        add(path, f"CREATE TABLE t({columns});", tmp_path)
    (path / "meta" / "0001_snapshot.json").unlink()
    (path / "meta" / "0003_snapshot.json").write_text("{")
    folder = open_folder(path)
    assert rewrite_snapshots(folder) == ("0001_add_t_b", "0003_add_t_d")
    assert rewrite_snapshots(folder) == ()
    chain = [json.loads((path / "meta" / f"000{n}_snapshot.json").read_text()) for n in range(4)]
    assert [s["prevId"] for s in chain[1:]] == [s["id"] for s in chain[:-1]]
    assert check_folder(folder).warnings == ()


def test_check_says_which_migration_fails(path: Path, tmp_path: Path) -> None:
    add(path, "CREATE TABLE t(a);", tmp_path)
    write_migration(open_folder(path), "bad", "CREATE TABLE t(a);", down=None, snapshot=None)
    found = check_folder(read_folder(path))
    assert [(p.code, p.tag) for p in found.problems] == [("fails", "0001_bad")]


def test_check_says_when_a_chain_of_snapshots_is_broken(path: Path, tmp_path: Path) -> None:
    add(path, "CREATE TABLE t(a);", tmp_path)
    add(path, "CREATE TABLE t(a, b);", tmp_path)
    file = path / "meta" / "0001_snapshot.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), "prevId": "another"}))
    [warning] = check_folder(read_folder(path)).warnings
    assert "does not follow that of 0000_initial" in warning.message


def test_the_schema_at_a_tag_is_what_the_folder_made_then(path: Path, tmp_path: Path) -> None:
    add(path, "CREATE TABLE t(a);", tmp_path)
    add(path, "CREATE TABLE t(a, b);", tmp_path)
    folder = open_folder(path)
    assert len(compare(schema_of(folder), schema_of(folder, to="0000_initial"))) == 1


PARENT = "CREATE TABLE p(id INTEGER PRIMARY KEY, k TEXT); CREATE TABLE c(k TEXT REFERENCES p(k));"
UNIQUE = f"{PARENT} CREATE UNIQUE INDEX p_k ON p(k);"


@pytest.mark.parametrize(
    "schema",
    [
        PARENT,
        f"{PARENT} CREATE UNIQUE INDEX p_k ON p(k) WHERE id > 1;",
        "CREATE TABLE c(k TEXT REFERENCES p(k));",
    ],
)
def test_a_key_that_a_reference_needs_is_not_taken_away(
    path: Path, tmp_path: Path, schema: str
) -> None:
    add(path, UNIQUE, tmp_path)
    with pytest.raises(SchemaProblem, match="The foreign key of c to p cannot work"):
        add(path, schema, tmp_path)
    assert len(read_folder(path).migrations) == 1


def test_a_reference_that_never_worked_stops_no_other_change(path: Path, tmp_path: Path) -> None:
    write_migration(open_folder(path), "old", PARENT, down=None, snapshot=None)
    assert add(path, f"{PARENT} CREATE TABLE t(a);", tmp_path) == "0001_create_t"


def test_the_way_back_says_that_null_does_not_come_back(path: Path, tmp_path: Path) -> None:
    add(path, "CREATE TABLE t(id INTEGER PRIMARY KEY, a TEXT);", tmp_path)
    tag = add(path, "CREATE TABLE t(id INTEGER PRIMARY KEY, a TEXT NOT NULL DEFAULT '');", tmp_path)
    down = (path / f"{tag}.down.sql").read_text()
    assert down.startswith("-- Where NULL became a value, it stays that value;")


@pytest.mark.parametrize(
    "target",
    [
        (
            "CREATE TABLE notes (id INTEGER PRIMARY KEY, txt TEXT);"
            " CREATE VIRTUAL TABLE words USING fts5 (body, content=notes);"
        ),
        (
            "CREATE TABLE notes (body TEXT); CREATE TABLE log (x);"
            " CREATE TRIGGER t AFTER UPDATE OF title ON notes BEGIN DELETE FROM log; END;"
        ),
    ],
)
def test_a_schema_whose_names_lead_nowhere_is_not_generated(
    path: Path, tmp_path: Path, target: str
) -> None:
    with pytest.raises(SchemaProblem, match=r"words cannot be read|t of notes never runs"):
        add(path, target, tmp_path)
    assert not path.exists()
