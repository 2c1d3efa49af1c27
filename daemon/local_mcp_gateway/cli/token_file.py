"""Where a command finds the token of a client: in a file or a variable, never on the command line."""

from __future__ import annotations

import os
import re
from typing import TYPE_CHECKING, Final

from local_mcp_gateway.errors import UsageProblem

if TYPE_CHECKING:
    from pathlib import Path

TOKEN_VARIABLE: Final = "LMG_TOKEN"  # noqa: S105  the name of a variable
_HINT: Final = "`token create NAME --file FILE` makes one."
_TOKEN: Final = re.compile(r"[\x21-\x7e]{1,4096}")


def given_token(file: Path | None) -> str | None:
    """Return the token in the file, or else in the variable; None without either."""
    if file is None:
        text = os.environ.get(TOKEN_VARIABLE, "").strip()
        return _token(text, f"The variable {TOKEN_VARIABLE} holds") if text else None
    from local_mcp_gateway.service.secrets import Unusable, private_file

    try:
        found = private_file.read(file)
    except Unusable as unusable:
        raise UsageProblem(
            f"The token cannot be read: {unusable.reason}.", hint=unusable.hint
        ) from None
    if found is None:
        raise UsageProblem(f"{file} does not exist.", hint=_HINT)
    return _token(found.decode("utf-8-sig", "replace").strip(), f"{file} holds")


def _token(text: str, where: str) -> str:
    """Return the text of a token; `where` begins the sentence about one that no header takes."""
    if not _TOKEN.fullmatch(text):
        raise UsageProblem(f"{where} no token.", hint=_HINT)
    return text


def write_token(file: Path, token: str) -> None:
    """Write a token into a new file that only its owner may read; durable on return."""
    from local_mcp_gateway.service.secrets import private_file

    try:
        with private_file.locked(file) as target:
            created = private_file.create(target, f"{token}\n".encode())
    except OSError as error:
        raise UsageProblem(f"{file} cannot be written: {error.strerror}.") from None
    if not created:
        raise UsageProblem(f"{file} is there already.", hint="Give a file that is not there yet.")
