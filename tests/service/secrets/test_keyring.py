"""The keys that open and seal: of the file, made once, private and durable before it is used, and of the unit's credential."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from local_mcp_gateway.errors import NoSecretsKey, SealedValueProblem
from local_mcp_gateway.service.secrets.keyring import (
    Keyring,
    add_key,
    make_key_file,
    read_key_file,
)
from local_mcp_gateway.service.secrets.private_file import Unusable
from local_mcp_gateway.store.encryption import KEY_BYTES, SealingKey
from tests.harness import clean_environment
from tests.service.secrets.spoilt import SPOILT, spoil

MAKE = """
import sys
from pathlib import Path
from local_mcp_gateway.service.secrets.keyring import Keyring
print("ready", flush=True)
sys.stdin.read()
print(Keyring(Path(sys.argv[1])).sealing_key(set()).id)
"""


def test_a_place_that_was_typed_is_not_guessed_at(path: Path) -> None:
    with pytest.raises(NoSecretsKey, match="No such file or directory"):
        Keyring(path, typed=True).sealing_key(set())
    assert not path.parent.exists()


def test_no_key_takes_the_place_of_one_that_the_database_needs(path: Path) -> None:
    with pytest.raises(SealedValueProblem, match="sealed with key 0123abcd, and there is no"):
        Keyring(path).sealing_key({"0123abcd"})
    assert not path.exists()


def test_the_credential_of_the_unit_opens_and_seals_where_there_is_no_file(
    path: Path, credentials: Path
) -> None:
    make_key_file(credentials, make_folder=False)
    (key,) = read_key_file(credentials)
    credentials.chmod(0o440)
    assert Keyring(path).sealing_key(set()) == key
    assert not path.exists()


def test_the_file_is_newer_than_the_credential_of_a_unit_that_runs(
    path: Path, credentials: Path
) -> None:
    make_key_file(path, make_folder=True)
    credentials.write_bytes(path.read_bytes())
    (old,) = read_key_file(path)
    new = Keyring(path).renew()
    assert Keyring(path).sealing_key(set()) == new
    path.unlink()
    assert Keyring(path).keys().all == (old,)


def test_a_unit_that_found_no_file_has_no_key(path: Path, credentials: Path) -> None:
    credentials.write_text("none")
    assert Keyring(path).keys().all == ()
    key = Keyring(path).sealing_key(set())
    assert isinstance(key, SealingKey)
    assert read_key_file(path) == (key,)


def test_it_is_made_for_its_owner_only_with_its_folders(path: Path) -> None:
    assert make_key_file(path, make_folder=True)
    assert path.stat().st_mode & 0o777 == 0o600
    assert path.parent.stat().st_mode & 0o777 == 0o700
    (key,) = read_key_file(path)
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
    (key,) = read_key_file(path)
    assert said == {f"{key.id}\n"}


def test_one_that_is_there_is_never_replaced(path: Path) -> None:
    make_key_file(path, make_folder=True)
    before = path.read_bytes()
    assert not make_key_file(path, make_folder=True)
    assert path.read_bytes() == before


def test_a_new_key_comes_first_and_the_old_ones_stay(path: Path) -> None:
    make_key_file(path, make_folder=True)
    (old,) = read_key_file(path)
    new = add_key(path, make_folder=True)
    assert read_key_file(path) == (new, old)
    assert path.stat().st_mode & 0o777 == 0o600


def test_a_link_stays_a_link_when_a_key_is_added(path: Path, tmp_path: Path) -> None:
    path.parent.mkdir(parents=True)
    path.symlink_to(tmp_path / "elsewhere.key")
    make_key_file(path, make_folder=True)
    add_key(path, make_folder=True)
    assert path.is_symlink()
    assert len(read_key_file(tmp_path / "elsewhere.key")) == 2


def require_unusable(path: Path, said: str) -> None:
    with pytest.raises(Unusable, match=said) as raised:
        read_key_file(path)
    assert raised.value.hint
    with pytest.raises(SealedValueProblem, match=said):
        Keyring(path).sealing_key(set())
    with pytest.raises(SealedValueProblem, match=said):
        Keyring(path).renew()


@pytest.mark.parametrize("how", SPOILT)
def test_a_file_that_is_not_private_is_told_and_left_as_it_is(path: Path, how: str) -> None:
    make_key_file(path, make_folder=True)
    said = spoil(path, how)
    left = path.lstat()
    require_unusable(path, said)
    assert (path.lstat().st_ino, path.lstat().st_mode) == (left.st_ino, left.st_mode)


DAMAGED: dict[str, tuple[Callable[[bytes], bytes], str]] = {
    "cut off": (lambda content: content[:-9], "line 3 of .*secrets.key is not a key"),
    "empty": (lambda _: b"", "secrets.key holds no key"),
    "no text": (lambda _: b"\xff" * 80, "secrets.key cannot be read"),
}


@pytest.mark.parametrize("how", DAMAGED)
def test_a_file_without_its_keys_is_told_and_left_as_it_is(path: Path, how: str) -> None:
    make_key_file(path, make_folder=True)
    damage, said = DAMAGED[how]
    left = damage(path.read_bytes())
    path.write_bytes(left)
    require_unusable(path, said)
    assert path.read_bytes() == left
