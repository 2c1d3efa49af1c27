"""Dev mode: the schema module was saved, so a migration may be missing.

Asked of `db generate` in a process of its own: the worker never imports SQLAlchemy, and the module
that was just saved has to be imported afresh.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from local_mcp_gateway.errors import Exit

if TYPE_CHECKING:
    from collections.abc import Sequence

    from local_mcp_gateway.log import Emit

SCHEMA_MODULE = Path(__file__).parents[2] / "store" / "tables.py"
_TIMEOUT_S = 120


def tell_plan(options: Sequence[str], *, auto_generate: bool, emit: Emit) -> None:
    """Report what is missing, or write it; `options` are the global ones of this run. Blocks.

    A migration that is written here is a saved file like any other: the worker applies it.
    """
    checked = _generate(options, "--check")
    missing = checked.get("missing", [])
    if "error" in checked:
        emit("schema.refused", **_told(checked["error"]))
    elif missing and auto_generate:
        written = _generate(options)
        if "error" in written:
            emit("schema.refused", **_told(written["error"]))
        else:
            emit("schema.generated", tag=written["tag"], missing=missing)
    elif missing:
        emit("schema.planned", missing=missing, hint="Write it with `db generate`.")


def _generate(options: Sequence[str], *more: str) -> dict[str, Any]:
    command = [
        sys.executable,
        "-m",
        "local_mcp_gateway",
        *options,
        "db",
        "generate",
        "--json",
        *more,
    ]
    done = subprocess.run(
        command,
        capture_output=True,
        text=True,
        check=False,
        timeout=_TIMEOUT_S,
        stdin=subprocess.DEVNULL,
    )
    try:
        answer: dict[str, Any] = json.loads(done.stdout)
    except ValueError:
        said = done.stderr.strip().splitlines() or ["it said nothing"]
        return {"error": {"message": said[-1], "hint": "", "exit_code": int(Exit.UNEXPECTED)}}
    return answer


def _told(error: dict[str, Any]) -> dict[str, Any]:
    return {key: error[key] for key in ("message", "hint") if error.get(key)}
