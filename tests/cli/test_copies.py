"""`db backup copy`, `copies` and `key`, and `db restore --from`: backups off this machine and back."""

from __future__ import annotations

import json
import shutil
import signal
import sqlite3
import subprocess
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyrage
import pytest

from tests.cli.kept import backups
from tests.harness import DEADLINE_S, Finished, Place, clean_environment, new_place
from tests.object_store import KEYS, S3, Line, line_to
from tests.sftp import READ_ONLY, Sftp

Said = Callable[[str, Any], None]


@dataclass(frozen=True)
class Away:
    """A place whose backups go to a URL, and the environment that says so."""

    place: Place
    env: dict[str, str]
    url: str

    def run(self, *arguments: str | Path, **also: str) -> Finished:
        return self.place.run(*arguments, env={**self.env, **also})

    def copies(self) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = self.run("db", "backup", "copies", "--json").json()["copies"]
        return found


def away(place: Place, url: str, **env: str) -> Away:
    public = place.run("db", "backup", "key", "--json").json()["recipient"]
    settings = {"LMG_BACKUP__COPY_TO": url, "LMG_BACKUP__COPY_RECIPIENTS": public}
    return Away(place, {**settings, **env}, url)


@pytest.fixture
def disk(tmp_path: Path) -> Path:
    folder = tmp_path / "other disk"
    folder.mkdir()
    return folder


@pytest.fixture
def folder(kept: Place, disk: Path) -> Away:
    return away(kept, f"file://{disk}".replace(" ", "%20"))


def in_s3(place: Place, endpoint: str) -> Away:
    return away(place, "s3://bucket/gateway", LMG_BACKUP__COPY_ENDPOINT=endpoint, **KEYS)


@pytest.fixture
def in_sftp(kept: Place, sftp: Sftp) -> Away:
    keys = {"KEY": str(sftp.key), "HOST_KEY": sftp.host_key}
    env = {f"LMG_BACKUP__COPY_SSH_{name}": value for name, value in keys.items()}
    return away(kept, sftp.url, **env)


@pytest.fixture(
    params=[
        "folder",
        pytest.param("s3", marks=pytest.mark.nightly),
        pytest.param("in_sftp", marks=pytest.mark.nightly),
    ]
)
def either(request: pytest.FixtureRequest, kept: Place) -> Away:
    if request.param == "s3":
        return in_s3(kept, request.getfixturevalue("s3").endpoint)
    found: Away = request.getfixturevalue(request.param)
    return found


@pytest.fixture
def line(s3: S3) -> Iterator[Line]:
    with line_to(s3.port) as whole:
        yield whole


def large(place: Place) -> None:
    """Make the next backup one of several parts."""
    place.write("INSERT INTO notes (id, text) SELECT 100, hex(randomblob(12000000))")
    assert place.run("db", "backup", "create").code == 0


def notes(place: Place) -> list[tuple[Any, ...]]:
    return place.query("SELECT id, text FROM notes ORDER BY id")


def test_a_backup_is_copied_and_comes_back_on_a_machine_that_has_nothing(
    either: Away, tmp_path: Path
) -> None:
    assert either.run("db", "backup", "create").code == 0
    done = either.run("db", "backup", "copy")
    assert done.code == 0, done.stderr
    assert done.stdout.count("copied  ") == 2
    key = shutil.copy(either.place.home / ".config" / "local-mcp-gateway-copies.key", tmp_path)
    shutil.rmtree(either.place.database.parent)
    other = new_place(tmp_path / "other")
    shutil.copytree(either.place.folder.path, other.folder.path, dirs_exist_ok=True)
    env = {k: v for k, v in either.env.items() if k != "LMG_BACKUP__COPY_TO"}
    back = other.run("db", "restore", "--copy-from", either.url, "--key", key, "--yes", env=env)
    assert back.code == 0, back.stderr
    assert notes(other) == [(1, "kept")]
    assert other.run("db", "status").code == 0
    assert "restored" in other.run("db", "history").stdout
    assert not list((other.database.parent / "backups").glob(".*")), "what was fetched is gone"


