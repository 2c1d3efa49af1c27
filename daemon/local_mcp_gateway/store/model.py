"""The rows of the gateway's tables as frozen dataclasses."""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from itertools import count
from typing import TYPE_CHECKING, NamedTuple

from local_mcp_gateway.errors import UsageProblem
from local_mcp_gateway.json_input import parse_json
from local_mcp_gateway.log import HIDDEN, redact_url
from local_mcp_gateway.store.variables import problem_of_url

if TYPE_CHECKING:
    from local_mcp_gateway.database import Row

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}")
NO_PROXY = "none"
RESERVED_HEADERS = frozenset(
    (
        *("accept", "accept-encoding", "connection", "content-length", "content-type", "cookie"),
        *("host", "last-event-id", "mcp-method", "mcp-name", "mcp-protocol-version"),
        *("mcp-session-id", "origin", "transfer-encoding", "upgrade"),
    )
)
"""Headers of the connection to the gateway and of its own session at a server."""
_HEADER = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]{1,128}")
_PROXY = re.compile(r"https?://\S+")
MOST_CALLS = 1_000_000
"""The highest limit of calls."""
KEPT_NAMES = "names."
"""Begins the keys of the gateway's settings that say which names a profile shows; its id follows."""


COLUMNS: Mapping[str, str] = {
    "profiles": "id name description prefix created_at updated_at allowed_tools denied_tools read_only calls_per_minute calls_at_once",
    "mcp_servers": "id name kind command args env cwd url headers active created_at updated_at share max_clients idle_stop_s timeout_s proxy ca insecure client_headers trust_annotations sandbox",
    "profile_mcp_servers": "profile_id mcp_server_id position active",
    "profile_mcp_server_tools": "profile_id mcp_server_id tool_name enabled custom_name custom_description updated_at",
    "mcp_server_catalog_cache": "mcp_server_id kind body hash fetched_at",
    "approved_tools": "mcp_server_id tool_name body approved_at",
    "gateway_settings": "key value updated_at",
    "oauth_client_registrations": "mcp_server_id issuer client_id sealed_client_secret metadata created_at",
    "oauth_tokens": "mcp_server_id sealed_access_token sealed_refresh_token token_type scope expires_at updated_at",
    "client_tokens": "id name hash profiles created_at expires_at last_used_at last_client allowed_tools denied_tools read_only calls_per_minute calls_at_once",
    "audit_log": "id at who client action object outcome detail",
    "debug_logs": "id created_at profile server method target status error duration_us request_bytes response_bytes request response holder client",
}
"""The tables that the queries use, and their columns: a migrated database without them is of no use."""


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
class Sandbox:
    """What the command of a server may do in its sandbox, beyond reading what is not hidden."""

    write: tuple[str, ...] = ()
    """Folders that it may write."""
    network: bool = True


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
    timeout_s: int | None = None
    """Seconds that a call may take; None: the gateway's default."""
    proxy: str | None = None
    """The URL of its HTTP proxy, or `none`; None: what the environment says."""
    ca: str | None = None
    """A file or folder with certificates that its own may be signed by, in addition to the system's."""
    insecure: bool = False
    """Whether its certificate is not checked at all."""
    client_headers: tuple[str, ...] = ()
    """Headers that each call takes over from the client's own request."""
    trust_annotations: bool = False
    """Whether a person holds what its tools say about themselves (`readOnlyHint`) to be true."""
    sandbox: Sandbox | None = None
    """What its command may do beyond reading; None: all that the gateway may."""
    id: str = ""

    @property
    def program(self) -> tuple[object, ...]:
        """Return the fields that make it a different server when they change."""
        return self.kind, self.command, self.args, self.url

    def checked(self) -> ServerDefinition:
        """Return itself, or raise an error that says what to correct."""
        check_name("server", self.name)
        if any(HIDDEN in text for text in (self.url or "", self.proxy or "", *self.args)):
            raise UsageProblem(
                f"What is given for the server {self.name!r} has {HIDDEN} in the place of a secret.",
                hint="Write the secret itself, or better `${NAME}` and its value in the environment.",
            )
        if self.kind is ServerKind.STDIO and not self.command:
            raise UsageProblem(f"The stdio server {self.name!r} has no command.", hint="Give one.")
        if self.kind is not ServerKind.STDIO and (problem := problem_of_url(self.url or "")):
            raise UsageProblem(
                f"The URL of server {self.name!r} is {redact_url(self.url or '')!r}, which {problem}.",
                hint="Give a URL such as https://HOST/mcp or http://HOST:PORT/mcp.",
            )
        for what, value, least in (
            ("max_clients", self.max_clients, 1),
            ("idle_stop_s", self.idle_stop_s, 0),
            ("timeout_s", self.timeout_s, 1),
        ):
            if value is not None and value < least:
                raise UsageProblem(
                    f"{what} of server {self.name!r} is {value}.", hint=f"Give {least} or more."
                )
        self._check_network()
        return self

    def _check_network(self) -> None:
        if self.sandbox is not None and self.kind is not ServerKind.STDIO:
            raise UsageProblem(
                f"The server {self.name!r} is a URL, and its program runs elsewhere.",
                hint="A sandbox is for a command: leave out --sandbox.",
            )
        given = self.proxy or self.ca or self.insecure or self.client_headers
        if given and self.kind is ServerKind.STDIO:
            raise UsageProblem(
                f"The server {self.name!r} is a command and has no proxy, certificates or headers.",
                hint="A command takes them from its environment: `--env HTTPS_PROXY=…`.",
            )
        if self.proxy and self.proxy != NO_PROXY and not _PROXY.fullmatch(self.proxy):
            raise UsageProblem(
                f"The proxy of server {self.name!r} is not the URL of an HTTP proxy.",
                hint="Give http://HOST:PORT, or `none` for no proxy at all.",
            )
        for header in self.client_headers:
            if not is_own_header(header):
                raise UsageProblem(
                    f"The header {header!r} cannot be taken over from clients.",
                    hint="Name one that the protocol itself does not use, such as X-User.",
                )


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
class Policy:
    """What may be done in a profile, or with a token; both have to allow it."""

    allowed: tuple[str, ...] = ()
    """Patterns of the tools that may be seen and called; none: all."""
    denied: tuple[str, ...] = ()
    """Patterns of tools that may not, even if they are allowed."""
    read_only: bool = False
    """Whether only tools that change nothing may be called: by the word of servers that are trusted."""
    calls_per_minute: int | None = None
    calls_at_once: int | None = None

    @property
    def hides(self) -> bool:
        """Return whether it keeps any tool from sight."""
        return bool(self.allowed or self.denied or self.read_only)

    @property
    def limits(self) -> bool:
        """Return whether it limits the number of calls."""
        return self.calls_per_minute is not None or self.calls_at_once is not None

    def checked(self) -> Policy:
        """Return itself, or raise an error that says what to correct."""
        for pattern in (*self.allowed, *self.denied):
            if not pattern.strip():
                raise UsageProblem(
                    "A pattern of tools is empty.", hint="Write a name, `git_*` or `SERVER/*`."
                )
        for what in ("calls_per_minute", "calls_at_once"):
            value = getattr(self, what)
            if value is not None and not 0 < value <= MOST_CALLS:
                raise UsageProblem(
                    f"{what} is {value}.", hint=f"Give 1 to {MOST_CALLS}, or nothing for no limit."
                )
        return self


