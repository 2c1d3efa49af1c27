"""`tools/call` of one stdio server through the gateway, compared with the floor: the same child, ids rewritten.

`gateway` is the gateway alone, `serve` the whole daemon, which writes each call to its log, its file and
its database besides. That is held to two bounds: what it costs compared with the call itself, in CPU, which
hardly depends on what else runs (1.2 to 1.4 ×; line by line it was 2 ×), and to half of the calls/s of
the floor, which does nothing of it and shares two cores with client and child (0.6 to 1 ×).
"""

from __future__ import annotations

import asyncio
import shlex
import sys
import tempfile
from collections.abc import Iterable
from contextlib import ExitStack
from pathlib import Path

from benchmarks.gateway import compare, side
from benchmarks.gateway_peers import ours, started
from benchmarks.table import Row, Size

CHILD = shlex.join((sys.executable, str(Path(__file__).parent / "child.py"), "s"))


def measure(size: Size) -> Iterable[Row]:
    """Compare floor and gateway, each with a child of its own."""
    with ExitStack() as stack:
        folder = stack.enter_context(tempfile.TemporaryDirectory())
        sides = {
            "floor": stack.enter_context(side("mux_floor", CHILD)),
            "gateway": stack.enter_context(side("gateway_process", folder, f"stdio:s:{CHILD}")),
        }
        daemon = ours(Path(folder), "serve", "--", *shlex.split(CHILD))
        sides["serve"] = stack.enter_context(started(daemon))[:2]
        found = asyncio.run(compare(sides, size, b"s_echo"))
    floor, gateway, serve = found["floor"], found["gateway"], found["serve"]
    note = f"floor {floor[1]:.0f}/s, gateway {gateway[1]:.0f}/s"
    told = f"{serve[1]:.0f}/s, each call in the log of the daemon, its file and its database"
    used = f"serve {serve[2]:.2f} ms, gateway {gateway[2]:.2f} ms"
    yield Row("stdio: p50, gateway / floor", gateway[0] / floor[0], "×")
    yield Row("stdio: calls/s at 32, gateway / floor", gateway[1] / floor[1], "×", None, 0.85, note)
    yield Row("stdio: calls/s at 32, serve / floor", serve[1] / floor[1], "×", None, 0.5, told)
    yield Row("stdio: CPU a call, serve / gateway", serve[2] / gateway[2], "×", 1.6, None, used)
