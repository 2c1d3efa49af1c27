"""Settings are read from every source, and a mistake is named with its source."""

from __future__ import annotations

from pathlib import Path

import pytest

from local_mcp_gateway.config import Settings, load_settings
from local_mcp_gateway.errors import ConfigProblem
from tests.harness import REPOSITORY


def test_later_sources_win_and_each_value_knows_where_it_came_from(tmp_path: Path) -> None:
    file, overlay = tmp_path / "gateway.toml", tmp_path / "gateway.dev.toml"
    file.write_text("[gateway]\nport = 1\nhost = '::1'\n[guard]\nrehearse = 'auto'\n")
    overlay.write_text("[gateway]\nport = 2\n")
    settings = load_settings(
        file,
        dev=True,
        environment={"LMG_GUARD__REHEARSE": "never", "DATABASE_PATH": "/a.db"},
        options={"database.path": "/b.db"},
    )
    assert (settings.gateway.host, settings.gateway.port) == ("::1", 2)
    assert settings.guard.rehearse == "never"
    assert settings.database_path == Path("/b.db")
    assert settings.origins == {
        "gateway.host": str(file),
        "gateway.port": str(overlay),
        "guard.rehearse": "LMG_GUARD__REHEARSE",
        "database.path": "command line",
    }


def test_the_overlay_is_read_in_dev_mode_only_and_beside_the_users_own_file_too(
    tmp_path: Path,
) -> None:
    folder = tmp_path / "local-mcp-gateway"
    folder.mkdir()
    shipped = REPOSITORY / "config" / "gateway.dev.toml"
    (folder / "gateway.dev.toml").write_text(shipped.read_text())
    environment = {"XDG_CONFIG_HOME": str(tmp_path)}
    assert load_settings(environment=environment) == Settings()
    settings = load_settings(dev=True, environment=environment)
    assert settings.gateway.drain_timeout_s == 1.0
    assert set(settings.origins.values()) == {str(folder / "gateway.dev.toml")}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[gateway]\nprot = 1\n", "there is no setting `gateway.prot`"),
        ("[gateway]\nport = 'x'\n", "`gateway.port` cannot be 'x'"),
        ("[gateway]\nport = 70000\n", "`gateway.port` cannot be 70000"),
        ("[gateway]\nport = -1\n", "cannot be negative"),
        ("[guard]\nrehearse = 'sometimes'\n", "`guard.rehearse` cannot be 'sometimes'"),
        ("port = 1\n", "is outside of a section"),
        ("[gateway\n", "is not valid TOML"),
        ("[gateway]\nport = true\n", "`gateway.port` cannot be true"),
    ],
)
def test_a_mistake_in_the_file_is_named(tmp_path: Path, text: str, message: str) -> None:
    file = tmp_path / "gateway.toml"
    file.write_text(text)
    with pytest.raises(ConfigProblem) as problem:
        load_settings(file, environment={})
    assert message in problem.value.message
    assert problem.value.message.startswith((str(file), "The configuration file"))
    assert problem.value.hint


def test_a_config_file_that_was_asked_for_must_exist(tmp_path: Path) -> None:
    with pytest.raises(ConfigProblem, match="does not exist"):
        load_settings(tmp_path / "none.toml", environment={})


def test_text_of_the_environment_becomes_the_type_of_the_key() -> None:
    settings = load_settings(
        environment={
            "LMG_GATEWAY__PORT": "0",
            "LMG_DEV__RELOAD": "false",
            "LMG_GATEWAY__ALLOWED_HOSTS": "a.example, b.example",
            "LMG_UPSTREAM__CALL_TIMEOUT_S": "1.5",
        }
    )
    assert settings.gateway.port == 0
    assert settings.dev.reload is False
    assert settings.gateway.allowed_hosts == ("a.example", "b.example")
    assert settings.upstream.call_timeout_s == 1.5


@pytest.mark.parametrize("text", ['["a.example", "b.example"]', "a.example,b.example"])
def test_a_list_may_be_written_as_it_is_shown(text: str) -> None:
    settings = load_settings(environment={"LMG_GATEWAY__ALLOWED_HOSTS": text})
    assert settings.gateway.allowed_hosts == ("a.example", "b.example")


@pytest.mark.parametrize(
    ("text", "hint"),
    [
        ("[" * 100_000, "Name each one; patterns are not supported."),
        ('["a", 5]', "It takes a list of texts, for example []."),
    ],
    ids=["too deep", "a number"],
)
def test_a_list_that_cannot_be_used_is_refused_with_its_key(text: str, hint: str) -> None:
    with pytest.raises(ConfigProblem, match=r"`gateway\.allowed_hosts` cannot be") as problem:
        load_settings(environment={"LMG_GATEWAY__ALLOWED_HOSTS": text})
    assert problem.value.hint == hint


def test_a_value_of_the_wrong_type_is_told_what_it_takes_in_plain_words() -> None:
    with pytest.raises(ConfigProblem) as problem:
        load_settings(environment={"LMG_DEV__RELOAD": "maybe"})
    assert problem.value.message.endswith("`dev.reload` cannot be 'maybe'.")
    assert problem.value.hint == "It takes true or false, for example true."


@pytest.mark.parametrize(
    ("key", "wrong", "hint"),
    [
        ("host", "localhost:3001", "Write localhost."),
        ("host", "[::1]", "Write ::1."),
        ("allowed_hosts", "http://box.lan:3001/mcp", "Write box.lan."),
        ("allowed_hosts", "box.lan:3001", "Write box.lan."),
        ("allowed_hosts", "[fd00::7]:3001", "Write fd00::7."),
        ("allowed_hosts", "büro.lan", "Write xn--bro-hoa.lan."),
        ("allowed_hosts", "*.corp", "Name each one; patterns are not supported."),
        ("allowed_origins", "app.example", "Write https://app.example."),
        ("allowed_origins", "https://app.example/page", "Write https://app.example."),
        ("allowed_origins", "https://app.example:443", "Write https://app.example."),
        ("allowed_origins", "*", "Name each one; patterns are not supported."),
    ],
)
def test_a_host_or_origin_that_no_request_could_name_is_refused_with_its_right_form(
    key: str, wrong: str, hint: str
) -> None:
    with pytest.raises(ConfigProblem) as problem:
        load_settings(environment={f"LMG_GATEWAY__{key.upper()}": wrong})
    assert f"`gateway.{key}` cannot be {wrong!r}" in problem.value.message
    assert problem.value.hint == hint


def test_hosts_and_origins_that_requests_name_are_taken() -> None:
    hosts = ("box", "box.lan", "my_box.lan", "10.0.0.7", "fd00::7")
    origins = ("http://box.lan:3001", "https://a.example/", "chrome-extension://abc", "null")
    settings = load_settings(
        environment={
            "LMG_GATEWAY__ALLOWED_HOSTS": ",".join(hosts),
            "LMG_GATEWAY__ALLOWED_ORIGINS": ",".join(origins),
            "LMG_GATEWAY__HOST": "::1",
        }
    )
    assert settings.gateway.allowed_hosts == hosts
    assert settings.gateway.allowed_origins == origins