def test_nothing_there_can_be_read_without_the_key(either: Away, disk: Path) -> None:
    either.place.write("INSERT INTO notes (id, text) VALUES (2, 'a word that nobody may read')")
    either.run("db", "backup", "create")
    assert either.run("db", "backup", "copy").code == 0
    copies = either.copies()
    assert len(copies) == 2
    for copy in copies:
        assert copy["copy_bytes"] > copy["bytes"]
    for file in disk.iterdir():
        assert b"nobody may read" not in file.read_bytes()


def test_what_is_copied_is_not_sent_again(either: Away) -> None:
    first = either.run("db", "backup", "copy", "--json").json()
    assert [copy["name"] for copy in first["copied"]] == [backups(either.place)[0]["name"]]
    again = either.run("db", "backup", "copy", "--json").json()
    assert (again["copied"], again["kept"]) == ([], 1)


def test_the_list_shows_which_backups_are_off_the_machine(either: Away) -> None:
    either.run("db", "backup", "copy")
    either.run("db", "backup", "create")
    newest, oldest = either.run("db", "backup", "list", "--json").json()["backups"]
    assert newest["copied_at"] is None
    assert oldest["copied_at"] is not None


def test_a_copy_that_somebody_removed_is_sent_again(folder: Away, disk: Path) -> None:
    folder.run("db", "backup", "copy")
    for file in disk.iterdir():
        file.unlink()
    assert len(folder.run("db", "backup", "copy", "--json").json()["copied"]) == 1


def test_copies_follow_the_retention_of_the_backups(either: Away) -> None:
    env = {"LMG_BACKUP__KEEP_LAST": "1", "LMG_BACKUP__KEEP_DAILY_DAYS": "0"}
    for number in range(2, 5):
        either.place.write(f"INSERT INTO notes (id, text) VALUES ({number}, 'x')")
        either.run("db", "backup", "create")
    assert len(either.run("db", "backup", "copy", "--json", **env).json()["copied"]) == 4
    assert len(either.copies()) == 4, "what this machine keeps stays there too"
    either.run("db", "backup", "prune", "--yes", **env)
    done = either.run("db", "backup", "copy", "--json", **env).json()
    assert len(done["removed"]) == 2
    here = [backup["name"] for backup in backups(either.place)]
    assert [copy["name"] for copy in either.copies()] == here


def test_copies_outlive_the_folder_that_they_were_made_of(either: Away) -> None:
    either.run("db", "backup", "copy")
    shutil.rmtree(either.place.database.parent / "backups")
    either.run("db", "backup", "create")
    assert either.run("db", "backup", "copy").code == 0
    assert len(either.copies()) == 2


def test_two_machines_share_a_place_and_leave_each_other_alone(
    either: Away, tmp_path: Path
) -> None:
    either.run("db", "backup", "copy")
    other = Away(either.place.copy(tmp_path / "other"), either.env, either.url)
    shutil.rmtree(other.place.database.parent / "backups")
    other.place.write("INSERT INTO notes (id, text) VALUES (9, 'of the other')")
    other.run("db", "backup", "create")
    env = {"LMG_BACKUP__KEEP_LAST": "1", "LMG_BACKUP__KEEP_DAILY_DAYS": "0"}
    assert other.run("db", "backup", "copy", **env).code == 0
    assert len(either.copies()) == 2
    third = new_place(tmp_path / "third").run(
        "db", "restore", "--copy-from", either.url, "--key",
        either.place.home / ".config" / "local-mcp-gateway-copies.key", "--yes", env=either.env,
    )  # fmt: skip
    assert third.code == 2
    assert "several databases" in third.stderr
    mine = either.run("db", "restore", "--copy-from", either.url, "--yes")
    assert mine.code == 0, mine.stderr
    assert notes(either.place) == [(1, "kept")]


