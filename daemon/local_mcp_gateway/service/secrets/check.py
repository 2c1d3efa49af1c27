"""What `doctor` says of the secrets, and whether an installation may make their first key."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Literal

import anyio

from local_mcp_gateway.database.pool import ReadOnlyDatabase
from local_mcp_gateway.errors import SealedValueProblem, UsageProblem
from local_mcp_gateway.service.secrets.vault import Vault
from local_mcp_gateway.store import queries
from local_mcp_gateway.store.secrets import Entry, entries

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from local_mcp_gateway.config import Settings
    from local_mcp_gateway.service.secrets.vault import Keys

    Said = tuple[Literal["ok", "note", "problem"], str, str]

SHOWN = 3
"""How many values are named; the others are counted."""


def make_first_key(settings: Settings) -> bool:
    """Make the key file unless it is there, but not in place of one that the database's values need."""
    return not any(entry.sealed for entry in _values(settings)) and Vault.of(settings).make()


def check_secrets(settings: Settings) -> Iterator[Said]:
    """Yield what is to be said of keys and values; every sealed value is opened."""
    keys, values = Vault.of(settings).keys(), _values(settings)
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
        said = f"Not sealed: {', '.join(plain[:SHOWN])}{more}."
        yield "note", said, "`secrets seal` seals them; backups from before keep them as they are."
    if keys.of_file and _near(settings):
        said = (
            f"{keys.file} lies with the database or its backups: a copy of them is one of the key."
        )
        yield "note", said, "Move it, and name its place with `[secrets] key_file`."
    elif not (shut or plain or keys.fault):
        copy = f"Keep a copy of {keys.file}, apart from the backups."
        said = (
            f"{len(sealed)} sealed, and the key opens all. {copy}"
            if sealed
            else "There are none to seal."
        )
        yield "ok", said, ""


def _values(settings: Settings) -> list[Entry]:
    """Return every value in the database; none where the gateway's own tables are not there yet."""
    try:
        with ReadOnlyDatabase.open_at(settings.database_path) as looked_at:
            servers = anyio.run(partial(queries.list_servers, looked_at))
    except UsageProblem:
        return []
    return [entry for server in servers for entry in entries(server)]


def _shut(keys: Keys, sealed: Sequence[Entry]) -> Iterator[SealedValueProblem]:
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
