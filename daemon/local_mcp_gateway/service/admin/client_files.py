"""Read the servers out of the configuration files of MCP clients.

Seventeen clients keep theirs under different keys and in different words. Each entry becomes a
definition with notes on what was changed or has no place here, or a reason why it is left out; one bad
entry never costs the others. Values are never guessed: `null` is "not set", a number is its text.
"""

from __future__ import annotations

import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from local_mcp_gateway.errors import GatewayError, UsageProblem
from local_mcp_gateway.json_input import parse_jsonc
from local_mcp_gateway.service.admin.client_entry import URLS, EntryReader
from local_mcp_gateway.service.admin.registry_file import read_registry_file
from local_mcp_gateway.service.admin.yaml_file import parse_yaml
from local_mcp_gateway.store import ServerDefinition, fit_name

PLACES: Mapping[str, tuple[str, ...]] = {
    "Claude Desktop": (
        ".config/Claude/claude_desktop_config.json",
        "Library/Application Support/Claude/claude_desktop_config.json",
    ),
    "Claude Code": (".claude.json",),
    "VS Code": (
        ".config/Code/User/mcp.json",
        ".config/Code/User/settings.json",
        "Library/Application Support/Code/User/mcp.json",
    ),
    "Cursor": (".cursor/mcp.json",),
    "Windsurf": (".codeium/windsurf/mcp_config.json", ".config/devin/mcp_config.json"),
    "Zed": (".config/zed/settings.json",),
    "Goose": (".config/goose/config.yaml",),
    "Continue": (
        ".continue/config.yaml",
        ".continue/mcpServers/*.yaml",
        ".continue/mcpServers/*.json",
    ),
    "Cline": (
        ".config/Code/User/globalStorage/saoudrizwan.claude-dev/settings/cline_mcp_settings.json",
        ".cline/data/settings/cline_mcp_settings.json",
    ),
    "Roo Code": (
        ".config/Code/User/globalStorage/rooveterinaryinc.roo-cline/settings/mcp_settings.json",
    ),
    "Codex": (".codex/config.toml",),
    "Gemini CLI": (".gemini/settings.json",),
    "LM Studio": (".lmstudio/mcp.json",),
    "opencode": (".config/opencode/opencode.json", ".config/opencode/opencode.jsonc"),
    "Copilot CLI": (".copilot/mcp-config.json",),
    "Amazon Q": (".aws/amazonq/mcp.json", ".aws/amazonq/cli-agents/*.json"),
    "Kiro": (".kiro/settings/mcp.json",),
}
"""Where each client keeps its files, from the home folder."""

_HOLDERS = ("mcpServers", "servers", "context_servers", "mcp_servers")


@dataclass(frozen=True, slots=True)
class Entry:
    """One server of a file: what it becomes here, or why it is left out."""

    name: str
    """As the file has it."""
    server: ServerDefinition | None
    reason: str | None = None
    """Why it is left out; None if it is not."""
    notes: tuple[str, ...] = ()
    """What was changed, and what has no place here."""
    hidden_tools: tuple[str, ...] = ()
    """Tools that the client did not show."""


def parse_client_file(text: bytes, name: str = "") -> object:
    """Return the document; raises ValueError for text that is not JSON (comments are fine), TOML or YAML."""
    plain = text.decode("utf-8-sig")
    if name.endswith((".yaml", ".yml")):
        return parse_yaml(plain)
    if name.endswith(".toml"):
        return tomllib.loads(plain)
    return parse_jsonc(plain)


def files_of_clients(home: Path) -> Iterator[tuple[str, Path]]:
    """Yield (client, file) for each configuration file that is on this machine."""
    for client, places in PLACES.items():
        for place in places:
            for file in sorted(home.glob(place)):
                if file.is_file():
                    yield client, file


def read_entries(document: object) -> tuple[Entry, ...]:
    """Return every server of a document under a name of its own; raises UsageProblem if it lists none."""
    taken: set[str] = set()
    found = [_read(name, entry, taken, where) for name, entry, where in _listed(document)]
    if not found:
        raise UsageProblem(
            "The file holds no list of MCP servers.",
            hint='It must look like {"mcpServers": {"name": {"command": "…", "args": []}}}.',
        )
    return tuple(found)


def _listed(document: object) -> Iterator[tuple[str, object, str]]:
    """Yield (name, entry, the project that it belongs to) from wherever a client keeps them."""
    if not isinstance(document, dict):
        return
    if (registered := read_registry_file(document)) is not None:
        yield registered.name, registered.entry, ""
        return
    nested = document.get("mcp")
    for holder in (document, nested) if isinstance(nested, dict) else (document,):
        for key in _HOLDERS:
            for name, entry, where in _pairs(holder.get(key), ""):
                yield name, _switched_off(entry) if _excluded(name, nested) else entry, where
    yield from _kept_with_other_things(document)
    projects = document.get("projects")
    for path, project in projects.items() if isinstance(projects, dict) else ():
        if isinstance(project, dict):
            yield from _pairs(project.get("mcpServers"), str(path))
    if document and all(map(_is_entry, document.values())):  # a file of names alone
        yield from _pairs(document, "")


def _kept_with_other_things(document: dict[Any, Any]) -> Iterator[tuple[str, object, str]]:
    """Yield the servers of opencode and of Goose, whose lists hold more than servers."""
    for key in ("mcp", "extensions"):
        held = document.get(key)
        if isinstance(held, dict) and not any(name in held for name in _HOLDERS):
            yield from _pairs({k: v for k, v in held.items() if _is_entry(v)}, "")


def _pairs(value: object, project: str) -> Iterator[tuple[str, object, str]]:
    if isinstance(value, dict):
        for name, entry in value.items():
            yield str(name), entry, project
    elif isinstance(value, list):
        for number, entry in enumerate(value, 1):
            named = entry.get("name") if isinstance(entry, dict) else None
            yield str(named or f"server-{number}"), entry, project


def _is_entry(value: object) -> bool:
    return isinstance(value, dict) and any(key in value for key in ("command", "cmd", *URLS))


def _excluded(name: str, lists: object) -> bool:
    """Tell whether Gemini CLI's `mcp.allowed` or `mcp.excluded` switches a server off."""
    if not isinstance(lists, dict):
        return False
    allowed, excluded = lists.get("allowed"), lists.get("excluded")
    return (isinstance(allowed, list) and name not in allowed) or (
        isinstance(excluded, list) and name in excluded
    )


def _switched_off(entry: object) -> object:
    return {**entry, "disabled": True} if isinstance(entry, dict) else entry


def _read(name: str, entry: object, taken: set[str], project: str) -> Entry:
    notes = [f"it was for the project {project} only"] if project else []
    try:
        fit = fit_name(name, taken)
        if fit != name:
            notes.append(f"it was called {name!r}")
        reader = EntryReader(fit, entry, notes)
        server = reader.definition().checked()
    except GatewayError as error:
        return Entry(name, None, error.message)
    taken.add(fit)
    return Entry(name, server, notes=tuple(notes), hidden_tools=reader.hidden_tools)
