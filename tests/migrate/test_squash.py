"""One migration instead of many: what it makes, what cannot be squashed, and what a kill leaves."""

from __future__ import annotations

import json
import os
import shutil
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings

from local_mcp_gateway.errors import (
    GatewayError,
    HistoryRefused,
    MigrationsFolderProblem,
    UsageProblem,
    VerificationFailed,
)
from local_mcp_gateway.migrate.check import check_folder
from local_mcp_gateway.migrate.folder import read_folder
from local_mcp_gateway.migrate.folder_edits import write_migration
from local_mcp_gateway.migrate.generate import next_snapshot, rewrite_snapshots, schema_of
from local_mcp_gateway.migrate.outcome import outcome_of
from local_mcp_gateway.migrate.squash import Squash, draft_squash, write_squash
from tests.migrate.made_folders import dump, texts
from tests.migrate.workshop import Workshop

USERS = "CREATE TABLE users (id INTEGER PRIMARY KEY, name TEXT);"


def squashed(shop: Workshop, *texts_: str, to: str | None = None) -> Squash:
    """The squash of these migrations, written."""
    for number, text in enumerate(texts_):
        shop.add(f"{number:04d}_m", text)
    before = shop.read().migrations
    made = draft_squash(shop.path, to=to)
    assert made is not None
    write_squash(made)
    count = len(made.replaced)
    for seed in (0, 1):
        old = outcome_of(before[:count], seed=seed)
        assert old.first_difference(outcome_of(shop.read().migrations[:1], seed=seed)) is None
    return made


@pytest.mark.parametrize(
    ("first", "then"),
    [
        (
            USERS,
            "INSERT INTO users (name) VALUES ('a'), ('b'), ('c'); DELETE FROM users WHERE id = 2",
        ),
        (
            "CREATE TABLE t (id INTEGER PRIMARY KEY AUTOINCREMENT, x)",
            "INSERT INTO t (x) VALUES (1), (2), (3); DELETE FROM t WHERE id = 3",
        ),
        (
            "CREATE TABLE t (id INTEGER PRIMARY KEY AUTOINCREMENT, x)",
            "INSERT INTO t (x) VALUES (1); DELETE FROM t",
        ),
        ("CREATE TABLE t (x)", "INSERT INTO t VALUES (1), (2), (3); DELETE FROM t WHERE x = 2"),
        (
            "CREATE TABLE t (k TEXT PRIMARY KEY, rowid, _rowid_, oid) WITHOUT ROWID",
            "INSERT INTO t VALUES ('b', 1, 2, 3), ('a', 4, 5, 6)",
        ),
        (
            "CREATE TABLE t (a ANY, b REAL, c BLOB, d ANY) STRICT",
            "INSERT INTO t VALUES (-9223372036854775808, 0.1, x'00ff', 1e300), ('1', 9e999, x'', -1.0)",
        ),
        (
            "CREATE TABLE t (a TEXT)",
            (
                "INSERT INTO t VALUES ('it''s'), (CAST(x'6100' AS TEXT)), (CAST(x'ff' AS TEXT)),"
                " ('é\n\ty'), (CAST(x'0d0a' AS TEXT)), ('--> statement' || '-breakpoint'), (NULL)"
            ),
        ),
        (
            "CREATE TABLE t (a, b AS (a + 1), c AS (a * 2) STORED); CREATE TABLE log (a)",
            (
                "CREATE TRIGGER tr AFTER INSERT ON t BEGIN INSERT INTO log VALUES (new.b); END;"
                "INSERT INTO t (a) VALUES (1), (2); CREATE VIEW v AS SELECT b FROM t;"
                "CREATE INDEX i ON t (abs(a)) WHERE a > 0"
            ),
        ),
        (
            (
                "CREATE TABLE p (id INTEGER PRIMARY KEY, up REFERENCES p, k REFERENCES c);"
                "CREATE TABLE c (id INTEGER PRIMARY KEY, p REFERENCES p)"
            ),
            "INSERT INTO c VALUES (1, 2); INSERT INTO p VALUES (1, 2, 1), (2, 1, NULL)",
        ),
        (
            "CREATE VIRTUAL TABLE words USING fts5 (c)",
            "PRAGMA user_version=7; PRAGMA application_id=9",
        ),
        (
            USERS,
            "ALTER TABLE users RENAME TO people; CREATE TABLE users AS SELECT 1 AS x, 'y' AS z",
        ),
        (USERS, "DROP TABLE users"),
        (
            "PRAGMA encoding='UTF-16le'; CREATE TABLE t (x)",
            (
                "INSERT INTO t VALUES ('é'), (char(27) || '[1m' || char(27)), (char(13, 10)), ('a' || char(0)),"
                " ('--> statement' || '-breakpoint' || char(8203)), ('')"
            ),
        ),
        (USERS, "CREATE INDEX by_name ON users (name); INSERT INTO users VALUES (1, 'a'); ANALYZE"),
        (USERS, "-- guard: no-transaction\nVACUUM"),
    ],
)
def test_it_makes_the_schema_and_the_rows_of_all_of_them(
    shop: Workshop, first: str, then: str
) -> None:
    made = squashed(shop, first, then)
    assert made.carried is None
    assert [migration.tag for migration in shop.read().migrations] == ["0001_m"]
    found = check_folder(shop.read())
    assert (found.problems, found.warnings) == ((), ())