def test_a_restore_from_away_keeps_the_replaced_file_and_shows_what_is_lost(either: Away) -> None:
    either.run("db", "backup", "create")
    either.run("db", "backup", "copy")
    either.place.write("INSERT INTO notes (id, text) VALUES (2, 'since')")
    refused = either.run("db", "restore", "--copy-from", either.url)
    assert refused.code == 2
    assert "notes: 1 row gone" in refused.stderr
    done = either.run("db", "restore", "--copy-from", either.url, "--yes", "--json").json()
    assert done["restored"]["path"].startswith(either.url)
    with closing(sqlite3.connect(done["replaced"])) as aside:
        assert aside.execute("SELECT count(*) FROM notes").fetchone() == (2,)
    assert notes(either.place) == [(1, "kept")]


def test_the_outputs_fit_their_schemas(folder: Away, validate_json: Said) -> None:
    validate_json("db-backup-key", folder.run("db", "backup", "key", "--json").json())
    validate_json("db-backup-copy", folder.run("db", "backup", "copy", "--json").json())
    validate_json("db-backup-copies", folder.run("db", "backup", "copies", "--json").json())
    validate_json("db-backup-list", folder.run("db", "backup", "list", "--json").json())
    restored = folder.run("db", "restore", "--copy-from", folder.url, "--yes", "--json").json()
    validate_json("db-restore", restored)


# --- keys ---------------------------------------------------------------------------------------


def test_the_key_is_made_once_and_only_its_owner_may_read_it(place: Place) -> None:
    made = place.run("db", "backup", "key", "--json").json()
    again = place.run("db", "backup", "key", "--json").json()
    assert (made["created"], again["created"]) == (True, False)
    assert made["recipient"] == again["recipient"]
    file = Path(made["file"])
    assert file.stat().st_mode & 0o777 == 0o600
    assert made["recipient"] in file.read_text()


def test_nothing_is_sent_without_a_key_to_encrypt_to(folder: Away, disk: Path) -> None:
    done = folder.run("db", "backup", "copy", LMG_BACKUP__COPY_RECIPIENTS="")
    assert done.code == 7
    assert "only made encrypted" in done.stderr
    assert list(disk.iterdir()) == []


def test_a_secret_key_as_recipient_is_refused_and_not_repeated(folder: Away) -> None:
    secret = str(pyrage.x25519.Identity.generate())
    done = folder.run("db", "backup", "copy", "--json", LMG_BACKUP__COPY_RECIPIENTS=secret)
    assert done.code == 7
    assert secret not in done.stdout + done.stderr


def test_a_restore_without_the_key_says_so_before_it_fetches(folder: Away) -> None:
    folder.run("db", "backup", "copy")
    (folder.place.home / ".config" / "local-mcp-gateway-copies.key").unlink()
    done = folder.run("db", "restore", "--copy-from", folder.url, "--yes")
    assert done.code == 7
    assert "The key that opens the copies is not here" in done.stderr
    assert "--key FILE" in done.stderr


def test_another_key_does_not_open_a_copy_and_changes_nothing(either: Away, tmp_path: Path) -> None:
    either.run("db", "backup", "copy")
    other = tmp_path / "other.key"
    other.write_text(str(pyrage.x25519.Identity.generate()))
    before = either.place.content()
    done = either.run("db", "restore", "--copy-from", either.url, "--key", other, "--yes")
    assert done.code == 7
    assert "does not open the copy" in done.stderr
    assert either.place.content() == before


def test_a_copy_is_for_each_of_several_keys(kept: Place, disk: Path, tmp_path: Path) -> None:
    two = [pyrage.x25519.Identity.generate() for _ in range(2)]
    env = {
        "LMG_BACKUP__COPY_TO": f"file://{disk}",
        "LMG_BACKUP__COPY_RECIPIENTS": ",".join(str(one.to_public()) for one in two),
    }
    both = Away(kept, env, f"file://{disk}")
    assert both.run("db", "backup", "copy").code == 0
    for number, one in enumerate(two):
        key = tmp_path / f"{number}.key"
        key.write_text(f"# a comment\n{one}\n")
        assert both.run("db", "restore", "--copy-from", both.url, "--key", key, "--yes").code == 0


