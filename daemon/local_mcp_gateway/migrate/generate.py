"""Generate the next migration of a folder from the wanted schema (`db generate`).

The current schema comes from a replay of the folder, never from snapshots, since those cannot say
everything. A missing or damaged snapshot is rewritten from the replay, so that Drizzle finds a complete
chain.
"""

from __future__ import annotations

from contextlib import closing
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from uuid import uuid4

from local_mcp_gateway.errors import (
    HistoryRefused,
    MigrationsFolderProblem,
    Problem,
    ProblemCode,
    SchemaProblem,
)
from local_mcp_gateway.migrate.dependents import Broken, find_broken
from local_mcp_gateway.migrate.folder import Folder, read_folder
from local_mcp_gateway.migrate.folder_edits import (
    WrittenMigration,
    read_snapshot_file,
    snapshot_bytes,
    snapshot_file,
    with_snapshots,
    write_migration,
)
from local_mcp_gateway.migrate.journal import replace_durably
from local_mcp_gateway.migrate.replay import extend, replay
from local_mcp_gateway.schema import (
    DELETING,
    FIRST,
    HazardKind,
    NotDerivable,
    Plan,
    Schema,
    as_snapshots_see,
    compare,
    derive_down,
    inspect,
    make_plan,
    name_of,
    read_snapshot,
    schema_copy,
    write_snapshot,
)

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from local_mcp_gateway.schema import Prepare, Renames


@dataclass(frozen=True, slots=True)
class Draft:
    """A migration that is not written yet."""

    name: str
    plan: Plan
    down: Plan | None
    no_down: str | None
    """Why no down file could be derived, if so."""
    target: Schema

    @property
    def deletes(self) -> bool:
        """Return whether it deletes data and so needs consent."""
        return any(hazard.kind in DELETING for hazard in self.plan.hazards)

    @property
    def accepted(self) -> tuple[str, ...]:
        """Return the kinds that a `-- guard: accept` line of the file has to name."""
        return tuple(
            sorted({hazard.kind.value for hazard in self.plan.hazards if hazard.kind in DELETING})
        )


def open_folder(path: Path) -> Folder:
    """Read a folder to add to; a missing one is empty. Raises HistoryRefused for a broken one."""
    try:
        folder = read_folder(path)
    except MigrationsFolderProblem:
        if path.exists():
            raise
        return Folder(path, ())
    if folder.stamped:
        raise MigrationsFolderProblem(
            f"{path} is in Drizzle's 1.x format, which is read but not written.",
            hint="Write its migrations with drizzle-kit; `db migrate` applies them.",
        )
    if folder.problems:
        raise HistoryRefused(folder.problems)
    if folder.unjournaled:
        name = folder.unjournaled[0].name
        raise HistoryRefused(
            [
                Problem(
                    ProblemCode.UNJOURNALED,
                    f"{name} is in the folder, but no journal entry lists it.",
                    "Add it to meta/_journal.json or take it out, then generate again.",
                    folder.unjournaled[0].stem,
                )
            ]
        )
    return folder


def schema_of(
    folder: Folder,
    *,
    to: str | None = None,
    prepare: Prepare | None = None,
) -> Schema:
    """Return the schema that a folder makes of an empty database, up to and with `to`.

    `prepare` registers the SQL functions that the migrations call.
    """
    tags = [migration.tag for migration in folder.migrations]
    last = len(tags) if to is None else tags.index(to) + 1
    with closing(replay(folder.migrations[:last], prepare=prepare)) as connection:
        return inspect(connection)


def draft(
    base: Schema,
    target: Schema,
    renames: Renames,
    fills: Mapping[tuple[str, str], str],
    *,
    name: str | None,
    first: bool,
    prepare: Prepare | None = None,
) -> Draft:
    """Plan the next migration and its down file; raises SchemaProblem."""
    _require_sound(target, base, prepare)
    plan = make_plan(base, target, renames=renames, fills=fills, prepare=prepare)
    down, why = None, None
    try:
        down = derive_down(base, target, renames, prepare=prepare)
    except NotDerivable as reason:
        why = str(reason)
    named = name or ("initial" if first else name_of(base, target, renames))
    return Draft(named, plan, down, why, target)


