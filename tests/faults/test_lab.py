from __future__ import annotations

import errno
import json
import os
import select
import socket
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from faults import syscalls, vfs
from faults.findings import Findings, Record
from faults.inject import Injector, Point
from faults.lab import Worker
from faults.oracle import judge
from faults.plan import points, spread
from faults.prepare import prepare
from faults.scenarios import COMMANDS
from faults.world import World
from tests.harness import REPOSITORY, clean_environment
from tests.needs import attempt


def test_rare_calls_take_turns_with_common_ones() -> None:
    everything = list(points("migrate/WAL", {"pwrite64": [4096] * 100, "rename": [0, 0]}, ["kill"]))
    first = spread(everything, 4, seed=1)
    assert sum(point.syscall == "rename" for point in first) == 2


def test_a_write_within_one_sector_is_never_torn() -> None:
    calls = {"pwrite64": [24, 4096], "xWrite": [512, 4096]}
    found = list(points("migrate/WAL", calls, ["torn-head", "vfs-head", "vfs-IOERR"]))
    assert [(point.syscall, point.number, point.action) for point in found] == [
        ("pwrite64", 2, "torn-head"),
        ("xWrite", 1, "vfs-IOERR"),
        ("xWrite", 2, "vfs-head"),
        ("xWrite", 2, "vfs-IOERR"),
    ]


@given(st.integers(513, 65_536), st.sampled_from(vfs.TORN), st.integers(1, 500))
def test_what_is_left_of_a_torn_write_is_whole_sectors_and_not_all(
    size: int, action: str, seed: int
) -> None:
    left = vfs.kept(size, action, seed)
    assert all(start % vfs.SECTOR == 0 and start < end <= size for start, end in left)
    assert all(end % vfs.SECTOR == 0 or end == size for _, end in left)
    assert sum(end - start for start, end in left) < size


def test_the_same_seed_gives_the_same_points_and_each_only_once() -> None:
    everything = list(
        points("migrate/WAL", {"pwrite64": [4096] * 9, "fsync": [0] * 3}, ["kill", "EIO"])
    )
    ordered = spread(everything, None, seed=7)
    assert ordered == spread(everything, None, seed=7)
    assert len(ordered) == len(set(ordered)) == len(everything) == 24


WRITER = """
import os, socket, sys
from faults import syscalls
with socket.socket(fileno=int(sys.argv[1])) as told:
    socket.send_fds(told, [b"held"], [syscalls.hold(sys.argv[3:])])
page = os.open(sys.argv[2], os.O_RDWR)
for number, letter in enumerate(b"abc"):
    try:
        print(os.pwrite(page, bytes([letter]) * 4096, number * 4096), flush=True)
    except OSError as error:
        print(error.errno, flush=True)
"""


def write_three_times(page: Path, action: str) -> tuple[int, list[int], Injector]:
    """Write pages of `a`, `b` and `c` over three of `o`, with a fault at the second."""
    if why := syscalls.unavailable():
        pytest.skip(why)
    page.write_bytes(b"o" * 12288)
    injector = Injector(page.parent, Point("", "pwrite64", 2, action))
    ours, theirs = socket.socketpair()
    with ours, theirs, subprocess.Popen(
        [sys.executable, "-c", WRITER, str(theirs.fileno()), page, *injector.kinds],
        pass_fds=[theirs.fileno()],
        stdout=subprocess.PIPE,
        cwd=REPOSITORY,
    ) as writer:  # fmt: skip
        theirs.close()
        (listener,) = socket.recv_fds(ours, 16, 1)[1]
        waiting = select.poll()
        waiting.register(listener, select.POLLIN)
        while waiting.poll()[0][1] & select.POLLIN:
            syscalls.answer_one(listener, injector.answer)
        os.close(listener)
        printed = writer.communicate()[0]
    return writer.returncode, [int(word) for word in printed.split()], injector


@pytest.mark.parametrize(
    ("action", "code", "printed", "halves"),
    [
        ("EIO", 0, [4096, errno.EIO, 4096], "aaoocc"),
        ("ENOSPC", 0, [4096, errno.ENOSPC, 4096], "aaoocc"),
        ("lie", 0, [4096, 4096, 4096], "aaoocc"),
        ("kill", -9, [4096], "aaoooo"),
        ("torn-head", -9, [4096], "aabooo"),
        ("torn-tail", -9, [4096], "aaoboo"),
    ],
)
def test_only_the_nth_call_meets_the_fault(
    tmp_path: Path, action: str, code: int, printed: list[int], halves: str
) -> None:
    page = tmp_path / "page"
    ended, said, injector = write_three_times(page, action)
    assert (ended, said) == (code, printed)
    assert page.read_text() == "".join(half * 2048 for half in halves)
    assert injector.seen


def test_pieces_of_a_run_add_up(tmp_path: Path) -> None:
    first, again = Findings(), Findings()
    record = Record(tmp_path / "record")
    record.read(first)
    record.count("seed/WAL", {"fsync": [0, 0]})
    one, two = (Point("seed/WAL", "fsync", number, "EIO") for number in (1, 2))
    record.add(one, seen=True, exit_code=9, wrong=[])
    resumed = Record(tmp_path / "record")
    resumed.read(again)
    assert (resumed.calls, resumed.done) == ({"seed/WAL": {"fsync": [0, 0]}}, {one})
    resumed.add(two, seen=True, exit_code=5, wrong=["a stray file"])
    third = Findings()
    Record(tmp_path / "record").read(third)
    assert third.injected == 2
    assert third.failures == [f"{two.key}: a stray file"]


