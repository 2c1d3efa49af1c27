"""A database of another tool is adopted exactly where its ledger says that it is, or not at all.

The tables are made, and written to, by the SQL of each tool's own source; it is named where the tool is not
among those that `tests/peers/test_adopted.py` runs.
"""

from __future__ import annotations

import re
import sqlite3
import zlib
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from functools import cache
from hashlib import sha256, sha384
from pathlib import Path

import pytest

from local_mcp_gateway.database.connections import open_scratch
from local_mcp_gateway.errors import NotAdopted, UsageProblem
from local_mcp_gateway.migrate import Ledger, Repair, convert, detect
from local_mcp_gateway.migrate.folder import read_folder
from local_mcp_gateway.migrate.foreign_ledgers import read_foreign_ledger
from local_mcp_gateway.migrate.plan import Plan

STEPS = (
    "CREATE TABLE a (x INTEGER);\n",
    "CREATE TABLE b (x INTEGER);\n",
    "INSERT INTO a VALUES (1);\n",  # nothing but the ledger says whether this ran
    "UPDATE a SET x = 2;\n",
    "CREATE TABLE c (x INTEGER);\n",
)
DOWNS = ("DROP TABLE a;", "DROP TABLE b;", "SELECT 1;", "SELECT 1;", "DROP TABLE c;")
TIMES = [f"2024010{number}120000" for number in range(1, 6)]


@dataclass(frozen=True)
class Tool:
    """A tool: its files, its table, and the SQL by which it records the first `n` of them."""

    files: Callable[[int, str], dict[str, str]]
    """Of the migration with this number, counted from 0, and this text."""
    table: str
    record: Callable[[int], str]


def rows(table: str, row: Callable[[int], str]) -> Callable[[int], str]:
    return lambda n: "".join(f"INSERT INTO {table} VALUES ({row(i)});" for i in range(n))


def flyways_crc(text: str) -> int:
    found = zlib.crc32(text.replace("\n", "").encode())
    return found - (1 << 32) if found >= 1 << 31 else found


REVISIONS = ["1975ea83b712", "ae1027a6acf", "27c6a30d7c24", "0cee6a30d7c2", "f00d6a30d7c2"]


def alembics(number: int, text: str) -> dict[str, str]:
    before = REVISIONS[number - 1] if number else ""
    made = f"-- Running upgrade {before} -> {REVISIONS[number]}, step\n\n"
    return {f"{number + 1:03d}_step.sql": made + text}


