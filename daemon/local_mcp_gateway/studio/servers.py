"""Pages of the servers: their state, and how they are added, edited, tested, signed in to and removed."""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlsplit

from local_mcp_gateway.errors import GatewayError, UsageProblem
from local_mcp_gateway.formats import counted, duration, now_ms
from local_mcp_gateway.studio.calls import HOUR_MS, Traffic, traffic
from local_mcp_gateway.studio.http import Request, Response, address, whole_number
from local_mcp_gateway.studio.overview import WORDS, server_lines
from local_mcp_gateway.studio.visit import Page, Visit, refused_on

if TYPE_CHECKING:
    from collections.abc import Mapping


LAST_CALLS: Final = 10
MOST_LOGINS: Final = 8
SANDBOXES: Final = frozenset({"network", "alone"})


async def show_all(visit: Visit) -> Response:
    """List the servers with their state and the calls of the last day."""
    assert visit.powers.pool is not None, "servers are there with a gateway only"
    servers = await visit.ask("server.list")
    lines = server_lines(servers, await traffic(visit.powers.pool, now_ms() - 24 * HOUR_MS))
    down = [line.name for line in lines if line.chip == "bad"]
    if not lines:
        headline = "No servers yet"
    elif down:
        headline = f"{' and '.join(down[:3])} {'is' if len(down) == 1 else 'are'} down"
    else:
        headline = f"{counted(len(lines), 'server')}, none of them down"
    return await visit.page("servers.html", lines=lines, headline=headline)


async def show_one(visit: Visit) -> Response:
    """Show one server: its state, what it wrote, its tools and last calls."""
    return await _shown(visit, visit.arguments[0])


async def _shown(visit: Visit, name: str, **values: Any) -> Response:
    assert visit.powers.pool is not None, "servers are there with a gateway only"
    server = await _server(visit, name)
    live = server.get("live") or {}
    chip, word = WORDS.get(live.get("state", "idle"), ("off", "idle"))
    if not server["active"]:
        chip, word = "off", "turned off"
    known = await visit.ask("server.list")
    profiles: list[str] = next((one["profiles"] for one in known if one["name"] == name), [])
    calls = await visit.powers.pool.fetch_all(
        "SELECT id, created_at, method, target, status, duration_us FROM debug_logs"
        " WHERE server = ? ORDER BY created_at DESC LIMIT ?",
        (name, LAST_CALLS),
    )
    day = (await traffic(visit.powers.pool, now_ms() - 24 * HOUR_MS, name)).get(name, Traffic())
    return await visit.page(
        "server.html",
        **{
            "server": server,
            "live": live,
            "chip": chip,
            "word": word,
            "profiles": profiles,
            "calls": calls,
            "day": day,
            "command": shlex.join([server["command"], *server["args"]])
            if server["command"]
            else "",
            **values,
        },
    )


async def _server(visit: Visit, name: str) -> dict[str, Any]:
    server: dict[str, Any] = await visit.ask("server.show", name=name)
    return server


# --- adding -------------------------------------------------------------------------------------


async def show_form(visit: Visit) -> Response:
    """Show the form that adds a server."""
    return await _form(visit, {})


async def _form(visit: Visit, typed: Mapping[str, str]) -> Response:
    profiles = [profile["name"] for profile in await visit.ask("profile.list")]
    return await visit.page(
        "server_add.html",
        typed={
            "name": "",
            "what": "",
            "env": "",
            "cwd": "",
            "profile": "",
            "document": "",
            **typed,
        },
        profiles=profiles or [visit.powers.default_profile()],
    )


def _typed(request: Request) -> dict[str, str]:
    return {name: values[-1] for name, values in request.form.items()}


async def add(visit: Visit) -> Response:
    """Add a server from a command or a URL."""
    typed = _typed(visit.request)
    try:
        name = typed.get("name", "").strip()
        what = typed.get("what", "").strip()
        if not what:
            raise UsageProblem("A server is a command or a URL.", hint="Write one of them.")
        arguments: dict[str, Any] = {"name": name or _name_of(what)}
        arguments |= _program(what)
        pairs = _pairs(typed.get("env", ""))
        if pairs:
            arguments["headers" if "url" in arguments else "env"] = pairs
        if typed.get("cwd", "").strip():
            arguments["cwd"] = typed["cwd"].strip()
        if typed.get("profile"):
            arguments["profile"] = typed["profile"]
        if sandbox := _sandbox(typed):
            arguments["sandbox"] = sandbox
        await visit.ask("server.add", **arguments)
    except GatewayError as error:
        visit.problem = error
        return await _form(visit, typed)
    name = str(arguments["name"])
    return visit.back(
        address("servers", name), f"{name} is added. It starts at its first use; test it now."
    )


