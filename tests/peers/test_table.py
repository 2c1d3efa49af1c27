"""The table of peers, run: the same folder and the same mishap for each of them, and what it does.

A row each. Where one of these fails a peer has changed, and what the docs say about it with it. `silent`:
it ends with 0 and has changed nothing. `again`: it reads its ledger before it holds the write lock, so
starts at the same time apply a migration more than once. `stuck`: after a kill it does not go on by itself.
"""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path
from typing import NamedTuple

import pytest

from tests.harness import DEADLINE_S
from tests.peers.adapters import PEERS, Peer, Step, Tools
from tests.peers.project import Project, wait_until_asleep

pytestmark = pytest.mark.peers


class Row(NamedTuple):
    """What one peer does about each mishap."""

    edited: str
    deleted: str
    older: str
    failing: str
    eight: str
    killed: str
    newer: str


UNLESS_LOCKED = "once unless locked"
"""It commits a migration before it notes it down. A start that SQLite refuses in between ends in "database
is locked", and the next one applies the migration again."""
TABLE = {
    "drizzle-orm 0.45": Row(
        "silent", "silent", "skipped", "rolled back", "again", "clean", "silent"
    ),
    "drizzle-kit 0.31": Row(
        "silent", "silent", "skipped", "rolled back", "once", "clean", "silent"
    ),
    "drizzle-orm 1.0-rc": Row(
        "silent", "silent", "applied", "rolled back", "again", "clean", "silent"
    ),
    "dbmate": Row("silent", "silent", "applied", "rolled back", "once", "clean", "silent"),
    "sql-migrate": Row("silent", "refuses", "applied", "rolled back", "once", "clean", "refuses"),
    "alembic": Row("silent", "silent", "skipped", "half", "once", "stuck", "refuses"),
    "yoyo": Row("silent", "silent", "applied", "rolled back", UNLESS_LOCKED, "stuck", "silent"),
    "Django": Row("silent", "silent", "refuses", "rolled back", "again", "clean", "silent"),
    "knex": Row("silent", "refuses", "applied", "rolled back", "once", "clean", "refuses"),
    "ours": Row("refuses", "refuses", "refuses", "rolled back", "once", "clean", "refuses"),
}
AT_ONCE = 8

FIRST = Step(1, "a", ("CREATE TABLE a(x);",))
LATE = Step(2, "late", ("CREATE TABLE late(x);",))
SECOND = Step(3, "b", ("CREATE TABLE b(x);", "CREATE TABLE counted(x);"))
COUNTING = Step(4, "count", ("INSERT INTO counted VALUES (1);",))
BROKEN = Step(4, "broken", ("CREATE TABLE half(x);", "CREATE TABEL more(x);"))
_ENDLESS = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT 1 FROM n)"
ENDLESS = Step(
    4, "half", ("CREATE TABLE half(x);", f"{_ENDLESS} INSERT INTO half SELECT count(*) FROM n;")
)
ENDING = Step(4, "half", ("CREATE TABLE half(x);", "INSERT INTO half VALUES (1);"))


@pytest.fixture(scope="module")
def migrated(
    tools: Tools, tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest
) -> Project:
    """A project with two migrations applied; its tests work on copies of it."""
    peer: Peer = request.param
    project = Project(peer, tools, tmp_path_factory.mktemp("peer").resolve())
    code, said = project.migrate([FIRST, SECOND])
    assert code == 0, said
    assert {"a", "b", "counted"} <= project.tables()
    return project


@pytest.fixture
def project(migrated: Project, tmp_path: Path) -> Project:
    root = tmp_path.resolve() / "project"
    shutil.copytree(migrated.root, root)
    return Project(migrated.peer, migrated.tools, root)


@pytest.fixture
def expected(migrated: Project) -> Row:
    return TABLE[migrated.peer.name]


each_peer = pytest.mark.parametrize(
    "migrated", PEERS, indirect=True, ids=[peer.name for peer in PEERS], scope="module"
)


def silence(project: Project, *steps: Step) -> str:
    """Run the peer; tell whether it ended well without any change, or refused."""
    before = project.tables()
    code, said = project.migrate(steps)
    assert project.tables() == before, said
    return "refuses" if code else "silent"


@each_peer
def test_an_edited_file(project: Project, expected: Row) -> None:
    edited = FIRST._replace(statements=("CREATE TABLE a(x, y);",))
    assert silence(project, edited, SECOND) == expected.edited


@each_peer
def test_a_deleted_file(project: Project, expected: Row) -> None:
    assert silence(project, SECOND) == expected.deleted


@each_peer
def test_a_newer_database(project: Project, expected: Row) -> None:
    assert silence(project, FIRST) == expected.newer


@each_peer
def test_an_older_file_that_comes_later(project: Project, expected: Row) -> None:
    code, said = project.migrate([FIRST, LATE, SECOND])
    applied = "late" in project.tables()
    found = "applied" if applied else "refuses" if code else "skipped"
    assert found == expected.older, said


@each_peer
def test_a_second_statement_that_fails(project: Project, expected: Row) -> None:
    code, said = project.migrate([FIRST, SECOND, BROKEN])
    assert code != 0, said
    assert ("half" if "half" in project.tables() else "rolled back") == expected.failing


@each_peer
def test_eight_starts_at_once(project: Project, expected: Row) -> None:
    project.lay_out([FIRST, SECOND, COUNTING])
    if expected.eight == "again":
        with project.held():
            processes = [project.start() for _ in range(AT_ONCE)]
            wait_until_asleep(processes, project.database)
    else:
        processes = [project.start() for _ in range(AT_ONCE)]
    said = [ended(process) for process in processes]
    times = project.count("counted")
    refused = any("database is locked" in words for words in said)
    assert times >= 1 or refused, said  # a tool that does not wait may lock all of them out
    wanted = expected.eight
    if wanted == UNLESS_LOCKED:
        wanted = "again" if refused and times > 1 else "once"
    assert ("again" if times > 1 else "once") == wanted, (times, said)


@each_peer
def test_a_kill_in_the_middle(project: Project, expected: Row) -> None:
    project.kill_in_the_middle([FIRST, SECOND, ENDLESS])
    code, said = project.migrate([FIRST, SECOND, ENDING])
    clean = code == 0 and project.count("half") == 1
    assert ("clean" if clean else "stuck") == expected.killed, said


def ended(process: subprocess.Popen[str]) -> str:
    return process.communicate(timeout=DEADLINE_S)[0]
