"""What opens and seals the secrets of this installation: systemd's credential and the key file.

Both are read whenever a key is needed, which is seldom, and never kept: a credential is as it was when
the unit started, so a key that a command has made since then is in the file only.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

from local_mcp_gateway.errors import SealedValueProblem
from local_mcp_gateway.log import Emit, ignore
from local_mcp_gateway.service.secrets import key_file
from local_mcp_gateway.service.secrets.private_file import Unusable
from local_mcp_gateway.store.secrets import Entry, Key, entries, opened, with_values

if TYPE_CHECKING:
    from collections.abc import Collection

    from local_mcp_gateway.config import Settings
    from local_mcp_gateway.store.model import ServerDefinition

CREDENTIAL: Final = "secrets.key"
"""The name of the credential in the unit."""
_LOST: Final = (
    "Put the key back from your copy; if it is lost, run `secrets rotate` and set the values anew."
)


@dataclass(frozen=True, slots=True)
class Keys:
    """The keys that are there just now, and what is wrong with the file, if anything is."""

    file: Path
    of_file: tuple[Key, ...]
    of_credential: tuple[Key, ...]
    fault: Unusable | None = None

    @property
    def all(self) -> tuple[Key, ...]:
        """Return every key; the first one seals."""
        return self.of_file + self.of_credential

    def open(self, entry: Entry) -> Entry:
        """Return the entry with its value in plain. Raises SealedValueProblem that says what to do."""
        try:
            return opened(entry, self.all)
        except SealedValueProblem as problem:
            if "key" not in problem.data:
                raise
            raise self._without(entry) from None

    def _without(self, entry: Entry) -> SealedValueProblem:
        """Say more of a key that is not there than the value itself can."""
        sentence = f"{entry} is sealed with key {entry.key}"
        if self.fault is not None:
            return SealedValueProblem(f"{sentence}, and {self.fault.reason}.", hint=self.fault.hint)
        if not self.all:
            return SealedValueProblem(f"{sentence}, and there is no {self.file}.", hint=_LOST)
        held = ", ".join(key.id for key in self.all)
        hint = (
            f"Add its line to {self.file} from your copy, or set the value anew with `server edit`."
        )
        return SealedValueProblem(f"{sentence}, and {self.file} has {held}.", hint=hint)


@dataclass(frozen=True, slots=True)
class Vault:
    """Where the keys of one installation are."""

    file: Path
    typed: bool = False
    """Whether a person has chosen the place: then its folder is theirs to make."""
    emit: Emit = ignore

    @classmethod
    def of(cls, settings: Settings, emit: Emit = ignore) -> Vault:
        """Return the vault that the settings describe."""
        return cls(settings.secrets_key_file, bool(settings.secrets.key_file), emit)

    def keys(self) -> Keys:
        """Return the keys. Reads two small files, and never raises."""
        fault: Unusable | None = None
        of_file: tuple[Key, ...] = ()
        of_credential: tuple[Key, ...] = ()
        try:
            of_file = key_file.read(self.file)
        except Unusable as unusable:
            fault = unusable
        if folder := os.environ.get("CREDENTIALS_DIRECTORY"):
            try:
                of_credential = key_file.read(Path(folder, CREDENTIAL), private=False)
            except Unusable as unusable:
                fault = fault or unusable
        return Keys(self.file, of_file, of_credential, fault)

    def open(self, server: ServerDefinition) -> ServerDefinition:
        """Return the server with every value in plain. Raises SealedValueProblem that says what to do."""
        keys = self.keys()
        return with_values(server, [keys.open(entry) for entry in entries(server)])

    def sealing_key(self, known: Collection[str]) -> Key:
        """Return the key that seals; make one if there is none. On return it is on the disk.

        `known` are the keys that the database names already: where they are lost, no other one takes
        their place unasked. Raises SealedValueProblem, NoSecretsKey.
        """
        keys = self.keys()
        if keys.of_file:
            key_file.settle(self.file)
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
        """Make the key file unless it is there; return whether it was made. Raises NoSecretsKey."""
        made = key_file.make(self.file, make_folder=not self.typed)
        if made:
            self.emit("secrets.key_made", path=str(self.file))
        return made

    def renew(self) -> Key:
        """Put a new key first. Raises SealedValueProblem, NoSecretsKey."""
        try:
            return key_file.renew(self.file, make_folder=not self.typed)
        except Unusable as unusable:
            raise SealedValueProblem(
                f"No key can be added: {unusable.reason}.", hint=unusable.hint
            ) from None
