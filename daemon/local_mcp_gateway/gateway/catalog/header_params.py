"""Tool arguments repeated as HTTP headers (`x-mcp-header`), so that proxies can route by them. Pure.

A tool's input schema marks them with `x-mcp-header` (2026-07-28, Streamable HTTP, "Custom Headers").
The gateway validates the headers of its clients, and adds them for clients that do not send them.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

from local_mcp_gateway.gateway.protocol import (
    INVALID_PARAMS,
    Answer,
    decode_any,
    decode_header,
    duplicate_in,
    encode_header,
    failure,
    member,
    versions,
)

HEADER_PREFIX: Final = "mcp-param-"
_KEY: Final = "x-mcp-header"
_TOKEN: Final = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")
_KINDS: Final = frozenset({"string", "integer", "boolean"})


@dataclass(frozen=True, slots=True)
class HeaderParam:
    """An argument, by its path, and the header that repeats it, in lower case."""

    path: tuple[str, ...]
    header: str


def header_params_of(tool: bytes) -> tuple[HeaderParam, ...]:
    """Return the arguments that clients of this tool repeat; none if any annotation is invalid."""
    if b'"' + _KEY.encode() + b'"' not in tool:
        return ()
    schema = member(tool, "inputSchema")
    found = tuple(_walk(decode_any(schema), ()))
    headers = {header_params.header for header_params in found}
    valid = len(headers) == len(found) == schema.count(_KEY.encode())
    return found if valid else ()


def _walk(schema: Any, path: tuple[str, ...]) -> Iterator[HeaderParam]:
    properties = schema.get("properties") if isinstance(schema, dict) else None
    for name, inner in properties.items() if isinstance(properties, dict) else ():
        token = inner.get(_KEY) if isinstance(inner, dict) else None
        if isinstance(token, str) and _TOKEN.fullmatch(token) and inner.get("type") in _KINDS:
            yield HeaderParam((*path, name), HEADER_PREFIX + token.lower())
        yield from _walk(inner, (*path, name))


def twice_in_arguments(header_params: tuple[HeaderParam, ...], params: bytes) -> str | None:
    """Return an argument that appears twice where one is repeated as a header: which one counts is a guess."""
    arguments = member(params, "arguments")
    found = (duplicate_in(arguments, argument.path[:-1]) for argument in header_params)
    return next((name for name in found if name is not None), None)


def header_fault(
    header_params: tuple[HeaderParam, ...], headers: Mapping[str, str], params: bytes
) -> str | None:
    """Return what is wrong with the headers of a call, or None."""
    arguments = _arguments(params)
    for argument in header_params:
        sent = headers.get(argument.header)
        value = _text(_value(arguments, argument.path))
        where = ".".join(argument.path)
        if value is None and sent is not None:
            return f"{argument.header} header is there but not the argument {where!r}"
        if value is not None and sent is None:
            return f"{argument.header} header is missing for the argument {where!r}"
        if value is not None and not _same(decode_header(sent), value):
            return f"{argument.header} header does not match the argument {where!r}"
    return None


def headers_for(
    header_params: tuple[HeaderParam, ...], params: bytes
) -> tuple[tuple[str, str], ...]:
    """Return the headers for a call whose client does not send them."""
    arguments = _arguments(params)
    values = ((each.header, _text(_value(arguments, each.path))) for each in header_params)
    return tuple((header, encode_header(value)) for header, value in values if value is not None)


def repeated(
    header_params: tuple[HeaderParam, ...], sent: Mapping[str, str] | None, params: bytes
) -> tuple[tuple[str, str], ...] | Answer:
    """Return the headers that a call still needs, or why it is refused; None is sent by who repeats nothing."""
    if (name := twice_in_arguments(header_params, params)) is not None:
        text = f"Invalid params: the argument {name[:100]!r} appears twice"
        return failure(INVALID_PARAMS, text)
    if sent is None:
        return headers_for(header_params, params)
    wrong = header_fault(header_params, sent, params)
    return () if wrong is None else failure(versions.HEADER_MISMATCH, wrong)


def _arguments(params: bytes) -> Any:
    return decode_any(member(params, "arguments") or b"{}")


def _value(arguments: Any, path: tuple[str, ...]) -> Any:
    for key in path:
        arguments = arguments.get(key) if isinstance(arguments, dict) else None
    return arguments


def _text(value: Any) -> str | None:
    if isinstance(value, bool):
        return "true" if value else "false"
    return str(value) if isinstance(value, str | int | float) else None


def _same(sent: str | None, value: str) -> bool:
    """Return whether a header equals the value; an integer may be written as 42 or 42.0."""
    if sent is None or sent == value:
        return sent is not None
    return sent.removesuffix(".0") == value.removesuffix(".0") and sent[-1:].isdigit()
