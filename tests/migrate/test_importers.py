"""Folders of other tools become ours, and nothing of theirs is lost."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path

import pytest

from local_mcp_gateway.database.connections import open_scratch
from local_mcp_gateway.errors import UsageProblem
from local_mcp_gateway.migrate.file_kinds import down_part_inside
from local_mcp_gateway.migrate.folder import read_folder
from local_mcp_gateway.migrate.importers import FolderFormat, convert, detect
from local_mcp_gateway.migrate.resolution import resolve
from tests.migrate.workshop import NOW_MS, write


def adopted(folder: Path, form: FolderFormat) -> list[tuple[str, str, str | None]]:
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
    assert adopted(tmp_path, FolderFormat.PLAIN) == [
        ("1_a", "SELECT 1;", None),
        ("2_b", "SELECT 2;", "SELECT 0;"),
        ("10_c", "SELECT 3;", None),
    ]


def test_times_in_names_become_the_journals_times(tmp_path: Path) -> None:
    write(tmp_path, {"1694438752000_a.sql": "", "20240102030405_b.sql": "", "zz.sql": ""})
    convert(tmp_path, FolderFormat.PLAIN, now_ms=NOW_MS)
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
    assert adopted(tmp_path, FolderFormat.UPDOWN) == [
        ("1_a", "SELECT 1;", "SELECT 0;"),
        ("2_b", "SELECT 2;", None),
    ]
    assert sorted(f.name for f in (tmp_path / "meta" / "adopted").iterdir()) == [
        "1_a.up.sql",
        "2_b.up.sql",
    ]


def test_hidden_files_are_nobodys_migrations(tmp_path: Path) -> None:
    write(
        tmp_path, {"1_a.sql": "SELECT 1;", "._1_a.sql": "\x05\x16", ".2_b.sql": "-- migrate:up\n"}
    )
    assert [e.tag for e in convert(tmp_path, detect(tmp_path), now_ms=NOW_MS).entries] == ["1_a"]
    found = read_folder(tmp_path)
    assert (found.problems, found.unjournaled) == ((), ())


def test_golang_migrate_knows_a_step_by_its_version_alone(tmp_path: Path) -> None:
    write(
        tmp_path,
        {
            "1_a.up.sql": "CREATE TABLE a(x);",
            "01_other.down.sql": "DROP TABLE a;",
            "2_b.down.sql": "DROP TABLE b;",
            "3_c.up.sql": "CREATE TABLE c(x);",
        },
    )
    convert(tmp_path, detect(tmp_path), now_ms=NOW_MS)
    found = read_folder(tmp_path)
    assert found.problems == ()
    assert [(m.tag, m.texts, m.down and m.down.read_text()) for m in found.migrations] == [
        ("1_a", ["CREATE TABLE a(x);"], "DROP TABLE a;"),
        ("2_b", ["SELECT 1;"], "DROP TABLE b;"),
        ("3_c", ["CREATE TABLE c(x);"], None),
    ]


def test_dbmates_marks_are_taken_apart(tmp_path: Path) -> None:
    write(
        tmp_path,
        {
            "20240101000000_a.sql": "-- migrate:up\nCREATE TABLE a(x);\n\n-- migrate:down\nDROP TABLE a;\n",
            "20240101000001_b.sql": "-- migrate:up transaction:false\nVACUUM;\n-- migrate:down\n",
        },
    )
    assert adopted(tmp_path, FolderFormat.DBMATE) == [
        ("20240101000000_a", "CREATE TABLE a(x);\n", "DROP TABLE a;\n"),
        ("20240101000001_b", "-- guard: no-transaction\nVACUUM;\n", None),
    ]
    assert "migrate:down" in (tmp_path / "meta" / "adopted" / "20240101000000_a.sql").read_text()


def test_dbmate_and_diesel_go_by_the_text_of_their_versions(tmp_path: Path) -> None:
    dbmates, diesels = tmp_path / "dbmate", tmp_path / "diesel"
    dbmates.mkdir()
    write(dbmates, {f"{tag}.sql": "-- migrate:up\nSELECT 1;\n" for tag in ("9_c", "10_b", "1_a")})
    found = [tag for tag, *_ in adopted(dbmates, FolderFormat.DBMATE)]
    assert found == ["10_b", "1_a", "9_c"]  # as dbmate has it: `0` comes before `_`
    for tag in ("9_c", "10_b", "1_a", "00000000000000_diesel_initial_setup", "2024-01-31-120000_d"):
        (diesels / tag).mkdir(parents=True)
        write(diesels / tag, {"up.sql": "SELECT 1;\n"})
    found = [tag for tag, *_ in adopted(diesels, FolderFormat.DIESEL)]
    assert [tag.rpartition("_")[2] for tag in found] == ["setup", "a", "b", "d", "c"]


def test_a_file_that_dbmate_passes_over_is_refused_by_name(tmp_path: Path) -> None:
    write(tmp_path, {"1_a.sql": "-- migrate:up\nSELECT 1;\n", "seed.sql": "DELETE FROM a;\n"})
    with pytest.raises(UsageProblem, match=r"seed\.sql has no number in front, so dbmate"):
        convert(tmp_path, FolderFormat.DBMATE, now_ms=NOW_MS)
    assert not (tmp_path / "meta").exists()


def test_gooses_marks_are_taken_apart(tmp_path: Path) -> None:
    write(
        tmp_path,
        {
            "00001_a.sql": "-- +goose Up\n-- +goose StatementBegin\nCREATE TABLE a(x);\n-- +goose StatementEnd\n\n-- +goose Down\nDROP TABLE a;\n",
            "00002_b.sql": "-- +goose NO TRANSACTION\n-- +goose up\nCREATE TABLE b(x);\n",
        },
    )
    first, second = adopted(tmp_path, FolderFormat.GOOSE)
    assert (first[0], first[2]) == ("00001_a", "DROP TABLE a;\n")
    assert "CREATE TABLE a(x);" in first[1]
    assert "DROP" not in first[1]
    assert second == ("00002_b", "CREATE TABLE b(x);\n", None)


@pytest.mark.parametrize("tool", ["goose", "migrate"])
def test_a_statement_ends_where_gooses_mark_says_so(tmp_path: Path, tool: str) -> None:
    begin, end = f"-- +{tool} StatementBegin\n", f"-- +{tool} StatementEnd\n"
    texts = ("CREATE TABLE a(x) -- the first\n", "CREATE TABLE b(x);\n", "CREATE TABLE c(x)\n")
    up = "".join(f"{begin}{text}{end}" for text in texts)
    down = "".join(f"{begin}DROP TABLE {name}\n{end}" for name in "abc")
    write(tmp_path, {"1_a.sql": f"-- +{tool} Up\n{up}-- +{tool} Down\n{down}"})
    [(_, forward, backward)] = adopted(tmp_path, FolderFormat.GOOSE)
    with closing(open_scratch()) as connection:
        connection.executescript(forward)
        assert len(connection.execute("SELECT * FROM sqlite_schema").fetchall()) == 3
        connection.executescript(backward or "")
        assert not connection.execute("SELECT * FROM sqlite_schema").fetchall()


@pytest.mark.parametrize("mark", ["+goose {}", "migrate:{}"])
def test_a_byte_order_mark_hides_no_mark(tmp_path: Path, mark: str) -> None:
    up, down = mark.format("up"), mark.format("down")
    text = f"\ufeff-- {up}\nCREATE TABLE a(x);\n-- {down}\nDROP TABLE a;\n"
    write(tmp_path, {"1_a.sql": text})
    form = FolderFormat.GOOSE if "goose" in mark else FolderFormat.DBMATE
    assert down_part_inside("1_a.sql", text) is not None
    assert adopted(tmp_path, form) == [("1_a", "CREATE TABLE a(x);\n", "DROP TABLE a;\n")]


@pytest.mark.parametrize("form", ["-- +goose Up\n{}", "-- migrate:up\n{}", "up.sql", "down.sql"])
@pytest.mark.parametrize(
    ("letter", "why"),
    [(b"\xe9", "is not valid UTF-8: byte 0xe9 in line"), (b"\0", "contains a zero byte")],
)
def test_a_file_that_is_taken_apart_has_to_be_utf8(
    tmp_path: Path, form: str, letter: bytes, why: str
) -> None:
    trigger = b"CREATE TRIGGER t AFTER INSERT ON a BEGIN SELECT '%b'; END;" % letter
    if form.endswith(".sql"):
        (tmp_path / "1_a").mkdir()
        write(
            tmp_path / "1_a", {"up.sql": "SELECT 1;", "metadata.toml": "run_in_transaction = false"}
        )
        (tmp_path / "1_a" / form).write_bytes(trigger)
    else:
        (tmp_path / "1_a.sql").write_bytes(form.encode().replace(b"{}", trigger))
    with pytest.raises(UsageProblem, match=why):
        convert(tmp_path, detect(tmp_path), now_ms=NOW_MS)
    assert not (tmp_path / "meta").exists()


def test_gooses_mark_for_no_transaction_may_stand_anywhere(tmp_path: Path) -> None:
    write(tmp_path, {"1_a.sql": "-- +goose Up\n-- +goose NO TRANSACTION\nVACUUM;\n"})
    [(_, forward, _)] = adopted(tmp_path, FolderFormat.GOOSE)
    assert forward.startswith("-- guard: no-transaction\n")


def test_dbmates_way_back_without_a_transaction_says_nothing_of_the_way_forward(
    tmp_path: Path,
) -> None:
    text = "-- migrate:up\nVACUUM;\n-- migrate:down transaction:false\nVACUUM;\n"
    write(tmp_path, {"1_a.sql": text})
    assert adopted(tmp_path, FolderFormat.DBMATE) == [("1_a", "VACUUM;\n", "VACUUM;\n")]


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("1_a.sql", "-- +goose Up\nCREATE TABLE a(x);\n-- +goose Down\n-- nothing\n"),
        ("1_a.sql", "-- migrate:up\nCREATE TABLE a(x);\n-- migrate:down\n/* no way */\n"),
        ("1_a/down.sql", "-- This file should undo anything in `up.sql`\n"),
    ],
)
def test_a_way_back_of_comments_is_none(tmp_path: Path, name: str, text: str) -> None:
    (tmp_path / name).parent.mkdir(exist_ok=True)
    write(tmp_path, {name: text})
    if name.endswith("down.sql"):
        write(tmp_path, {"1_a/up.sql": "CREATE TABLE a(x);\n"})
    assert [down for _, _, down in adopted(tmp_path, detect(tmp_path))] == [None]


def test_sql_migrates_marks_are_gooses(tmp_path: Path) -> None:
    write(
        tmp_path,
        {"1-a.sql": "-- +migrate Up\nCREATE TABLE a(x);\n-- +migrate Down\nDROP TABLE a;\n"},
    )
    assert adopted(tmp_path, FolderFormat.GOOSE) == [
        ("1-a", "CREATE TABLE a(x);\n", "DROP TABLE a;\n")
    ]


def test_diesels_folders_become_files(tmp_path: Path) -> None:
    for name, text in {
        "2024-01-31-120000_a/up.sql": "CREATE TABLE a(x);\n",
        "2024-01-31-120000_a/down.sql": "DROP TABLE a;\n",
        "2024-02-01-120000_b/up.sql": "VACUUM;\n",
        "2024-02-01-120000_b/metadata.toml": "run_in_transaction = false\n",
    }.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    before = read_folder(tmp_path)
    assert [str(file.relative_to(tmp_path)) for file in before.unjournaled] == [
        "2024-01-31-120000_a/up.sql",
        "2024-02-01-120000_b/up.sql",
    ]
    assert adopted(tmp_path, FolderFormat.DIESEL) == [
        ("2024-01-31-120000_a", "CREATE TABLE a(x);\n", "DROP TABLE a;\n"),
        ("2024-02-01-120000_b", "-- guard: no-transaction\nVACUUM;\n", None),
    ]
    assert read_folder(tmp_path).migrations[0].when == 1_706_702_400_000
    assert [folder.name for folder in tmp_path.iterdir() if folder.is_dir()] == ["meta"]
    kept = tmp_path / "meta" / "adopted" / "2024-01-31-120000_a" / "down.sql"
    assert kept.read_text() == "DROP TABLE a;\n"


def test_gooses_environment_variables_are_refused_by_name(tmp_path: Path) -> None:
    text = "-- +goose ENVSUB ON\n-- +goose Up\nCREATE TABLE ${NAME}(x);\n"
    write(tmp_path, {"00001_a.sql": text})
    with pytest.raises(UsageProblem, match=r"00001_a\.sql has goose fill in .* \(ENVSUB\)"):
        convert(tmp_path, FolderFormat.GOOSE, now_ms=NOW_MS)
    assert (tmp_path / "00001_a.sql").read_text() == text


def prismas(path: Path, provider: str) -> None:
    """Write a folder of Prisma's with its documented baseline and names that have half a date."""
    for name in ("0_init", "20240101000000_a", "20240101_b", "20240102000000_c"):
        (path / name).mkdir()
        (path / name / "migration.sql").write_text(f"CREATE TABLE {name[-1]} (x);\n")
    (path / "migration_lock.toml").write_text(f'# no edits\nprovider = "{provider}"\n')


