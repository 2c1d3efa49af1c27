"""What `doctor` says of the machine, as a person reads it."""

from __future__ import annotations

import socket

from tests.harness import Place
from tests.service.doctor.found import findings


def test_a_fresh_machine_has_no_problem(shipped: Place) -> None:
    assert shipped.run("db", "migrate").code == 0
    shipped.database.parent.chmod(0o700)
    found = findings(shipped)
    assert {name for name, finding in found.items() if finding["state"] == "problem"} == set()
    assert list(found)[:5] == ["python", "sqlite", "folder", "filesystem", "room"]
    assert found["database"]["message"].startswith("current, ")


def test_before_the_first_start_nothing_is_a_problem_either(shipped: Place) -> None:
    assert shipped.run("doctor", "--json", bare=True).code == 0


def test_files_that_others_may_read_are_noted_with_the_command_that_mends_it(
    shipped: Place,
) -> None:
    shipped.run("db", "migrate")
    shipped.database.chmod(0o644)
    finding = findings(shipped)["folder"]
    assert finding["state"] == "note"
    assert "chmod 600" in finding["hint"]


def test_a_port_in_use_is_noted_with_its_holder_but_not_when_it_is_ours(shipped: Place) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        done = shipped.run("doctor", "--json", env={"LMG_GATEWAY__PORT": port})
        found = {finding["check"]: finding for finding in done.json()["findings"]}
        assert "is in use by" in found["port"]["message"]
    with shipped.serve() as gateway:
        port = gateway.url.rpartition(":")[2]
        done = shipped.run("doctor", "--json", env={"LMG_GATEWAY__PORT": port})
        found = {finding["check"]: finding for finding in done.json()["findings"]}
        assert found["port"]["state"] == "ok"
        assert str(gateway.process.pid) in found["lock"]["message"]


def test_the_port_is_ours_too_when_the_dev_supervisor_holds_its_socket(shipped: Place) -> None:
    with shipped.serve("--dev") as gateway:
        port = gateway.wait_ready().url.rpartition(":")[2]
        done = shipped.run("doctor", "--json", env={"LMG_GATEWAY__PORT": port})
        found = {finding["check"]: finding for finding in done.json()["findings"]}
        assert found["port"]["message"] == f"{port} is served by this gateway."
