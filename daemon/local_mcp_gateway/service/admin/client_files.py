"""Read the servers out of the configuration files of MCP clients.

Seventeen clients keep theirs under different keys and in different words. Each entry becomes a
definition with notes on what was changed or has no place here, or a reason why it is left out; one bad
entry never costs the others. Values are never guessed: `null` is "not set", a number is its text.
"""

from __future__ import annotations

import json
import re
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import reduce
from pathlib import Path
from typing import Any

from local_mcp_gateway.errors import GatewayError, UsageProblem
from local_mcp_gateway.json_input import parse_jsonc
from local_mcp_gateway.log import is_secret_key, redact_arguments, secrets_in_url
from local_mcp_gateway.service.admin.registry_file import read_registry_file
from local_mcp_gateway.service.admin.yaml_file import parse_yaml
from local_mcp_gateway.store import (
    VARIABLE,
    ServerDefinition,
    ServerKind,
    Share,
    find_variables,
    fit_name,
)

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

_KINDS = {
    "stdio": ServerKind.STDIO,
    "local": ServerKind.STDIO,
    "http": ServerKind.HTTP,
    "remote": ServerKind.HTTP,
    "streamable-http": ServerKind.HTTP,
    "streamable_http": ServerKind.HTTP,
    "streamableHttp": ServerKind.HTTP,
    "sse": ServerKind.SSE,
}
_HOLDERS = ("mcpServers", "servers", "context_servers", "mcp_servers")
_URLS = ("url", "serverUrl", "httpUrl", "uri")
_USED = {
    *_URLS, "name", "type", "transport", "transportType", "command", "cmd", "args", "env",
    "environment", "envs", "cwd", "headers", "http_headers", "disabled", "enabled", "share",
    "max_clients", "idle_stop_s", "bearer_token_env_var", "env_http_headers", "env_vars", "source",
    "timeout_s", "proxy", "ca", "insecure", "client_headers", "env_keys", "requestOptions",
}  # fmt: skip
"""The members of an entry that have a place here; the others are named in a note."""
_NO_MATTER = {
    "description",
    "display_name",
    "bundled",
    "trust",
    "alwaysAllow",
    "autoApprove",
    "alwaysLoad",
    "required",
    "gallery",
}
"""Members for the client alone: what it shows or asks its user."""


_SPELLINGS = (
    re.compile(r"(?<!\$)\{env:(\w+)\}"),  # opencode
    re.compile(r"\$\{\{\s*(?:secrets|inputs)\.([A-Za-z_][\w-]*)\s*\}\}"),  # Continue
    re.compile(
        r"(?<!\S)\$([A-Z_][A-Z0-9_]*)(?!\S)"
    ),  # Gemini CLI and Copilot CLI: $TOKEN, a word alone
)
"""How clients write a variable, besides `${NAME}`."""


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
    return isinstance(value, dict) and any(key in value for key in ("command", "cmd", *_URLS))


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
        server = _Reader(fit, entry, notes).definition().checked()
    except GatewayError as error:
        return Entry(name, None, error.message)
    taken.add(fit)
    return Entry(name, server, notes=tuple(notes))


