"""How migrations are applied, and what they use that SQLite does not have: functions, collations, extensions.

The settings name them: `[migrations.functions]` and `[migrations.collations]` as name =
"package.module:function", `migrations.extensions` as files. Installed packages may offer functions as
entry points in the group `local_mcp_gateway.sql_functions`.
"""

from __future__ import annotations

import sqlite3
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import field
from functools import cache
from pathlib import Path
from types import MappingProxyType
from typing import Any, cast

from local_mcp_gateway.errors import ConfigProblem
from local_mcp_gateway.frozen import frozen

ENTRY_POINTS = "local_mcp_gateway.sql_functions"


Named = Mapping[str, Callable[..., object] | str]
"""Callables by the name that SQL has for them, given as such or as "package.module:function"."""


@frozen
class MigrationOptions:
    """How migrations are applied, in a rehearsal and live alike."""

    functions: Named = field(default_factory=dict)
    """SQL functions that migrations may call, by name: callables, or "package.module:function"."""
    collations: Named = field(default_factory=dict)
    """Collations that migrations may use, given likewise."""
    extensions: tuple[str, ...] = ()
    """Files of SQLite extensions that migrations may use."""
    compare_limit_values: int = 2_000_000
    """Maximum values (rows × columns) of a rebuilt table to compare; in a larger one they are counted."""
    journal_new_files: bool = False
    """For dev mode: a `.sql` without a journal entry is journaled after its rehearsal, before COMMIT,
    and the history marks its migrations as ones that dev mode may revert."""
    requires: Callable[[sqlite3.Connection], None] | None = None
    """Called with the migrated database before COMMIT; raises if the program could not serve it."""

    def prepare(self, connection: sqlite3.Connection) -> None:
        """Register what migrations may use on this connection; raises ConfigProblem."""
        register(connection, self.functions, self.collations, self.extensions)


DEFAULT_OPTIONS = MigrationOptions()


def load(named: Named, *, kind: str = "function") -> dict[str, Callable[..., object]]:
    """Import what is given by name; raises ConfigProblem for one that does not exist."""
    return {
        name: _load(kind, name, found) if isinstance(found, str) else found
        for name, found in named.items()
    }


def installed_functions() -> dict[str, Callable[..., object]]:
    """Import the functions that installed packages offer.

    The group's name is searched for in the packages' files first: importlib.metadata takes tens of
    milliseconds to import, and few packages offer one.
    """
    return _offered(tuple(sys.path))


@cache
def _offered(path: tuple[str, ...]) -> dict[str, Callable[..., object]]:
    if not any(map(_offers, path)):
        return {}
    from importlib.metadata import entry_points

    return {point.name: point.load() for point in entry_points(group=ENTRY_POINTS)}


def _offers(folder: str) -> bool:
    """Return whether a package in this folder of the import path offers functions."""
    wanted = ENTRY_POINTS.encode()
    try:
        found = Path(folder).glob("*-info/entry_points.txt")
        return any(wanted in file.read_bytes() for file in found)
    except OSError:
        return False


def register_functions(
    connection: sqlite3.Connection, functions: Mapping[str, Callable[..., object]]
) -> None:
    """Make the functions callable in SQL on this connection, with any number of arguments.

    One with a true attribute `deterministic` may be used in an index or a generated column.
    """
    for name, function in functions.items():
        same = bool(getattr(function, "deterministic", False))
        connection.create_function(name, -1, cast("Any", function), deterministic=same)


def register(
    connection: sqlite3.Connection,
    functions: Named,
    collations: Named = MappingProxyType({}),
    extensions: Sequence[str] = (),
) -> None:
    """Register what migrations may use on this connection, with what installed packages offer.

    Raises ConfigProblem for a name that cannot be imported or a file that cannot be loaded.
    """
    _load_extensions(connection, extensions)
    register_functions(connection, {**installed_functions(), **load(functions)})
    for name, compare in load(collations, kind="collation").items():
        connection.create_collation(name, cast("Any", compare))


def _load_extensions(connection: sqlite3.Connection, extensions: Sequence[str]) -> None:
    if not extensions:
        return
    if not hasattr(connection, "enable_load_extension"):
        raise ConfigProblem(
            "This Python cannot load SQLite extensions.",
            hint="Install one that can (Debian's can), or empty migrations.extensions.",
        )
    connection.enable_load_extension(True)
    try:
        for file in extensions:
            connection.load_extension(str(Path(file).expanduser()))
    except sqlite3.Error as error:
        raise ConfigProblem(
            f"The SQLite extension {file} cannot be loaded: {error}.",
            hint="Correct its path in migrations.extensions.",
        ) from error
    finally:
        connection.enable_load_extension(False)


def _load(kind: str, name: str, target: str) -> Callable[..., object]:
    from importlib import import_module

    module, _, attribute = target.partition(":")
    try:
        found: object = import_module(module)
        for part in attribute.split("."):
            found = getattr(found, part)
    except (ImportError, AttributeError, ValueError) as error:
        raise ConfigProblem(
            f"The SQL {kind} {name} cannot be loaded from {target!r}: {error}.",
            hint='Write it as `name = "package.module:function"`.',
        ) from error
    if not callable(found):
        raise ConfigProblem(f"The SQL {kind} {name}: {target!r} is not a function.")
    return found