def _require_sound(schema: Schema, before: Schema, prepare: Prepare | None) -> None:
    """Raise SchemaProblem for the first view, trigger or foreign key that could never run.

    A foreign key that is as broken in the schema `before` is not reported.
    """
    for broken in _broken(schema, prepare):
        if broken.kind != "foreign key" or broken not in _broken(before, prepare):
            raise SchemaProblem(
                f"{broken.sentence}.",
                hint="SQLite says so only when it is used; correct it, nothing was written.",
            )


def _broken(schema: Schema, prepare: Prepare | None) -> tuple[Broken, ...]:
    links = any(table.foreign_keys for table in schema.tables.values())
    if not schema.views and not schema.triggers and not links:
        return ()
    with closing(
        schema_copy(schema, may_lack=schema.virtual_tables, prepare=prepare)
    ) as connection:
        return find_broken(connection)


def write(folder: Folder, made: Draft) -> WrittenMigration:
    """Write a draft as the folder's next migration; the user has agreed to its deletions."""
    header = "".join(f"-- guard: accept {kind}\n" for kind in made.accepted)
    down = None
    if made.down is not None:
        lost = any(hazard.kind in DELETING for hazard in made.plan.hazards)
        note = (
            "-- What the migration deleted does not come back; `db restore` has the backup.\n"
            * lost
        )
        if any(hazard.kind is HazardKind.CHANGES_VALUES for hazard in made.plan.hazards):
            note += (
                "-- Where NULL became a value, it stays that value; `db restore` has the backup.\n"
            )
        accept = "".join(
            f"-- guard: accept {kind}\n"
            for kind in sorted({h.kind.value for h in made.down.hazards if h.kind in DELETING})
        )
        down = accept + note + made.down.sql
    snapshot = write_snapshot(made.target, last_id(folder))
    return write_migration(folder, made.name, header + made.plan.sql, down=down, snapshot=snapshot)


def last_id(folder: Folder) -> str:
    """Return the id of the newest snapshot, which the next one names as its predecessor."""
    if not folder.migrations:
        return FIRST
    found = read_snapshot_file(folder.path, folder.migrations[-1].tag) or {}
    return str(found.get("id", FIRST))


def rewrite_snapshots(
    folder: Folder, *, every: bool = False, prepare: Prepare | None = None
) -> tuple[str, ...]:
    """Write each snapshot that is missing or damaged from the replay; return their tags.

    `every`: also each that is not what the migrations make, or that does not name the one before it. A
    snapshot keeps its id, or takes the one that its successor names, so the chain is complete again.
    """
    kept = {m.tag: _usable(folder, m.tag) for m in with_snapshots(folder)}
    if all(kept.values()) and not every:
        return ()
    rewritten = []
    previous = FIRST
    tags = list(kept)
    with closing(replay((), prepare=prepare)) as connection:
        for migration in folder.migrations:
            extend(connection, migration)
            if migration.tag not in kept:
                continue
            at, snapshot = tags.index(migration.tag), kept[migration.tag]
            schema = inspect(connection) if snapshot is None or every else None
            if schema is not None and not _is_right(snapshot, schema, previous, prepare):
                after = kept[tags[at + 1]] if at + 1 < len(tags) else None
                known = snapshot["id"] if snapshot else after and after["prevId"]
                snapshot = write_snapshot(schema, previous)
                snapshot["id"] = str(known or uuid4())
                replace_durably(snapshot_file(folder.path, migration.tag), snapshot_bytes(snapshot))
                rewritten.append(migration.tag)
            assert snapshot is not None
            previous = str(snapshot["id"])
    return tuple(rewritten)


def _is_right(
    snapshot: dict[str, Any] | None, schema: Schema, previous: str, prepare: Prepare | None
) -> bool:
    """Tell whether a snapshot says what the migrations make, and names the one before it."""
    if snapshot is None or snapshot["prevId"] != previous:
        return False
    try:
        found = read_snapshot(snapshot, prepare=prepare)
        return not compare(as_snapshots_see(schema, prepare=prepare), found)
    except SchemaProblem:
        return False


def _usable(folder: Folder, tag: str) -> dict[str, Any] | None:
    found = read_snapshot_file(folder.path, tag)
    return found if found and {"id", "prevId", "tables"} <= found.keys() else None
