"""What can be wrong with a single file of a folder, each with the way to mend it."""

from __future__ import annotations

from local_mcp_gateway.errors import Problem, ProblemCode


def gone(tag: str, name: str) -> Problem:
    """Return the problem of an entry whose file is gone."""
    return Problem(
        ProblemCode.MISSING,
        f"The journal lists {tag}, but {name} is not in the folder.",
        f"Bring {name} back from version control, or take its entry out of meta/_journal.json"
        " if no database has applied it.",
        tag,
    )


def unreadable(tag: str, name: str, error: OSError) -> Problem:
    """Return the problem of a file that this user may not read."""
    return Problem(
        ProblemCode.MISSING,
        f"{name} cannot be read: {error.strerror}.",
        f"Make {name} readable for this user.",
        tag,
    )


def not_utf8(tag: str, name: str, error: UnicodeDecodeError) -> Problem:
    """Return the problem of a file that is no text, with the line."""
    line = error.object.count(b"\n", 0, error.start) + 1
    return Problem(
        ProblemCode.BAD_ENCODING,
        f"{name} is not valid UTF-8: byte 0x{error.object[error.start]:02x} in line {line}.",
        f"Save {name} as UTF-8.",
        tag,
    )


def holds_nul(tag: str, name: str) -> Problem:
    """Return the problem of a file that only looks like text."""
    return Problem(
        ProblemCode.BAD_ENCODING,
        f"{name} holds a zero byte, so it is no UTF-8 text.",
        f"Save {name} as UTF-8 (it may be UTF-16).",
        tag,
    )


def bad_stamp(tag: str) -> Problem:
    """Return the problem of a folder of Drizzle 1.x whose name begins with no date."""
    return Problem(
        ProblemCode.BAD_JOURNAL,
        f"The first 14 digits of {tag} are no date and time.",
        "Rename the folder to <YYYYMMDDHHMMSS>_<name>.",
        tag,
    )
