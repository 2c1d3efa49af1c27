"""Pending or refused: every way in which a folder and a ledger can disagree."""

from __future__ import annotations

import hashlib
import sqlite3
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from local_mcp_gateway.errors import Problem
from local_mcp_gateway.migrate.folder import Folder, Migration
from local_mcp_gateway.migrate.history import Facts
from local_mcp_gateway.migrate.journal import Entry
from local_mcp_gateway.migrate.ledger import Applied, Ledger
from local_mcp_gateway.migrate.plan import Plan
from local_mcp_gateway.migrate.resolution import (
    AppliedMigration,
    Edited,
    match,
    resolve,
)


def migration(
    number: int, *, text: str | None = None, tag: str | None = None, when: int | None = None
) -> Migration:
    sql = f"-- {number}" if text is None else text
    name = tag or f"{number:04d}_m"
    return Migration(
        name,
        number,
        number * 10 + 10 if when is None else when,
        hashlib.sha256(sql.encode()).hexdigest(),
        sql,
        f"/m/{name}.sql",
    )


def folder(
    *migrations: Migration, absent: tuple[Entry, ...] = (), unjournaled: tuple[Path, ...] = ()
) -> Folder:
    problems = tuple(Problem("missing", "", "", entry.tag) for entry in absent)
    return Folder(Path("/m"), migrations, unjournaled, problems, absent)


def row(m: Migration, *, digest: str | None = None, at: str | None = "2026") -> Applied:
    return Applied(digest or m.hash, m.when, m.tag, at, 1.0)


A, B, C = (migration(n) for n in range(3))


def codes(f: Folder, *rows: Applied, allow: bool = False) -> list[tuple[str, str | None]]:
    return [(p.code, p.tag) for p in resolve(f, rows, allow_out_of_order=allow).problems]


def test_everything_is_pending_on_a_fresh_database() -> None:
    found = resolve(folder(A, B), ())
    assert (found.pending, found.applied, found.problems) == ((A, B), (), ())


def test_what_is_applied_is_not_pending() -> None:
    found = resolve(folder(A, B, C), [row(A), row(B)])
    assert found.pending == (C,)
    assert [entry.tag for entry in found.applied] == [A.tag, B.tag]
    assert found.problems == ()


def test_what_is_applied_is_shown_as_the_folder_names_it_and_the_ledger_dates_it() -> None:
    ledger = Applied(A.hash, 77, "0000_old_name", "2026-01-02T03:04:05Z", 12.5)
    (entry,) = resolve(folder(A), [ledger]).applied
    assert (entry.tag, entry.hash, entry.created_at) == (A.tag, A.hash, 77)
    assert (entry.applied_at, entry.duration_ms) == ("2026-01-02T03:04:05Z", 12.5)


def test_an_edited_file_is_named_with_both_hashes_and_is_neither_applied_nor_pending() -> None:
    found = resolve(folder(A, B), [row(A, digest="f" * 64), row(B)])
    assert found.problems == (
        Problem(
            "edited",
            f"0000_m.sql was edited after it was applied: its hash was ffffffffffff… and is"
            f" {A.hash[:12]}….",
            "Bring 0000_m.sql back from version control and write the change as a new migration; or"
            " look at the difference and accept it with `db repair --accept-edited 0000_m`.",
            A.tag,
        ),
    )
    assert found.edited == (Edited(A, row(A, digest="f" * 64)),)
    assert (found.applied, found.pending) == ((AppliedMigration(B, row(B)),), ())


def test_an_edit_of_what_another_tool_applied_offers_trust() -> None:
    (problem,) = resolve(folder(A), [Applied("f" * 64, A.when)]).problems
    assert problem.hint == (
        "Bring 0000_m.sql back from version control; or, as another tool applied it and its old text"
        " is not known here, take the files as they are with `db adopt --trust-files`."
    )


def test_an_edited_file_is_known_by_its_tag_where_its_date_was_edited_too() -> None:
    edited = Applied("f" * 64, 999, A.tag, "2026")
    assert codes(folder(A, B), edited, row(B)) == [("edited", A.tag)]


