"""Encrypted on the way out, decrypted on the way in, and counted at both ends."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from pathlib import Path

import pyrage
import pytest

from local_mcp_gateway.backup.copies import Counted, NotDecrypted, decrypt_into, encrypted
from local_mcp_gateway.database import UNWATCHED
from local_mcp_gateway.errors import BackupDamaged
from tests.backup.copying import KEY, RECIPIENTS, a_backup


def sealed(content: bytes) -> list[bytes]:
    whole = pyrage.encrypt(content, RECIPIENTS)
    return [whole[at : at + 1000] for at in range(0, len(whole), 1000)]


def decrypted(tmp_path: Path, pieces: list[bytes], most: int = 10**9) -> tuple[bytes, Counted]:
    target = tmp_path / "plain"
    target.touch()
    counted = decrypt_into(target, pieces, [KEY], most)
    return target.read_bytes(), counted


def test_age_itself_opens_what_is_sent_and_the_counts_are_of_what_is_sent(tmp_path: Path) -> None:
    backup, sent = a_backup(tmp_path, rows=40), Counted()
    whole = b"".join(encrypted(backup, RECIPIENTS, sent, UNWATCHED))
    assert pyrage.decrypt(whole, [KEY]) == backup.path.read_bytes()
    assert (sent.bytes, sent.sha256) == (len(whole), hashlib.sha256(whole).hexdigest())


def test_the_last_piece_is_kept_back_until_the_file_proved_to_be_the_backup(tmp_path: Path) -> None:
    backup = a_backup(tmp_path, rows=40)
    changed = backup._replace(sha256="0" * 64)
    pieces = encrypted(changed, RECIPIENTS, Counted(), UNWATCHED)
    taken: list[bytes] = []
    with pytest.raises(BackupDamaged):
        taken.extend(pieces)
    with pytest.raises((pyrage.DecryptError, OSError)):
        pyrage.decrypt(b"".join(taken), [KEY])


@pytest.mark.parametrize("size", [0, 1, 65536, 65537, 300_000])
def test_what_comes_in_is_written_and_counted(tmp_path: Path, size: int) -> None:
    content = os.urandom(size)
    written, counted = decrypted(tmp_path, sealed(content))
    assert written == content
    assert (counted.bytes, counted.sha256) == (size, hashlib.sha256(content).hexdigest())


@pytest.mark.parametrize("kept", [0, 10, 100, 200, 70_000, 200_000])
def test_what_was_cut_off_anywhere_does_not_decrypt(tmp_path: Path, kept: int) -> None:
    whole = b"".join(sealed(os.urandom(300_000)))
    with pytest.raises(NotDecrypted):
        decrypted(tmp_path, [whole[:kept]])


def test_another_key_is_told_from_damage(tmp_path: Path) -> None:
    other = pyrage.encrypt(b"x" * 100_000, [pyrage.x25519.Identity.generate().to_public()])
    with pytest.raises(NotDecrypted) as told:
        decrypted(tmp_path, [other])
    assert told.value.no_key
    damaged = bytearray(b"".join(sealed(b"x" * 100_000)))
    damaged[50_000] ^= 1
    with pytest.raises(NotDecrypted) as told:
        decrypted(tmp_path, [bytes(damaged)])
    assert not told.value.no_key


def test_more_than_was_promised_is_not_written(tmp_path: Path) -> None:
    with pytest.raises(NotDecrypted):
        decrypted(tmp_path, sealed(os.urandom(500_000)), most=100_000)
    assert (tmp_path / "plain").stat().st_size <= 100_000


def test_an_error_of_the_source_is_the_error(tmp_path: Path) -> None:
    class Cut(Exception):
        pass

    def pieces() -> Iterator[bytes]:
        yield sealed(os.urandom(100_000))[0]
        raise Cut

    (tmp_path / "plain").touch()
    with pytest.raises(Cut):
        decrypt_into(tmp_path / "plain", pieces(), [KEY], 10**9)
