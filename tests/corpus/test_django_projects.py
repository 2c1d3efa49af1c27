"""Public Django projects: half of their migrations, rows, then the rest, equal to a plain replay row by row.

Django runs them on a database of its own, and the SQL that SQLite gets is the folder. It rebuilds tables
(`new__x`) far more often than any other tool. The rows come where they fit what follows: a plain replay
takes the same ones.
"""

from __future__ import annotations

import os
import shutil
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest

from local_mcp_gateway.guard import guarded
from local_mcp_gateway.migrate.folder import read_folder
from local_mcp_gateway.migrate.importers import FolderFormat, convert
from local_mcp_gateway.schema import inspect
from tests.fetched import pip
from tests.schema.seeding import seed

pytestmark = [pytest.mark.corpus, pytest.mark.nightly]

PACKAGES = (
    "Django==5.2.19",
    "wagtail==7.1",
    "django-allauth==65.11.0",
    "django-axes==8.0.0",
    "django-celery-beat==2.8.1",
    "django-oauth-toolkit==3.0.1",
    "django-q2==1.8.0",
    "django-taggit==6.1.0",
)
_WAGTAIL = (
    "admin users images documents embeds search contrib.redirects contrib.forms"
    " contrib.search_promotions contrib.settings"
)
PROJECTS: dict[str, tuple[float, str]] = {
    "django": (0.5, "django.contrib.admin django.contrib.redirects django.contrib.flatpages"),
    "allauth": (0.5, "allauth allauth.account allauth.socialaccount allauth.mfa"),
    "axes": (0.5, "axes"),
    "celery-beat": (0.5, "django_celery_beat"),
    "oauth-toolkit": (0.5, "oauth2_provider"),
    "q2": (0.75, "django_q"),
    "taggit": (0.5, "taggit"),
    "wagtail": (0.75, " wagtail.".join(("taggit modelcluster wagtail", *_WAGTAIL.split()))),
}
"""How much comes before the rows, and the applications."""

_RECORD = """
import sys
from pathlib import Path
import django
from django.conf import settings
folder, *apps = sys.argv[1:]
own = [f"django.contrib.{name}" for name in ("contenttypes", "auth", "sessions", "messages", "sites")]
settings.configure(
    DATABASES={"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": ":memory:"}},
    INSTALLED_APPS=[*own, *apps], SECRET_KEY="x", SITE_ID=1, STATIC_URL="/s/", USE_TZ=True,
    MIDDLEWARE=["allauth.account.middleware.AccountMiddleware"],
    Q_CLUSTER={"retry": 90, "timeout": 60}, DEFAULT_AUTO_FIELD="django.db.models.AutoField",
)
django.setup()
from django.db import connection
from django.db.migrations.executor import MigrationExecutor
executor = MigrationExecutor(connection)
plan = executor.migration_plan(executor.loader.graph.leaf_nodes(), clean_start=True)
state = executor._create_project_state(with_applied_migrations=True)
heard = []
connection.connection.set_trace_callback(heard.append)
left_out = ("SELECT", "PRAGMA", "BEGIN", "COMMIT", "SAVEPOINT", "RELEASE", "ROLLBACK", "--")
for number, (migration, _) in enumerate(plan):
    heard.clear()
    with connection.schema_editor(atomic=migration.atomic) as editor:
        state = migration.apply(state, editor)
    kept = [f"{sql.strip().rstrip(';')};" for sql in heard if not sql.lstrip().startswith(left_out)]
    tag = f"{number:04d}_{migration.app_label}_{migration.name}"
    Path(folder, f"{tag}.sql").write_text("\\n".join(kept) or "SELECT 1;")
"""


def record(packages: Path, folder: Path, apps: str) -> None:
    """Have Django migrate a database in memory, and write what SQLite got, a file for each migration."""
    folder.mkdir()
    subprocess.run(
        [sys.executable, "-W", "ignore", "-c", _RECORD, folder, *apps.split()],
        env={**os.environ, "PYTHONPATH": str(packages)},
        check=True,
        timeout=120,
    )


def rows_of(database: Path) -> dict[str, list[str]]:
    """Return the rows of every table, and the schema."""
    with closing(sqlite3.connect(database)) as connection:
        schema = inspect(connection)
        found = {
            name: sorted(map(repr, connection.execute(f'SELECT rowid, * FROM "{name}"')))
            for name in schema.tables
        }
        return {**found, "": sorted(map(repr, (*schema.tables.values(), *schema.triggers.values())))}


@pytest.mark.parametrize("name", PROJECTS)
def test_the_rows_of_a_django_project_end_as_in_a_plain_replay(
    pytestconfig: pytest.Config, tmp_path: Path, name: str
) -> None:
    rows_at, apps = PROJECTS[name]
    whole, first = tmp_path / "whole", tmp_path / "first"
    record(pip(pytestconfig, "django-projects", PACKAGES), whole, apps)
    tags = sorted(path.name for path in whole.iterdir())
    before = tags[: int(len(tags) * rows_at)]
    first.mkdir()
    for tag in before:
        shutil.copy(whole / tag, first)
    for folder in (first, whole):
        convert(folder, FolderFormat.PLAIN, now_ms=1)
    guarding, plain = tmp_path / "guarding.db", tmp_path / "plain.db"
    with guarded(guarding, first):
        pass
    with closing(sqlite3.connect(guarding, isolation_level=None)) as connection:
        assert seed(connection, inspect(connection)) == []
    shutil.copy(guarding, plain)
    with guarded(guarding, whole) as report:
        assert len(report.applied) == len(tags) - len(before)
    with closing(sqlite3.connect(plain, isolation_level=None)) as connection:
        for migration in read_folder(whole).migrations[len(before) :]:
            connection.executescript(migration.sql)
    assert rows_of(guarding) == rows_of(plain)
