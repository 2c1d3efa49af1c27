"""A gateway replicates its database with a real Litestream, to a folder and to an S3 store."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import sqlite3
import stat
import sys
import sysconfig
import venv
from contextlib import closing
from pathlib import Path
from urllib.parse import urlsplit

import certifi
import pytest

from local_mcp_gateway.errors import Exit
from local_mcp_gateway.service.admin import ask
from tests.harness import REPOSITORY, GatewayProcess, Place, new_place, poll, wait_gone
from tests.needs import small_disk
from tests.object_store import KEYS, S3, line_to
from tests.replicas import NAMES, Replica, add, filled, level, replicating, wait_at_rest
from tests.studio.conftest import Browser

SECRET = KEYS["AWS_SECRET_ACCESS_KEY"]


def names(place: Place) -> list[tuple[object, ...]]:
    return place.query(NAMES)


def kinds(gateway: GatewayProcess) -> list[str]:
    return [name for name in gateway.names() if name.startswith("replica.")]


def litestream(gateway: GatewayProcess) -> int:
    """Return the process id of the first Litestream, when its launcher has become it."""
    pid: int = gateway.wait_for("replica.started")["pid"]
    poll(lambda: b"litestream\0" in Path(f"/proc/{pid}/cmdline").read_bytes())
    return pid


def test_what_is_written_is_in_the_replica_when_the_gateway_has_stopped(
    shipped: Place, replica: Replica
) -> None:
    gateway = filled(shipped, replica, "first")
    assert kinds(gateway) == ["replica.started", "replica.stopped"]
    assert gateway.wait_for("replica.stopped")["unsent_bytes"] == 0
    assert replica.rows() == names(shipped) == [("first",)]


def test_a_second_run_continues_the_replica(shipped: Place, in_folder: Replica) -> None:
    for number in range(2):
        gateway = filled(shipped, in_folder, f"server{number}")
        assert gateway.wait_for("replica.started")["continued"] is bool(number)
    assert in_folder.rows() == [("server0",), ("server1",)]


def test_the_escapes_of_a_folders_url_are_read(shipped: Place, tmp_path: Path) -> None:
    disk = tmp_path / "a disk"
    disk.mkdir()
    replica = Replica(f"file://{tmp_path}/a%20disk")
    filled(shipped, replica, "first")
    assert {file.name for file in disk.iterdir()} == {"local-mcp-gateway.json", "ltx"}
    assert replica.rows() == [("first",)]


def test_a_disk_that_is_not_mounted_is_not_written_in_its_place(
    shipped: Place, in_folder: Replica, tmp_path: Path
) -> None:
    (tmp_path / "elsewhere").rmdir()
    with shipped.serve(env=in_folder.env) as gateway:
        gateway.wait_ready()
        assert "does not exist" in gateway.wait_for("replica.failed")["message"]
        for command, code in (("status", Exit.DIFFERS), ("check", Exit.NO_BACKUP)):
            assert shipped.run("replica", command, env=in_folder.env).code == code
    assert not (tmp_path / "elsewhere").exists()


def test_a_key_is_in_no_log_no_process_list_and_no_file(
    shipped: Place, in_bucket: Replica, tmp_path: Path
) -> None:
    with replicating(shipped, in_bucket) as gateway:
        pid = litestream(gateway)
        command = Path(f"/proc/{pid}/cmdline").read_text()
        config = Path(command.split("\0")[-2])
        assert stat.S_IMODE(config.stat().st_mode) == 0o600
        assert SECRET not in config.read_text() + command
        assert '"retention": "720h"' in config.read_text()  # its own default is a day
        assert gateway.stop() == 0
    assert not config.exists()
    assert SECRET not in "".join(gateway.lines)
    kept = [path for path in tmp_path.rglob("*") if path.is_file() and not path.is_symlink()]
    assert [path for path in kept if SECRET.encode() in path.read_bytes()] == []


def test_keys_may_be_systemds_credentials(
    shipped: Place, in_bucket: Replica, tmp_path: Path
) -> None:
    env = in_bucket.env
    credentials = tmp_path / "credentials"
    credentials.mkdir()
    for name in KEYS:
        file = "replica-" + name.removeprefix("AWS_").lower().replace("_", "-")
        (credentials / file).write_text(env.pop(name) + "\n")
    with shipped.serve(env={**env, "CREDENTIALS_DIRECTORY": str(credentials)}) as gateway:
        gateway.wait_ready()
        gateway.wait_for("replica.started")
        add(shipped, "first")
        assert gateway.stop() == 0
    assert in_bucket.rows() == [("first",)]


def test_without_litestream_it_says_so_in_one_sentence_and_serves(
    shipped: Place, in_folder: Replica, tmp_path: Path
) -> None:
    bare = tmp_path / "bare"
    venv.create(bare, symlinks=True)
    (packages,) = bare.glob("lib/python*/site-packages")
    here = sysconfig.get_path("purelib")
    (packages / "all.pth").write_text(f"{here}\n{REPOSITORY / 'daemon'}\n")
    scripts = str(Path(sys.executable).parent)
    path = os.pathsep.join(p for p in os.environ["PATH"].split(os.pathsep) if p != scripts)
    place = Place(shipped.root, (str(bare / "bin" / "python"), "-m", "local_mcp_gateway"))
    with place.serve(env={**in_folder.env, "PATH": path}) as gateway:
        gateway.wait_ready()
        failed = gateway.wait_for("replica.failed")
        assert failed["message"] == "The replica needs Litestream, which is not installed."
        assert "pip install 'local-mcp-gateway[replica]'" in failed["hint"]
        add(shipped, "first")
        assert gateway.stop() == 0


def test_a_killed_litestream_is_started_again_and_nothing_is_lost(
    shipped: Place, in_folder: Replica
) -> None:
    with replicating(shipped, in_folder, "before") as gateway:
        first = litestream(gateway)
        os.kill(first, signal.SIGKILL)
        lost = gateway.wait_for("replica.lost")
        assert lost["exit_code"] == -signal.SIGKILL
        add(shipped, "between")
        gateway.wait_for("replica.started", where=lambda e: e["pid"] != first)
        add(shipped, "after")
        assert gateway.stop() == 0
    assert in_folder.rows() == names(shipped) == [("after",), ("before",), ("between",)]


def test_a_log_that_began_again_without_litestream_tears_no_replica(
    shipped: Place, in_folder: Replica
) -> None:
    """Litestream finds its last frame in the WAL, and takes what was written after it for nothing."""
    shipped.folder.add("notes", "CREATE TABLE notes (text TEXT)", "CREATE TABLE more (text TEXT)")
    with (
        replicating(shipped, in_folder) as gateway,
        closing(sqlite3.connect(shipped.database, isolation_level=None)) as other,
    ):
        other.execute("PRAGMA wal_autocheckpoint = 0")
        for _ in range(50):
            other.execute("INSERT INTO notes VALUES (hex(randomblob(2000)))")
        poll(lambda: level(shipped))
        first = litestream(gateway)
        os.kill(first, signal.SIGKILL)
        gateway.wait_for("replica.lost")
        other.execute("INSERT INTO notes VALUES ('unsent')")
        assert other.execute("PRAGMA wal_checkpoint(FULL)").fetchone() is not None
        other.execute("INSERT INTO more VALUES ('after')")  # at the beginning of the WAL
        gateway.wait_for("replica.started", where=lambda e: e["pid"] != first)
        poll(lambda: level(shipped))
        assert gateway.stop() == 0
    for table, rows in (("notes", 51), ("more", 1)):
        assert in_folder.rows(f"SELECT count(*) FROM {table}") == [(rows,)]


@pytest.mark.parametrize("now", ["elsewhere", "emptied", "put back from a copy"])
def test_a_replica_that_is_not_as_it_was_left_gets_the_whole_database(
    shipped: Place, in_folder: Replica, tmp_path: Path, now: str
) -> None:
    """Litestream has removed its own files by then, five minutes after it sent them."""
    folder, copy = tmp_path / "elsewhere", tmp_path / "copy"
    filled(shipped, in_folder, "first")
    shutil.copytree(folder, copy)
    filled(shipped, in_folder, "second", "third")
    kept = shipped.database.with_name(f".{shipped.database.name}-litestream") / "ltx" / "0"
    for file in sorted(kept.iterdir())[:-1]:
        file.unlink()
    replica = in_folder
    if now == "elsewhere":
        folder = tmp_path / "new"
        replica = Replica(f"file://{folder}")
    else:
        shutil.rmtree(folder)
    if now == "put back from a copy":
        copy.rename(folder)
    else:
        folder.mkdir()
    filled(shipped, replica, "last")
    assert replica.rows() == names(shipped) == [("first",), ("last",), ("second",), ("third",)]


def test_a_folder_whose_disk_is_disconnected_is_not_made_again(
    shipped: Place, in_folder: Replica, tmp_path: Path
) -> None:
    folder, disk = tmp_path / "elsewhere", tmp_path / "disk"
    with replicating(shipped, in_folder, "first") as gateway:
        wait_at_rest(shipped)
        poll(
            (folder / "ltx" / "9").exists
        )  # its first whole copy is the last that it writes by itself
        folder.rename(disk)
        failed = gateway.wait_for("replica.failed")
        assert failed["message"].endswith("local-mcp-gateway.json is gone.")
        assert "Connect its disk" in failed["hint"]
        add(shipped, "meanwhile")
        assert not folder.exists()
        disk.rename(folder)
        gateway.wait_for("replica.started", after=gateway.events.index(failed))
        assert gateway.stop() == 0
    assert in_folder.rows() == names(shipped) == [("first",), ("meanwhile",)]


def test_a_stop_does_not_wait_for_a_store_that_does_not_answer(shipped: Place) -> None:
    with socket.create_server(("127.0.0.1", 0)) as mute:
        replica = Replica("s3://bucket/gateway", f"http://127.0.0.1:{mute.getsockname()[1]}")
        with shipped.serve(env=replica.env) as gateway:
            gateway.wait_ready()
            asked, _ = mute.accept()
            with asked:
                assert gateway.stop() == 0
            assert kinds(gateway) == []


@pytest.mark.nightly
def test_an_emptied_bucket_gets_the_whole_database_again(
    shipped: Place, in_bucket: Replica, s3: S3
) -> None:
    with replicating(shipped, in_bucket, "first") as gateway:
        poll(lambda: level(shipped))
        bucket = urlsplit(in_bucket.url).netloc
        for name in s3.objects(bucket):
            s3.delete(bucket, name)
        add(shipped, "second")
        failed = gateway.wait_for("replica.failed")
        assert failed["message"].endswith("local-mcp-gateway.json is gone.")
        goes_on = s3.objects(bucket)  # was sent before it was noticed, and follows what is gone
        gateway.wait_for("replica.started", after=gateway.events.index(failed))
        if goes_on:
            assert in_bucket.rows() == names(shipped)
        add(shipped, "third")
        poll(lambda: level(shipped))
        assert gateway.stop() == 0
    assert in_bucket.rows() == names(shipped)


def test_litestream_ends_with_a_killed_gateway_and_the_next_sends_the_rest(
    shipped: Place, in_folder: Replica
) -> None:
    with replicating(shipped, in_folder) as gateway:
        pid = litestream(gateway)
        add(shipped, "first")
        os.kill(gateway.process.pid, signal.SIGKILL)
        wait_gone(pid)
    filled(shipped, in_folder)
    assert in_folder.rows() == [("first",)]


def test_a_litestream_that_outlived_its_gateway_is_ended_by_the_next(
    shipped: Place, in_folder: Replica
) -> None:
    with replicating(shipped, in_folder) as gateway:
        pid = litestream(gateway)
        os.kill(pid, signal.SIGSTOP)  # so that it does not follow its gateway
        os.kill(gateway.process.pid, signal.SIGKILL)
        gateway.wait()
        with shipped.serve(env=in_folder.env) as second:
            second.wait_ready()
            wait_gone(pid)
            second.wait_for("replica.started")
            add(shipped, "first")
            assert second.stop() == 0
    assert in_folder.rows() == [("first",)]


def test_another_database_is_kept_from_a_used_url(
    shipped: Place, in_folder: Replica, tmp_path: Path
) -> None:
    other = new_place(tmp_path / "other", shipped=True)
    filled(shipped, in_folder, "first")
    with other.serve(env=in_folder.env) as gateway:
        gateway.wait_ready()
        failed = gateway.wait_for("replica.failed")
        assert failed["code"] == "replica_taken"
        assert f"the replica of another database ({shipped.database} on" in failed["message"]
        add(other, "stranger")
        assert gateway.stop() == 0
    assert in_folder.rows() == [("first",)]


def test_a_second_living_gateway_is_kept_from_the_url(
    shipped: Place, in_folder: Replica, tmp_path: Path
) -> None:
    filled(shipped, in_folder, "first")
    twin = new_place(tmp_path / "twin", shipped=True)  # the same identity, in another place
    shutil.copy(shipped.database, twin.database)
    with replicating(shipped, in_folder) as gateway:
        with twin.serve(env=in_folder.env) as second:
            failed = second.wait_for("replica.failed")
            assert failed["code"] == "replica_taken"
            assert "Another gateway replicates to" in failed["message"]
            assert second.stop() == 0
        add(shipped, "second")
        assert gateway.stop() == 0
    assert in_folder.rows() == [("first",), ("second",)]


def test_a_replica_that_no_gateway_has_named_is_not_written_over(
    shipped: Place, in_folder: Replica
) -> None:
    filled(shipped, in_folder)
    named = Path(in_folder.url.removeprefix("file://")) / "local-mcp-gateway.json"
    named.unlink()
    with shipped.serve(env=in_folder.env) as gateway:
        gateway.wait_ready()
        assert "that no gateway has named" in gateway.wait_for("replica.failed")["message"]
    assert not named.exists()


def test_a_file_that_is_replaced_under_the_gateway_does_not_reach_the_replica(
    shipped: Place, in_folder: Replica, tmp_path: Path
) -> None:
    with replicating(shipped, in_folder, "first") as gateway:
        pid = litestream(gateway)
        assert level(shipped)
        assert in_folder.rows() == [("first",)]
        other = tmp_path / "other.db"
        with closing(sqlite3.connect(other, isolation_level=None)) as connection:
            connection.executescript("CREATE TABLE t(x); PRAGMA journal_mode=WAL")
        other.replace(shipped.database)
        wait_gone(pid)
        assert gateway.wait_for("replica.failed")["code"] == "database_gone"
        gateway.stop()
    assert "replica.stopped" not in gateway.names()
    assert in_folder.rows() == [("first",)]


def test_after_a_restore_the_replica_is_the_restored_database(
    shipped: Place, in_folder: Replica
) -> None:
    with replicating(shipped, in_folder, "first") as gateway:
        assert shipped.run("db", "backup", "create").code == 0
        add(shipped, "second")
        gateway.stop()
    asked = shipped.run("db", "restore")
    assert "mcp_servers: 1 row gone" in asked.stderr
    assert "_litestream" not in asked.stderr
    assert shipped.run("db", "restore", "--yes").code == 0
    filled(shipped, in_folder, "third")
    assert in_folder.rows() == names(shipped) == [("first",), ("third",)]


def test_its_tables_are_no_drift(shipped: Place, in_folder: Replica) -> None:
    filled(shipped, in_folder, "first")
    assert shipped.query("SELECT count(*) FROM _litestream_seq") != []
    assert shipped.run("--json", "db", "status", bare=False).code in (0, 2)
    assert shipped.run("db", "check").code == 0
    shipped.folder.add("more", "CREATE TABLE more (x)")
    assert shipped.migrate().events()[-1]["event"] == "guard.ready"


@pytest.mark.root
def test_it_does_not_begin_where_its_own_copy_has_no_room(
    in_folder: Replica, tmp_path: Path
) -> None:
    with small_disk(tmp_path / "small", "48M") as disk:
        place = new_place(disk / "machine", shipped=True)
        place.folder.add("notes", "CREATE TABLE notes (text TEXT)")
        place.migrate()
        place.write("INSERT INTO notes VALUES (hex(randomblob(5000000)))")
        filler = disk / "filler"
        filler.write_bytes(bytes(shutil.disk_usage(disk).free - (6 << 20)))
        with place.serve(env=in_folder.env) as gateway:
            gateway.wait_ready()
            failed = gateway.wait_for("replica.failed")
            assert failed["code"] == "no_room"
            assert "Litestream's own copy" in failed["message"]
            filler.unlink()
            gateway.wait_for("replica.started")
            assert gateway.stop() == 0


@pytest.mark.parametrize(
    "ending", [pytest.param("stopped", marks=pytest.mark.nightly), "caught_up"]
)
def test_a_store_that_does_not_answer_is_noticed(
    shipped: Place, in_bucket: Replica, s3: S3, ending: str
) -> None:
    with replicating(shipped, in_bucket, "first") as gateway:
        poll(lambda: _state(shipped, gateway) == "level")
        s3.freeze()
        add(shipped, "second")
        assert gateway.wait_for("replica.behind")["behind_s"] >= 10
        assert _state(shipped, gateway) == "behind"
        if ending == "stopped":
            assert gateway.stop() == 0
            assert gateway.wait_for("replica.left_behind")["unsent_bytes"] != 0
            return
        s3.thaw()
        gateway.wait_for("replica.caught_up")
        assert gateway.stop() == 0
    assert in_bucket.rows() == names(shipped) == [("first",), ("second",)]


def _state(place: Place, gateway: GatewayProcess) -> object:
    assert gateway.process.poll() is None
    found = ask(place.database, "status", {}, timeout_s=60)
    return found["replica"]["state"]


def test_a_replica_that_never_had_everything_is_not_called_level(
    shipped: Place, in_bucket: Replica, s3: S3
) -> None:
    shipped.folder.add("notes", "CREATE TABLE notes (id INTEGER PRIMARY KEY, text TEXT)")
    shipped.migrate()
    shipped.write("INSERT INTO notes (text) SELECT hex(randomblob(12000000))")
    with line_to(s3.port) as line:
        line.stop_after(3_000_000, cuts=False)
        with shipped.serve(env=Replica(in_bucket.url, line.endpoint).env) as gateway:
            gateway.wait_for("replica.started")
            gateway.wait_ready()
            seen = set()
            while "behind" not in seen:
                seen.add(_state(shipped, gateway))
            assert seen == {"starting", "behind"}
        line.mend()


def test_a_bucket_that_is_not_there_is_named_and_the_gateway_serves(
    shipped: Place, in_bucket: Replica
) -> None:
    env = {**in_bucket.env, "LMG_REPLICA__URL": "s3://nowhere/gateway"}
    with shipped.serve(env=env) as gateway:
        gateway.wait_ready()
        failed = gateway.wait_for("replica.failed")
        assert failed["code"] == "replica"
        assert "NoSuchBucket" in failed["message"]
        add(shipped, "first")


def test_wrong_keys_are_named_and_the_gateway_serves(
    shipped: Place, in_bucket: Replica, s3: S3
) -> None:
    s3.check_keys()
    with shipped.serve(env=in_bucket.env) as gateway:
        gateway.wait_ready()
        failed = gateway.wait_for("replica.failed")
        assert failed["code"] == "replica"
        assert "InvalidAccessKeyId" in failed["message"]
        add(shipped, "first")
        assert gateway.stop() == 0
    assert SECRET not in "".join(gateway.lines)


def test_litestream_starts_where_a_bundle_of_certificates_is_named(
    shipped: Place, in_bucket: Replica, tmp_path: Path
) -> None:
    bundle = tmp_path / "bundle.pem"
    shutil.copy(certifi.where(), bundle)
    env = {**in_bucket.env, "AWS_CA_BUNDLE": str(bundle)}
    with shipped.serve(env=env) as gateway:
        gateway.wait_ready()
        pid = litestream(gateway)
        told = Path(f"/proc/{pid}/environ").read_text().split("\0")
        assert f"SSL_CERT_FILE={bundle}" in told
        assert [entry for entry in told if entry.startswith("AWS_CA_BUNDLE")] == []
        add(shipped, "first")
        assert gateway.stop() == 0
    assert "replica.lost" not in gateway.names()
    assert in_bucket.rows() == [("first",)]


@pytest.mark.parametrize(
    ("url", "told"),
    [
        ("gs://bucket", "which names no place"),
        ("sftp://host/path", "without a user or a folder"),
        ("sftp://ann:secret@host/path", "holds more than a user, a server and a folder"),
        ("s3://key:secret@bucket/path", "holds more than a bucket and a path"),
        ("file://host/path", "which names no place"),
    ],
)
def test_a_url_that_cannot_hold_a_replica_is_refused_at_the_start(
    shipped: Place, url: str, told: str
) -> None:
    with shipped.serve(env={"LMG_REPLICA__URL": url}) as gateway:
        assert gateway.wait() == Exit.CONFIG
    refused = gateway.wait_for("service.refused")
    assert told in refused["message"]
    assert "secret" not in json.dumps(gateway.events)


def test_in_dev_mode_it_is_off_unless_asked(shipped: Place, in_folder: Replica) -> None:
    with shipped.serve("--dev", env=in_folder.env) as gateway:
        gateway.wait_ready()
        assert gateway.stop() == 0
    assert kinds(gateway) == []


def test_a_rewind_in_dev_mode_ends_litestream_and_begins_again(
    shipped: Place, in_folder: Replica
) -> None:
    shipped.folder.add("more", "CREATE TABLE more (x)")
    with shipped.serve("--dev", env={**in_folder.env, "LMG_REPLICA__IN_DEV": "true"}) as gateway:
        gateway.wait_ready()
        first = litestream(gateway)
        tag = shipped.folder.journal()[-1]["tag"]
        shipped.folder.write(tag, "CREATE TABLE more (x, y)")
        gateway.wait_for("migration.rewound")
        wait_gone(first)
        gateway.wait_for("replica.started", where=lambda e: e["pid"] != first)
        add(shipped, "first")
        assert gateway.stop() == 0
    columns = in_folder.rows("SELECT name FROM pragma_table_info('more')")
    assert columns == [("x",), ("y",)]


def test_the_pages_say_where_the_replica_is_and_that_it_fails(
    shipped: Place, in_folder: Replica, tmp_path: Path
) -> None:
    with replicating(shipped, in_folder) as gateway:
        wait_at_rest(shipped)
        page = _page(shipped, "/migrations/backups")
        assert "Off this machine" in page
        assert in_folder.url in page
        assert '<span class="chip ok">level</span>' in page
        assert "The replica" not in _page(shipped, "/")
        gateway.stop()
    other = new_place(tmp_path / "other", shipped=True)
    with other.serve(env=in_folder.env) as gateway:
        gateway.wait_ready()
        gateway.wait_for("replica.failed")
        assert "The replica fails" in _page(other, "/")


def _page(place: Place, path: str) -> str:
    """Return a page, as a browser that came in by the link of `open`."""
    link = urlsplit(ask(place.database, "studio.open", {}, timeout_s=60)["url"])
    browser = Browser(f"{link.scheme}://{link.netloc}")
    browser.get(f"{link.path}?{link.query}")
    return browser.page(f"/studio{path}").text


def test_a_restore_by_the_running_gateway_ends_litestream_and_begins_again(
    shipped: Place, in_folder: Replica
) -> None:
    with replicating(shipped, in_folder, "first") as gateway:
        first = litestream(gateway)
        assert shipped.run("db", "backup", "create").code == 0
        add(shipped, "second")
        ask(shipped.database, "db.restore", {"name": "latest"}, timeout_s=60)
        wait_gone(first)
        gateway.wait_for("replica.started", where=lambda e: e["pid"] != first)
        add(shipped, "third")
        assert gateway.stop() == 0
    assert in_folder.rows() == names(shipped) == [("first",), ("third",)]


def test_a_backup_from_before_the_first_replica_is_the_same_database(
    shipped: Place, in_folder: Replica
) -> None:
    add(shipped, "first")
    assert shipped.run("db", "backup", "create").code == 0
    filled(shipped, in_folder, "second")
    assert shipped.run("db", "restore", "--yes").code == 0
    filled(shipped, in_folder, "third")
    assert in_folder.rows() == names(shipped) == [("first",), ("third",)]