async def add_document(visit: Visit) -> Response:
    """Add every server of a client's configuration."""
    typed = _typed(visit.request)
    try:
        arguments: dict[str, Any] = {"document": typed.get("document", "")}
        if typed.get("profile"):
            arguments["profile"] = typed["profile"]
        arguments["sandbox"] = _sandbox(typed)
        done = await visit.ask("server.import", **arguments)
    except GatewayError as error:
        visit.problem = error
        return await _form(visit, typed)
    parts = [f"Added {', '.join(done['added'])}" if done["added"] else "Nothing new was in it"]
    if done["kept"]:
        parts.append(f"kept {', '.join(done['kept'])} as before")
    if done["this_gateway"]:
        parts.append(f"left out {', '.join(done['this_gateway'])}, which is this gateway")
    parts += [f"{name} was refused: {reason}" for name, reason in done["refused"].items()]
    return visit.back(address("servers"), "; ".join(part.rstrip(".") for part in parts) + ".")


def _sandbox(typed: Mapping[str, str]) -> dict[str, Any] | None:
    """Return the sandbox that a form asks for: `network`, or `alone` without it."""
    wanted = typed.get("sandbox", "")
    if wanted not in SANDBOXES:
        return None
    folders = [line.strip() for line in typed.get("writable", "").splitlines() if line.strip()]
    return {"write": folders, "network": wanted == "network"}


def _program(what: str) -> dict[str, Any]:
    if what.startswith(("http://", "https://")):
        return {"url": what}
    try:
        command, *args = shlex.split(what)
    except ValueError as error:
        raise UsageProblem(
            f"The command cannot be read: {error}.", hint="Close the quotes, as in a shell."
        ) from None
    return {"command": command, "args": args}


def _name_of(what: str) -> str:
    """Return a name for a server that was given none: the last word that says something."""
    words = [word for word in what.replace("/", " ").split() if not word.startswith("-")]
    last = (words or ["server"])[-1].partition("@")[0].partition("?")[0]
    kept = "".join(c if c.isalnum() or c in "_-" else "-" for c in last).strip("-")
    return kept.removeprefix("mcp-server-").removeprefix("server-") or "server"


def _pairs(text: str) -> dict[str, str]:
    found = {}
    for line in filter(str.strip, text.splitlines()):
        name, mark, value = line.partition("=")
        if not mark or not name.strip():
            raise UsageProblem(
                f"{line!r} has no name and value.", hint="Write NAME=VALUE, one a line."
            )
        found[name.strip()] = value.strip()
    return found


# --- changing -----------------------------------------------------------------------------------


async def edit(visit: Visit) -> Response:
    """Change a server: its program, its name, its variables."""
    (name,) = visit.arguments
    typed = _typed(visit.request)
    try:
        changes: dict[str, Any] = {"name": name}
        server = await _server(visit, name)
        old = server["url"] or shlex.join([server["command"], *server["args"]])
        if (what := typed.get("what", "").strip()) and what != old:
            changes |= _program(what)
        if (new_name := typed.get("name", "").strip()) and new_name != name:
            changes["rename"] = new_name
        over_http = "url" in changes or (server["url"] and "command" not in changes)
        pairs: dict[str, str | None] = dict(_pairs(typed.get("env", "")))
        pairs |= dict.fromkeys(visit.request.form.get("forget", ()))
        if pairs:
            changes["headers" if over_http else "env"] = pairs
        if typed.get("cwd", "").strip():
            changes["cwd"] = typed["cwd"].strip()
        for key in ("timeout_s", "idle_stop_s", "max_clients"):
            if key in typed:
                changes[key] = _whole(key, typed[key])
        if typed.get("share"):
            changes["share"] = typed["share"]
        if typed.get("sandbox") and (sandbox := _sandbox(typed)) != server["sandbox"]:
            changes["sandbox"] = sandbox
        await visit.ask("server.edit", **changes)
    except GatewayError as error:
        visit.problem = error
        return await _shown(visit, name, typed=typed)
    return visit.back(
        address("servers", changes.get("rename", name)),
        f"{changes.get('rename', name)} is changed.",
    )


