"""Children do not outlive a gateway that was killed with SIGKILL.

A small shell waits at the end of a pipe. It is told the process group of each child, and when the pipe
ends without the groups having been taken back, it ends them: first TERM, then KILL. A death signal
set with prctl would reach the child only, and not what the child has started.
"""

from __future__ import annotations

import asyncio
from asyncio.subprocess import DEVNULL, PIPE, Process
from contextlib import suppress
from typing import Final

SCRIPT: Final = """
groups=" "
while read -r what group; do
  case $what in
    +) groups="$groups$group " ;;
    -) case $groups in *" $group "*) groups="${groups%% $group *} ${groups#* $group }" ;; esac ;;
  esac
done
for group in $groups; do kill -s TERM -- "-$group" 2>/dev/null; done
[ "${groups## }" ] && sleep 2
for group in $groups; do kill -s KILL -- "-$group" 2>/dev/null; done
"""


class Warden:
    """The shell, started with the first child, and anew with the next one if somebody ended it.

    `close` it when all children are gone.
    """

    def __init__(self) -> None:
        self._process: Process | None = None
        self._groups: set[int] = set()
        self._starting = asyncio.Lock()

    async def watch(self, group: int) -> None:
        """Name a process group that must not outlive this process."""
        async with self._starting:
            if self._process is None or self._process.returncode is not None:
                self._process = await asyncio.create_subprocess_exec(
                    "/bin/sh",
                    "-c",
                    SCRIPT,
                    stdin=PIPE,
                    stdout=DEVNULL,
                    stderr=DEVNULL,
                    start_new_session=True,
                )
                for known in self._groups:
                    self._tell(f"+ {known}\n")
        self._groups.add(group)
        self._tell(f"+ {group}\n")

    def forget(self, group: int) -> None:
        """Take a process group back: it has ended."""
        self._groups.discard(group)
        self._tell(f"- {group}\n")

    def _tell(self, line: str) -> None:
        if self._process is not None and self._process.stdin is not None:
            with suppress(ConnectionError, RuntimeError):
                self._process.stdin.write(line.encode())

    async def close(self) -> None:
        """End the shell; it finds nothing to do."""
        if self._process is not None and self._process.stdin is not None:
            self._process.stdin.close()
            await self._process.wait()
            self._process = None
