"""Replace the variables in a server's definition when it starts: `${VAR}` and the spellings of clients.

The reference is what is stored, so a token that a client's file names stays in the environment. It is
looked up in the server's own `env`, then in the environment of the gateway. `${file:PATH}` is the text of
a file, without the line end at its end; `${envFile:PATH#VAR}` a value of one with `VAR=value` lines. `$${VAR}`
is the text itself.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from local_mcp_gateway.errors import UsageProblem
from local_mcp_gateway.log import redact_url
from local_mcp_gateway.regular_file import read_given

if TYPE_CHECKING:
    from local_mcp_gateway.store.model import ServerDefinition

VARIABLE = re.compile(
    r"(\$?)\$\{(?:(\w+):(?!-)([A-Za-z_/~.][^}]*?)|([A-Za-z_][\w.-]*?))(?::-([^}]*))?\}"
)
"""`${VAR}`, `${VAR:-default}`, `${env:VAR}`, `${input:id}`, `${file:PATH}`; what a shell computes is not among them."""
_NOT_IN_URL = re.compile(r"[\x00-\x20\x7f]")
_NOT_IN_HOST = re.compile(r"[\\{}<>|^`\"]")
_LINE_OF_ENV = re.compile(
    r"""^[ \t]*(?:export[ \t]+)?([A-Za-z_][\w.-]*)[ \t]*=[ \t]*"""
    r"""(?:("(?:\\.|[^"\\])*"|'[^']*'|`[^`]*`)|([^#\r\n]*))""",
    re.MULTILINE,
)
_KNOWN = {None, "env", "input"}


def find_variables(server: ServerDefinition) -> tuple[str, ...]:
    """Return the references in a definition, as they are written."""
    found: dict[str, None] = {}
    for text in _texts(server):
        found |= {m.group(): None for m in VARIABLE.finditer(text) if not m.group(1)}
    return tuple(found)


def as_plain_text(text: str) -> str:
    """Return the text so that nothing in it is a reference."""
    return VARIABLE.sub(
        lambda match: match.group() if match.group(1) else f"${match.group()}", text
    )


def expand_variables(
    server: ServerDefinition, environment: Mapping[str, str]
) -> tuple[ServerDefinition, frozenset[str]]:
    """Return the definition with every variable replaced, and the values that were put in.

    Raises UsageProblem for one that is not set and has no default, or makes an impossible URL.
    """
    if not any("${" in text for text in _texts(server)):
        return server, frozenset()
    outside = {"userHome": str(Path.home()), **environment}
    used: set[str] = set()
    begun: set[str] = set()
    own: dict[str, str] = {}

    def find(name: str) -> str | None:
        if name in server.env and name not in begun:  # one that names itself means the outer one
            begun.add(name)
            own[name] = filled(server.env[name])
        return own.get(name, outside.get(name))

    def filled(text: str) -> str:
        return VARIABLE.sub(lambda match: _value(server, match, find, used), text)

    for name in server.env:
        find(name)
    expanded = replace(
        server,
        command=server.command and filled(server.command),
        args=tuple(map(filled, server.args)),
        env={name: own[name] for name in server.env},
        cwd=server.cwd and filled(server.cwd),
        url=server.url and filled(server.url),
        headers={name: filled(text) for name, text in server.headers.items()},
    )
    if expanded.url and (problem := problem_of_url(expanded.url)):
        raise UsageProblem(
            f"The URL {redact_url(server.url or '')} of server {server.name!r}, with the values of its"
            f" variables, {problem}.",
            hint="Correct the values where the gateway starts, and `reload`.",
        )
    return expanded, frozenset(used)


def problem_of_url(url: str) -> str | None:
    """Return why no server can be at a URL, as the end of a sentence; a variable may stand for anything."""
    if (variable := VARIABLE.match(url)) and not variable.group(1):
        return None
    text = VARIABLE.sub("1", url)
    if not text.startswith(("http://", "https://")):
        return "is not one of http or https"
    if _NOT_IN_URL.search(text):
        return "has a blank or a control character in it"
    try:
        parts = urlsplit(text)
    except ValueError:
        return "has no valid host"
    if not parts.hostname or _NOT_IN_HOST.search(parts.netloc):
        return "has no valid host"
    with suppress(ValueError):  # no number, or too high
        if parts.port != 0:
            return None
    return "has no port from 1 to 65535"


def _value(
    server: ServerDefinition,
    match: re.Match[str],
    find: Callable[[str], str | None],
    used: set[str],
) -> str:
    escaped, source, there, name, default = match.groups()
    if escaped:
        return match.group()[1:]
    if source == "file":
        value: str | None = _text_of(server, there)
    elif source == "envFile":
        value = _value_in_file(server, there)
    else:
        found = find(there or name) if source in _KNOWN else None
        value = default if found is None else found
    if value is None:
        where = f" or `server edit {server.name} --env {there or name}=…`" if server.command else ""
        raise UsageProblem(
            f"The variable {match.group()} of server {server.name!r} is not set.",
            hint=f"Set it where the gateway starts{where}, and `reload`.",
        )
    used.add(value)
    return value


def read_env_file(file: str) -> dict[str, str]:
    """Return the variables of a file of `NAME=value` lines; raises ValueError with the reason if there is none.

    As editors read their `envFile`: quotes are taken off, and `#` begins a comment.
    """
    found: dict[str, str] = {}
    for name, quoted, plain in _LINE_OF_ENV.findall(_read(file)):
        text = quoted[1:-1] if quoted else plain.strip()
        if quoted.startswith('"'):
            text = text.replace("\\n", "\n").replace("\\r", "\r").replace('\\"', '"')
        found[name] = text
    return found


def _text_of(server: ServerDefinition, file: str) -> str:
    try:
        return _read(file).rstrip("\r\n")
    except ValueError as reason:
        raise _unreadable(server, file, reason) from None


def _value_in_file(server: ServerDefinition, place: str) -> str | None:
    file, _, name = place.rpartition("#")
    try:
        return read_env_file(file).get(name)
    except ValueError as reason:
        raise _unreadable(server, file, reason) from None


def _unreadable(server: ServerDefinition, file: str, reason: ValueError) -> UsageProblem:
    return UsageProblem(
        f"The file {file} that server {server.name!r} names cannot be read: {reason}.",
        hint="Let the user of the gateway read it, and `reload`.",
    )


def _read(file: str) -> str:
    """Return the text of a file; raises ValueError with the reason if there is none."""
    reason: str | None
    try:
        return read_given(Path(file).expanduser()).decode("utf-8-sig")
    except OSError as error:
        reason = error.strerror
    except UnicodeDecodeError:
        reason = "it is not UTF-8 text"
    except RuntimeError:  # of `expanduser`
        reason = "there is no such home folder"
    raise ValueError(reason)


def _texts(server: ServerDefinition) -> tuple[str, ...]:
    given = (server.command, server.cwd, server.url, *server.args)
    return (*filter(None, given), *server.env.values(), *server.headers.values())
