"""The command `local-mcp-gateway`: global options, the table of commands, and how errors are said.

Results go to stdout, everything else to stderr. An error that a person can act on is two lines (what
is wrong; what to do) or, with `--json`, one object on stdout; no traceback reaches a user.
"""

from __future__ import annotations

import gc
import io
import os
import sys
from contextlib import suppress
from pathlib import Path
from typing import NoReturn, TextIO

import click

from local_mcp_gateway import __version__
from local_mcp_gateway.cli.context import Invocation
from local_mcp_gateway.cli.lazy_group import LazyGroup, Target
from local_mcp_gateway.errors import Exit, GatewayError, OutputLost, UsageProblem


class Told(io.TextIOWrapper):
    """A standard stream that remembers the error of its first write that failed, and writes no more."""

    lost: OSError | None = None
    raises = False
    """Raise it instead: for output without an end, which nobody reads any more."""

    def write(self, text: str, /) -> int:
        """Write, unless a write has failed already."""
        try:
            return len(text) if self.lost else super().write(text)
        except OSError as error:
            self._lose(error)
            return len(text)

    def flush(self) -> None:
        """Flush, unless a write has failed already."""
        try:
            if not self.lost:
                super().flush()
        except OSError as error:
            self._lose(error)

    def _lose(self, error: OSError) -> None:
        self.lost = error
        if self.raises:
            raise error


def open_streams() -> None:
    """Give a standard stream that came closed its place: the next file to be opened would take it.

    What is printed may name a file whose name is no UTF-8: its bytes come out as they are.
    """
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            setattr(sys, name, os.fdopen(os.open(os.devnull, os.O_RDWR), mode))
    for name, errors in (("stdout", "surrogateescape"), ("stderr", "backslashreplace")):
        stream = getattr(sys, name)
        if isinstance(stream, io.TextIOWrapper):
            buffered = stream.line_buffering
            encoding = stream.encoding
            told = Told(stream.detach(), encoding, errors, line_buffering=buffered)
            setattr(sys, name, told)


def end_when_unread(stream: TextIO) -> None:
    """Let a write that fails end the command: what it prints has no end of its own."""
    if isinstance(stream, Told):
        stream.raises = True


def lost(stream: TextIO) -> OSError | None:
    """Return why something that was printed did not arrive; None if it did."""
    return stream.lost if isinstance(stream, Told) else None


