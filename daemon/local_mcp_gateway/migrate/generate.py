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
from local_mcp_gateway.migrate.branches import Node, find_collisions, ids_before, leaves, read_graph
from local_mcp_gateway.migrate.broken import Broken, find_broken
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
from local_mcp_gateway.migrate.statements import accepting_line
from local_mcp_gateway.schema import (
    DELETING,
    FIRST,
    HazardKind,
    NotDerivable,
    Plan,
    Renames,
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
    write_snapshot_7,
)

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from pathlib import Path

    from local_mcp_gateway.schema import Hazard, Prepare


@dataclass(frozen=True, slots=True)
class Draft:
    """A migration that is not written yet."""

    name: str
    plan: Plan
    down: Plan | None
    no_down: str | None
    """Why no down file could be derived, if so."""
    target: Schema
    refused: tuple[Hazard, ...] = ()
    """What the guard refuses unless the file accepts it."""

    @property
    def deletes(self) -> bool:
        """Return whether it deletes data and so needs consent."""
        return bool(_deleting(self.plan))


def open_folder(path: Path) -> Folder:
    """Read a folder to add to; a missing one is empty. Raises HistoryRefused for a broken one."""
    try:
        folder = read_folder(path)
    except MigrationsFolderProblem:
        if path.exists():
            raise
        return Folder(path, ())
    if folder.problems:
        raise HistoryRefused(folder.problems)
    if folder.unjournaled:
        name = folder.unjournaled[0].name
        raise HistoryRefused(
            [
                Problem(
                    ProblemCode.UNJOURNALED,
                    f"{name} is in the folder, but no journal entry lists it.",
                    "Add it to meta/_journal.json or take it out, then run the command again.",
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

    `prepare` registers the SQL functions that the migrations call. Raises HistoryRefused for branches of
    which the schema depends on their order.
    """
    if folder.is_v1 and to is None and (problems := find_collisions(folder, prepare=prepare)):
        raise HistoryRefused(problems)
    tags = [migration.tag for migration in folder.migrations]
    last = len(tags) if to is None else tags.index(to) + 1
    with replay(folder.migrations[:last], prepare=prepare) as connection:
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
    """Raise SchemaProblem for the first view, trigger, virtual table or foreign key that could never run.

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
    if not (schema.views or schema.triggers or schema.virtual_tables or links):
        return ()
    with closing(
        schema_copy(schema, may_lack=schema.virtual_tables, prepare=prepare)
    ) as connection:
        return find_broken(connection)


def write(folder: Folder, made: Draft) -> WrittenMigration:
    """Write a draft as the folder's next migration; the user has agreed to its deletions."""
    down = None
    if made.down is not None:
        note = (
            "-- What the migration deleted does not come back; `db restore` has the backup.\n"
            * made.deletes
        )
        if any(hazard.kind is HazardKind.CHANGES_VALUES for hazard in made.plan.hazards):
            note += (
                "-- Where NULL became a value, it stays that value; `db restore` has the backup.\n"
            )
        down = _accepting(_deleting(made.down)) + note + made.down.sql
    snapshot = next_snapshot(folder, made.target)
    up = _accepting((*_deleting(made.plan), *made.refused)) + made.plan.sql
    return write_migration(folder, made.name, up, down=down, snapshot=snapshot)


def _deleting(plan: Plan) -> tuple[Hazard, ...]:
    return tuple(hazard for hazard in plan.hazards if hazard.kind in DELETING)


def _accepting(hazards: Iterable[Hazard]) -> str:
    """Return the lines by which a file accepts these hazards."""
    lines = {accepting_line(hazard.kind, hazard.object) for hazard in hazards}
    return "".join(f"{line}\n" for line in sorted(lines))


def down_to_nothing(schema: Schema, *, prepare: Prepare | None = None) -> str | None:
    """Return the down file of a first migration that makes this schema; None: it cannot be derived."""
    try:
        down = derive_down(Schema(), schema, Renames(), prepare=prepare)
    except (NotDerivable, SchemaProblem):
        return None
    return _accepting(_deleting(down)) + down.sql


def next_snapshot(folder: Folder, schema: Schema) -> dict[str, Any] | None:
    """Return the snapshot of the next migration, which follows the newest one; None: none is kept.

    In Drizzle 1.x it follows every branch. A folder of Prisma has no snapshots.
    """
    if not folder.is_v1:
        newest = folder.migrations[-1].tag if folder.migrations else None
        found = read_snapshot_file(folder.path, newest) if newest is not None else None
        return write_snapshot(schema, str((found or {}).get("id", FIRST)), named_in=found)
    if not keeps_snapshots(folder):
        return None
    ends = [node.snapshot or {} for node in leaves(read_graph(folder))]
    return write_snapshot_7(schema, [str(end.get("id", FIRST)) for end in ends] or [FIRST])


def keeps_snapshots(folder: Folder) -> bool:
    """Return whether the folder has snapshots: any of Drizzle's has, one of Prisma has not."""
    if not folder.is_v1:
        return True
    return any(snapshot_file(folder.path, m.tag).exists() for m in folder.migrations)


def rewrite_snapshots(
    folder: Folder, *, every: bool = False, prepare: Prepare | None = None
) -> tuple[str, ...]:
    """Write each snapshot that is missing or damaged from the replay; return their tags.

    `every`: also each that is not what the migrations make, or that does not name the one before it. A
    snapshot keeps its id, or takes the one that its successor names, so the chain is complete again.
    """
    kept = {m.tag: _usable(folder, m.tag) for m in with_snapshots(folder)}
    if (all(kept.values()) or not keeps_snapshots(folder)) and not every:
        return ()
    if folder.is_v1:
        return _rewrite_v1(folder, kept, every=every, prepare=prepare)
    rewritten = []
    previous, before = FIRST, None
    tags = list(kept)
    with replay((), prepare=prepare) as connection:
        for migration in folder.migrations:
            extend(connection, migration)
            if migration.tag not in kept:
                continue
            at, snapshot = tags.index(migration.tag), kept[migration.tag]
            schema = inspect(connection) if snapshot is None or every else None
            if schema is not None and not _is_right(snapshot, schema, previous, prepare):
                after = kept[tags[at + 1]] if at + 1 < len(tags) else None
                known = snapshot["id"] if snapshot else after and after["prevId"]
                snapshot = write_snapshot(schema, previous, named_in=snapshot or before)
                snapshot["id"] = str(known or uuid4())
                replace_durably(snapshot_file(folder.path, migration.tag), snapshot_bytes(snapshot))
                rewritten.append(migration.tag)
            assert snapshot is not None
            previous, before = str(snapshot["id"]), snapshot
    return tuple(rewritten)


def _rewrite_v1(
    folder: Folder,
    kept: dict[str, dict[str, Any] | None],
    *,
    every: bool,
    prepare: Prepare | None,
) -> tuple[str, ...]:
    """Do the same in a folder of Drizzle 1.x: branches stay, since each snapshot has those before it."""
    rewritten = []
    previous = FIRST
    known = {FIRST}
    for tag, snapshot in kept.items():
        if snapshot is None or every:
            named = [one for one in ids_before(snapshot or {}) if one in known] or [previous]
            node = read_graph(folder)[tag]
            schema = schema_at(folder, node, prepare=prepare)
            if (
                snapshot is None
                or ids_before(snapshot) != named
                or not _says(snapshot, schema, prepare)
            ):
                id_ = str((snapshot or {}).get("id") or _id_that_others_name(kept, known))
                snapshot = write_snapshot_7(schema, named) | {"id": id_}  # noqa: PLW2901
                replace_durably(snapshot_file(folder.path, tag), snapshot_bytes(snapshot))
                kept[tag] = snapshot
                rewritten.append(tag)
        previous = str(snapshot["id"])
        known.add(previous)
    return tuple(rewritten)


def _id_that_others_name(kept: dict[str, dict[str, Any] | None], known: set[str]) -> str:
    """Return the id that later snapshots give the missing one, if they name one that no other has."""
    ids = {str(snapshot["id"]) for snapshot in kept.values() if snapshot}
    named = (one for snapshot in kept.values() if snapshot for one in ids_before(snapshot))
    return next((one for one in named if one not in ids | known), str(uuid4()))


def schema_at(folder: Folder, node: Node, *, prepare: Prepare | None = None) -> Schema:
    """Return the schema that a migration and those that it builds on make, without other branches."""
    tags = {node.migration.tag, *node.before}
    chain = [migration for migration in folder.migrations if migration.tag in tags]
    with replay(chain, prepare=prepare) as connection:
        return inspect(connection)


def _is_right(
    snapshot: dict[str, Any] | None, schema: Schema, previous: str, prepare: Prepare | None
) -> bool:
    """Tell whether a snapshot says what the migrations make, and names the one before it."""
    if snapshot is None or snapshot["prevId"] != previous:
        return False
    return _says(snapshot, schema, prepare)


def squashed_snapshot(
    folder: Folder, tag: str, schema: Schema, *, prepare: Prepare | None = None
) -> dict[str, Any] | None:
    """Return the snapshot of a migration that becomes the first one; None: it has none.

    It keeps its id, or takes the one that its successor names.
    """
    tags = [migration.tag for migration in with_snapshots(folder)]
    if tag not in tags or not keeps_snapshots(folder):
        return None
    found, before = _usable(folder, tag), "prevIds" if folder.is_v1 else "prevId"
    after = tags[tags.index(tag) + 1 :]
    follower = read_snapshot_file(folder.path, after[0]) if after and found is None else None
    named = (follower or {}).get(before)
    id_ = found["id"] if found else (named[0] if isinstance(named, list) and named else named)
    if found is None or not _says(found, schema, prepare):
        found = (
            write_snapshot_7(schema, []) if folder.is_v1 else write_snapshot(schema, named_in=found)
        )
    return {**found, "id": str(id_ or uuid4()), before: [FIRST] if folder.is_v1 else FIRST}


def _says(snapshot: dict[str, Any], schema: Schema, prepare: Prepare | None) -> bool:
    version = str(snapshot.get("version"))
    try:
        found = read_snapshot(snapshot, prepare=prepare)
        return not compare(as_snapshots_see(schema, version=version, prepare=prepare), found)
    except SchemaProblem:
        return False


def _usable(folder: Folder, tag: str) -> dict[str, Any] | None:
    needed = {"id", "prevIds", "ddl"} if folder.is_v1 else {"id", "prevId", "tables"}
    found = read_snapshot_file(folder.path, tag)
    return found if found and needed <= found.keys() else None
