"""ContextForge, fetched from PyPI, to compare with the gateway: its database is made, with one server in it, before it is measured.

It is measured without tokens and with one public server, which is the least that it can have to do.
"""

from __future__ import annotations

import json
import os
import secrets
import subprocess
import time
import urllib.error
import urllib.request
from contextlib import suppress
from pathlib import Path
from typing import Any

EMAIL = "admin@example.com"
START_S = 120
OPEN = {"AUTH_REQUIRED": "false", "MCP_CLIENT_AUTH_ENABLED": "false"}


def prepared(program: Path, folder: Path, port: int, url: str) -> tuple[list[str], dict[str, str]]:
    """Let it make its database in `folder` and register the server; return how to start it on PORT."""
    folder.mkdir()
    env = {
        **os.environ,
        "HOME": str(folder),
        "DATABASE_URL": f"sqlite:///{folder}/mcp.db",
        "PLATFORM_ADMIN_EMAIL": EMAIL,
        "LOG_LEVEL": "ERROR",
        "SSRF_ALLOW_LOCALHOST": "true",
        "SSRF_ALLOW_PRIVATE_NETWORKS": "true",
        "PASSWORD_CHANGE_ENFORCEMENT_ENABLED": "false",
        "RATE_LIMITING_ENABLED": "false",
    }
    for name in ("JWT_SECRET_KEY", "AUTH_ENCRYPTION_SECRET", "BASIC_AUTH_PASSWORD"):
        env[name] = secrets.token_urlsafe(32)
    env["PLATFORM_ADMIN_PASSWORD"] = f"Aa1!{secrets.token_urlsafe(16)}"
    command = [str(program), "--host", "127.0.0.1", "--port", "PORT"]
    made = [part.replace("PORT", str(port)) for part in command]
    quiet: dict[str, Any] = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    with subprocess.Popen(made, env=env, cwd=folder, **quiet) as process:
        try:
            base = f"http://127.0.0.1:{port}"
            _wait(base, process)
            login = {"email": EMAIL, "password": env["PLATFORM_ADMIN_PASSWORD"]}
            token = _post(f"{base}/auth/email/login", login)["access_token"]
            server = {"name": "x", "url": url, "transport": "STREAMABLEHTTP"}
            _post(f"{base}/gateways", {**server, "visibility": "public"}, token)
        finally:
            process.terminate()
    return command, {**env, **OPEN}


def _wait(base: str, process: subprocess.Popen[bytes]) -> None:
    until = time.monotonic() + START_S
    while time.monotonic() < until and process.poll() is None:
        with suppress(urllib.error.URLError, ConnectionError):
            urllib.request.urlopen(f"{base}/health", timeout=5).close()
            return
        time.sleep(0.2)
    raise RuntimeError(f"{process.args!r} does not start")


def _post(url: str, body: object, token: str = "") -> Any:
    headers = {"Content-Type": "application/json", "Authorization": f"Bearer {token}"}
    request = urllib.request.Request(url, json.dumps(body).encode(), headers)
    with urllib.request.urlopen(request, timeout=30) as reply:
        return json.load(reply)