NOTHING = Policy(allowed=("",))
"""Shows no tool: no name is empty."""
POLICY_COLUMNS = "allowed_tools, denied_tools, read_only, calls_per_minute, calls_at_once"


def policy_in(row: Row) -> Policy:
    """Return the policy of a row; where it was edited into something else, one that shows nothing."""
    try:
        allowed, denied = (
            tuple(_strings(row[column])) for column in ("allowed_tools", "denied_tools")
        )
    except (ValueError, TypeError):
        return NOTHING
    return Policy(
        allowed, denied, bool(row["read_only"]), row["calls_per_minute"], row["calls_at_once"]
    )


def _strings(stored: str) -> list[str]:
    value = parse_json(stored)
    if not isinstance(value, list) or not all(isinstance(text, str) for text in value):
        raise TypeError
    return value


def columns_of_policy(policy: Policy) -> tuple[object, ...]:
    """Return the columns of a policy, in the order of `POLICY_COLUMNS`."""
    return (
        json.dumps(policy.allowed),
        json.dumps(policy.denied),
        int(policy.read_only),
        policy.calls_per_minute,
        policy.calls_at_once,
    )


@dataclass(frozen=True, slots=True)
class ProfileDefinition:
    """A named selection of servers, in the order in which clients see their tools."""

    name: str
    description: str | None = None
    prefix: Prefix = Prefix.AUTO
    members: tuple[Member, ...] = ()
    tools: tuple[ToolSetting, ...] = ()
    id: str = ""
    policy: Policy = Policy()


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
    holder: str | None = None
    """The name of the token that the client showed."""
    client: str | None = None
    """What the client calls itself."""


def fit_name(name: str, taken: Collection[str]) -> str:
    """Return the name, or one like it that is valid and not taken."""
    fit = re.sub(r"[^A-Za-z0-9._-]+", "-", name).strip("-._")[:60] or "server"
    fit = name if NAME.fullmatch(name) else fit
    names = (fit if number == 1 else f"{fit[:60]}-{number}" for number in count(1))
    return next(candidate for candidate in names if candidate not in taken)


def is_own_header(name: str) -> bool:
    """Return whether a server may get a header of that name: it is valid, and not the connection's."""
    return bool(_HEADER.fullmatch(name)) and name.lower() not in RESERVED_HEADERS


def check_name(what: str, name: str) -> None:
    """Refuse a name that is not valid in a URL or as a tool name's prefix."""
    if not NAME.fullmatch(name):
        raise UsageProblem(
            f"{name!r} cannot be the name of a {what}.",
            hint="Use up to 64 letters, digits, dots, dashes and underscores; begin with a letter or digit.",
        )