@pytest.mark.parametrize("content", ["", "no key\n", "AGE-SECRET-KEY-1\n", "\x00\xff"])
def test_a_file_without_a_key_is_named(folder: Away, tmp_path: Path, content: str) -> None:
    folder.run("db", "backup", "copy")
    file = tmp_path / "bad.key"
    file.write_text(content)
    done = folder.run("db", "restore", "--copy-from", folder.url, "--key", file, "--yes")
    assert done.code == 7
    assert f"{file} is not a file of age keys" in done.stderr


# --- what goes wrong there ----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("url", "code"),
    [("ftp://host/x", 7), ("s3://", 7), ("file://host/x", 7), ("backups", 7),
     ("s3://key:secret@bucket/x", 7), ("file:///nowhere/at/all", 9)],
)  # fmt: skip
def test_a_url_that_is_no_place_is_named(folder: Away, url: str, code: int) -> None:
    done = folder.run("db", "backup", "copy", LMG_BACKUP__COPY_TO=url)
    assert done.code == code
    assert "Traceback" not in done.stderr
    assert "secret" not in done.stderr


def test_a_disk_that_is_not_mounted_is_not_written_in_its_place(folder: Away, disk: Path) -> None:
    disk.rmdir()
    done = folder.run("db", "backup", "copy")
    assert done.code == 9
    assert not disk.exists()
    assert "not mounted" in done.stderr


def test_without_a_place_it_says_which_setting_names_one(kept: Place) -> None:
    done = kept.run("db", "backup", "copy")
    assert done.code == 7
    assert "copy_to" in done.stderr


def test_a_bucket_that_is_not_there_is_named(kept: Place, s3: S3) -> None:
    absent = {**in_s3(kept, s3.endpoint).env, "LMG_BACKUP__COPY_TO": "s3://absent/x"}
    done = kept.run("db", "backup", "copy", env=absent)
    assert done.code == 9
    assert "NoSuchBucket" in done.stderr
    assert "Create the bucket" in done.stderr


def test_wrong_keys_are_said_to_be_wrong_and_never_shown(kept: Place, s3: S3) -> None:
    there = in_s3(kept, s3.endpoint)
    s3.check_keys()
    done = there.run("--log-level", "debug", "db", "backup", "copy")
    s3.reset()
    assert done.code == 9
    assert "InvalidAccessKeyId" in done.stderr
    assert "AWS_SECRET_ACCESS_KEY" in done.stderr
    assert KEYS["AWS_SECRET_ACCESS_KEY"] not in done.stderr + done.stdout
    record = (kept.database.parent / "backups" / "gateway-copies.json").read_text()
    assert KEYS["AWS_SECRET_ACCESS_KEY"] not in record


def test_the_keys_may_come_from_credentials_of_the_unit(
    kept: Place, s3: S3, tmp_path: Path
) -> None:
    there = in_s3(kept, s3.endpoint)
    for name, value in zip(("access-key-id", "secret-access-key"), KEYS.values(), strict=True):
        (tmp_path / f"backup-{name}").write_text(value + "\n")
    env = {name: value for name, value in there.env.items() if name not in KEYS}
    done = kept.run("db", "backup", "copy", env={**env, "CREDENTIALS_DIRECTORY": str(tmp_path)})
    assert done.code == 0, done.stderr


def test_a_network_that_is_cut_midway_leaves_no_copy_and_the_next_run_makes_one(
    kept: Place, s3: S3, line: Line
) -> None:
    there = in_s3(kept, line.endpoint)
    large(kept)
    line.stop_after(10_000_000, cuts=True)
    done = there.run("db", "backup", "copy")
    assert done.code == 9
    assert "Traceback" not in done.stderr
    assert line.reached.is_set()
    line.mend()
    assert not any(
        name.endswith(".age") and size > 20_000_000 for name, size in s3.objects("bucket").items()
    )
    assert there.copies() == []
    findings = there.run("doctor", "--json").json()["findings"]
    assert next(f["state"] for f in findings if f["check"] == "copies") == "problem"
    assert there.run("db", "backup", "copy").code == 0
    assert len(there.copies()) == 2
    assert there.run("db", "backup", "copies", "--check").code == 0


