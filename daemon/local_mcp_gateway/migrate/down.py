"""Select and run the down files of migrations, in the caller's transaction.

The text is the migration's `.down.sql`, or the one that the history kept when the migration was
applied, so that it works after the file is gone. A migration that cannot change the schema
(`no-transaction`) needs none.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from local_mcp_gateway.database.run import UNWATCHED, Run
from local_mcp_gateway.errors import UsageProblem
from local_mcp_gateway.migrate.apply import run_and_compare, supervised
from local_mcp_gateway.migrate.folder import down_text
from local_mcp_gateway.migrate.statements import read_directives

if TYPE_CHECKING:
    from local_mcp_gateway.migrate.apply import Step
    from local_mcp_gateway.migrate.folder import Migration
    from local_mcp_gateway.migrate.ledger import Ledger
    from local_mcp_gateway.migrate.rebuilds import Rebuilds
    from local_mcp_gateway.migrate.resolve import AppliedMigration


@dataclass(frozen=True, slots=True)
class WayBack:
    """A migration to revert, and the SQL that does it."""

    applied: AppliedMigration
    sql: str

    @property
    def migration(self) -> Migration:
        """Return the migration that is reverted."""
        return self.applied.migration


def select_chain(
    applied: Sequence[AppliedMigration], *, steps: int | None = None, to: str | None = None
) -> tuple[AppliedMigration, ...]:
    """Return what is to be reverted, newest first; `to` is the tag that stays the last one applied.

    Raises UsageProblem for a tag that is not applied, or more steps than there are.
    """
    if to is not None:
        tags = [entry.tag for entry in applied]
        if to not in tags:
            raise UsageProblem(
                f"{to} is not applied, so nothing can go back to it.", hint="See `db status`."
            )
        return tuple(reversed(applied[tags.index(to) + 1 :]))
    count = 1 if steps is None else steps
    if count > len(applied):
        raise UsageProblem(
            f"There are {len(applied)} applied migrations, so {count} cannot be reverted.",
            hint="See `db status`.",
        )
    return tuple(reversed(applied[len(applied) - count :]))


def ways_back(
    chain: Sequence[AppliedMigration], kept: Mapping[str, str]
) -> tuple[tuple[WayBack, ...], tuple[Migration, ...]]:
    """Return the down texts, and the migrations without one. `kept` are the texts in the history, by tag.

    Raises HistoryRefused for a file that is not text.
    """
    found: list[WayBack] = []
    missing: list[Migration] = []
    for entry in chain:
        down = down_text(entry.migration)
        if down is not None:
            found.append(WayBack(entry, down))
        elif entry.tag in kept:
            found.append(WayBack(entry, kept[entry.tag]))
        elif entry.migration.directives.no_transaction:
            found.append(WayBack(entry, ""))
        else:
            missing.append(entry.migration)
    return tuple(found), tuple(missing)


def revert(
    ledger: Ledger,
    ways: Sequence[WayBack],
    *,
    backup: str | None = None,
    rebuilds: Rebuilds | None = None,
    run: Run = UNWATCHED,
) -> tuple[Step, ...]:
    """Run the down texts in order and remove the migrations from the ledger; the caller commits.

    `rebuilds` checks the rows of rebuilt tables. Raises what applying a migration raises, naming
    the `.down.sql` file.
    """
    if rebuilds is not None:
        rebuilds.accepts = {one for way in ways for one in read_directives(way.sql).accept}
    with supervised(ledger.connection, run, rebuilds=rebuilds) as session:
        steps = tuple(run_and_compare(session, way.migration, down=way.sql) for way in ways)
    for way, step in zip(ways, steps, strict=True):
        ledger.forget(way.applied, duration_ms=step.duration_ms, backup=backup)
    return steps
