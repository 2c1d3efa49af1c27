"""The URIs of resources: templates, MCP Apps, and new URIs where two servers have the same one. Pure.

The page of an MCP app is a resource whose URI begins with `ui://`. Clients know it by that scheme, so
such a URI keeps it (`ui://server/…`); any other gets a scheme of the server (`s-server+…`). A URI that
is shown under another one is rewritten wherever a server names it: in the `_meta` of its tools, in
results and in what is read.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Final

from local_mcp_gateway.gateway.protocol import decode_any, encode

APP: Final = "ui://"
_NAMES: Final = frozenset({"uri", "resourceUri", "ui/resourceUri"})
"""Members that hold the URI of a resource; an app is named in either of two spellings."""
_MEMBER: Final = re.compile(
    rb'((?<!\\)"((?:uri|resourceUri|ui/resourceUri)|[^"\\]*+\\.(?:[^"\\]++|\\.)*+)"\s*:\s*)'
    rb'("(?:[^"\\]|\\.)*+")',
    re.DOTALL,
)
"""A member with such a name, or with one that is written with escapes."""


@dataclass(frozen=True, slots=True)
class Template:
    """A URI template as the literals before, between and after its expressions; at least one."""

    literals: tuple[str, ...]

    @classmethod
    def of(cls, text: str) -> Template:
        """Parse a template; an unclosed brace is a literal."""
        literals, at = [], 0
        while (start := text.find("{", at)) >= 0 and (end := text.find("}", start)) >= 0:
            literals.append(text[at:start])
            at = end + 1
        return cls((*literals, text[at:]))

    def matches(self, uri: str) -> bool:
        """Return whether a URI begins and ends with the outer literals and has the others in order between."""
        first, *rest = self.literals
        if not rest:
            return uri == first
        *middle, last = rest
        at, end = len(first), len(uri) - len(last)
        if at > end or not uri.startswith(first) or not uri.endswith(last):
            return False
        for literal in middle:
            found = uri.find(literal, at, end)
            if found < 0:
                return False
            at = found + len(literal)
        return True


def clashing(server: str, uri: str) -> str:
    """Return the URI under which a resource is shown whose own one another server has."""
    if uri.startswith(APP):
        return f"{APP}{_plain(server)}/{uri.removeprefix(APP)}"
    return uri_prefix(server) + uri


def uri_prefix(server: str) -> str:
    """Return the prefix for a clashing URI: a scheme may hold only letters, digits, + - and dot."""
    return f"s-{_plain(server)}+"


def _plain(server: str) -> str:
    return re.sub(r"[^a-z0-9.-]", "-", server.lower())


def app_uris(tool: bytes) -> Iterator[str]:
    """Yield the URIs of apps that a tool names."""
    if b"resourceUri" in tool:
        for found in _MEMBER.finditer(tool):
            uri = decode_any(found[3])
            if _is_uri(found) and uri.startswith(APP):
                yield uri


def with_shown_uris(raw: bytes | memoryview, renamed: Mapping[str, str]) -> bytes:
    """Return JSON of a server with its URIs replaced by those that clients know."""

    def shown(found: re.Match[bytes]) -> bytes:
        uri = renamed.get(decode_any(found[3])) if _is_uri(found) else None
        return found[0] if uri is None else found[1] + encode(uri)

    return _MEMBER.sub(shown, bytes(raw))


def _is_uri(found: re.Match[bytes]) -> bool:
    return b"\\" not in found[2] or decode_any(b'"' + found[2] + b'"') in _NAMES
