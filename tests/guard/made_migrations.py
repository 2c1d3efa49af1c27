"""Databases with everything that can hang on a table, and migrations as people write them, slips included."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from hypothesis import strategies as st

from tests.schema.made import choose

COLUMNS = {"a": "TEXT", "b": "INTEGER", "c": "TEXT"}
NUMBERED = "INTEGER PRIMARY KEY AUTOINCREMENT"
KEYS = (
    "INTEGER PRIMARY KEY",
    NUMBERED,
    "TEXT PRIMARY KEY NOT NULL",
    "",
    "composite",
    "WITHOUT ROWID",
)
BY_NUMBER = ("INTEGER PRIMARY KEY", NUMBERED, "WITHOUT ROWID")
INDEXES = {
    "": "",
    "plain": "CREATE INDEX by_c ON notes (c)",
    "unique": "CREATE UNIQUE INDEX by_b ON notes (b)",
    "partial": "CREATE INDEX by_c ON notes (c) WHERE a IS NOT NULL",
    "expression": "CREATE INDEX by_c ON notes (lower(c), a)",
}
TRIGGERS = {
    "": "",
    "audit": "CREATE TRIGGER audit AFTER INSERT ON notes BEGIN INSERT INTO log VALUES (new.a, 1); END",
    "of a column": "CREATE TRIGGER changed AFTER UPDATE OF c ON notes WHEN new.c IS NOT old.c"
    " BEGIN INSERT INTO log VALUES (new.c, 2); END",
    "of another": "CREATE TRIGGER logged AFTER DELETE ON log BEGIN UPDATE notes SET c = old.text WHERE a = 'x'; END",
}
VIEWS = {
    "": (),
    "one": ("CREATE VIEW v AS SELECT a, c FROM notes",),
    "stacked": (
        "CREATE VIEW v AS SELECT a, c FROM notes",
        "CREATE VIEW w AS SELECT count(c) AS n FROM v",
        "CREATE TRIGGER vi INSTEAD OF DELETE ON v BEGIN DELETE FROM notes WHERE a = old.a; END",
    ),
}
BY_ROWID = {
    "": (),
    "content": (
        "CREATE VIRTUAL TABLE words USING fts5 (c, content=notes)",
        (
            "CREATE TRIGGER words_in AFTER INSERT ON notes BEGIN INSERT INTO words (rowid, c) VALUES (new.rowid, new.c);"
            " END"
        ),
    ),
    "rtree": (
        "CREATE VIRTUAL TABLE geo USING rtree (id, x0, x1)",
        "CREATE TRIGGER geo_in AFTER INSERT ON notes BEGIN INSERT INTO geo VALUES (new.rowid, new.b, new.b); END",
    ),
    "by itself": ("CREATE VIRTUAL TABLE words USING fts5 (c)",),
    "fts4": (
        "CREATE VIRTUAL TABLE words USING fts4 (content=notes, c)",
        (
            "CREATE TRIGGER words_in AFTER INSERT ON notes BEGIN INSERT INTO words (docid, c)"
            " VALUES (new.rowid, new.c); END"
        ),
    ),
}


@dataclass(frozen=True)
class Database:
    """The table `notes`, a `log`, perhaps `kids` that reference it, and what else hangs on them."""

    key: str
    strict: bool
    generated: str
    self_reference: bool
    kids: str
    index: str
    triggers: tuple[str, str]
    views: str
    by_rowid: str
    gone: int
    conflict: str
    """What a second row with the same `b` does."""
    twins: bool
    """Two rows have the same `c`."""

    @property
    def has_rowid(self) -> bool:
        return self.key != "WITHOUT ROWID"

    def columns(self) -> dict[str, str]:
        """The columns of `notes`, by name, as they are defined."""
        key = {"composite": "INTEGER", "WITHOUT ROWID": "INTEGER PRIMARY KEY"}
        found = {"id": key.get(self.key, self.key or "INTEGER")}
        if self.strict and self.key == "TEXT PRIMARY KEY NOT NULL":
            found["id"] = "TEXT PRIMARY KEY NOT NULL"
        found |= COLUMNS
        if self.conflict:
            found["b"] = f"INTEGER UNIQUE ON CONFLICT {self.conflict}"
        if self.self_reference and self.key in BY_NUMBER:
            found["up"] = "INTEGER REFERENCES notes (id)"
        if self.generated:
            found["g"] = f"TEXT AS (a || '!') {self.generated}"
        return found

    def table(self, name: str, columns: dict[str, str]) -> str:
        lines = [f"{column} {definition}" for column, definition in columns.items()]
        if self.key == "composite" and {"id", "a"} <= columns.keys():
            lines.append("PRIMARY KEY (id, a)")
        options = ["STRICT"] * self.strict + ["WITHOUT ROWID"] * (not self.has_rowid)
        return f"CREATE TABLE {name} ({', '.join(lines)}) {', '.join(options)}".strip()

    def on_notes(self) -> list[str]:
        """What goes with `notes` when it is dropped."""
        named = [INDEXES[self.index], *(TRIGGERS[one] for one in dict.fromkeys(self.triggers))]
        named += self.with_rowid()[1:]
        return [sql for sql in named if sql and " ON log" not in sql]

    def with_rowid(self) -> tuple[str, ...]:
        return BY_ROWID[self.by_rowid] if self.has_rowid else ()

    def statements(self) -> list[str]:
        found = [self.table("notes", self.columns()), "CREATE TABLE log (text TEXT, kind INTEGER)"]
        if self.kids == "by key" and self.key in BY_NUMBER:
            found.append("CREATE TABLE kids (n INTEGER REFERENCES notes (id) ON DELETE CASCADE)")
        elif self.kids == "by index" and self.index == "unique":
            found.append("CREATE TABLE kids (n INTEGER REFERENCES notes (b))")
        elif self.kids == "composite" and self.key == "composite":
            found.append("CREATE TABLE kids (i, t, FOREIGN KEY (i, t) REFERENCES notes (id, a))")
        found += self.with_rowid()[:1]
        found += self.on_notes()
        found += [TRIGGERS["of another"]] * ("of another" in self.triggers)
        found += VIEWS[self.views]
        return found

    def rows(self) -> list[str]:
        text = "TEXT" in self.columns()["id"]
        found = []
        for n in range(1, 6):
            values = {"id": f"'k{n}'" if text else str(n), "a": f"'a{n}'", "b": str(n * 10)}
            values["c"] = "NULL" if n == 3 else f"'word{4 if self.twins and n == 5 else n}'"
            if "up" in self.columns():
                values["up"] = "NULL" if n < 3 else "2"
            names = ", ".join(values)
            found.append(f"INSERT INTO notes ({names}) VALUES ({', '.join(values.values())})")
        found.append(f"DELETE FROM notes WHERE b = {self.gone * 10}")
        if self.by_rowid == "by itself" and self.has_rowid:
            found.append("INSERT INTO words (rowid, c) SELECT rowid, c FROM notes")
        if self.by_rowid in ("content", "fts4") and self.has_rowid:
            found.append("INSERT INTO words (words) VALUES ('rebuild')")
        if self.by_rowid == "rtree" and self.has_rowid:
            found.append("DELETE FROM geo WHERE id NOT IN (SELECT rowid FROM notes)")
        kids = {"by key": "id", "by index": "b", "composite": "id, a"}.get(self.kids)
        if kids and any(sql.startswith("CREATE TABLE kids") for sql in self.statements()):
            found.append(f"INSERT INTO kids SELECT {kids} FROM notes WHERE b > 10 AND b <> 30")
        return found

    def create(self) -> sqlite3.Connection:
        connection = sqlite3.connect(":memory:", isolation_level=None)
        for statement in [*self.statements(), *self.rows()]:
            connection.execute(statement)
        return connection


@dataclass(frozen=True)
class Migration:
    """The text, and what its author means to take away; everything else is a slip."""

    statements: tuple[str, ...]
    head: str = ""
    renamed: str = "notes"
    """What `notes` is called afterwards."""
    columns: frozenset[str] = frozenset()
    """Columns of `notes` whose values go or change on purpose."""
    rows: bool = False
    """Rows of `notes` go on purpose."""
    objects: frozenset[str] = frozenset()
    """Triggers and indexes that go on purpose."""
    actions: bool = False
    """It relies on the actions of foreign keys."""
    adds: bool = False
    """It adds rows of its own to `notes`."""
    deletes: int = 0
    """It deletes the row of `notes` with this `b`."""
    replaces: bool = False
    """Rows are replaced by new ones, with rowids of their own."""
    cut: int = 0
    """How many statements are in a file before that of the others."""

    @property
    def files(self) -> list[str]:
        parts = [self.statements[: self.cut], self.statements[self.cut :]]
        texts = ["".join(f"{statement};\n" for statement in part) for part in parts if part]
        return [self.head + texts[0], *texts[1:]]


@st.composite
def databases(draw: Any) -> Database:
    two: Sequence[tuple[str, str]] = [(one, two) for one in TRIGGERS for two in TRIGGERS]
    return Database(
        **choose(
            draw,
            key=KEYS,
            strict=(False, False, True),
            generated=("", "STORED", "VIRTUAL"),
            self_reference=(False, True),
            kids=("", "by key", "by index", "composite"),
            index=tuple(INDEXES),
            triggers=two,
            views=tuple(VIEWS),
            by_rowid=tuple(BY_ROWID),
            gone=(1, 2, 5),
            conflict=("", "", "IGNORE", "REPLACE"),
            twins=(False, True),
        )
    )


COPIES = (
    *("whole",) * 10,
    *("forgotten", "where", "limit", "column", "order", "star", "star", "upper", "seeded", "mixed"),
)
MIXED = "CASE b WHEN 30 THEN 40 WHEN 40 THEN 30 ELSE b END"
SHAPES = ("default", "default", "add", "drop", "ignore", "replace", "not null")


@st.composite
def rebuilds(draw: Any, database: Database) -> Migration:
    """Draw a rebuild of `notes` in one of the ways that people know, with or without a slip."""
    chosen = choose(
        draw,
        copy=COPIES,
        shape=SHAPES,
        way=("new", "new", "aside", "out and in"),
        rowid=(False, True),
        again=("all", "all", "all", "triggers", "none"),
        views=("first", "first", "leave", "legacy"),
        accept=(False, False, False, True),
        seeds=(1, 2, 3),
        besides=("", "", "", "", "first", "last", "deleted"),
        cut=(0, 0, *range(1, 9)),
    )
    columns, gone = _reshaped(database.columns(), chosen["shape"])
    if chosen["copy"] == "order":
        columns = {
            name: columns[name] for name in ("id", "c", "b", "a", *columns) if name in columns
        }
    kept = [name for name in columns if name in database.columns() and name != "g"]
    source, target = {
        "new": ("notes", "__new"),
        "aside": ("__old", "notes"),
        "out and in": ("__old", "notes"),
    }[chosen["way"]]
    copy = _copy(chosen, kept, source, target, rowid=chosen["rowid"] and database.has_rowid)
    gone |= {"a"} if chosen["copy"] == "upper" else set()
    gone |= {"c"} if "coalesce" in "".join(copy) else set()
    again = database.on_notes() if chosen["again"] == "all" else []
    if chosen["again"] == "triggers":
        again = [sql for sql in database.on_notes() if "TRIGGER" in sql]
    if "c" not in columns:
        again = [sql for sql in again if "(c" not in sql and "c)" not in sql and ".c" not in sql]
    views = VIEWS[database.views] if chosen["views"] == "first" else ()
    first = [f"DROP VIEW {name}" for name in ("w", "v") if any(f"VIEW {name} " in v for v in views)]
    if first and TRIGGERS["of another"] in database.statements():
        first.append("DROP TRIGGER logged")
        again.append(TRIGGERS["of another"])
    if chosen["views"] == "legacy":
        first.append("PRAGMA legacy_alter_table = ON")
    body = {
        "new": [
            database.table("__new", columns),
            *copy,
            "DROP TABLE notes",
            "ALTER TABLE __new RENAME TO notes",
        ],
        "aside": [
            "ALTER TABLE notes RENAME TO __old",
            database.table("notes", columns),
            *copy,
            "DROP TABLE __old",
        ],
        "out and in": [
            f"CREATE TABLE __old AS SELECT {'rowid AS r, ' * database.has_rowid}* FROM notes",
            "DROP TABLE notes",
            database.table("notes", columns),
            *(sql.replace("SELECT rowid", "SELECT r") for sql in copy),
            "DROP TABLE __old",
        ],
    }[chosen["way"]]
    head, rows = "", False
    if chosen["accept"]:
        head, rows = "-- guard: accept loses_rows notes\n", True
    besides = "last" if chosen["copy"] == "seeded" else chosen["besides"]
    if besides == "first" and chosen["copy"] == "upper" and database.key == "composite":
        besides = ""  # among rows that were there first, a row with another key counts as missing
    adds = besides in ("first", "last")
    body += _seeds("notes", chosen["seeds"]) if besides == "last" else []
    if besides == "first":
        at = next((at for at, sql in enumerate(body) if sql in copy or "SELECT r," in sql), 2)
        body[at:at] = _seeds(target, chosen["seeds"])
    # A DELETE has the actions of foreign keys, which the oracle does not run.
    linked = database.kids or database.self_reference
    deletes = 40 if besides == "deleted" and not linked else 0
    body += ["DELETE FROM notes WHERE b = 40"] * bool(deletes)
    statements = (*first, *body, *again, *views)
    # The setting ends with its file.
    cut = 0 if chosen["views"] == "legacy" else min(chosen["cut"], len(statements))
    return Migration(
        statements,
        head=head,
        columns=frozenset(gone),
        rows=rows,
        adds=adds,
        deletes=deletes,
        cut=cut,
    )


def _reshaped(columns: dict[str, str], shape: str) -> tuple[dict[str, str], set[str]]:
    """Return the columns of the new table, and which of the old ones go."""
    match shape:
        case "default":
            return columns | {"c": "TEXT DEFAULT 'q'"}, set()
        case "add":
            return columns | {"extra": "TEXT"}, set()
        case "drop":
            return {name: sql for name, sql in columns.items() if name != "c"}, {"c"}
        case "ignore" | "replace":
            return columns | {"c": f"TEXT UNIQUE ON CONFLICT {shape.upper()}"}, set()
        case _:
            return columns | {"c": "TEXT NOT NULL DEFAULT 'q'"}, set()


def _copy(
    chosen: dict[str, Any], kept: list[str], source: str, target: str, *, rowid: bool
) -> list[str]:
    names, values = list(kept), list(kept)
    match chosen["copy"]:
        case "forgotten":
            return []
        case "star":
            return [f"INSERT INTO {target} SELECT * FROM {source}"]
        case "column":
            names, values = names[:-1], values[:-1]
        case "order":
            values = [name for name in ("id", *COLUMNS, "up") if name in kept]
        case "mixed":
            values = [MIXED if name == "b" else name for name in names]
        case "upper":
            values = [f"upper({name})" if name == "a" else name for name in values]
    if chosen["shape"] == "not null" and "c" in names:
        values = [f"coalesce({name}, 'q')" if name == "c" else name for name in values]
    if rowid:
        names, values = ["rowid", *names], ["rowid", *values]
    tail = {
        "where": " WHERE c IS NOT NULL", "limit": " LIMIT 2", "seeded": " WHERE c IS NOT NULL"
    }.get(chosen["copy"], "")  # fmt: skip
    return [
        f"INSERT INTO {target} ({', '.join(names)}) SELECT {', '.join(values)} FROM {source}{tail}"
    ]


def _seeds(table: str, number: int) -> list[str]:
    """Rows that the file adds besides the copy."""
    values = ((100 + n, f"'s{n}'", 1_000 + n) for n in range(number))
    return [f"INSERT INTO {table} (id, a, b) VALUES ({i}, {a}, {b})" for i, a, b in values]


ADDED, DROPPED, NAMED = (
    "ALTER TABLE notes ADD COLUMN c2 TEXT",
    "ALTER TABLE notes DROP COLUMN c",
    "ALTER TABLE notes RENAME COLUMN c2 TO c",
)
SMALL = (
    Migration((ADDED, "UPDATE notes SET c2 = c", DROPPED, NAMED), columns=frozenset({"c2"})),
    Migration((ADDED, "UPDATE notes SET c2 = c WHERE b < 40", DROPPED, NAMED), columns=frozenset({"c"})),
    Migration((ADDED, DROPPED, NAMED)),
    Migration((DROPPED, "ALTER TABLE notes ADD COLUMN c TEXT")),
    Migration(("ALTER TABLE notes ADD COLUMN extra TEXT",)),
    Migration(("ALTER TABLE notes RENAME COLUMN b TO bb",), columns=frozenset({"b"})),
    Migration(("ALTER TABLE notes RENAME COLUMN c TO cc",), columns=frozenset({"c"})),
    Migration(("ALTER TABLE notes DROP COLUMN c",), columns=frozenset({"c"})),
    Migration(("ALTER TABLE notes RENAME TO papers",), renamed="papers"),
    Migration(("DROP TABLE notes",), rows=True),
    Migration(("DROP TABLE log",)),
    Migration(("DELETE FROM notes WHERE b > 30",), rows=True, actions=True),
    Migration(("UPDATE notes SET a = upper(a)",), columns=frozenset({"a"})),
    Migration(("INSERT OR REPLACE INTO notes (id, a, b) SELECT id, a, b FROM notes WHERE b = 30",), columns=frozenset({"c", "up"}), replaces=True),
    Migration(("DROP INDEX IF EXISTS by_b", "DROP INDEX IF EXISTS by_c"), objects=frozenset({"by_b", "by_c"})),
    Migration(("DROP TRIGGER IF EXISTS audit",), objects=frozenset({"audit"})),
    Migration(("DROP VIEW IF EXISTS v",)),
    Migration(("DROP INDEX IF EXISTS by_b", "CREATE INDEX by_b ON notes (b)")),
    Migration(("ALTER TABLE log RENAME TO old_log", "CREATE TABLE log (text TEXT, kind INTEGER)")),
    Migration(("ALTER TABLE log RENAME TO old_log", "CREATE TABLE log (text TEXT)", "DROP TABLE old_log")),
)  # fmt: skip


@st.composite
def cases(draw: Any) -> tuple[Database, Migration]:
    database = draw(databases())
    if draw(st.integers(0, 4)):
        return database, draw(rebuilds(database))
    return database, draw(st.sampled_from(SMALL))
