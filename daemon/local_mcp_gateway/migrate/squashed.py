"""Read a squashed folder for a database that has applied some of the squashed migrations.

`db squash` replaces many migrations by one, and keeps them in `meta/_squashed`: a folder of its
own, in the same format, which may itself be squashed. A new database applies the one. A database whose
ledger has any of the others goes on with them, and never runs the one. Nothing is
written to its ledger for that, since Drizzle looks only at the newest time there, which both have.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from local_mcp_gateway.migrate.folder import Folder, Migration
    from local_mcp_gateway.migrate.ledger import Applied


def as_seen_by(folder: Folder, rows: Sequence[Applied]) -> Folder:
    """Return the folder with the squashed migrations, if the ledger has any of them; else the same."""
    squashed = folder.squashed
    if squashed is None:
        return folder
    squash = squash_of(folder, squashed)
    if any(row.hash in squash.hashes for row in rows):
        return folder
    known = list(squashed.every_migration())
    entries = [(migration.when, migration.tag) for migration in known]
    entries += [(entry.when, entry.tag) for entry in squashed.absent]
    times = {when for when, tag in entries if tag != squash.tag}
    applied = {row.hash for row in rows}
    if not (
        any(row.created_at in times for row in rows)
        or any(migration.hash in applied for migration in known)
        or any(applied & migration.hashes for migration in known)  # slow, and rarely asked
    ):
        return folder
    return _in_its_place(folder, squashed, as_seen_by(squashed, rows))


def unsquashed(folder: Folder) -> Folder:
    """Return the folder with every squashed migration: for a database whose ledger says nothing yet."""
    squashed = folder.squashed
    return folder if squashed is None else _in_its_place(folder, squashed, unsquashed(squashed))


def squash_of(folder: Folder, squashed: Folder) -> Migration:
    """Return the migration that replaces the squashed ones: it has the tag of the last."""
    tag = squashed.migrations[-1].tag
    return next(migration for migration in folder.migrations if migration.tag == tag)


def _in_its_place(folder: Folder, squashed: Folder, before: Folder) -> Folder:
    at = folder.migrations.index(squash_of(folder, squashed))
    seen = (*folder.migrations[:at], *before.migrations, *folder.migrations[at + 1 :])
    if folder.is_v1:
        seen = tuple(sorted(seen, key=lambda migration: migration.tag))
    return folder._replace(
        migrations=seen,
        problems=(*before.problems, *folder.problems),
        absent=(*before.absent, *folder.absent),
    )