def test_each_of_two_edited_files_is_given_its_own_row() -> None:
    rows = [row(A, digest="a" * 64), row(B, digest="b" * 64)]
    found = resolve(folder(A, B), rows)
    assert found.edited == (Edited(A, rows[0]), Edited(B, rows[1]))
    # A second row for an edited file has no file left: the first one took it.
    assert codes(folder(A, B), row(A, digest="a" * 64), row(A, digest="c" * 64), row(B)) == [
        ("edited", A.tag),
        ("missing", A.tag),
    ]


def test_a_deleted_file_is_missing() -> None:
    assert resolve(folder(A, C), [row(A), row(B), row(C)]).problems == (
        Problem(
            "missing",
            "The database has applied 0001_m, which is not in /m.",
            "Bring its file and its journal entry back from version control.",
            B.tag,
        ),
    )


def test_a_deleted_file_without_a_tag_is_named_by_its_hash() -> None:
    (problem,) = resolve(folder(A), [row(A), Applied("f" * 64, A.when - 1)]).problems
    assert problem == Problem(
        "missing",
        "The database has applied the migration with hash ffffffffffff…, which is not in /m.",
        "Bring its file and its journal entry back from version control.",
        None,
    )


def test_a_deleted_file_that_the_journal_still_lists_is_said_once() -> None:
    absent = folder(A, C, absent=(Entry(1, B.tag, B.when),))
    assert codes(absent, row(A), row(B), row(C)) == [("missing", B.tag)]


def test_a_deleted_file_is_said_once_by_its_tag_or_its_date() -> None:
    by_tag = folder(A, absent=(Entry(1, B.tag, 999),))
    by_date = folder(A, absent=(Entry(1, "0001_renamed", B.when),))
    assert codes(by_tag, row(A), row(B)) == [("missing", B.tag)]
    assert codes(by_date, row(A), row(B)) == [("missing", "0001_renamed")]


def test_a_row_that_the_folder_says_is_missing_does_not_hide_the_next() -> None:
    absent = folder(A, absent=(Entry(1, B.tag, B.when),))
    assert codes(absent, row(A), row(B), row(C)) == [
        ("missing", B.tag),
        ("newer_database", C.tag),
    ]


def test_a_problem_of_the_folder_is_told_though_everything_is_applied() -> None:
    broken = Folder(Path("/m"), (A,), (), (Problem("bad_journal", "It is cut off.", ""),))
    found = resolve(broken, [row(A)])
    assert (found.problems, [entry.tag for entry in found.applied]) == (broken.problems, [A.tag])


def test_a_database_of_a_newer_program_is_refused() -> None:
    assert resolve(folder(A, B), [row(A), row(B), row(C)]).problems == (
        Problem(
            "newer_database",
            "The database has applied 0002_m, which is newer than everything in /m.",
            "Start the newer version of the program, or restore the backup from before it"
            " (`db backup list`, then `db restore NAME`).",
            C.tag,
        ),
    )


def test_a_row_as_old_as_the_newest_file_is_missing_not_newer() -> None:
    same_date = Applied("f" * 64, B.when, "0001_gone")
    assert codes(folder(A, B), row(A), row(B), same_date) == [("missing", "0001_gone")]


def test_an_empty_folder_is_not_taken_for_an_older_program() -> None:
    (problem,) = resolve(folder(), [row(A)]).problems
    assert problem.code == "missing"
    assert problem.hint == (
        "The folder holds no migrations: give the right one with --migrations, or bring the files"
        " back from version control."
    )


def test_a_migration_merged_late_is_out_of_order_until_allowed() -> None:
    f = folder(A, B, C)
    found = resolve(f, [row(A), row(C)])
    assert found.problems == (
        Problem(
            "out_of_order",
            "0001_m is pending, but it comes before 0002_m, which is applied already (Drizzle would"
            " skip it in silence).",
            "Read whether it still fits, then apply it with `db migrate --allow-out-of-order`, or give"
            " it a place at the end with `db renumber`.",
            B.tag,
        ),
    )
    assert codes(f, row(A), row(C), allow=True) == []
    assert resolve(f, [row(A), row(C)], allow_out_of_order=True).pending == (B,)


def test_every_migration_that_was_merged_late_is_named_and_no_other() -> None:
    f = folder(A, B, C, migration(3))
    assert codes(f, row(C)) == [("out_of_order", A.tag), ("out_of_order", B.tag)]


