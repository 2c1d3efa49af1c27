"""A folder of a real SFTP server as a place: what it keeps, whom it trusts, and what it says."""

from __future__ import annotations

import os
import socket
import subprocess
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import asyncssh
import pytest

from local_mcp_gateway.backup import StoreError
from local_mcp_gateway.service.object_store import Access, SshFolder
from local_mcp_gateway.service.object_store.sftp import LITESTREAM_ORDER, SftpPlace
from tests.sftp import DYING, NO_LINKS, READ_ONLY, USER, Sftp, make_key


def access(sftp: Sftp) -> Access:
    return Access("x.", "", "", sftp.key, sftp.host_key)


def folder(sftp: Sftp) -> SshFolder:
    return SshFolder(USER, "127.0.0.1", sftp.port, "/elsewhere")


@pytest.fixture
def place(sftp: Sftp) -> SftpPlace:
    return SftpPlace(folder(sftp), access(sftp), 10)


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return the .ssh of an empty home, of which no agent knows."""
    ssh = tmp_path / "home" / ".ssh"
    ssh.mkdir(parents=True)
    monkeypatch.setenv("HOME", str(ssh.parent))
    monkeypatch.delenv("SSH_AUTH_SOCK", raising=False)
    return ssh


def test_what_is_written_is_read_listed_and_removed(place: SftpPlace, sftp: Sftp) -> None:
    with place.connected() as objects:
        assert objects.read("a") is None
        objects.write("a", b"one")
        objects.write("a", b"second")
        assert objects.read("a") == b"second"
        (sftp.folder / "below").mkdir()
        assert objects.sizes() == {"a": 6}
        objects.delete("a")
        objects.delete("a")
        assert objects.sizes() == {}
    assert [file.name for file in sftp.folder.iterdir()] == ["below"]


@pytest.mark.parametrize("kind", [(), (NO_LINKS,)])
def test_of_two_that_create_an_object_one_wins(
    place: SftpPlace, sftp: Sftp, kind: tuple[str, ...]
) -> None:
    sftp.stop()
    sftp.start(*kind)
    with place.connected() as first, place.connected() as second:
        assert first.create("a", b"one")
        assert not second.create("a", b"other")
        assert second.read("a") == b"one"
        assert (first.sizes(), first.unfinished()) == ({"a": 3}, [])


def test_a_server_that_dies_while_an_object_is_created_leaves_none(
    place: SftpPlace, sftp: Sftp
) -> None:
    sftp.stop()
    sftp.start(DYING)
    with place.connected() as objects, pytest.raises(StoreError):
        objects.create("a", b"one")
    sftp.stop()
    sftp.start()
    with place.connected() as objects:
        assert objects.read("a") is None
        assert objects.create("a", b"one")
        assert objects.sizes() == {"a": 3}


def test_a_large_object_goes_up_and_down_piece_by_piece(place: SftpPlace) -> None:
    pieces = [os.urandom(1 << 20) for _ in range(5)] + [b"end"]
    with place.connected() as objects:
        objects.send("large", iter(pieces), 1)
        assert b"".join(objects.pieces("large")) == b"".join(pieces)


def test_nothing_is_left_of_an_object_whose_source_fails(place: SftpPlace, sftp: Sftp) -> None:
    def failing() -> Iterator[bytes]:
        yield b"x" * (1 << 20)
        raise KeyboardInterrupt

    with place.connected() as objects, pytest.raises(KeyboardInterrupt):
        objects.send("large", failing(), 1)
    assert list(sftp.folder.iterdir()) == []


def test_what_a_killed_write_left_is_no_object(place: SftpPlace, sftp: Sftp) -> None:
    (sftp.folder / "a.json.0123.part").touch()
    with place.connected() as objects:
        assert (objects.sizes(), list(objects.unfinished())) == ({}, ["a.json.0123.part"])
        objects.delete("a.json.0123.part")
        assert objects.unfinished() == []


def test_a_folder_that_is_not_there_is_not_made(place: SftpPlace, sftp: Sftp) -> None:
    sftp.folder.rmdir()
    with pytest.raises(StoreError, match=r"The folder /elsewhere does not exist on 127\.0\.0\.1\."):
        refused(place)
    assert not sftp.folder.exists()


def test_a_file_in_the_place_of_the_folder_is_no_folder(place: SftpPlace, sftp: Sftp) -> None:
    sftp.folder.rmdir()
    sftp.folder.touch()
    with pytest.raises(StoreError, match=r"/elsewhere is not a folder on 127\.0\.0\.1\."):
        refused(place)


def test_a_server_that_speaks_something_else_is_told(sftp: Sftp) -> None:
    with socket.create_server(("127.0.0.1", 0)) as web:
        answering = threading.Thread(target=_answer, args=(web,))
        answering.start()
        at = replace(folder(sftp), port=web.getsockname()[1])
        with pytest.raises(StoreError, match=r"127\.0\.0\.1 closed the connection\."):
            refused(SftpPlace(at, access(sftp), 10))
        answering.join()


def _answer(web: socket.socket) -> None:
    with web.accept()[0] as client:
        client.recv(100)
        client.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")


def refused(place: SftpPlace) -> None:
    with place.connected():
        pytest.fail("it was let in")


def test_another_host_key_than_the_known_one_is_refused(sftp: Sftp, tmp_path: Path) -> None:
    other = make_key(tmp_path / "other")
    place = SftpPlace(folder(sftp), replace(access(sftp), ssh_host_key=other), 10)
    with pytest.raises(StoreError, match="shows a key that is not the one known for it") as told:
        refused(place)
    assert "somebody may be in between" in str(told.value.hint)
    with pytest.raises(StoreError, match="not the one known"):
        place.litestream_keys()


def test_known_hosts_says_which_host_key_is_right(sftp: Sftp, home: Path) -> None:
    place = SftpPlace(folder(sftp), replace(access(sftp), ssh_host_key=""), 10)
    with pytest.raises(StoreError, match=r"the key of 127\.0\.0\.1 is not known") as told:
        refused(place)
    assert f"ssh -p {sftp.port} {USER}@127.0.0.1" in str(told.value.hint)
    with pytest.raises(StoreError, match="is not known"):
        place.litestream_keys()
    (home / "known_hosts").write_text(f"[127.0.0.1]:{sftp.port} {sftp.host_key}\n")
    with place.connected() as objects:
        assert objects.sizes() == {}
    assert str(place.litestream_keys()["host-key"]).split()[:2] == sftp.host_key.split()[:2]


def test_a_host_key_that_was_revoked_is_refused(sftp: Sftp, home: Path) -> None:
    line = f"[127.0.0.1]:{sftp.port} {sftp.host_key}\n"
    (home / "known_hosts").write_text(f"{line}@revoked {line}")
    place = SftpPlace(folder(sftp), replace(access(sftp), ssh_host_key=""), 10)
    with pytest.raises(StoreError, match="not the one known"):
        refused(place)
    with pytest.raises(StoreError, match="not the one known"):
        place.litestream_keys()


def test_a_line_of_known_hosts_that_cannot_be_read_is_named(sftp: Sftp, home: Path) -> None:
    (home / "known_hosts").write_text("nonsense\n")
    place = SftpPlace(folder(sftp), replace(access(sftp), ssh_host_key=""), 10)
    with pytest.raises(StoreError, match="Invalid known hosts entry"):
        refused(place)


def test_litestream_gets_the_key_that_it_will_be_shown(sftp: Sftp) -> None:
    """It asks for the kinds of keys in an order of its own."""
    ecdsa = make_key(sftp.keys / "host_ecdsa", "ecdsa")
    sftp.stop()
    sftp.start()
    place = SftpPlace(folder(sftp), access(sftp), 10)
    with place.connected() as objects:
        assert objects.sizes() == {}
    with pytest.raises(StoreError, match="not the one known") as told:
        place.litestream_keys()
    assert "of the kinds ecdsa, rsa, ed25519" in str(told.value.hint)
    both = replace(access(sftp), ssh_host_key=ecdsa)
    assert SftpPlace(folder(sftp), both, 10).litestream_keys() == {
        "key-path": str(sftp.key),
        "host-key": ecdsa.removesuffix(" test"),
    }


def test_a_key_that_the_server_does_not_take_is_refused(sftp: Sftp, tmp_path: Path) -> None:
    make_key(tmp_path / "stranger")
    place = SftpPlace(folder(sftp), replace(access(sftp), ssh_key=tmp_path / "stranger"), 10)
    with pytest.raises(StoreError, match=r"127\.0\.0\.1 does not let ann in with this key\."):
        refused(place)


@pytest.mark.parametrize(
    ("content", "told"),
    [(None, "No such file or directory"), ("nonsense", "Invalid private key"), ("sealed", "ass")],
)
def test_a_key_that_cannot_be_used_is_named(
    sftp: Sftp, tmp_path: Path, content: str | None, told: str
) -> None:
    key = tmp_path / "key"
    if content == "sealed":
        make_key(key, passphrase="secret")
    elif content is not None:
        key.write_text(content)
    place = SftpPlace(folder(sftp), replace(access(sftp), ssh_key=key), 10)
    for use in (lambda: refused(place), place.litestream_keys):
        with pytest.raises(StoreError, match=rf"the key {key} cannot be used: .*{told}"):
            use()


def test_the_key_of_the_home_folder_is_used_where_none_is_set(sftp: Sftp, home: Path) -> None:
    place = SftpPlace(folder(sftp), replace(access(sftp), ssh_key=None), 10)
    with pytest.raises(StoreError, match="there is no key of the user"):
        refused(place)
    make_key(home / "id_ed25519", passphrase="secret")
    sftp.key.rename(home / "id_rsa")
    with place.connected() as objects:
        assert objects.sizes() == {}
    assert place.litestream_keys()["key-path"] == str(home / "id_rsa")


def test_a_key_may_be_in_an_agent_but_not_for_litestream(
    sftp: Sftp, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    socket = str(home / "agent")
    agent = subprocess.Popen(["ssh-agent", "-D", "-a", socket], stdout=subprocess.PIPE, text=True)
    try:
        assert agent.stdout is not None, "it is a pipe"
        agent.stdout.readline()
        monkeypatch.setenv("SSH_AUTH_SOCK", socket)
        sftp.key.chmod(0o600)
        subprocess.run(["ssh-add", "-q", sftp.key], check=True)
        place = SftpPlace(folder(sftp), replace(access(sftp), ssh_key=None), 10)
        with place.connected() as objects:
            assert objects.sizes() == {}
        with pytest.raises(StoreError, match="no key of the user that Litestream can read"):
            place.litestream_keys()
    finally:
        agent.kill()
        agent.communicate()


def test_a_server_that_takes_no_writes_says_so(sftp: Sftp) -> None:
    sftp.stop()
    sftp.start(READ_ONLY)
    with SftpPlace(folder(sftp), access(sftp), 10).connected() as objects:
        for write in (objects.write, objects.create):
            with pytest.raises(StoreError, match=r"127\.0\.0\.1 says: Permission denied\."):
                write("a", b"one")


def test_a_server_that_is_gone_or_does_not_answer_is_told(sftp: Sftp, place: SftpPlace) -> None:
    with SftpPlace(folder(sftp), access(sftp), 0.2).connected() as objects:
        sftp.freeze()
        with pytest.raises(StoreError, match="did not answer in time"):
            objects.sizes()
    sftp.thaw()
    with place.connected() as objects:
        sftp.stop()
        with pytest.raises(StoreError, match=r"\.$"):
            objects.write("a", b"one")
    with pytest.raises(StoreError, match=rf"127\.0\.0\.1:{sftp.port}: Connection refused\."):
        refused(place)
    sftp.start()
    with place.connected() as objects:
        objects.write("a", b"back")
    assert (sftp.folder / "a").read_bytes() == b"back"


def test_the_order_of_litestreams_kinds_is_of_keys_that_are_known_here() -> None:
    assert set(LITESTREAM_ORDER) <= {
        name.decode() for name in asyncssh.public_key.get_public_key_algs()
    } | {"ssh-rsa"}
