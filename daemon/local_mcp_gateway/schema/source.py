"""Load the desired schema from a Python module with SQLAlchemy MetaData or from .sql files.

It is created in memory and read back, so that SQLite interprets it. A mistake is reported with the
author's own line, not with a traceback. SQLAlchemy is only imported here, for such a module.
"""

from __future__ import annotations

import importlib
import importlib.util
import re
import sqlite3
import sys
import traceback
from contextlib import closing, suppress
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from local_mcp_gateway.errors import SchemaProblem
from local_mcp_gateway.regular_file import read_bytes
from local_mcp_gateway.schema.inspection import Prepare, inspect, open_memory
from local_mcp_gateway.sql import first_words, fold, normal_tokens, tokens

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Sequence
    from types import ModuleType

    from sqlalchemy import MetaData

    from local_mcp_gateway.schema.model import Schema

_REFUSED = {
    sqlite3.SQLITE_ATTACH,
    sqlite3.SQLITE_CREATE_TEMP_TABLE,
    sqlite3.SQLITE_CREATE_TEMP_VIEW,
    sqlite3.SQLITE_CREATE_TEMP_TRIGGER,
    sqlite3.SQLITE_CREATE_TEMP_INDEX,
}
_SUGGESTION = "Correct it and run the command again; nothing was written."
_FUNCTION = re.compile(r"no such function: (\S+)")
_MODULE = re.compile(r"no such module: (\w+)")
_COLLATION = re.compile(r"no such collation sequence: (\w+)")


class _Placed(NamedTuple):
    """A statement and where it stands."""

    file: Path
    line: int
    sql: str


def read_sql(path: Path, *, prepare: Prepare | None = None) -> Schema:
    """Return the schema of a .sql file, or of all .sql files of a folder, in any order of dependence.

    What `.schema` of SQLite's shell prints is one: its own tables and the shadow tables of virtual ones
    are passed over, since SQLite makes them.
    """
    files = (
        sorted(file for file in path.glob("*.sql") if not file.name.startswith("."))
        if path.is_dir()
        else [path]
    )
    if not files:
        raise SchemaProblem(
            f"There is no .sql file in {path}.", hint="Give a file or another folder."
        )
    waiting = [_Placed(file, line, sql) for file in files for line, sql in _statements(_text(file))]
    shadows = _shadow_tables(waiting, prepare)
    waiting = [one for one in waiting if not _made_by_sqlite(one.sql, shadows)]
    connection = open_memory(prepare)
    connection.set_authorizer(_in_memory_only)
    try:
        while waiting:
            postponed = [one for one in waiting if not _run(connection, one, final=False)]
            if len(postponed) == len(waiting):
                _run(connection, postponed[0], final=True)
            waiting = postponed
        connection.set_authorizer(None)
        return inspect(connection)
    finally:
        connection.close()


def _in_memory_only(action: int, *_: str | None) -> int:
    """Forbid a schema file to touch other files (ATTACH, VACUUM INTO) or create what would not persist."""
    return sqlite3.SQLITE_DENY if action in _REFUSED else sqlite3.SQLITE_OK


def _text(file: Path) -> str:
    try:
        return read_bytes(file).decode("utf-8-sig")
    except UnicodeDecodeError:
        raise SchemaProblem(f"{file} is not UTF-8 text.", hint="Save it as UTF-8.") from None
    except OSError as error:
        raise SchemaProblem(f"{file} cannot be read: {error.strerror}.") from None


def _run(connection: sqlite3.Connection, one: _Placed, *, final: bool) -> bool:
    """Run a statement; return False if it needs a table that a later one may create."""
    try:
        connection.execute(one.sql)
    except (sqlite3.Error, sqlite3.Warning) as error:
        if not final and "no such table" in str(error):
            return False
        first = one.sql.splitlines()[0][:80]
        why = "a schema has no other files and nothing temporary" if _denied(error) else error
        raise SchemaProblem(
            f"{one.file}, line {one.line}: {why} in `{first}`.",
            hint=missing_hint(str(error)) or _SUGGESTION,
        ) from None
    return True


def missing_hint(message: str) -> str | None:
    """Return what to do about an error of SQLite's that names what the application provides; None: another error."""
    if match := _MODULE.search(message):
        return (
            f"If a SQLite extension provides {match.group(1)}, name its file:"
            ' `[migrations] extensions = ["/path/to/it"]`.'
        )
    if match := _COLLATION.search(message):
        return (
            f"If the application provides it, register it:"
            f' `[migrations.collations] {match.group(1)} = "package.module:function"`.'
        )
    if match := _FUNCTION.search(message):
        return (
            f"If the application provides {match.group(1)}(), register it:"
            f' `[migrations.functions] {match.group(1)} = "package.module:function"`.'
        )
    if "non-deterministic functions prohibited" in message:
        return (
            "If yours always gives the same for the same arguments, say so beside its definition:"
            " `function.deterministic = True`."
        )
    return None


def _shadow_tables(statements: Sequence[_Placed], prepare: Prepare | None) -> set[str]:
    """Return the names of the tables that the virtual tables among them make for themselves; folded."""
    virtual = [s.sql for s in statements if first_words(s.sql, 2) == ("CREATE", "VIRTUAL")]
    if not virtual:
        return set()
    with closing(open_memory(prepare)) as connection:
        for sql in virtual:
            with suppress(sqlite3.Error):  # reported where it stands
                connection.execute(sql)
        made = connection.execute("SELECT name FROM pragma_table_list WHERE type = 'shadow'")
        return {fold(name) for (name,) in made}


