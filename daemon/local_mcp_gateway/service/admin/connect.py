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
from dataclasses import dataclass, field
from difflib import unified_diff
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from local_mcp_gateway.backup import temporary_file, write_all
from local_mcp_gateway.database import flush
from local_mcp_gateway.errors import GatewayError, UsageProblem
from local_mcp_gateway.regular_file import read_bytes
from local_mcp_gateway.service.admin.client_files import (
    PLACES,
    files_of_clients,
    parse_client_file,
    read_entries,
)
from local_mcp_gateway.text_edit import (
    CannotEdit,
    remove_from_json,
    remove_from_toml,
    set_in_json,
    set_in_toml,
)

if TYPE_CHECKING:
    from local_mcp_gateway.service.admin.own_address import OwnAddress

NAME: Final = "local-gateway"
"""What the gateway is called in a client's file, unless another name is given."""
BACKUP: Final = ".before-local-mcp-gateway"
PRIVATE_FILE: Final = 0o600


@dataclass(frozen=True, slots=True)
class Client:
    """How one client wants its servers to be written."""

    title: str
    """As in `PLACES`."""
    holder: str
    """The member of its file that holds the servers."""
    entry: Callable[[str], Mapping[str, object]]
    """From the URL of a profile to the entry."""
    then: str = "Restart it."
    of_command: Mapping[str, object] = field(default_factory=dict)
    """What an entry with a command has next to it."""

    def entry_with(self, url: str, token_file: Path | None) -> Mapping[str, object]:
        """Return the entry; with a token it is the bridge, which reads it where it lies."""
        if token_file is None:
            return self.entry(url)
        return {**self.of_command, **_bridge(url, "--token-file", str(token_file))}


def _typed(kind: str) -> Callable[[str], Mapping[str, object]]:
    return lambda url: {"type": kind, "url": url}


def _url(url: str) -> Mapping[str, object]:
    return {"url": url}


def _bridge(url: str, *more: str) -> Mapping[str, object]:
    command, *words = this_command()
    base, _, profile = url.partition("/mcp")
    profile = profile.strip("/")
    chosen = ["--profile", profile] if profile else []
    return {"command": command, "args": [*words, "stdio", "--url", base, *chosen, *more]}


CLIENTS: Final[Mapping[str, Client]] = {
    "claude-code": Client("Claude Code", "mcpServers", _typed("http")),
    "claude-desktop": Client("Claude Desktop", "mcpServers", _bridge),
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
                      of_command={"type": "local", "tools": ["*"]}),
    "amazon-q": Client("Amazon Q", "mcpServers", _typed("http")),
    "kiro": Client("Kiro", "mcpServers", _url, "It reads the file on save."),
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
    entry = client.entry_with(url, token_file)
    file = file.resolve()
    before = _read(file)
    after = _edited(file, before or "", (client.holder, name), entry)
    change = Change(file, before, after)
    keep = before if before is not None and not _is_kept(change, client, name) else None
    return change if after == before else Change(file, before, after, keep)


def _is_kept(change: Change, client: Client, name: str) -> bool:
    """Tell whether the backup is of this file before its entry was made."""
    return (
        change.backup_file.exists() and _entry(change.before, change.file, client, name) is not None
    )


def plan_undo(client: Client, file: Path, name: str) -> Change:
    """Return the change that takes back a `plan_connect`; raises UsageProblem for a file that it cannot edit."""
    file = file.resolve()
    before, path = _read(file), (client.holder, name)
    found = _entry(before, file, client, name)
    if before is None or found is None:
        return Change(file, before, before)
    earlier = _read(Change(file, None, None).backup_file)
    if _edited(file, earlier or "", path, found) == before:
        return Change(file, before, earlier, undoes=True)
    replaced = _entry(earlier, file, client, name)
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


def _edited(file: Path, text: str, path: tuple[str, ...], entry: Mapping[str, object]) -> str:
    edit = set_in_toml if file.suffix == ".toml" else set_in_json
    try:
        return edit(text, path, entry)
    except CannotEdit as error:
        raise UsageProblem(
            f"{file} cannot be edited safely: {error}.",
            hint="Add the entry by hand; `local-mcp-gateway connect` prints it.",
        ) from None


def _removed(file: Path, text: str, path: tuple[str, ...]) -> str:
    remove = remove_from_toml if file.suffix == ".toml" else remove_from_json
    try:
        return remove(text, path)
    except CannotEdit as error:
        raise UsageProblem(
            f"{file} cannot be edited safely: {error}.", hint="Take the entry out by hand."
        ) from None


def _entry(text: str | None, file: Path, client: Client, name: str) -> Mapping[str, Any] | None:
    """Return the entry of this name in a document, if there is one that can be read."""
    with suppress(ValueError):
        document = parse_client_file((text or "").encode(), file.name)
        found = document.get(client.holder) if isinstance(document, dict) else None
        entry = found.get(name) if isinstance(found, dict) else None
        return entry if isinstance(entry, dict) else None
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
