"""The rows of the gateway's tables as frozen dataclasses."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import NamedTuple

from local_mcp_gateway.errors import UsageProblem

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}")
KEPT_NAMES = "names."
"""Begins the keys of the gateway's settings that say which names a profile shows; its id follows."""


class ServerKind(StrEnum):
    """How a server is reached."""

    STDIO = "stdio"
    HTTP = "http"
    SSE = "sse"


class Share(StrEnum):
    """Whether the clients of a server share one connection to it."""

    AUTO = "auto"
    """They share until the server asks a client something, or where it opens no session."""
    NEVER = "never"
    ALWAYS = "always"


class Prefix(StrEnum):
    """When a profile puts the server's name before a tool's or a prompt's name."""

    AUTO = "auto"
    ALWAYS = "always"
    NEVER = "never"


class CatalogKind(StrEnum):
    """What is cached of a server: its response to initialize, and its four lists."""

    INITIALIZE = "initialize"
    TOOLS = "tools"
    RESOURCES = "resources"
    RESOURCE_TEMPLATES = "resource_templates"
    PROMPTS = "prompts"


@dataclass(frozen=True, slots=True)
class ServerDefinition:
    """One upstream server. `command`, `args`, `env`, `cwd` are for stdio; `url`, `headers` for HTTP."""

    name: str
    kind: ServerKind
    command: str | None = None
    args: tuple[str, ...] = ()
    env: Mapping[str, str] = field(default_factory=dict)
    cwd: str | None = None
    url: str | None = None
    headers: Mapping[str, str] = field(default_factory=dict)
    active: bool = True
    share: Share = Share.AUTO
    max_clients: int | None = None
    """How many clients may have a connection of their own at once; None: the gateway's default."""
    idle_stop_s: int | None = None
    """Seconds without a call after which it is stopped, 0 never; None: the gateway's default."""
    id: str = ""

    @property
    def program(self) -> tuple[object, ...]:
        """Return the fields that make it a different server when they change."""
        return self.kind, self.command, self.args, self.url

    def checked(self) -> ServerDefinition:
        """Return itself, or raise an error that says what to correct."""
        check_name("server", self.name)
        if self.kind is ServerKind.STDIO and not self.command:
            raise UsageProblem(f"The stdio server {self.name!r} has no command.", hint="Give one.")
        if self.kind is not ServerKind.STDIO and not (self.url or "").startswith(
            ("http://", "https://")
        ):
            raise UsageProblem(
                f"The URL of server {self.name!r} is {self.url!r}.",
                hint="Give a URL that starts with http:// or https://.",
            )
        for what, value, least in (
            ("max_clients", self.max_clients, 1),
            ("idle_stop_s", self.idle_stop_s, 0),
        ):
            if value is not None and value < least:
                raise UsageProblem(
                    f"{what} of server {self.name!r} is {value}.", hint=f"Give {least} or more."
                )
        return self


@dataclass(frozen=True, slots=True)
class ToolSetting:
    """How a profile shows one tool of one server."""

    server: str
    tool: str
    enabled: bool = True
    name: str | None = None
    description: str | None = None


@dataclass(frozen=True, slots=True)
class Member:
    """A server's place in a profile."""

    server: str
    active: bool = True


@dataclass(frozen=True, slots=True)
class ProfileDefinition:
    """A named selection of servers, in the order in which clients see their tools."""

    name: str
    description: str | None = None
    prefix: Prefix = Prefix.AUTO
    members: tuple[Member, ...] = ()
    tools: tuple[ToolSetting, ...] = ()
    id: str = ""


@dataclass(frozen=True, slots=True)
class Definitions:
    """Everything that decides what the gateway serves, read in one transaction."""

    servers: tuple[ServerDefinition, ...] = ()
    profiles: tuple[ProfileDefinition, ...] = ()
    unreadable: tuple[tuple[str, UsageProblem], ...] = ()
    """Rows that are not valid servers: name and reason."""


@dataclass(frozen=True, slots=True)
class CatalogEntry:
    """One cached list of a server: `body` is JSON text, `fetched_at` integer milliseconds."""

    server_id: str
    kind: CatalogKind
    body: str
    hash: str
    fetched_at: int = 0


class CallRecord(NamedTuple):
    """One call through the gateway; payloads only when debug logging is on.

    A tuple, because one is created for each call and goes to the database unchanged.
    """

    created_at: int
    profile: str
    server: str | None
    method: str
    target: str | None
    status: str
    error: str | None
    duration_us: int
    request_bytes: int
    response_bytes: int
    request: str | None = None
    response: str | None = None


def check_name(what: str, name: str) -> None:
    """Refuse a name that is not valid in a URL or as a tool name's prefix."""
    if not NAME.fullmatch(name):
        raise UsageProblem(
            f"{name!r} cannot be the name of a {what}.",
            hint="Use up to 64 letters, digits, dots, dashes and underscores; begin with no sign.",
        )
