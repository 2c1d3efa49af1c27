"""Commands that are forks: what one has of a process of its own, and that none outlives the tests."""

from __future__ import annotations

import os
import select
import signal
import subprocess
import sys
from contextlib import suppress

from tests.harness import DEADLINE_S, REPOSITORY, Place

SERVE = """
import sys
from pathlib import Path
from tests.harness import Place

with Place(Path(sys.argv[1])).serve() as gateway:
    print(gateway.wait_ready().process.pid, flush=True)
    sys.stdin.read()
"""


def test_a_gateway_ends_when_the_tests_are_killed(shipped: Place) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", SERVE, shipped.root],
        cwd=REPOSITORY,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as tests:
        assert tests.stdout is not None
        gateway = int(tests.stdout.readline())
        ended = os.pidfd_open(gateway)
        try:
            tests.kill()
            assert select.select([ended], [], [], DEADLINE_S)[0]
        finally:
            os.close(ended)
            with suppress(ProcessLookupError):
                os.kill(gateway, signal.SIGKILL)
