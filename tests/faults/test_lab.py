from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from faults.inject import Point, tear
from faults.plan import points, spread
from tests.harness import REPOSITORY, clean_environment


def test_rare_calls_take_turns_with_common_ones() -> None:
    everything = list(points("migrate/WAL", {"pwrite64": 100, "rename": 2}, ["kill"]))
    first = spread(everything, 4, seed=1)
    assert sum(point.syscall == "rename" for point in first) == 2


def test_the_same_seed_gives_the_same_points_and_each_only_once() -> None:
    everything = list(points("migrate/WAL", {"pwrite64": 9, "fsync": 3}, ["kill", "EIO"]))
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


def test_every_flush_of_a_seed_fails_without_harm(tmp_path: Path, needs_strace: None) -> None:
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
@pytest.mark.skipif(os.geteuid() != 0, reason="a power cut needs root and loop devices")
def test_what_was_not_flushed_is_gone_after_a_power_cut(tmp_path: Path) -> None:
    script = (
        "import os, sys; from pathlib import Path; from faults.power import Disk\n"
        "with Disk(Path(sys.argv[1])) as disk:\n"
        "    (disk.mount_point / 'flushed').write_text('a'); disk.settle()\n"
        "    (disk.mount_point / 'late').write_text('b'); disk.cut()\n"
        "    print(sorted(p.name for p in disk.mount_point.iterdir() if p.is_file()))"
    )
    done = subprocess.run(
        ["unshare", "--mount", "--propagation", "private", sys.executable, "-c", script,
         tmp_path / "disk"],
        capture_output=True, text=True, check=True, cwd=REPOSITORY,
    )  # fmt: skip
    assert done.stdout.strip() == "['flushed']"
