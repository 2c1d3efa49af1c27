"""What scripts rely on: every `--json` output about the database, value by value.

Each is also held against its schema in docs/schemas. The outputs about servers, profiles and the
service are in test_json_gateway.py.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import click
import pytest

from local_mcp_gateway import __version__
from local_mcp_gateway.cli.main import cli
from tests.e2e.json_values import ABOVE_ZERO, DIGEST, TIME, Like
from tests.harness import REPOSITORY, Place

pytestmark = pytest.mark.e2e
Said = Callable[..., Any]

ONE = "CREATE TABLE a (id INTEGER PRIMARY KEY, word TEXT)"
DROPS_A = [
    {
        "kind": "deletes_data",
        "object": "a",
        "message": "The table a is dropped with all its rows.",
    },
    {
        "kind": "breaks_running_version",
        "object": "a",
        "message": "a is dropped: a program version that still uses it fails.",
    },
]
BY_HAND = {"kind": "table", "object": "by_hand", "expected": None, "found": "(id)"}
FREE = {"held": False, "pid": None, "since": None}


def commands_with_json() -> Iterator[str]:
    """Yield the names of the commands that take `--json`, such as `db status`; of an alias the shortest."""
    waiting: list[tuple[str, click.Command]] = [("", cli)]
    known: set[int] = set()
    while waiting:
        path, command = waiting.pop(0)
        if isinstance(command, click.Group):
            context = click.Context(command)
            for name in command.list_commands(context):
                below = command.get_command(context, name)
                assert below is not None
                waiting.append((f"{path} {name}".strip(), below))
        elif any("--json" in parameter.opts for parameter in command.params):
            if id(command) not in known:
                yield path
            known.add(id(command))


def test_every_command_that_prints_json_has_a_schema() -> None:
    wanted = {name.replace(" ", "-") for name in commands_with_json()} | {"error"}
    assert {path.stem for path in (REPOSITORY / "docs" / "schemas").glob("*.json")} == wanted


def pending(place: Place, tag: str, statements: int, *hazards: dict[str, str]) -> dict[str, Any]:
    return {
        "tag": tag,
        "hash": place.folder.hash_of(tag),
        "statements": statements,
        "hazards": list(hazards),
    }


def applied(place: Place) -> list[dict[str, Any]]:
    """Return what the tables say of the migrations, as `db status` shows it."""
    whens = {entry["tag"]: entry["when"] for entry in place.folder.journal()}
    rows = place.query("SELECT tag, applied_at, duration_ms FROM __guard_history ORDER BY id")
    assert all(at == TIME and ms == ABOVE_ZERO for _, at, ms in rows)
    return [
        {
            "tag": tag,
            "hash": place.folder.hash_of(tag),
            "created_at": whens[tag],
            "applied_at": at,
            "duration_ms": ms,
            "line_ends_differ": False,
        }
        for tag, at, ms in rows
    ]


def status(place: Place, state: str, **different: Any) -> dict[str, Any]:
    empty: dict[str, Any] = {"applied": [], "pending": [], "problems": [], "drift": []}
    facts = {"database": str(place.database), "state": state, "backups": [], "lock": FREE}
    return facts | empty | {"read_only": False, "applied_by_hand": None} | different


def test_the_status_says_what_it_finds_in_every_state(place: Place, said: Said) -> None:
    one = place.folder.add("one", ONE)
    new = status(place, "new", pending=[pending(place, one, 1)])
    assert said(place, "db status", code=3) == new
    place.migrate()
    assert said(place, "db status") == status(place, "current", applied=applied(place))

    two = place.folder.add("two", "DROP TABLE a; CREATE TABLE b (x)")
    waits = pending(place, two, 2, *DROPS_A)
    found = status(place, "pending", applied=applied(place), pending=[waits])
    assert said(place, "db status", code=3) == found
    assert said(place, "db migrate", "--dry-run", code=3) == {"pending": [waits]}

    place.write("CREATE TABLE by_hand (id INTEGER)")
    assert said(place, "db status", code=3) == found | {"drift": [BY_HAND]}

    place.folder.write(one, "CREATE TABLE a (id INTEGER PRIMARY KEY, edited TEXT)")
    refused = said(place, "db status", code=8)
    assert (refused["state"], refused["applied"]) == ("refused", [])
    assert refused["problems"] == [
        {
            "code": "edited",
            "tag": one,
            "message": f"{one}.sql was edited after it was applied: its hash was"
            f" {place.query('SELECT hash FROM __drizzle_migrations')[0][0][:12]}… and is"
            f" {place.folder.hash_of(one)[:12]}….",
            "hint": Like(f"Bring {one}.sql back from version control.*"),
        }
    ]

    place.database.write_bytes(b"this is no database, whatever its name says" * 100)
    damaged = said(place, "db status", code=6)
    assert damaged == status(place, "damaged", problems=damaged["problems"])
    assert damaged["problems"] == [
        {
            "code": "not_a_database",
            "tag": None,
            "message": Like(f".*{place.database}.*"),
            "hint": Like(".+"),
        }
    ]


def test_the_status_names_who_holds_the_lock_and_the_backups(shipped: Place, said: Said) -> None:
    shipped.migrate()
    tag = shipped.folder.add("more", "CREATE TABLE more (id INTEGER PRIMARY KEY)")
    shipped.migrate()
    with shipped.serve() as gateway:
        gateway.wait_ready()
        found = said(shipped, "db status")
        assert found["lock"] == {"held": True, "pid": gateway.process.pid, "since": TIME}
    (backup,) = shipped.backups
    assert found["backups"] == [
        {
            "name": backup.stem,
            "bytes": backup.stat().st_size,
            "created_at": json.loads(backup.with_suffix(".json").read_text())["created_at"],
            "before": tag,
        }
    ]


def test_a_migration_and_the_history_say_what_was_done(place: Place, said: Said) -> None:
    one = place.folder.add("one", ONE)
    first = said(place, "db migrate")
    (done,) = applied(place)
    report = {
        "database": str(place.database),
        "state": "created",
        "applied": [{"tag": one, "statements": 1, "duration_ms": done["duration_ms"]}],
        "backup": None,
        "fingerprint": DIGEST,
        "drift": [],
    }
    assert first == report | {"durations_ms": first["durations_ms"]}
    assert list(first["durations_ms"]) == [
        "lock", "check", "plan", "hold", "verify", "apply", "commit", "durable",
    ]  # fmt: skip
    assert all(ms == ABOVE_ZERO for ms in first["durations_ms"].values())

    place.write("CREATE TABLE by_hand (id INTEGER)")
    unchanged = said(place, "db migrate")
    assert (unchanged["state"], unchanged["applied"]) == ("current", [])
    assert unchanged["drift"] == [BY_HAND]
    place.write("DROP TABLE by_hand")

    two = place.folder.add("two", "ALTER TABLE a ADD COLUMN more TEXT")
    second = said(place, "db migrate")
    assert (second["state"], second["backup"]) == ("migrated", str(place.backups[0]))
    assert second["fingerprint"] != first["fingerprint"]
    common: dict[str, object] = {"event": "applied", "program_version": __version__}
    common |= {"previous_hash": None, "rows_touched": 0}
    # A new database is not rehearsed.
    rehearsals: tuple[dict[str, object], ...] = (
        {"rehearsed_ms": None, "hazards": None}, {"rehearsed_ms": ABOVE_ZERO, "hazards": []},
    )  # fmt: skip
    entries = applied(place)
    assert [entry.pop("line_ends_differ") for entry in entries] == [False, False]
    assert said(place, "db history") == [
        {**common, **entry, **rehearsal, "backup": backup, "fingerprint": report["fingerprint"]}
        for entry, rehearsal, backup, report in zip(
            entries, rehearsals, (None, place.backups[0].stem), (first, second), strict=True
        )
    ]
    assert [entry["tag"] for entry in applied(place)] == [one, two]


def test_backups_are_described_by_their_manifest(place: Place, said: Said) -> None:
    tags = [place.folder.add("one", ONE)]
    place.migrate()
    fingerprint = said(place, "db migrate")["fingerprint"]
    made = said(place, "db backup create")
    (file,) = place.backups
    assert made == {
        "name": file.stem,
        "path": str(file),
        "bytes": file.stat().st_size,
        "sha256": digest(file),
        "created_at": TIME,
        "before": None,
        "fingerprint": fingerprint,
        "applied": tags,
        "program_version": __version__,
        "verified": True,
        "database": str(place.database),
        "damage": None,
        "attempts": [],
        "plain_secrets": False,
    }
    tags.append(place.folder.add("two", "ALTER TABLE a ADD COLUMN more TEXT"))
    place.write("INSERT INTO a DEFAULT VALUES")
    place.migrate()
    newer = place.backups[-1]
    listed = said(place, "db backup list")
    assert listed["unusable"] == []
    assert listed["backups"][1] == {**made, "copied_at": None}
    assert (listed["backups"][0]["name"], listed["backups"][0]["before"]) == (newer.stem, tags[1])

    newer.write_bytes(newer.read_bytes()[:-1])
    assert said(place, "db backup verify", code=6) == [
        {"name": newer.stem, "ok": False, "problem": Like(".*bytes.*")},
        {"name": file.stem, "ok": True, "problem": None},
    ]
    manifest = newer.with_suffix(".json")
    manifest.write_text("{")
    assert said(place, "db backup list")["unusable"] == [
        {"path": str(manifest), "reason": Like(".*not valid JSON.*")}
    ]


def digest(file: Path) -> str:
    return hashlib.sha256(file.read_bytes()).hexdigest()


def test_pruning_says_what_goes_and_what_stays(place: Place, said: Said) -> None:
    place.folder.add("one", ONE)
    place.migrate()
    names = [said(place, "db backup create")["name"] for _ in range(2)]
    limits = ("--keep-last", "1", "--keep-daily-days", "0")
    would = said(place, "db backup prune", *limits, "--dry-run")
    assert would == {"removed": [], "would_remove": [names[0]], "kept": [names[1]]}
    done = said(place, "db backup prune", *limits, "--yes")
    assert done == {"removed": [names[0]], "would_remove": [], "kept": [names[1]]}


def test_an_error_says_code_message_hint_and_exit_code(place: Place, said: Said) -> None:
    tag = place.folder.add("one", "CREATE TABEL a (id)")
    assert said(place, "db migrate", code=5) == {
        "error": {
            "code": "migration_failed",
            "message": f'{tag}.sql, line 1, statement 1: near "TABEL": syntax error.',
            "hint": "Correct the statement and start again; the database is unchanged.",
            "exit_code": 5,
        }
    }
    assert said(place, "db nonsense", code=2) == {
        "error": {
            "code": "usage",
            "message": "There is no command `nonsense`.",
            "hint": "See `python -m local_mcp_gateway db --help`.",
            "exit_code": 2,
        }
    }


def test_a_check_names_problems_warnings_hazards_and_drift(place: Place, said: Said) -> None:
    one = place.folder.add("one", ONE)
    checked = {
        "database": str(place.database),
        "migrations": str(place.folder.path),
        "problems": [],
        "warnings": [],
        "hazards": [],
        "pending": [one],
        "drift": [],
        "applied_by_hand": None,
        "not_compared": [],
    }
    assert said(place, "db check") == checked
    place.migrate()
    place.write("CREATE TABLE by_hand (id INTEGER)")
    two = place.folder.add("two", "DROP TABLE a", down="CREATE TABEL a (id)")
    (place.folder.path / "0002_lost.sql").write_text("SELECT 1")
    assert said(place, "db check", code=8) == checked | {
        "problems": [
            {
                "code": "unjournaled",
                "message": "0002_lost.sql is in the folder, but no journal entry lists it.",
                "hint": "Add it to meta/_journal.json, or take it out of the folder.",
                "tag": "0002_lost",
            }
        ],
        "warnings": [
            {"code": "down", "tag": two, "message": Like(".*TABEL.*"), "hint": Like(".+")}
        ],
        "hazards": [{"tag": two, **hazard} for hazard in DROPS_A],
        "pending": [two],
        "drift": [BY_HAND],
        "applied_by_hand": None,
    }


def test_a_rehearsal_counts_rows_statements_and_bytes(place: Place, said: Said) -> None:
    place.folder.add("one", ONE)
    place.migrate()
    place.write("INSERT INTO a (word) VALUES ('x'), ('y')")
    place.write("PRAGMA wal_checkpoint(TRUNCATE)")
    two = place.folder.add("two", "DROP TABLE a; CREATE TABLE b (x)")
    rows = [
        {"table": "a", "rows_before": 2, "rows_after": None},
        {"table": "b", "rows_before": None, "rows_after": 0},
    ]
    found = said(place, "db rehearse")
    assert found == {
        "source": str(place.database),
        "migrations": [{"tag": two, "statements": 2, "duration_ms": ABOVE_ZERO, "tables": rows}],
        "tables": rows,
        "hazards": [
            {"tag": two, **DROPS_A[1]},
            {**DROPS_A[0], "tag": two, "message": Like("Table a goes from 2 rows to 0.")},
        ],
        "duration_ms": ABOVE_ZERO,
        "bytes_before": place.database.stat().st_size,
        "bytes_after": ABOVE_ZERO,
        "bytes_needed": ABOVE_ZERO,
    }
    assert found["duration_ms"] >= found["migrations"][0]["duration_ms"]
    assert found["bytes_needed"] >= found["bytes_before"] + found["bytes_after"]


def test_a_difference_is_told_with_the_statements_that_would_end_it(
    place: Place, said: Said
) -> None:
    place.folder.add("one", ONE)
    place.migrate()
    same = {"from": "database", "to": "migrations"}
    assert said(place, "db diff") == same | {"differences": [], "statements": [], "hazards": []}
    place.folder.add("two", "DROP TABLE a; CREATE TABLE b (x)")
    assert said(place, "db diff", code=3) == same | {
        "differences": [
            {"kind": "table", "object": "b", "expected": "(x)", "found": None},
            {"kind": "table", "object": "a", "expected": None, "found": "(id, word)"},
        ],
        "statements": ["CREATE TABLE b (x)", "DROP TABLE a"],
        "hazards": DROPS_A,
    }


def test_the_way_back_says_what_was_taken_back(place: Place, said: Said) -> None:
    place.folder.add("one", ONE)
    fingerprint = said(place, "db migrate")["fingerprint"]
    two = place.folder.add(
        "two", "ALTER TABLE a ADD COLUMN x TEXT", down="ALTER TABLE a DROP COLUMN x"
    )
    place.migrate()
    done = said(place, "db down", "--steps", "1", "--yes")
    assert done == {
        "reverted": [{"tag": two, "statements": 1, "duration_ms": ABOVE_ZERO}],
        "backup": place.backups[-1].stem,
        "fingerprint": fingerprint,
    }
    (row,) = said(place, "db history")[-1:]
    assert (row["event"], row["tag"], row["backup"]) == ("reverted", two, done["backup"])
    assert row["duration_ms"] == done["reverted"][0]["duration_ms"]


def test_generating_names_files_statements_and_hazards(place: Place, said: Said) -> None:
    schema = place.root / "schema.sql"
    schema.write_text("CREATE TABLE a (id INTEGER PRIMARY KEY, word TEXT);\n")
    given = ("--schema", schema)
    assert said(place, "db generate", *given, "--check", code=3) == {
        "missing": ["table a is missing: (id, word)"]
    }
    files = [
        place.folder.path / name
        for name in ("0000_initial.sql", "meta/0000_snapshot.json", "0000_initial.down.sql")
    ]
    assert said(place, "db generate", *given) == {
        "tag": "0000_initial",
        "files": [*map(str, files), str(place.folder.journal_file)],
        "statements": [ONE],
        "hazards": [],
    }
    assert said(place, "db generate", *given, "--check") == {"missing": []}
    nothing: dict[str, Any] = {"tag": None, "files": [], "statements": [], "hazards": []}
    assert said(place, "db generate", *given) == nothing
    schema.write_text("CREATE TABLE b (x);\n")
    dropping = said(place, "db generate", *given, "--name", "drops", "--yes")
    assert (dropping["tag"], dropping["hazards"]) == ("0001_drops", DROPS_A)
    assert said(place, "db drop", "--yes") == {
        "tag": "0001_drops",
        "files": [
            str(place.folder.path / name)
            for name in ("0001_drops.sql", "meta/0001_snapshot.json", "0001_drops.down.sql")
        ],
        "rewound_by": None,
        "lost": [],
    }


def test_seeding_restoring_and_resetting_name_the_files_on_both_sides(
    shipped: Place, said: Said
) -> None:
    shipped.migrate()
    tags = [entry["tag"] for entry in shipped.folder.journal()]
    made = said(shipped, "db backup create")
    seeded = said(shipped, "db seed")
    assert seeded == {
        "seeded": [str(REPOSITORY / "config" / "demo_seed.py")],
        "backup": shipped.backups[-1].stem,
    }
    restored = said(shipped, "db restore", made["name"], "--yes")
    (replaced,) = shipped.database.parent.glob("*.replaced-*.db")
    served = {**made, "attempts": [{"before": None, "count": 1, "last_at": TIME}]}
    assert restored == {"restored": served, "replaced": str(replaced)}
    assert said(shipped, "db reset", "--yes") == {
        "database": str(shipped.database),
        "applied": tags,
        "backup": shipped.backups[-1].stem,
        "replaced": None,
    }
    shipped.database.write_bytes(b"this is no database" * 1000)
    reset = said(shipped, "db reset", "--yes")
    assert reset["backup"] is None
    assert reset["replaced"] in set(map(str, shipped.database.parent.glob("*.replaced-*.db")))


def test_mending_a_history_names_what_was_mended(place: Place, said: Said) -> None:
    one = place.folder.add("one", "CREATE TABLE a (id INTEGER PRIMARY KEY)")
    place.write("CREATE TABLE a (id INTEGER PRIMARY KEY)")
    nothing: dict[str, Any] = {"journaled": [], "left_out": [], "adopted": [], "trusted": []}
    nothing["taken_over"] = None
    assert said(place, "db adopt", "--yes") == nothing | {"adopted": [one]}
    before = place.folder.hash_of(one)
    place.folder.write(one, "CREATE TABLE a (id INTEGER PRIMARY KEY) -- edited")
    assert said(place, "db repair", "--accept-edited", one, "--yes") == {
        "tag": one,
        "previous_hash": before,
        "hash": place.folder.hash_of(one),
        "marked": [],
        "backup": None,
    }
    assert said(place, "db history")[-1]["previous_hash"] == before
    place.folder.write(one, "CREATE TABLE a (id INTEGER PRIMARY KEY) -- again")
    assert said(place, "db adopt", "--trust-files", "--yes")["trusted"] == [one]
    place.folder.write("0000_two", "CREATE TABLE b (x)")
    first = place.folder.journal()
    place.folder.write_journal([*first, first[0] | {"idx": 1, "tag": "0000_two"}])
    assert said(place, "db renumber") == {"moved": [{"from": "0000_two", "to": "0002_two"}]}


def test_a_folder_is_squashed(place: Place, said: Said) -> None:
    place.folder.add("one", "CREATE TABLE a (x)")
    place.folder.add("two", "CREATE TABLE b (x)")
    done = said(place, "db squash", "--yes")
    assert (done["tag"], done["squashed"]) == ("0001_two", ["0000_one", "0001_two"])


def test_a_folder_of_another_tool_is_journaled(place: Place, said: Said) -> None:
    place.folder.journal_file.unlink()
    (place.folder.path / "V1__a.sql").write_text("CREATE TABLE a(x);")
    (place.folder.path / "U2__b.sql").write_text("DROP TABLE b;")
    assert said(place, "db adopt", "--format", "auto") == {
        "journaled": ["V1__a"],
        "left_out": ["U2__b.sql"],
        "adopted": [],
        "trusted": [],
        "taken_over": None,
    }
