"""Pending or refused: every way in which a folder and a ledger can disagree."""

from __future__ import annotations

import hashlib
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from local_mcp_gateway.errors import Problem
from local_mcp_gateway.migrate.folder import Folder, Migration
from local_mcp_gateway.migrate.journal import Entry
from local_mcp_gateway.migrate.ledger import Applied
from local_mcp_gateway.migrate.resolve import resolve


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


def test_an_edited_file_is_named_with_both_hashes() -> None:
    (problem,) = resolve(folder(A, B), [row(A, digest="f" * 64), row(B)]).problems
    assert (problem.code, problem.tag) == ("edited", A.tag)
    assert "ffffffffffff" in problem.message
    assert A.hash[:12] in problem.message
    assert "--accept-edited 0000_m" in problem.hint


def test_an_edit_of_what_another_tool_applied_offers_trust() -> None:
    (problem,) = resolve(folder(A), [Applied("f" * 64, A.when)]).problems
    assert "--trust-files" in problem.hint


def test_a_deleted_file_is_missing() -> None:
    assert codes(folder(A, C), row(A), row(B), row(C)) == [("missing", B.tag)]


def test_a_deleted_file_that_the_journal_still_lists_is_said_once() -> None:
    absent = folder(A, C, absent=(Entry(1, B.tag, B.when),))
    assert codes(absent, row(A), row(B), row(C)) == [("missing", B.tag)]


def test_a_database_of_a_newer_program_is_refused() -> None:
    assert codes(folder(A, B), row(A), row(B), row(C)) == [("newer_database", C.tag)]


def test_an_empty_folder_is_not_taken_for_an_older_program() -> None:
    (problem,) = resolve(folder(), [row(A)]).problems
    assert problem.code == "missing"
    assert "--migrations" in problem.hint


def test_a_migration_merged_late_is_out_of_order_until_allowed() -> None:
    f = folder(A, B, C)
    assert codes(f, row(A), row(C)) == [("out_of_order", B.tag)]
    assert codes(f, row(A), row(C), allow=True) == []
    assert resolve(f, [row(A), row(C)], allow_out_of_order=True).pending == (B,)


def test_a_migration_at_the_end_that_is_dated_earlier_is_refused_as_drizzle_would_skip_it() -> None:
    late = migration(3, when=15)
    assert codes(folder(A, B, late), row(A), row(B)) == [("out_of_order", late.tag)]


def test_dates_that_go_backwards_are_fine_on_a_fresh_database() -> None:
    assert codes(folder(A, migration(1, when=500), migration(2, when=3))) == []


def test_a_number_that_stands_twice_is_refused_while_one_of_them_is_pending() -> None:
    other = migration(1, tag="0001_other", text="-- o", when=25)
    assert codes(folder(A, B, other), row(A), row(B)) == [("duplicate", "0001_other")]
    assert codes(folder(A, B, other), row(A), row(B), row(other)) == []


def test_two_files_with_one_text_are_two_migrations() -> None:
    first, second = migration(0, text=""), migration(1, text="")
    found = resolve(folder(first, second), [row(first)])
    assert found.pending == (second,)
    assert found.problems == ()


def test_a_row_that_another_tool_wrote_eight_times_counts_once() -> None:
    found = resolve(folder(A, B), [row(A)] * 8)
    assert (found.pending, found.problems) == ((B,), ())


def test_a_journal_with_new_dates_still_knows_its_files_by_their_hash() -> None:
    moved = migration(0, when=77)
    found = resolve(folder(moved), [row(A)])
    assert (found.pending, found.problems) == ((), ())


def test_an_unjournaled_file_is_named() -> None:
    f = folder(A, unjournaled=(Path("/m/0001_x.sql"),))
    assert codes(f, row(A)) == [("unjournaled", "0001_x")]


def test_a_folder_without_any_journal_is_sent_to_adopt() -> None:
    (problem,) = resolve(folder(unjournaled=(Path("/m/001.sql"),)), ()).problems
    assert "db adopt --format auto" in problem.hint


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
