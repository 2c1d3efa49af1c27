"""Pages of the tools: list and call them, and approve those that changed."""

from __future__ import annotations

import json
import time
from typing import TYPE_CHECKING, Any, Final

from local_mcp_gateway.errors import GatewayError, UsageProblem
from local_mcp_gateway.formats import counted
from local_mcp_gateway.studio.http import Response, address
from local_mcp_gateway.studio.render import pretty
from local_mcp_gateway.studio.schema_form import arguments_of, fields_of

if TYPE_CHECKING:
    from collections.abc import Mapping

    from local_mcp_gateway.studio.visit import Page, Visit

LONGEST_TEXT: Final = 100_000
IMAGES: Final = frozenset({"image/png", "image/jpeg", "image/gif", "image/webp"})
"""Images that are shown; an SVG could hold a script, and is offered as text."""


async def show_all(visit: Visit) -> Response:
    """List the tools of every profile, held ones first."""
    tools = await visit.ask("tools")
    held = await _held(visit)
    profile, text = visit.request.asked("profile"), visit.request.asked("text").lower()
    profiles = sorted({tool["profile"] for tool in tools})
    chosen = [
        tool
        for tool in tools
        if profile in ("", tool["profile"])
        and text
        in f"{tool['name']} {tool['server']} {tool['definition'].get('description', '')}".lower()
    ]
    total = sum(len(names) for names in held.values())
    headline = f"{counted(len({(t['server'], t['name']) for t in tools}), 'tool')} can be called"
    if total:
        headline = f"{counted(total, 'tool')} {'waits' if total == 1 else 'wait'} for your approval"
    return await visit.page(
        "tools.html",
        tools=chosen,
        held=held,
        headline=headline if tools or held else "No tools yet",
        profiles=profiles,
        profile=profile,
        text=visit.request.asked("text"),
        any=bool(tools),
    )


async def _held(visit: Visit) -> dict[str, list[str]]:
    servers = (await visit.ask("status"))["servers"]
    return {name: server["held"] for name, server in servers.items() if server["held"]}


# --- calling ------------------------------------------------------------------------------------


async def show_one(visit: Visit) -> Response:
    """Show one tool with its form."""
    return await _shown(visit, await _tool(visit, *visit.arguments), {})


async def call(visit: Visit) -> Response:
    """Call the tool with what the form says, and show the answer next to the form."""
    profile, name = visit.arguments
    tool = await _tool(visit, profile, name)
    shown: dict[str, Any] = {}
    try:
        arguments = arguments_of(tool["definition"].get("inputSchema"), visit.request.form)
        shown["sent"] = arguments
        began = time.perf_counter()
        result = await visit.ask("call", tool=name, profile=profile, arguments=arguments)
        shown |= {"result": result, "parts": _parts(result)}
        shown["took_ms"] = (time.perf_counter() - began) * 1000
    except GatewayError as error:
        visit.problem = error
    typed = {key: values[-1] for key, values in visit.request.form.items()}
    return await _shown(visit, tool, typed, **shown)


async def _tool(visit: Visit, profile: str, name: str) -> dict[str, Any]:
    for tool in await visit.ask("tools", profile=profile):
        if tool["name"] == name:
            found: dict[str, Any] = tool
            return found
    raise UsageProblem(
        f"Profile {profile} shows no tool {name}.", hint="The list of tools has all."
    )


async def _shown(
    visit: Visit, tool: Mapping[str, Any], typed: Mapping[str, str], **shown: Any
) -> Response:
    definition = tool["definition"]
    fields = fields_of(definition.get("inputSchema"))
    as_json = "document" in typed or bool(visit.request.asked("json"))
    return await visit.page(
        "tool.html",
        status=200,  # a call that failed is an answer too
        **{
            "tool": tool,
            "definition": definition,
            "fields": fields,
            "typed": typed,
            "as_json": as_json,
            "example": typed.get("document") or pretty(shown.get("sent") or {}),
            "result": None,
            "parts": [],
            "took_ms": 0.0,
            "sent": None,
            **shown,
        },
    )


def _parts(result: Any) -> list[dict[str, Any]]:
    """Return the parts of an answer as they are shown."""
    content = result.get("content") if isinstance(result, dict) else None
    found: list[dict[str, Any]] = []
    for part in content if isinstance(content, list) else ():
        if not isinstance(part, dict):
            continue
        kind = part.get("type")
        if kind == "text":
            found.append(_text_part(str(part.get("text", ""))))
        elif kind == "image" and part.get("mimeType") in IMAGES:
            data = f"data:{part['mimeType']};base64,{part.get('data', '')}"
            found.append({"kind": "image", "data": data, "type": part["mimeType"]})
        elif kind == "resource_link":
            found.append({"kind": "link", "part": part})
        else:
            found.append({"kind": "json", "value": _shortened(part)})
    return found


def _text_part(text: str) -> dict[str, Any]:
    cut = max(0, len(text) - LONGEST_TEXT)
    try:
        value = json.loads(text) if text.lstrip()[:1] in {"{", "["} and not cut else None
    except (ValueError, RecursionError):
        value = None
    if value is not None:
        return {"kind": "json", "value": value}
    return {"kind": "text", "text": text[:LONGEST_TEXT], "cut": cut}


def _shortened(part: Mapping[str, Any]) -> dict[str, Any]:
    """Return a part without the bytes in it."""
    return {
        key: f"{len(value):,} characters"
        if key in {"data", "blob"} and isinstance(value, str)
        else _shortened(value)
        if isinstance(value, dict)
        else value
        for key, value in part.items()
    }


# --- approvals ----------------------------------------------------------------------------------


async def show_held(visit: Visit) -> Response:
    """Show what is held of a server: approved and offered, side by side."""
    (name,) = visit.arguments
    server = await visit.ask("server.show", name=name)
    held = set((server.get("live") or {}).get("held") or ())
    altered = [
        {
            **entry,
            "held": entry["tool"] in held,
            "seen": json.dumps([entry["tool"], entry["offered"]]),
        }
        for entry in server["altered"]
    ]
    return await visit.page("held.html", name=name, altered=altered)


async def approve(visit: Visit) -> Response:
    """Approve tools as they were shown; refused for one that has changed once more."""
    (name,) = visit.arguments
    chosen = visit.request.form.get("tool", [])
    looked_at: dict[str, Any] = {}
    for text in visit.request.form.get("seen", ()):
        try:
            tool, definition = json.loads(text)
        except (ValueError, TypeError, RecursionError):
            raise UsageProblem(
                "What was shown of a tool cannot be read.", hint="Load the page again."
            ) from None
        if tool in chosen or not chosen:
            looked_at[str(tool)] = definition
    await visit.ask("server.approve", name=name, tools=looked_at)
    said = f"{counted(len(looked_at), 'tool')} of {name} approved: clients see it as it is now."
    return visit.back(address("tools"), said)


ROUTES: Final[dict[tuple[str, str], Page]] = {
    ("GET", "tools"): show_all,
    ("GET", "tools/*/*"): show_one,
    ("POST", "tools/*/*"): call,
    ("GET", "held/*"): show_held,
    ("POST", "held/*"): approve,
}
