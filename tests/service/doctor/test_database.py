"""What `doctor` says of the database, as a person reads it."""

from __future__ import annotations

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
