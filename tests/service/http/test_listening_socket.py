"""The listening socket, bound for real."""

from __future__ import annotations

import asyncio
import os
import socket
from contextlib import ExitStack

import anyio
import pytest

from local_mcp_gateway.errors import ConfigProblem, Exit, PortInUse
from local_mcp_gateway.service.http import listening_socket
from tests.harness import DEADLINE_S


def test_a_port_in_use_is_refused_and_its_holder_named() -> None:
    with listening_socket.bind("127.0.0.1", 0) as first:
        port = first.getsockname()[1]
        with pytest.raises(PortInUse) as caught:
            listening_socket.bind("127.0.0.1", port)
    assert f"Port {port} on 127.0.0.1 is in use by" in caught.value.message
    assert f"(pid {os.getpid()})" in caught.value.message
    assert caught.value.exit_code is Exit.CONFIG


def test_a_client_that_connects_before_anybody_accepts_waits_instead_of_being_refused() -> None:
    with (
        listening_socket.bind("127.0.0.1", 0) as listener,
        socket.create_connection(listener.getsockname(), timeout=5) as client,
    ):
        client.sendall(b"hello")
        listener.setblocking(True)
        accepted, _ = listener.accept()
        with accepted:
            assert accepted.recv(5) == b"hello"


async def test_new_connections_are_accepted_one_in_a_turn_of_the_event_loop() -> None:
    accepted: list[socket.socket] = []
    with listening_socket.bind("127.0.0.1", 0) as listener, ExitStack() as sockets:
        for _ in range(5):
            sockets.enter_context(socket.create_connection(listener.getsockname(), DEADLINE_S))
        loop = asyncio.get_running_loop()
        acceptor = listening_socket.Acceptor(loop, listener, accepted.append, lambda *_, **__: None)
        acceptor.start()
        with anyio.fail_after(DEADLINE_S):
            while len(accepted) < 5:
                before = len(accepted)
                await asyncio.sleep(0)
                assert len(accepted) <= before + 1
        acceptor.stop()
        for connection in accepted:
            connection.close()


@pytest.mark.parametrize("host", ["127.0.0.300", "no-such-host.invalid"])
def test_an_address_that_is_not_ours_is_a_configuration_problem(host: str) -> None:
    with pytest.raises(ConfigProblem) as caught:
        listening_socket.bind(host, 0)
    assert host in caught.value.message


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "203.0.113.1"])
def test_an_address_that_others_can_reach_is_refused(host: str) -> None:
    with pytest.raises(ConfigProblem, match="listens on loopback only") as caught:
        listening_socket.bind(host, 0)
    assert "ssh" in caught.value.hint


def test_the_url_of_an_ipv6_socket_has_brackets() -> None:
    with listening_socket.bind("::1", 0) as listener:
        assert listening_socket.url_of(listener) == f"http://[::1]:{listener.getsockname()[1]}"


@pytest.mark.parametrize(
    "environment",
    [
        {},
        {"LISTEN_PID": "1", "LISTEN_FDS": "1"},
        {"LISTEN_PID": str(os.getpid()), "LISTEN_FDS": "0"},
    ],
)
def test_sockets_meant_for_another_process_are_not_taken(environment: dict[str, str]) -> None:
    assert listening_socket.inherited(environment) is None
