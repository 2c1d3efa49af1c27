"""Restrict and record what a migration does, with SQLite's authorizer callback.

It refuses what would break the one transaction around the pending set (COMMIT, ATTACH …), what would
falsify the ledger, and PRAGMAs outside a list. It also records which tables were created, dropped and
had rows deleted. Triggers and foreign-key actions are reported like the statements themselves, so a
table that is not in that record may not lose a row.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import NamedTuple

from local_mcp_gateway.migrate.history import GUARD_TABLES
from local_mcp_gateway.migrate.lineage import Change
from local_mcp_gateway.sql import DESCRIBING_PRAGMAS, first_words, fold, quote, renamed

_READING = DESCRIBING_PRAGMAS | {
    "integrity_check",
    "quick_check",
    "compile_options",
    "data_version",  # FTS5 uses it within a statement
}
_TRANSACTIONAL = frozenset({"user_version", "application_id", "defer_foreign_keys"})
# Hints that change nothing in the file, or no-ops inside a transaction, like foreign_keys.
_HARMLESS = frozenset(
    {"foreign_keys", "encoding", "optimize", "cache_size", "temp_store", "analysis_limit"}
)
# These survive a ROLLBACK and change what later statements mean: reset after each migration.
_RESET = ("legacy_alter_table", "ignore_check_constraints", "recursive_triggers")
# Settings of a connection: the guard's own has the values that the guard chose.
_CHOSEN_BY_GUARD = frozenset(
    {
        "synchronous",
        "fullfsync",
        "checkpoint_fullfsync",
        "busy_timeout",
        "wal_autocheckpoint",
        "wal_checkpoint",
        "journal_size_limit",
        "mmap_size",
        "locking_mode",
        "secure_delete",
        "cache_spill",
        "threads",
        "trusted_schema",
    }
)
FILE_SETTINGS = ("journal_mode", "page_size", "auto_vacuum")
"""What the file keeps, and no transaction can change."""
CONNECTION_PRAGMAS = _CHOSEN_BY_GUARD.union(FILE_SETTINGS, ("foreign_keys",))
"""What a file may set between COMMIT and BEGIN, since it changes no row."""
AUTO_VACUUM = {"none": "0", "full": "1", "incremental": "2"}
IN_MEMORY = dict.fromkeys(FILE_SETTINGS, "memory")
# May be read, not set; FTS3 reads the page size while it creates a table.
_READABLE = frozenset(
    {
        *FILE_SETTINGS,
        "page_count",
        "freelist_count",
        "max_page_count",
        "schema_version",
    }
)
ALLOWED_PRAGMAS = _READING | _TRANSACTIONAL | _HARMLESS | {*_RESET}

_WRITES = frozenset({sqlite3.SQLITE_INSERT, sqlite3.SQLITE_UPDATE, sqlite3.SQLITE_DELETE})
# Where SQLite names a table, or what would have its name.
_NAMED_FIRST = _WRITES | {
    sqlite3.SQLITE_CREATE_TABLE,
    sqlite3.SQLITE_CREATE_TEMP_TABLE,
    sqlite3.SQLITE_CREATE_VTABLE,
    sqlite3.SQLITE_CREATE_VIEW,
    sqlite3.SQLITE_CREATE_TEMP_VIEW,
    sqlite3.SQLITE_CREATE_INDEX,
    sqlite3.SQLITE_CREATE_TEMP_INDEX,
    sqlite3.SQLITE_DROP_TABLE,
}
_NAMED_SECOND = frozenset(
    {
        sqlite3.SQLITE_CREATE_INDEX,
        sqlite3.SQLITE_CREATE_TRIGGER,
        sqlite3.SQLITE_CREATE_TEMP_TRIGGER,
        sqlite3.SQLITE_ALTER_TABLE,
    }
)
_TEMPORARY = frozenset(
    {
        sqlite3.SQLITE_CREATE_TEMP_TABLE,
        sqlite3.SQLITE_CREATE_TEMP_INDEX,
        sqlite3.SQLITE_CREATE_TEMP_TRIGGER,
        sqlite3.SQLITE_CREATE_TEMP_VIEW,
    }
)
_GUARDS = "{} belongs to the migration guard, a migration may not change it"
_CASCADE = (
    "dropping {dropped} with foreign keys on would delete the rows of {child} that belong to it; move the"
    " rebuild into a file without `-- guard: foreign-keys=on`, or delete those rows first"
)
_ALTERS = frozenset(
    {sqlite3.SQLITE_CREATE_TABLE, sqlite3.SQLITE_DROP_TABLE, sqlite3.SQLITE_ALTER_TABLE}
)
_DROPS_TABLE = frozenset({sqlite3.SQLITE_DROP_TABLE, sqlite3.SQLITE_DROP_VTABLE})
_DROPS_ITS_TRIGGERS = _DROPS_TABLE | {sqlite3.SQLITE_DROP_VIEW}
_DROPS_BY_NAME = frozenset({sqlite3.SQLITE_DROP_TRIGGER, sqlite3.SQLITE_DROP_INDEX})
_OK, _DENY, _IGNORE = sqlite3.SQLITE_OK, sqlite3.SQLITE_DENY, sqlite3.SQLITE_IGNORE
_READ, _SELECT, _FUNCTION = sqlite3.SQLITE_READ, sqlite3.SQLITE_SELECT, sqlite3.SQLITE_FUNCTION
_HARMLESS_ACTIONS = frozenset({_READ, _SELECT, sqlite3.SQLITE_RECURSIVE})


class Write(NamedTuple):
    """What a statement writes: rows of a table, values of one column, or the table's definition."""

    table: str
    """Folded, as the column is."""
    column: str | None
    """None: whole rows, or the definition."""
    definition: bool
    nested: bool
    """Written by a trigger, not by the statement itself."""


