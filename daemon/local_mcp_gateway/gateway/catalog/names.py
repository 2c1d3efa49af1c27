"""Names stay with their servers, over restarts too. Pure.

What a profile shows follows from its order, but for names that a server keeps although another one, that
comes first in that order, has it by now. Where there is such a name, all of that kind are written down, with
the profile as it was: they hold until a person gives it another order or other rules (ADR 31).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import msgspec

from local_mcp_gateway.gateway.catalog.union import Route, keeps_names
from local_mcp_gateway.store.model import CatalogKind, ProfileDefinition

Routes = Mapping[CatalogKind, Mapping[str, Route]]


@dataclass(frozen=True, slots=True)
class Names:
    """The names of one profile where they do not follow from its order, and what it was like then."""

    profile: ProfileDefinition
    routes: Routes

    def held_by(self, profile: ProfileDefinition) -> Routes:
        """Return the routes that go on to hold for the profile as it is now."""
        return self.routes if keeps_names(self.profile, profile) else {}

    def written(self) -> str:
        """Return them as JSON text."""
        return msgspec.json.encode(self).decode()


def read(text: str) -> Names | None:
    """Return what was written, or None if that is something else (by a newer version, say)."""
    try:
        return msgspec.json.decode(text, type=Names)
    except msgspec.DecodeError:
        return None


def kept(shown: Routes, by_order: Routes) -> Routes:
    """Return the routes of the kinds for which the order alone would give other ones.

    All of them: what one name is depends on which are taken.
    """
    return {kind: routes for kind, routes in shown.items() if routes != by_order[kind]}
