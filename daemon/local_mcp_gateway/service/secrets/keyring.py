"""The keys that open and seal secrets: systemd's credential and the key file; and the checks of both.

Both are read whenever a key is needed, which is rare, and never cached: a credential stays as it was when
the unit started, so a key created since then is only in the file.

The file is text with mode 0600: one key a line in base64url, the newest first; `#` begins a comment. The
newest key seals, all of them open. The file is only replaced by one with more keys, and is durable before
any row names a new key.
"""

from __future__ import annotations

import base64
import os
import secrets
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Final, Literal

import anyio

from local_mcp_gateway.database import ReadOnlyDatabase, flush
from local_mcp_gateway.errors import NoSecretsKey, SealedValueProblem, UsageProblem
from local_mcp_gateway.log import Emit, ignore
from local_mcp_gateway.service.secrets import private_file
from local_mcp_gateway.service.secrets.private_file import Unusable
from local_mcp_gateway.store import (
    KEY_BYTES,
    SealingKey,
    StoredValue,
    entries,
    list_values,
    open_value,
    seal,
    with_values,
)

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Sequence

    from local_mcp_gateway.config import Settings
    from local_mcp_gateway.store import Sealable, ServerDefinition, SettingValue

    Result = tuple[Literal["ok", "note", "problem"], str, str]


_HEAD: Final = """\
# Local MCP Gateway: these keys open the secrets in your database. Keep a copy, apart from its backups.
# The first one seals; the others open what was sealed before, in old backups too.
"""
NO_KEY: Final = "none"
"""The unit's SetCredential= value, for when LoadCredential= finds no file."""
CREDENTIAL: Final = "secrets.key"
"""The name of the credential in the unit."""
_LOST: Final = (
    "Restore the key from your copy. If it is lost, run `secrets rotate` and set the values again."
)


@dataclass(frozen=True, slots=True)
class OpenedKeys:
    """The keys available now, and what is wrong with the file, if anything."""

    file: Path
    of_file: tuple[SealingKey, ...]
    of_credential: tuple[SealingKey, ...]
    fault: Unusable | None = None

    @property
    def all(self) -> tuple[SealingKey, ...]:
        """Return every key; the first one seals."""
        return self.of_file + self.of_credential

    def open(self, entry: Sealable) -> Sealable:
        """Return the entry with its plain value. Raises SealedValueProblem with a hint."""
        try:
            return open_value(entry, self.all)
        except SealedValueProblem as problem:
            if "key" not in problem.data:
                raise
            raise self._without(entry) from None

    def _without(self, entry: StoredValue | SettingValue) -> SealedValueProblem:
        """Explain a missing key, with what is wrong with the key file."""
        sentence = f"{entry} is sealed with key {entry.key}"
        if self.fault is not None:
            return SealedValueProblem(f"{sentence}, and {self.fault.reason}.", hint=self.fault.hint)
        if not self.all:
            return SealedValueProblem(f"{sentence}, and there is no {self.file}.", hint=_LOST)
        held = ", ".join(key.id for key in self.all)
        hint = f"Add its line to {self.file} from your copy, or {entry.remedy}."
        return SealedValueProblem(f"{sentence}, and {self.file} has {held}.", hint=hint)


