from __future__ import annotations

import errno
import json
import os
import select
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from faults import syscalls, vfs
from faults.findings import Findings, Record
from faults.inject import Injector, Point
from faults.plan import points, spread
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
