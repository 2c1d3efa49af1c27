"""What `doctor` finds at a place."""

from __future__ import annotations

from typing import Any

from tests.harness import Place


def findings(place: Place) -> dict[str, dict[str, Any]]:
    done = place.run("doctor", "--json")
    assert done.code in {0, 3}, done.stderr
    return {finding["check"]: finding for finding in done.json()["findings"]}
