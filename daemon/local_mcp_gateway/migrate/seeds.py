"""Run seeds: `.sql` and `.py` files that fill a database, inside the caller's transaction."""

from __future__ import annotations

import runpy
import sqlite3
from typing import TYPE_CHECKING

from local_mcp_gateway.errors import GatewayError, SeedFailed, UsageProblem
from local_mcp_gateway.migrate.statements import split

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path


def require_files(files: Sequence[Path]) -> None:
    """Raise UsageProblem for a seed that is not there or of a kind that is not known."""
    for file in files:
        if file.suffix not in (".sql", ".py"):
            raise UsageProblem(f"The seed {file} is neither a .sql nor a .py file.")
        if not file.is_file():
            raise UsageProblem(f"There is no seed file {file}.", hint="Check the path.")


def run_seeds(connection: sqlite3.Connection, files: Sequence[Path]) -> None:
    """Run the seeds in order inside the caller's transaction; raises SeedFailed, naming file and line.

    A `.py` seed has a function `seed(connection)`. Neither kind may begin or end a transaction.
    """
    connection.set_authorizer(_no_transactions)
    try:
        for file in files:
            _run(connection, file)
    finally:
        connection.set_authorizer(None)


def _run(connection: sqlite3.Connection, file: Path) -> None:
    try:
        if file.suffix == ".py":
            _run_python(connection, file)
        else:
            _run_sql(connection, file)
    except GatewayError:
        raise
    except SystemExit as error:
        raise SeedFailed(f"{file} ended the program (sys.exit) instead of returning.") from error
    except Exception as error:  # whatever a person's Python does
        raise SeedFailed(f"{file}: {type(error).__name__}: {error}.") from error


def _run_python(connection: sqlite3.Connection, file: Path) -> None:
    run = runpy.run_path(str(file)).get("seed")
    if not callable(run):
        raise SeedFailed(f"{file} has no function `seed(connection)`.")
    run(connection)


def _run_sql(connection: sqlite3.Connection, file: Path) -> None:
    for statement in split(file.read_text(encoding="utf-8")):
        try:
            connection.execute(statement.text)
        except (sqlite3.Error, sqlite3.Warning) as error:
            raise SeedFailed(f"{file}, line {statement.line}: {error}.") from error


def _no_transactions(action: int, *_: str | None) -> int:
    """Refuse BEGIN, COMMIT and the like: the seeds are one transaction, which is not theirs."""
    forbidden = (sqlite3.SQLITE_TRANSACTION, sqlite3.SQLITE_ATTACH, sqlite3.SQLITE_DETACH)
    return sqlite3.SQLITE_DENY if action in forbidden else sqlite3.SQLITE_OK
