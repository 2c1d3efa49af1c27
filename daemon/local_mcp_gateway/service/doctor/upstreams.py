"""What is checked of the servers behind the gateway, and of the clients before it."""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING, Literal

from local_mcp_gateway.database import columns_of, reading, table_names
from local_mcp_gateway.formats import counted
from local_mcp_gateway.service.doctor.finding import Finding
from local_mcp_gateway.store import COLUMNS

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from local_mcp_gateway.config import Settings


def upstreams(settings: Settings) -> Iterator[Finding]:
    """Tell whether the commands of the stdio servers exist, and what else is odd about the servers."""
    if not settings.database_path.exists():
        return
    with reading(settings.database_path) as reader:
        found = columns_of(reader).get("mcp_servers", set())
        known = found.issuperset(COLUMNS["mcp_servers"].split())
        rows = reader.execute("SELECT * FROM mcp_servers WHERE active = 1") if known else None
        columns = [column[0] for column in rows.description] if rows else []
        servers = [dict(zip(columns, row, strict=True)) for row in rows or ()]
    commands = [
        (str(server["name"]), str(server["command"]))
        for server in servers
        if server["kind"] == "stdio"
    ]
    for name in [str(server["name"]) for server in servers if server.get("insecure")]:
        yield Finding(
            "upstreams",
            "note",
            f"{name}: its certificate is not checked.",
            f"If you can, name its authority: `server edit {name} --secure --ca FILE`.",
        )
    boxed = [str(server["name"]) for server in servers if server.get("sandbox")]
    if commands:
        yield from _sandboxes(boxed)
    yield from _names(settings)
    missing = [(name, command) for name, command in commands if shutil.which(command) is None]
    for name, command in missing:
        hint = f"Install it, or give its full path: `server edit {name} -- PATH …`."
        yield Finding(
            "upstreams", "problem", f"{name}: the command {command!r} is not found.", hint
        )
    if not commands:
        yield Finding("upstreams", "ok", "No server is a command of this machine.")
    elif not missing:
        count = counted(len(commands), "stdio server")
        yield Finding("upstreams", "ok", f"{count}: every command exists.")


def running(servers: Mapping[str, Mapping[str, str | None]]) -> Iterator[Finding]:
    """Tell which servers of a running gateway have a problem."""
    for server, live in servers.items():
        if reason := live["reason"]:
            failed = live["state"] in {"failed", "needs_sign_in"}
            hint = f"Try it with `server test {server}`."
            if live["state"] == "needs_sign_in":
                hint = f"Sign in with `server login {server}`."
            state: Literal["note", "problem"] = "problem" if failed else "note"
            yield Finding("server", state, f"{server}: {reason}.", hint)


def clients(titles: Sequence[str]) -> Finding:
    """Tell which MCP clients on this machine point to this gateway, by their titles."""
    if titles:
        verb = "points" if len(titles) == 1 else "point"
        return Finding("clients", "ok", f"{', '.join(titles)} {verb} to this gateway.")
    hint = "`connect` shows how, `connect CLIENT` does it."
    return Finding("clients", "note", "No client on this machine points to this gateway.", hint)


def _sandboxes(names: Sequence[str]) -> Iterator[Finding]:
    """Tell what a sandbox on this machine cannot do; `names` are the servers that have one."""
    from local_mcp_gateway.gateway import NoSandbox, sandbox_gaps

    boxed = ", ".join(names) or "No server has one"
    try:
        gaps = sandbox_gaps()
    except NoSandbox as problem:
        hint = "A newer kernel, or `server edit NAME --no-sandbox`: they do not start without it."
        if names:
            yield Finding("sandbox", "problem", f"{boxed}: {problem}.", hint)
        else:
            yield Finding("sandbox", "note", f"{boxed}, and none can: {problem}.")
        return
    for gap in gaps:
        yield Finding("sandbox", "note", f"{boxed}: in a sandbox {gap}.", "Use a newer kernel.")
    if not gaps and names:
        yield Finding("sandbox", "ok", f"The kernel has all that the sandbox of {boxed} needs.")
    elif not gaps:
        yield Finding("sandbox", "ok", f"{boxed}; this kernel has all that it needs.")


def _names(settings: Settings) -> Iterator[Finding]:
    """Tell which tools get another name, because model APIs refuse theirs."""
    from local_mcp_gateway.gateway import fitting, remembered
    from local_mcp_gateway.store import CatalogKind

    with reading(settings.database_path) as reader:
        if "mcp_server_catalog_cache" not in table_names(reader):
            return
        lists = reader.execute(
            "SELECT s.name, c.body FROM mcp_servers s JOIN mcp_server_catalog_cache c"
            " ON c.mcp_server_id = s.id WHERE c.kind = 'tools' AND s.active = 1 ORDER BY s.name"
        ).fetchall()
    for server, body in lists:
        tools = [item.key for item in remembered(CatalogKind.TOOLS, body)]
        refused = [tool for tool in tools if fitting(tool) != tool]
        if refused:
            first = refused[0]
            more = f" and {len(refused) - 1} more" if len(refused) > 1 else ""
            shown = (
                f"{server}: model APIs refuse the tool name {first!r}, so it is shown as"
                f" {fitting(first)!r}{more}."
            )
            hint = f"Give it another: `profile tool PROFILE {server} {first} --rename NAME`."
            yield Finding("upstreams", "note", shown, hint)
