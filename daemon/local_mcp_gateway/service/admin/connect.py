"""Connect MCP clients to this gateway: the lines to paste, and the edit of a client's own file.

The file belongs to the client. Only the gateway's entry in it is set or removed; a file that cannot be
edited safely is left alone. The file as it was before stays next to it, and an undo puts it back byte for
byte if nothing else has changed since, or else takes only the entry out again.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from difflib import unified_diff
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from local_mcp_gateway.backup import temporary_file
from local_mcp_gateway.database import flush
from local_mcp_gateway.errors import GatewayError, UsageProblem
from local_mcp_gateway.regular_file import read_bytes, write_all
from local_mcp_gateway.service.admin.client_files import (
    PLACES,
    files_of_clients,
    parse_client_file,
    read_entries,
)
from local_mcp_gateway.service.admin.yaml_file import remove_from_yaml, set_in_yaml
from local_mcp_gateway.text_edit import (
    CannotEdit,
    remove_from_json,
    remove_from_toml,
    set_in_json,
    set_in_toml,
    value_at,
)

if TYPE_CHECKING:
    from local_mcp_gateway.service.admin.own_address import OwnAddress

NAME: Final = "local-gateway"
"""What the gateway is called in a client's file, unless another name is given."""
BACKUP: Final = ".before-local-mcp-gateway"
PRIVATE_FILE: Final = 0o600


_Entry = Mapping[str, object]


def _command(command: str, args: Sequence[str]) -> _Entry:
    return {"command": command, "args": args}


@dataclass(frozen=True, slots=True)
class Client:
    """How one client wants its servers to be written."""

    title: str
    """As in `PLACES`."""
    holder: str
    """The member of its file that holds the servers."""
    entry: Callable[[str], _Entry]
    """From the URL of a profile to the entry."""
    then: str = "Restart it."
    started: Callable[[str, Sequence[str]], _Entry] = _command
    """From a program and its arguments to the entry."""
    file: str | None = None
    """Where it is written, from the home folder; None: one of `PLACES`."""
    named: bool = False
    """Whether an entry says its name, too."""
    newer: str | None = None
    """The member of the holder that has the servers instead, unless the file has some of old."""

    def entry_with(self, url: str, name: str, token_file: Path | None) -> _Entry:
        """Return the entry; with a token it is the bridge, which reads it where it lies."""
        if token_file is None:
            entry = self.entry(url)
        else:
            entry = self.started(*_bridge(url, "--token-file", str(token_file)))
        return {"name": name, **entry} if self.named else entry

    def path_to(self, document: object, name: str) -> tuple[str, ...]:
        """Return where the entry of that name is, or belongs, in the client's document."""
        held = document.get(self.holder) if isinstance(document, dict) else None
        if self.newer and (not isinstance(held, dict) or not held or self.newer in held):
            return self.holder, self.newer, name
        return self.holder, name


def _typed(kind: str) -> Callable[[str], _Entry]:
    return lambda url: {"type": kind, "url": url}


def _url(url: str) -> _Entry:
    return {"url": url}


def _bridge(url: str, *more: str) -> tuple[str, Sequence[str]]:
    """Return the program that speaks stdio to a client, and its arguments."""
    command, *words = this_command()
    base, _, profile = url.partition("/mcp")
    profile = profile.strip("/")
    chosen = ["--profile", profile] if profile else []
    return command, [*words, "stdio", "--url", base, *chosen, *more]


_GOOSE: Final = {"enabled": True, "description": "The servers behind Local MCP Gateway"}
CLIENTS: Final[Mapping[str, Client]] = {
    "claude-code": Client("Claude Code", "mcpServers", _typed("http")),
    "claude-desktop": Client("Claude Desktop", "mcpServers", lambda url: _command(*_bridge(url))),
    "cursor": Client("Cursor", "mcpServers", _url),
    "vscode": Client("VS Code", "servers", _typed("http"), "It reads the file on save."),
    "windsurf": Client("Windsurf", "mcpServers", lambda url: {"serverUrl": url}),
    "zed": Client("Zed", "context_servers", _url, "It reads the file on save."),
    "codex": Client("Codex", "mcp_servers", _url),
    "gemini": Client("Gemini CLI", "mcpServers", _typed("http")),
    "cline": Client("Cline", "mcpServers", _typed("streamableHttp")),
    "roo": Client("Roo Code", "mcpServers", _typed("streamable-http")),
    "lmstudio": Client("LM Studio", "mcpServers", _url),
    "copilot": Client("Copilot CLI", "mcpServers", lambda url: {**_typed("http")(url), "tools": ["*"]},
                      started=lambda *words: {"type": "local", "tools": ["*"], **_command(*words)}),
    "amazon-q": Client("Amazon Q", "mcpServers", _typed("http")),
    "kiro": Client("Kiro", "mcpServers", _url, "It reads the file on save."),
    "goose": Client(
        "Goose", "extensions", lambda url: {"type": "streamable_http", "uri": url, **_GOOSE},
        started=lambda cmd, args: {"type": "stdio", "cmd": cmd, "args": args, **_GOOSE}, named=True,
    ),
    "continue": Client("Continue", "mcpServers", _typed("http"), "It is there in agent mode.",
                       file=".continue/mcpServers/local-mcp-gateway.json"),
    "opencode": Client("opencode", "mcp", _typed("remote"), newer="servers",
                       started=lambda cmd, args: {"type": "local", "command": [cmd, *args]}),
}  # fmt: skip
"""By the name that `connect` takes."""
_SHOWN: Final = ("vscode", "gemini", "cursor", "zed", "windsurf", "codex", "claude-desktop")
"""The clients whose entries are among the lines to paste."""


