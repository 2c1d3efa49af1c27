"""The context of every command: its settings and their file, its paths, its log and its signal handling.

Settings are read on first access, so `--help` and completion never fail on an invalid file.
"""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import field, replace
from functools import cached_property, reduce
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from local_mcp_gateway.config import (
    Settings,
    check_text,
    config_files,
    load_settings,
    parse_value,
    prepare_data_folder,
)
from local_mcp_gateway.errors import ConfigProblem, UsageProblem
from local_mcp_gateway.frozen import frozen
from local_mcp_gateway.regular_file import read_given

if TYPE_CHECKING:
    import threading
    from collections.abc import Callable, Iterator, Mapping

    from local_mcp_gateway.database import Connection
    from local_mcp_gateway.guard import GuardContext
    from local_mcp_gateway.log import Log

    Decorator = Callable[[Callable[..., Any]], Callable[..., Any]]

_Value = TypeVar("_Value")


@frozen
class Invocation:
    """One run of the command line, kept in `ctx.obj`."""

    config_file: Path | None = None
    options: Mapping[str, object] = field(default_factory=dict)
    dev: bool = False

    @classmethod
    def of(cls, context: click.Context) -> Invocation:
        """Return what the global options have said so far."""
        return context.obj if isinstance(context.obj, cls) else cls()

    @cached_property
    def settings(self) -> Settings:
        """Read the settings; raises ConfigProblem. Secrets in their URLs are hidden in all output from then on."""
        settings = load_settings(self.config_file, dev=self.dev, options=self.options)
        for key in settings.origins:
            value: object = reduce(getattr, key.split("."), settings)
            if isinstance(value, str) and "://" in value:
                from local_mcp_gateway.log import learn, secrets_in_url  # few settings are URLs

                learn(secrets_in_url(value))
        return settings

    @cached_property
    def database(self) -> Path:
        """Return the path of this command's database; it need not exist."""
        return self.settings.database_path

    @cached_property
    def migrations(self) -> Path:
        """Return the path of this command's migrations folder."""
        return self.settings.migrations_folder

    def prepare_folder(self) -> None:
        """Create the data folder if it is the default one."""
        prepare_data_folder(self.settings)

    def prepare(self, connection: Connection) -> None:
        """Register what migrations use beyond SQLite (`[migrations]` functions and the like)."""
        from local_mcp_gateway.service import register_sql  # --help does not pay for it

        register_sql(self.settings, connection)

    def emitter(self, *, default_level: str = "warning") -> Log:
        """Return this command's log: only warnings by default, since results go to stdout."""
        from local_mcp_gateway import log  # imported only by commands with a log

        return log.configure(self.settings.log.format, self.settings.log.level or default_level)


def not_empty(_: click.Context, option: click.Parameter, value: _Value) -> _Value:
    """Return the value of an option; an unset variable of the shell must not mean that it is left out."""
    if value == "":
        raise UsageProblem(
            f"{option.opts[0]} is empty.", hint="Give a value, or leave the option out."
        )
    return value


def _remember(key: str) -> Callable[[click.Context, click.Parameter, object], None]:
    """Return the callback that puts the value of a global option into the invocation."""

    def remember(context: click.Context, option: click.Parameter, value: object) -> None:
        invocation = Invocation.of(context)
        if not_empty(context, option, value) is None:
            return
        if key == "config":
            context.obj = replace(invocation, config_file=Path(str(value)))
        else:
            context.obj = replace(invocation, options={**invocation.options, key: str(value)})

    return remember


_FORMATS = click.Choice(["auto", "console", "json", "journal"])
_LEVELS = click.Choice(["debug", "info", "warning", "error"])
_GLOBAL: dict[str, tuple[str, click.ParamType[Any], str]] = {
    "--config": ("config", click.Path(), "Configuration file."),
    "--database": ("database.path", click.Path(), "Database file."),
    "--migrations": ("migrations.folder", click.Path(), "Migrations folder."),
    "--log-format": ("log.format", _FORMATS, "How the log is written."),
    "--log-level": ("log.level", _LEVELS, "Lowest level that is logged."),
}
"""Option → its setting, its type and its help."""


def global_options(*, hidden: bool = False) -> list[click.Option]:
    """Return the options that every command takes."""
    return [
        click.Option(
            [option], type=kind, help=help_, hidden=hidden, expose_value=False,
            callback=_remember(key),
        )
        for option, (key, kind, help_) in _GLOBAL.items()
    ]  # fmt: skip