def test_a_late_migration_of_drizzle_1_is_given_a_later_stamp_instead() -> None:
    folder = Folder(Path("/m"), (A, B, C), is_v1=True)
    (problem,) = resolve(folder, [row(A), row(C)]).problems
    assert problem == Problem(
        "out_of_order",
        "0001_m is pending, but it comes before 0002_m, which is applied already.",
        "Read whether it still fits, then apply it with `db migrate --allow-out-of-order`, or give it"
        " a place at the end: rename its folder to a later stamp.",
        B.tag,
    )


def test_a_migration_at_the_end_that_is_dated_earlier_is_refused_as_drizzle_would_skip_it() -> None:
    late = migration(3, when=15)
    assert codes(folder(A, B, late), row(A), row(B)) == [("out_of_order", late.tag)]
    same = migration(3, when=B.when)
    assert codes(folder(A, B, same), row(A), row(B)) == [("out_of_order", same.tag)]
    (problem,) = resolve(folder(A, migration(1, when=5)), [row(A)]).problems
    assert "comes before 0000_m, which is applied already" in problem.message


def test_a_migration_that_may_run_does_not_hide_a_late_one_behind_it() -> None:
    late = migration(3, when=5)
    assert codes(folder(A, B, late), row(A)) == [("out_of_order", late.tag)]


def test_a_migration_before_an_applied_one_is_late_however_it_is_dated() -> None:
    early = migration(1, when=500)
    assert codes(folder(A, early, C), row(A), row(C)) == [("out_of_order", early.tag)]


def test_a_migration_dated_before_a_row_without_a_file_is_out_of_order() -> None:
    absent = folder(A, absent=(Entry(1, B.tag, B.when),))
    (_, problem) = resolve(absent, [row(B)]).problems
    assert (problem.code, problem.tag) == ("out_of_order", A.tag)
    assert "comes before the newest, which is applied already" in problem.message


def test_dates_that_go_backwards_are_fine_on_a_fresh_database() -> None:
    assert codes(folder(A, migration(1, when=500), migration(2, when=3))) == []


def test_a_number_that_stands_twice_is_refused_while_one_of_them_is_pending() -> None:
    other = migration(1, tag="0001_other", text="-- o", when=25)
    assert resolve(folder(A, B, other), [row(A), row(B)]).problems == (
        Problem(
            "duplicate",
            "0001_m and 0001_other have the same number, as after a merge of two branches.",
            "Give the later one a new number with `db renumber`.",
            "0001_other",
        ),
    )
    assert codes(folder(A, B, other), row(A), row(B), row(other)) == []


def test_a_number_stands_twice_by_its_idx_or_by_its_name() -> None:
    by_idx = migration(1, tag="first", when=25), migration(1, tag="second", text="-- o", when=26)
    assert codes(folder(*by_idx)) == [("duplicate", "second")]
    by_name = migration(7, tag="0007_b", when=80), migration(8, tag="0007_c", when=90)
    assert codes(folder(*by_name)) == [("duplicate", "0007_c")]


@pytest.mark.parametrize("number", ["123", "12345", "000a"])
def test_only_four_digits_are_a_number(number: str) -> None:
    assert codes(folder(migration(1, tag=f"{number}_a"), migration(2, tag=f"{number}_b"))) == []


def test_files_that_no_journal_numbers_may_have_the_same_place() -> None:
    new = [migration(-1, tag=tag, text=tag, when=30) for tag in ("a", "b")]
    assert codes(folder(A, *new), row(A)) == []
    first = [migration(0, tag=tag, text=tag, when=30) for tag in ("a", "b")]
    assert codes(folder(*first)) == [("duplicate", "b")]


def test_numbers_that_were_applied_twice_do_not_hide_one_that_is_pending() -> None:
    twice = migration(0, tag="0000_twice", text="-- t", when=12)
    other = migration(1, tag="0001_other", text="-- o", when=25)
    applied = row(A), row(twice), row(B)
    assert codes(folder(A, twice, B, other), *applied) == [("duplicate", "0001_other")]


def test_folders_of_drizzle_1_have_stamps_and_no_numbers() -> None:
    two = migration(1, tag="0001_a", text="-- a", when=20), migration(1, tag="0001_b", when=30)
    assert resolve(Folder(Path("/m"), two, is_v1=True), ()).problems == ()


def test_two_files_with_one_text_are_two_migrations() -> None:
    first, second = migration(0, text=""), migration(1, text="")
    found = resolve(folder(first, second), [row(first)])
    assert found.pending == (second,)
    assert found.problems == ()


