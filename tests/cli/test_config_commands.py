"""`config`: settings are shown with their source, checked and imported."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.harness import Finished, Place


def test_every_setting_is_shown_with_where_it_came_from(place: Place) -> None:
    file = place.root / "gateway.toml"
    file.write_text("[gateway]\nport = 4000\n")
    done = place.run("--config", file, "config", "show", "--json", env={"LMG_LOG__LEVEL": "debug"})
    shown = {item["key"]: item for item in done.json()["settings"]}
    assert (shown["gateway.port"]["value"], shown["gateway.port"]["from"]) == (4000, str(file))
    assert shown["log.level"]["from"] == "LMG_LOG__LEVEL"
    assert shown["gateway.host"]["from"] == "default"
    changed = place.run("--config", file, "config", "show", "--changed", bare=True)
    assert "gateway.port" in changed.stdout
    assert "gateway.host" not in changed.stdout


def test_a_file_is_checked_without_being_used(place: Place) -> None:
    file = place.root / "new.toml"
    file.write_text("[gateway]\nport = 4000\n")
    assert place.run("config", "check", file, "--json").json()["set"] == ["gateway.port"]
    file.write_text("[gateway]\nprot = 4000\n")
    done = place.run("config", "check", file)
    assert done.code == 7
    assert "gateway.port" in done.stderr
    file.write_text('[guard.hazards]\nrebuilds = "refuse"\n')
    done = place.run("config", "check", file)
    assert (done.code, "'rebuilds' is unknown" in done.stderr) == (7, True)


def test_a_drizzle_configuration_becomes_ours(place: Place) -> None:
    file = place.root / "drizzle.config.ts"
    file.write_text(
        'import { defineConfig } from "drizzle-kit";\n'
        "export default defineConfig({\n"
        '  dialect: "sqlite", // url: "wrong.db"\n'
        '  schema: "./src/schema.ts",\n'
        "  out: './drizzle',\n"
        '  dbCredentials: { url: "file:./data/app.db" },\n'
        "});\n"
    )
    done = place.run("config", "import", file)
    assert f"[database]\npath = {json.dumps(str(place.root / 'data/app.db'))}" in done.stdout
    assert f"[migrations]\nfolder = {json.dumps(str(place.root / 'drizzle'))}" in done.stdout
    toml = place.root / "gateway.toml"
    toml.write_text(done.stdout)
    assert place.run("config", "check", toml).code == 0


def test_a_setting_is_written_and_everything_else_in_the_file_stays(place: Place) -> None:
    file = place.root / "gateway.toml"
    file.write_text("# mine\n[gateway]  # here\nport = 4000  # odd\n\n[log]\nlevel = 'info'\n")
    for key, value in (
        ("gateway.port", "4001"),
        ("gateway.allowed_hosts", "a.lan, b.lan"),
        ("guard.hazards", '{drops_index = "refuse"}'),
        ("log.payloads", "true"),
    ):
        done = place.run("config", "set", key, value, "--config", file)
        assert done.code == 0, done.stderr
    text = file.read_text()
    assert text.startswith("# mine\n[gateway]  # here\nport = 4001  # odd\n")
    told = place.run("--config", file, "config", "show", "--json").json()["settings"]
    shown = {row["key"]: row["value"] for row in told}
    assert shown["gateway.allowed_hosts"] == ["a.lan", "b.lan"]
    assert shown["guard.hazards"] == {"drops_index": "refuse"}
    assert (shown["log.payloads"], shown["log.level"]) == (True, "info")


@pytest.mark.parametrize(
    ("key", "value", "sentence"),
    [
        ("gateway.prot", "1", "there is no setting `gateway.prot`"),
        ("gateway.port", "many", "`gateway.port` cannot be 'many'"),
        ("gateway.port", "70000", "`gateway.port` cannot be 70000"),
        ("backup.keep_last", "-1", "`backup.keep_last` cannot be negative"),
        ("log.level", "loud", "`log.level` cannot be 'loud'"),
        ("gateway.allowed_hosts", "*.lan", "no request could match it"),
        ("guard.hazards", '{rebuilds = "refuse"}', "'rebuilds' is unknown"),
        ("guard.hazards", '{rebuild = "stop"}', "'stop' is unknown"),
    ],
)
def test_a_bad_value_is_refused_and_the_file_stays(
    place: Place, key: str, value: str, sentence: str
) -> None:
    file = place.root / "gateway.toml"
    file.write_text("[gateway]\nport = 4000\n")
    done = place.run("--config", file, "config", "set", "--", key, value)
    assert done.code == 7
    assert sentence in done.stderr.splitlines()[0]
    assert file.read_text() == "[gateway]\nport = 4000\n"


def test_a_file_is_made_where_there_is_none_and_a_link_stays_one(place: Place) -> None:
    done = place.run("config", "set", "log.level", "debug", bare=True)
    assert done.code == 0, done.stderr
    assert "It takes effect after `reload`." in done.stdout
    file = place.home / ".config" / "local-mcp-gateway" / "gateway.toml"
    assert file.read_text() == '[log]\nlevel = "debug"\n'
    assert place.run("config", "path", bare=True).stdout.strip() == str(file)
    behind = place.root / "dotfiles.toml"
    file.rename(behind)
    file.symlink_to(behind)
    done = place.run("config", "set", "log.level", "info", bare=True)
    assert done.code == 0, done.stderr
    assert file.is_symlink()
    assert behind.read_text() == '[log]\nlevel = "info"\n'


def test_a_file_keeps_its_permissions_and_nothing_is_written_through_a_planted_link(
    place: Place,
) -> None:
    file, other = place.root / "own.toml", place.root / "other"
    file.write_text("")
    file.chmod(0o600)
    other.write_text("theirs")
    (place.root / ".own.toml.new").symlink_to(other)
    done = place.run("config", "set", "gateway.port", "4000", "--config", file)
    assert done.code == 0, done.stderr
    assert other.read_text() == "theirs"
    assert (file.stat().st_mode & 0o777, "4000" in file.read_text()) == (0o600, True)


def test_what_overrides_a_written_setting_is_told(place: Place) -> None:
    done = place.run(
        "config", "set", "gateway.port", "4001", bare=True, env={"LMG_GATEWAY__PORT": "4002"}
    )
    assert done.code == 0
    assert "LMG_GATEWAY__PORT sets it too, and wins." in done.stderr


def edit(place: Place, file: Path, script: str) -> Finished:
    editor = place.root / "editor"
    editor.write_text(f"#!/bin/sh\n{script}\n")
    editor.chmod(0o755)
    return place.run("--config", file, "config", "edit", env={"EDITOR": str(editor)})


def test_an_edited_file_is_checked_before_it_is_written(place: Place) -> None:
    file = place.root / "gateway.toml"
    done = edit(place, file, 'cp "$1" seen; printf \'[gateway]\\nport = 4001\\n\' > "$1"')
    assert done.code == 0, done.stderr
    assert file.read_text() == "[gateway]\nport = 4001\n"
    assert "# port = 3001" in (place.root / "seen").read_text()  # a new file begins with every key
    done = edit(place, file, "printf '[gateway]\\nprot = 4001\\n' > \"$1\"")
    assert done.code == 7
    assert "there is no setting `gateway.prot`" in done.stderr
    assert file.read_text() == "[gateway]\nport = 4001\n"
    done = edit(place, file, 'printf \'[guard.hazards]\\nrebuilds = "refuse"\\n\' > "$1"')
    assert (done.code, "'rebuilds' is unknown" in done.stderr) == (7, True)
    assert file.read_text() == "[gateway]\nport = 4001\n"
    assert "stays as it was" in edit(place, file, ":").stdout
