"""MCP protocol versions, and translation between handshake and stateless ones. Pure: bytes in, bytes out.

Handshake protocol (2024-11-05 … 2025-11-25): `initialize` once, then messages in a session. Stateless
protocol (2026-07-28): every request carries version, client and capabilities under `params._meta`, over
HTTP also as headers; `server/discover` replaces `initialize`, and results name their `resultType`.
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

import msgspec

from local_mcp_gateway import __version__
from local_mcp_gateway.gateway.protocol.jsonrpc import (
    CAPABILITIES_KEY,
    CLIENT_KEY,
    ENVELOPE_KEYS,
    INTERNAL_ERROR,
    INVALID_PARAMS,
    INVALID_REQUEST,
    LOG_LEVEL_KEY,
    MALFORMED,
    METHOD_NOT_FOUND,
    PARSE_ERROR,
    VERSION_KEY,
    Answer,
    Envelope,
    Target,
    decode_any,
    decode_members,
    decode_target,
    edit,
    encode,
    failure,
    member,
)

JSON: Final = "application/json"
HANDSHAKE: Final = ("2024-11-05", "2025-03-26", "2025-06-18", "2025-11-25")
OF_SERVERS: Final = ("2024-10-07", *HANDSHAKE)
"""Versions of a handshake that a server may answer with: the first draft works like its successor."""
MODERN: Final = ("2026-07-28",)
NEWEST_HANDSHAKE: Final = HANDSHAKE[-1]
NEWEST_MODERN: Final = MODERN[-1]


SERVER_KEY: Final = "io.modelcontextprotocol/serverInfo"
SUBSCRIPTION_KEY: Final = "io.modelcontextprotocol/subscriptionId"
TASKS: Final = "io.modelcontextprotocol/tasks"
"""The extension by which a stateless client says that it can handle tasks."""
TASKS_SINCE: Final = "2025-11-25"
"""The handshake revision whose clients know tools that only run as a task."""
HEADER_MISMATCH: Final = -32020
UNSUPPORTED_VERSION: Final = -32022
STATUS: Final[Mapping[int, int]] = {
    PARSE_ERROR: 400,
    INVALID_REQUEST: 400,
    INVALID_PARAMS: 400,
    HEADER_MISMATCH: 400,
    -32021: 400,
    UNSUPPORTED_VERSION: 400,
    METHOD_NOT_FOUND: 404,
}
"""HTTP status of an error code in the stateless protocol (Streamable HTTP, "Sending Messages")."""

GATEWAY_INFO: Final = {"name": "local-mcp-gateway", "version": __version__}
_GATEWAY_INFO_JSON: Final = encode(GATEWAY_INFO)
NAMED: Final[Mapping[str, str]] = {
    "tools/call": "name",
    "prompts/get": "name",
    "resources/read": "uri",
    **dict.fromkeys(("tasks/get", "tasks/update", "tasks/cancel"), "taskId"),
}
"""Method → the member of `params` that the header `Mcp-Name` repeats."""
REMOVED: Final = frozenset(
    {
        "initialize",
        "ping",
        "logging/setLevel",
        "resources/subscribe",
        "resources/unsubscribe",
    }
)
"""Handshake methods that the stateless protocol does not have."""
CACHEABLE: Final = frozenset(
    {
        "tools/list",
        "prompts/list",
        "resources/list",
        "resources/templates/list",
        "resources/read",
    }
)
"""Methods whose stateless result says how long it may be cached."""


class ErrorCode(msgspec.Struct):
    """The one member of an error that the gateway evaluates."""

    code: int = 0


_DATE: Final = re.compile(rb"\b20\d\d-\d\d-\d\d\b")
_COMPLETE: Final = re.compile(rb'"resultType"\s*:\s*"complete"')
_decode_code = msgspec.json.Decoder(ErrorCode).decode


@dataclass(frozen=True, slots=True)
class ModernEnvelope:
    """What a stateless request says about its client; capabilities and client are JSON."""

    version: str
    capabilities: bytes
    log_level: str | None
    client: bytes = b""


def negotiate(offered: object) -> str:
    """Return the version for an `initialize` result: the requested one, or our newest."""
    return offered if isinstance(offered, str) and offered in HANDSHAKE else NEWEST_HANDSHAKE


def older_version_in(refusal: bytes) -> str | None:
    """Return the newest version, older than our newest, that a refusal of `initialize` names."""
    named = {found.decode() for found in _DATE.findall(refusal)}
    return max(named.intersection(OF_SERVERS[:-1]), default=None)


def is_modern(version: str, message: Envelope) -> bool:
    """Return whether a message is stateless, posted with a version that is not of the handshake."""
    return version in MODERN or bool(member(_meta(message.params), VERSION_KEY))


def _meta(params: bytes | memoryview) -> bytes:
    try:
        meta = bytes(decode_target(params).meta) if params else b""
    except msgspec.DecodeError:
        return b""
    return meta if meta.startswith(b"{") else b""


def open_envelope(headers: Mapping[str, str] | None, message: Envelope) -> ModernEnvelope | Answer:
    """Validate a stateless request in the order that the revision gives; None skips the headers."""
    meta = _meta(message.params)
    try:
        members = decode_members(meta) if meta else {}
    except msgspec.DecodeError:
        members = {}
    missing = [key for key in (VERSION_KEY, CAPABILITIES_KEY) if key not in members]
    if missing:
        return failure(
            INVALID_PARAMS, f"params._meta is missing the required key(s): {', '.join(missing)}"
        )
    if bytes(members[CAPABILITIES_KEY])[:1] != b"{":
        return failure(
            INVALID_PARAMS, "The client's capabilities in params._meta must be an object"
        )
    version = decode_any(members[VERSION_KEY])
    if headers is not None and (fault := _header_fault(headers, message, version)):
        return failure(HEADER_MISMATCH, fault)
    if not isinstance(version, str):
        return failure(INVALID_PARAMS, "The protocol version in params._meta must be a string")
    if version not in MODERN:
        return failure(
            UNSUPPORTED_VERSION,
            "Unsupported protocol version",
            {"supported": list(MODERN), "requested": version},
        )
    level = decode_any(members[LOG_LEVEL_KEY]) if LOG_LEVEL_KEY in members else None
    return ModernEnvelope(
        version,
        bytes(members[CAPABILITIES_KEY]),
        level if isinstance(level, str) else None,
        bytes(members.get(CLIENT_KEY, b"")),
    )


def _header_fault(headers: Mapping[str, str], message: Envelope, version: object) -> str | None:
    if headers.get("mcp-protocol-version") != version:
        return "mcp-protocol-version header does not match the request's protocol version"
    if decode_header(headers.get("mcp-method")) != message.method:
        return "mcp-method header does not match the request's method"
    key = NAMED.get(message.method)
    if key is None:
        return None
    if key == "taskId" and "mcp-name" not in headers:
        return None  # a rule of the extension, which some of its clients do not follow
    target = _target(message.params)
    named = target.name if key == "name" else target.uri
    if key == "taskId":
        named = _task_in(message.params)
    if named is not None and decode_header(headers.get("mcp-name")) != named:
        return f"mcp-name header does not match the request's {key!r}"
    return None


def _task_in(params: bytes | memoryview) -> str | None:
    try:
        return msgspec.json.decode(member(params, "taskId") or b"null", type=str | None)
    except msgspec.DecodeError:
        return None


def _target(params: bytes | memoryview) -> Target:
    try:
        return decode_target(params) if params else Target()
    except msgspec.DecodeError:
        return Target()


def to_handshake(params: bytes | memoryview) -> bytes:
    """Remove the stateless envelope from `params`."""
    meta = _meta(params)
    if not meta:
        return bytes(params)
    left = edit(meta, dict.fromkeys(ENVELOPE_KEYS))
    return edit(params, {"_meta": None if left == b"{}" else left})


def to_modern(
    params: bytes | memoryview, capabilities: bytes = b"{}", log_level: str | None = None
) -> bytes:
    """Put a stateless envelope of the gateway's own around `params`.

    `tasks` is a capability of the handshake protocol only, and a strict server refuses it.
    """
    if b'"tasks"' in capabilities:
        capabilities = edit(capabilities, {"tasks": None})
    meta = edit(
        _meta(params),
        {
            VERSION_KEY: encode(NEWEST_MODERN),
            CLIENT_KEY: _GATEWAY_INFO_JSON,
            CAPABILITIES_KEY: capabilities,
            LOG_LEVEL_KEY: None if log_level is None else encode(log_level),
        },
    )
    return edit(params, {"_meta": meta})


def modern_list(ttl_ms: int) -> bytes:
    """Return the members of a stateless result that come before a list of ours."""
    return b'"resultType":"complete","ttlMs":%d,"cacheScope":"private","_meta":{"%s":%s}' % (
        ttl_ms,
        SERVER_KEY.encode(),
        _GATEWAY_INFO_JSON,
    )


def modern_result(answer: Answer, method: str) -> Answer:
    """Add what a stateless result requires to the result of a handshake server."""
    if answer.failed or answer.relayed_bytes:
        return answer
    body = bytes(answer.body)
    if body.lstrip()[:1] != b"{":
        return failure(INTERNAL_ERROR, "The server returned a result that is not an object")
    added = modern_members(body, method)
    rest = body.lstrip()[1:].lstrip()
    if not added:
        return answer
    return Answer(b"{" + (added[:-1] if rest.startswith(b"}") else added) + rest)


def modern_members(result: bytes, method: str) -> bytes:
    """Return the members that a stateless result still needs, each with its comma."""
    if _says(result, "resultType"):
        return b""
    added = b'"resultType":"complete",'
    if method in CACHEABLE and not _says(result, "ttlMs"):
        added += b'"ttlMs":0,"cacheScope":"private",'
    return added


def _says(result: bytes, key: str) -> bool:
    """Return whether a result has this member; for the start of a result, whether it may."""
    if b'"' + key.encode() + b'"' not in result:
        return False
    try:
        return key in decode_members(result)
    except MALFORMED:
        return True


def is_complete(start: bytes) -> bool:
    """Return whether the start of a stateless result says that no input is required."""
    return _COMPLETE.search(start) is not None and b'"input_required"' not in start


def status_of(answer: Answer) -> int:
    """Return the HTTP status for this response in the stateless protocol."""
    return STATUS.get(error_code(answer), 200) if answer.failed else 200


def error_code(answer: Answer) -> int:
    """Return the code of an error response, or 0."""
    try:
        return _decode_code(answer.body).code
    except MALFORMED:
        return 0


def encode_header(value: str) -> str:
    """Encode a name as a header value; what a header cannot carry becomes =?base64?…?=."""
    plain = value.isascii() and value.isprintable() and value == value.strip()
    if plain and not value.startswith("=?base64?"):
        return value
    return f"=?base64?{base64.b64encode(value.encode()).decode()}?="


def decode_header(value: str | None) -> str | None:
    """Decode a header value written by `encode_header`; None when it is malformed."""
    if value is None or not (value.startswith("=?base64?") and value.endswith("?=")):
        return value
    try:
        return base64.b64decode(value[9:-2], validate=True).decode()
    except (binascii.Error, UnicodeDecodeError):
        return None
