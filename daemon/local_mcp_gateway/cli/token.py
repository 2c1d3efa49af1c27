"""`token …`: make, list, change and revoke the tokens by which clients are known."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from local_mcp_gateway.cli import complete, ui
from local_mcp_gateway.cli.client import answer_to, changed_by, confirm
from local_mcp_gateway.cli.lazy_group import Group
from local_mcp_gateway.cli.policy import policy_of, policy_options, policy_text
from local_mcp_gateway.cli.token_file import TOKEN_VARIABLE, write_token
from local_mcp_gateway.errors import Exit, UsageProblem

if TYPE_CHECKING:
    from local_mcp_gateway.cli.context import Invocation


@click.group(cls=Group)
def token() -> None:
    """Give each client a token, and take it back."""


@token.command()
@click.argument("name")
@click.option(
    "--profile", "profiles", multiple=True, metavar="PROFILE", shell_complete=complete.profiles,
    help="A profile that it reaches; may be repeated  [default: all].",
)  # fmt: skip
@click.option("--expires", metavar="TIME", help="How long it is valid: 12h, 90d, 4w.")
@click.option(
    "--file", type=click.Path(path_type=Path),
    help="Write the token into this new file (mode 0600) instead of printing it.",
)  # fmt: skip
@policy_options
@ui.as_json_option
@click.pass_obj
def create(
    invocation: Invocation,
    /,
    *,
    name: str,
    profiles: tuple[str, ...],
    expires: str | None,
    file: Path | None,
    as_json: bool,
    **policy: Any,
) -> int:
    """Make a token for one client; it is shown this once, and only its hash is kept."""
    made = answer_to(
        invocation,
        "token.create",
        name=name,
        profiles=list(profiles),
        expires=expires,
        policy=policy_of(policy),
    )
    return _show_made(invocation, made, file, as_json=as_json)


def _show_made(
    invocation: Invocation, made: dict[str, Any], file: Path | None, *, as_json: bool
) -> int:
    """Print a new token, or put it into a file; a token that could not be put there is revoked again."""
    if file is not None:
        try:
            write_token(file.absolute(), made["token"])
        except UsageProblem:
            answer_to(invocation, "token.revoke", name=made["name"])
            raise
        made["token"], made["file"] = None, str(file.absolute())
    if as_json:
        ui.print_json({"file": None, **made})
        return Exit.OK
    if file is None:
        click.echo(made["token"])
    where = f"It is in {made['file']}." if file else "It is not shown again."
    until = f", valid until {made['expires_at']}" if made["expires_at"] else ""
    ui.tell(
        f"Made the token {made['name']}{until}. {where} A client sends it as the header"
        f" `Authorization: Bearer …`; `stdio` takes it from a file (--token-file) or from {TOKEN_VARIABLE}.",
        err=True,
    )
    return Exit.OK


@token.command()
@click.argument("name")
@click.option("--rename", metavar="NAME", help="Its new name.")
@click.option(
    "--profile", "profiles", multiple=True, metavar="PROFILE", shell_complete=complete.profiles,
    help="A profile that it reaches. Give all again; `--profile *` is every one.",
)  # fmt: skip
@click.option(
    "--expires", metavar="TIME", help="How long it is valid from now on: 12h, 90d, never."
)
@policy_options
@ui.as_json_option
@click.pass_obj
def edit(
    invocation: Invocation,
    /,
    *,
    name: str,
    rename: str | None,
    profiles: tuple[str, ...],
    expires: str | None,
    as_json: bool,
    **policy: Any,
) -> int:
    """Change what a token reaches and until when. Its text stays the same, so no client has to be told."""
    changes: dict[str, Any] = {
        "rename": rename,
        "profiles": [] if profiles == ("*",) else list(profiles) or None,
        "expires": expires,
        "policy": policy_of(policy) or None,
    }
    done = changed_by(invocation, "token.edit", name, changes)
    return ui.print_result(done, f"Changed token {done['name']}.", as_json=as_json)


@token.command("list")
@ui.as_json_option
@click.pass_obj
def list_(invocation: Invocation, *, as_json: bool) -> int:
    """List the tokens: what each reaches, until when, and who used it last."""
    return ui.print_list(
        answer_to(invocation, "token.list"),
        ("NAME", "PROFILES", "POLICY", "EXPIRES", "LAST USED", "CLIENT"),
        lambda item: (
            item["name"],
            _profiles(item["profiles"]),
            policy_text(item["policy"]) or None,
            "expired" if item["expired"] else item["expires_at"],
            item["last_used_at"],
            item["last_client"],
        ),
        none="There is no token: `token create NAME` makes one.",
        as_json=as_json,
    )


def _profiles(names: list[str] | None) -> str:
    return "all" if names is None else ", ".join(names) or "none: removed"


@token.command()
@click.argument("name")
@click.option("--yes", is_flag=True, help="Do not ask.")
@ui.as_json_option
@click.pass_obj
def revoke(invocation: Invocation, *, name: str, yes: bool, as_json: bool) -> int:
    """Take a token back: its sessions and streams end at once."""
    if yes or name in {item["name"] for item in answer_to(invocation, "token.list")}:
        confirm(f"Revoke token {name}? Its clients lose their connection.", yes=yes)
    done = answer_to(invocation, "token.revoke", name=name)
    return ui.print_result(done, f"Revoked token {name}.", as_json=as_json)
