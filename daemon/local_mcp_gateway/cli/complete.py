"""The values that a shell completes: names of servers, profiles, tools, backups, migrations and settings.

A completion that fails says nothing: the person is in the middle of a line.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from local_mcp_gateway.cli.context import Invocation

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    import click

    Source = Callable[[Invocation, click.Context], Iterable[str]]

PATIENCE_S = 2.0


def _completing(source: Source) -> Callable[[click.Context, click.Parameter, str], list[str]]:
    """Make a source of names what click calls with the beginning of a word."""

    def complete(context: click.Context, _: click.Parameter, incomplete: str) -> list[str]:
        try:
            names = [*source(Invocation.of(context), context)]
        except Exception:  # noqa: BLE001  a traceback would land in the line that is being typed
            return []
        return [name for name in dict.fromkeys(names) if name.startswith(incomplete)]

    return complete


@_completing
def servers(invocation: Invocation, _: click.Context) -> Iterable[str]:
    """Return the servers."""
    from local_mcp_gateway.cli.client import answer_to  # --help does not pay for it

    return [item["name"] for item in answer_to(invocation, "server.list", patience_s=PATIENCE_S)]


@_completing
def profiles(invocation: Invocation, _: click.Context) -> Iterable[str]:
    """Return the profiles."""
    from local_mcp_gateway.cli.client import answer_to

    return [item["name"] for item in answer_to(invocation, "profile.list", patience_s=PATIENCE_S)]


@_completing
def clients(_: Invocation, __: click.Context) -> Iterable[str]:
    """Return the clients that `connect` knows."""
    from local_mcp_gateway.service.admin import CLIENTS

    return CLIENTS


@_completing
def tools(invocation: Invocation, context: click.Context) -> Iterable[str]:
    """Return the tools that the running gateway shows; without one no server is started for it."""
    from local_mcp_gateway.service.admin import ask

    profile = context.params.get("profile")
    found = ask(invocation.database, "tools", {"profile": profile}, timeout_s=PATIENCE_S)
    return [item["name"] for item in found]


@_completing
def backups(invocation: Invocation, _: click.Context) -> Iterable[str]:
    """Return the backups of the database, newest first."""
    from local_mcp_gateway.backup import list_backups

    made = list_backups(invocation.database, invocation.settings.backup_folder)
    return [item.name for item in made]


@_completing
def tags(invocation: Invocation, _: click.Context) -> Iterable[str]:
    """Return the migrations of the folder."""
    from local_mcp_gateway.migrate import read_folder

    return [migration.tag for migration in read_folder(invocation.migrations).migrations]


@_completing
def settings(_: Invocation, __: click.Context) -> Iterable[str]:
    """Return the keys of the configuration."""
    from local_mcp_gateway.config import list_keys

    return [key.path for key in list_keys()]
