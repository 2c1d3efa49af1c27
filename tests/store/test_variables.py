"""Variables in a server's definition, as clients spell them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from local_mcp_gateway.errors import UsageProblem
from local_mcp_gateway.store.model import ServerDefinition, ServerKind
from local_mcp_gateway.store.variables import expand_variables, find_variables

COMMAND = ServerDefinition("a", ServerKind.STDIO, command="npx")
URL = ServerDefinition("b", ServerKind.HTTP, url="https://h/mcp")


def argument(text: str, **environment: str) -> str:
    expanded, _ = expand_variables(replace(COMMAND, args=(text,)), environment)
    return expanded.args[0]


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("${TOKEN}", "t"),
        ("x-${env:TOKEN}-${input:TOKEN}", "x-t-t"),
        ("${TOKEN:-other}", "t"),
        ("${NOT_SET:-plan b}", "plan b"),
        ("${NOT_SET:-}", ""),
        ("${secret:TOKEN:-x}", "x"),
        ("$${TOKEN}", "${TOKEN}"),
        ("$TOKEN ${#list[@]} ${x%.*} {TOKEN}", "$TOKEN ${#list[@]} ${x%.*} {TOKEN}"),
        ("${x:1:2} ${x:?not set} ${x:+y}", "${x:1:2} ${x:?not set} ${x:+y}"),
        ("${userHome}/a", f"{Path.home()}/a"),
    ],
)
def test_a_variable_is_replaced_in_the_spellings_of_clients(text: str, value: str) -> None:
    assert argument(text, TOKEN="t") == value


def test_each_text_of_a_definition_may_have_variables() -> None:
    command = replace(COMMAND, command="${P}", cwd="${C}", env={"E": "${V}"}, args=("${E}", "${P}"))
    expanded, used = expand_variables(command, {"P": "npx", "C": "/c", "V": "secret"})
    assert (expanded.command, expanded.cwd, expanded.env) == ("npx", "/c", {"E": "secret"})
    assert expanded.args == ("secret", "npx")  # its own environment first
    assert used == {"npx", "/c", "secret"}
    url = replace(URL, url="https://${H}/mcp", headers={"Authorization": "Bearer ${V}"})
    expanded, _ = expand_variables(url, {"H": "host", "V": "secret"})
    assert (expanded.url, expanded.headers) == (
        "https://host/mcp",
        {"Authorization": "Bearer secret"},
    )


@pytest.mark.parametrize(
    ("env", "expanded"),
    [
        ({"TOKEN": "${input:token}", "token": "t"}, {"TOKEN": "t", "token": "t"}),
        ({"A": "a${B}", "B": "b${C}"}, {"A": "abc", "B": "bc"}),
        ({"PATH": "/x:${PATH}", "P": "${PATH}"}, {"PATH": "/x:/bin", "P": "/x:/bin"}),
    ],
)
def test_a_variable_of_its_environment_may_name_another_one(
    env: dict[str, str], expanded: dict[str, str]
) -> None:
    """As the hint says to a person who imported `"TOKEN": "${input:token}"`: `server edit --env token=…`."""
    given = {"PATH": "/bin", "C": "c"}
    assert expand_variables(replace(COMMAND, env=env), given)[0].env == expanded
    with pytest.raises(UsageProblem, match=r"\$\{A\} of server 'a' is not set"):
        expand_variables(replace(COMMAND, env={"A": "${B}", "B": "${A}"}), {})


def test_a_value_is_not_read_for_variables_again() -> None:
    assert argument("${A}", A="${B}", B="b") == "${B}"


@pytest.mark.parametrize(
    ("server", "hint"),
    [
        (replace(COMMAND, args=("${TOKEN}",)), "`server edit a --env TOKEN=…`"),
        (replace(URL, headers={"A": "${TOKEN}"}), "Set it where the gateway starts, and `reload`."),
        (replace(URL, headers={"A": "${vault:TOKEN}"}), "Set it where"),
    ],
)
def test_a_variable_that_is_not_set_is_named(server: ServerDefinition, hint: str) -> None:
    with pytest.raises(
        UsageProblem, match=r"The variable \$\{(vault:)?TOKEN\} of server"
    ) as raised:
        expand_variables(server, {"TOKEN": "t"} if "vault" in str(server.headers) else {})
    assert hint in raised.value.hint


@pytest.mark.parametrize("value", ["99999", "secret", "80/a b"])
def test_values_that_make_no_url_are_told_without_them(value: str) -> None:
    with pytest.raises(UsageProblem, match="URL http://h:") as raised:
        expand_variables(replace(URL, url="http://h:${PORT}/mcp"), {"PORT": value})
    assert str(raised.value).startswith(
        "The URL http://h:${PORT}/mcp of server 'b', with the values of its variables, has"
    )
    assert value not in raised.value.message


def test_a_definition_without_variables_is_itself() -> None:
    assert expand_variables(COMMAND, {}) == (COMMAND, frozenset())
    assert find_variables(replace(COMMAND, args=("${A}", "$${B}", "${A}"))) == ("${A}",)


def test_a_file_that_is_named_is_read_when_the_server_starts(tmp_path: Path) -> None:
    token = tmp_path / "a token"
    token.write_text("secret\n")
    server = replace(URL, headers={"Authorization": f"Bearer ${{file:{token}}}"})
    assert find_variables(server) == (f"${{file:{token}}}",)
    expanded, used = expand_variables(server, {})
    assert expanded.headers == {"Authorization": "Bearer secret"}
    assert used == {"secret"}
    token.unlink()
    with pytest.raises(UsageProblem, match="a token that server 'b' names cannot be read: No such"):
        expand_variables(server, {})
    nobody = replace(URL, headers={"A": "${file:~no-such-user/token}"})
    with pytest.raises(UsageProblem, match="The file ~no-such-user/token that server 'b' names"):
        expand_variables(nobody, {})


def test_a_place_of_a_kind_that_is_not_known_is_named_and_never_sent() -> None:
    with pytest.raises(UsageProblem, match=r"\$\{vault:kv/data#token\} of server 'a' is not set"):
        argument("${vault:kv/data#token}")