def test_what_was_the_moment_of_the_migration_is_that_of_the_squash(shop: Workshop) -> None:
    made = squashed(
        shop,
        "CREATE TABLE t (a DEFAULT CURRENT_TIMESTAMP, b INTEGER DEFAULT (strftime('%s', 'now')), c)",
        "INSERT INTO t (c) VALUES (unixepoch() * 1000); UPDATE t SET a = datetime('now') WHERE b > 0",
    )
    assert made.carried is None
    assert "(CURRENT_TIMESTAMP, " in made.sql
    assert "2031" not in made.sql


@pytest.mark.parametrize(
    ("texts_", "carried"),
    [
        (("CREATE TABLE t (a)", "INSERT INTO t VALUES (random())"), "the rows of t would differ"),
        (
            (
                "CREATE TABLE t (a DEFAULT (lower(hex(randomblob(4)))), b) -- ends in a comment",
                "INSERT INTO t (b) VALUES (1)",
            ),
            "the rows of t would differ",
        ),
        (
            (
                "CREATE VIRTUAL TABLE words USING fts5 (c)",
                "BEGIN; INSERT INTO words VALUES ('a b'); COMMIT",
                "-- guard: no-transaction\nVACUUM",
            ),
            "the rows of words would differ",
        ),
        (
            (
                (
                    "CREATE TABLE p (id INTEGER PRIMARY KEY);"
                    "CREATE TABLE q (id INTEGER PRIMARY KEY, p REFERENCES p ON DELETE CASCADE);"
                    "CREATE TABLE r (q REFERENCES q ON DELETE SET NULL, x)"
                ),
                (
                    "INSERT INTO p VALUES (1), (2); INSERT INTO q VALUES (1, 1), (2, 2);"
                    "INSERT INTO r VALUES (1, random()), (2, 0)"
                ),
                "DELETE FROM p WHERE id = 1",
                "ALTER TABLE q ADD z; UPDATE r SET x = random() WHERE q IS NULL",
            ),
            "the rows of r would differ",
        ),
        (
            (
                "CREATE TABLE t (x CHECK (x <> 0)); INSERT INTO t VALUES (random())",
                "CREATE TEMP TABLE u AS SELECT 1 AS x; INSERT INTO t SELECT x FROM u",
                "PRAGMA ignore_check_constraints = ON; CREATE TABLE u (x); INSERT INTO u VALUES (2)",
                "CREATE TEMP TABLE v AS SELECT 3 AS x; INSERT OR IGNORE INTO t VALUES (0)",
            ),
            "the rows of t would differ",
        ),
    ],
)
def test_what_cannot_be_written_as_it_is_is_carried_statement_by_statement(
    shop: Workshop, texts_: tuple[str, ...], carried: str
) -> None:
    made = squashed(shop, *texts_)
    assert made.carried == carried
    assert {"BEGIN", "COMMIT", "VACUUM"}.isdisjoint(shop.read().migrations[0].texts)
    with closing(sqlite3.connect(":memory:")) as plain:
        plain.executescript(made.sql)
    assert check_folder(shop.read()).problems == ()


