"""What is fetched from a replica is compared with the live database, and leaves nothing behind."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

from tests.harness import Place, new_place, poll
from tests.replicas import Replica, filled, level, replicating


def test_a_check_finds_a_replica_that_has_everything_and_is_not_the_database(
    shipped: Place, in_folder: Replica, tmp_path: Path
) -> None:
    """The replica's files are those of a database that is sound, and another one."""
    with replicating(shipped, in_folder, "first"):
        poll(lambda: level(shipped))
        poll(lambda: shipped.run("replica", "check", env=in_folder.env).code == 0)
        other = new_place(tmp_path / "other", shipped=True)
        (tmp_path / "of-the-other").mkdir()
        elsewhere = Replica(f"file://{tmp_path}/of-the-other")
        filled(other, elsewhere, "stranger")
        kept = tmp_path / "elsewhere" / "ltx"  # never empty, or all would be sent again
        kept.rename(tmp_path / "before")
        (tmp_path / "of-the-other" / "ltx").rename(kept)
        done = shipped.run("replica", "check", env=in_folder.env)
    assert done.code == 9
    assert "mcp_servers: 1 row gone, 1 deleted row back" in done.stderr


def test_what_a_killed_restore_has_fetched_is_removed_by_the_next_or_by_a_start(
    shipped: Place, in_folder: Replica
) -> None:
    filled(shipped, in_folder, "first")
    left = shipped.database.with_name(f".{shipped.database.name}.fetched-left")
    for command in (("replica", "check"), ("db", "migrate")):
        left.mkdir()
        with closing(sqlite3.connect(left / "replica.db")):
            pass
        assert shipped.run(*command, env=in_folder.env).code == 0
        assert not left.exists()
