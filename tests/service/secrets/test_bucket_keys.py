"""The keys of a bucket: sealed into a setting by a command, and opened for the store alone."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from local_mcp_gateway.errors import Exit
from tests.harness import Place
from tests.object_store import KEYS
from tests.replicas import Replica, add

TYPED = "".join(f"{value}\n" for value in KEYS.values())
SECRET = KEYS["AWS_SECRET_ACCESS_KEY"]


def sealed(place: Place, section: str = "replica") -> dict[str, str]:
    done = place.run("secrets", "bucket", section, "--json", stdin=TYPED)
    assert done.code == 0, done.stderr
    value: dict[str, str] = done.json()
    return value


def without_keys(replica: Replica) -> dict[str, str]:
    """Return the environment of a gateway that is given no keys."""
    return {name: value for name, value in replica.env.items() if name not in KEYS}


def configured(place: Place, lines: str) -> tuple[str, ...]:
    file = place.root / "gateway.toml"
    file.write_text(lines)
    return (*place.options, "--config", str(file))


def test_a_gateway_opens_the_keys_that_its_configuration_has_sealed(
    shipped: Place, in_bucket: Replica
) -> None:
    printed = shipped.run("secrets", "bucket", "replica", stdin=TYPED)
    assert printed.stdout.startswith('[replica]\nbucket_keys = "lmg-sealed:1:')
    options = configured(shipped, printed.stdout)
    with shipped.serve(env=without_keys(in_bucket), options=options) as gateway:
        gateway.wait_ready()
        pid = gateway.wait_for("replica.started")["pid"]
        assert SECRET not in Path(f"/proc/{pid}/cmdline").read_text()
        add(shipped, "first")
        assert gateway.stop() == 0
        gateway.wait_for("replica.stopped")
    assert in_bucket.rows() == [("first",)]
    assert SECRET not in "".join(gateway.lines)
    kept = [path for path in shipped.root.rglob("*") if path.is_file() and not path.is_symlink()]
    assert [path for path in kept if SECRET.encode() in path.read_bytes()] == []


@pytest.mark.nightly
def test_backups_are_copied_with_keys_that_are_sealed(shipped: Place, in_bucket: Replica) -> None:
    shipped.migrate()
    assert shipped.run("db", "backup", "create").code == 0
    env = {
        "LMG_BACKUP__COPY_TO": in_bucket.url.replace("/gateway", "/copies"),
        "LMG_BACKUP__COPY_ENDPOINT": in_bucket.endpoint,
        "LMG_BACKUP__COPY_RECIPIENTS": shipped.run("db", "backup", "key", "--json").json()[
            "recipient"
        ],
        "LMG_BACKUP__COPY_BUCKET_KEYS": sealed(shipped, "backup")["value"],
    }
    done = shipped.run("db", "backup", "copy", "--json", env=env)
    assert done.code == 0, done.stderr
    assert len(done.json()["copied"]) == 1


def test_the_output_fits_its_schema(
    shipped: Place, validate_json: Callable[[str, Any], None]
) -> None:
    for section in ("replica", "backup"):
        validate_json("secrets-bucket", sealed(shipped, section))


@pytest.mark.parametrize("typed", ["", "only-an-id\n", "two words\nsecret\n"])
def test_what_are_no_keys_is_refused_and_not_repeated(shipped: Place, typed: str) -> None:
    done = shipped.run("secrets", "bucket", "replica", stdin=typed)
    assert done.code == Exit.USAGE
    assert "two words: the key's id and its secret" in done.stderr


@pytest.mark.parametrize(
    ("which", "told"),
    [
        ("plain", "replica.bucket_keys is not sealed"),
        ("of the copies", "The setting replica.bucket_keys does not open"),
        ("without its key", "The setting replica.bucket_keys is sealed with key"),
    ],
)
def test_what_does_not_open_is_said_by_doctor_and_never_shown(
    shipped: Place, in_bucket: Replica, which: str, told: str
) -> None:
    value = SECRET if which == "plain" else sealed(shipped, "backup")["value"]
    if which == "without its key":
        value = sealed(shipped)["value"]
        (shipped.home / ".config" / "local-mcp-gateway.key").unlink()
    env = {**without_keys(in_bucket), "LMG_REPLICA__BUCKET_KEYS": value}
    examined = shipped.run("doctor", env=env)
    assert examined.code == Exit.DIFFERS
    assert told in examined.stdout
    assert SECRET not in examined.stdout + examined.stderr