def _made_by_sqlite(sql: str, shadows: Collection[str]) -> bool:
    words = [fold(token.identifier).strip("'") for token in islice(tokens(sql), 6)]
    if words[:2] != ["create", "table"]:
        return False
    name = "".join(words[5:] if words[2:5] == ["if", "not", "exists"] else words[2:3])
    return name.startswith("sqlite_") or name in shadows


def _denied(error: sqlite3.Error | sqlite3.Warning) -> bool:
    return getattr(error, "sqlite_errorcode", None) == sqlite3.SQLITE_AUTH


def _statements(text: str) -> Iterator[tuple[int, str]]:
    """Split at semicolons, except where SQLite says that the statement (a trigger) continues."""
    start: int | None = None
    for _, word, begin, end in normal_tokens(text):
        start = begin if start is None else start
        if word == ";":
            piece = text[start:end]
            if piece != ";" and not sqlite3.complete_statement(piece):
                continue
            if piece != ";":
                yield text.count("\n", 0, start) + 1, piece
            start = None
    if start is not None:
        yield text.count("\n", 0, start) + 1, text[start:]


def read_module(name: str, *, prepare: Prepare | None = None) -> Schema:
    """Return the schema of the MetaData in a module, given as a dotted name or a .py file."""
    module = _import(name)
    found = _metadata(module)
    if not found:
        raise SchemaProblem(
            f"There is no SQLAlchemy MetaData in {name}.",
            hint="Give the module that defines it: `metadata = MetaData()`, or a declarative Base.",
        )
    tables = [table.name.lower() for metadata in found for table in metadata.tables.values()]
    twice = sorted({table for table in tables if tables.count(table) > 1})
    if twice:
        raise SchemaProblem(
            f"{name} defines the table {twice[0]} twice, in two MetaData.", hint=_SUGGESTION
        )
    return _create(name, found, prepare)


def _create(name: str, found: Sequence[MetaData], prepare: Prepare | None) -> Schema:
    from sqlalchemy import create_engine, exc  # 0.2 s, only for Python schemas
    from sqlalchemy.pool import StaticPool

    connection = open_memory(prepare)
    engine = create_engine("sqlite://", creator=lambda: connection, poolclass=StaticPool)
    try:
        for metadata in found:
            metadata.create_all(engine)
        return inspect(connection)
    except exc.DBAPIError as error:
        statement = " ".join(str(error.statement).split())[:120]
        raise SchemaProblem(
            f"{name}: SQLite says {error.orig}: {statement}", hint=_SUGGESTION
        ) from None
    except exc.SQLAlchemyError as error:
        raise SchemaProblem(f"{name}: {_first_line(error)}", hint=_SUGGESTION) from None
    finally:
        engine.dispose()
        connection.close()


def _import(name: str) -> ModuleType:
    """Import a module; any exception becomes one sentence with the author's own line."""
    file = Path(name)
    is_file = file.suffix == ".py"
    if is_file and not file.is_file():
        raise SchemaProblem(f"There is no schema module {name}.", hint="Give an existing file.")
    search_folder = str(file.resolve().parent if is_file else Path.cwd())
    sys.path.insert(0, search_folder)
    written, sys.dont_write_bytecode = sys.dont_write_bytecode, True
    try:
        return _load(file) if is_file else importlib.import_module(name)
    except (Exception, SystemExit) as error:  # noqa: BLE001  a module can raise anything
        absent = (
            isinstance(error, ModuleNotFoundError) and error.name == name.split(".", maxsplit=1)[0]
        )
        if absent:
            raise SchemaProblem(
                f"There is no schema module {name}.",
                hint="Give a dotted name, a .py file, a .sql file, a snapshot or a database with --schema.",
            ) from None
        raise SchemaProblem(_own_line(name, error), hint=_SUGGESTION) from None
    finally:
        # Python knows a compiled file by second and size: it would hide the second of two quick saves.
        sys.dont_write_bytecode = written
        if search_folder in sys.path:
            sys.path.remove(search_folder)


def _load(file: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location(f"_schema_{file.stem}", file)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[module.__name__] = module  # declarative classes look up their own module
    spec.loader.exec_module(module)
    return module


def _own_line(name: str, error: BaseException) -> str:
    """Locate the error in the author's code: the last frame outside of libraries."""
    if isinstance(error, SyntaxError):
        return f"{error.filename}, line {error.lineno}: {error.msg}: {(error.text or '').strip()}"
    frames = [
        frame
        for frame in traceback.extract_tb(error.__traceback__)
        if "site-packages" not in frame.filename
        and not frame.filename.startswith(("<", sys.base_prefix + "/lib"))
        and frame.filename != __file__
    ]
    said = f"{type(error).__name__}: {_first_line(error)}"
    if not frames:
        return f"{name}: {said}"
    return f"{frames[-1].filename}, line {frames[-1].lineno}: {said}: {frames[-1].line}"


def _first_line(error: BaseException) -> str:
    return (str(error).splitlines() or [""])[0]


def _metadata(module: ModuleType) -> list[MetaData]:
    """Return the MetaData objects of a module, including those of declarative bases."""
    from sqlalchemy import MetaData  # 0.2 s, only for Python schemas

    found: dict[int, MetaData] = {}
    for value in vars(module).values():
        candidate = value if isinstance(value, MetaData) else getattr(value, "metadata", None)
        if isinstance(candidate, MetaData) and candidate.tables:
            found.setdefault(id(candidate), candidate)
    return list(found.values())
