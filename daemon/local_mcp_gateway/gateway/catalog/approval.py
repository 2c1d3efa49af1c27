"""Which tools say something else than what was approved. Pure.

A tool is approved when it is seen for the first time. A server that describes it otherwise later may
be attacking the model that reads the description ("tool poisoning"), so the change is told, and under
`hold` the tool is kept from clients until a person has approved it, see ADR 21. A tool that went away
is still known: it cannot come back as something else. Under `hold_new` only what a server had when it
was met is approved by itself, for a model reads the text of a new tool as well.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import msgspec

if TYPE_CHECKING:
    from local_mcp_gateway.gateway.catalog.union import Item

HELD: Final = -32010
"""The error code of a call to a tool that is held."""
UNREAD: Final = ("_meta", "icons")
"""Members that no model reads; servers put times and counters there."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """What counts as approved from now on (JSON by name), and what differs from what was approved."""

    approved: Mapping[str, bytes]
    fresh: tuple[str, ...]
    """Names whose approval is new, and has to be remembered."""
    altered: tuple[str, ...]
    added: tuple[str, ...] = ()
    """Names that are new at a known server, and not approved."""


def judge(
    approved: Mapping[str, bytes], offered: Iterable[Item], *, hold: bool, hold_new: bool = False
) -> Verdict:
    """Compare the tools that a server offers with the approved ones.

    Without `hold` a person is only told, once: what is offered is approved with that. `hold_new` is for
    a server that was met before.
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
    """Whether a model would read something else; order and white space of the JSON mean nothing."""
    return before != after and _meaning(before) != _meaning(after)


def refusal(server: str, tool: str) -> str:
    """Return what a client is told that calls a held tool."""
    return (
        f"The tool {tool!r} of server {server!r} is held: it is new, or not described as it was when"
        f" it was approved. A person can compare and approve it with `local-mcp-gateway server approve {server}`."
    )


def _meaning(raw: bytes) -> bytes:
    try:
        members = msgspec.json.decode(raw)
    except (msgspec.DecodeError, RecursionError):  # as an older version has remembered it
        return raw
    for name in UNREAD:
        members.pop(name, None)
    return msgspec.json.encode(members, order="sorted")
