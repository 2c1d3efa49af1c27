"""Read one server from an MCP client's configuration file, in the spelling of any client."""

from __future__ import annotations

import json
import re
from functools import reduce
from typing import Any

from local_mcp_gateway.errors import UsageProblem
from local_mcp_gateway.log import is_secret_key, redact_arguments, secrets_in_url
from local_mcp_gateway.store import (
    VARIABLE,
    ServerDefinition,
    ServerKind,
    Share,
    find_variables,
    read_env_file,
)

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
URLS = ("url", "serverUrl", "httpUrl", "uri")
_USED = {
    *URLS, "name", "type", "transport", "transportType", "command", "cmd", "args", "env",
    "environment", "envs", "cwd", "headers", "http_headers", "disabled", "enabled", "share",
    "max_clients", "idle_stop_s", "bearer_token_env_var", "env_http_headers", "env_vars", "source",
    "timeout_s", "proxy", "ca", "insecure", "client_headers", "env_keys", "requestOptions",
    "envFile", "disabledTools", "disabled_tools", "excludeTools",
}  # fmt: skip
"""The members of an entry that have a place here; the others are named in a note."""
_HIDDEN_TOOLS = ("disabledTools", "disabled_tools", "excludeTools")
_SHOWN_TOOLS = ("enabled_tools", "includeTools", "available_tools", "tools")
_SURELY_S, _SURELY_MS = 1000, 10_000
"""A `timeout` below the first is in seconds, from the second on in milliseconds: clients differ."""
_LONGEST_S = 365 * 86_400
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


class EntryReader:
    """Reads one entry; `notes` gets what a person should know of it."""

    def __init__(self, name: str, entry: object, notes: list[str]) -> None:
        if not isinstance(entry, dict):
            raise UsageProblem(f"The server {name!r} in the file is not an object.")
        self._name, self._entry, self._notes = name, entry, notes
        self._read_too: set[str] = set()
        self.hidden_tools: tuple[str, ...] = ()
        """Tools that the client does not show, once the definition is read."""

    def definition(self) -> ServerDefinition:
        """Return the definition; raises UsageProblem for what cannot be one."""
        entry = self._entry
        command, args, env = self._command()
        url = next((entry[key] for key in URLS if entry.get(key)), None)
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
        timeout_s = self._timeout(declared)
        if local:
            env = {**self._env_file(), **env}
        self._hide_tools()
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
            timeout_s=timeout_s,
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

    def _timeout(self, declared: str) -> int | None:
        """Return how many seconds a call may take, if the file says so."""
        entry = self._entry
        key = next((key for key in ("tool_timeout_sec", "timeout") if key in entry), "timeout_s")
        opencodes = declared == "remote" or isinstance(entry.get("command"), list)
        if key == "timeout_s" or type(entry[key]) not in (int, float) or opencodes:
            return self._number("timeout_s")  # opencode's is for the list of tools
        self._read_too.add(key)
        given: float = entry[key]
        if key == "timeout" and _SURELY_S <= given < _SURELY_MS:
            self._notes.append(
                f"its timeout {given} may be seconds or milliseconds: `server edit --timeout`"
            )
            return None
        seconds = given / 1000 if key == "timeout" and given >= _SURELY_MS else given
        if not 0 < seconds < _LONGEST_S:  # or not a number
            self._notes.append(f"its {key} {given} is not a time limit")
            return None
        taken = max(1, round(seconds))
        self._notes.append(f"a call may take {taken} s, as in the file")
        return taken

    def _env_file(self) -> dict[str, str]:
        """Return a reference to each variable of the file that the entry names."""
        named = self._text("envFile")
        if not named:
            return {}
        path = named.replace("${userHome}", "~", 1)
        if VARIABLE.search(path) or not path.startswith(("/", "~")):
            self._notes.append(
                f"its envFile {named} is of the project that is open: it is not read"
            )
            return {}
        try:
            names = read_env_file(path)
        except ValueError as problem:
            self._notes.append(f"its envFile {named} cannot be read: {problem}")
            return {}
        return {name: f"${{envFile:{path}#{name}}}" for name in names}

    def _hide_tools(self) -> None:
        """Take the tools that the client does not show; one that shows only some is named."""
        hidden: dict[str, None] = {}
        for key in _HIDDEN_TOOLS:
            hidden |= dict.fromkeys(self._list(key, self._entry.get(key)))
        self.hidden_tools = tuple(hidden)
        if hidden:
            self._notes.append(f"hidden, as in the file: {', '.join(hidden)}")
        for key in _SHOWN_TOOLS:
            shown = self._entry.get(key)
            if not isinstance(shown, list):
                continue
            self._read_too.add(key)
            if shown != ["*"] and (shown or key != "available_tools"):  # Goose: none is all
                names = ", ".join(map(str, shown)) or "none"
                self._notes.append(
                    f"its client shows only these tools: {names}; `profile tool --hide` hides others"
                )

    def _note_the_rest(self) -> None:
        unused = sorted(self._entry.keys() - _USED - _NO_MATTER - self._read_too)
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
