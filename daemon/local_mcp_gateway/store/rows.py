"""Servers and profiles as rows of the database, and back. Pure.

A person may write these rows with any program, so what is JSON in them is looked at.
"""

from __future__ import annotations

import json
from contextlib import suppress
from typing import TYPE_CHECKING, Any, TypeVar

from local_mcp_gateway.errors import UsageProblem
from local_mcp_gateway.store.model import (
    Member,
    Prefix,
    ProfileDefinition,
    ServerDefinition,
    ServerKind,
    ToolSetting,
)

if TYPE_CHECKING:
    from local_mcp_gateway.database.pool import Row

Texts = TypeVar("Texts", list[Any], dict[str, Any])


def columns_of(server: ServerDefinition) -> tuple[object, ...]:
    """Return what a server's row holds, but for its id and times."""
    return (
        server.name,
        server.kind.value,
        server.command,
        json.dumps(server.args),
        json.dumps(dict(server.env)),
        server.cwd,
        server.url,
        json.dumps(dict(server.headers)),
        int(server.active),
    )


def server_in(row: Row) -> ServerDefinition:
    """Return the server of a row. Raises UsageProblem where somebody wrote what is none."""
    return ServerDefinition(
        id=row["id"],
        name=row["name"],
        kind=ServerKind(row["kind"]),
        command=row["command"],
        args=tuple(_texts(row, "args", list)),
        env=_texts(row, "env", dict),
        cwd=row["cwd"],
        url=row["url"],
        headers=_texts(row, "headers", dict),
        active=bool(row["active"]),
    )


def _texts(row: Row, column: str, shape: type[Texts]) -> Texts:
    with suppress(ValueError, TypeError):  # no JSON, or no text
        value = json.loads(row[column])
        inside = value.values() if isinstance(value, dict) else value
        if isinstance(value, shape) and all(isinstance(text, str) for text in inside):
            return value
    name = row["name"]
    what = {list: "list", dict: "object"}[shape]
    raise UsageProblem(
        f"The server {name!r} cannot be read: {column} of its row in mcp_servers is no JSON {what} of texts.",
        hint=f"Correct the row, or take it out with `server remove {name}`.",
    )


def profile_in(row: Row, members: list[Row], tools: list[Row]) -> ProfileDefinition:
    """Return the profile of a row, with those of its members and of its tools among all."""
    return ProfileDefinition(
        id=row["id"],
        name=row["name"],
        description=row["description"],
        prefix=Prefix(row["prefix"]),
        members=tuple(
            Member(member["name"], bool(member["active"]))
            for member in members
            if member["profile_id"] == row["id"]
        ),
        tools=tuple(
            ToolSetting(
                tool["name"],
                tool["tool_name"],
                bool(tool["enabled"]),
                tool["custom_name"],
                tool["custom_description"],
            )
            for tool in tools
            if tool["profile_id"] == row["id"]
        ),
    )
