"""A database of everything that a page of data has to bear."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

ODD = """
CREATE TABLE people (id INTEGER PRIMARY KEY, name TEXT NOT NULL, born INTEGER, api_token TEXT, note TEXT DEFAULT 'none');
CREATE TABLE pets (id INTEGER PRIMARY KEY, owner INTEGER REFERENCES people ON DELETE CASCADE, name TEXT CHECK (length(name) < 20));
CREATE TABLE keyed (a TEXT, b INTEGER, c, PRIMARY KEY (a, b)) WITHOUT ROWID;
CREATE TABLE plain (x, y);
CREATE TABLE files (id INTEGER PRIMARY KEY, body BLOB, created_at INTEGER);
CREATE TABLE "select ""all"" 🐘/../" ("from" TEXT, "a""b" INTEGER, "" TEXT);
CREATE TABLE "" (x);
CREATE TABLE computed (a INTEGER, b INTEGER AS (a * 2) STORED);
CREATE TABLE shadowed (rowid TEXT, _rowid_ TEXT, oid TEXT);
CREATE TABLE strictly (n INTEGER NOT NULL) STRICT;
CREATE VIRTUAL TABLE texts USING fts5(title, body);
CREATE VIEW good AS SELECT name, born FROM people;
CREATE TABLE gone (label TEXT);
CREATE VIEW broken AS SELECT label FROM gone;
CREATE TRIGGER loud AFTER UPDATE ON plain BEGIN UPDATE people SET note = 'woken' WHERE id = 1; END;
CREATE INDEX people_by_name ON people (name) WHERE born IS NOT NULL;
CREATE TABLE nullkeys (id TEXT PRIMARY KEY, v);
CREATE TABLE choosy (
  id INTEGER PRIMARY KEY,
  state TEXT NOT NULL DEFAULT 'open' CHECK (state IN ('open', 'it''s sent')),
  size INTEGER CHECK (size IS NULL OR size IN (1, 2)),
  "Mood" TEXT, rank INTEGER CHECK (rank IN (1, 2) AND rank > 0), who INTEGER REFERENCES files,
  CHECK ("Mood" IN ('', 'calm') OR "Mood" IS NULL)
);
CREATE TABLE torn (id INTEGER PRIMARY KEY, t TEXT, r REAL);
INSERT INTO nullkeys VALUES (NULL, 'first'), (NULL, 'second'), ('k', 'third');
INSERT INTO choosy VALUES (1, 'open', NULL, NULL, 1, 1);
INSERT INTO people VALUES (1, 'Ada', 1815, 'hunter2', ''), (2, '<b>Bob</b>', NULL, 'hunter3', NULL), (3, 'C''s "x"', 9, NULL, 'a' || char(13, 10) || 'b');
INSERT INTO pets VALUES (1, 1, 'Rex'), (2, 1, 'Tom'), (3, NULL, 'Wild');
INSERT INTO keyed VALUES ('a', 1, x'00ff'), ('a', 2, 2.5), ('b', 1, NULL);
INSERT INTO plain VALUES (1, 'one'), (NULL, x'41'), ('text', '');
INSERT INTO files VALUES (1, zeroblob(20000000), 1795930673367), (2, x'89504e470d0a1a0a', 5);
INSERT INTO "select ""all"" 🐘/../" VALUES ('there', 1, 'nameless');
INSERT INTO "" VALUES (7);
INSERT INTO computed (a) VALUES (4);
INSERT INTO texts VALUES ('Elephants', 'grey and large'), ('Mice', 'small');
INSERT INTO torn VALUES (1, CAST(x'610062' AS TEXT), 9e999), (2, CAST(x'c328' AS TEXT), -9e999), (3, CAST(x'00' AS TEXT), 0.1), (4, 'é', NULL);
INSERT INTO shadowed VALUES ('a', 'b', 'c');
"""


def make_odd(path: Path) -> Path:
    with closing(sqlite3.connect(path)) as connection:
        connection.executescript(ODD)
        connection.execute("INSERT INTO plain VALUES (CAST(x'c328' AS TEXT), 'not UTF-8')")
        connection.execute("PRAGMA legacy_alter_table = ON")
        connection.execute("DROP TABLE gone")
        connection.commit()
    return path
