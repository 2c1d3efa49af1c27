"""`audit`: who did what, to what, and how it ended; by every way in."""

from __future__ import annotations

import json
import sys
import urllib.request
from collections.abc import Callable
from typing import Any

from local_mcp_gateway.formats import now_ms
from local_mcp_gateway.service.admin.rest import token_file
from tests.harness import REPOSITORY, Place, poll

PLAIN = (sys.executable, str(REPOSITORY / "tests" / "gateway" / "servers" / "plain.py"))


def asked(url: str, token: str, body: Any = None, method: str | None = None) -> Any:
    headers = {"Authorization": f"Bearer {token}", "Content-Type": "application/json"}
    data = None if body is None else json.dumps(body).encode()
    with urllib.request.urlopen(
        urllib.request.Request(url, data, headers, method=method), timeout=60
    ) as reply:
        return json.load(reply)


def test_who_called_what_and_who_changed_what_is_told(
    shipped: Place, validate_json: Callable[[str, Any], None]
) -> None:
    secret = "very-secret-value"
    add = ("server", "add", "plain", "--env", f"KEY={secret}", "--", *PLAIN)
    assert shipped.run(*add).code == 0
    assert shipped.run(*add).code == 2
    token = shipped.run("token", "create", "ci").stdout.strip()
    call = {"name": "echo", "arguments": {"a": secret}}
    message = {"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": call}
    with shipped.serve() as gateway:
        url = gateway.wait_ready().url
        assert "result" in asked(f"{url}/mcp", token, message)
        admin = token_file(shipped.database).read_text().strip()
        asked(f"{url}/api/profiles/default", admin, {"description": "d"}, "PATCH")
        assert shipped.run("call", "echo").code == 0
        assert gateway.stop() == 0
        assert shipped.run("secrets", "rotate").code == 0
        told = shipped.run("audit", "--json").json()
    validate_json("audit", told)
    of_guard = [entry for entry in told if entry["who"] == "guard"]
    assert {entry["action"] for entry in of_guard} == {"db.applied"}
    assert of_guard[0]["object"] == "0000_initial"
    told = [entry for entry in told if entry not in of_guard]
    # Calls are written in batches, so not quite in the order of what else happens.
    seen = [(e["who"], e["action"], e["object"], e["outcome"]) for e in told]
    assert (seen[:3], sorted(seen[3:])) == (
        [
            ("command", "server.add", "plain", "ok"),
            ("command", "server.add", "plain", "refused"),
            ("command", "token.create", "ci", "ok"),
        ],
        sorted(
            [
                ("command", "secrets.seal", None, "ok"),
                ("rest", "profile.edit", "default", "ok"),
                ("token ci", "tools/call", "plain/echo", "ok"),
                ("anybody", "tools/call", "plain/echo", "ok"),
            ]
        ),
    )
    assert secret not in str(told)
    assert token not in str(told)
    assert "env.KEY" in told[0]["detail"]
    assert "There is a server 'plain' already" in told[1]["detail"]
    assert shipped.run("audit", "--who", "ci", "--json").json() == [
        entry for entry in told if entry["who"] == "token ci"
    ]
    only = shipped.run("audit", "--action", "server.*", "-n", "1", "--json").json()
    assert only == [told[1]]


def test_the_audit_is_told_over_rest_and_forgets_by_age_alone(shipped: Place) -> None:
    shipped.run("server", "add", "plain", "--", *PLAIN)
    old = now_ms() - 400 * 86_400_000
    shipped.write(
        "INSERT INTO audit_log (at, who, action, outcome) VALUES (?, 'rest', 'old', 'ok')", old
    )
    with shipped.serve() as gateway:
        url = gateway.wait_ready().url
        admin = token_file(shipped.database).read_text().strip()
        told = asked(f"{url}/api/audit", admin)
        assert [e["action"] for e in told if e["who"] == "command"] == ["server.add"]
        poll(lambda: "old" not in [e["action"] for e in asked(f"{url}/api/audit", admin)])


def test_a_setting_that_changed_is_told_by_its_name(shipped: Place) -> None:
    config = shipped.root / "gateway.toml"
    config.write_text("")
    with shipped.serve(options=("--config", str(config), *shipped.options)) as gateway:
        gateway.wait_ready()
        config.write_text('[gateway]\nrequire_token = "always"\n')
        assert shipped.run("reload").code == 0
        told = shipped.run("audit", "--who", "settings", "--json").json()
    assert [(e["action"], e["detail"]) for e in told] == [("reload", "gateway.require_token")]


def test_what_only_looks_is_in_no_audit(shipped: Place) -> None:
    file = shipped.root / "servers.json"
    file.write_text(
        json.dumps({"mcpServers": {"plain": {"command": PLAIN[0], "args": [PLAIN[1]]}}})
    )
    assert shipped.run("server", "import", str(file), "--dry-run").code == 0
    by_command = ("audit", "--who", "command", "--json")
    assert shipped.run(*by_command).json() == []
    assert shipped.run("server", "import", str(file), "--yes").code == 0
    (entry,) = shipped.run(*by_command).json()
    assert (entry["action"], entry["outcome"]) == ("server.import", "ok")
    assert "dry_run" not in (entry["detail"] or "")


def test_what_replaced_or_filled_the_database_is_told(shipped: Place) -> None:
    (seed := shipped.home / "one.sql").write_text("SELECT 1")
    assert shipped.run("server", "add", "plain", "--", *PLAIN).code == 0
    told = []
    for command in (("seed", str(seed)), ("restore", "--yes"), ("reset", "--yes")):
        done = shipped.run("db", *command)
        assert done.code == 0, done.stderr
        entries = shipped.run("audit", "--json").json()
        told.append((entries[-1]["who"], entries[-1]["action"], entries[-1]["outcome"]))
    assert told == [
        ("guard", "db.seeded", "ok"),
        ("guard", "db.restored", "ok"),
        ("guard", "db.reset", "ok"),
    ]