TOOLS = {
    "golang-migrate": Tool(  # database/sqlite3/sqlite3.go: ensureVersionTable, SetVersion
        lambda i, sql: {f"{i + 1:06d}_s.up.sql": sql, f"{i + 1:06d}_s.down.sql": DOWNS[i]},
        "\n\tCREATE TABLE IF NOT EXISTS schema_migrations (version uint64,dirty bool);\n"
        "  CREATE UNIQUE INDEX IF NOT EXISTS version_unique ON schema_migrations (version);\n  ",
        lambda n: (
            f"INSERT INTO schema_migrations (version, dirty) VALUES ({n}, false);" if n else ""
        ),
    ),
    "dbmate": Tool(
        lambda i, sql: {
            f"{TIMES[i]}_s.sql": f"-- migrate:up\n{sql}\n-- migrate:down\n{DOWNS[i]}\n"
        },
        'CREATE TABLE "schema_migrations" (version varchar(128) primary key);',
        rows("schema_migrations", lambda i: f"'{TIMES[i]}'"),
    ),
    "goose": Tool(  # internal/dialects/sqlite3.go; provider_run.go inserts version 0 first
        lambda i, sql: {f"{i + 1:05d}_s.sql": f"-- +goose Up\n{sql}\n-- +goose Down\n{DOWNS[i]}\n"},
        "CREATE TABLE goose_db_version (\n\t\tid INTEGER PRIMARY KEY AUTOINCREMENT,\n"
        "\t\tversion_id INTEGER NOT NULL,\n\t\tis_applied INTEGER NOT NULL,\n"
        "\t\ttstamp TIMESTAMP DEFAULT (datetime('now'))\n\t);"
        "INSERT INTO goose_db_version (version_id, is_applied) VALUES (0, true);",
        lambda n: "".join(
            f"INSERT INTO goose_db_version (version_id, is_applied) VALUES ({i + 1}, true);"
            for i in range(n)
        ),
    ),
    "sqlx": Tool(  # sqlx-sqlite/src/migrate.rs; sqlx-core/src/migrate/migration.rs: checksum
        lambda i, sql: {f"{TIMES[i]}_s.sql": sql},
        "\nCREATE TABLE IF NOT EXISTS _sqlx_migrations (\n    version BIGINT PRIMARY KEY,\n"
        "    description TEXT NOT NULL,\n"
        "    installed_on TIMESTAMP NOT NULL DEFAULT CURRENT_TIMESTAMP,\n"
        "    success BOOLEAN NOT NULL,\n    checksum BLOB NOT NULL,\n"
        "    execution_time BIGINT NOT NULL\n);\n",
        rows(
            "_sqlx_migrations (version, description, success, checksum, execution_time)",
            lambda i: f"{TIMES[i]}, 's', TRUE, x'{sha384(STEPS[i].encode()).hexdigest()}', 52134",
        ),
    ),
    "Flyway": Tool(  # internal/database/sqlite/SQLiteDatabase.java, internal/resolver/ChecksumCalculator.java
        lambda i, sql: {f"V1_{i + 8}__s.sql": sql, f"U1_{i + 8}__s.sql": DOWNS[i]},
        'CREATE TABLE "main"."flyway_schema_history" (\n    "installed_rank" INT NOT NULL PRIMARY KEY,\n'
        '    "version" VARCHAR(50),\n    "description" VARCHAR(200) NOT NULL,\n'
        '    "type" VARCHAR(20) NOT NULL,\n    "script" VARCHAR(1000) NOT NULL,\n    "checksum" INT,\n'
        '    "installed_by" VARCHAR(100) NOT NULL,\n    "installed_on" TEXT NOT NULL'
        " DEFAULT (strftime('%Y-%m-%d %H:%M:%f','now')),\n"
        '    "execution_time" INT NOT NULL,\n    "success" BOOLEAN NOT NULL\n);\n'
        'CREATE INDEX "main"."flyway_schema_history_s_idx" ON "flyway_schema_history" ("success");',
        rows(
            '"main"."flyway_schema_history" ("installed_rank", "version", "description", "type", "script",'
            ' "checksum", "installed_by", "execution_time", "success")',
            lambda i: (
                f"{i + 1}, '1.{i + 8}', 's', 'SQL', 'V1_{i + 8}__s.sql', {flyways_crc(STEPS[i])},"
                " '', 1, 1"
            ),
        ),
    ),
    "Alembic": Tool(
        alembics,
        "CREATE TABLE alembic_version (version_num VARCHAR(32) NOT NULL,"
        " CONSTRAINT alembic_version_pkc PRIMARY KEY (version_num));",
        lambda n: f"INSERT INTO alembic_version VALUES ('{REVISIONS[n - 1]}');" if n else "",
    ),
    "Prisma": Tool(
        lambda i, sql: {f"{TIMES[i]}_s/migration.sql": sql},
        'CREATE TABLE "_prisma_migrations" ("id" TEXT PRIMARY KEY NOT NULL, "checksum" TEXT NOT NULL,'
        ' "finished_at" DATETIME, "migration_name" TEXT NOT NULL, "logs" TEXT,'
        ' "rolled_back_at" DATETIME, "started_at" DATETIME NOT NULL DEFAULT current_timestamp,'
        ' "applied_steps_count" INTEGER UNSIGNED NOT NULL DEFAULT 0);',
        rows(
            "_prisma_migrations",
            lambda i: (
                f"'{i}', '{sha256(STEPS[i].encode()).hexdigest()}', {i + 1}, '{TIMES[i]}_s', NULL,"
                f" NULL, {i}, 1"
            ),
        ),
    ),
    "Knex": Tool(
        lambda i, sql: {f"{TIMES[i]}_s.sql": sql},
        "CREATE TABLE `knex_migrations` (`id` integer not null primary key autoincrement,"
        " `name` varchar(255), `batch` integer, `migration_time` datetime);"
        "CREATE TABLE `knex_migrations_lock` (`index` integer not null primary key autoincrement,"
        " `is_locked` integer);INSERT INTO knex_migrations_lock VALUES (1, 0);",
        rows("knex_migrations", lambda i: f"{i + 1}, '{TIMES[i]}_s.js', 1, 1700000000000"),
    ),
    "D1": Tool(
        lambda i, sql: {f"{i + 1:04d}_s.sql": sql},
        "CREATE TABLE d1_migrations(id INTEGER PRIMARY KEY AUTOINCREMENT, name TEXT UNIQUE,"
        " applied_at TIMESTAMP DEFAULT CURRENT_TIMESTAMP NOT NULL);"
        "CREATE TABLE _cf_METADATA (key INTEGER PRIMARY KEY, value BLOB);",
        rows("d1_migrations", lambda i: f"{i + 1}, '{i + 1:04d}_s.sql', CURRENT_TIMESTAMP"),
    ),
    "Diesel": Tool(  # diesel/src/migration/setup_migration_table.sql; migration_harness.rs
        lambda i, sql: {
            f"2024-01-0{i + 1}-120000_s/up.sql": sql,
            f"2024-01-0{i + 1}-120000_s/down.sql": DOWNS[i],
        },
        "CREATE TABLE IF NOT EXISTS __diesel_schema_migrations (\n"
        "       version VARCHAR(50) PRIMARY KEY NOT NULL,\n"
        "       run_on TIMESTAMP NOT NULL DEFAULT CURRENT_TIMESTAMP\n);\n",
        rows("__diesel_schema_migrations (version)", lambda i: f"'{TIMES[i]}'"),
    ),
    "sql-migrate": Tool(
        lambda i, sql: {f"{i + 1}-s.sql": f"-- +migrate Up\n{sql}\n-- +migrate Down\n{DOWNS[i]}\n"},
        'CREATE TABLE "gorp_migrations" ("id" varchar(255) not null primary key,'
        ' "applied_at" datetime);',
        rows("gorp_migrations", lambda i: f"'{i + 1}-s.sql', CURRENT_TIMESTAMP"),
    ),
    "refinery": Tool(
        lambda i, sql: {f"V{i + 8}__s.sql": sql},
        "CREATE TABLE refinery_schema_history (version INTEGER PRIMARY KEY, name VARCHAR(255),"
        " applied_on VARCHAR(255), checksum VARCHAR(255));",
        rows("refinery_schema_history", lambda i: f"{i + 8}, 's', '', ''"),
    ),
    "Sequelize": Tool(
        lambda i, sql: {f"{TIMES[i]}-s.sql": sql},
        "CREATE TABLE `SequelizeMeta` (`name` VARCHAR(255) NOT NULL UNIQUE PRIMARY KEY);",
        rows("SequelizeMeta", lambda i: f"'{TIMES[i]}-s.js'"),
    ),
}


