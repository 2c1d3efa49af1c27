"""Load the application's SQL functions that migrations call, such as `uuid_v4()`.

They come from the settings (`[migrations.functions]`, name = "package.module:function") or from the
entry points of installed packages in the group `local_mcp_gateway.sql_functions`.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from local_mcp_gateway.errors import ConfigProblem

if TYPE_CHECKING:
    import sqlite3

ENTRY_POINTS = "local_mcp_gateway.sql_functions"


def load_functions(named: Mapping[str, str]) -> dict[str, Callable[..., object]]:
    """Import the functions in the settings; raises ConfigProblem for one that does not exist."""
    return {name: _load(name, target) for name, target in named.items()}


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


def register(
    connection: sqlite3.Connection, functions: Mapping[str, Callable[..., object]]
) -> None:
    """Make the functions callable in SQL on this connection, with any number of arguments."""
    for name, function in functions.items():
        connection.create_function(name, -1, cast("Any", function))


def prepare(
    connection: sqlite3.Connection, given: Mapping[str, Callable[..., object] | str]
) -> None:
    """Register what migrations may call: given callables, given "package.module:function", installed.

    Raises ConfigProblem for a name that cannot be imported.
    """
    named = {name: found for name, found in given.items() if isinstance(found, str)}
    ready = {name: found for name, found in given.items() if not isinstance(found, str)}
    register(connection, {**installed_functions(), **load_functions(named), **ready})


def _load(name: str, target: str) -> Callable[..., object]:
    from importlib import import_module

    module, _, attribute = target.partition(":")
    try:
        found: object = import_module(module)
        for part in attribute.split("."):
            found = getattr(found, part)
    except (ImportError, AttributeError, ValueError) as error:
        raise ConfigProblem(
            f"The SQL function {name} cannot be loaded from {target!r}: {error}.",
            hint='Write it as `name = "package.module:function"`.',
        ) from error
    if not callable(found):
        raise ConfigProblem(f"The SQL function {name}: {target!r} is not a function.")
    return found
