"""Find whether the branches of a Drizzle 1.x folder can be applied in either order.

In 1.x each snapshot names those before it (`prevIds`), so two branches of a repository are two branches
of the folder, until a migration follows both. That is fine as long as they commute. Drizzle compares the
kinds of their statements; here both orders are replayed, and have to give the same schema. A statement
that writes rows commutes only with those that do not name its tables, since a replay has no rows.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from local_mcp_gateway.errors import GatewayError, Problem, ProblemCode
from local_mcp_gateway.migrate.apply import run_migration, supervised
from local_mcp_gateway.migrate.folder_edits import read_snapshot_file
from local_mcp_gateway.migrate.replay import replay
from local_mcp_gateway.schema import FIRST, compare, inspect, words
from local_mcp_gateway.sql import fold_all, tokens

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from local_mcp_gateway.migrate.apply import Step
    from local_mcp_gateway.migrate.folder import Folder, Migration
    from local_mcp_gateway.schema import Prepare, Schema

_WRITES_ROWS = frozenset({"INSERT", "UPDATE", "DELETE", "REPLACE", "WITH"})


@dataclass(frozen=True, slots=True)
class Node:
    """A migration, its snapshot if it has one, and the tags that it builds on."""

    migration: Migration
    snapshot: dict[str, Any] | None
    before: frozenset[str]
    """All that came before it, not only its parents."""


def read_graph(folder: Folder) -> dict[str, Node]:
    """Return the migrations by tag, in order; one without a snapshot follows the one before it."""
    found: dict[str, Node] = {}
    by_id: dict[str, str] = {}
    previous: list[str] = []
    for migration in folder.migrations:
        home = migration.path.parents[1]  # a squashed one has its own
        snapshot = read_snapshot_file(home, migration.tag)
        named = [] if snapshot is None else ids_before(snapshot)
        parents = [by_id[one] for one in named if one in by_id] or previous
        if named == [FIRST]:
            parents = []
        before = frozenset(parents).union(*(found[tag].before for tag in parents))
        found[migration.tag] = Node(migration, snapshot, before)
        if snapshot is not None:
            by_id[str(snapshot.get("id"))] = migration.tag
        previous = [migration.tag]
    return found


def ids_before(snapshot: dict[str, Any]) -> list[str]:
    """Return the ids of the snapshots that one follows."""
    named = snapshot.get("prevIds")
    return [str(one) for one in named] if isinstance(named, list) else []


def leaves(graph: dict[str, Node]) -> list[Node]:
    """Return the migrations that no other follows: one, unless branches were merged."""
    followed = frozenset[str]().union(*(node.before for node in graph.values()))
    return [node for tag, node in graph.items() if tag not in followed]


def find_collisions(folder: Folder, *, prepare: Prepare | None = None) -> tuple[Problem, ...]:
    """Return each pair of branches that cannot be applied in either order."""
    graph = read_graph(folder)
    ends = leaves(graph)
    found = []
    for at, one in enumerate(ends):
        for other in ends[at + 1 :]:
            mine = {one.migration.tag, *one.before}
            its = {other.migration.tag, *other.before}
            why = why_order_matters(
                *(
                    [m for m in folder.migrations if m.tag in tags]
                    for tags in (mine & its, mine - its, its - mine)
                ),
                prepare=prepare,
            )
            if why is not None:
                found.append(_collision(one.migration.tag, other.migration.tag, why))
    return tuple(found)


def _collision(one: str, other: str, why: str) -> Problem:
    return Problem(
        ProblemCode.COLLISION,
        f"{one} and {other} are from two branches and do not fit together: {why}.",
        f"If no database has applied {other}, delete its folder and generate it again: then it follows {one}.",
        other,
    )


def is_late_branch(
    folder: Folder,
    applied: Sequence[Migration],
    late: Sequence[Migration],
    *,
    prepare: Prepare | None = None,
) -> bool:
    """Return whether what is late is a branch of its own that fits after all that is applied."""
    places = {migration.tag: at for at, migration in enumerate(folder.migrations)}
    first = min(places[migration.tag] for migration in late)
    overtaken = [migration for migration in applied if places[migration.tag] > first]
    graph = read_graph(folder)
    tags = {migration.tag for migration in late}
    if any(graph[migration.tag].before & tags for migration in overtaken):
        return False
    base = [migration for migration in applied if places[migration.tag] < first]
    return why_order_matters(base, late, overtaken, prepare=prepare) is None


def why_order_matters(
    base: Sequence[Migration],
    one: Sequence[Migration],
    other: Sequence[Migration],
    *,
    prepare: Prepare | None = None,
) -> str | None:
    """Return why two chains after the same base cannot be applied in either order; None if they can."""
    try:
        first, steps = _applied(base, (*one, *other), prepare)
        second, _ = _applied(base, (*other, *one), prepare)
    except GatewayError as error:
        return error.message.rstrip(".")
    if differences := compare(first, second):
        return f"what they make depends on their order ({differences[0]})"
    mine, its = steps[: len(one)], steps[len(one) :]
    shared = (_written(mine) & _named(its)) | (_written(its) & _named(mine))
    if shared:
        return f"one changes rows of {min(shared)}, which the other uses too"
    return None


def _applied(
    base: Sequence[Migration], chain: Sequence[Migration], prepare: Prepare | None
) -> tuple[Schema, list[Step]]:
    with replay(base, prepare=prepare, schema_only=True) as connection:
        connection.execute("BEGIN")
        steps = []
        for migration in chain:
            with supervised(connection) as session:  # each records what it alone writes
                steps.append(run_migration(session, migration))
        return inspect(connection), steps


def _written(steps: Iterable[Step]) -> set[str]:
    """Return the tables in which a chain changes rows, other than by copying them in a rebuild."""
    return {
        table
        for step in steps
        if any(map(_writes_rows, step.texts))
        for table in step.written or ()
    }


def _writes_rows(sql: str) -> bool:
    found = [token for _, token in zip(range(5), tokens(sql), strict=False)]
    if not found or found[0].upper not in _WRITES_ROWS:
        return False
    return not any(token.identifier.startswith("__new_") for token in found)


def _named(steps: Iterable[Step]) -> set[str]:
    return set(fold_all(name for step in steps for text in step.texts for name in words(text)))
