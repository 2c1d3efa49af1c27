"""The gateway's tables in SQLAlchemy Core, the source that `db generate` compares the folder with.

A running gateway never imports it (SQLAlchemy costs 0.2 s); the queries are plain portable SQL. A test
replays `migrations/` and compares the result with these tables through SQLite itself.
Times are integer milliseconds since 1970 (UTC); lists and maps are JSON text.
"""

from __future__ import annotations

from sqlalchemy import (
    CheckConstraint,
    Column,
    ForeignKey,
    ForeignKeyConstraint,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    Table,
    Text,
    text,
)

metadata = MetaData()


def _server_key(*, primary_key: bool = False) -> Column[str]:
    """Return the column that references a server; the row is deleted with the server."""
    return Column(
        "mcp_server_id",
        Text,
        ForeignKey("mcp_servers.id", ondelete="CASCADE"),
        primary_key=primary_key,
        nullable=False,
    )


def _flag(name: str, default: int = 1) -> Column[int]:
    """Return a column that is 0 or 1."""
    return Column(
        name,
        Integer,
        CheckConstraint(f"{name} IN (0, 1)"),
        nullable=False,
        server_default=text(str(default)),
    )


def _time(name: str, *, nullable: bool = False) -> Column[int]:
    return Column(name, Integer, nullable=nullable)


def _json(name: str, empty: str) -> Column[str]:
    return Column(name, Text, nullable=False, server_default=text(f"'{empty}'"))


def _policy() -> tuple[Column[str] | Column[int], ...]:
    """Return the columns that say what may be done: with a token, or in a profile."""
    return (
        _json("allowed_tools", "[]"),
        _json("denied_tools", "[]"),
        _flag("read_only", default=0),
        Column("calls_per_minute", Integer, CheckConstraint("calls_per_minute > 0")),
        Column("calls_at_once", Integer, CheckConstraint("calls_at_once > 0")),
    )


profiles = Table(
    "profiles",
    metadata,
    Column("id", Text, primary_key=True),
    Column("name", Text, nullable=False, unique=True),
    Column("description", Text),
    Column(
        "prefix",
        Text,
        CheckConstraint("prefix IN ('auto', 'always', 'never')"),
        nullable=False,
        server_default=text("'auto'"),
    ),
    _time("created_at"),
    _time("updated_at"),
    *_policy(),
)

mcp_servers = Table(
    "mcp_servers",
    metadata,
    Column("id", Text, primary_key=True),
    Column("name", Text, nullable=False, unique=True),
    Column("kind", Text, CheckConstraint("kind IN ('stdio', 'http', 'sse')"), nullable=False),
    Column("command", Text),
    _json("args", "[]"),
    _json("env", "{}"),
    Column("cwd", Text),
    Column("url", Text),
    _json("headers", "{}"),
    _flag("active"),
    _time("created_at"),
    _time("updated_at"),
    Column(
        "share",
        Text,
        CheckConstraint("share IN ('auto', 'always', 'never')"),
        nullable=False,
        server_default=text("'auto'"),
    ),
    Column("max_clients", Integer, CheckConstraint("max_clients > 0")),
    Column("idle_stop_s", Integer, CheckConstraint("idle_stop_s >= 0")),
    Column("timeout_s", Integer, CheckConstraint("timeout_s > 0")),
    Column("proxy", Text),
    Column("ca", Text),
    _flag("insecure", default=0),
    _json("client_headers", "[]"),
    _flag("trust_annotations", default=0),
    Column("sandbox", Text),
    CheckConstraint("(kind = 'stdio') = (command IS NOT NULL)"),
    CheckConstraint("(kind <> 'stdio') = (url IS NOT NULL)"),
)

profile_mcp_servers = Table(
    "profile_mcp_servers",
    metadata,
    Column(
        "profile_id",
        Text,
        ForeignKey("profiles.id", ondelete="CASCADE"),
        primary_key=True,
    ),
    _server_key(primary_key=True),
    Column("position", Integer, nullable=False),
    _flag("active"),
    Index("profile_mcp_servers_by_server", "mcp_server_id"),
)

