"""Send a verb of `server`, `profile` or `call` to the daemon, or run it offline without one."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

import click

from local_mcp_gateway import __version__
from local_mcp_gateway.cli import ui
from local_mcp_gateway.errors import (
    GatewayError,
    NoSecretsKey,
    NotConfirmed,
    ProgramReplaced,
    UsageProblem,
)
from local_mcp_gateway.service.admin import NoDaemon, ask, relayed

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from local_mcp_gateway.cli.context import Invocation


def answer_to(
    invocation: Invocation, verb: str, *, patience_s: float = 60.0, **arguments: Any
) -> Any:
    """Return the JSON result of `verb`.

    Without a daemon, a verb that writes first guards the database under the exclusive lock, as any start
    does; a verb that reads does neither. If the daemon's unit may not write the key file, this process
    creates it.
    """
    try:
        return _answer(invocation, verb, arguments, patience_s)
    except GatewayError as error:
        if error.code != NoSecretsKey.code:
            raise
    from local_mcp_gateway.service.secrets import Keyring

    Keyring.of(invocation.settings, invocation.emitter()).make()
    return _answer(invocation, verb, arguments, patience_s)


def _answer(invocation: Invocation, verb: str, arguments: dict[str, Any], patience_s: float) -> Any:
    try:
        return ask(invocation.database, verb, arguments, timeout_s=patience_s)
    except NoDaemon:
        from local_mcp_gateway.service.admin import READ_ONLY, dispatch

        if verb not in READ_ONLY:
            invocation.prepare_folder()
        return dispatch.answer(invocation.settings, verb, arguments, invocation.emitter())


def changed_by(invocation: Invocation, verb: str, name: str, changes: dict[str, Any]) -> Any:
    """Return what `verb` has made of the thing of this name; refuse a command that changes nothing."""
    given = {key: value for key, value in changes.items() if value not in (None, (), {})}
    if not given:
        command = verb.replace(".", " ")
        raise UsageProblem(
            f"Give at least one change to {name!r}.", hint=f"See `{command} --help`."
        )
    return answer_to(invocation, verb, name=name, **given)


def serving_status(database: Path) -> Any:
    """Return what the running gateway says about itself and its servers, or None."""
    try:
        return ask(database, "status", {}, timeout_s=2.0)
    except (NoDaemon, GatewayError, OSError):
        return None


def serving_problem(status: Any) -> GatewayError | None:
    """Return why the running gateway is not ready, if it says so."""
    problem = status and status.get("problem")
    return relayed(problem) if problem else None


def version_problem(status: Any) -> GatewayError | None:
    """Return the difference if the running gateway, known by its status, is of another version."""
    running = status and status.get("version")
    if not running or running == __version__:
        return None
    return ProgramReplaced(f"Version {running} is running, and {__version__} is installed.")


def warn_of_another_version(status: Any) -> None:
    """Say on stderr that the running gateway is of another version, if it is."""
    if problem := version_problem(status):
        ui.tell(f"{problem.message} {problem.hint}", fg="yellow", err=True)


def confirm(question: str, *, yes: bool) -> None:
    """Ask on a terminal; elsewhere require --yes."""
    if yes:
        return
    if not sys.stdin.isatty() or not click.confirm(question, err=True):
        raise NotConfirmed("Nothing was done: it was not confirmed.")


def remove_after(
    question: str, invocation: Invocation, kind: str, name: str, *, yes: bool, as_json: bool
) -> int:
    """Remove a server or profile once the question is answered; one that is not there is refused before it."""
    if not yes:
        answer_to(invocation, f"{kind}.show", name=name)
    confirm(question, yes=yes)
    done = answer_to(invocation, f"{kind}.remove", name=name)
    return ui.print_result(done, f"Removed {kind} {name}.", as_json=as_json)


def pairs(values: Sequence[str], option: str, *, separators: str = "=") -> dict[str, str | None]:
    """Parse `KEY=VALUE` options; a lone `KEY`, which removes a key, becomes None."""
    found: dict[str, str | None] = {}
    for value in values:
        at = min((i for i in (value.find(mark) for mark in separators) if i > 0), default=-1)
        key = (value if at < 0 else value[:at]).strip()
        if not key or value[:1] in separators:
            raise UsageProblem(
                f"{option} {value!r} has no name.", hint=f"Write {option} KEY=VALUE."
            )
        found[key] = None if at < 0 else _text(value, at)
    return found


def _text(value: str, at: int) -> str:
    """Return the text after the separator; a header's is stripped."""
    text = value[at + 1 :]
    return text.strip() if value[at] == ":" else text


def complete_pairs(values: Sequence[str], option: str, *, separators: str = "=") -> dict[str, str]:
    """Parse `KEY=VALUE` options that all need a value."""
    found = pairs(values, option, separators=separators)
    for key, value in found.items():
        if value is None:
            raise UsageProblem(f"{option} {key} has no value.", hint=f"Write {option} {key}=VALUE.")
    return {key: value for key, value in found.items() if value is not None}
