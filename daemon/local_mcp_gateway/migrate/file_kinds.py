"""What a file in a migrations folder is by its name and its marks, whichever tool it was written for.

A down file (`x.down.sql`, Flyway's `U1__x.sql`) must never run as a migration: it would drop what the
migration made. Repeatable migrations, callbacks and programs of other tools cannot be run here.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from local_mcp_gateway.errors import Problem, ProblemCode

if TYPE_CHECKING:
    from collections.abc import Collection

_NUMBERS = r"(\d+(?:[._]\d+)*)"
_FLYWAY_UNDO = re.compile(rf"u{_NUMBERS}__.*\.sql")
_FLYWAY_STEP = re.compile(rf"v{_NUMBERS}__.*\.sql")
_BACK = re.compile(r"((?:.*\.)?)(?:(down|undo|rollback)|(?<=\.)(undo)\.([^.]+))\.sql")
_BACK_OF_A_PAIR = re.compile(r"(.+[-_])down\.sql")
_REPEATABLE = re.compile(r"r__.*\.sql", re.IGNORECASE)
_BASELINE = re.compile(rf"b{_NUMBERS}__.*\.sql", re.IGNORECASE)
_CALLBACK = re.compile(
    r"(before|after)(each)?(migrate|undo|clean|info|validate|baseline|repair|create|connect|versioned|repeatables)"
    r"[a-z]*(__.*)?\.sql",
    re.IGNORECASE,
)
_PROGRAM = re.compile(
    r"v?\d.*\.(go|rs|py|rb|php|js|cjs|mjs|ts|java|kt|cs|exs?|xml|ya?ml|json)", re.IGNORECASE
)
_VERSION = re.compile(r"v?(\d+(?:\.\d+)*(?:(?:_\d+)+(?=__))?)", re.IGNORECASE)
_UP_MARK = re.compile(r"^--[ \t]*!?ups?(?:[ \t]+migration)?[ \t]*$", re.MULTILINE | re.IGNORECASE)
_DOWN_MARK = re.compile(
    r"^--[ \t]*!?downs?(?:[ \t]+migration)?[ \t]*$", re.MULTILINE | re.IGNORECASE
)
_BACK_MARK = re.compile(
    r"^--[ \t]*(?:migrate:down|\+\s*(?:goose|migrate|micrate)[ \t]+down|rambler[ \t]+down|//[ \t]*@undo)\b"
    r"|^----[ \t]*create above / drop below[ \t]*----",
    re.MULTILINE | re.IGNORECASE,
)


def down_files(names: Collection[str]) -> dict[str, str | None]:
    """Return each SQL down file, and the migration that it reverts, if that is there.

    `x_down.sql` is one only next to an `x_up.sql`: a migration may be called `slow_down`.
    """
    known = {name.lower(): name for name in names}
    steps = {
        _version(match): name
        for lower, name in known.items()
        if (match := _FLYWAY_STEP.fullmatch(lower))
    }
    found: dict[str, str | None] = {}
    for lower, name in known.items():
        if undo := _FLYWAY_UNDO.fullmatch(lower):
            found[name] = steps.get(_version(undo))
        elif _BACK.fullmatch(lower):
            found[name] = next((known[step] for step in _steps(lower) if step in known), None)
        elif (pair := _BACK_OF_A_PAIR.fullmatch(lower)) and (up := f"{pair[1]}up.sql") in known:
            found[name] = known[up]
    return found


def unadopted_way_back(name: str) -> Problem:
    """Return the problem of a down file with another tool's name."""
    return Problem(
        ProblemCode.UNJOURNALED,
        f"{name} is a way back by its name, and no migration.",
        "Let `db adopt --format auto` keep it apart, or rename it: <migration>.down.sql is the way back here.",
        name.removesuffix(".sql"),
    )


def not_run_here(name: str) -> Problem | None:
    """Return why a file that is not a down file cannot be a migration; None if it can."""
    if _REPEATABLE.fullmatch(name):
        what = "is a repeatable migration, which its tool runs again whenever it changes"
    elif _CALLBACK.fullmatch(name):
        what = "is a callback, which its tool runs around each migration"
    elif _BASELINE.fullmatch(name):
        what = "is a baseline, which its tool runs in place of the migrations before it"
    else:
        return None
    return Problem(
        ProblemCode.UNJOURNALED,
        f"{name} {what}; here a migration runs once.",
        "Write what it does as the next migration, and move this file out of the folder.",
        name.removesuffix(".sql"),
    )


def program(name: str) -> Problem | None:
    """Return why a migration that is not SQL cannot be converted; None for any other file."""
    if not _PROGRAM.fullmatch(name) or name.endswith(("_test.go", ".down.json")):
        return None
    return Problem(
        ProblemCode.UNJOURNALED,
        f"{name} is a migration that is a program, or no SQL; without it the ones after it may not fit.",
        "Write what it does as an SQL file of the same number, and move this file out of the folder.",
        name.partition(".")[0],
    )


def down_part_inside(name: str, sql: str) -> Problem | None:
    """Return the problem of a file that has its down part after a marker: all of it would run."""
    sql = sql.removeprefix("\ufeff")
    marked = _BACK_MARK.search(sql) or (_UP_MARK.search(sql) and _DOWN_MARK.search(sql))
    if not marked:
        return None
    line = marked[0].strip()
    return Problem(
        ProblemCode.UNJOURNALED,
        f"{name} holds its way back too, after the mark `{line}`; taken as it is, that would run.",
        f"Put what follows the mark into {name.removesuffix('.sql')}.down.sql.",
        name.removesuffix(".sql"),
    )


def in_order(name: str) -> tuple[bool, tuple[int, ...], str]:
    """Return the sort key of migration names: 2 before 10, 1.9 before 1.10, names without a number last."""
    version = version_of(name)
    return (version is None, version or (), name)


def version_of(name: str) -> tuple[int, ...] | None:
    """Return the version that a name begins with, part by part: `V1_9__c` is 1.9; None without one."""
    match = _VERSION.match(name)
    return _version(match) if match else None


def _version(match: re.Match[str]) -> tuple[int, ...]:
    numbers = [int(number) for number in re.split(r"[._]", match[1])]
    while len(numbers) > 1 and numbers[-1] == 0:  # 1.0 is 1
        numbers.pop()
    return tuple(numbers)


def _steps(lower: str) -> tuple[str, ...]:
    """Return the possible names of the migration for a down file."""
    match = _BACK.fullmatch(lower)
    if match is None:
        return ()
    before, word, after = match[1], match[2] or match[3], match[4]
    if after:
        return (f"{before}do.{after}.sql",)
    forward = {"down": "up", "undo": "do", "rollback": "apply"}[word]
    return (f"{before}{forward}.sql", f"{before}sql")
