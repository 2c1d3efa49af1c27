"""Pages of the clients' tokens: create one (shown once), edit and revoke it."""

from __future__ import annotations

from typing import Any, Final

from local_mcp_gateway.errors import UsageProblem
from local_mcp_gateway.formats import counted
from local_mcp_gateway.studio.http import Response, address, whole_number
from local_mcp_gateway.studio.visit import Page, Visit, refused_on

LIMITS: Final = ("calls_per_minute", "calls_at_once")


async def show_all(visit: Visit) -> Response:
    """List the tokens, and offer to make one."""
    return await _all(visit)


async def _all(visit: Visit, made: dict[str, Any] | None = None) -> Response:
    tokens = await visit.ask("token.list")
    return await visit.page(
        "tokens.html",
        tokens=tokens,
        made=made,
        profiles=await _profiles(visit),
        headline=f"{counted(len(tokens), 'token')} for clients" if tokens else "No tokens yet",
        form=_typed(visit),
    )


@refused_on(show_all)
async def create(visit: Visit) -> Response:
    """Make a token; this page is the only one that has its text."""
    name = visit.request.given("name").strip()
    made = await visit.ask("token.create", name=name, **_given(visit))
    visit.request.form = {}  # the form below the new token is for another one
    return await _all(visit, made)


async def show_one(visit: Visit) -> Response:
    """Show one token and the form that changes it."""
    (name,) = visit.arguments
    token = next((one for one in await visit.ask("token.list") if one["name"] == name), None)
    if token is None:
        raise UsageProblem(f"There is no token {name!r}.", hint="The list has those that are.")
    stored = {**token["policy"], "profiles": token["profiles"], "name": name, "expires": ""}
    return await visit.page(
        "token.html",
        client=token,
        profiles=await _profiles(visit),
        form=_typed(visit) if visit.problem else stored,
    )


@refused_on(show_one)
async def edit(visit: Visit) -> Response:
    """Change what a token reaches; its text stays the same."""
    (name,) = visit.arguments
    new = visit.request.given("name").strip()
    await visit.ask("token.edit", name=name, **_given(visit), rename=new or None)
    return visit.back(address("tokens", new or name), "The token is changed, from now on.")


@refused_on(show_one)
async def revoke(visit: Visit) -> Response:
    """Take a token back, once its name was typed."""
    (name,) = visit.arguments
    visit.confirm(name, "revoked")
    await visit.ask("token.revoke", name=name)
    return visit.back(address("tokens"), f"{name} is revoked; its sessions have ended.")


async def _profiles(visit: Visit) -> list[str]:
    return [profile["name"] for profile in await visit.ask("profile.list")]


def _given(visit: Visit) -> dict[str, Any]:
    """Return what the form says, as the verbs take it; raises UsageProblem."""
    typed = _typed(visit)
    if typed["profiles"] == []:
        raise UsageProblem("No profile is chosen.", hint="Tick those that it reaches, or take all.")
    policy = {key: typed[key] for key in ("allowed", "denied", "read_only")}
    for name in LIMITS:
        text = typed[name]
        if (number := whole_number(text)) is None and text:
            raise UsageProblem(f"{text!r} is not a number of calls.", hint="Give one, or nothing.")
        policy[name] = number or None
    return {"profiles": typed["profiles"], "expires": typed["expires"], "policy": policy}


def _typed(visit: Visit) -> dict[str, Any]:
    """Return the fields of the form as they were typed."""
    given = visit.request.given
    return {
        "name": given("name"),
        "profiles": list(visit.request.form.get("profile", ()))
        if given("reach") == "chosen"
        else None,
        "expires": given("expires").strip(),
        "allowed": given("allowed").split(),
        "denied": given("denied").split(),
        "read_only": bool(given("read_only")),
        **{name: given(name).strip() for name in LIMITS},
    }


ROUTES: Final[dict[tuple[str, str], Page]] = {
    ("GET", "tokens"): show_all,
    ("POST", "tokens"): create,
    ("GET", "tokens/*"): show_one,
    ("POST", "tokens/*/edit"): edit,
    ("POST", "tokens/*/revoke"): revoke,
}
