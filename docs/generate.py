"""Write the files that follow from the code: settings, commands, log events, errors.

`make docs` writes them; `--check` writes nothing and exits 1 when one is not what the code says. A
test runs the check, so a new option, event or error cannot land without its line in the docs.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import click

from local_mcp_gateway import errors
from local_mcp_gateway.cli.main import cli
from local_mcp_gateway.config import Settings, list_keys
from local_mcp_gateway.log.events import EVENTS

ROOT = Path(__file__).parents[1]
MANUAL_WIDTH = 72
"""Columns of a manual page's text on a terminal of 80."""
WRITTEN = "<!-- Written by `make docs` from {source}; edit that instead. -->"


def configuration() -> Iterator[str]:
    """Yield the page of every setting."""
    yield WRITTEN.format(source="daemon/local_mcp_gateway/config/settings.py")
    yield "# Configuration\n"
    yield (
        "Later wins: the defaults, `~/.config/local-mcp-gateway/gateway.toml` (or the file given with\n"
        "`--config`), in `serve --dev` also `gateway.dev.toml` next to it (`NAME.dev.toml` next to a `NAME.toml`), the environment (`DATABASE_PATH`,\n"
        "then `LMG_SECTION__KEY`), options on the command line. A `reload` reads them again, and applies what is not marked\n"
        "*at the start*. An unknown key is an error that names\n"
        "the nearest known one. `local-mcp-gateway config show` lists every effective setting and where it\n"
        "came from; [config/gateway.toml](../config/gateway.toml) is this page as a file to copy, and\n"
        "[config/gateway.dev.toml](../config/gateway.dev.toml) an overlay for dev mode. In dev mode a save of\n"
        "either is a reload, and what is marked *at the start* restarts the worker.\n"
    )
    section = ""
    for key in list_keys():
        if key.section != section:
            section = key.section
            yield f"\n## [{section}]\n\n{_about(section)}\n"
            yield "| key | default | what it does | variable |\n| --- | --- | --- | --- |"
        words = " · ".join(f"`{word}`" for word in key.choices if word)
        text = _cell(key.help) + (f" One of {words}." if words else "")
        text += " *At the start.*" if key.restart else ""
        yield f"| `{key.name}` | `{_toml(key.default)}` | {text} | `{key.environment}` |"


def settings_file() -> Iterator[str]:
    """Yield `config/gateway.toml`: every key with its sentence and its default, commented out."""
    yield "# Local MCP Gateway: every setting, its unit and its default."
    yield "# Remove the `#` before a key to change it. Later wins: this file, LMG_SECTION__KEY, options."
    section = ""
    for key in list_keys():
        if key.section != section:
            section = key.section
            yield f"\n# {_about(section)}\n[{section}]"
        words = " | ".join(f'"{choice}"' for choice in key.choices)
        at_start = " Read at the start." if key.restart else ""
        yield f"# {key.help}" + (f" One of {words}." if words else "") + at_start
        yield f"# {key.name} = {_toml(key.default)}"


def _about(section: str) -> str:
    return (type(getattr(Settings(), section)).__doc__ or "").strip()


def _toml(value: object) -> str:
    """Write a value: TOML's strings, numbers, booleans and arrays are JSON's."""
    return "{}" if isinstance(value, Mapping) else json.dumps(value)


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")


def command_line() -> Iterator[str]:
    """Yield the page of every command: its own `--help`, so that both say the same."""
    yield WRITTEN.format(source="the commands under daemon/local_mcp_gateway/cli/")
    yield "# Commands\n"
    yield (
        "Results go to stdout, everything else to stderr. The options of `local-mcp-gateway` itself may come\n"
        "before the command or after it. With\n"
        '`--json` an error is `{"error": {"code", "message", "hint", "exit_code"}}`; the form of every\n'
        "`--json` output is a JSON schema under [schemas/](schemas/). Exit codes: [errors](errors.md).\n"
    )
    for path, command, context in _commands(cli, "local-mcp-gateway", None):
        depth = "#" * min(2 + path.count(" "), 4)
        yield f"\n{depth} {path}\n\n```text\n{_help(command, context)}\n```"


def _help(command: click.Command, context: click.Context) -> str:
    lines = command.get_help(context).splitlines()
    return "\n".join(line.rstrip() for line in lines)


def _commands(
    command: click.Command, path: str, parent: click.Context | None, *, width: int = 100
) -> Iterator[tuple[str, click.Command, click.Context]]:
    context = click.Context(command, info_name=path.rsplit(" ", 1)[-1], parent=parent)
    context.terminal_width = context.max_content_width = width
    context.help_option_names = ["-h", "--help"]
    yield path, command, context
    if isinstance(command, click.Group):
        for name in command.list_commands(context):
            below = command.get_command(context, name)
            assert below is not None, name
            if not below.hidden:
                yield from _commands(below, f"{path} {name}", context, width=width)