def this_command() -> tuple[str, ...]:
    """Return the command line that starts this installation."""
    from local_mcp_gateway.service.systemd import units

    return units.this_command()


def client_entries(url: str) -> Iterator[tuple[str, str]]:
    """Yield which clients reach the profile at `url` how: their titles, and the text to paste."""
    entries: dict[str, list[str]] = {}
    for name in _SHOWN:
        text = "\n".join(_entry_lines(name, CLIENTS[name].entry(url)))
        entries.setdefault(text, []).append(CLIENTS[name].title)
    yield "Claude Code", f"claude mcp add --transport http {NAME} {url}"
    for text, titles in entries.items():
        yield ", ".join(titles), text
    yield "Any client that starts its servers itself", f"npx -y mcp-remote {url}"


def client_lines(url: str) -> Iterator[str]:
    """Yield what a person pastes into a client to reach the profile at `url`, as a terminal shows it."""
    for titles, text in client_entries(url):
        yield f"{titles}:"
        yield from (f"  {line}" for line in text.splitlines())
    yield "`local-mcp-gateway connect CLIENT` writes this into the client's file."


def _entry_lines(name: str, entry: Mapping[str, object]) -> tuple[str, ...]:
    if name == "codex":
        return tuple(set_in_toml("", ("mcp_servers", NAME), entry).splitlines())
    return (f'"{NAME}": {json.dumps(entry)}',)


def greet(url: str, profiles: Sequence[str]) -> None:
    """Print the address of every profile and the lines to paste on stdout; `url` is without a path."""
    paths = {f"/mcp/{profile}": f"profile {profile}" for profile in profiles}
    lines = [
        "Local MCP Gateway is up. Press Ctrl+C to stop.",
        *(f"  {url + path:<44} {what}" for path, what in paths.items()),
        *([] if paths else ["  There is no profile yet: `server add NAME -- COMMAND ARGS…`."]),
        "",
        *client_lines(url + next(iter(paths), "/mcp")),
    ]
    sys.stdout.write("\n" + "".join(f"  {line}\n" if line else "\n" for line in lines) + "\n")
    sys.stdout.flush()


def file_of(client: Client, home: Path) -> Path:
    """Return the client's file: the one that is there, else where it would be on this system."""
    if client.file is not None:
        return home / client.file
    places = [place for place in PLACES[client.title] if Path(place).name != "settings.json"]
    places = places or list(PLACES[client.title])
    present = next((home / place for place in places if (home / place).exists()), None)
    apple = [
        place for place in places if place.startswith("Library/") == (sys.platform == "darwin")
    ]
    return present or home / (apple or places)[0]


@dataclass(frozen=True, slots=True)
class Change:
    """What becomes of a client's file."""

    file: Path
    """With symbolic links resolved."""
    before: str | None
    """None if there is no file."""
    after: str | None
    """None if the file is removed."""
    backup: str | None = None
    """What is kept next to the file; None keeps nothing new."""
    undoes: bool = False
    """The backup is used up."""

    @property
    def backup_file(self) -> Path:
        """Return where the file as it was before is kept."""
        return self.file.with_name(self.file.name + BACKUP)

    def diff(self) -> Iterator[str]:
        """Yield the change line by line, with two lines around it."""
        before, after = ((text or "").splitlines() for text in (self.before, self.after))
        yield from list(unified_diff(before, after, lineterm="", n=2))[2:]

    def write(self) -> None:
        """Make the change: first the backup, then the file, each whole or not at all.

        Raises UsageProblem if the file has changed since it was read, or cannot be written.
        """
        try:
            if _read(self.file) != self.before:
                raise UsageProblem(
                    f"{self.file} has changed in the meantime.", hint="Run it again."
                )
            self.file.parent.mkdir(parents=True, exist_ok=True)
            if self.backup is not None:
                _replace(self.backup_file, self.backup, like=self.file)
            if self.after is None:
                self.file.unlink()
            else:
                _replace(self.file, self.after, like=self.file)
            if self.undoes:
                self.backup_file.unlink(missing_ok=True)
        except OSError as error:
            raise UsageProblem(
                f"{self.file} cannot be written: {error.strerror}.", hint="It is unchanged."
            ) from None