class Authorizer:
    """Watches one connection while migrations run on it: `decide` is SQLite's authorizer callback."""

    def __init__(
        self, *, foreign_keys: bool = False, settings: Mapping[str, str] = IN_MEMORY
    ) -> None:
        self.foreign_keys = foreign_keys
        """Whether foreign keys are enforced: then a DROP deletes first, with all actions on children."""
        self._settings = settings
        """The values of FILE_SETTINGS."""
        self.passed_over: list[str] = []
        """The PRAGMAs of this migration that have no effect: the guard decides them, or it is so already."""
        self.off = False
        """True while the engine itself works (ledger rows, resets): nothing is refused or recorded."""
        self.refusal: str | None = None
        """Why the last statement was not allowed, as the end of a sentence."""
        self.changes: list[Change] = []
        """What happened to tables, in order, under their names at that moment."""
        self.drops: set[str] = set()
        """The triggers and indexes that a statement of their own dropped; folded."""
        self.dropping: str | None = None
        """The table that the running statement drops, while foreign keys are on."""
        self.updated: set[tuple[str, str]] = set()
        """(table, column) of every value changed since BEGIN, folded: no action of ON UPDATE was run."""
        self.assigned: set[tuple[str, str]] = set()
        """Those of them that an UPDATE of the file itself changed, not a trigger's."""
        self.written: set[str] = set()
        """Every table with a row inserted, changed or deleted since BEGIN, under all its names; folded."""
        self.writes: set[Write] | None = None
        """What the running statement writes; recorded only while a caller has put a set here."""
        self.renaming = False
        self.replacing = False
        """Set while an UPDATE OR REPLACE runs: its table may lose rows without a DELETE."""
        self.touched_state = False
        self.made_temporary = False
        self._dropped: str | None = None
        """The table or view that the running statement drops, with its rows, indexes and triggers."""

    def start_statement(self, sql: str) -> None:
        """Forget what the previous statement did."""
        self.refusal = self.dropping = self._dropped = None
        update = sql[:6].upper() == "UPDATE"
        self.replacing = update and first_words(sql, 3) == ("UPDATE", "OR", "REPLACE")

    def start_migration(self) -> None:
        """Forget what the previous migration did."""
        self.changes, self.drops, self.passed_over = [], set(), []
        self.touched_state = self.made_temporary = self.renaming = False

    @contextmanager
    def suspended(self) -> Iterator[None]:
        """Work for the engine itself: nothing is refused or recorded."""
        before, self.off = self.off, True
        try:
            yield
        finally:
            self.off = before

    def follow_rename(self, sql: str) -> None:
        """Follow a table that this ALTER has renamed; what was updated in it is known by the new name, too.

        The callback is not told the new name: one of the guard's own is refused here, as SQLite would.
        """
        self.renaming = False
        if "RENAME" not in sql.upper() or (names := renamed(sql)) is None:
            return
        old, new = names
        if fold(new) in GUARD_TABLES:
            self.refusal = _GUARDS.format(new)
            raise sqlite3.DatabaseError(self.refusal)
        self.changes.append(Change("rename", old, new))
        if fold(old) in self.written:
            self.written.add(fold(new))
        for known in (self.updated, self.assigned):
            known |= {(fold(new), column) for table, column in known if table == fold(old)}

    def restore_state(self, connection: sqlite3.Connection) -> tuple[str, ...]:
        """Reset what the migration changed on the connection, so that it does not affect the next one.

        Returns the statements for it that were needed. The caller has suspended the authorizer.
        """
        ran: list[str] = []
        if self.touched_state:
            for name in _RESET:
                if connection.execute(f"PRAGMA {name}").fetchone()[0]:
                    ran.append(f"PRAGMA {name}=OFF")
                    connection.execute(ran[-1])
                    if connection.execute(f"PRAGMA {name}").fetchone()[0]:
                        raise RuntimeError(f"PRAGMA {name} could not be switched off again")
            connection.execute("PRAGMA defer_foreign_keys=OFF")
        if self.made_temporary:
            for kind, name in connection.execute(
                "SELECT type, name FROM sqlite_temp_schema WHERE type IN ('trigger', 'view', 'table')"
                " AND name NOT LIKE 'sqlite_%' ORDER BY type = 'table'"
            ).fetchall():
                ran.append(f"DROP {kind} IF EXISTS temp.{quote(name)}")
                connection.execute(ran[-1])
        return tuple(ran)

    def decide(
        self,
        action: int,
        first: str | None,
        second: str | None,
        schema: str | None,
        inside: str | None,
    ) -> int:
        """Allow or refuse one action, before the statement runs. Must not raise."""
        if action in _HARMLESS_ACTIONS or self.off:
            return _OK
        if action in _WRITES and first and first.startswith("sqlite_"):
            return _OK  # DDL does this; a direct write fails without writable_schema
        if action == _FUNCTION and (second or "").lower() != "load_extension":
            return _OK
        if action == sqlite3.SQLITE_PRAGMA and self._passes_over((first or "").lower(), second):
            return _IGNORE
        reason = self._reason_to_refuse(action, first, second)
        if reason:
            self.refusal = reason
            return _DENY
        self._note(action, first, schema)
        if self.writes is not None or action == sqlite3.SQLITE_UPDATE:
            self._note_write(action, first, second, nested=inside is not None)
        return _DENY if self.refusal else _OK

    def _passes_over(self, name: str, value: str | None) -> bool:
        """Return whether a PRAGMA is to have no effect, and record it."""
        if name in FILE_SETTINGS:
            asked = (value or "").lower()
            already = self._settings[name] in (asked, AUTO_VACUUM.get(asked))
            # A replay has no file: any value is as good.
            without = self._settings[name] in ("memory", "off")
            if value is None or not (already or without):
                return False
        elif name not in _CHOSEN_BY_GUARD:
            return False
        if value is not None or name == "wal_checkpoint":
            self.passed_over.append(f"PRAGMA {name}" + (f" = {value}" if value else ""))
            return True
        return False

    def _note(self, action: int, first: str | None, schema: str | None) -> None:
        """Record what the action does to the rows of a table, or to the connection."""
        if first and schema == "main":
            self._note_change(action, first)
            if action in _WRITES:
                self.written.add(fold(first))
        if action == sqlite3.SQLITE_ALTER_TABLE:
            self.renaming = True
        elif action in _TEMPORARY:
            self.made_temporary = True

    def _note_change(self, action: int, name: str) -> None:
        """Record the creation, renaming or removal of a table, an index or a trigger."""
        if action == sqlite3.SQLITE_DELETE:
            if self.dropping not in (None, name):
                self.refusal = _CASCADE.format(dropped=self.dropping, child=name)
            if self._dropped != name:
                self.changes.append(Change("delete", name))
        elif action == sqlite3.SQLITE_UPDATE and self.replacing:
            self.changes.append(Change("delete", name))
        elif action == sqlite3.SQLITE_CREATE_TABLE:
            self.changes.append(Change("create", name))
        elif action in _DROPS_BY_NAME and self._dropped is None:
            self.drops.add(fold(name))
        elif action in _DROPS_ITS_TRIGGERS:
            self._dropped = name
            if action == sqlite3.SQLITE_DROP_TABLE:
                self.dropping = name if self.foreign_keys else None
            if action in _DROPS_TABLE:
                self.changes.append(Change("drop", name))

    def _note_write(
        self, action: int, first: str | None, second: str | None, *, nested: bool
    ) -> None:
        """Record which rows, values or definitions the statement changes."""
        if action == sqlite3.SQLITE_UPDATE:
            self.updated.add((fold(first or ""), fold(second or "")))
            if not nested:
                self.assigned.add((fold(first or ""), fold(second or "")))
        if self.writes is None:
            return
        if action == sqlite3.SQLITE_UPDATE:
            self.writes.add(Write(fold(first or ""), fold(second or ""), False, nested))
        elif action == sqlite3.SQLITE_INSERT:
            self.writes.add(Write(fold(first or ""), None, False, nested))
        elif action in _ALTERS:
            table = second if action == sqlite3.SQLITE_ALTER_TABLE else first
            self.writes.add(Write(fold(table or ""), None, True, nested))

    def _reason_to_refuse(self, action: int, first: str | None, second: str | None) -> str | None:
        if action in (sqlite3.SQLITE_TRANSACTION, sqlite3.SQLITE_SAVEPOINT):
            return (
                "transaction control inside a migration would break the one transaction around it"
            )
        if action in (sqlite3.SQLITE_ATTACH, sqlite3.SQLITE_DETACH):
            return "a migration may not attach or detach another database"
        if action == sqlite3.SQLITE_PRAGMA:
            self.touched_state = True
            return _reason_to_refuse_pragma((first or "").lower(), second)
        for name, actions in ((first, _NAMED_FIRST), (second, _NAMED_SECOND)):
            if action in actions and name is not None and name.lower() in GUARD_TABLES:
                return _GUARDS.format(name)
        if action == _FUNCTION:
            return "a migration may not load an extension"
        return None


def _reason_to_refuse_pragma(name: str, value: str | None) -> str | None:
    if name in ALLOWED_PRAGMAS or (value is None and name in _READABLE | _CHOSEN_BY_GUARD):
        return None
    if name in FILE_SETTINGS:
        return (
            f"PRAGMA {name} has no effect inside a transaction; put it into a file of its own with"
            " the first line `-- guard: no-transaction`"
        )
    return f"PRAGMA {name} is not among those that a migration may use"
