"""What `doctor` says of the database, as a person reads it."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from local_mcp_gateway.service.doctor import database
from tests.harness import Place
from tests.service.doctor.found import findings


def test_history_that_does_not_fit_is_a_problem_with_its_hint(shipped: Place) -> None:
    shipped.run("db", "migrate")
    shipped.folder.write("0002_add_debug_logs", "CREATE TABLE other (id INTEGER)")
    finding = findings(shipped)["database"]
    assert finding["state"] == "problem"
    assert finding["hint"]


def test_doctor_never_takes_the_lock_of_a_running_gateway(shipped: Place) -> None:
    with shipped.serve() as gateway:
        gateway.wait_ready()
        assert findings(shipped)["database"]["state"] == "ok"
        assert gateway.stop() == 0


@pytest.mark.parametrize(
    ("hours", "state", "said"),
    [
        (1, "ok", "x was checked in the last 24 hours."),
        (25, "ok", "x was last checked 1 day ago."),
        (24 * 31, "note", "x was last checked 31 days ago."),
    ],
)
def test_the_last_check_of_the_replica_is_told_in_days(hours: int, state: str, said: str) -> None:
    found = database._last_check("x", (datetime.now(UTC) - timedelta(hours=hours)).isoformat())
    assert (found.state, found.message) == (state, said)
