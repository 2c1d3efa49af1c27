"""The groups of commands: they take the global options anywhere, and suggest what was meant.

`db status` must start as fast as a bare interpreter, without the imports of `serve`. A `LazyGroup`
therefore names its commands in a table, with their one-line help: `--help` imports nothing.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any, NamedTuple

import click

from local_mcp_gateway.cli.context import global_options

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from click.shell_completion import CompletionItem

_ALSO_CALLED = {"start": "serve", "run": "serve", "ls": "list", "rm": "remove", "delete": "remove"}
"""What other programs call a command → its name here."""
_MOST_SUGGESTIONS = 3
_WHOLE = 1000
"""Characters: a first sentence is never cut."""


class Target(NamedTuple):
    """Where a command lives (`module:attribute` below `local_mcp_gateway.cli`) and its one-line help."""

    where: str
    help: str


class Group(click.Group):
    """A group whose commands also take the global options, and which suggests commands of other groups."""

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Return one command, with the global options that it does not have itself."""
        command = self.find(ctx, cmd_name)
        if command is not None:
            own = {option for parameter in command.params for option in parameter.opts}
            command.params += [
                option for option in global_options(hidden=True) if own.isdisjoint(option.opts)
            ]
        return command

    def find(self, ctx: click.Context, name: str) -> click.Command | None:
        """Return one command as it was written."""
        return super().get_command(ctx, name)

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Find the command, or suggest those that may be meant."""
        if args and not args[0].startswith("-") and args[0] not in self.list_commands(ctx):
            ctx.fail(f"There is no command `{args[0]}`.{did_you_mean(self._near(ctx, args[0]))}")
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write each command with the whole first sentence of its help, however narrow the terminal is."""
        with formatter.section("Commands"):
            formatter.write_dl(list(self.summaries(ctx)))

    def shell_complete(self, ctx: click.Context, incomplete: str) -> list[CompletionItem[str]]:
        """Return the commands that begin so, with the same help, then the options."""
        from click.shell_completion import CompletionItem  # only for a shell

        found = [
            CompletionItem(name, help=text.removesuffix("."))
            for name, text in self.summaries(ctx)
            if name.startswith(incomplete)
        ]
        return found + click.Command.shell_complete(self, ctx, incomplete)

    def summaries(self, ctx: click.Context) -> Iterator[tuple[str, str]]:
        """Yield each command with its one-line help."""
        for name in self.list_commands(ctx):
            command = self.get_command(ctx, name)
            if command is not None and not command.hidden:
                yield name, command.get_short_help_str(limit=_WHOLE)

    def _near(self, ctx: click.Context, word: str) -> list[str]:
        """Return what may be meant: a command of that name anywhere, else one that is spelt alike."""
        from difflib import get_close_matches  # only for an error

        root = ctx.find_root()
        here = ctx.command_path.removeprefix(root.command_path).strip()
        names = {path: path.rpartition(" ")[2] for path in _paths(root, root.command)}
        inside = {path for path, name in names.items() if path == f"{here} {name}".strip()}
        wanted = {word, _ALSO_CALLED.get(word, word)}
        found = [path for path, name in names.items() if name in wanted]
        if not found:
            near = get_close_matches(word, names.values(), n=1, cutoff=0.7)
            alike = [path for path, name in names.items() if name in near]
            found = [path for path in alike if path in inside] or alike
        return sorted(found, key=lambda path: (path not in inside, path.count(" ")))


def _paths(context: click.Context, command: click.Command, above: str = "") -> Iterator[str]:
    """Yield the words of every command below this one."""
    if not isinstance(command, click.Group):
        return
    for name in command.list_commands(context):
        below = command.get_command(context, name)
        if below is not None and not below.hidden:
            yield f"{above}{name}"
            yield from _paths(context, below, f"{above}{name} ")


def did_you_mean(names: Sequence[str]) -> str:
    """Return the question that follows an unknown name, with a space before it; empty without one."""
    shown = [f"`{name}`" for name in names[:_MOST_SUGGESTIONS]]
    if not shown:
        return ""
    *first, last = shown
    return f" Did you mean {', '.join(first)} or {last}?" if first else f" Did you mean {last}?"


class LazyGroup(Group):
    """A group whose commands are named in a table and imported on use."""

    def __init__(self, *, table: Mapping[str, Target], **attributes: Any) -> None:
        super().__init__(**attributes)
        self.table = table

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002  click's signature
        """Return the names in the table's order, which follows use, not the alphabet."""
        return list(self.table)

    def find(self, ctx: click.Context, name: str) -> click.Command | None:  # noqa: ARG002
        """Import and return one command."""
        target = self.table.get(name)
        if target is None:
            return None
        module, _, attribute = target.where.partition(":")
        command = getattr(import_module(f"local_mcp_gateway.cli.{module}"), attribute)
        assert isinstance(command, click.Command)
        return command

    def summaries(self, ctx: click.Context) -> Iterator[tuple[str, str]]:  # noqa: ARG002
        """Yield the table, without importing anything."""
        return ((name, target.help) for name, target in self.table.items())
