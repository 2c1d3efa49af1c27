"""What a replica has: Litestream's files there, listed, sent and restored by commands of Litestream that run once."""

from __future__ import annotations

import errno
import json
import os
import re
import shutil
import tempfile
import time
from contextlib import contextmanager, suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from subprocess import PIPE, Popen, TimeoutExpired
from typing import TYPE_CHECKING, Final

from local_mcp_gateway.backup import unsent_folder
from local_mcp_gateway.database import UNWATCHED
from local_mcp_gateway.errors import NoRoom, ReplicaProblem, UsageProblem
from local_mcp_gateway.frozen import frozen
from local_mcp_gateway.service.replica.litestream import (
    command_of,
    configuration_of,
    environment_of,
    plain_words,
    program,
    write_private,
)
from local_mcp_gateway.service.replica.store import INSTALL

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from typing import Any

    from local_mcp_gateway.database import Run
    from local_mcp_gateway.service.replica.store import Target

LIST_S: Final = 60.0
FETCH_S: Final = 3600.0
LOOK_S: Final = 0.1
"""Interval of looking whether a command is asked to stop."""
WHOLE: Final = 9
"""Litestream's level of whole copies."""
_NOT_LITESTREAM: Final = re.compile(r"unknown command|^\w+: \[Errno \d+\]")
"""What an old one says, and what its launcher says where the program cannot be run."""


@frozen
class Moments:
    """What a replica can bring back."""

    oldest: datetime
    newest: datetime
    bytes: int


@contextmanager
def _configured(database: Path, target: Target) -> Iterator[str]:
    with tempfile.TemporaryDirectory(prefix="local-mcp-gateway-") as folder:
        file = Path(folder) / "litestream.yml"
        write_private(file, configuration_of(database, target))
        yield str(file)


def _run(target: Target, *arguments: str, timeout_s: float, run: Run = UNWATCHED) -> bytes:
    """Run a command of Litestream and return its output; raises Interrupted, and ReplicaProblem with what it said."""
    with Popen(
        command_of(*arguments), stdout=PIPE, stderr=PIPE, env=environment_of(target)
    ) as process:
        try:
            output, errors = _outcome(process, timeout_s, run)
        finally:
            process.kill()  # does nothing where it has ended
    if process.returncode != 0:
        said = errors.decode(errors="replace").strip().splitlines()
        reason = plain_words(said[-1]) if said else f"exit code {process.returncode}"
        if _NOT_LITESTREAM.search(reason):
            raise _unusable(reason)
        raise ReplicaProblem(f"The replica cannot be read: {reason}")
    return output


def _unusable(reason: str) -> ReplicaProblem:
    return ReplicaProblem(
        f"{program()} is not a Litestream that can be used here: {reason}",
        hint=f"Install it: {INSTALL}",
    )


def _outcome(process: Popen[bytes], timeout_s: float, run: Run) -> tuple[bytes, bytes]:
    until = time.monotonic() + timeout_s
    while True:
        with suppress(TimeoutExpired):
            return process.communicate(timeout=LOOK_S)
        run.progress("fetch", 0, 0)
        run.checkpoint("while the replica was asked")
        if time.monotonic() > until:
            raise ReplicaProblem(f"The replica did not answer within {timeout_s:g} s.")


@frozen
class Sent:
    """The files of a replica: the transactions of each, in hex, its level, size and time."""

    files: Sequence[Mapping[str, Any]]

    def newest(self, level: int | None = None) -> int:
        """Return the newest transaction in the files of a level, or of all; 0 if there is none."""
        found = (file for file in self.files if level is None or file["level"] == level)
        return max((int(file["max_txid"], 16) for file in found), default=0)

    def time_of(self, txid: int | None) -> datetime | None:
        """Return when the newest file that ends with a transaction was made, if there is one."""
        found = [file["timestamp"] for file in self.files if int(file["max_txid"], 16) == txid]
        return datetime.fromisoformat(max(found)) if found else None

    @property
    def moments(self) -> Moments | None:
        """Return what can be brought back, or None if nothing can."""
        whole = [file["timestamp"] for file in self.files if int(file["min_txid"], 16) == 1]
        if not whole:
            return None
        newest = max(file["timestamp"] for file in self.files)
        size = sum(file["size"] for file in self.files)
        return Moments(datetime.fromisoformat(min(whole)), datetime.fromisoformat(newest), size)


def sent_files(target: Target, run: Run = UNWATCHED) -> Sent:
    """Return the files of the replica; raises ReplicaProblem."""
    target.require_folder()
    with _configured(Path("/replica.db"), target) as config:
        output = _run(
            target,
            *("ltx", "-json", "-level", "all", "-no-expand-env", "-config", config, "/replica.db"),
            timeout_s=LIST_S,
            run=run,
        )
    try:
        return Sent(json.loads(output) or [])
    except ValueError:
        raise _unusable("what it lists is not JSON.") from None