def test_of_two_files_with_one_text_each_has_the_row_of_its_time() -> None:
    first, second = migration(0, text=""), migration(1, text="")
    found = resolve(folder(first, second), [row(second), row(first)])
    assert found.applied == (
        AppliedMigration(first, row(first)),
        AppliedMigration(second, row(second)),
    )


def test_a_row_that_another_tool_wrote_eight_times_counts_once() -> None:
    found = resolve(folder(A, B), [row(A)] * 8)
    assert (found.pending, found.problems) == ((B,), ())


def test_a_journal_with_new_dates_still_knows_its_files_by_their_hash() -> None:
    moved = migration(0, when=77)
    found = resolve(folder(moved), [row(A)])
    assert (found.pending, found.problems) == ((), ())


FORMS = [bom + text for text in ("a;\nb;\n", "a;\r\nb;\r\n") for bom in ("", "\ufeff")]


@pytest.mark.parametrize("now", FORMS)
@pytest.mark.parametrize("then", FORMS)
def test_other_line_ends_and_a_byte_order_mark_are_no_edit(then: str, now: str) -> None:
    applied, present = migration(0, text=then), migration(0, text=now)
    found = resolve(folder(present, B), [row(applied)])
    assert (found.problems, found.edited, found.pending) == ((), (), (B,))
    (entry,) = found.applied
    assert (entry.migration, entry.row) == (present, row(applied))
    assert entry.hash == applied.hash
    assert entry.line_ends_differ is (then != now)


@pytest.mark.parametrize(
    "now",
    [
        "a;\rb;\r",  # a carriage return alone ends no comment in SQLite
        "a;\nb;",
        "a;\n\nb;\n",
        "a; \nb;\n",
        "a;\n\ufeffb;\n",
        "\ufeff\ufeffa;\nb;\n",
        "A;\nb;\n",
    ],
)
def test_everything_else_that_differs_is_an_edit(now: str) -> None:
    present = migration(0, text=now)
    assert codes(folder(present), row(migration(0, text=FORMS[0]))) == [("edited", present.tag)]


def test_a_file_with_other_line_ends_is_known_without_its_date_and_its_tag() -> None:
    applied, present = migration(0, text="a;\n"), migration(0, text="a;\r\n", when=77)
    found = resolve(folder(present), [Applied(applied.hash, 5)])
    assert (found.problems, [entry.migration for entry in found.applied]) == ((), [present])


def test_a_file_with_the_very_bytes_comes_before_one_with_other_line_ends() -> None:
    other, exact = migration(0, text="a;\r\n"), migration(1, text="a;\n")
    found = resolve(folder(other, exact), [Applied(exact.hash, 5)])
    assert [entry.migration for entry in found.applied] == [exact]
    assert found.pending == (other,)


def test_of_files_with_one_text_and_other_line_ends_each_has_the_row_of_its_time() -> None:
    first, second = migration(0, text="a;\n"), migration(1, text="a;\n")
    now = migration(0, text="a;\r\n"), migration(1, text="a;\r\n")
    found = resolve(folder(*now), [row(second), row(first)])
    assert [entry.row for entry in found.applied] == [row(first), row(second)]
    assert resolve(folder(*now), [row(second)]).pending == (now[0],)


def test_rows_of_one_text_are_given_to_the_files_of_that_text_in_order() -> None:
    first, second = migration(0, text="", when=100), migration(1, text="", when=200)
    rows = [Applied(first.hash, 1, None, "2026"), Applied(first.hash, 2, None, "2026")]
    found = resolve(folder(first, second), rows)
    assert found.applied == (AppliedMigration(first, rows[0]), AppliedMigration(second, rows[1]))
    third = Applied(first.hash, 3, "0002_gone")
    assert codes(folder(first, second), *rows, third) == [("missing", "0002_gone")]


def test_an_unjournaled_file_is_named() -> None:
    f = folder(A, unjournaled=(Path("/m/0001_x.sql"),))
    assert resolve(f, [row(A)]).problems == (
        Problem(
            "unjournaled",
            "0001_x.sql is not listed in meta/_journal.json (Drizzle would skip it in silence).",
            "Save it while `serve --dev` runs, which journals it after a rehearsal; or write its entry"
            " with `db adopt --format journal`; or take the file away.",
            "0001_x",
        ),
    )


