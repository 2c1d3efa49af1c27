"""Time whole processes in turns, so that both sides see the same machine."""

from __future__ import annotations

import os
import statistics
import subprocess
import time
from collections.abc import Callable, Sequence


def process_ms(command: Sequence[str], env: dict[str, str] | None = None) -> float:
    """Return the wall time of one process, in milliseconds; it must exit 0.

    Bytecode is kept between runs, as an installation keeps it.
    """
    kept = {**(os.environ if env is None else env)}
    kept.pop("PYTHONDONTWRITEBYTECODE", None)
    started = time.perf_counter()
    subprocess.run(command, check=True, capture_output=True, env=kept)
    return (time.perf_counter() - started) * 1000


def in_turns(
    rounds: int,
    *sides: Callable[[], float],
    of: Callable[[Sequence[float]], float] = statistics.median,
) -> tuple[float, ...]:
    """Run the sides one after the other, `rounds` times; return the median of each, or what `of` takes.

    One round more is run first and thrown away: it compiles and warms the page cache.
    """
    for side in sides:
        side()
    taken: list[list[float]] = [[] for _ in sides]
    for _ in range(rounds):
        for times, side in zip(taken, sides, strict=True):
            times.append(side())
    return tuple(of(times) for times in taken)