@dataclass(frozen=True, slots=True)
class Keyring:
    """The places of one installation's keys."""

    file: Path
    typed: bool = False
    """Whether a person chose the path: then its folder is not created."""
    emit: Emit = ignore

    @classmethod
    def of(cls, settings: Settings, emit: Emit = ignore) -> Keyring:
        """Return the keyring that the settings describe."""
        return cls(settings.secrets_key_file, bool(settings.secrets.key_file), emit)

    def keys(self) -> OpenedKeys:
        """Return the keys. Reads two small files and never raises."""
        fault: Unusable | None = None
        of_file: tuple[SealingKey, ...] = ()
        of_credential: tuple[SealingKey, ...] = ()
        try:
            of_file = read_key_file(self.file)
        except Unusable as unusable:
            fault = unusable
        if folder := os.environ.get("CREDENTIALS_DIRECTORY"):
            try:
                of_credential = read_key_file(Path(folder, CREDENTIAL), private=False)
            except Unusable as unusable:
                fault = fault or unusable
        return OpenedKeys(self.file, of_file, of_credential, fault)

    def open(self, server: ServerDefinition) -> ServerDefinition:
        """Return the server with all its values in plain. Raises SealedValueProblem with a hint."""
        keys = self.keys()
        return with_values(server, [keys.open(entry) for entry in entries(server)])

    def sealing_key(self, known: Collection[str]) -> SealingKey:
        """Return the key that seals, creating one if there is none. Durable on return.

        `known` are the ids of the keys that the database already uses: if they are lost, no new key silently
        takes their place. Raises SealedValueProblem, NoSecretsKey.
        """
        keys = self.keys()
        if keys.of_file:
            flush_key_file(self.file)
            return keys.of_file[0]
        if keys.of_credential:
            return keys.of_credential[0]
        if keys.fault is not None:
            raise SealedValueProblem(
                f"Nothing can be sealed: {keys.fault.reason}.", hint=keys.fault.hint
            )
        if known:
            named = ", ".join(sorted(known))
            raise SealedValueProblem(
                f"The database has values that are sealed with key {named}, and there is no {self.file}.",
                hint=_LOST,
            )
        self.make()
        return self.sealing_key(known)

    def make(self) -> bool:
        """Create the key file if missing; return whether it was created. Raises NoSecretsKey."""
        made = make_key_file(self.file, make_folder=not self.typed)
        if made:
            self.emit("secrets.key_created", path=str(self.file))
        return made

    def renew(self) -> SealingKey:
        """Add a new first key. Raises SealedValueProblem, NoSecretsKey."""
        try:
            return add_key(self.file, make_folder=not self.typed)
        except Unusable as unusable:
            raise SealedValueProblem(
                f"No key can be added: {unusable.reason}.", hint=unusable.hint
            ) from None


def read_key_file(path: Path, *, private: bool = True) -> tuple[SealingKey, ...]:
    """Return the keys, newest first; an empty list if there is no file. Raises Unusable.

    With `private`, refuse a file that other users may read, as ssh does with its own.
    """
    content = private_file.read(path, private=private)
    if content is None:
        return ()
    try:
        keys = _keys_in(path, content.decode())
    except UnicodeDecodeError:
        raise Unusable(f"{path} cannot be read", "Put it back from your copy.") from None
    if private and not keys:
        raise Unusable(f"{path} holds no key", "Put it back from your copy, or delete it.")
    return keys


def make_key_file(path: Path, *, make_folder: bool) -> bool:
    """Create the file with a new key if missing; return whether it was created. Durable.

    `make_folder` also creates missing folders, with mode 0700. Raises NoSecretsKey.
    """
    with _locked_file(path, make_folder=make_folder) as target:
        return private_file.create(target, _text_of([_new_key()]))


def add_key(path: Path, *, make_folder: bool) -> SealingKey:
    """Put a new key before the existing ones. Durable.

    Raises Unusable, NoSecretsKey.
    """
    with _locked_file(path, make_folder=make_folder) as target:
        new = _new_key()
        private_file.replace(target, _text_of([new, *read_key_file(target)]))
        return new


def flush_key_file(path: Path) -> None:
    """Flush the file to the disk, whoever wrote it: a row is about to name its key."""
    with _named_problem(path):
        flush(path)
        flush(path.resolve().parent)


@contextmanager
def _locked_file(path: Path, *, make_folder: bool) -> Iterator[Path]:
    """Lock the folder, created on request; yield the file's path. Raises NoSecretsKey."""
    with _named_problem(path):
        if make_folder:
            _make_folders(path.resolve().parent)
        with private_file.locked(path) as target:
            yield target


