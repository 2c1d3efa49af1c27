"""The keys that open and seal: of the file and of the unit's credential."""

from __future__ import annotations

from pathlib import Path

import pytest

from local_mcp_gateway.errors import NoSecretsKey, SealedValueProblem
from local_mcp_gateway.service.secrets import key_file
from local_mcp_gateway.service.secrets.keyring import Keyring
from local_mcp_gateway.store.encryption import SealingKey


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
    key_file.make(credentials, make_folder=False)
    (key,) = key_file.read(credentials)
    credentials.chmod(0o440)
    assert Keyring(path).sealing_key(set()) == key
    assert not path.exists()


def test_the_file_is_newer_than_the_credential_of_a_unit_that_runs(
    path: Path, credentials: Path
) -> None:
    key_file.make(path, make_folder=True)
    credentials.write_bytes(path.read_bytes())
    (old,) = key_file.read(path)
    new = Keyring(path).renew()
    assert Keyring(path).sealing_key(set()) == new
    path.unlink()
    assert Keyring(path).keys().all == (old,)


def test_a_unit_that_found_no_file_has_no_key(path: Path, credentials: Path) -> None:
    credentials.write_text("none")
    assert Keyring(path).keys().all == ()
    key = Keyring(path).sealing_key(set())
    assert isinstance(key, SealingKey)
    assert key_file.read(path) == (key,)
