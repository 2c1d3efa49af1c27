"""What differs where a replica is on an SFTP server: its keys, its disk, and that it replaces no file."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import replace
from itertools import count
from pathlib import Path

import pytest

from local_mcp_gateway.config import Settings
from local_mcp_gateway.errors import Exit
from local_mcp_gateway.guard import GuardContext, GuardPolicy
from local_mcp_gateway.service.replica.pin import pin
from tests.harness import Place, poll
from tests.needs import small_disk
from tests.object_store import line_to
from tests.replicas import NAMES, Replica, add, filled, level, replicating, wait_at_rest
from tests.sftp import READ_ONLY, Sftp, make_key, running_sftp


def test_a_moment_is_sent_there_and_comes_back(shipped: Place, in_sftp: Replica) -> None:
    with replicating(shipped, in_sftp, "first") as gateway:
        wait_at_rest(shipped)
        status = shipped.run("replica", "status", "--json", env=in_sftp.env).json()
        assert (status["state"], status["behind_s"], status["url"]) == ("level", 0, in_sftp.url)
        checked = shipped.run("replica", "check", env=in_sftp.env)
        assert checked.code == 0, checked.stderr
        examined = shipped.run("doctor", env=in_sftp.env).stdout
        assert f"{in_sftp.url}: level" in examined
        assert gateway.stop() == 0
    add(shipped, "since")
    done = shipped.run("db", "restore", "--at", "latest", "--yes", env=in_sftp.env)
    assert done.code == 0, done.stderr
    assert shipped.query(NAMES) == [("first",)]


def test_without_a_known_host_key_nothing_is_sent(shipped: Place, sftp: Sftp) -> None:
    """Litestream alone would take any server."""
    with shipped.serve(env=Replica(sftp.url, ssh_key=str(sftp.key)).env) as gateway:
        failed = gateway.wait_for("replica.failed")
        gateway.wait_ready()
        assert failed["message"].endswith(" cannot be used: the key of 127.0.0.1 is not known.")
        assert "replica.ssh_host_key" in failed["hint"]
    assert list(sftp.folder.iterdir()) == []


@pytest.mark.parametrize("wrong", ["host", "user"])
def test_a_wrong_key_is_told_and_the_gateway_serves(
    shipped: Place, sftp: Sftp, tmp_path: Path, wrong: str
) -> None:
    other = make_key(tmp_path / "other")
    host_key = other if wrong == "host" else sftp.host_key
    user_key = tmp_path / "other" if wrong == "user" else sftp.key
    replica = Replica(sftp.url, ssh_key=str(user_key), ssh_host_key=host_key)
    with shipped.serve(env=replica.env) as gateway:
        failed = gateway.wait_for("replica.failed")
        gateway.wait_ready()
        add(shipped, "first")
    told = {"host": "not the one known", "user": "does not let ann in with this key"}
    assert told[wrong] in failed["message"]
    assert list(sftp.folder.iterdir()) == []


def test_a_server_that_goes_away_and_comes_back_gets_what_it_missed(
    shipped: Place, in_sftp: Replica, sftp: Sftp
) -> None:
    with replicating(shipped, in_sftp, "before") as gateway:
        wait_at_rest(shipped)
        sftp.stop()
        add(shipped, "meanwhile")
        assert not level(shipped)
        sftp.start()
        add(shipped, "after")
        poll(lambda: level(shipped))
        assert gateway.stop() == 0
    assert in_sftp.rows() == [("after",), ("before",), ("meanwhile",)]


@pytest.mark.nightly
def test_a_stop_does_not_wait_for_a_server_that_does_not_answer(
    shipped: Place, in_sftp: Replica, sftp: Sftp
) -> None:
    with replicating(shipped, in_sftp, "first") as gateway:
        wait_at_rest(shipped)
        sftp.freeze()
        add(shipped, "unsent")
        assert gateway.stop() == 0
        assert gateway.wait_for("replica.left_behind")


@pytest.mark.nightly
def test_a_second_copy_of_the_same_state_has_a_name_of_its_own(
    shipped: Place, in_sftp: Replica
) -> None:
    """As before a migration that failed and is tried again: the server would not replace a file."""
    filled(shipped, in_sftp, "first")
    context = GuardContext(shipped.database, shipped.folder.path, GuardPolicy())
    settings = replace(
        Settings(), replica=replace(in_sftp.settings.replica, before_migration="wait")
    )
    first, second = (pin(settings, context, "0010_more") for _ in range(2))
    assert first is not None
    assert second is not None
    assert second > first


def test_a_folder_that_is_not_there_or_not_written_to_is_told(
    shipped: Place, in_sftp: Replica, sftp: Sftp
) -> None:
    sftp.stop()
    sftp.start(READ_ONLY)
    with shipped.serve(env=in_sftp.env) as gateway:
        failed = gateway.wait_for("replica.failed")
        assert failed["message"].endswith("127.0.0.1 says: Permission denied.")
        sftp.stop()
        sftp.folder.rmdir()
        sftp.start()
        failed = gateway.wait_for("replica.failed", where=lambda e: "folder" in e["message"])
        assert "The folder /elsewhere does not exist on 127.0.0.1." in failed["message"]
        assert gateway.stop() == 0
    assert not sftp.folder.exists()
    assert shipped.run("replica", "status", env=in_sftp.env).code == Exit.NO_BACKUP


def test_a_folder_whose_disk_is_disconnected_is_not_made_again(
    shipped: Place, in_sftp: Replica, sftp: Sftp, tmp_path: Path
) -> None:
    with replicating(shipped, in_sftp, "first") as gateway:
        wait_at_rest(shipped)
        poll(
            (sftp.folder / "ltx" / "9").exists
        )  # its first whole copy is the last that it writes by itself
        sftp.folder.rename(tmp_path / "disk")
        failed = gateway.wait_for("replica.failed")
        assert failed["message"].endswith("local-mcp-gateway.json is gone.")
        add(shipped, "meanwhile")
        assert not sftp.folder.exists()
        (tmp_path / "disk").rename(sftp.folder)
        gateway.wait_for("replica.started", after=gateway.events.index(failed))
        poll(lambda: level(shipped))
        assert gateway.stop() == 0
    assert in_sftp.rows() == [("first",), ("meanwhile",)]


@pytest.mark.nightly
def test_a_folder_that_was_emptied_is_not_taken_for_ours(
    shipped: Place, in_sftp: Replica, sftp: Sftp, tmp_path: Path
) -> None:
    """As where its disk is disconnected and its mount point stays."""
    with replicating(shipped, in_sftp, "first") as gateway:
        wait_at_rest(shipped)
        sftp.folder.rename(tmp_path / "disk")
        sftp.folder.mkdir()
        add(shipped, "second")
        failed = gateway.wait_for("replica.failed")
        assert failed["message"].endswith("local-mcp-gateway.json is gone.")
        assert "Connect its disk" in failed["hint"]
        unnamed = "that no gateway has named"
        failed = gateway.wait_for("replica.failed", where=lambda e: unnamed in e["message"])
        sftp.folder.rename(tmp_path / "mount point")
        (tmp_path / "disk").rename(sftp.folder)
        gateway.wait_for("replica.started", after=gateway.events.index(failed))
        poll(lambda: level(shipped))
        assert gateway.stop() == 0
    assert in_sftp.rows() == [("first",), ("second",)]


def fill(file: Path) -> None:
    """Leave no room on the disk of a file."""
    with suppress(OSError), file.open("ab", 0) as filling:
        while True:
            filling.write(bytes(512))


@pytest.mark.root
@pytest.mark.nightly
def test_a_full_disk_of_the_server_is_told_and_waited_for(shipped: Place, tmp_path: Path) -> None:
    with small_disk(tmp_path / "disk", "2M") as disk, running_sftp(disk) as sftp:
        replica = Replica(sftp.url, ssh_key=str(sftp.key), ssh_host_key=sftp.host_key)
        names, filling = (f"server{number}" for number in count()), disk / "filling"

        def unsent() -> bool:
            fill(filling)  # what is not written whole is removed, which makes room
            add(shipped, next(names))
            return not level(shipped)

        with replicating(shipped, replica) as gateway:
            wait_at_rest(shipped)
            poll(unsent)
            filling.unlink()
            poll(lambda: level(shipped))
            assert gateway.stop() == 0
        assert replica.rows() == shipped.query(NAMES)


@pytest.mark.nightly
def test_a_line_that_is_cut_in_the_middle_leaves_no_half_file_under_its_name(
    shipped: Place, in_sftp: Replica, sftp: Sftp
) -> None:
    """Litestream writes under another name first, which stays, and is no file of the replica."""
    shipped.folder.add("notes", "CREATE TABLE notes (text TEXT)")
    with line_to(sftp.port) as line:
        url = sftp.url.replace(str(sftp.port), str(line.port))
        replica = Replica(url, ssh_key=in_sftp.ssh_key, ssh_host_key=in_sftp.ssh_host_key)
        with replicating(shipped, replica, "first") as gateway:
            wait_at_rest(shipped)
            line.stop_after(1 << 20, cuts=True)
            shipped.write("INSERT INTO notes VALUES (hex(randomblob(4000000)))")
            assert line.reached.wait(60)
            line.mend()
            poll(lambda: level(shipped))
            assert gateway.stop() == 0
        assert replica.rows("SELECT length(text) FROM notes") == [(8_000_000,)]
