"""The group `db`: everything about the database, one table."""

from __future__ import annotations

import click

from local_mcp_gateway.cli.lazy import LazyGroup, Target

COMMANDS = {
    "status": Target("status:status", "Applied, pending, problems, drift, backups and the lock."),
    "migrate": Target("migrate:migrate", "Apply what is pending, guarded, without serving."),
    "history": Target("status:history", "What happened to this database, when, by which version."),
    "generate": Target("generate:generate", "Write the next migration from a changed schema."),
    "drop": Target("drop:drop", "Take back the newest migration that is not applied."),
    "diff": Target("schema:diff", "Compare schema, database, snapshot or folder with another."),
    "check": Target("schema:check", "Check folder and database against each other, for CI."),
    "rehearse": Target("rehearse:rehearse", "Try what is pending on a copy of real data."),
    "down": Target("down:down", "Take migrations back, guarded the same way."),
    "adopt": Target("adopt:adopt", "Take over a folder or a database of another tool."),
    "repair": Target("adopt:repair", "Accept the edit of an applied migration, on purpose."),
    "renumber": Target("adopt:renumber", "Mend numbers after a merge of two branches."),
    "backup": Target("backup:backup", "Make, list, verify and prune backups."),
    "restore": Target("restore:restore", "Put a backup in the database's place."),
    "reset": Target("restore:reset", "Start afresh with every migration applied, after a backup."),
    "seed": Target("restore:seed", "Fill the database from .sql or .py files."),
}


@click.group(cls=LazyGroup, table=COMMANDS)
def db() -> None:
    """Look after the database: see, migrate, back up and restore it.

    Every command takes the database and the migrations folder from the global options or settings:
    local-mcp-gateway --database x.db --migrations m db status
    """
