"""`config`: settings are shown with their source, checked and imported."""

from __future__ import annotations

import json

from tests.harness import Place


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