def test_a_copy_killed_midway_is_never_taken_for_whole(kept: Place, s3: S3, line: Line) -> None:
    there = in_s3(kept, line.endpoint)
    large(kept)
    line.stop_after(10_000_000, cuts=False)
    process = copying(there)
    assert line.reached.wait(DEADLINE_S)
    process.kill()
    process.wait()
    line.mend()
    assert there.copies() == []
    assert there.run("db", "backup", "copy").code == 0
    assert [copy["name"] for copy in there.copies()] == [b["name"] for b in backups(kept)]
    assert there.run("db", "backup", "copies", "--check").code == 0
    assert there.run("db", "restore", "--copy-from", there.url, "--yes").code == 0
    assert len(notes(kept)) == 2


def copying(there: Away) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [*there.place.command, *there.place.options, "db", "backup", "copy"],
        env=clean_environment(there.place.home, **there.env),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )


def test_a_stop_does_not_wait_for_a_store_that_stands_still(kept: Place, line: Line) -> None:
    there = in_s3(kept, line.endpoint)
    line.stop_after(0, cuts=False)
    process = copying(there)
    assert line.reached.wait(DEADLINE_S)
    process.send_signal(signal.SIGTERM)
    assert process.wait(20) == 0
    line.mend()


@pytest.mark.parametrize("state", ["object", "manifest", "both"])
def test_what_a_kill_left_is_removed_by_the_next_run(folder: Away, disk: Path, state: str) -> None:
    folder.run("db", "backup", "copy")
    (manifest,) = disk.glob("*.json")
    (sealed,) = disk.glob("*.age")
    if state in {"object", "both"}:
        shutil.copy(sealed, sealed.with_name(sealed.name.replace(sealed.suffixes[-2], ".0000.age")))
    if state in {"manifest", "both"}:
        sealed.with_name(f"{sealed.name}#1").write_bytes(b"half")
    if state == "both":
        manifest.unlink()
    assert folder.run("db", "backup", "copy").code == 0
    assert len(list(disk.iterdir())) == 2
    assert folder.run("db", "backup", "copies", "--check").code == 0


def damaged(content: bytes, harm: str) -> bytes:
    at = len(content) // 2 if harm == "in the middle" else 60
    if harm == "cut off":
        return content[:-100]
    return content[:at] + bytes([content[at] ^ 1]) + content[at + 1 :]


@pytest.mark.parametrize("harm", ["in the middle", "in the header", "cut off"])
def test_a_copy_that_was_damaged_there_is_refused_and_named(kept: Place, s3: S3, harm: str) -> None:
    there = in_s3(kept, s3.endpoint)
    there.run("db", "backup", "copy")
    (name,) = [name for name in s3.objects("bucket") if name.endswith(".age")]
    s3.write("bucket", name, damaged(s3.read("bucket", name), harm))
    before = kept.content()
    done = there.run("db", "restore", "--copy-from", there.url, backups(kept)[0]["name"], "--yes")
    assert done.code == (8 if harm == "cut off" else 6), done.stderr
    assert kept.content() == before
    checked = there.run("db", "backup", "copies", "--check", "--json")
    assert checked.code == 6
    found = checked.json()
    assert len(found["unusable"]) == (harm == "cut off")
    assert [bool(copy["problem"]) for copy in found["copies"]] == [True] * (harm != "cut off")


def test_a_copy_of_another_content_than_its_manifest_says_is_refused(
    folder: Away, disk: Path
) -> None:
    folder.run("db", "backup", "copy")
    (manifest,) = disk.glob("*.json")
    content = json.loads(manifest.read_text())
    manifest.write_text(json.dumps({**content, "sha256": "0" * 64}))
    done = folder.run("db", "restore", "--copy-from", folder.url, "--yes")
    assert done.code == 6
    assert "does not decrypt to what its manifest says" in done.stderr