@pytest.mark.parametrize(
    ("texts_", "error", "said"),
    [
        (
            (USERS, "-- guard: no-transaction\nPRAGMA page_size=8192; VACUUM"),
            UsageProblem,
            r"0001_m\.sql runs outside of a transaction",
        ),
        (
            (
                (
                    "CREATE TABLE p (id INTEGER PRIMARY KEY);"
                    "CREATE TABLE c (p REFERENCES p ON DELETE CASCADE, x)"
                ),
                "INSERT INTO p VALUES (1); INSERT INTO c VALUES (1, 0), (99, random())",  # an orphan
                "DELETE FROM p",
            ),
            VerificationFailed,
            "the rows of c would differ",
        ),
        ((USERS, "CREATE TABLE users (x)"), GatewayError, r"0001_m\.sql, line 1"),
    ],
)
def test_what_no_one_migration_can_do_is_refused_by_name(
    shop: Workshop, texts_: tuple[str, ...], error: type[GatewayError], said: str
) -> None:
    with pytest.raises(error, match=said):
        squashed(shop, *texts_)
    assert not (shop.path / "meta" / "_squashed").exists()


def test_a_folder_that_is_not_ours_to_squash_is_refused_with_the_way(shop: Workshop) -> None:
    shop.add("0000_m", USERS)
    (shop.path / "0001_m.sql").write_text(USERS)
    with pytest.raises(HistoryRefused, match=r"0001_m\.sql is in the folder, but no journal"):
        draft_squash(shop.path)
    (shop.path / "0001_m.sql").unlink()
    with pytest.raises(UsageProblem, match="There is no migration `x`"):
        draft_squash(shop.path, to="x")
    assert draft_squash(shop.path) is None
    shutil.rmtree(shop.path / "meta")
    with pytest.raises(UsageProblem, match="has no journal") as caught:
        draft_squash(shop.path)
    assert "db adopt --format auto" in caught.value.hint
    (shop.path / "0000_m.sql").unlink()
    assert draft_squash(shop.path) is None
    with pytest.raises(MigrationsFolderProblem, match="There is no migrations folder"):
        draft_squash(shop.path / "gone")
    for stamp in ("20240101000000_a", "20240102000000_b"):
        (shop.path / stamp).mkdir()
        (shop.path / stamp / "migration.sql").write_text(f"CREATE TABLE t{stamp} (x)")
    (shop.path / "migration_lock.toml").touch()
    with pytest.raises(UsageProblem, match="is a folder of Prisma's"):
        draft_squash(shop.path)


def test_what_objects_need_accepted_stays_accepted(shop: Workshop) -> None:
    head = "-- guard: accept cannot_run v\n-- guard: accept deletes_data\n"
    made = squashed(shop, USERS, f"{head}CREATE VIEW v AS SELECT gone FROM users")
    assert made.sql.startswith("-- guard: accept cannot_run v\n-- Replaces 2 migrations")


def test_snapshots_and_ways_back_are_those_of_the_new_first_migration(shop: Workshop) -> None:
    for number in range(3):
        shop.add(
            f"{number:04d}_m", f"CREATE TABLE t{number} (x integer)", down=f"DROP TABLE t{number}"
        )
    rewrite_snapshots(shop.read())
    ids = [json.loads(file.read_text())["id"] for file in sorted(shop.path.glob("meta/0*.json"))]
    squashed(shop, to="0001_m")
    kept = json.loads((shop.path / "meta" / "0001_snapshot.json").read_text())
    assert (kept["id"], kept["prevId"]) == (ids[1], "00000000-0000-0000-0000-000000000000")
    assert set(kept["tables"]) == {"t0", "t1"}
    assert "DROP TABLE t0" in (shop.path / "0001_m.down.sql").read_text()
    assert [file.name for file in sorted(shop.path.glob("*.down.sql"))] == [
        "0001_m.down.sql",
        "0002_m.down.sql",
    ]
    assert (shop.path / "meta" / "_squashed" / "0000_m.down.sql").read_text() == "DROP TABLE t0"
    folder = shop.read()
    write_migration(
        folder, "next", "SELECT 1", down=None, snapshot=next_snapshot(folder, schema_of(folder))
    )
    newest = json.loads((shop.path / "meta" / "0003_snapshot.json").read_text())
    assert newest["prevId"] == ids[2]
    found = check_folder(shop.read())
    assert (found.problems, found.warnings) == ((), ())
    assert check_folder(read_folder(shop.path / "meta" / "_squashed")).problems == ()


