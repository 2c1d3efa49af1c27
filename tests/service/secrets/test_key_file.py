"""The file of the keys: made once, private, on the disk before it is used, and never lost."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from local_mcp_gateway.errors import SealedValueProblem
from local_mcp_gateway.service.secrets import key_file
from local_mcp_gateway.service.secrets.keyring import Keyring
from local_mcp_gateway.service.secrets.private_file import Unusable
from local_mcp_gateway.store.encryption import KEY_BYTES
from tests.harness import clean_environment
from tests.needs import give_away

MAKE = """
import sys
from pathlib import Path
from local_mcp_gateway.service.secrets.keyring import Keyring
print("ready", flush=True)
sys.stdin.read()
print(Keyring(Path(sys.argv[1])).sealing_key(set()).id)
"""


def test_it_is_made_for_its_owner_only_with_its_folders(path: Path) -> None:
    assert key_file.make(path, make_folder=True)
    assert path.stat().st_mode & 0o777 == 0o600
    assert path.parent.stat().st_mode & 0o777 == 0o700
    (key,) = key_file.read(path)
    assert len(key.raw) == KEY_BYTES
    assert [file.name for file in path.parent.iterdir()] == ["secrets.key"]


def test_commands_that_make_it_at_the_same_time_agree_on_one_key(path: Path) -> None:
    makers = [
        subprocess.Popen(
            [sys.executable, "-c", MAKE, str(path)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=clean_environment(path.parent),
        )
        for _ in range(5)
    ]
    for maker in makers:
        assert maker.stdout is not None
        assert maker.stdout.readline() == "ready\n"
    for maker in makers:  # a pipe that is closed lets it go
        assert maker.stdin is not None
        maker.stdin.close()
        maker.stdin = None
    said = {maker.communicate(timeout=60)[0] for maker in makers}
    (key,) = key_file.read(path)
    assert said == {f"{key.id}\n"}


def test_one_that_is_there_is_never_replaced(path: Path) -> None:
    key_file.make(path, make_folder=True)
    before = path.read_bytes()
    assert not key_file.make(path, make_folder=True)
    assert path.read_bytes() == before


def test_a_new_key_comes_first_and_the_old_ones_stay(path: Path) -> None:
    key_file.make(path, make_folder=True)
    (old,) = key_file.read(path)
    new = key_file.renew(path, make_folder=True)
    assert key_file.read(path) == (new, old)
    assert path.stat().st_mode & 0o777 == 0o600


def test_a_link_stays_a_link_when_a_key_is_added(path: Path, tmp_path: Path) -> None:
    path.parent.mkdir(parents=True)
    path.symlink_to(tmp_path / "elsewhere.key")
    key_file.make(path, make_folder=True)
    key_file.renew(path, make_folder=True)
    assert path.is_symlink()
    assert len(key_file.read(tmp_path / "elsewhere.key")) == 2


def spoil(path: Path, how: str) -> None:
    key_file.make(path, make_folder=True)
    match how:
        case "open to others":
            path.chmod(0o644)
        case "of another user":
            give_away(path)
        case "a pipe":
            path.unlink()
            os.mkfifo(path, 0o600)
        case "a folder":
            path.unlink()
            path.mkdir(0o700)
        case "cut off":
            path.write_bytes(path.read_bytes()[:-9])
        case "empty":
            path.write_bytes(b"")
        case "no text":
            path.write_bytes(b"\xff" * 80)


SPOILT = {
    "open to others": "other users can read .*secrets.key",
    "of another user": "secrets.key belongs to another user",
    "a pipe": "secrets.key is a (named pipe|folder), not a file",
    "a folder": "secrets.key is a (named pipe|folder), not a file",
    "cut off": "line 3 of .*secrets.key is not a key",
    "empty": "secrets.key holds no key",
    "no text": "secrets.key cannot be read",
}


@pytest.mark.parametrize("how", SPOILT)
def test_what_cannot_be_used_is_said_and_left_as_it_is(path: Path, how: str) -> None:
    spoil(path, how)
    with pytest.raises(Unusable, match=SPOILT[how]) as raised:
        key_file.read(path)
    assert raised.value.hint
    with pytest.raises(SealedValueProblem, match=SPOILT[how]):
        Keyring(path).sealing_key(set())
    with pytest.raises(SealedValueProblem, match=SPOILT[how]):
        Keyring(path).renew()