def written(tool: Tool, path: Path) -> Path:
    """Write the tool's folder, and take it over."""
    for number, sql in enumerate(STEPS):
        for name, text in tool.files(number, sql).items():
            (path / name).parent.mkdir(parents=True, exist_ok=True)
            (path / name).write_text(text)
    if not read_folder(path).migrations:
        assert convert(path, detect(path), now_ms=1_800_000_000_000).left_out == ()
    found = read_folder(path)
    assert (len(found.migrations), found.problems, found.unjournaled) == (len(STEPS), (), ())
    return path


FolderOf = Callable[[str], Path]


@pytest.fixture(scope="module")
def folder_of(tmp_path_factory: pytest.TempPathFactory) -> FolderOf:
    """Return the folder of a tool, by its name; no test changes it."""
    root = tmp_path_factory.mktemp("folders")
    return cache(lambda name: written(TOOLS[name], root / name))


def state(connection: sqlite3.Connection, tool: Tool, count: int) -> None:
    connection.executescript(tool.table + "".join(STEPS[:count]) + tool.record(count))


def adopted(path: Path, connection: sqlite3.Connection, **options: bool) -> int:
    """Adopt; return how many migrations were, which have to be the first."""
    repair = Repair(path.with_suffix(".db"), path, Ledger(connection))
    tags = repair.adopt(lambda _: None, **options)  # type: ignore[arg-type]
    assert list(tags) == [m.tag for m in read_folder(path).migrations][: len(tags)]
    return len(tags)


