"""Run seeds: `.sql` and `.py` files that fill a database, inside the caller's transaction."""

from __future__ import annotations

import runpy
import sqlite3
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Final

from local_mcp_gateway.errors import GatewayError, SeedFailed, UsageProblem
from local_mcp_gateway.migrate.history import GUARD_TABLES
from local_mcp_gateway.migrate.statements import split
from local_mcp_gateway.regular_file import read_bytes, require_file

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from local_mcp_gateway.migrate.ledger import Ledger


class Seeds:
    """The seeds of one command, in order; none is run before all are there."""

    def __init__(self, files: Sequence[Path]) -> None:
        """Check the files; raises UsageProblem for one that does not exist or is of an unknown kind."""
        self.files = files
        for file in files:
            if file.suffix not in (".sql", ".py"):
                raise UsageProblem(f"The seed {file} is neither a .sql nor a .py file.")
            try:
                found = require_file(file)
            except OSError as error:
                raise UsageProblem(
                    f"The seed {file} cannot be read: {error.strerror}.", hint="Check the path."
                ) from None
            if found is None:
                raise UsageProblem(f"There is no seed file {file}.", hint="Check the path.")

    def run(self, ledger: Ledger, *, backup: str | None = None) -> None:
        """Run the seeds inside the caller's transaction and record them; nothing without files.

        Raises SeedFailed, naming file and line. A `.py` seed has a function `seed(connection)`. Neither
        kind may begin or end a transaction, or write what the guard keeps about migrations.
        """
        if not self.files:
            return
        connection = ledger.connection
        for file in self.files:
            bounds = _Bounds()
            connection.set_authorizer(bounds)
            try:
                _run(connection, file, bounds)
            finally:
                with suppress(sqlite3.ProgrammingError):  # the seed may have closed it
                    connection.set_authorizer(None)
        ledger.ensure()
        ledger.note("seeded", backup=backup)

    @contextmanager
    def named_deferred_keys(self) -> Iterator[None]:
        """Report a violated deferred foreign key at COMMIT, inside the block, as a failed seed."""
        try:
            yield
        except sqlite3.IntegrityError as error:
            raise SeedFailed(
                f"The seeds leave rows that refer to rows which are not there: {error}.",
                hint="Let them insert the parents too; the database is unchanged.",
            ) from error


class _Bounds:
    """SQLite's authorizer for a seed: seeds may not begin or end the transaction."""

    def __init__(self) -> None:
        self.crossed = ""
        """What was refused, as a sentence; empty if nothing was."""

    def __call__(self, action: int, first: str | None, second: str | None, *_: str | None) -> int:
        if action in _TRANSACTION:
            self.crossed = (
                "all seeds are one transaction, which `with connection:`, commit() and"
                " executescript() would end; use execute() and executemany() alone"
            )
        elif action in _WRITES and {first, second} & GUARD_TABLES:
            self.crossed = "what the guard keeps about migrations is not for seeds"
        else:
            return sqlite3.SQLITE_OK
        return sqlite3.SQLITE_DENY


def _run(connection: sqlite3.Connection, file: Path, bounds: _Bounds) -> None:
    try:
        if file.suffix == ".py":
            _run_python(connection, file)
        else:
            _run_sql(connection, file, bounds)
    except GatewayError:
        raise
    except SystemExit as error:
        raise SeedFailed(f"{file} ended the program (sys.exit) instead of returning.") from error
    except Exception as error:  # a seed may raise anything
        why = bounds.crossed or f"{type(error).__name__}: {error}"
        raise SeedFailed(f"{file}: {why}.") from error


def _run_python(connection: sqlite3.Connection, file: Path) -> None:
    run = runpy.run_path(str(file)).get("seed")
    if not callable(run):
        raise SeedFailed(f"{file} has no function `seed(connection)`.")
    run(connection)
    try:
        connection.execute("SELECT 1")
    except sqlite3.ProgrammingError as error:
        raise SeedFailed(f"{file} closed the connection, which is not its own.") from error


def _run_sql(connection: sqlite3.Connection, file: Path, bounds: _Bounds) -> None:
    for statement in split(read_bytes(file).decode()):
        try:
            connection.execute(statement.text)
        except (sqlite3.Error, sqlite3.Warning) as error:
            why = bounds.crossed or error
            raise SeedFailed(f"{file}, line {statement.line}: {why}.") from error


_TRANSACTION: Final = frozenset(
    {
        sqlite3.SQLITE_TRANSACTION,
        sqlite3.SQLITE_ATTACH,
        sqlite3.SQLITE_DETACH,
    }
)
_WRITES: Final = frozenset(
    {
        sqlite3.SQLITE_INSERT,
        sqlite3.SQLITE_UPDATE,
        sqlite3.SQLITE_DELETE,
        sqlite3.SQLITE_DROP_TABLE,
        sqlite3.SQLITE_ALTER_TABLE,
    }
)
