"""Which files of the package a run passes through: `CONTROL MODULE ARGUMENTS…` runs a module traced.

Whoever connects to the socket CONTROL and writes one word is answered with the files entered so far,
in order, as JSON. The word `begin` forgets them first, `files` does not.
"""

from __future__ import annotations

import json
import runpy
import socket
import sys
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Self

if TYPE_CHECKING:
    from types import FrameType

import local_mcp_gateway

PACKAGE = str(Path(local_mcp_gateway.__file__).parent) + "/"
INLINED = {"<listcomp>", "<dictcomp>", "<setcomp>"}
"""No functions from Python 3.12 on."""
IMPORTING = PACKAGE + "lazy.py"
"""Imports a module for a package's `__init__`."""


class Trace:
    """The files of the functions that were entered, in order, over all threads that begin later.

    A generator or coroutine is entered again each time it goes on. What imports a module, and the
    module's body, which runs then, are no part of a trip.
    """

    def __init__(self) -> None:
        self.files: list[str] = []

    def __enter__(self) -> Self:
        threading.setprofile(self._profile)
        sys.setprofile(self._profile)
        return self

    def __exit__(self, *_: object) -> None:
        sys.setprofile(None)
        threading.setprofile(None)

    def _profile(self, frame: FrameType, event: str, _: object) -> None:
        if event != "call":
            return
        code = frame.f_code
        if code.co_filename == IMPORTING or code.co_name in {"<module>", *INLINED}:
            return
        if code.co_filename.startswith(PACKAGE):
            self.files.append(code.co_filename.removeprefix(PACKAGE))


def ask(control: str, word: str) -> list[str]:
    """Say one word to a traced process; return the files that it answers with."""
    with socket.socket(socket.AF_UNIX) as connection:
        connection.connect(control)
        connection.sendall(word.encode())
        with connection.makefile() as answer:
            files: list[str] = json.loads(answer.read())
    return files


def _answer(listening: socket.socket, trace: Trace) -> None:
    while True:
        connection, _ = listening.accept()
        with connection:
            if connection.recv(16) == b"begin":
                trace.files.clear()
            connection.sendall(json.dumps(trace.files[:]).encode())


def main() -> None:
    control, module, *arguments = sys.argv[1:]
    trace = Trace()
    listening = socket.socket(socket.AF_UNIX)
    listening.bind(control)
    listening.listen()
    # Begun before the trace, so no part of it.
    threading.Thread(target=_answer, args=(listening, trace), daemon=True).start()
    sys.argv = [module, *arguments]
    with trace:
        runpy.run_module(module, run_name="__main__")


if __name__ == "__main__":
    main()
