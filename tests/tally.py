"""What a test run counted over many cases: a line each under the run, also with several workers."""

from __future__ import annotations

from collections.abc import Callable

import pytest

Count = Callable[[str, str, str], None]
"""`count(line, what, case)`: this case belongs to `what` in that line; counted once however often it is said."""

_COUNTED = pytest.StashKey[dict[str, dict[str, set[str]]]]()


def counter(config: pytest.Config) -> Count:
    """Return the function that counts for this run."""
    counted = config.stash.setdefault(_COUNTED, {})

    def count(line: str, what: str, case: str) -> None:
        counted.setdefault(line, {}).setdefault(what, set()).add(case)

    return count


def handed_over(config: pytest.Config) -> dict[str, dict[str, list[str]]]:
    """Return what a worker counted, as it can be sent."""
    return {
        line: {what: sorted(cases) for what, cases in found.items()}
        for line, found in config.stash.get(_COUNTED, {}).items()
    }


def take_over(config: pytest.Config, sent: dict[str, dict[str, list[str]]]) -> None:
    """Add what a worker counted."""
    count = counter(config)
    for line, found in sent.items():
        for what, cases in found.items():
            for case in cases:
                count(line, what, case)


def lines(config: pytest.Config) -> list[str]:
    """Return the lines, each with its counts in the order in which they came."""
    return [
        f"{line}: " + ", ".join(f"{len(cases):,} {what}" for what, cases in found.items())
        for line, found in config.stash.get(_COUNTED, {}).items()
    ]
