"""Where a statement ends: SQLite's rules, checked against SQLite itself."""

from __future__ import annotations

import sqlite3

import pytest
from hypothesis import given
from hypothesis import strategies as st

from local_mcp_gateway.migrate.statements import BREAKPOINT, Statement, split, unclosed_comment
from local_mcp_gateway.sql import renamed, tokens


def texts(sql: str) -> list[str]:
    return [statement.text for statement in split(sql)]


@pytest.mark.parametrize(
    ("sql", "expected"),
    [
        ("", []),
        ("  \n-- only a comment\n", []),
        ("/* a; b */ -- c;\n;;;", []),
        ("SELECT 1", ["SELECT 1"]),
        ("SELECT 1; SELECT 2;", ["SELECT 1;", "SELECT 2;"]),
        (
            "SELECT ';'; SELECT '--> statement-breakpoint';",
            ["SELECT ';';", "SELECT '--> statement-breakpoint';"],
        ),
        ("SELECT 'it''s; fine';", ["SELECT 'it''s; fine';"]),
        ('SELECT 1 AS ";";', ['SELECT 1 AS ";";']),
        ("SELECT 1 AS `;`, 2 AS [;];", ["SELECT 1 AS `;`, 2 AS [;];"]),
        ("SELECT 1--> statement-breakpoint\nSELECT 2", ["SELECT 1", "SELECT 2"]),
        ("SELECT 1;--> statement-breakpoint\r\nSELECT 2;\r\n", ["SELECT 1;", "SELECT 2;"]),
        ("/* --> statement-breakpoint\n */ SELECT 1;", ["SELECT 1;"]),
        ("\ufeffSELECT 1;", ["SELECT 1;"]),
        ("SELECT CASE WHEN 1 THEN 2 END; SELECT 3", ["SELECT CASE WHEN 1 THEN 2 END;", "SELECT 3"]),
        ("SELECT 1 /* never closed ; ", ["SELECT 1 /* never closed ; "]),
        ("SELECT 'never closed ; ", ["SELECT 'never closed ; "]),
    ],
)
def test_statements_end_where_sqlite_ends_them(sql: str, expected: list[str]) -> None:
    assert [text.strip() for text in texts(sql)] == [text.strip() for text in expected]


TRIGGER = """CREATE TRIGGER tr AFTER UPDATE ON t BEGIN
  UPDATE t SET a = CASE WHEN new.a > 1 THEN 1; ELSE 2 END WHERE id = new.id;
  INSERT INTO log VALUES ('end;'); -- end;
  SELECT CASE 1 WHEN 1 THEN RAISE(IGNORE) END;
END;"""


def test_a_trigger_with_nested_statements_is_one() -> None:
    trigger = TRIGGER.replace("THEN 1; ELSE", "THEN 1 ELSE")
    assert texts(f"CREATE TABLE t(a);\n{trigger}\nSELECT 1;") == [
        "CREATE TABLE t(a);",
        trigger,
        "SELECT 1;",
    ]


def test_a_temporary_trigger_and_a_table_named_trigger_are_told_apart() -> None:
    temporary = "CREATE TEMP TRIGGER x DELETE ON t BEGIN SELECT 1; END;"
    assert texts(f"{temporary} SELECT 'trigger'; SELECT 2;") == [
        temporary,
        "SELECT 'trigger';",
        "SELECT 2;",
    ]
    assert texts("DROP TRIGGER x; SELECT 1;") == ["DROP TRIGGER x;", "SELECT 1;"]


def test_lines_and_numbers_count_what_a_person_sees() -> None:
    sql = "-- head\n\nCREATE TABLE a(x);\n;\n--> statement-breakpoint\n/* two\nlines */ CREATE TABLE b(\n x);\nSELECT 1"
    assert [(s.line, s.number) for s in split(sql)] == [(3, 1), (7, 2), (9, 3)]


PIECES = st.sampled_from(
    [
        "SELECT 1",
        "INSERT INTO t VALUES('a;b')",
        "SELECT ';--> statement-breakpoint'",
        '"x;y"',
        "`;`",
        "[;]",
        ";",
        ";",
        "\n",
        " ",
        "-- c;\n",
        "/* ; */",
        "--> statement-breakpoint\n",
        "'",
        '"',
        "END",
        "CASE",
        "CREATE TRIGGER t AFTER INSERT ON u BEGIN SELECT 1; SELECT 2; END",
        "trigger",
        "\r\n",
        "é",
    ]
)


def significant(sql: str) -> list[str]:
    """The tokens but `;`. What follows a breakpoint in its line is SQL, as for Drizzle."""
    return [t.text for t in tokens(sql.replace(BREAKPOINT, BREAKPOINT + "\n")) if t.text != ";"]


@given(st.lists(PIECES, max_size=12).map(" ".join))
def test_nothing_but_space_and_comments_is_lost(sql: str) -> None:
    found = list(split(sql))
    kept = [t for statement in found for t in significant(statement.text)]
    assert kept == significant(sql)
    assert [statement.number for statement in found] == list(range(1, len(found) + 1))
    for statement in found:
        assert sql.count("\n", 0, sql.index(statement.text)) < statement.line <= sql.count("\n") + 1


WHOLE = st.sampled_from(
    [
        "SELECT 1;",
        "SELECT 'a;b';",
        "/* ; */ SELECT 2;",
        "-- x;\nSELECT 3;",
        'SELECT "a;b";',
        "CREATE TRIGGER t AFTER INSERT ON u BEGIN SELECT 1; SELECT CASE 1 WHEN 1 THEN 2 END; END;",
        "CREATE TABLE [a;b](x);",
    ]
)


@given(
    st.lists(WHOLE, max_size=6),
    st.sampled_from(["\n", " ", "\n--> statement-breakpoint\n", "--> statement-breakpoint"]),
)
def test_whole_statements_come_out_as_they_went_in(statements: list[str], between: str) -> None:
    found = texts(between.join(statements))
    assert len(found) == len(statements)
    assert all(sqlite3.complete_statement(text) for text in found)


@pytest.mark.parametrize(
    ("sql", "expected"),
    [
        ("ALTER TABLE a RENAME TO b;", ("a", "b")),
        ('alter table main."a b" rename to `c``d`', ("a b", "c`d")),
        ("ALTER TABLE a RENAME COLUMN x TO y", None),
        ("ALTER TABLE a ADD b", None),
    ],
)
def test_the_renaming_of_a_table_is_recognised(sql: str, expected: tuple[str, str] | None) -> None:
    assert renamed(sql) == expected


def test_a_thousand_statements_take_no_quadratic_time() -> None:
    body = "".join(f"INSERT INTO t VALUES ({n}, 'trigger');\n" for n in range(3000))
    assert list(split(body))[-1] == Statement("INSERT INTO t VALUES (2999, 'trigger');", 3000, 3000)


@pytest.mark.parametrize(
    ("sql", "line"),
    [
        ("SELECT 1;\n/* two\nSELECT 2;\n", 2),
        ("SELECT 1; /* a */ /*/ SELECT 2;", 1),
        ("SELECT 1; /* the end", None),
        ("SELECT '/* not one;'; -- /* nor this;\nSELECT 2;", None),
        ("/* a; b */ SELECT 1; /* c; */", None),
        ("SELECT 1;", None),
    ],
)
def test_a_comment_that_never_ends_is_found_if_statements_are_in_it(
    sql: str, line: int | None
) -> None:
    assert unclosed_comment(sql) == line
