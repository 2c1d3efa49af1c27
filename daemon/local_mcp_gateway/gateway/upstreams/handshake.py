"""The handshake that all transports share: `initialize`, and what a server says about itself in its answer."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from http import HTTPStatus
from typing import Any, Final

import msgspec

from local_mcp_gateway.gateway.catalog import ICON, is_readable
from local_mcp_gateway.gateway.protocol import (
    INVALID_PARAMS,
    INVALID_REQUEST,
    MALFORMED,
    Answer,
    decode_any,
    decode_members,
    edit,
    encode,
    member,
    versions,
)
from local_mcp_gateway.gateway.upstreams.connection import (
    SILENT,
    Call,
    HttpRefusal,
    Identity,
    UpstreamDisconnected,
)

INVALID: Final = (INVALID_PARAMS, INVALID_REQUEST)
KNOWN_CAPABILITIES: Final = frozenset({"roots", "sampling", "elicitation", "experimental", "tasks"})
"""What a client can by the newest handshake revision; a strict server refuses anything else."""


def initialize_params(capabilities: object) -> bytes:
    """Return the params of an `initialize` that declares these client capabilities."""
    return encode(
        {
            "protocolVersion": versions.NEWEST_HANDSHAKE,
            "capabilities": capabilities,
            "clientInfo": versions.GATEWAY_INFO,
        }
    )


async def initialize(send: Callable[[Call], Awaitable[Answer]], params: bytes) -> Answer:
    """Send `initialize`; once more with what the server's refusal asks for.

    That is an older version, if it names one, or no capabilities that the revision does not have.
    """
    refused: HttpRefusal | None = None
    invalid = False
    try:
        answer = await send(Call("initialize", params, SILENT))
        said = bytes(answer.body) if answer.failed else b""
        invalid = answer.failed and versions.error_code(answer) in INVALID
    except HttpRefusal as error:
        refused, said = error, error.body
        invalid = error.status == HTTPStatus.BAD_REQUEST
    capabilities = member(params, "capabilities")
    unknown = decode_members(capabilities).keys() - KNOWN_CAPABILITIES
    if (older := versions.older_version_in(said)) is not None:
        params = edit(params, {"protocolVersion": encode(older)})
        return await send(Call("initialize", params, SILENT))
    if invalid and unknown:
        params = edit(params, {"capabilities": edit(capabilities, dict.fromkeys(unknown))})
        return await send(Call("initialize", params, SILENT))
    if refused is not None:
        raise refused
    return answer


def identity_of_initialize(answer: Answer) -> Identity:
    """Parse the result of `initialize`."""
    result = _result(answer, "initialize")
    version = result.get("protocolVersion")
    if version is None:
        raise UpstreamDisconnected("the server answered initialize without a protocol version")
    if version not in versions.OF_SERVERS:
        raise UpstreamDisconnected(
            f"the server speaks MCP {version!r}, which the gateway does not know"
        )
    return _identity(result, str(version), result.get("serverInfo"), modern=False)


def identity_of_discover(answer: Answer) -> Identity | None:
    """Parse the result of `server/discover`; None when no stateless version is shared."""
    try:
        result = _result(answer, "server/discover")
    except UpstreamDisconnected:
        return None
    supported = result.get("supportedVersions")
    if not isinstance(supported, list) or versions.NEWEST_MODERN not in supported:
        return None
    meta = result.get("_meta")
    info = meta.get(versions.SERVER_KEY) if isinstance(meta, dict) else None
    return _identity(result, versions.NEWEST_MODERN, info, modern=True)


def _result(answer: Answer, method: str) -> dict[str, object]:
    try:
        value = decode_any(answer.body)
    except MALFORMED as error:
        raise UpstreamDisconnected(f"the server answered {method} with junk: {error}") from None
    if answer.failed:
        text = value.get("message") if isinstance(value, dict) else value
        why = text or f"error {versions.error_code(answer)}"
        raise UpstreamDisconnected(f"the server refused {method}: {why}")
    if not isinstance(value, dict):
        raise UpstreamDisconnected(
            f"the server answered {method} with a result that is not an object"
        )
    return value


def _identity(result: dict[str, object], version: str, info: object, *, modern: bool) -> Identity:
    declared = result.get("capabilities")
    capabilities = _without_nulls(declared) if isinstance(declared, dict) else {}
    instructions = result.get("instructions")
    name = info.get("name") if isinstance(info, dict) else ""
    release = info.get("version") if isinstance(info, dict) else ""
    return Identity(
        version=version,
        capabilities={str(key): msgspec.Raw(encode(value)) for key, value in capabilities.items()},
        name=name if isinstance(name, str) else "",
        instructions=instructions if isinstance(instructions, str) else None,
        modern=modern,
        release=release if isinstance(release, str) else "",
        about=_about(info),
    )


def _about(info: object) -> dict[str, Any]:
    """Return what a server says about itself, for people; a client would refuse what is not valid."""
    members = info if isinstance(info, dict) else {}
    about = {
        key: members[key]
        for key in ("title", "description", "websiteUrl")
        if isinstance(members.get(key), str)
    }
    icons = members.get("icons")
    found = [
        _without_nulls(icon)
        for icon in (icons if isinstance(icons, list) else ())
        if isinstance(icon, dict)
    ]
    found = [icon for icon in found if is_readable(ICON, icon)]
    return {**about, "icons": found} if found else about


def _without_nulls(members: dict[str, Any]) -> dict[str, Any]:
    """Return an object without its null members, which mean the same as missing ones."""
    return {
        key: _without_nulls(value) if isinstance(value, dict) else value
        for key, value in members.items()
        if value is not None
    }