def kept_transactions(database: Path) -> list[int]:
    """Return the transactions in Litestream's own files beside the database, in order."""
    files = unsent_folder(database).glob("ltx/0/*-*.ltx")
    return sorted(int(file.stem.split("-")[1], 16) for file in files)


def connect(target: Target, sent: Sent, database: Path) -> None:
    """Have the next Litestream send the whole database where its own files do not continue the replica's.

    Else it would look for the missing transactions forever, and send nothing: they are removed here five
    minutes after they were sent, and the replica may be at another URL now, emptied, or put back from a copy.
    Raises ReplicaProblem where the replica has lost the files that what is sent next would follow.
    """
    kept, received = kept_transactions(database), sent.newest(0)
    newest, unsent = kept[-1] if kept else 0, sum(number > received for number in kept)
    if newest >= sent.newest() and unsent == newest - received:
        return
    if sent.newest() > received:
        raise ReplicaProblem(
            f"{target.url} has lost its newest files: nothing can be sent after what is left.",
            hint="Use another URL, and keep this one while you need a moment that it has.",
        )
    with suppress(FileNotFoundError):
        shutil.rmtree(unsent_folder(database))


def send_copy(target: Target, database: Path, *, timeout_s: float, run: Run = UNWATCHED) -> None:
    """Send what is new and a whole copy, while no other Litestream runs and the WAL is empty.

    Raises ReplicaProblem, and Interrupted; then its Litestream has ended.
    That it ends without an error does not say that everything was sent.
    """
    with _configured(database, target) as config:
        _run(
            target,
            *("replicate", "-once", "-force-snapshot", "-no-expand-env", "-config", config),
            timeout_s=timeout_s,
            run=run,
        )


def moments(target: Target) -> Moments | None:
    """Return what the replica can bring back, or None if nothing is there; raises ReplicaProblem."""
    return sent_files(target).moments


def parse_moment(text: str, now: datetime) -> datetime | None:
    """Return a moment that a person wrote, in local time unless it says otherwise; None for `latest`.

    Raises UsageProblem for what is not a time, and for the future: Litestream would take that for `latest`.
    """
    if text == "latest":
        return None
    try:
        moment = datetime.fromisoformat(text).astimezone(UTC)
    except (ValueError, OverflowError):
        raise UsageProblem(
            f"{text!r} is not a time.",
            hint="Write it like '2026-11-28 14:03' (local time), 2026-11-28T14:03:00Z, or latest.",
        ) from None
    if moment > now + timedelta(seconds=1):
        raise UsageProblem(
            f"{moment:%Y-%m-%d %H:%M:%S} UTC is in the future.",
            hint="Give a moment that has passed, or latest.",
        )
    return moment


def fetch(
    target: Target,
    output: Path,
    *,
    moment: datetime | None = None,
    txid: int | None = None,
    run: Run = UNWATCHED,
) -> datetime:
    """Write the database as it was at a moment (or after a transaction) to a file that is not there yet.

    Return the moment that it is of. Raises ReplicaProblem, NoRoom or Interrupted; then the file may be there
    in part, and is of no use.
    """
    sent = sent_files(target, run)
    there = sent.moments
    if there is None:
        raise ReplicaProblem(f"Nothing is at {target.url}.", hint="Check replica.url.")
    if moment is not None and moment < there.oldest:
        raise ReplicaProblem(
            f"{moment:%Y-%m-%d %H:%M:%S} UTC is before the first moment of the replica,"
            f" {there.oldest:%Y-%m-%d %H:%M:%S} UTC.",
            hint="Give a later moment; `replica status` shows how far back it goes.",
        )
    when = ("-timestamp", f"{moment:%Y-%m-%dT%H:%M:%S}Z") if moment is not None else ()
    which_one = ("-txid", f"{txid:016x}") if txid is not None else ()
    with _configured(Path("/replica.db"), target) as config:
        try:
            _run(
                target,
                *("restore", "-json", "-no-expand-env", "-config", config, *when, *which_one),
                *("-o", str(output), "/replica.db"),
                timeout_s=FETCH_S,
                run=run,
            )
        except ReplicaProblem as error:
            if os.strerror(errno.ENOSPC).lower() not in error.message.lower():
                error.hint = (
                    "Try again; if it stays, give an earlier moment with --at: `replica status` shows how far"
                    " back it goes."
                )
                raise
            raise NoRoom(
                f"Not enough room in {output.parent.parent} for the database of the replica."
            ) from None
    return moment or sent.time_of(txid) or there.newest
