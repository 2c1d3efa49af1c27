from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from faults import inject, vfs
from faults.inject import Point, tear
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


def test_a_torn_write_leaves_only_half_of_what_was_to_be_written(tmp_path: Path) -> None:
    file = tmp_path / "page"
    file.write_bytes(b"o" * 8192)
    escaped = "\\x6e" * 4096
    trace = f'77 pwrite64(5<{file}>, "{escaped}", 4096, 4096 <unfinished ...>\n'
    assert tear(trace, Point("migrate/WAL", "pwrite64", 1, "torn-head"))
    assert file.read_bytes() == b"o" * 4096 + b"n" * 2048 + b"o" * 2048


def test_every_flush_of_a_seed_fails_without_harm(tmp_path: Path) -> None:
    if why := inject.unavailable():
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