def _whole(key: str, text: str) -> int | None:
    if not text.strip():
        return None
    if (number := whole_number(text)) is None:
        raise UsageProblem(
            f"{key} {text!r} is not a whole number.", hint="Leave it empty for the default."
        )
    return number


async def switch(visit: Visit) -> Response:
    """Turn a server on or off."""
    (name,) = visit.arguments
    active = visit.request.given("active") == "1"
    await visit.ask("server.edit", name=name, active=active)
    return visit.back(address("servers", name), f"{name} is turned {'on' if active else 'off'}.")


@refused_on(show_one)
async def test(visit: Visit) -> Response:
    """Connect to the server once; the connection in use stays."""
    (name,) = visit.arguments
    done = await visit.ask("server.test", name=name)
    said = f"{name} works: {counted(done['tools'], 'tool')}, answered in {duration(done['duration_ms'])}."
    return visit.back(address("servers", name), said)


# --- signing in ---------------------------------------------------------------------------------


@refused_on(show_one)
async def sign_in(visit: Visit) -> Response:
    """Begin a sign-in; the page that follows leads to where the server wants it."""
    (name,) = visit.arguments
    redirect_uri = f"{visit.request.headers['origin']}{address('signed-in')}"
    begun = await visit.ask(
        "server.login",
        name=name,
        redirect_uri=redirect_uri,
        document=visit.powers.client_document,
        scope=None,
    )
    if "login" not in begun:
        return visit.back(address("servers", name), f"Signed in to {name}.")
    url = urlsplit(begun["login"]["url"])
    if url.scheme not in {"http", "https"}:
        raise UsageProblem(
            f"The address to sign in at is not a web page: it begins with {url.scheme}:.",
            hint="Ask whoever runs this server.",
        )
    logins = visit.session.logins
    logins[begun["login"]["state"]] = name, begun["login"]
    for old in list(logins)[:-MOST_LOGINS]:
        del logins[old]
    return await visit.page("sign_in.html", name=name, url=url.geturl(), host=url.netloc)


async def finish_sign_in(visit: Visit) -> Response:
    """Take what the browser was sent back with, once."""
    answer = {key: values[-1] for key, values in visit.request.query.items()}
    found = visit.session.logins.pop(answer.get("state", ""), None)
    if found is None:
        raise UsageProblem(
            "This answer belongs to no sign-in that this browser began.", hint="Begin it again."
        )
    name, login = found
    try:
        done = await visit.ask("server.signed_in", name=name, login=login, answer=answer)
    except GatewayError as error:
        visit.problem = error
        return await _shown(visit, name)
    return visit.back(address("servers", name), f"Signed in to {name} at {done['issuer']}.")


async def sign_out(visit: Visit) -> Response:
    """Forget the tokens of a server."""
    (name,) = visit.arguments
    await visit.ask("server.logout", name=name)
    return visit.back(address("servers", name), f"Signed out of {name}.")


@refused_on(show_one)
async def remove(visit: Visit) -> Response:
    """Remove a server from everywhere, once its name was typed."""
    (name,) = visit.arguments
    visit.confirm(name, "removed")
    await visit.ask("server.remove", name=name)
    return visit.back(address("servers"), f"{name} is removed.")


ROUTES: Final[dict[tuple[str, str], Page]] = {
    ("GET", "servers"): show_all,
    ("GET", "add"): show_form,
    ("POST", "add"): add,
    ("POST", "add/document"): add_document,
    ("GET", "servers/*"): show_one,
    ("POST", "servers/*/edit"): edit,
    ("POST", "servers/*/switch"): switch,
    ("POST", "servers/*/test"): test,
    ("POST", "servers/*/sign-in"): sign_in,
    ("POST", "servers/*/sign-out"): sign_out,
    ("GET", "sign-in"): finish_sign_in,
    ("POST", "servers/*/remove"): remove,
}
