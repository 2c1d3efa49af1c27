"""What dev mode says when it is up: where it is, and the lines to paste into a client."""

from __future__ import annotations

import json
import sys


def greet(url: str, profiles: tuple[str, ...]) -> None:
    """Print the address of every profile and the lines for the usual clients, on stdout."""
    sys.stdout.write(greeting(url, profiles))
    sys.stdout.flush()


def greeting(url: str, profiles: tuple[str, ...]) -> str:
    """Return the text; `url` is without a path."""
    paths = {f"/mcp/{profile}": f"profile {profile}" for profile in profiles}
    first = f"{url}{next(iter(paths), '/mcp')}"
    entry = {"mcpServers": {"local-gateway": {"type": "http", "url": first}}}
    lines = [
        "",
        "  Local MCP Gateway is up. Press Ctrl+C to stop.",
        "",
        *(f"    {url + path:<44} {what}" for path, what in paths.items()),
        *([] if paths else ["    There is no profile yet: `server add NAME -- COMMAND ARGS…`."]),
        "",
        "  Claude Code:",
        f"    claude mcp add --transport http local-gateway {first}",
        "  Cursor, VS Code and other clients, in their mcpServers file:",
        f"    {json.dumps(entry)}",
        "",
    ]
    return "\n".join(lines) + "\n"