def test_a_manifest_that_promises_less_than_there_is_takes_no_more_room(
    folder: Away, disk: Path
) -> None:
    folder.run("db", "backup", "copy")
    (manifest,) = disk.glob("*.json")
    content = json.loads(manifest.read_text())
    manifest.write_text(json.dumps({**content, "bytes": 100}))
    assert folder.run("db", "restore", "--copy-from", folder.url, "--yes").code == 6


@pytest.mark.parametrize("text", ["", "{", "[]", '{"application": "other", "copy": {}}',
                                  '{"application": "local-mcp-gateway", "format": 9, "copy": {}}'])  # fmt: skip
def test_manifests_that_are_none_are_told_and_stop_nothing(
    folder: Away, disk: Path, text: str
) -> None:
    folder.run("db", "backup", "copy")
    (disk / "gateway-20200101T000000.000Z.json").write_text(text)
    assert folder.run("db", "backup", "copy").code == 0
    assert len(folder.copies()) == 1


def test_a_backup_that_was_damaged_here_is_not_copied_and_does_not_stop_the_others(
    folder: Away,
) -> None:
    folder.place.write("INSERT INTO notes (id, text) VALUES (2, 'x')")
    folder.run("db", "backup", "create")
    newest = Path(backups(folder.place)[0]["path"])
    content = newest.read_bytes()
    newest.write_bytes(content[:-4] + b"harm")
    done = folder.run("db", "backup", "copy")
    assert done.code == 6
    assert newest.stem in done.stderr
    assert [copy["name"] for copy in folder.copies()] == [backups(folder.place)[1]["name"]]


def test_a_name_that_is_not_there_is_said_with_the_way_to_see_them(folder: Away) -> None:
    folder.run("db", "backup", "copy")
    done = folder.run("db", "restore", "yesterday", "--copy-from", folder.url, "--yes")
    assert done.code == 2
    assert "db backup copies" in done.stderr


def test_without_its_packages_one_sentence_says_what_to_install(
    folder: Away, tmp_path: Path
) -> None:
    blocked = tmp_path / "blocked"
    for package in ("obstore", "pyrage"):
        (blocked / package).mkdir(parents=True)
        (blocked / package / "__init__.py").write_text("raise ImportError(name=__name__)")
    done = folder.run("db", "backup", "copy", PYTHONPATH=str(blocked))
    assert done.code == 7
    assert "local-mcp-gateway[copies]" in done.stderr


def test_copies_with_plain_secrets_go_when_the_backups_do(folder: Away) -> None:
    manifest = Path(backups(folder.place)[0]["path"]).with_suffix(".json")
    content = json.loads(manifest.read_text())
    manifest.write_text(json.dumps({**content, "plain_secrets": True}))
    folder.run("db", "backup", "copy")
    folder.run("db", "backup", "create")
    folder.run("db", "backup", "prune", "--plain-secrets", "--yes")
    assert len(folder.run("db", "backup", "copy", "--json").json()["removed"]) == 1