@contextmanager
def _named_problem(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise NoSecretsKey(f"The secrets key {path} cannot be created: {error.strerror}.") from None


def _make_folders(folder: Path) -> None:
    if folder.is_dir():
        return
    _make_folders(folder.parent)
    folder.mkdir(mode=0o700, exist_ok=True)
    flush(folder.parent)


def _text_of(keys: Sequence[SealingKey]) -> bytes:
    lines = (base64.urlsafe_b64encode(key.raw).decode("ascii") + "\n" for key in keys)
    return (_HEAD + "".join(lines)).encode()


def _new_key() -> SealingKey:
    return SealingKey(secrets.token_bytes(KEY_BYTES))


def _keys_in(path: Path, text: str) -> tuple[SealingKey, ...]:
    keys = []
    for number, line in enumerate(text.splitlines(), 1):
        word = line.strip()
        if not word or word.startswith("#") or word == NO_KEY:
            continue
        try:
            raw = base64.b64decode(word.encode("ascii"), b"-_", validate=True)
        except ValueError:
            raw = b""
        if len(raw) != KEY_BYTES:
            raise Unusable(
                f"line {number} of {path} is not a key", "Put the file back from your copy."
            )
        keys.append(SealingKey(raw))
    return tuple(keys)


SHOWN = 3
"""How many values are named; the others are counted."""


def make_first_key(settings: Settings) -> bool:
    """Create the key file if missing, unless the database's values need a lost one."""
    return not any(entry.sealed for entry in _values(settings)) and Keyring.of(settings).make()


def seal_setting(settings: Settings, setting: SettingValue) -> SettingValue:
    """Return the value of a setting sealed; creates a key if there is none. Raises SealedValueProblem, NoSecretsKey."""
    known = {entry.key for entry in _values(settings) if entry.sealed}
    return seal(setting, Keyring.of(settings).sealing_key(known))


def check_secrets(settings: Settings) -> Iterator[Result]:
    """Yield the findings about keys and values; opens every sealed value."""
    keys, values = Keyring.of(settings).keys(), _values(settings)
    sealed = [entry for entry in values if entry.sealed]
    shut = list(_shut(keys, sealed))
    for problem in shut[:SHOWN]:
        yield "problem", problem.message, problem.hint
    if len(shut) > SHOWN:
        yield "problem", f"{len(shut) - SHOWN} further values do not open either.", ""
    if keys.fault is not None and not shut:
        reason = keys.fault.reason
        yield "problem", f"{reason[0].upper()}{reason[1:]}.", keys.fault.hint
    if plain := [f"{e.name} of {e.server.name}" for e in values if not e.sealed]:
        more = f" and {len(plain) - SHOWN} more" if len(plain) > SHOWN else ""
        text = f"Not sealed: {', '.join(plain[:SHOWN])}{more}."
        yield "note", text, "`secrets seal` seals them; backups from before keep them as they are."
    if keys.of_file and _near(settings):
        text = f"{keys.file} is next to the database or its backups, so a copy of them contains the key."
        yield "note", text, "Move it, and set `[secrets] key_file` to its new path."
    elif not (shut or plain or keys.fault):
        copy = f"Keep a copy of {keys.file}, apart from the backups."
        text = (
            f"{len(sealed)} sealed, and the key opens all. {copy}"
            if sealed
            else "There are none to seal."
        )
        yield "ok", text, ""


def _values(settings: Settings) -> list[StoredValue]:
    """Return every value in the database; none where the gateway's tables do not exist yet."""
    try:
        with ReadOnlyDatabase.open_at(settings.database_path) as looked_at:
            return anyio.run(partial(list_values, looked_at))
    except UsageProblem:
        return []


def _shut(keys: OpenedKeys, sealed: Sequence[StoredValue]) -> Iterator[SealedValueProblem]:
    for entry in sealed:
        try:
            keys.open(entry)
        except SealedValueProblem as problem:
            yield problem


def _near(settings: Settings) -> bool:
    key = settings.secrets_key_file.resolve()
    return key.parent == settings.database_path.resolve().parent or key.is_relative_to(
        settings.backup_folder.resolve()
    )