def with_options(*options: Decorator) -> Decorator:
    """Return what adds all of these options to a command, in this order."""

    def add(command: Callable[..., Any]) -> Callable[..., Any]:
        return reduce(lambda built, option: option(built), reversed(options), command)

    return add


def given_globally(invocation: Invocation) -> tuple[str, ...]:
    """Return the global options of an invocation, to start another process with."""
    config = invocation.config_file
    given: tuple[str, ...] = ("--config", str(config)) if config else ()
    for option, (key, _, _) in _GLOBAL.items():
        if key in invocation.options:
            given += (option, str(invocation.options[key]))
    return given


@contextmanager
def stop_on_signals() -> Iterator[threading.Event]:
    """Set the event on SIGTERM and SIGINT: the guard rolls back and the command exits with 0.

    Runs in the main thread; the previous handlers are restored.
    """
    import signal  # imported only by long-running commands

    from local_mcp_gateway.database import StopEvent

    stop = StopEvent()
    previous = {
        number: signal.signal(number, lambda *_: stop.set())
        for number in (signal.SIGTERM, signal.SIGINT)
    }
    try:
        yield stop
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)


@contextmanager
def guard_context(invocation: Invocation, *, quiet: bool = False) -> Iterator[GuardContext]:
    """Yield the context of a guarded command: signals stop it, and a terminal shows its progress.

    With `quiet` nothing is logged: the command prints its findings itself.
    """
    from local_mcp_gateway.cli.ui import progress_bar
    from local_mcp_gateway.guard import GuardContext
    from local_mcp_gateway.log import ignore
    from local_mcp_gateway.service import guard_policy
    from local_mcp_gateway.service.replica import replicating

    with stop_on_signals() as stop, progress_bar() as progress:
        yield GuardContext(
            invocation.database,
            invocation.migrations,
            replicating(invocation.settings, guard_policy(invocation.settings)),
            emit=ignore if quiet else invocation.emitter(),
            progress=progress,
            stop=stop,
        )


def write_setting(invocation: Invocation, key: str, text: str) -> Path:
    """Write one setting into the configuration file; return the file. Raises ConfigProblem."""
    from local_mcp_gateway.text_edit import CannotEdit, set_in_toml  # --help does not pay for it

    value = parse_value(key, text)
    file = configuration_file(invocation)
    before = read_configuration(file)
    section, name = key.split(".", 1)
    plain = list(value) if isinstance(value, tuple) else value
    try:
        after = set_in_toml(before, (section, name), plain)
    except CannotEdit as error:
        raise ConfigProblem(
            f"{file} cannot be changed by a program: {error}.", hint="Use `config edit`."
        ) from None
    require_usable(check_text(after, file))
    if after != before:
        write_configuration(file, after)
    return file


def require_usable(settings: Settings) -> None:
    """Raise ConfigProblem unless a start could use these settings: kinds of hazards are the guard's."""
    from local_mcp_gateway.service import guard_policy

    guard_policy(settings)


def overriding(invocation: Invocation, key: str) -> str | None:
    """Return the variable or option that sets a key more strongly than the file does."""
    origin = invocation.settings.origins.get(key)
    return None if origin == str(configuration_file(invocation)) else origin


def configuration_file(invocation: Invocation) -> Path:
    """Return the configuration file of this command; it need not exist."""
    return config_files(invocation.config_file)[0]


def read_configuration(file: Path) -> str:
    """Return the text of the file, empty if there is none."""
    try:
        return read_given(file).decode()
    except FileNotFoundError:
        return ""
    except OSError as error:
        raise ConfigProblem(f"{file} cannot be read: {error.strerror}.") from None
    except UnicodeDecodeError:
        raise ConfigProblem(f"The configuration file {file} is not UTF-8 text.") from None


def write_configuration(file: Path, text: str) -> None:
    """Replace the file in one step, behind a link too; nothing is changed if that fails."""
    from local_mcp_gateway.migrate import replace_durably  # --help does not pay for it

    target = file.resolve()
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        replace_durably(target, text.encode())
    except OSError as error:
        raise ConfigProblem(
            f"{file} cannot be written: {error.strerror}.", hint="Nothing was changed."
        ) from None
