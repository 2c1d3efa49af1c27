"""A stdio server of the handshake era that says what its argument, a JSON object, tells it to say.

`initialize` holds members of that result, `answers` results by method, `able` those for a client that
declares a capability, by its name. With `strict`, a list of capabilities, it refuses a client that has others. A call of
a tool is answered with the params that came; what else it hears goes to stderr, as `heard METHOD PARAMS`.
"""

from __future__ import annotations

import json
import sys
from typing import Any

script: dict[str, Any] = json.loads(sys.argv[1])
answers: dict[str, Any] = script.get("answers", {})


def send(**message: Any) -> None:
    print(json.dumps({"jsonrpc": "2.0", **message}), flush=True)


for line in sys.stdin:
    message = json.loads(line)
    method, params = message.get("method"), message.get("params", {})
    if method == "initialize" and params["capabilities"].keys() - script.get(
        "strict", params["capabilities"]
    ):
        send(id=message["id"], error={"code": -32602, "message": "unknown member"})
    elif method == "initialize":
        for capability, more in script.get("able", {}).items():
            if capability in params["capabilities"]:
                answers |= more
        result = {"protocolVersion": params["protocolVersion"], **script.get("initialize", {})}
        result.setdefault("capabilities", {"tools": {}})
        send(
            id=message["id"], result={"serverInfo": {"name": "scripted", "version": "1"}, **result}
        )
    elif "id" in message and method in answers:
        send(id=message["id"], result=answers[method])
    elif method == "tools/call":
        text = {"type": "text", "text": json.dumps(params)}
        send(id=message["id"], result={"content": [text]})
    elif "id" in message and method is not None:
        send(id=message["id"], error={"code": -32601, "message": f"no {method}"})
    if method not in {"tools/call", "notifications/initialized"} and not str(method).endswith(
        "/list"
    ):
        print(f"heard {method} {json.dumps(params)}", file=sys.stderr, flush=True)
