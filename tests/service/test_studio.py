"""What the studio may reach: the commands that it runs, and what they report."""

from __future__ import annotations

import pytest

from local_mcp_gateway.errors import GatewayError, UsageProblem
from local_mcp_gateway.service.studio import run_command
from tests.harness import Place


async def test_a_command_of_the_guard_reports_its_result_and_its_error(kept: Place) -> None:
    made = await run_command(kept.options, "backup", {})
    assert made["name"].startswith("gateway-")
    assert await run_command(kept.options, "verify", {"name": made["name"]})
    with pytest.raises(GatewayError) as refused:
        await run_command(kept.options, "verify", {"name": "nothing"})
    assert refused.value.hint
    with pytest.raises(UsageProblem):
        await run_command(kept.options, "verify", {"name": "--help"})


async def test_a_command_of_the_guard_tells_how_far_it_is(kept: Place) -> None:
    told: list[tuple[str, int, int]] = []
    await run_command(kept.options, "backup", {}, lambda *report: told.append(report))
    assert {"backup", "verify"} <= {phase for phase, _, _ in told}
    assert all(done <= total for phase, done, total in told if phase == "backup")
