"""Names stay with their servers, over restarts too. Pure.

What a profile shows follows from its order, but for names that a server keeps although another one, that
comes first in that order, has it by now. Only these are written down, with the profile as it was: they
hold until a person gives it another order or other rules (ADR 31).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

import msgspec

from local_mcp_gateway.gateway.catalog import Route, keeps_names
from local_mcp_gateway.store.model import CatalogKind, ProfileDefinition

Routes = Mapping[CatalogKind, Mapping[str, Route]]
KEY: Final = "names."
"""Begins the keys of these settings of the gateway; the profile's id follows."""


@dataclass(frozen=True, slots=True)
class Names:
    """The names of one profile that do not follow from its order, and what it was like then."""

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
    """Return the routes that are shown although the order alone would give other ones."""
    differing = {
        kind: {n: route for n, route in routes.items() if by_order[kind].get(n) != route}
        for kind, routes in shown.items()
    }
    return {kind: routes for kind, routes in differing.items() if routes}
