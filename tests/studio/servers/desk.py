"""A stdio server of a small shop's desk: tools worth looking at, and hostile words on request.

The tool `hire` adds one more tool, as a server does that was updated; its description, and a line on
stderr, carry a script.
"""

from __future__ import annotations

import base64
import json
import struct
import sys
import zlib
from typing import Any

SCRIPT = "<script>document.title = 'taken'</script><img src=x onerror=\"document.title = 'taken'\">"
PLACE = {
    "type": "object",
    "description": "Where it goes",
    "required": ["city"],
    "properties": {
        "city": {"type": "string", "maxLength": 80},
        "postcode": {"type": "string", "pattern": "^[0-9]{5}$"},
    },
}
TOOLS: list[dict[str, Any]] = [
    {
        "name": "find_orders",
        "description": "Find orders by state, customer or day.\nNewest first; at most `limit`.",
        "inputSchema": {
            "type": "object",
            "required": ["state"],
            "properties": {
                "state": {"enum": ["open", "sent", "returned"], "description": "What they are in"},
                "customer": {"type": "string", "description": "A part of the name"},
                "limit": {"type": "integer", "minimum": 1, "maximum": 100, "default": 20},
                "tags": {"type": "array", "items": {"type": "string"}},
                "paid": {"type": "boolean"},
                "ship_to": PLACE,
            },
        },
    },
    {
        "name": "quote",
        "description": "Work out what sending a parcel costs.",
        "inputSchema": {
            "type": "object",
            "required": ["grams"],
            "properties": {"grams": {"type": "number", "exclusiveMinimum": 0}, "to": PLACE},
        },
    },
    {
        "name": "chart",
        "description": "Draw the sales of a week as an image.",
        "inputSchema": {"type": "object", "properties": {}},
    },
    {
        "name": "hire",
        "description": "Take on somebody new, who brings a tool along.",
        "inputSchema": {"type": "object", "properties": {}},
    },
]
REFUND = {
    "name": "refund",
    "description": f"Pay money back. {SCRIPT}",
    "inputSchema": {
        "type": "object",
        "required": ["order"],
        "properties": {"order": {"type": "integer", "description": SCRIPT}},
    },
}


def picture() -> str:
    """Return a small PNG: seven bars."""
    rows = b"".join(
        b"\0" + bytes(200 if y < 40 - (x // 16) * 5 else 40 for x in range(112)) for y in range(48)
    )

    def chunk(kind: bytes, body: bytes) -> bytes:
        return (
            struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
        )

    head = struct.pack(">IIBBBBB", 112, 48, 8, 0, 0, 0, 0)
    png = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(rows))
    return base64.b64encode(png + chunk(b"IEND", b"")).decode()


def send(message: dict[str, Any]) -> None:
    print(json.dumps({"jsonrpc": "2.0", **message}), flush=True)


def call(name: str, arguments: dict[str, Any]) -> dict[str, Any]:
    if name == "find_orders":
        orders = [{"id": 4, "customer": "Ada Lovelace", "state": arguments.get("state"), "sum": 42}]
        return {
            "content": [{"type": "text", "text": json.dumps({"orders": orders})}],
            "structuredContent": {"orders": orders, "asked": arguments},
        }
    if name == "chart":
        return {
            "content": [
                {"type": "text", "text": "Sales, Monday to Sunday"},
                {"type": "image", "mimeType": "image/png", "data": picture()},
                {
                    "type": "resource_link",
                    "uri": "shop://sales/week",
                    "name": "The week as a table",
                },
            ]
        }
    if name == "hire":
        TOOLS.append(REFUND)
        print(f"hired somebody {SCRIPT}", file=sys.stderr, flush=True)
        send({"method": "notifications/tools/list_changed"})
        return {"content": [{"type": "text", "text": "Welcome."}]}
    if name == "quote" and arguments.get("grams", 0) > 30_000:
        text = "A parcel has 30 kg at most."
        return {"isError": True, "content": [{"type": "text", "text": text}]}
    return {"content": [{"type": "text", "text": "4.90 EUR"}]}


def main() -> None:
    print("desk: 4 tools, price list of November", file=sys.stderr, flush=True)
    for line in sys.stdin:
        message = json.loads(line)
        if "id" not in message:
            continue
        method, params = message.get("method"), message.get("params", {})
        if method == "initialize":
            result: dict[str, Any] = {
                "protocolVersion": params["protocolVersion"],
                "capabilities": {"tools": {"listChanged": True}},
                "serverInfo": {"name": "desk", "version": "1.2"},
            }
        elif method == "tools/list":
            result = {"tools": TOOLS}
        elif method == "tools/call":
            result = call(params["name"], params.get("arguments", {}))
        elif method == "ping":
            result = {}
        else:
            send({"id": message["id"], "error": {"code": -32601, "message": f"no {method}"}})
            continue
        send({"id": message["id"], "result": result})


if __name__ == "__main__":
    main()
