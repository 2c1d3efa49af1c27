"""`local-mcp-gateway stdio`: the official client over stdio, through the bridge, to the gateway."""

from __future__ import annotations

import asyncio
import io
import json
import os
import subprocess
import sys
import threading
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from mcp import Client, StdioServerParameters

from local_mcp_gateway.gateway.stdio_bridge import Bridge
from tests.gateway.messages import HELLO, META, call
from tests.gateway.support import QUICK, gateway_of, stdio


def bridge(url: str, home: Path) -> list[str]:
    base = url.removesuffix("/mcp")
    return [sys.executable, "-m", "local_mcp_gateway", "stdio", "--url", base]


@pytest.mark.parametrize("mode", ["auto", "legacy"])
async def test_a_client_on_stdio_uses_the_gateway(tmp_path: Path, mode: Any) -> None:
    async with gateway_of(tmp_path, stdio("plain", "plain.py")) as running:
        command, *args = bridge(running.url, tmp_path)
        parameters = StdioServerParameters(command=command, args=args, env={"HOME": str(tmp_path)})
        steps: list[float] = []

        async def progress(progress: float, total: float | None, message: str | None) -> None:
            steps.append(progress)

        async with Client(parameters, mode=mode) as client:
            assert len((await client.list_tools()).tools) == 13
            answer = await client.call_tool("progress", {"a": 1}, progress_callback=progress)
            assert '"a": 1' in str(answer.content)
            assert steps == [1, 2]


async def test_what_was_asked_before_the_end_of_stdin_is_answered(tmp_path: Path) -> None:
    async with gateway_of(tmp_path, stdio("plain", "plain.py")) as running:
        await running.post(call("tools/list"))
        child = await asyncio.create_subprocess_exec(
            *bridge(running.url, tmp_path),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env={**os.environ, "HOME": str(tmp_path)},
        )
        messages = [HELLO, call("tools/call", 2, name="echo", arguments={"x": 1}), call("ping", 3)]
        asked = "".join(json.dumps(message) + "\n" for message in messages) + "no json\n"
        out, _ = await asyncio.wait_for(child.communicate(asked.encode("utf-8-sig")), 30)
        answers = {answer["id"]: answer for answer in map(json.loads, out.splitlines())}
        assert answers[0]["result"]["serverInfo"]["name"] == "local-mcp-gateway"
        assert answers[2]["result"]["content"][0]["text"] == '{"x": 1}'
        assert answers[3]["result"] == {}
        assert answers[None]["error"]["code"] == -32700
        assert child.returncode == 0


async def test_a_batch_on_stdio_is_answered_with_one(tmp_path: Path) -> None:
    async with gateway_of(tmp_path, stdio("plain", "plain.py")) as running:
        child = await asyncio.create_subprocess_exec(
            *bridge(running.url, tmp_path),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env={**os.environ, "HOME": str(tmp_path)},
        )
        hello = {**HELLO, "params": {**HELLO["params"], "protocolVersion": "2025-03-26"}}
        batch = [call("ping", 1), call("tools/call", 2, name="echo", arguments={"x": 1})]
        asked = f"{json.dumps(hello)}\n{json.dumps(batch)}\n"
        out, _ = await asyncio.wait_for(child.communicate(asked.encode()), 30)
        _, answers = (json.loads(line) for line in out.splitlines())
        assert [answer["id"] for answer in answers] == [1, 2]


async def test_a_client_on_stdio_does_not_notice_that_the_gateway_restarted(
    tmp_path: Path,
) -> None:
    async with gateway_of(tmp_path, stdio("plain", "plain.py")) as running:
        command, *args = bridge(running.url, tmp_path)
        parameters = StdioServerParameters(command=command, args=args, env={"HOME": str(tmp_path)})
        async with Client(parameters, mode="legacy") as client:
            await client.list_tools()
            for session in running.gateway.sessions:  # what a restart leaves of them
                running.gateway.sessions.close(session)
            assert '"b": 2' in str((await client.call_tool("echo", {"b": 2})).content)


