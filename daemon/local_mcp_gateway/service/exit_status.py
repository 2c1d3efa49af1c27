"""Report why the service ended, once, in the log and to systemd, and choose the exit code."""

from __future__ import annotations

import errno
import traceback
from typing import TYPE_CHECKING

from local_mcp_gateway.database import to_gateway_error
from local_mcp_gateway.errors import (
    ConfigProblem,
    Exit,
    GatewayError,
    Interrupted,
    NoResources,
    PortInUse,
    UpstreamProblem,
)

if TYPE_CHECKING:
    from local_mcp_gateway.log import Emit
    from local_mcp_gateway.service.systemd import Notifier

_ERRNO = {
    Exit.LOCKED: errno.EBUSY,
    Exit.MIGRATION: errno.EPROTO,
    Exit.DAMAGED: errno.EIO,
    Exit.CONFIG: errno.EINVAL,
    Exit.REFUSED: errno.EPERM,
    Exit.NO_BACKUP: errno.ENOSPC,
}
"""The ERRNO= for sd_notify, which `systemctl status` prints: the nearest one that systemd can name."""


def root_cause(error: BaseException) -> BaseException:
    """Return the root cause: unwrapped from exception groups, with OS errors translated to ours."""
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    if isinstance(error, OSError):
        return to_gateway_error(error, "a file next to the database") or error
    if isinstance(error, MemoryError):
        return NoResources("The system does not give this process more memory")
    if isinstance(error, RuntimeError) and "can't start new thread" in str(error):
        return NoResources("The system does not give this process more threads")
    return error


def fields_of(error: GatewayError) -> dict[str, object]:
    """Return the log fields that every refusal has."""
    return {
        "code": error.code,
        "message": error.message,
        "hint": error.hint,
        "exit_code": int(error.exit_code),
    }


def reported_error(error: BaseException) -> GatewayError:
    """Return the error itself, or a GatewayError that describes a bug to the reader of the log."""
    if isinstance(error, GatewayError):
        return error
    return GatewayError(f"Unexpected {type(error).__name__}: {error}.")


def report_exit(error: BaseException, emit: Emit, notifier: Notifier) -> Exit:
    """Report why the service ends; return the exit code."""
    match error:
        case Interrupted():
            emit("service.stopped", reason=error.message)
            notifier.stopping("stopped")
            return Exit.OK
        case GatewayError():
            ours = isinstance(error, ConfigProblem | PortInUse | NoResources | UpstreamProblem)
            emit("service.refused" if ours else "guard.refused", **fields_of(error))
            notifier.failed(error.message, _ERRNO.get(error.exit_code, errno.EIO))
            return error.exit_code
        case _:
            text = "".join(traceback.format_exception(error))
            message = f"Unexpected {type(error).__name__}: {error}"
            emit("service.failed", message=message, traceback=text)
            notifier.failed(message, errno.EIO)
            return Exit.UNEXPECTED