profile_mcp_server_tools = Table(
    "profile_mcp_server_tools",
    metadata,
    Column("profile_id", Text, primary_key=True),
    Column("mcp_server_id", Text, primary_key=True),
    Column("tool_name", Text, primary_key=True),
    _flag("enabled"),
    Column("custom_name", Text),
    Column("custom_description", Text),
    _time("updated_at"),
    ForeignKeyConstraint(
        ["profile_id", "mcp_server_id"],
        ["profile_mcp_servers.profile_id", "profile_mcp_servers.mcp_server_id"],
        ondelete="CASCADE",
    ),
)

mcp_server_catalog_cache = Table(
    "mcp_server_catalog_cache",
    metadata,
    _server_key(primary_key=True),
    Column(
        "kind",
        Text,
        CheckConstraint(
            "kind IN ('initialize', 'tools', 'resources', 'resource_templates', 'prompts')"
        ),
        primary_key=True,
    ),
    Column("body", Text, nullable=False),
    Column("hash", Text, nullable=False),
    _time("fetched_at"),
)

approved_tools = Table(
    "approved_tools",
    metadata,
    _server_key(primary_key=True),
    Column("tool_name", Text, primary_key=True),
    Column("body", Text, nullable=False),
    _time("approved_at"),
)

gateway_settings = Table(
    "gateway_settings",
    metadata,
    Column("key", Text, primary_key=True),
    Column("value", Text, nullable=False),
    _time("updated_at"),
)

oauth_client_registrations = Table(
    "oauth_client_registrations",
    metadata,
    _server_key(primary_key=True),
    Column("issuer", Text, primary_key=True),
    Column("client_id", Text, nullable=False),
    Column("sealed_client_secret", LargeBinary),
    _json("metadata", "{}"),
    _time("created_at"),
)

oauth_tokens = Table(
    "oauth_tokens",
    metadata,
    _server_key(primary_key=True),
    Column("sealed_access_token", LargeBinary, nullable=False),
    Column("sealed_refresh_token", LargeBinary),
    Column("token_type", Text, nullable=False, server_default=text("'Bearer'")),
    Column("scope", Text),
    _time("expires_at", nullable=True),
    _time("updated_at"),
)

client_tokens = Table(
    "client_tokens",
    metadata,
    Column("id", Text, primary_key=True),
    Column("name", Text, nullable=False, unique=True),
    Column("hash", Text, nullable=False),
    Column("profiles", Text),
    _time("created_at"),
    _time("expires_at", nullable=True),
    _time("last_used_at", nullable=True),
    Column("last_client", Text),
    *_policy(),
)

audit_log = Table(
    "audit_log",
    metadata,
    Column("id", Integer, primary_key=True),
    _time("at"),
    Column("who", Text, nullable=False),
    Column("client", Text),
    Column("action", Text, nullable=False),
    Column("object", Text),
    Column("outcome", Text, nullable=False),
    Column("detail", Text),
    Index("audit_log_by_time", "at"),
)

debug_logs = Table(
    "debug_logs",
    metadata,
    Column("id", Integer, primary_key=True),
    _time("created_at"),
    Column("profile", Text, nullable=False),
    Column("server", Text),
    Column("method", Text, nullable=False),
    Column("target", Text),
    Column(
        "status",
        Text,
        CheckConstraint("status IN ('ok', 'error', 'cancelled', 'timeout')"),
        nullable=False,
    ),
    Column("error", Text),
    Column("duration_us", Integer, nullable=False),
    Column("request_bytes", Integer, nullable=False),
    Column("response_bytes", Integer, nullable=False),
    Column("request", Text),
    Column("response", Text),
    Column("holder", Text),
    Column("client", Text),
    Index("debug_logs_by_time", "created_at"),
    Index("debug_logs_by_server", "server", "created_at"),
)