def plan_connect(
    client: Client, file: Path, name: str, url: str, token_file: Path | None = None
) -> Change:
    """Return the change that makes a client use `url`; raises UsageProblem for a file that it cannot edit."""
    entry = client.entry_with(url, name, token_file)
    file = file.resolve()
    before = _read(file)
    path = client.path_to(_parsed(before, file), name)
    after = _edited(file, before or "", path, entry)
    change = Change(file, before, after)
    keep = before if before is not None and not _is_kept(change, path) else None
    return change if after == before else Change(file, before, after, keep)


def _is_kept(change: Change, path: Sequence[str]) -> bool:
    """Tell whether the backup is of this file before its entry was made."""
    return change.backup_file.exists() and _entry(change.before, change.file, path) is not None


def plan_undo(client: Client, file: Path, name: str) -> Change:
    """Return the change that takes back a `plan_connect`; raises UsageProblem for a file that it cannot edit."""
    file = file.resolve()
    before = _read(file)
    path = client.path_to(_parsed(before, file), name)
    found = _entry(before, file, path)
    if before is None or found is None:
        return Change(file, before, before)
    earlier = _read(Change(file, None, None).backup_file)
    if _edited(file, earlier or "", path, found) == before:
        return Change(file, before, earlier, undoes=True)
    replaced = _entry(earlier, file, path)
    after = (
        _removed(file, before, path) if replaced is None else _edited(file, before, path, replaced)
    )
    return Change(file, before, after)


def connected(home: Path, address: OwnAddress) -> Iterator[str]:
    """Yield the title of each client on this machine that has this gateway among its servers."""
    for title, file in files_of_clients(home):
        with suppress(GatewayError, OSError, ValueError):
            entries = read_entries(parse_client_file(read_bytes(file), file.name))
            if any(entry.server and address.is_behind(entry.server) for entry in entries):
                yield title


_EDITS: Final[Mapping[str, tuple[Callable[..., str], Callable[..., str]]]] = {
    ".json": (set_in_json, remove_from_json),
    ".toml": (set_in_toml, remove_from_toml),
    ".yaml": (set_in_yaml, remove_from_yaml),
    ".yml": (set_in_yaml, remove_from_yaml),
}
"""By the end of a file's name, how an entry is set and removed; any other name is of a JSON file."""


def _edited(file: Path, text: str, path: tuple[str, ...], entry: Mapping[str, object]) -> str:
    put, _ = _EDITS.get(file.suffix, _EDITS[".json"])
    try:
        return put(text, path, entry)
    except CannotEdit as error:
        raise UsageProblem(
            f"{file} cannot be edited safely: {error}.",
            hint="Add the entry by hand; `local-mcp-gateway connect` prints it.",
        ) from None


def _removed(file: Path, text: str, path: tuple[str, ...]) -> str:
    _, remove = _EDITS.get(file.suffix, _EDITS[".json"])
    try:
        return remove(text, path)
    except CannotEdit as error:
        raise UsageProblem(
            f"{file} cannot be edited safely: {error}.", hint="Take the entry out by hand."
        ) from None


def _entry(text: str | None, file: Path, path: Sequence[str]) -> Mapping[str, Any] | None:
    """Return the entry at `path` in a document, if there is one that can be read."""
    found = value_at(_parsed(text, file), path)
    return found if isinstance(found, dict) else None


def _parsed(text: str | None, file: Path) -> object:
    """Return what a document says; None if it cannot be read."""
    with suppress(ValueError):
        return parse_client_file((text or "").encode(), file.name)
    return None


def _read(file: Path) -> str | None:
    try:
        return read_bytes(file).decode()
    except FileNotFoundError:
        return None
    except UnicodeDecodeError:
        raise UsageProblem(
            f"{file} cannot be edited safely: it is not UTF-8 text.", hint="Save it as UTF-8."
        ) from None
    except OSError as error:
        raise UsageProblem(
            f"{file} cannot be read: {error.strerror}.", hint="Give another one with --file."
        ) from None


def _replace(file: Path, text: str, *, like: Path) -> None:
    """Write a file durably, with the permissions of another one if that is there."""
    mode = like.stat().st_mode & 0o777 if like.exists() else PRIVATE_FILE
    temporary = file.with_name(f".{file.name}.tmp")
    with temporary_file(temporary) as descriptor:
        write_all(descriptor, text.encode())
        os.fchmod(descriptor, mode)
        os.fsync(descriptor)
        temporary.rename(file)
    flush(file.parent)