class _Reader:
    """Reads one entry; `notes` gets what a person should know of it."""

    def __init__(self, name: str, entry: object, notes: list[str]) -> None:
        if not isinstance(entry, dict):
            raise UsageProblem(f"The server {name!r} in the file is not an object.")
        self._name, self._entry, self._notes = name, entry, notes

    def definition(self) -> ServerDefinition:
        """Return the definition; raises UsageProblem for what cannot be one."""
        entry = self._entry
        command, args, env = self._command()
        url = next((entry[key] for key in _URLS if entry.get(key)), None)
        declared = next(
            (entry[key] for key in ("type", "transport", "transportType") if entry.get(key)),
            "http" if url else "stdio",
        )
        if not isinstance(declared, str) or declared not in _KINDS:
            raise UsageProblem(
                f"The server {self._name!r} has the type {declared!r}; the gateway speaks stdio, http and sse."
            )
        if command is None and url is None and "settings" in entry:  # Zed
            raise UsageProblem(
                f"The server {self._name!r} is started by an extension of its client."
            )
        local = _KINDS[declared] is ServerKind.STDIO
        self._note_the_rest()
        server = ServerDefinition(
            name=self._name,
            kind=_KINDS[declared],
            command=command if local else None,
            args=args if local else (),
            env=env if local else {},
            cwd=self._text("cwd") if local else None,
            url=None if local else str(url),
            headers={} if local else self._headers(),
            active=not entry.get("disabled", False) and entry.get("enabled") is not False,
            share=self._share(),
            max_clients=self._number("max_clients"),
            idle_stop_s=self._number("idle_stop_s"),
            timeout_s=self._number("timeout_s"),
            proxy=None if local else self._text("proxy"),
            ca=None if local else self._text("ca"),
            insecure=not local and entry.get("insecure") is True,
            client_headers=()
            if local
            else self._list("client_headers", entry.get("client_headers")),
        )
        if variables := find_variables(server):
            self._notes.append(f"filled in when it starts: {', '.join(variables)}")
        self._note_secrets(server)
        if server.insecure:
            self._notes.append("its certificate is not checked, as in the file")
        if not server.active:
            self._notes.append("it is switched off, as in the file")
        return server

    def _command(self) -> tuple[str | None, tuple[str, ...], dict[str, str]]:
        """Return program, arguments and environment, of every spelling."""
        entry = self._entry
        given = entry.get("command", entry.get("cmd"))
        args = entry.get("args")
        env: dict[str, str] = {}
        for key in ("env", "environment", "envs"):
            env |= self._texts(key, entry.get(key))
        if isinstance(given, dict):  # Zed of old: {"path": …, "args": […]}
            args, env = given.get("args", args), env | self._texts("env", given.get("env"))
            given = given.get("path")
        if isinstance(given, list):  # opencode: one list
            given, args = (given[0], given[1:]) if given else (None, [])
        if given is not None and not isinstance(given, str):
            raise UsageProblem(f"The server {self._name!r} has a command that is not text.")
        for key in ("env_vars", "env_keys"):
            for passed_on in self._list(key, entry.get(key)):
                env[passed_on] = f"${{{passed_on}}}"
        return given, self._list("args", args), env

    def _headers(self) -> dict[str, str]:
        entry = self._entry
        headers = self._texts("headers", entry.get("headers"))
        headers |= self._texts("http_headers", entry.get("http_headers"))
        if isinstance(options := entry.get("requestOptions"), dict):  # Continue
            headers |= self._texts("requestOptions.headers", options.get("headers"))
        for header, name in self._texts("env_http_headers", entry.get("env_http_headers")).items():
            headers[header] = f"${{{name}}}"
        if token := entry.get("bearer_token_env_var"):
            headers["Authorization"] = f"Bearer ${{{token}}}"
        return headers

    def _note_the_rest(self) -> None:
        unused = sorted(self._entry.keys() - _USED - _NO_MATTER)
        if self._entry.get("tools") == ["*"]:  # Copilot CLI: all of them
            unused.remove("tools")
        if unused:
            self._notes.append(f"not taken over: {', '.join(map(str, unused))}")

    def _note_secrets(self, server: ServerDefinition) -> None:
        """Name what is a secret in plain text in the file: values are sealed here, arguments and URL are not."""
        groups = {"env": server.env, "headers": server.headers}
        plain = [
            f"{group}.{key}"
            for group, values in groups.items()
            for key, value in values.items()
            if value and is_secret_key(key) and not VARIABLE.search(value)
        ]
        if plain:
            self._notes.append(f"sealed here, but plain text in the file: {', '.join(plain)}")
        bare = [
            where
            for where, found in (
                ("arguments", redact_arguments(server.args) != list(server.args)),
                ("URL", bool(server.url and secrets_in_url(server.url))),
            )
            if found
        ]
        if bare:
            text = f"what looks like a secret in its {' and '.join(bare)} is not sealed: write ${{NAME}} there"
            self._notes.append(text)

    def _share(self) -> Share:
        value = self._entry.get("share", Share.AUTO)
        if value not in tuple(Share):
            raise UsageProblem(
                f"The server {self._name!r} has share {value!r}, not {', '.join(Share)}."
            )
        return Share(value)

    def _number(self, key: str) -> int | None:
        value = self._entry.get(key)
        if value is not None and type(value) is not int:
            raise UsageProblem(f"The server {self._name!r} has {key} that is not a whole number.")
        return value

    def _text(self, key: str) -> str | None:
        value = self._entry.get(key)
        if value is not None and not isinstance(value, str):
            raise UsageProblem(f"The server {self._name!r} has a {key} that is not text.")
        return value

    def _list(self, key: str, value: object) -> tuple[str, ...]:
        if value is None:
            return ()
        if not isinstance(value, list):
            raise UsageProblem(f"The server {self._name!r} has {key} that are not a list.")
        return tuple(text for item in value if (text := self._as_text(key, item)) is not None)

    def _texts(self, key: str, value: object) -> dict[str, str]:
        if value is None:
            return {}
        if not isinstance(value, dict):
            raise UsageProblem(f"The server {self._name!r} has {key} that is not an object.")
        found = {str(name): self._as_text(f"{key}.{name}", item) for name, item in value.items()}
        return {name: text for name, text in found.items() if text is not None}

    def _as_text(self, where: str, value: Any) -> str | None:
        """Return the text of a value; None for null, which a note names."""
        if value is None:
            self._notes.append(f"{where} is null, so it is not set")
        if isinstance(value, str):
            return reduce(lambda text, spelling: spelling.sub(r"${\1}", text), _SPELLINGS, value)
        if value is None:
            return None
        if isinstance(value, (bool, int, float)):
            return json.dumps(value)
        raise UsageProblem(f"The server {self._name!r} has {where} that is not text.")
