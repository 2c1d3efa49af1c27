"""What clients say of themselves: capabilities, name and log level, and which requests of a server fit. Pure.

A server that several clients share is told the capabilities that all of them have. Roots, sampling and
elicitation are always among them: that is how the gateway finds out whether the server asks at all. A
request that a client cannot handle is answered in its place.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import reduce
from typing import Any, Final

from local_mcp_gateway.gateway.protocol import (
    METHOD_NOT_FOUND,
    Answer,
    Names,
    ambiguous_params,
    decode_any,
    failure,
    member,
)

MEDIATED: Final[dict[str, Any]] = {
    "roots": {"listChanged": True},
    "sampling": {"tools": {}, "context": {}},
    "elicitation": {"form": {}, "url": {}},
}
"""What every server is told that clients share: each such request is checked when it comes."""
DECLARED: Final = frozenset(MEDIATED)
"""The capabilities by which a client declares which requests it handles."""
LEVELS: Final = (
    "debug",
    "info",
    "notice",
    "warning",
    "error",
    "critical",
    "alert",
    "emergency",
)
LONGEST_NAME: Final = 100
"""How much of a client's name is kept."""
_DECISIVE: Final = Names("mode", "tools", "toolChoice")
"""The members of a request that decide which capability it needs."""


def shared(clients: Iterable[bytes]) -> dict[str, Any]:
    """Return what to tell a server that these clients share: what all of them have, and `MEDIATED`."""
    known = [_plain(decode_any(capabilities)) for capabilities in clients]
    common = reduce(_common, known) if known else {}
    return {**common, **MEDIATED}


def differs(
    declared: bytes, capabilities: bytes, extensions: tuple[str, ...] | None = None
) -> bool:
    """Return whether a client has other capabilities than its server was told; or only these extensions."""
    if declared == capabilities:
        return False
    if extensions is None:
        return _known(declared) != _known(capabilities)
    either = [_extensions(declared), _extensions(capabilities)]
    return any(either[0].get(name) != either[1].get(name) for name in extensions)


def beyond(declared: bytes, capabilities: bytes) -> bool:
    """Return whether a client answers requests that its server was not told it may send."""
    known, own = _known(declared), _known(capabilities)
    return any(
        name not in known or not own[name].keys() <= known[name].keys()
        for name in DECLARED & own.keys()
    )


def _known(capabilities: bytes) -> dict[str, Any]:
    """Return capabilities that can be compared; without those that are not objects."""
    members = _plain(decode_any(capabilities))
    return {name: value for name, value in members.items() if isinstance(value, dict)}


def _extensions(capabilities: bytes) -> dict[str, Any]:
    members = decode_any(member(capabilities, "extensions") or b"{}")
    return members if isinstance(members, dict) else {}


def refusal(capabilities: bytes, method: str, params: bytes) -> Answer | None:
    """Return the response in place of a client that cannot handle this request of a server, or None."""
    if method.partition("/")[0] not in DECLARED:
        return None
    if (refused := ambiguous_params(params, _DECISIVE)) is not None:
        return refused
    lacks = lacking(capabilities, method, params)
    if lacks is None:
        return None
    return failure(METHOD_NOT_FOUND, f"The client does not support {lacks}")


def lacking(capabilities: bytes, method: str, params: bytes) -> str | None:
    """Return the capability that a client needs for this request of a server and lacks, or None.

    An unknown method is for the client to decide.
    """
    capability = method.partition("/")[0]
    if capability not in DECLARED:
        return None
    if not (declared := member(capabilities, capability)):
        return capability
    if capability == "elicitation":
        mode = _text(member(params, "mode")) or "form"
        modes = _plain({capability: decode_any(declared)})[capability]
        return None if mode in modes else f"{capability}.{mode}"
    with_tools = member(params, "tools") or member(params, "toolChoice")
    if method == "sampling/createMessage" and with_tools and not member(declared, "tools"):
        return "sampling.tools"
    return None


def _plain(capabilities: Any) -> dict[str, Any]:
    """Return capabilities with the form of elicitation that an empty object stands for."""
    members = dict(capabilities) if isinstance(capabilities, dict) else {}
    if isinstance(members.get("elicitation"), dict):
        members["elicitation"] = members["elicitation"] or {"form": {}}
    return {name: value for name, value in members.items() if value is not None}


def _common(first: Any, second: Any) -> Any:
    """Return what two clients have in common; None where they have nothing."""
    if isinstance(first, dict) and isinstance(second, dict):
        both = {key: _common(first[key], second[key]) for key in first if key in second}
        return {key: value for key, value in both.items() if value is not None}
    if isinstance(first, list) and isinstance(second, list):
        return [item for item in first if item in second]
    if isinstance(first, bool) and isinstance(second, bool):
        return first and second
    return first if first == second else None


def _text(raw: bytes) -> str | None:
    value = decode_any(raw) if raw else None
    return value if isinstance(value, str) else None


def name_of_client(info: object) -> str:
    """Return name and version of a `clientInfo`; shortened, because anybody may send anything."""
    about = info if isinstance(info, dict) else {}
    given = (about.get("name"), about.get("version"))
    return " ".join(text for text in given if isinstance(text, str))[:LONGEST_NAME]


def severity_of(method: str, params: bytes) -> int:
    """Return the severity of a notification: a log message's level in `LEVELS`, else above all levels."""
    if method != "notifications/message":
        return len(LEVELS)
    level = member(params, "level").decode("utf-8", "replace").strip('"')
    return LEVELS.index(level) if level in LEVELS else len(LEVELS)