@pytest.mark.parametrize("name", TOOLS)
def test_a_database_is_adopted_where_the_tools_ledger_says(folder_of: FolderOf, name: str) -> None:
    for count in range(len(STEPS) + 1):
        with closing(open_scratch()) as live:
            state(live, TOOLS[name], count)
            assert adopted(folder_of(name), live) == count
            assert len(Ledger(live).rows()) == count
            plan = Plan.read(read_folder(folder_of(name)), Ledger(live)).with_drift(Ledger(live))
            assert (len(plan.pending), plan.problems, plan.drift) == (len(STEPS) - count, (), ())


@pytest.mark.parametrize("name", TOOLS)
def test_what_the_tool_has_applied_since_is_not_run_again_and_adopted_too(
    folder_of: FolderOf, scratch: sqlite3.Connection, name: str
) -> None:
    path, tool = folder_of(name), TOOLS[name]
    state(scratch, tool, 2)
    assert adopted(path, scratch) == 2
    assert Plan.read(read_folder(path), Ledger(scratch)).problems == ()
    (table, *_) = re.findall(r"INSERT INTO (\S+)", tool.record(4))
    scratch.executescript(f"DELETE FROM {table};" + "".join(STEPS[2:4]) + tool.record(4))
    found = Plan.read(read_folder(path), Ledger(scratch))
    assert [problem.code for problem in found.problems] == ["applied_elsewhere"] * 2
    repair = Repair(path.with_suffix(".db"), path, Ledger(scratch))
    assert len(repair.adopt(lambda _: None)) == 2
    assert [m.tag for m in Plan.read(read_folder(path), Ledger(scratch)).pending] == [
        read_folder(path).migrations[4].tag
    ]


def test_what_a_person_applied_since_is_adopted_as_ever(
    folder_of: FolderOf, scratch: sqlite3.Connection
) -> None:
    path = folder_of("goose")
    state(scratch, TOOLS["goose"], 1)
    assert adopted(path, scratch) == 1
    scratch.executescript(STEPS[1])
    assert Repair(path.with_suffix(".db"), path, Ledger(scratch)).adopt(lambda _: None) == (
        "00002_s",
    )


UNFINISHED = {
    "golang-migrate": "UPDATE schema_migrations SET dirty = true",
    "sqlx": "UPDATE _sqlx_migrations SET success = 0 WHERE version = 20240102120000",
    "Flyway": "UPDATE flyway_schema_history SET success = 0 WHERE version = '1.9'",
    "Prisma": "UPDATE _prisma_migrations SET finished_at = NULL WHERE id = '1'",
}


@pytest.mark.parametrize("name", UNFINISHED)
def test_a_ledger_with_an_unfinished_migration_is_refused(
    folder_of: FolderOf, scratch: sqlite3.Connection, name: str
) -> None:
    path = folder_of(name)
    state(scratch, TOOLS[name], 2)
    scratch.execute(UNFINISHED[name])
    with pytest.raises(NotAdopted, match=rf"\({name}\) says that .* was begun and never finished"):
        adopted(path, scratch)
    assert Ledger(scratch).rows() == ()


def test_a_version_of_golang_migrate_that_is_only_a_way_back_counts(
    tmp_path: Path, scratch: sqlite3.Connection
) -> None:
    path, tool = tmp_path / "m", TOOLS["golang-migrate"]
    path.mkdir()
    (path / "000006_later.down.sql").write_text("SELECT 1;\n")
    for number, sql in enumerate(STEPS):
        for name, text in tool.files(number, sql).items():
            (path / name).write_text(text)
    convert(path, detect(path), now_ms=1_800_000_000_000)
    scratch.executescript(tool.table + "".join(STEPS) + tool.record(6))
    assert adopted(path, scratch) == 6


