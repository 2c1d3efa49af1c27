"""One server's last known lists, and the approval that holds back changed tools."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final

import msgspec

from local_mcp_gateway.gateway.catalog.items import LISTS, Item, Lists
from local_mcp_gateway.store import CatalogKind

HELD: Final = -32010
"""The error code of a call to a tool that is held."""
UNREAD: Final = ("_meta", "icons")
"""Members that no model reads; servers put times and counters there."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """What is approved from now on (JSON by name), and what differs from what was approved."""

    approved: Mapping[str, bytes]
    fresh: tuple[str, ...]
    """Names whose approval is new and must be stored."""
    altered: tuple[str, ...]
    added: tuple[str, ...] = ()
    """Names that are new on a known server, and not approved."""


def judge(
    approved: Mapping[str, bytes], offered: Iterable[Item], *, hold: bool, hold_new: bool = False
) -> Verdict:
    """Compare the tools that a server offers with the approved ones.

    Without `hold` a change is only reported once: it is approved with that. `hold_new` is for a server
    that was connected before.
    """
    known = dict(approved)
    fresh: list[str] = []
    altered: list[str] = []
    added: list[str] = []
    for item in offered:
        before = known.get(item.key)
        if before is not None and differs(before, item.raw):
            altered.append(item.key)
            if hold:
                continue
        elif before is not None:
            continue
        elif hold_new:
            added.append(item.key)
            continue
        known[item.key] = item.raw
        fresh.append(item.key)
    return Verdict(known, tuple(fresh), tuple(altered), tuple(added))


def differs(before: bytes, after: bytes) -> bool:
    """Return whether a model would read a difference; order and whitespace of the JSON do not matter."""
    return before != after and _meaning(before) != _meaning(after)


def held_message(server: str, tool: str) -> str:
    """Return the error message for a client that calls a held tool."""
    return (
        f"The tool {tool!r} of server {server!r} is held: it is new, or not described as it was when"
        f" it was approved. A person can compare and approve it with `local-mcp-gateway server approve {server}`."
    )


def _meaning(raw: bytes) -> bytes:
    try:
        members = msgspec.json.decode(raw)
    except (msgspec.DecodeError, RecursionError):  # as stored by an older version
        return raw
    for name in UNREAD:
        members.pop(name, None)
    return msgspec.json.encode(members, order="sorted")


@dataclass(frozen=True, slots=True)
class CatalogDiff:
    """The differences after a server's lists were fetched again."""

    changed: frozenset[CatalogKind]
    visible: frozenset[CatalogKind]
    """The changed lists that clients have to fetch again: not a first one that is empty."""
    altered: tuple[str, ...]
    """Tools that changed, or are new and held, and were not reported yet."""


class ServerCatalog:
    """Holds one server's lists, which outlive its connection. None: never fetched."""

    def __init__(self, *, hold: bool, hold_new: bool = False) -> None:
        self.lists: Lists | None = None
        self.approved: Mapping[str, bytes] = {}
        self.held: frozenset[str] = frozenset()
        self.unsaved: set[str] = set()
        """Approvals that are not in the database yet."""
        self._hold = hold
        self._hold_new = hold_new
        self._was_listed = False
        """Whether the server has ever listed its tools: only then does another one count as new."""

    def judge_by(self, *, hold: bool, hold_new: bool) -> None:
        """Hold altered and new tools from now on, or show them; `approve` says what has changed."""
        self._hold, self._hold_new = hold, hold_new

    def restore_from_cache(self, lists: Lists, approved: Mapping[str, bytes]) -> tuple[str, ...]:
        """Load the lists from the database; return the tools that differ from their approval."""
        self.lists, self.approved = {**dict.fromkeys(LISTS, ()), **lists}, approved
        self._was_listed = CatalogKind.TOOLS in lists
        return self._judge()

    def copy(self, other: ServerCatalog) -> None:
        """Take over everything that another catalog of the same server holds."""
        self.lists, self.approved, self.held = other.lists, other.approved, other.held
        self.unsaved, self._was_listed = set(other.unsaved), other._was_listed

    def share(self, other: ServerCatalog) -> None:
        """Hold the lists only once if another catalog shows the same."""
        if (self.lists, self.held) == (other.lists, other.held):
            self.lists = other.lists

    def take(self, lists: Lists) -> CatalogDiff:
        """Take over freshly fetched lists; the others stay as they were."""
        before = self.lists or {}
        self.lists = {**dict.fromkeys(LISTS, ()), **before, **lists}
        changed = frozenset(kind for kind in lists if lists[kind] != before.get(kind))
        visible = frozenset(kind for kind in changed if lists[kind] or before.get(kind))
        if CatalogKind.TOOLS not in lists:
            return CatalogDiff(changed, visible, ())
        known = {item.key: item.raw for item in before.get(CatalogKind.TOOLS, ())}
        reported = {
            item.key for item in lists[CatalogKind.TOOLS] if item.raw == known.get(item.key)
        } & self.held
        altered = tuple(name for name in self._judge() if name not in reported)
        self._was_listed = True
        return CatalogDiff(changed, visible, altered)

    def approve(self, approved: Mapping[str, bytes]) -> bool:
        """Take over approvals by the user; return whether the set of held tools has changed."""
        held = self.held
        self.approved = {**self.approved, **approved}
        self._was_listed = self._was_listed or bool(approved)
        self._judge()
        return self.held != held

    def holds(self, tool: str) -> bool:
        """Return whether a tool is held. With `hold_new` so is one that the server does not list."""
        new = self._hold_new and self._was_listed and tool not in self.approved
        return new or tool in self.held

    def _judge(self) -> tuple[str, ...]:
        tools = (self.lists or {}).get(CatalogKind.TOOLS, ())
        verdict = judge(
            self.approved, tools, hold=self._hold, hold_new=self._hold_new and self._was_listed
        )
        self.approved = verdict.approved
        self.unsaved.update(verdict.fresh)
        self.held = frozenset((verdict.altered if self._hold else ()) + verdict.added)
        return verdict.altered + verdict.added