def manual() -> Iterator[str]:
    """Yield the manual page in the language of man(7): every command's own `--help`."""
    name = "local-mcp-gateway"
    yield '.\\" Written by `make docs` from the commands; edit those instead.'
    yield f'.TH {_roff(name).upper()} 1 "" "{name}" "User Commands"'
    yield f".SH NAME\n{_roff(name)} \\- all MCP servers behind one guarded gateway"
    for path, command, context in _commands(cli, name, None, width=MANUAL_WIDTH):
        heading = (
            ".SH SYNOPSIS" if path == name else f".SH {_roff(path.removeprefix(name).strip())}"
        )
        yield f"{heading}\n.nf\n{_roff(_help(command, context))}\n.fi"
    yield ".SH FILES"
    for file, what in (
        ("~/.config/local-mcp-gateway/gateway.toml", "The configuration; see `config show`."),
        (
            "~/.local-mcp-gateway-data/local-mcp-gateway.db",
            "The database, with backups/ next to it.",
        ),
        ("~/.config/local-mcp-gateway.key", "The key that seals the secrets in the database."),
    ):
        yield f".TP\n{_roff(file)}\n{_roff(what)}"


def _roff(text: str) -> str:
    """Escape what roff would take for a command or typeset as another character."""
    text = text.replace("\\", "\\e").replace("-", "\\-").replace("`", "\\(ga").replace("'", "\\(aq")
    text = re.sub(r"(?m)^\.", r"\\&.", text)
    return re.sub(r"[^\x00-\x7f]", lambda found: f"\\[u{ord(found[0]):04X}]", text)


def log_events() -> Iterator[str]:
    """Yield the page of every event of the log."""
    yield WRITTEN.format(source="daemon/local_mcp_gateway/log/events.py")
    yield "# Events of the log\n"
    yield (
        "The log goes to stderr: as text for people on a terminal, with native fields if stderr is the systemd\n"
        "journal (`journalctl EVENT=guard.refused`), else as JSON lines. Every line is one of these events. Keys\n"
        "carry their units. info is normal operation, warning means that someone should look, error that someone must\n"
        "act. In the journal `call.finished` is debug: the journal limits the rate of each priority, and calls\n"
        "must not use up what a migration needs. Arguments, results and secrets are never logged.\n"
    )
    yield "| event | level | what it says |\n| --- | --- | --- |"
    for name, event in EVENTS.items():
        yield f"| `{name}` | {event.level} | {_cell(event.sentence)} |"


def situations() -> Iterator[str]:
    """Yield the page of exit codes and of every error."""
    yield WRITTEN.format(source="daemon/local_mcp_gateway/errors.py")
    yield "# Errors and exit codes\n"
    yield (
        "An error says in one sentence what is wrong and where, and in a second what to do. Where several exit\n"
        "codes would hold, 6 wins over 8, and 8 over 3. Under systemd 4, 9 and 1 are tried again with growing\n"
        "pauses; 2, 5, 6, 7 and 8 need a person, so the service stays down and says why.\n"
    )
    yield "| exit | name | situations |\n| --- | --- | --- |"
    every = list(errors.situations())
    for code in errors.Exit:
        named = ", ".join(f"`{error.code}`" for error in every if error.exit_code is code)
        yield f"| {int(code)} | {code.name.lower()} | {named} |"
    yield "\n## Every situation\n\n| code | exit | what it means | what to do |\n| --- | --- | --- | --- |"
    for error in sorted(every, key=lambda error: error.code):
        about = (error.__doc__ or "").strip().split("\n\n")[0]
        yield f"| `{error.code}` | {int(error.exit_code)} | {_cell(about)} | {_cell(error.default_hint)} |"
    codes = [value for name, value in vars(errors.ProblemCode).items() if name.isupper()]
    yield "\n## Problems of a history (code `history`, exit 8)\n"
    yield (
        "`db status` lists all of them, each with the way to fix it: "
        + ", ".join(f"`{code}`" for code in codes)
        + ".\nWhat each one means: [how it works](how-it-works.md#what-is-refused-and-why)."
    )


PAGES: dict[str, Callable[[], Iterator[str]]] = {
    "docs/configuration.md": configuration,
    "docs/cli.md": command_line,
    "docs/local-mcp-gateway.1": manual,
    "docs/log-events.md": log_events,
    "docs/errors.md": situations,
    "config/gateway.toml": settings_file,
}


def page(name: str) -> str:
    """Return a generated page as text."""
    return "\n".join(PAGES[name]()).rstrip() + "\n"


def outdated() -> list[str]:
    """Return the names of the pages that are not what the code says."""
    return [
        name
        for name in PAGES
        if not (ROOT / name).exists() or (ROOT / name).read_text(encoding="utf-8") != page(name)
    ]


def main() -> int:
    """Write or check the pages; return the exit code."""
    parser = argparse.ArgumentParser(prog="make docs")
    parser.add_argument("--check", action="store_true", help="write nothing; exit 1 if one is old")
    given = parser.parse_args()
    old = outdated()
    for name in old:
        if not given.check:
            (ROOT / name).write_text(page(name), encoding="utf-8")
        print(f"{name} is {'old: run `make docs`' if given.check else 'written'}")
    return 1 if given.check and old else 0


if __name__ == "__main__":
    sys.exit(main())
