"""`config …`: show, check, change and import settings."""

from __future__ import annotations

import json
import re
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import click

from local_mcp_gateway import formats
from local_mcp_gateway.bundled import bundled
from local_mcp_gateway.cli import complete, ui
from local_mcp_gateway.cli.context import (
    Invocation,
    configuration_file,
    overriding,
    read_configuration,
    require_usable,
    write_configuration,
    write_setting,
)
from local_mcp_gateway.cli.lazy_group import Group
from local_mcp_gateway.config import check_text, config_files, list_keys, load_settings
from local_mcp_gateway.errors import ConfigProblem, Exit
from local_mcp_gateway.regular_file import read_given


@click.group(cls=Group)
def config() -> None:
    """Show, check, change and import settings."""


@config.command()
@click.option("--changed", is_flag=True, help="Only what is not the default.")
@click.option("--dev", is_flag=True, help="As `serve --dev` reads it, with gateway.dev.toml.")
@ui.as_json_option
@click.pass_obj
def show(invocation: Invocation, *, changed: bool, dev: bool, as_json: bool) -> int:
    """Show every setting with its value and source; a password in a URL is not shown."""
    settings = replace(invocation, dev=dev).settings
    rows = [
        {
            "key": key.path,
            "value": _shown(getattr(getattr(settings, key.section), key.name)),
            "default": key.default,
            "from": settings.origins.get(key.path, "default"),
            "environment": key.environment,
            "needs_restart": key.restart,
            "help": key.help,
        }
        for key in list_keys()
        if not changed or key.path in settings.origins
    ]
    if as_json:
        ui.print_json({"settings": [_plain(row) for row in rows]})
    else:
        shown = [(row["key"], json.dumps(_plain(row["value"])), row["from"]) for row in rows]
        ui.print_table(("KEY", "VALUE", "FROM"), shown, whole=0)
        click.echo()
        click.echo(f"database    {settings.database_path}")
        click.echo(f"migrations  {settings.migrations_folder}")
        click.echo(f"backups     {settings.backup_folder}")
    return Exit.OK


@config.command()
@click.argument("file", type=click.Path(path_type=Path), required=False)
@ui.as_json_option
@click.pass_obj
def check(invocation: Invocation, *, file: Path | None, as_json: bool) -> int:
    """Check FILE, or the effective settings: unknown keys, wrong types, invalid values."""
    settings = load_settings(file, environment={}) if file else invocation.settings
    require_usable(settings)
    set_here = sorted(settings.origins)
    return ui.print_result(
        {"file": str(file) if file else None, "set": set_here},
        f"{file or 'The configuration'} is fine: {formats.counted(len(set_here), 'setting')} set.",
        as_json=as_json,
    )


@config.command("set")
@click.argument("key", shell_complete=complete.settings)
@click.argument("value")
@ui.as_json_option
@click.pass_obj
def set_(invocation: Invocation, *, key: str, value: str, as_json: bool) -> int:
    """Write one setting into the configuration file; its comments and everything else stay.

    KEY is SECTION.NAME. A list is written with commas: `config set gateway.allowed_hosts a.lan,b.lan`. A
    value that cannot be used is refused, and the file stays as it was.
    """
    file, value = write_setting(invocation, key, value), _shown(value)
    stronger = overriding(invocation, key)
    restart = next(known.restart for known in list_keys() if known.path == key)
    if as_json:
        ui.print_json(
            {"key": key, "value": value, "file": str(file), "overridden_by": stronger,
             "needs_restart": restart}
        )  # fmt: skip
        return Exit.OK
    then = "`service restart`, or stop `serve` and start it again" if restart else "`reload`"
    ui.tell(f"{key} = {value} in {file}. It takes effect after {then}.")
    if stronger:
        ui.tell(f"{stronger} sets it too, and wins.", fg="yellow", err=True)
    return Exit.OK


@config.command()
@click.pass_obj
def edit(invocation: Invocation) -> int:
    """Open the configuration file in $EDITOR; it is checked before it is written.

    A file that is not there yet begins with every setting as a comment.
    """
    file = configuration_file(invocation)
    before = read_configuration(file) or bundled("config").joinpath("gateway.toml").read_text(
        encoding="utf-8"
    )
    text: str | None = before
    while True:
        text = click.edit(text, extension=".toml")
        if text is None or text == before:
            ui.tell(f"{file} stays as it was.")
            return Exit.OK
        try:
            require_usable(check_text(text, file))
            break
        except ConfigProblem as problem:
            ui.tell(problem.message, fg="red", err=True)
            ui.tell(problem.hint, mark="→ ", err=True)
            if not sys.stdin.isatty() or not click.confirm(
                "Edit it again?", default=True, err=True
            ):
                raise
    write_configuration(file, text)
    ui.tell(f"{file} is written. `reload` applies it.")
    return Exit.OK


@config.command()
@ui.as_json_option
@click.pass_obj
def path(invocation: Invocation, *, as_json: bool) -> int:
    """Print where the configuration file is, or would be."""
    file, overlay = config_files(invocation.config_file)
    if as_json:
        ui.print_json({"file": str(file), "exists": file.exists(), "overlay": str(overlay)})
    else:
        click.echo(file)
        if not file.exists():
            ui.tell("It is not there yet: `config set` or `config edit` makes it.", err=True)
    return Exit.OK


@config.command("import")
@click.argument("file", type=click.Path(path_type=Path))
@ui.as_json_option
def import_(*, file: Path, as_json: bool) -> int:
    """Read a drizzle.config.ts and print the equivalent gateway.toml."""
    try:
        text = read_given(file).decode()
    except OSError as error:
        raise ConfigProblem(
            f"{file} cannot be read: {error.strerror}.", hint="Give a drizzle.config.ts."
        ) from None
    except UnicodeDecodeError:
        raise ConfigProblem(
            f"{file} is not UTF-8 text.", hint="Give a drizzle.config.ts."
        ) from None
    found = drizzle_settings(text, file.absolute().parent)
    if not found:
        raise ConfigProblem(
            f"{file} sets neither `out` nor `dbCredentials.url` as plain text.",
            hint="Write them into gateway.toml by hand: migrations.folder and database.path.",
        )
    if as_json:
        ui.print_json(found)
        return Exit.OK
    if "schema" in found:
        click.echo(f"# schema: {found.pop('schema')} (for `db generate --schema`)")
    for section, name in (path.split(".") for path in sorted(found)):
        click.echo(f"[{section}]\n{name} = {json.dumps(found[f'{section}.{name}'])}")
    return Exit.OK


def drizzle_settings(text: str, folder: Path) -> dict[str, str]:
    """Return the settings of a drizzle.config.ts as ours; its paths are relative to `folder`."""
    text = re.sub(r"/\*.*?\*/|(?<!:)//[^\n]*", "", text, flags=re.DOTALL)
    found = {}
    for key, ours in (("out", "migrations.folder"), ("url", "database.path"), ("schema", "schema")):
        match = re.search(rf"""\b{key}\s*:\s*(["'`])([^"'`$]+)\1""", text)
        if match:
            value = match[2].removeprefix("file:")
            found[ours] = str((folder / value).resolve())
    return found


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    return list(value) if isinstance(value, tuple) else value


def _shown(value: Any) -> Any:
    """Return a setting as it is shown: without what is secret in a URL, or looks like it."""
    from local_mcp_gateway.log import redact_text, redact_url  # --help does not pay for it

    if isinstance(value, str):
        return redact_url(value) if "://" in value else redact_text(value)
    return value