def test_a_branch_that_begins_inside_of_what_is_squashed_is_named(tmp_path: Path) -> None:
    first, *ids = ("00000000-0000-0000-0000-000000000000", "1", "2", "3")
    for number, before in enumerate((first, ids[0], ids[0]), 1):
        folder = tmp_path / f"2024010{number}000000_m{number}"
        folder.mkdir()
        (folder / "migration.sql").write_text(f"CREATE TABLE t{number} (x)")
        (folder / "snapshot.json").write_text(
            json.dumps(
                {
                    "version": "7",
                    "dialect": "sqlite",
                    "id": str(number),
                    "prevIds": [before],
                    "ddl": [],
                }
            )
        )
    with pytest.raises(UsageProblem, match="20240103000000_m3 is of a branch that begins before"):
        draft_squash(tmp_path, to="20240102000000_m2")
    snapshot = tmp_path / "20240103000000_m3" / "snapshot.json"
    branch = snapshot.read_text()
    snapshot.write_text(branch.replace('["1"]', '["2"]'))
    assert draft_squash(tmp_path, to="20240102000000_m2") is not None
    snapshot.write_text(branch)
    made = draft_squash(tmp_path)
    assert made is not None
    write_squash(made)
    assert [m.tag for m in read_folder(tmp_path).migrations] == ["20240103000000_m3"]
    assert not (tmp_path / "meta" / "_squashed" / "meta").exists()
    kept = read_folder(tmp_path / "meta" / "_squashed")
    assert [m.tag[-2:] for m in kept.migrations] == ["m1", "m2", "m3"]
    found = check_folder(read_folder(tmp_path))
    assert (found.problems, found.warnings) == ((), ())


def test_a_squash_that_was_edited_or_whose_old_migrations_are_gone_is_told(shop: Workshop) -> None:
    squashed(shop, USERS, "INSERT INTO users (name) VALUES ('a')")
    file = shop.path / "0001_m.sql"
    file.write_text(file.read_text().replace("'a'", "'b'"))
    (told,) = check_folder(shop.read()).warnings
    assert "0001_m.sql does not make what the migrations in meta/_squashed make: the rows" in (
        told.message
    )
    (shop.path / "meta" / "_squashed" / "0000_m.sql").unlink()
    (told,) = check_folder(shop.read()).warnings
    assert told.message == (
        "In meta/_squashed: The journal lists 0000_m, but 0000_m.sql is not in the folder."
    )


def test_what_replaces_others_is_not_dropped(shop: Workshop) -> None:
    squashed(shop, USERS, "CREATE TABLE t (x)")
    with pytest.raises(UsageProblem, match="0001_m replaces other migrations"):
        shop.read().newest()


def test_a_folder_that_cannot_be_replaced_stays_as_it_is(shop: Workshop) -> None:
    shop.add("0000_m", USERS)
    shop.add("0001_m", "CREATE TABLE t (x)")
    made = draft_squash(shop.path)
    assert made is not None
    before = tree(shop.path)
    in_the_way = shop.path.with_name(".migrations.squash.tmp")
    in_the_way.touch()
    with pytest.raises(MigrationsFolderProblem, match="File exists"):
        write_squash(made)
    in_the_way.unlink()
    os.mkfifo(shop.path / "pipe")
    with pytest.raises(MigrationsFolderProblem, match="pipe` is a named pipe"):
        write_squash(made)
    (shop.path / "pipe").unlink()
    (shop.path / "0000_m.sql").write_text("CREATE TABLE other (x)")
    with pytest.raises(UsageProblem, match=r"0000_m\.sql was changed while it was squashed"):
        write_squash(made)
    (shop.path / "0000_m.sql").unlink()
    with pytest.raises(UsageProblem, match=r"0000_m\.sql was changed while it was squashed"):
        write_squash(made)
    (shop.path / "0000_m.sql").write_text(USERS)
    assert tree(shop.path) == before
    assert [path.name for path in shop.path.parent.iterdir()] == ["migrations"]


def test_other_files_and_a_link_to_the_folder_stay(shop: Workshop) -> None:
    Path(shop.path.parent, "README.md").write_text("read me")
    (shop.path / "README.md").symlink_to("../README.md")
    for name in ("0000_m.sql", "meta/_journal.json"):
        (shop.path.parent / "elsewhere" / name).parent.mkdir(parents=True, exist_ok=True)
        (shop.path / name).unlink(missing_ok=True)
        (shop.path / name).symlink_to(Path(shop.path.parent, "elsewhere", name))
    link = shop.path.with_name("link")
    link.symlink_to(shop.path)
    shop.add("0000_m", USERS)
    shop.add("0001_m", "CREATE TABLE t (x)")
    if os.geteuid() == 0:
        os.chown(shop.path, 12345, 12345)
    owner = shop.path.stat().st_uid
    made = draft_squash(link)
    assert made is not None
    write_squash(made)
    assert {path.lstat().st_uid for path in (shop.path, *shop.path.rglob("*"))} == {owner}
    assert link.is_symlink()
    assert (shop.path / "meta" / "_squashed" / "0000_m.sql").read_text() == USERS
    assert "0000_m" in (shop.path.parent / "elsewhere" / "meta" / "_journal.json").read_text()
    assert (link / "README.md").readlink() == Path("../README.md")
    assert len(shop.read().migrations) == 1


