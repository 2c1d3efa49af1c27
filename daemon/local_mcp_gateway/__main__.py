"""Entry point of `local-mcp-gateway` and `python -m local_mcp_gateway`, with early signal handling."""

import signal
import sys
from types import FrameType
from typing import NoReturn


def main() -> NoReturn:
    """Run the command line; a signal during the imports ends the process cleanly, with exit 0.

    `service.process` replaces these handlers; the imports before that take most of the time to the
    first event.
    """
    if "serve" in sys.argv:
        # The start itself reads and applies what is new.
        signal.signal(signal.SIGHUP, signal.SIG_IGN)
    if "serve" in sys.argv or "reload" in sys.argv:
        # systemd's stop ends a reload as well, and takes one that a signal has ended for a failure.
        signal.signal(signal.SIGTERM, _end)
    try:
        from local_mcp_gateway.cli.main import main as run

        run()
    except KeyboardInterrupt:
        sys.exit(0)


def _end(number: int, frame: FrameType | None) -> NoReturn:
    del number, frame
    sys.exit(0)


if __name__ == "__main__":
    main()