def test_prismas_migrations_have_any_names_and_its_order(tmp_path: Path) -> None:
    prismas(tmp_path, "sqlite")
    folder = read_folder(tmp_path)
    assert folder.problems == ()
    assert [m.tag for m in folder.migrations] == [
        "0_init",
        "20240101000000_a",
        "20240101_b",
        "20240102000000_c",
    ]
    times = [m.when for m in folder.migrations]
    assert times == sorted(set(times))


def test_a_folder_of_prismas_for_another_database_is_refused_by_name(tmp_path: Path) -> None:
    prismas(tmp_path, "postgresql")
    (problem,) = read_folder(tmp_path).problems
    assert problem.code == "dialect"
    assert "is a folder of postgresql migrations" in problem.message


def test_a_folder_of_drizzles_without_a_date_is_named(tmp_path: Path) -> None:
    for name in ("0_init", "20240101000000_a"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "migration.sql").write_text("SELECT 1;")
    (problem,) = read_folder(tmp_path).problems
    assert problem.message == "The first 14 digits of 0_init are not a date and time."


@pytest.mark.parametrize("form", [FolderFormat.PLAIN, FolderFormat.UPDOWN, FolderFormat.JOURNAL])
@pytest.mark.parametrize("marks", ["-- migrate:up", "-- +goose Up", "-- +migrate Up"])
def test_a_file_with_its_way_back_in_it_is_never_taken_as_it_is(
    tmp_path: Path, form: FolderFormat, marks: str
) -> None:
    if form is FolderFormat.JOURNAL:
        write(tmp_path, {"0000_a.sql": "SELECT 1;"})
        convert(tmp_path, FolderFormat.PLAIN, now_ms=NOW_MS)
    down = marks.lower().replace("up", "down")
    write(tmp_path, {"0001_b.sql": f"{marks}\nCREATE TABLE b(x);\n{down}\nDROP TABLE b;\n"})
    with pytest.raises(UsageProblem, match="holds its way back too"):
        convert(tmp_path, form, now_ms=NOW_MS)
    assert "0001_b" not in [m.tag for m in read_folder(tmp_path).migrations]


def test_files_beside_a_journal_get_their_entries(tmp_path: Path) -> None:
    write(tmp_path, {"0000_a.sql": "SELECT 1;"})
    convert(tmp_path, FolderFormat.PLAIN, now_ms=NOW_MS)
    write(tmp_path, {"0001_b.sql": "SELECT 2;"})
    assert [entry.tag for entry in convert(tmp_path, detect(tmp_path), now_ms=NOW_MS).entries] == [
        "0001_b"
    ]
    found = read_folder(tmp_path).migrations
    assert [(m.tag, m.idx) for m in found] == [("0000_a", 0), ("0001_b", 1)]
    assert found[1].when > found[0].when


def test_a_folder_that_is_ours_already_is_left_alone(tmp_path: Path) -> None:
    write(tmp_path, {"0000_a.sql": "SELECT 1;"})
    convert(tmp_path, FolderFormat.PLAIN, now_ms=NOW_MS)
    with pytest.raises(UsageProblem, match="journal already"):
        convert(tmp_path, FolderFormat.PLAIN, now_ms=NOW_MS)
    with pytest.raises(UsageProblem, match="no files"):
        convert(tmp_path, FolderFormat.JOURNAL, now_ms=NOW_MS)