SLOW = list(HealthCheck)


@settings(deadline=None, max_examples=10, suppress_health_check=SLOW)
@given(texts=texts())
def test_made_folders_are_squashed_to_what_they_make(
    texts: list[str], tmp_path_factory: pytest.TempPathFactory
) -> None:
    require_the_same(texts, tmp_path_factory.mktemp("made"))


@pytest.mark.nightly
@settings(deadline=None, max_examples=400, suppress_health_check=SLOW)
@given(texts=texts())
def test_many_made_folders_are_squashed_to_what_they_make(
    texts: list[str], tmp_path_factory: pytest.TempPathFactory
) -> None:
    require_the_same(texts, tmp_path_factory.mktemp("made"))


def require_the_same(texts_: list[str], root: Path) -> None:
    """Compare with what plain SQLite makes of the texts."""
    shop = Workshop(root)
    for number, text in enumerate(texts_):
        shop.add(f"{number:04d}_m", text)
    made = draft_squash(shop.path)
    assert made is not None
    with closing(sqlite3.connect(":memory:")) as old, closing(sqlite3.connect(":memory:")) as new:
        old.executescript(";\n".join(texts_))
        new.executescript(made.sql)
        assert dump(new) == dump(old)
    shutil.rmtree(root)


def tree(folder: Path) -> dict[str, bytes]:
    return {
        str(file.relative_to(folder)): file.read_bytes()
        for file in folder.rglob("*")
        if file.is_file()
    }


_KILLED = """
import os, shutil, signal, sys
from pathlib import Path
from local_mcp_gateway.migrate.squash import draft_squash, write_squash

WRITES = {
    "open", "os.mkdir", "os.rename", "os.remove", "os.rmdir", "os.chmod", "os.utime", "ctypes.dlsym",
}
path, step = Path(sys.argv[1]), int(sys.argv[2])
old, left, made = path.with_name("old"), path.with_name(".migrations.squash.tmp"), draft_squash(path)
path.rename(old)
number = done = 0
while not done:
    number += step
    shutil.copytree(old, path)
    child = os.fork()
    if child == 0:
        seen = 0
        def die(event, arguments):
            global seen
            if event in WRITES:  # os.kill is an event too
                seen += 1
                if seen >= number:
                    os.kill(os.getpid(), signal.SIGKILL)
        sys.addaudithook(die)
        write_squash(made)
        os._exit(0)
    _, status = os.waitpid(child, 0)
    path.rename(path.with_name(f"killed-{number:04d}"))
    done = status == 0
    assert done or os.WTERMSIG(status) == signal.SIGKILL
    if not done and number % 3:  # else the next one begins beside what this one has left
        shutil.rmtree(left, ignore_errors=True)
"""


@pytest.mark.parametrize("step", [17, pytest.param(1, marks=pytest.mark.nightly)])
def test_a_kill_at_any_write_leaves_the_old_folder_or_the_new_one(
    shop: Workshop, step: int
) -> None:
    shop.add("0000_m", USERS, down="DROP TABLE users")
    shop.add("0001_m", "INSERT INTO users (name) VALUES ('a')")
    shop.add("0002_m", "CREATE TABLE t (x)")
    rewrite_snapshots(shop.read())
    root, old = shop.path.parent, tree(shop.path)
    subprocess.run(
        [sys.executable, "-c", _KILLED, str(shop.path), str(step)], check=True, timeout=120
    )
    found = [tree(folder) for folder in sorted(root.glob("killed-*"))]
    new = found[-1]
    kinds = ["old" if one == old else "new" if one == new else "another" for one in found]
    assert "another" not in kinds
    assert kinds.count("old") * step > 50
    if step == 1:
        assert kinds.count("new") > 5  # removing the old folder is killed too
    assert not (root / ".migrations.squash.tmp").exists()
