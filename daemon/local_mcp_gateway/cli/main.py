"""The entry point `local-mcp-gateway`: global options, the table of commands, and error output.

Results go to stdout, everything else to stderr. An error that a person can act on is two lines (what is
wrong; what to do) or, with `--json`, one object on stdout. No traceback reaches a user.
"""

from __future__ import annotations

import gc
import os
import sys
import threading
from typing import NoReturn

import click

from local_mcp_gateway import __version__
from local_mcp_gateway.cli.context import Invocation, global_options
from local_mcp_gateway.cli.lazy_group import LazyGroup, Target, did_you_mean
from local_mcp_gateway.cli.streams import discard, lost, open_streams
from local_mcp_gateway.errors import Exit, GatewayError, OutputLost, UsageProblem
from local_mcp_gateway.formats import colourless, line_width

COMMANDS = {
    "serve": Target("serve:serve", "Guard the database, then serve every profile."),
    "reload": Target(
        "serve:reload", "Make the running gateway re-read its configuration and migrate."
    ),
    "open": Target("studio:open_", "Open the gateway's pages in a browser."),
    "db": Target("db:db", "The database: migrate, check, back up, restore."),
    "server": Target("server:server", "The upstream MCP servers."),
    "profile": Target("profile:profile", "The profiles that group servers for a client."),
    "token": Target("token:token", "The tokens by which clients are known."),
    "connect": Target("connect:connect", "Connect an MCP client to this gateway."),
    "replica": Target("replica:replica", "The copy of the database off this machine."),
    "secrets": Target("secrets:secrets", "Seal the secrets of servers and rotate the key."),
    "tools": Target("tools:tools", "List the tools that clients get."),
    "call": Target("tools:call", "Call one tool and print its result."),
    "stdio": Target("serve:stdio", "Bridge a profile to a client that speaks stdio only."),
    "startup": Target("service:startup", "The last starts as a waterfall of phases."),
    "audit": Target("logs:audit", "Who did what: the calls of clients, and what was changed."),
    "logs": Target("logs:logs", "The gateway's log, rendered."),
    "service": Target("service:service", "Install and control the systemd user service."),
    "health": Target("doctor:health", "Tell whether the gateway is ready."),
    "doctor": Target("doctor:doctor", "Check this machine and suggest fixes."),
    "config": Target("config_commands:config", "Show, check, change and import settings."),
    "completion": Target("doctor:completion", "Print the completion script of a shell."),
}


@click.group(
    cls=LazyGroup,
    table=COMMANDS,
    params=global_options(),
    context_settings={"help_option_names": ["-h", "--help"]},
)
@click.version_option(__version__, prog_name="local-mcp-gateway")
@click.pass_context
def cli(context: click.Context) -> None:
    """Run all your MCP servers behind one guarded gateway.

    The options may come before the command or after it.

    Exit codes: 0 fine, 1 unexpected, 2 usage, 3 differs, 4 locked, 5 migration failed,
    6 damaged, 7 configuration, 8 refused, 9 no backup possible.
    """
    context.obj = Invocation.of(context)
    context.color = coloured()


def coloured() -> bool | None:
    """Return False where the environment asks for no colours; None lets click check the stream."""
    return False if colourless() else None


def main() -> NoReturn:
    """Run the command line and exit with the documented exit code."""
    open_streams()
    try:
        code = _reported(_answer())
    finally:
        discard(sys.stdout)
        discard(sys.stderr)
    if any(thread.daemon for thread in threading.enumerate()):
        # In native code, the end of the interpreter would end such a thread, and the process, by SIGABRT.
        os._exit(code)
    sys.exit(code)


def _answer() -> Exit:
    as_json = "--json" in sys.argv
    try:
        # Without standalone mode click neither prints errors nor exits: both are done here.
        code = cli.main(standalone_mode=False, terminal_width=line_width(sys.stdout))
        sys.stdout.flush()
        gc.freeze()  # skip the garbage collection at interpreter exit
    except GatewayError as error:
        return say(error, as_json=as_json)
    except click.exceptions.NoArgsIsHelpError as error:
        click.echo(error.format_message())
        return Exit.USAGE
    except click.NoSuchOption as error:
        near = did_you_mean(error.possibilities or ())
        where = error.ctx.command_path if error.ctx else "local-mcp-gateway"
        problem = UsageProblem(
            f"There is no option `{error.option_name}`.{near}", hint=f"See `{where} --help`."
        )
        return say(problem, as_json=as_json)
    except click.UsageError as error:
        context = error.ctx
        where = context.command_path if context else "local-mcp-gateway"
        message = " ".join(error.format_message().split())  # choices come on lines of their own
        problem = UsageProblem(message, hint=f"See `{where} --help`.")
        return say(problem, as_json=as_json)
    except click.ClickException as error:
        return say(UsageProblem(error.format_message()), as_json=as_json)
    except (click.Abort, KeyboardInterrupt):
        click.echo("Stopped.", err=True)
        return Exit.OK
    except Exception as error:
        if error is lost(sys.stdout):
            return Exit.OK  # an endless command whose reader has gone
        if "debug" in sys.argv or os.environ.get("LMG_LOG__LEVEL") == "debug":
            raise
        from local_mcp_gateway.service import reported_error, root_cause

        return say(reported_error(root_cause(error)), as_json=as_json)
    return Exit(code) if isinstance(code, int) else Exit.OK


def _reported(code: Exit) -> Exit:
    """Report output that could not be written; not if the reader (head, less) has gone."""
    reason = lost(sys.stdout)
    if reason is None or isinstance(reason, BrokenPipeError) or code not in (Exit.OK, Exit.DIFFERS):
        return code
    message = f"The command is done, but its output could not be written: {reason.strerror}."
    return max(code, say(OutputLost(message), as_json=False))


def say(error: GatewayError, *, as_json: bool) -> Exit:
    """Print an error to the stream its reader expects; return its exit code."""
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
