"""How each peer gets the same migrations: what its folder looks like, and how it is run."""

from __future__ import annotations

import json
import os
import shutil
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

WAIT_MS = 60_000
"""How long a peer that can be told so waits for SQLite's write lock."""

_DRIZZLE_ORM = f"""
import {{ createClient }} from '@libsql/client';
import {{ drizzle }} from 'drizzle-orm/libsql';
import {{ migrate }} from 'drizzle-orm/libsql/migrator';
const client = createClient({{ url: 'file:app.db' }});
await client.execute('PRAGMA busy_timeout={WAIT_MS}');
await migrate(drizzle({{ client }}), {{ migrationsFolder: 'migrations' }});
client.close();
"""
_DRIZZLE_KIT = """
export default {
  dialect: 'sqlite', out: process.env.PEER + '/migrations', dbCredentials: { url: 'file:' + process.env.PEER + '/app.db' },
};
"""
_KNEX = """
const knex = require('knex')({
  client: 'better-sqlite3', connection: { filename: 'app.db' }, useNullAsDefault: true,
  migrations: { directory: './migrations' },
});
knex.migrate.latest().then(() => knex.destroy(), (error) => { console.error(error.message); process.exit(1); });
"""
_ALEMBIC_ENV = """
from alembic import context
from sqlalchemy import create_engine
with create_engine("sqlite:///app.db").connect() as connection:
    context.configure(connection=connection)
    with context.begin_transaction():
        context.run_migrations()
"""
_DJANGO_SETTINGS = f"""
DATABASES = {{"default": {{"ENGINE": "django.db.backends.sqlite3", "NAME": "app.db",
                         "OPTIONS": {{"timeout": {WAIT_MS // 1000}}}}}}}
INSTALLED_APPS = ["app"]
USE_TZ = True
"""


class Step(NamedTuple):
    """One migration, whatever the peer makes of it."""

    number: int
    name: str
    statements: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Tools:
    """Where the peers are installed."""

    zero: Path
    one: Path
    node: Path
    python: Path
    debian: Path


@dataclass(frozen=True, slots=True)
class Peer:
    """One peer: it writes a project of these steps, and is run in it."""

    name: str
    lay_out: Callable[[Path, Sequence[Step]], None]
    command: Callable[[Tools, Path], list[str]]
    environment: Callable[[Tools, Path], Mapping[str, str]] = lambda _tools, _root: {}
    folder: Callable[[Tools, Path], Path] = lambda _tools, root: root
    """Where it is run: in the project, unless it looks for its own files there."""


def write(root: Path, files: Mapping[str, str]) -> None:
    """Write the project again: what it had before is gone, compiled files included."""
    for name in ("migrations", "app"):
        shutil.rmtree(root / name, ignore_errors=True)
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)


def _drizzle(root: Path, steps: Sequence[Step]) -> None:
    entries = [
        {
            "idx": s.number,
            "version": "6",
            "when": 1_700_000_000_000 + s.number,
            "tag": _tag(s),
            "breakpoints": True,
        }
        for s in steps
    ]
    journal = {"version": "7", "dialect": "sqlite", "entries": entries}
    files = {
        f"migrations/{_tag(s)}.sql": "\n--> statement-breakpoint\n".join(s.statements)
        for s in steps
    }
    write(root, {**files, "migrations/meta/_journal.json": json.dumps(journal)})


def _stamped(root: Path, steps: Sequence[Step]) -> None:
    joined = "\n--> statement-breakpoint\n"
    write(
        root,
        {
            f"migrations/{20240101000000 + s.number}_{s.name}/migration.sql": joined.join(
                s.statements
            )
            for s in steps
        },
    )


def _sql(up: str, down: str) -> Callable[[Path, Sequence[Step]], None]:
    def lay_out(root: Path, steps: Sequence[Step]) -> None:
        files = {
            f"migrations/{_tag(s)}.sql": "\n".join([up, *s.statements, down, ""]) for s in steps
        }
        settings = "development:\n  dialect: sqlite3\n  datasource: app.db\n  dir: migrations\n"
        write(root, {**files, "dbconfig.yml": settings})

    return lay_out


def _knex(root: Path, steps: Sequence[Step]) -> None:
    def text(step: Step) -> str:
        calls = "".join(f"  await knex.raw({json.dumps(sql)});\n" for sql in step.statements)
        return f"exports.up = async (knex) => {{\n{calls}}};\nexports.down = async () => {{}};\n"

    write(root, {f"migrations/{_tag(step)}.js": text(step) for step in steps})