async def spoken(
    tmp_path: Path, url: str, *lines: bytes, profile: str = "default"
) -> tuple[int | None, dict[Any, Any], str]:
    """Run a bridge over these lines; return its exit code, answers by id, and stderr."""
    child = await asyncio.create_subprocess_exec(
        *bridge(url, tmp_path),
        "--profile",
        profile,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env={**os.environ, "HOME": str(tmp_path)},
    )
    out, err = await asyncio.wait_for(child.communicate(b"\n".join((*lines, b""))), 30)
    answers = {answer["id"]: answer for answer in map(json.loads, out.splitlines())}
    return child.returncode, answers, err.decode()


async def test_a_profile_that_is_not_there_is_answered_and_said(tmp_path: Path) -> None:
    async with gateway_of(tmp_path, stdio("plain", "plain.py")) as running:
        hello = json.dumps(HELLO).encode()
        code, answers, said = await spoken(tmp_path, running.url, hello, profile="nope")
        assert "/mcp/default" in answers[0]["error"]["message"]
        assert (code, "/mcp/default" in said) == (2, True)


async def test_junk_on_stdin_ends_nothing(tmp_path: Path) -> None:
    deep = b"[" * 3_000 + b"]" * 3_000
    async with gateway_of(tmp_path, stdio("plain", "plain.py")) as running:
        code, answers, said = await spoken(
            tmp_path,
            running.url,
            b'{"jsonrpc":"2.0","method":"notifications/cancelled","params":null}',
            json.dumps(HELLO).encode(),
            b'{"jsonrpc":"2.0","id":6,"method":"ping","params":{"a":"\xff"}}',
            b"[" * 200_000,
            b'{"id":{"id":5},"a":\xff}',
            b'{"jsonrpc":"2.0","method":"ping","params":{"id":1,"a":%s},"id" : "dee\\"p"}' % deep,
            json.dumps(call("ping", 8)).encode(),
        )
        for identity in (None, 6, 'dee"p'):
            assert answers[identity]["error"]["code"] == -32700
        assert answers[8]["result"] == {}
        assert (code, said) == (0, "")


async def test_an_error_for_a_request_that_was_not_read_has_its_id(tmp_path: Path) -> None:
    options = replace(QUICK, max_request_bytes=1000)
    async with gateway_of(tmp_path, stdio("plain", "plain.py"), options=options) as running:
        large = call("tools/call", 7, name="echo", arguments={"a": "x" * 2000})
        lines = [json.dumps(message).encode() for message in (HELLO, large)]
        _, answers, _ = await spoken(tmp_path, running.url, *lines)
        assert "too large" in answers[7]["error"]["message"]


async def test_odd_methods_and_versions_end_nothing(tmp_path: Path) -> None:
    meta = {"_meta": META}
    newer = {"_meta": {"io.modelcontextprotocol/protocolVersion": "a\nb"}}
    async with gateway_of(tmp_path, stdio("plain", "plain.py")) as running:
        odd = (
            {"jsonrpc": "2.0", "id": 3, "params": meta},
            {"jsonrpc": "2.0", "method": "a\nb", "params": meta},
            {"jsonrpc": "2.0", "method": "\u20ac", "params": meta},
            {"jsonrpc": "2.0", "id": 4, "method": ["x"], "params": meta},
            {"jsonrpc": "2.0", "id": 5, "method": "\u20ac\n", "params": meta},
            {"jsonrpc": "2.0", "id": 6, "method": "ping", "params": newer},
            call("tools/list", 7, **meta),
        )
        lines = [json.dumps(message).encode() for message in odd]
        code, answers, said = await spoken(tmp_path, running.url, *lines)
        assert "error" in answers[4]
        assert "error" in answers[5]
        assert "error" in answers[6]
        assert "tools" in answers[7]["result"]
        assert (code, said) == (0, "")


