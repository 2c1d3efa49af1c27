"""A click group that imports a command's module only when that command runs.

`db status` must start as fast as a bare interpreter, without the imports of `serve`. The group's table
therefore holds the one-line help too, and `--help` imports nothing.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, NamedTuple

import click

if TYPE_CHECKING:
    from collections.abc import Mapping


class Target(NamedTuple):
    """Where a command lives (`module:attribute` below `local_mcp_gateway.cli`) and its one-line help."""

    where: str
    help: str


class LazyGroup(click.Group):
    """A group whose commands are named in a table and imported on use."""

    def __init__(self, *args: object, table: Mapping[str, Target], **kwargs: object) -> None:
        super().__init__(*args, **kwargs)  # type: ignore[arg-type]  # click's own keyword arguments
        self.table = table

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002  click's signature
        """Return the names in the table's order, which follows use, not the alphabet."""
        return list(self.table)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002
        """Import and return one command."""
        target = self.table.get(cmd_name)
        if target is None:
            return None
        module, _, attribute = target.where.partition(":")
        command = getattr(import_module(f"local_mcp_gateway.cli.{module}"), attribute)
        assert isinstance(command, click.Command)
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Find the command, or suggest the nearest one."""
        if args and args[0] not in self.table and not args[0].startswith("-"):
            from difflib import get_close_matches  # only for an error

            near = get_close_matches(args[0], self.table, n=1)
            meant = f" Did you mean `{near[0]}`?" if near else ""
            ctx.fail(f"There is no command `{args[0]}`.{meant}")
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:  # noqa: ARG002
        """Write the table into the help without importing anything."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, target.help) for name, target in self.table.items()])
