"""What one server offers: its last known lists, and which of its tools are held back."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from local_mcp_gateway.gateway.catalog.approval import judge
from local_mcp_gateway.gateway.catalog.union import LISTS
from local_mcp_gateway.store.model import CatalogKind

if TYPE_CHECKING:
    from local_mcp_gateway.gateway.catalog.union import Item

Lists = dict["CatalogKind", tuple["Item", ...]]


@dataclass(frozen=True, slots=True)
class News:
    """What is different after a server's lists were fetched again."""

    changed: frozenset[CatalogKind]
    altered: tuple[str, ...]
    """Tools that changed, or are new and held, and of which nobody was told yet."""


class Shelf:
    """The lists stay whatever happens to the server. None: it was never seen."""

    def __init__(self, *, hold: bool, hold_new: bool = False) -> None:
        self.lists: Lists | None = None
        self.approved: Mapping[str, bytes] = {}
        self.held: frozenset[str] = frozenset()
        self.unsaved: set[str] = set()
        """Approvals that the database does not have yet."""
        self._hold = hold
        self._hold_new = hold_new
        self._met = False
        """Whether the server has ever said which tools it has: only then is another one new."""

    def remember(self, lists: Lists, approved: Mapping[str, bytes]) -> tuple[str, ...]:
        """Take over what the database has; return the tools that are not as they were approved."""
        self.lists, self.approved = {**dict.fromkeys(LISTS, ()), **lists}, approved
        self._met = CatalogKind.TOOLS in lists
        return self._judge()

    def take(self, lists: Lists) -> News:
        """Take over lists that the server has just given; the others stay as they were."""
        before = self.lists or {}
        self.lists = {**dict.fromkeys(LISTS, ()), **before, **lists}
        changed = frozenset(kind for kind in lists if lists[kind] != before.get(kind))
        if CatalogKind.TOOLS not in lists:
            return News(changed, ())
        known = {item.key: item.raw for item in before.get(CatalogKind.TOOLS, ())}
        told = {
            item.key for item in lists[CatalogKind.TOOLS] if item.raw == known.get(item.key)
        } & self.held
        news = News(changed, tuple(name for name in self._judge() if name not in told))
        self._met = True
        return news

    def approve(self, approved: Mapping[str, bytes]) -> bool:
        """Take over approvals that a person gave; tell whether another set of tools is held now."""
        held = self.held
        self.approved = {**self.approved, **approved}
        self._met = self._met or bool(approved)
        self._judge()
        return self.held != held

    def _judge(self) -> tuple[str, ...]:
        tools = (self.lists or {}).get(CatalogKind.TOOLS, ())
        verdict = judge(
            self.approved, tools, hold=self._hold, hold_new=self._hold_new and self._met
        )
        self.approved = verdict.approved
        self.unsaved.update(verdict.fresh)
        self.held = frozenset((verdict.altered if self._hold else ()) + verdict.added)
        return verdict.altered + verdict.added
