"""`secrets …`: seal the values of servers' environment and headers and the keys of a bucket; rotate the key."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

import click

from local_mcp_gateway.cli import ui
from local_mcp_gateway.cli.client import answer_to
from local_mcp_gateway.cli.lazy_group import Group
from local_mcp_gateway.errors import Exit, SealedValueProblem
from local_mcp_gateway.formats import counted
from local_mcp_gateway.service.secrets import Keyring, seal_keys

if TYPE_CHECKING:
    from local_mcp_gateway.cli.context import Invocation


@click.group(cls=Group)
def secrets() -> None:
    """Seal the values of servers' environment and headers; new ones are sealed as they are stored."""


@secrets.command()
@ui.as_json_option
@click.pass_obj
def seal(invocation: Invocation, *, as_json: bool) -> int:
    """Seal all values that are still plain.

    Values sealed with an older key are sealed again; exit 3 if one does not open. The old values are
    overwritten in the database and its -wal file; earlier backups keep what they hold.
    """
    return _show_sealed(answer_to(invocation, "secrets.seal"), as_json=as_json)


@secrets.command()
@ui.as_json_option
@click.pass_obj
def rotate(invocation: Invocation, *, as_json: bool) -> int:
    """Create a new key and seal every value with it.

    Older keys stay in the file below the new one, since old backups need them; exit 3 if a value does
    not open.
    """
    key = Keyring.of(invocation.settings).renew()
    done = answer_to(invocation, "secrets.seal", new_key=key.id)
    if done["key"] != key.id:
        raise SealedValueProblem(
            f"The running gateway does not see the new key {key.id}.",
            hint=f"Restart it, so that it reads {invocation.settings.secrets_key_file};"
            " then run `secrets seal`.",
        )
    return _show_sealed(done, as_json=as_json)


@secrets.command()
@click.argument("section", type=click.Choice(["replica", "backup"]))
@ui.as_json_option
@click.pass_obj
def bucket(invocation: Invocation, *, section: str, as_json: bool) -> int:
    """Seal the keys of the S3 bucket of the replica, or of the copies of backups, for the configuration.

    Asks for the key's id and its secret, or reads them from two lines of stdin. Prints the line for the
    configuration; keys in the environment and credentials of the unit go before it.
    """
    if sys.stdin.isatty():
        key_id = click.prompt("Access key id", err=True)
        secret = click.prompt("Secret access key", hide_input=True, err=True)
    else:
        key_id, secret = sys.stdin.readline(), sys.stdin.readline()
    name, value = seal_keys(invocation.settings, section, key_id, secret)
    if as_json:
        ui.print_json({"setting": name, "value": value})
    else:
        click.echo(f'[{section}]\n{name.partition(".")[2]} = "{value}"')
    return Exit.OK


def _show_sealed(done: dict[str, Any], *, as_json: bool) -> int:
    if as_json:
        ui.print_json(done)
    else:
        changed = [
            f"{counted(done[what], 'value')} {done_to_it}"
            for what, done_to_it in (("sealed", "sealed"), ("resealed", "sealed again"))
            if done[what]
        ]
        what = ", ".join(changed) or "every value was sealed already"
        ui.tell(f"Key {done['key']}: {what}. Keep a copy of {done['file']}.")
        if done["sealed"]:
            ui.tell("Backups made before still hold the plain values: see `db backup list`.")
        if done.get("overwritten") is False:
            ui.tell(
                "Another program is reading the database. Its files keep the old values until it ends."
                " Run `secrets seal` again then."
            )
        for value in done["unreadable"]:
            ui.tell(value["reason"])
    return Exit.DIFFERS if done["unreadable"] else Exit.OK
