"""Eight processes at once: each migration is applied exactly once, and nobody fails with BUSY."""

from __future__ import annotations

import subprocess
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.harness import DEADLINE_S, Place, clean_environment

EIGHT = 8


def start(place: Place, *arguments: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [*place.command, *place.options, *arguments],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        env=clean_environment(place.home),
        cwd=place.root,
    )


def ends(processes: list[subprocess.Popen[str]]) -> list[tuple[int, str]]:
    said = [process.communicate(timeout=DEADLINE_S * 2)[1] for process in processes]
    return [(process.returncode, text) for process, text in zip(processes, said, strict=True)]


@pytest.mark.parametrize("pending", [False, True], ids=["fresh", "pending"])
def test_eight_migrations_at_once_apply_each_one_once(place: Place, pending: bool) -> None:
    place.folder.add("a", "CREATE TABLE a(x); INSERT INTO a VALUES (1);")
    if pending:
        assert place.migrate().code == 0
    place.folder.add("b", "INSERT INTO a VALUES (2);")
    place.folder.add("c", "INSERT INTO a SELECT x + 10 FROM a;")
    found = ends([start(place, "db", "migrate", "--lock-timeout", "60") for _ in range(EIGHT)])
    assert [code for code, _ in found] == [0] * EIGHT, found
    assert place.query("SELECT x FROM a ORDER BY x") == [(1,), (2,), (11,), (12,)]
    assert place.query("SELECT count(*) FROM __drizzle_migrations") == [(3,)]
    assert len(place.backups) == (1 if pending else 0)


def test_those_that_do_not_wait_are_told_who_holds_it(place: Place) -> None:
    place.folder.add("a", "CREATE TABLE a(x); INSERT INTO a VALUES (1);")
    found = ends([start(place, "db", "migrate", "--lock-timeout", "0") for _ in range(EIGHT)])
    assert {code for code, _ in found} <= {0, 4}, found
    assert 0 in {code for code, _ in found}
    assert all("is locked by" in text for code, text in found if code == 4)
    assert place.query("SELECT x FROM a") == [(1,)]


def test_gateways_and_migrations_at_once_leave_one_gateway_serving(shipped: Place) -> None:
    shipped.folder.add("mine", "CREATE TABLE mine(x); INSERT INTO mine VALUES (1);")
    with ExitStack() as stack:
        gateways = [stack.enter_context(shipped.serve("--lock-timeout", "0")) for _ in range(3)]
        found = ends([start(shipped, "db", "migrate", "--lock-timeout", "0") for _ in range(5)])
        assert {code for code, _ in found} <= {0, 4}, found
        if any(code == 0 for code, _ in found):
            assert shipped.query("SELECT x FROM mine") == [(1,)]
        serving = [gateway for gateway in gateways if gateway.serves()]
        assert len(serving) <= 1
        codes = [gateway.stop() for gateway in gateways]
    assert codes == [0 if gateway in serving else 4 for gateway in gateways]
    assert shipped.migrate().code == 0
    assert shipped.query("SELECT x FROM mine") == [(1,)]


def test_the_holder_of_the_lock_is_the_same_file_by_every_name(place: Place) -> None:
    place.folder.add("a", "CREATE TABLE a(x);")
    link = place.root / "link.db"
    assert place.migrate().code == 0
    link.symlink_to(place.database)
    place.folder.add("b", "INSERT INTO a VALUES (1);")
    other = [
        "--database", str(link), "--migrations", str(place.folder.path),
        "db", "migrate", "--lock-timeout", "60",
    ]  # fmt: skip
    found = ends([start(place, "db", "migrate", "--lock-timeout", "60"), start(place, *other)])
    assert [code for code, _ in found] == [0, 0], found
    assert place.query("SELECT x FROM a") == [(1,)]
    assert not Path(f"{link}.lock").exists()
