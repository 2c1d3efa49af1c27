"""The group `db`: everything about the database, one table."""

from __future__ import annotations

import click

from local_mcp_gateway.cli.lazy import LazyGroup, Target

COMMANDS = {
    "status": Target("status:status", "Applied, pending, problems, drift, backups and the lock."),
    "migrate": Target("migrate:migrate", "Apply what is pending, guarded, without serving."),
    "history": Target("status:history", "What happened to this database, when, by which version."),
}


@click.group(cls=LazyGroup, table=COMMANDS)
def db() -> None:
    """Look after the database: see, migrate, back up and restore it.

    Every command takes the database and the migrations folder from the global options or settings:
    local-mcp-gateway --database x.db --migrations m db status
    """
