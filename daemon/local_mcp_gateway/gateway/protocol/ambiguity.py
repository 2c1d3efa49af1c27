"""Refuse client messages with duplicate or case-variant members. Pure.

JSON leaves open which of two members with the same name counts (RFC 8259, section 4): the gateway takes
the last, some parsers the first, and Go's parser does not distinguish `Name` from `name`. The gateway
checks some members of a message and forwards its bytes, so an ambiguous message could make the server
run something other than what was checked.

A message with no bytes to spare beyond its known members cannot hold another one; checking that costs
one addition. Only a message with more whitespace or escapes than that is parsed name by name.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Final

from local_mcp_gateway.gateway.protocol.jsonrpc import (
    INVALID_PARAMS,
    INVALID_REQUEST,
    decode_any,
    decode_members,
    failure,
    replace_surrogates,
    response,
)
from local_mcp_gateway.gateway.protocol.versions import ENVELOPE_KEYS

if TYPE_CHECKING:
    import msgspec

    from local_mcp_gateway.gateway.protocol.jsonrpc import Envelope


class Names:
    """Names of the members that the gateway routes or checks by."""

    def __init__(self, *names: str) -> None:
        self.exact = frozenset(names)
        self.folded = {name.casefold(): name for name in names}
        self.room = min(map(len, names)) + len('"":0,')
        """The minimum size in bytes of a second member with such a name."""


ENVELOPE: Final = Names("jsonrpc", "id", "method", "params", "result", "error")
PARAMS: Final = Names(
    *("name", "uri", "ref", "taskId", "requestId", "cursor", "progressToken", "_meta"),
    *("arguments", "requestState", "inputResponses"),
)
INSIDE: Final[Mapping[str, Names]] = {
    "ref": Names("type", "name", "uri"),
    "_meta": Names("progressToken", *ENVELOPE_KEYS),
}
"""Member of the params → the names in it that the gateway routes or checks by."""
_NAME: Final = re.compile(rb'[\s{,]*"((?:[^"\\]++|\\.)*+)"\s*:\s*', re.DOTALL)


def refusal(body: bytes, message: Envelope) -> bytes | None:
    """Return the error response to an ambiguous client message, or None.

    `message` is what the gateway reads in `body`. Raises MALFORMED.
    """
    spare = len(body) - _least(message) - body.startswith(b'{"jsonrpc": ')
    if spare >= ENVELOPE.room:
        whole = replace_surrogates(body)
        if (name := _ambiguous(whole, decode_members(whole), ENVELOPE)) is not None:
            return response(b"null", failure(INVALID_REQUEST, f"Invalid request: {_told(name)}"))
    identity = bytes(message.id)
    if rb"\ufffd" in identity and identity not in body:
        text = "Invalid request: the id holds half of a surrogate pair, which no answer can repeat"
        return response(b"null", failure(INVALID_REQUEST, text))
    params = bytes(message.params)
    if params[:1] != b"{":
        return None
    members = decode_members(params)
    name = _ambiguous(params, members, PARAMS)
    for key, names in INSIDE.items():
        if key in members and (inner := bytes(members[key]))[:1] == b"{":
            name = name or _ambiguous(inner, decode_members(inner), names)
    if name is None:
        return None
    return response(message.id, failure(INVALID_PARAMS, f"Invalid params: {_told(name)}"))


def _told(name: str) -> str:
    return f"{name[:100]!r} stands there twice, or in another case: what counts would be a guess"


def _least(message: Envelope) -> int:
    """Return the minimum length of a message with these members only, without whitespace."""
    least = len('{"jsonrpc":"2.0"}')
    if message.id:
        least += len(',"id":') + len(message.id)
    if message.method:
        least += len(',"method":""') + len(message.method)
    if message.params:
        least += len(',"params":') + len(message.params)
    if message.result:
        least += len(',"result":') + len(message.result)
    if message.error:
        least += len(',"error":') + len(message.error)
    return least


def _ambiguous(raw: bytes, members: Mapping[str, msgspec.Raw], names: Names) -> str | None:
    """Return a name in the JSON object `raw` that is duplicated or a case variant of one of `names`."""
    least = 1
    for name, value in members.items():
        least += len(name) + len(value) + len('"":,')
        if name not in names.exact and (known := names.folded.get(name.casefold())) is not None:
            return known
    return None if len(raw) - least < names.room else _twice(raw, members)


def _twice(raw: bytes, members: Mapping[str, msgspec.Raw]) -> str | None:
    """Return a duplicated name, if there is one; `members` has the last value of each."""
    seen: set[str] = set()
    at, name = 0, ""
    while (found := _NAME.match(raw, at)) is not None:
        name = str(decode_any(b'"' + found[1] + b'"'))
        value = bytes(members[name])
        if name in seen or not raw.startswith(value, found.end()):
            return name
        seen.add(name)
        at = found.end() + len(value)
    return None if raw[at:].strip() == b"}" or not members else name
