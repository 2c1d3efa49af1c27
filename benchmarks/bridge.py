"""`local-mcp-gateway stdio`: from its start to the answer to the client's first message."""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable
from pathlib import Path

from benchmarks.gateway import HELLO, ROOT, ROUNDS, side
from benchmarks.table import Row, Size

CHILD = f"{sys.executable} {Path(__file__).parent / 'child.py'} s"


def started_ms(command: list[str], asked: str) -> float:
    """Return the time until a program has answered its first line."""
    began = time.perf_counter()
    with subprocess.Popen(
        command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(asked + "\n")
        process.stdin.flush()
        assert process.stdout.readline()
        taken = (time.perf_counter() - began) * 1000
        process.stdin.close()
        process.wait(30)
    return taken


def measure(size: Size) -> Iterable[Row]:
    """Compare with the bare interpreter that reads a line and writes it."""
    bare = [sys.executable, "-c", "print(input())"]
    with (
        tempfile.TemporaryDirectory() as folder,
        side("gateway_process", folder, f"stdio:s:{CHILD}") as (url, _),
    ):
        base = url.removesuffix("/mcp")
        bridge = [sys.executable, "-m", "local_mcp_gateway", "stdio", "--url", base]
        asked = json.dumps(HELLO)
        rounds = [
            (started_ms(bridge, asked), started_ms(bare, asked)) for _ in range(ROUNDS[size] + 2)
        ][1:]
    took, floor = (statistics.median(times) for times in zip(*rounds, strict=True))
    yield Row("bridge: start to first answer", took, "ms", 300, None, f"Python alone {floor:.0f}")
