"""Parse the rows of the original local-mcp-gateway: their values, and the server that each defines.

Nothing in a row was ever checked there, so each value is taken as it comes.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from datetime import UTC, datetime
from typing import Any

from local_mcp_gateway.errors import UsageProblem
from local_mcp_gateway.formats import now_ms
from local_mcp_gateway.json_input import parse_json
from local_mcp_gateway.log import redact_text
from local_mcp_gateway.store.model import ServerDefinition, ServerKind, is_own_header
from local_mcp_gateway.store.variables import as_plain_text

Row = Mapping[str, Any]

_KINDS = {
    "remote_http": ServerKind.HTTP,
    "streamable-http": ServerKind.HTTP,
    "remote_sse": ServerKind.SSE,
    "sse": ServerKind.SSE,
    "external": ServerKind.STDIO,
    "stdio": ServerKind.STDIO,
}
_NO_PLACE = {
    "custom": "it is a module of the original's own code",
    "builtin": "it is built into the original",
}
_UNUSED = ("autoRestart", "maxRestartAttempts", "startupTimeout", "shutdownTimeout")
_STATUS = {"success": "ok", "error": "error"}
_LAST_SECOND = 100_000_000_000
"""A smaller time is in seconds: as milliseconds it would be in 1973."""
_LARGEST = 1 << 53


def read_server(row: Row, notes: list[str], *, always_bearer: bool) -> ServerDefinition:
    """Return the definition under a stand-in name; raises UsageProblem for one without a place.

    `notes` gets what is different here; `always_bearer`: its version sent `Bearer KEY`, whatever the
    setting said.
    """
    kind_there = str(row["type"])
    if kind_there in _NO_PLACE:
        raise UsageProblem(_NO_PLACE[kind_there])
    config = document_of(row["config"])
    if not isinstance(config, dict):
        raise UsageProblem("its configuration is not a JSON object")
    kind = _KINDS.get(kind_there)
    if kind is None:
        raise UsageProblem(f"its type {kind_there!r} is not known here")
    headers = _api_key(row, kind, notes, always_bearer=always_bearer)
    if kind is not ServerKind.STDIO:
        url = text_of(config.get("url"))
        if url is None or not url.startswith(("http://", "https://")):
            raise UsageProblem("it has no URL" if url is None else f"{url!r} is not a web address")
        return ServerDefinition("name", kind, url=as_plain_text(url), headers=headers, id=row["id"])
    command = text_of(config.get("command"))
    if command is None:
        raise UsageProblem("it has no command")
    if unused := [key for key in _UNUSED if key in config]:
        notes.append(f"no place here for {', '.join(unused)}: it is started when it is needed")
    args, env = config.get("args"), config.get("env")
    return ServerDefinition(
        "name",
        kind,
        command=as_plain_text(command),
        args=tuple(as_plain_text(as_text(a)) for a in args if a is not None)
        if isinstance(args, list)
        else (),
        env={str(k): as_plain_text(as_text(v)) for k, v in env.items() if v is not None}
        if isinstance(env, dict)
        else {},
        cwd=text_of(config.get("workingDirectory")),
        id=row["id"],
    )


def _api_key(
    row: Row, kind: ServerKind, notes: list[str], *, always_bearer: bool
) -> dict[str, str]:
    """Return the header that sends a server's API key."""
    config = document_of(row.get("api_key_config"))
    key = text_of(config.get("apiKey")) if isinstance(config, dict) else None
    if key is None or not isinstance(config, dict):
        return {}
    if kind is ServerKind.STDIO:
        notes.append("its API key is left out: a command takes it from its environment (--env)")
        return {}
    header = text_of(config.get("headerName")) or "Authorization"
    form = text_of(config.get("headerValue")) or text_of(config.get("headerValueTemplate"))
    value = (form or "Bearer {apiKey}").replace("{apiKey}", key)
    if not is_own_header(header) or "\n" in value or "\r" in value:
        notes.append(f"its API key is left out: the header {header!r} cannot be sent")
        return {}
    if always_bearer and value != f"Bearer {key}":
        notes.append(f"{header} is sent as its setting says; the original sent it as `Bearer KEY`")
    return {header: as_plain_text(value)}


def clients_by_hand(servers: Iterable[Row]) -> Iterator[Row]:
    """Yield the OAuth clients that were written into a server by hand, as rows of its registrations."""
    for row in servers:
        config = document_of(row.get("oauth_config"))
        if isinstance(config, dict) and (client := text_of(config.get("clientId"))):
            yield {
                **row,
                "mcp_server_id": row["id"],
                "authorization_server_url": text_of(config.get("authorizationServerUrl")) or "",
                "client_id": client,
                "client_secret": config.get("clientSecret"),
                "metadata": '{"kind": "own"}',
            }


def call_of(row: Row) -> dict[str, object]:
    """Return what a row of its log says of a call, without arguments and results: they were not redacted."""
    error = text_of(row.get("error_message"))
    return {
        "created_at": ms_of(row["created_at"]),
        "method": str(row["request_type"]),
        "status": _STATUS.get(str(row["status"])),
        "error": redact_text(error) if error else None,
        "duration_us": number_of(row.get("duration_ms")) * 1000,
        "request_bytes": len(str(row.get("request_payload") or "").encode()),
        "response_bytes": len(str(row.get("response_payload") or "").encode()),
    }


def document_of(text: object) -> object:
    """Return the value of a JSON text, also of one inside another; None for text that is not JSON."""
    value: object = text
    for _ in range(2):
        if not isinstance(value, str):
            break
        try:
            value = parse_json(value)
            json.dumps(value, ensure_ascii=False).encode()  # half a character is no text
        except (ValueError, RecursionError):
            return None
    return value


def text_of(value: object) -> str | None:
    """Return a text with something in it, without spaces around; None for anything else."""
    return (value.strip() or None) if isinstance(value, str) else None


def as_text(value: object) -> str:
    """Return a text as it is, and any other JSON value as JSON."""
    return value if isinstance(value, str) else json.dumps(value)


def flag_of(value: object) -> int:
    """Return a flag as 0 or 1; the first versions had none, and meant 1."""
    return 1 if value is None else int(value not in (0, "0", "false"))


def number_of(value: object) -> int:
    """Return a number that a column can hold in thousandths, too."""
    if not isinstance(value, int | float) or value != value:  # noqa: PLR0124  not a number
        return 0
    return int(max(min(value, _LARGEST), -_LARGEST))


def times_of(row: Row) -> dict[str, int]:
    """Return created_at and updated_at; the first versions left them out in some tables."""
    created = ms_of(row.get("created_at"), now_ms())
    return {"created_at": created, "updated_at": ms_of(row.get("updated_at"), created)}


def ms_of(value: object, default: int = 0) -> int:
    """Return a time in milliseconds: it is a number of them or of seconds, or text, in UTC unless it says so."""
    if isinstance(value, int | float):
        number = number_of(value)
        return number * 1000 if abs(number) < _LAST_SECOND else number
    try:
        moment = datetime.fromisoformat(str(value))
    except ValueError:
        return default
    return int((moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp() * 1000)
