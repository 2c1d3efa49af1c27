"""How many files and connections may be open at once: as many as this user is allowed.

systemd and shells give 1,024, for the sake of programs that use select(2). Each client that listens is a
connection and each child has three pipes, and here all of them are waited for with epoll. Children begin
with what we began with (see `gateway/upstreams/process.py`).
"""

from __future__ import annotations

import resource
from contextlib import suppress


def allow_many() -> None:
    """Raise the soft limit of this process to the hard one."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with suppress(ValueError, OSError):  # a hard limit above what the kernel allows by now
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