def let_go(stream: TextIO) -> None:
    """Drop what a stream could not take: the interpreter would end with a code of its own for it."""
    with suppress(OSError, ValueError):
        stream.flush()
    if lost(stream):
        with suppress(OSError, ValueError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


COMMANDS = {
    "serve": Target("serve:serve", "Guard the database, then serve every profile."),
    "reload": Target(
        "serve:reload", "Make the running gateway re-read its configuration and migrate."
    ),
    "db": Target("db:db", "The database: migrate, check, back up, restore."),
    "server": Target("server:server", "The upstream MCP servers."),
    "profile": Target("profile:profile", "The profiles that group servers for a client."),
    "secrets": Target("secrets:secrets", "How tokens of servers are kept in the database."),
    "call": Target("serve:call", "Call one tool and print what it answers."),
    "stdio": Target("serve:stdio", "Bridge a profile to a client that speaks stdio only."),
    "startup": Target("logs:startup", "The last starts as a waterfall of phases."),
    "logs": Target("logs:logs", "The gateway's log, rendered."),
    "service": Target("service:service", "Install and control the systemd user service."),
    "doctor": Target("doctor:doctor", "Check this machine and say what to do."),
    "config": Target("config_commands:config", "Show, check and import settings."),
    "completion": Target("doctor:completion", "Print the completion script of a shell."),
}

FORMATS = click.Choice(["auto", "console", "json", "journal"])
LEVELS = click.Choice(["debug", "info", "warning", "error"])


@click.group(
    cls=LazyGroup,
    table=COMMANDS,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)
@click.version_option(__version__, prog_name="local-mcp-gateway")
@click.option(
    "--config", "config_file", type=click.Path(path_type=Path), help="Configuration file."
)
@click.option("--database", type=click.Path(path_type=Path), help="Database file.")
@click.option("--migrations", type=click.Path(path_type=Path), help="Migrations folder.")
@click.option("--log-format", type=FORMATS, help="How the log is written.")
@click.option("--log-level", type=LEVELS, help="Least level that is logged.")
@click.pass_context
def cli(
    context: click.Context,
    *,
    config_file: Path | None,
    database: Path | None,
    migrations: Path | None,
    log_format: str | None,
    log_level: str | None,
) -> None:
    """Run all your MCP servers behind one guarded gateway.

    Exit codes: 0 fine, 1 unexpected, 2 usage, 3 differs, 4 locked, 5 migration failed,
    6 damaged, 7 configuration, 8 refused, 9 no backup possible.
    """
    given = {
        "database.path": database,
        "migrations.folder": migrations,
        "log.format": log_format,
        "log.level": log_level,
    }
    options = {path: str(value) for path, value in given.items() if value is not None}
    context.obj = Invocation(config_file=config_file, options=options)
    context.color = coloured()


def coloured() -> bool | None:
    """Return False where NO_COLOR is set (no-color.org); None lets click look at the stream."""
    return False if os.environ.get("NO_COLOR") else None


def main() -> NoReturn:
    """Run the command line and exit with the code of the contract."""
    open_streams()
    try:
        sys.exit(_reported(_answer()))
    finally:
        let_go(sys.stdout)
        let_go(sys.stderr)


def _answer() -> Exit:
    as_json = "--json" in sys.argv
    try:
        # Without standalone mode click neither prints errors nor exits: both are said here, once.
        code = cli.main(standalone_mode=False)
        sys.stdout.flush()
        gc.freeze()  # the interpreter need not look through everything for cycles as it ends
    except GatewayError as error:
        return say(error, as_json=as_json)
    except click.exceptions.NoArgsIsHelpError as error:
        click.echo(error.format_message())
        return Exit.USAGE
    except click.UsageError as error:
        context = error.ctx
        where = context.command_path if context else "local-mcp-gateway"
        problem = UsageProblem(error.format_message(), hint=f"See `{where} --help`.")
        return say(problem, as_json=as_json)
    except click.ClickException as error:
        return say(UsageProblem(error.format_message()), as_json=as_json)
    except (click.Abort, KeyboardInterrupt):
        click.echo("Stopped.", err=True)
        return Exit.OK
    except Exception as error:
        if error is lost(sys.stdout):
            return Exit.OK  # it prints without an end, and nobody reads it any more
        if "debug" in sys.argv or os.environ.get("LMG_LOG__LEVEL") == "debug":
            raise
        unexpected = GatewayError(f"Unexpected {type(error).__name__}: {error}.")
        return say(unexpected, as_json=as_json)
    return Exit(code) if isinstance(code, int) else Exit.OK


def _reported(code: Exit) -> Exit:
    """Say that what was printed did not arrive; a reader that has gone (head, less) wanted no more."""
    reason = lost(sys.stdout)
    if reason is None or isinstance(reason, BrokenPipeError) or code not in (Exit.OK, Exit.DIFFERS):
        return code
    told = f"It is done, but what it printed could not be written: {reason.strerror}."
    return max(code, say(OutputLost(told), as_json=False))


def say(error: GatewayError, *, as_json: bool) -> Exit:
    """Print an error where its reader looks, and return the exit code that goes with it."""
    if as_json:
        import json  # only on the way to an error

        click.echo(json.dumps({"error": error.as_json()}, indent=2))
        if not lost(sys.stdout):
            return error.exit_code
    from local_mcp_gateway.cli.ui import sentence

    message = sentence(error.message, err=True)
    colour = "red" if error.exit_code else None
    click.secho(message, fg=colour, err=True, color=coloured())
    if "excerpt" in error.data:
        click.echo(error.data["excerpt"], err=True)
    if error.hint:
        click.echo(sentence(error.hint, mark="→ ", err=True), err=True)
    return error.exit_code