def _alembic(root: Path, steps: Sequence[Step]) -> None:
    files = {
        "alembic.ini": "[alembic]\nscript_location = migrations\n",
        "migrations/env.py": _ALEMBIC_ENV,
    }
    before = None
    for step in steps:
        body = "".join(f"    op.execute({sql!r})\n" for sql in step.statements)
        head = f"from alembic import op\nrevision = {_tag(step)!r}\ndown_revision = {before!r}\n"
        files[f"migrations/versions/{_tag(step)}.py"] = f"{head}def upgrade():\n{body}"
        before = _tag(step)
    write(root, files)


def _yoyo(root: Path, steps: Sequence[Step]) -> None:
    def text(step: Step) -> str:
        return f"from yoyo import step\nsteps = [{', '.join(f'step({sql!r})' for sql in step.statements)}]\n"

    write(root, {f"migrations/{_tag(step)}.py": text(step) for step in steps})


def _django(root: Path, steps: Sequence[Step]) -> None:
    files = {
        "peer_settings.py": _DJANGO_SETTINGS,
        "app/__init__.py": "",
        "app/migrations/__init__.py": "",
    }
    before: list[tuple[str, str]] = []
    for step in steps:
        operations = ", ".join(f"migrations.RunSQL({sql!r})" for sql in step.statements)
        files[f"app/migrations/{_tag(step)}.py"] = (
            "from django.db import migrations\nclass Migration(migrations.Migration):\n"
            f"    dependencies = {before!r}\n    operations = [{operations}]\n"
        )
        before = [("app", _tag(step))]
    write(root, files)


def _tag(step: Step) -> str:
    return f"{step.number:04d}_{step.name}"


def _python_path(tools: Tools, root: Path) -> Mapping[str, str]:
    return {"PYTHONPATH": f"{tools.python}{os.pathsep}{root}"}


PEERS = (
    Peer("drizzle-orm 0.45", _drizzle, lambda tools, _: ["node", str(tools.zero / "peer.mjs")]),
    Peer(
        "drizzle-kit 0.31",
        _drizzle,
        lambda tools, _: [
            str(tools.zero / "node_modules/.bin/drizzle-kit"),
            "migrate",
            "--config=peer.config.mjs",
        ],
        lambda _, root: {"PEER": str(root)},
        lambda tools, _: tools.zero,
    ),
    Peer("drizzle-orm 1.0-rc", _stamped, lambda tools, _: ["node", str(tools.one / "peer.mjs")]),
    Peer(
        "dbmate",
        _sql("-- migrate:up", "-- migrate:down"),
        lambda tools, _: [
            str(tools.node / "node_modules/.bin/dbmate"),
            "--url=sqlite:app.db",
            "--migrations-dir=migrations",
            "--no-dump-schema",
            "up",
        ],
    ),
    Peer(
        "sql-migrate",
        _sql("-- +migrate Up", "-- +migrate Down"),
        lambda tools, _: [str(tools.debian / "usr/bin/sql-migrate"), "up"],
    ),
    Peer(
        "alembic",
        _alembic,
        lambda _tools, _: [sys.executable, "-m", "alembic", "upgrade", "head"],
        _python_path,
    ),
    Peer(
        "yoyo",
        _yoyo,
        lambda _tools, _: [
            sys.executable,
            "-m",
            "yoyo",
            "apply",
            "--batch",
            "--no-config-file",
            "--database=sqlite:///app.db",
            "migrations",
        ],
        _python_path,
    ),
    Peer(
        "Django",
        _django,
        lambda _tools, _: [sys.executable, "-m", "django", "migrate", "--settings=peer_settings"],
        _python_path,
    ),
    Peer("knex", _knex, lambda tools, _: ["node", str(tools.node / "peer.cjs")]),
    Peer(
        "ours",
        _drizzle,
        lambda _tools, _: [
            sys.executable,
            "-m",
            "local_mcp_gateway",
            "--database=app.db",
            "--migrations=migrations",
            "db",
            "migrate",
        ],
    ),
)


def put_scripts(tools: Tools) -> None:
    """Write the scripts that run the libraries; each stands where its imports are found."""
    for folder in (tools.zero, tools.one):
        (folder / "peer.mjs").write_text(_DRIZZLE_ORM)
    (tools.zero / "peer.config.mjs").write_text(_DRIZZLE_KIT)
    (tools.node / "peer.cjs").write_text(_KNEX)
