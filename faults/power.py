"""A real power cut: an ext4 image on a loop device that is shut down without flushing its log.

What was not fsynced is then really gone. Needs mounts and loop devices.
"""

from __future__ import annotations

import fcntl
import os
import struct
import subprocess
import time
from pathlib import Path
from typing import Self

EXT4_IOC_SHUTDOWN = 0x8004587D
NO_LOG_FLUSH = 2
SIZE_MIB = 48
UNMOUNT_TRIES = 100


def unavailable(work: Path) -> str | None:
    """Return why there can be no power cut here, or None."""
    try:
        with Disk(work / "probe") as disk:
            disk.cut()
    except (OSError, subprocess.CalledProcessError) as error:
        return refusal(error)
    return None


def refusal(error: OSError | subprocess.CalledProcessError) -> str:
    """Return in a line what the machine said, when it was tried."""
    said = error.stderr.decode() if isinstance(error, subprocess.CalledProcessError) else str(error)
    return said.strip().partition("\n")[0]


class Disk:
    """A mounted ext4 image, from `with` to its end."""

    def __init__(self, root: Path) -> None:
        self.image = root.with_suffix(".img")
        self.mount_point = root

    def __enter__(self) -> Self:
        self.mount_point.mkdir(parents=True, exist_ok=True)
        self.image.unlink(missing_ok=True)
        with self.image.open("wb") as file:
            file.truncate(SIZE_MIB << 20)
        _run(
            "mkfs.ext4", "-q", "-F", "-E", "lazy_itable_init=0,lazy_journal_init=0", str(self.image)
        )
        self._mount()
        return self

    def __exit__(self, *_: object) -> None:
        self._unmount()
        self.image.unlink()

    def _unmount(self) -> None:
        """Unmount as soon as the last of the killed processes has let go of its files."""
        for _ in range(UNMOUNT_TRIES):
            done = subprocess.run(
                ["umount", str(self.mount_point)], check=False, capture_output=True
            )
            if done.returncode == 0:
                return
            time.sleep(0.1)
        raise OSError(f"{self.mount_point} is still in use: {done.stderr!r}")

    def _mount(self) -> None:
        # Nothing is written back by itself between a kill and the cut that follows it.
        _run("mount", "-o", "loop,commit=300", str(self.image), str(self.mount_point))

    def settle(self) -> None:
        """Make everything that is there now survive the next cut."""
        descriptor = os.open(self.mount_point, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
        _run("sync", "-f", str(self.mount_point))

    def cut(self) -> None:
        """Cut the power, and switch on again: what is there now is what was really on the disk."""
        descriptor = os.open(self.mount_point, os.O_RDONLY)
        try:
            fcntl.ioctl(descriptor, EXT4_IOC_SHUTDOWN, struct.pack("I", NO_LOG_FLUSH))
        finally:
            os.close(descriptor)
        self._unmount()
        self._mount()


def _run(*command: str) -> None:
    subprocess.run(command, check=True, capture_output=True)