async def test_the_event_that_begins_a_stream_is_no_line_on_stdout(tmp_path: Path) -> None:
    """It has an id and no message: clients of 2025-11-25 resume from it."""
    hello = {**HELLO, "params": {**HELLO["params"], "protocolVersion": "2025-11-25"}}
    asked = call("tools/call", 5, name="progress", arguments={}, _meta={"progressToken": 1})
    ready = {"jsonrpc": "2.0", "method": "notifications/initialized"}
    lines = b"".join(json.dumps(message).encode() + b"\n" for message in (hello, ready, asked))
    async with gateway_of(tmp_path, stdio("plain", "plain.py")) as running:
        child = await asyncio.create_subprocess_exec(
            *bridge(running.url, tmp_path), stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )
        printed, _ = await child.communicate(lines)
    assert b"notifications/progress" in printed
    assert all(json.loads(line) for line in printed.decode().rstrip("\n").split("\n"))


@pytest.mark.parametrize(
    ("content", "why"),
    [(None, "No such file or directory"), ("nothing", "the file has no certificate in PEM")],
    ids=["missing", "no certificate"],
)
def test_each_request_is_told_that_the_certificate_cannot_be_used(
    tmp_path: Path, content: str | None, why: str
) -> None:
    file, output = tmp_path / "cert.pem", io.StringIO()
    if content is not None:
        file.write_text(content)
    connecting = Bridge("https://127.0.0.1:1/mcp", output, certificate=file)
    connecting.run(json.dumps(message).encode() for message in (HELLO, call("ping", 3)))
    answers = [json.loads(line) for line in output.getvalue().splitlines()]
    assert sorted(answer["id"] for answer in answers) == [0, 3]
    told = f"The certificate {file} cannot be used: {why}."
    assert all(answer["error"]["message"].startswith(told) for answer in answers)


@pytest.mark.parametrize("stateless", [True, False])
async def test_a_request_that_is_cancelled_at_once_does_not_run_on(
    tmp_path: Path, stateless: bool
) -> None:
    async with gateway_of(tmp_path, stdio("plain", "plain.py")) as running:
        await running.post(call("tools/list"))
        meta = {"_meta": META} if stateless else {}
        messages: list[Any] = [] if stateless else [HELLO]
        for identity in range(1, 9):
            messages.append(
                call("tools/call", identity, name="sleep", arguments={"seconds": 99}, **meta)
            )
            told = {"requestId": identity, **meta}
            messages.append({"jsonrpc": "2.0", "method": "notifications/cancelled", "params": told})
        lines, output = [json.dumps(message).encode() for message in messages], io.StringIO()
        connecting = threading.Thread(
            target=Bridge(running.url, output).run, args=(lines,), daemon=True
        )
        connecting.start()
        await asyncio.to_thread(connecting.join, 30)
        assert not connecting.is_alive()
        answered = [json.loads(line)["id"] for line in output.getvalue().splitlines()]
        assert answered == ([] if stateless else [0])


async def test_what_no_header_can_carry_reaches_the_gateway(tmp_path: Path) -> None:
    async with gateway_of(tmp_path, stdio("plain", "plain.py")) as running:
        await running.post(call("tools/list"))
        named = call("tools/call", 1, name="caf\u00e9 \ud83d", arguments={}, _meta=META)
        lines, output = [named, call("caf\u00e9/\n", 2, _meta=META)], io.StringIO()
        asked = [json.dumps(message).encode() for message in lines]
        await asyncio.to_thread(Bridge(running.url, output).run, asked)
        answers = {a["id"]: a["error"] for a in map(json.loads, output.getvalue().splitlines())}
        assert answers[1]["message"] == "Unknown tool: caf\u00e9 \ufffd"
        assert answers[2]["code"] == -32601
