"""A copy of a backup to try things on, removed afterwards."""

from __future__ import annotations

import os
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

from local_mcp_gateway.backup import names
from local_mcp_gateway.backup.durable import copy_bytes, named_failures, remove, temporary_file

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from local_mcp_gateway.backup.manifest import Backup


@contextmanager
def scratch_copy(backup: Backup) -> Iterator[Path]:
    """Yield a private copy of the backup in the same folder; it is gone when the block ends.

    A backup has no writer, so the file system's own copy is safe: blocks are shared where it can.
    Nothing is flushed. A copy left by a crash is removed by the next start's sweep.
    """
    path = names.temporary(backup.path.with_name(f"{backup.name}-rehearsal-{os.getpid()}.db"))
    with named_failures("write a copy for the rehearsal to", path):
        copied = temporary_file(path)
        descriptor = copied.__enter__()
    try:
        with named_failures("write a copy for the rehearsal to", path):
            copy_bytes(backup.path, descriptor)
        yield path
    finally:
        copied.__exit__(None, None, None)
        with suppress(OSError):
            remove(path)