def test_a_killed_restore_leaves_nothing_that_the_next_start_does_not_remove(
    kept: Place, s3: S3, line: Line
) -> None:
    there = in_s3(kept, s3.endpoint)
    large(kept)
    there.run("db", "backup", "copy")
    slow = {**there.env, "LMG_BACKUP__COPY_ENDPOINT": line.endpoint}
    process = subprocess.Popen(
        [*kept.command, *kept.options, "db", "restore", "--copy-from", there.url, "--yes"],
        env=clean_environment(kept.home, **slow),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    line.stop_after(1500, cuts=False)
    assert line.reached.wait(DEADLINE_S)
    process.kill()
    process.wait()
    line.mend()
    assert kept.run("db", "migrate").code == 0
    left = [p.name for p in (kept.database.parent / "backups").iterdir() if "fetched" in p.name]
    assert left == []


def test_a_backup_goes_to_an_sftp_server_and_back(in_sftp: Away, sftp: Sftp) -> None:
    large(in_sftp.place)
    done = in_sftp.run("db", "backup", "copy")
    assert done.code == 0, done.stderr
    assert done.stdout.count("copied  ") == 2
    checked = in_sftp.run("db", "backup", "copies", "--check")
    assert checked.code == 0, checked.stderr
    in_sftp.place.write("DELETE FROM notes")
    back = in_sftp.run("db", "restore", "--copy-from", in_sftp.url, "--yes")
    assert back.code == 0, back.stderr
    assert len(notes(in_sftp.place)) == 2
    newest = max(sftp.folder.glob("*.age"), key=lambda file: file.stat().st_size)
    with newest.open("r+b") as file:
        file.seek(5000)
        file.write(b"changed")
    checked = in_sftp.run("db", "backup", "copies", "--check")
    assert checked.code == 6


def test_what_a_killed_upload_to_an_sftp_server_left_is_removed(in_sftp: Away, sftp: Sftp) -> None:
    assert in_sftp.run("db", "backup", "copy").code == 0
    (whole,) = sftp.folder.glob("*.age")
    (manifest,) = sftp.folder.glob("*.json")
    name, origin, _, _ = whole.name.rsplit(".", 3)
    (sftp.folder / f"{name}.{origin}.01234567.age").write_bytes(b"half")
    (sftp.folder / f"{manifest.name}.89abcdef.part").write_bytes(b"half")
    assert in_sftp.run("db", "backup", "create").code == 0
    assert in_sftp.run("db", "backup", "copy").code == 0
    assert len(list(sftp.folder.iterdir())) == 4


def test_an_sftp_server_that_does_not_take_a_copy_is_told(in_sftp: Away, sftp: Sftp) -> None:
    sftp.stop()
    for options, told in (((), "Connection refused."), ((READ_ONLY,), "Permission denied.")):
        if options:
            sftp.start(*options)
        done = in_sftp.run("db", "backup", "copy")
        assert done.code == 9, done.stderr
        assert told in done.stderr
        examined = in_sftp.run("doctor")
        assert told in examined.stdout
    assert list(sftp.folder.iterdir()) == []
    wrong = in_sftp.run("db", "backup", "copy", LMG_BACKUP__COPY_SSH_HOST_KEY="ssh-ed25519 AAAA")
    assert wrong.code == 9
    assert "Traceback" not in wrong.stderr


@pytest.mark.parametrize(
    ("name", "told"),
    [("absent", "does not exist."), ("x" * 300, "cannot be used: File name too long.")],
)
def test_doctor_names_a_place_that_cannot_be_used(
    kept: Place, tmp_path: Path, name: str, told: str
) -> None:
    examined = kept.run("doctor", env={"LMG_BACKUP__COPY_TO": f"file://{tmp_path}/{name}"})
    assert examined.code == 3
    assert told in examined.stdout
    assert "Errno" not in examined.stdout


@pytest.mark.parametrize("setting", ["LMG_BACKUP__COPY_TO", "LMG_REPLICA__URL"])
def test_doctor_says_what_is_missing_to_log_in_to_a_server(
    kept: Place, sftp: Sftp, setting: str
) -> None:
    prefix = "LMG_BACKUP__COPY_" if "COPY" in setting else "LMG_REPLICA__"
    env = {setting: sftp.url, f"{prefix}SSH_KEY": str(sftp.key)}
    examined = kept.run("doctor", env=env)
    assert examined.code == 3
    assert "The key of 127.0.0.1 is not known." in examined.stdout
    absent = {**env, f"{prefix}SSH_KEY": str(sftp.keys / "absent")}
    assert "cannot be used: No such file" in kept.run("doctor", env=absent).stdout
    known = {**env, f"{prefix}SSH_HOST_KEY": sftp.host_key}
    assert "127.0.0.1 is not known" not in kept.run("doctor", env=known).stdout
