"""The values of a run: where its backups are, what it records, and what it reports."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

from local_mcp_gateway.guard import GuardContext, GuardPolicy, GuardReport


def test_backups_are_beside_the_real_database_unless_the_policy_says_where(tmp_path: Path) -> None:
    real = tmp_path / "real" / "app.db"
    real.parent.mkdir()
    real.touch()
    link = tmp_path / "link.db"
    link.symlink_to(real)
    assert GuardContext(link, tmp_path).backup_folder == real.parent / "backups"
    elsewhere = GuardPolicy(backup_folder=tmp_path / "kept")
    assert GuardContext(link, tmp_path, elsewhere).backup_folder == tmp_path / "kept"


def test_a_ledger_says_which_version_wrote_it(tmp_path: Path) -> None:
    context = GuardContext(tmp_path / "app.db", tmp_path, GuardPolicy(program_version="7.1"))
    with closing(sqlite3.connect(":memory:")) as connection:
        ledger = context.ledger(connection)
        ledger.ensure()
        ledger.note("seeded", backup="app-1")
        assert [(e.event, e.backup, e.program_version) for e in ledger.events()] == [
            ("seeded", "app-1", "7.1")
        ]


def test_a_report_has_its_durations_as_fields_and_as_json(tmp_path: Path) -> None:
    report = GuardReport(tmp_path / "app.db", "current", (), None, "", (), {"lock": 1.5, "read": 2})
    assert report.as_fields() | {"database": ""} == {
        "database": "",
        "state": "current",
        "applied": 0,
        "backup": None,
        "duration_ms": 3.5,
        "lock_ms": 1.5,
        "read_ms": 2,
    }
    assert report.as_json()["fingerprint"] is None