def test_knexs_lock_is_respected(folder_of: FolderOf, scratch: sqlite3.Connection) -> None:
    path = folder_of("Knex")
    state(scratch, TOOLS["Knex"], 2)
    scratch.execute("UPDATE knex_migrations_lock SET is_locked = 1")
    with pytest.raises(NotAdopted, match="Knex is at work, or was killed"):
        adopted(path, scratch)


@pytest.mark.parametrize("name", TOOLS)
def test_a_ledger_that_the_folder_or_the_schema_contradicts_is_refused(
    folder_of: FolderOf, scratch: sqlite3.Connection, name: str
) -> None:
    path = folder_of(name)
    scratch.executescript(TOOLS[name].table + "".join(STEPS[:1]) + TOOLS[name].record(2))
    with pytest.raises(NotAdopted, match=r"2 of 5 migrations are applied, but the schema is not"):
        adopted(path, scratch)
    found = read_folder(path)
    with pytest.raises(NotAdopted, match="no file of the folder is that migration"):
        read_foreign_ledger(scratch, found.migrations[:1])


@pytest.mark.parametrize("name", ["sqlx", "Flyway", "Prisma"])
def test_a_file_that_changed_since_is_taken_as_it_is_only_on_demand(
    tmp_path: Path, scratch: sqlite3.Connection, name: str
) -> None:
    path = written(TOOLS[name], tmp_path / "m")
    state(scratch, TOOLS[name], 3)
    file = read_folder(path).migrations[1].path
    file.write_bytes(STEPS[1].replace("\n", "\r\n").encode())  # Git, on another system
    assert read_foreign_ledger(scratch, read_folder(path).migrations) is not None
    file.write_text(STEPS[1].replace(";", "; -- tidied up"))
    with pytest.raises(NotAdopted, match="is not what was applied"):
        adopted(path, scratch)
    assert adopted(path, scratch, trust_files=True) == 3


def test_what_was_taken_back_since_is_not_applied(
    folder_of: FolderOf, scratch: sqlite3.Connection
) -> None:
    path = folder_of("goose")
    state(scratch, TOOLS["goose"], 2)
    scratch.executescript(
        "DROP TABLE b; INSERT INTO goose_db_version (version_id, is_applied) VALUES (2, 0)"
    )
    assert adopted(path, scratch) == 1


def test_an_undone_migration_of_flyways_whose_file_is_gone_is_no_contradiction(
    folder_of: FolderOf, scratch: sqlite3.Connection
) -> None:
    path = folder_of("Flyway")
    state(scratch, TOOLS["Flyway"], 2)
    for rank, kind in ((3, "SQL"), (4, "UNDO_SQL")):
        scratch.execute(
            f"INSERT INTO flyway_schema_history VALUES ({rank}, '7', 'x', '{kind}', 'x', 1, '', '', 1, 1)"
        )
    assert adopted(path, scratch) == 2


def test_what_is_before_a_baseline_of_flyways_is_applied(
    folder_of: FolderOf, scratch: sqlite3.Connection
) -> None:
    path = folder_of("Flyway")
    scratch.executescript(
        TOOLS["Flyway"].table
        + "".join(STEPS[:3])
        + "INSERT INTO flyway_schema_history VALUES (1, '1.10.5', '<< Flyway Baseline >>', 'BASELINE',"
        " '<< Flyway Baseline >>', NULL, '', '', 0, 1)"
    )
    assert adopted(path, scratch) == 3


def test_a_migration_that_was_skipped_is_not_adopted(
    folder_of: FolderOf, scratch: sqlite3.Connection
) -> None:
    path = folder_of("dbmate")
    scratch.executescript(TOOLS["dbmate"].table + STEPS[0] + STEPS[1] + STEPS[4])
    scratch.executemany(
        "INSERT INTO schema_migrations VALUES (?)", [(TIMES[0],), (TIMES[1],), (TIMES[4],)]
    )
    found = read_foreign_ledger(scratch, read_folder(path).migrations)
    assert found is not None
    assert sorted(found.tags) == [f"{TIMES[0]}_s", f"{TIMES[1]}_s", f"{TIMES[4]}_s"]


