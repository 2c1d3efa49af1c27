"""A definition says what is wrong with it before it is stored."""

from __future__ import annotations

from dataclasses import replace

import pytest

from local_mcp_gateway.errors import UsageProblem
from local_mcp_gateway.store import ServerDefinition, ServerKind
from local_mcp_gateway.store.model import check_name

STDIO = ServerDefinition("time", ServerKind.STDIO, command="python")
HTTP = ServerDefinition("notes", ServerKind.HTTP, url="https://notes.example/mcp")


@pytest.mark.parametrize("server", [STDIO, HTTP, replace(HTTP, proxy="none", ca="/etc/ca.pem")])
def test_a_server_that_can_work_is_returned_as_it_is(server: ServerDefinition) -> None:
    assert server.checked() is server


@pytest.mark.parametrize(
    ("server", "message"),
    [
        (replace(STDIO, command=None), "The stdio server 'time' has no command."),
        (replace(STDIO, name="a b"), "'a b' cannot be the name of a server."),
        (
            replace(HTTP, url="notes.example"),
            "The URL of server 'notes' is 'notes.example', which is not one of http or https.",
        ),
        (replace(HTTP, url="http://h:99999/mcp"), "which has no port from 1 to 65535."),
        (replace(HTTP, url="http://h:0"), "which has no port from 1 to 65535."),
        (replace(HTTP, url="http://h:${P}x/"), "which has no port from 1 to 65535."),
        (replace(HTTP, url="http:///mcp"), "which has no valid host."),
        (replace(HTTP, url="http://[::1/mcp"), "which has no valid host."),
        (replace(HTTP, url="https://{tenant}/mcp"), "which has no valid host."),
        (replace(HTTP, url="http://h/a b"), "which has a blank or a control character in it."),
        (replace(HTTP, url="ftp://me:hunter2@h/"), "is 'ftp://[redacted]@h/', which"),
        (replace(HTTP, timeout_s=0), "timeout_s of server 'notes' is 0."),
        (replace(STDIO, insecure=True), "is a command and has no proxy, certificates or headers"),
        (replace(HTTP, proxy="notes.example"), "is not the URL of an HTTP proxy"),
        (replace(HTTP, client_headers=("Host",)), "The header 'Host' cannot be taken over"),
    ],
)
def test_a_server_that_cannot_work_says_why_and_what_to_do(
    server: ServerDefinition, message: str
) -> None:
    with pytest.raises(UsageProblem) as problem:
        server.checked()
    assert message in problem.value.message
    assert problem.value.hint


@pytest.mark.parametrize(
    "url",
    [
        *(
            "http://${HOST}:${PORT}/mcp",
            "${URL}",
            "${env:BASE:-http://h}/mcp",
            "http://h:${P:-80}/",
        ),
        *("https://ü.example/mcp", "http://[::1]:3001/mcp", "http://me:pass@h", "http://h?a=${A}"),
    ],
)
def test_a_url_may_have_variables_where_only_the_start_knows_more(url: str) -> None:
    assert replace(HTTP, url=url).checked().url == url


def test_another_program_is_another_server_and_another_secret_is_not() -> None:
    assert replace(STDIO, env={"KEY": "x"}, cwd="/tmp").program == STDIO.program
    assert replace(STDIO, args=("-m", "x")).program != STDIO.program


@pytest.mark.parametrize("name", ["a", "My.server-1_x", "0"])
def test_a_name_may_be_what_a_url_and_a_tool_name_can_hold(name: str) -> None:
    check_name("server", name)


@pytest.mark.parametrize("name", ["", ".a", "-a", "a/b", "ä", "a" * 65])
def test_any_other_name_is_refused(name: str) -> None:
    with pytest.raises(UsageProblem, match="cannot be the name of a profile"):
        check_name("profile", name)
