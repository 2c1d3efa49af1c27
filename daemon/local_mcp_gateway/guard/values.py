"""What the steps of a guarded start hand on: the plan, what its rehearsal found, what was done."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from local_mcp_gateway.frozen import frozen
from local_mcp_gateway.migrate.groups import first_group

if TYPE_CHECKING:
    from collections.abc import Mapping

    from local_mcp_gateway.migrate.apply import Step
    from local_mcp_gateway.migrate.folder import Folder, Migration
    from local_mcp_gateway.migrate.resolve import Resolution
    from local_mcp_gateway.migrate.verify import Loss
    from local_mcp_gateway.schema import Difference
    from local_mcp_gateway.schema.hazard import Hazard


@frozen
class Plan:
    """What one look at folder and database found to do."""

    folder: Folder
    resolution: Resolution
    pending: tuple[Migration, ...]
    """What this attempt will apply, in order: all that is pending, or up to `--to`."""
    new_files: frozenset[str]
    """Dev only: the tags among `pending` that the journal does not know yet."""
    fingerprint: str
    drift: tuple[Difference, ...]

    @property
    def next_idx(self) -> int:
        """Return the journal's next free `idx`."""
        known = (*(entry.migration for entry in self.resolution.applied), *self.pending)
        return 1 + max((migration.idx for migration in known), default=-1)

    @property
    def group(self) -> tuple[Migration, ...]:
        """Return the first migrations of `pending` that are committed together."""
        return first_group(self.pending)

    def after(self, done: Done) -> Plan:
        """Return the plan that is left when this transaction is committed."""
        rest = self.pending[len(done.steps) :]
        return replace(self, pending=rest, fingerprint=done.fingerprint)


@frozen
class Found:
    """A hazard, and the migration that brings it."""

    tag: str
    hazard: Hazard


@frozen
class Rehearsal:
    """What the pending chain did to a copy."""

    steps: tuple[Step, ...]
    fingerprints: Mapping[str, str]
    """The tag that ends a transaction → the schema's fingerprint after it."""
    hazards: tuple[Found, ...]
    duration_ms: float


@frozen
class Done:
    """What one transaction did; it may still be rolled back."""

    steps: tuple[Step, ...]
    fingerprint: str
    losses: tuple[Loss, ...]
    """Tables with fewer rows than before, by statements that say so."""