def test_a_record_of_another_program_begins_again(tmp_path: Path) -> None:
    path = tmp_path / "record"
    path.write_text('{"program": "another"}\n{"scenario": "seed/WAL", "calls": {"fsync": [0]}}\n')
    record = Record(path)
    record.read(Findings())
    assert record.calls == {}
    assert len(path.read_text().splitlines()) == 1


def damage_a_page(world: World) -> None:
    with world.database.open("r+b") as file:
        file.seek(4096 * 2)
        file.write(b"\xff" * 2048)


def damage_an_index(world: World) -> None:
    """Let an index be of another column than its entries are."""
    sql = (
        "UPDATE sqlite_schema SET sql = replace(sql, '(parent_id)', '(name)') WHERE type = 'index'"
    )
    run_sql(world, "PRAGMA writable_schema = ON", sql)


def change_a_row(world: World) -> None:
    run_sql(world, "UPDATE notes SET body = 'another' WHERE id = 1")


def orphan_a_row(world: World) -> None:
    run_sql(world, "UPDATE children SET parent_id = 999 WHERE id = 2")


def damage_the_backup(world: World) -> None:
    (backup,) = (world.data / "backups").glob("*.db")
    backup.write_bytes(backup.read_bytes()[:-4096])


def leave_a_file(world: World) -> None:
    (world.data / "gateway.db.left").write_bytes(b"")
    (world.data / "gateway.db.left").chmod(0o600)


def let_others_read(world: World) -> None:
    world.database.chmod(0o644)


def break_the_next_start(world: World) -> None:
    (world.migrations / "0002_grow_notes.sql").write_text("ALTER TABLE gone ADD COLUMN x;")


def run_sql(world: World, *statements: str) -> None:
    with closing(sqlite3.connect(world.database)) as connection:
        for sql in statements:
            connection.execute(sql)
        connection.commit()


def test_every_check_can_fail(tmp_path: Path) -> None:
    """A world that is right has no finding; each that is broken by hand has the one of its kind."""
    with Worker(tmp_path / "worker") as worker:
        scenario = prepare(COMMANDS[0], "DELETE", worker.work, worker.runner)
        found = {}
        for number, (harm, applied, exit_code, _) in enumerate(HARMS):
            world = scenario.template.copy_to(tmp_path / str(number))
            if applied:
                worker.runner.must(world, *scenario.command.arguments)
            if harm is not None:
                harm(world)
            found[number] = judge(scenario, world, exit_code, tmp_path / "aside")
    missed = [
        (expected, found[number])
        for number, (_, _, _, expected) in enumerate(HARMS)
        if not (any(expected in said for said in found[number]) if expected else not found[number])
    ]
    assert missed == []


HARMS: tuple[tuple[Callable[[World], None] | None, bool, int, str], ...] = (
    (None, False, -9, ""),
    (None, True, 0, ""),
    (None, False, 0, "exit 0, but the result is not there"),
    (damage_a_page, True, 0, "does not open"),
    (damage_an_index, True, 0, "integrity_check"),
    (change_a_row, True, 0, "content is neither the old nor the new"),
    (orphan_a_row, True, 0, "foreign_key_check: 1 orphans"),
    (damage_the_backup, True, 0, "a listed backup"),
    (leave_a_file, True, 0, "stray file gateway.db.left"),
    (let_others_read, True, 0, "readable by others: gateway.db"),
    (break_the_next_start, False, -9, "the next start fails"),
)
"""What is done to the world, whether the command ran before, its exit code, and what has to be found."""


def test_every_flush_of_a_seed_fails_without_harm(tmp_path: Path) -> None:
    if why := syscalls.unavailable():
        pytest.skip(why)
    result = tmp_path / "result.json"
    done = subprocess.run(
        [sys.executable, "-m", "faults", "--command", "seed", "--mode", "DELETE", "--syscall", "fdatasync",
         "--action", "kill", "--action", "EIO", "--no-disks", "--no-broken", "--json", result],
        env={**clean_environment(tmp_path), "FAULTS_OWN_MOUNTS": "1"},
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    found = json.loads(result.read_text())
    assert found["failures"] == []
    assert found["points"] == found["seen"]["seed/DELETE kill"] + found["seen"]["seed/DELETE EIO"]
    assert found["points"] == 2 * found["places"] >= 8


@pytest.mark.root
def test_what_was_not_flushed_is_gone_after_a_power_cut(tmp_path: Path) -> None:
    apart = ("unshare", "--mount", "--propagation", "private")
    attempt("no mounts of our own here", *apart, "true")
    script = (
        "import os, sys; from pathlib import Path; from faults.power import Disk, unavailable\n"
        "place = Path(sys.argv[1])\n"
        "if why := unavailable(place): sys.exit('no power cut here: ' + why)\n"
        "with Disk(place / 'disk') as disk:\n"
        "    (disk.mount_point / 'flushed').write_text('a'); disk.settle()\n"
        "    (disk.mount_point / 'late').write_text('b'); disk.cut()\n"
        "    print(sorted(p.name for p in disk.mount_point.iterdir() if p.is_file()))"
    )
    done = subprocess.run(
        [*apart, sys.executable, "-c", script, tmp_path],
        capture_output=True,
        text=True,
        check=False,
        cwd=REPOSITORY,
    )
    if done.stderr.startswith("no power cut here"):
        pytest.skip(done.stderr.strip())
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "['flushed']"