def test_two_ledgers_have_to_say_the_same(folder_of: FolderOf, scratch: sqlite3.Connection) -> None:
    path = folder_of("D1")
    state(scratch, TOOLS["D1"], 2)
    scratch.executescript(TOOLS["goose"].table + TOOLS["goose"].record(3))
    with pytest.raises(NotAdopted, match=r"d1_migrations|goose_db_version .* says that 3 of 5"):
        adopted(path, scratch)
    scratch.execute("DELETE FROM goose_db_version WHERE version_id = 3")
    assert adopted(path, scratch) == 2


def test_prismas_renamed_migration_is_known_by_its_checksum(
    folder_of: FolderOf, scratch: sqlite3.Connection
) -> None:
    path = folder_of("Prisma")
    state(scratch, TOOLS["Prisma"], 2)
    scratch.execute("UPDATE _prisma_migrations SET migration_name = '0_init' WHERE id = '0'")
    assert adopted(path, scratch) == 2


def test_alembics_branches_are_followed_to_their_heads(
    tmp_path: Path, scratch: sqlite3.Connection
) -> None:
    path = tmp_path / "m"
    path.mkdir()
    for tag, step, table in (
        ("1_base", "-> aaa", "a"),
        ("2_left", "aaa -> bbb", "b"),
        ("3_right", "aaa -> ccc", "c"),
        ("4_merge", "bbb, ccc -> ddd", "d"),
    ):
        (path / f"{tag}.sql").write_text(
            f"-- Running upgrade {step}\n\nCREATE TABLE {table} (x);\n"
        )
    convert(path, detect(path), now_ms=1)
    migrations = read_folder(path).migrations
    scratch.execute("CREATE TABLE alembic_version (version_num VARCHAR(32) NOT NULL)")
    for heads, tags in (
        (["ccc"], {"1_base", "3_right"}),
        (["bbb", "ccc"], {"1_base", "2_left", "3_right"}),
        (["ddd"], {"1_base", "2_left", "3_right", "4_merge"}),
    ):
        scratch.execute("DELETE FROM alembic_version")
        scratch.executemany("INSERT INTO alembic_version VALUES (?)", [(head,) for head in heads])
        found = read_foreign_ledger(scratch, migrations)
        assert found is not None
        assert found.tags == tags


def test_a_revision_in_the_middle_of_a_file_is_named(
    tmp_path: Path, scratch: sqlite3.Connection
) -> None:
    path = tmp_path / "m"
    path.mkdir()
    (path / "1_all.sql").write_text(
        "-- Running upgrade  -> aaa\nCREATE TABLE a (x);\n-- Running upgrade aaa -> bbb\nCREATE TABLE b (x);\n"
    )
    convert(path, detect(path), now_ms=1)
    scratch.executescript(
        "CREATE TABLE alembic_version (version_num); INSERT INTO alembic_version VALUES ('aaa');"
    )
    with pytest.raises(NotAdopted, match="in the middle of 1_all: bbb is not applied"):
        read_foreign_ledger(scratch, read_folder(path).migrations)


def test_without_a_ledger_a_person_says_whether_rows_were_written(
    folder_of: FolderOf, tmp_path: Path, scratch: sqlite3.Connection
) -> None:
    path = folder_of("D1")
    scratch.executescript(STEPS[0] + STEPS[1])
    with pytest.raises(UsageProblem, match="Whether 0003_s and 0004_s ran cannot be seen") as asked:
        adopted(path, scratch)
    assert re.findall(r"--to (\w+)`", asked.value.hint) == ["0004_s", "0002_s"]
    repair = Repair(tmp_path / "m.db", path, Ledger(scratch))
    with pytest.raises(NotAdopted, match="up to 0005_s make"):
        repair.adopt(lambda _: None, to="0005_s")
    assert repair.adopt(lambda _: None, to="0003_s") == ("0001_s", "0002_s", "0003_s")