def test_a_folder_without_any_journal_is_sent_to_adopt() -> None:
    (problem,) = resolve(folder(unjournaled=(Path("/m/001.sql"),)), ()).problems
    assert problem.hint == (
        "Make the folder ours with `db adopt --format auto`, which looks what form it has."
    )
    (_, listed) = resolve(
        folder(absent=(Entry(0, A.tag, A.when),), unjournaled=(Path("/m/001.sql"),)), ()
    ).problems
    assert "db adopt --format journal" in listed.hint


@pytest.fixture
def ledger() -> Iterator[Ledger]:
    connection = sqlite3.connect(":memory:", isolation_level=None)
    ledger = Ledger(connection, program_version="1")
    ledger.ensure()
    yield ledger
    connection.close()


def applied(ledger: Ledger, *migrations: Migration) -> None:
    ledger.record([(m, Facts(2.5)) for m in migrations])


def test_what_does_not_fit_is_named_as_the_history_knows_it(ledger: Ledger) -> None:
    applied(ledger, A, B)
    found = Plan.read(folder(A), ledger).resolution
    assert [(p.code, p.tag) for p in found.problems] == [("newer_database", B.tag)]
    assert [entry.duration_ms for entry in found.applied] == [2.5]
    assert Plan.read(folder(A, B, C), ledger).resolution.pending == (C,)


def test_what_may_be_late_is_asked_of_the_ledger_too(ledger: Ledger) -> None:
    applied(ledger, B)
    late = folder(A, B)
    assert [p.code for p in Plan.read(late, ledger).resolution.problems] == ["out_of_order"]
    allowed = Plan.read(late, ledger, allow_out_of_order=True).resolution
    assert (allowed.problems, allowed.pending) == ((), (A,))
    edited = folder(migration(0, text="-- edited"), migration(1, text="-- edited"), C)
    applied(ledger, C)
    found = Plan.read(edited, ledger, allow_out_of_order=True).resolution
    assert [p.code for p in found.problems] == ["edited"]


@given(st.data())
def test_applied_and_pending_are_the_folder_whenever_there_is_no_problem(
    data: st.DataObject,
) -> None:
    size = data.draw(st.integers(0, 8))
    migrations = [migration(n) for n in range(size)]
    done = data.draw(
        st.lists(st.sampled_from(migrations), unique=True) if migrations else st.just([])
    )
    found = resolve(folder(*migrations), [row(m) for m in done])
    tags = {entry.tag for entry in found.applied} | {m.tag for m in found.pending}
    assert tags == {m.tag for m in migrations}
    assert [m for m in migrations if m in found.pending] == list(found.pending)
    in_order = [m.tag for m in migrations[: len(done)]] == sorted(m.tag for m in done)
    assert (found.problems == ()) == in_order
    assert not resolve(
        folder(*migrations), [row(m) for m in done], allow_out_of_order=True
    ).problems


@given(st.data())
def test_every_row_and_every_file_is_accounted_for_once(data: st.DataObject) -> None:
    """Whatever was edited, deleted, renamed or dated otherwise: no row and no file is lost or used twice."""
    migrations = [migration(n, text=data.draw(st.sampled_from("abc"))) for n in range(5)]
    rows = [
        Applied(
            data.draw(st.sampled_from([m.hash, "f" * 64])),
            data.draw(st.sampled_from([m.when, m.when + 1])),
            data.draw(st.sampled_from([m.tag, None, "gone"])),
        )
        for m in data.draw(st.lists(st.sampled_from(migrations), max_size=6))
    ]
    f = folder(*data.draw(st.lists(st.sampled_from(migrations), unique=True)))
    matched, edited, unmatched = match(f, rows)
    given_to = [*matched.values(), *(entry.row for entry in edited), *unmatched]
    assert sorted(r[:2] for r in given_to) == sorted({r[:2] for r in rows})
    found = resolve(f, rows)
    done = [entry.migration for entry in found.applied]
    sides = [*found.pending, *done, *(entry.migration for entry in found.edited)]
    assert sorted(m.tag for m in sides) == sorted(m.tag for m in f.migrations)
    for tag, given_row in matched.items():
        (m,) = (m for m in f.migrations if m.tag == tag)
        assert given_row.hash == m.hash
    for edit in edited:
        same_time = edit.row.created_at == edit.migration.when
        assert same_time or edit.row.tag == edit.migration.tag
