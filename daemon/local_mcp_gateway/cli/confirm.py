"""Asking before something is destroyed: the hazards first, then a typed name."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from local_mcp_gateway.errors import NotConfirmed

if TYPE_CHECKING:
    from collections.abc import Sequence


def confirm_by_name(name: str, hazards: Sequence[str], *, yes: bool) -> None:
    """Show what will be lost and insist on the typed name; raises NotConfirmed otherwise.

    The name is read from stdin, terminal or not; an end of input is a no. With `yes` the hazards are
    shown all the same.
    """
    for hazard in hazards:
        click.secho(hazard, fg="yellow", err=True)
    if yes:
        return
    try:
        typed = click.prompt(
            f"Type {name} to go on", default="", show_default=False, prompt_suffix=": ", err=True
        )
    except click.Abort:
        typed = ""
        click.echo(err=True)
    if typed.strip() != name:
        raise NotConfirmed(
            "Nothing was done: it was not confirmed.",
            hint=f"Run it again and type {name}, or give --yes.",
        )
