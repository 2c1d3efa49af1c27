"""The object next to a replica says whose it is, in a folder and in an S3 store."""

from __future__ import annotations

import json
import threading
from dataclasses import replace
from pathlib import Path

import pytest

from local_mcp_gateway.config import ReplicaSettings, Settings
from local_mcp_gateway.errors import ConfigProblem, ReplicaProblem, ReplicaTaken
from local_mcp_gateway.service.replica import LEASE_S, ReplicaStore, Target
from local_mcp_gateway.service.replica.store import IDENTITY
from tests.replicas import Replica

ONE, OTHER = "1" * 32, "2" * 32


def test_a_claim_names_the_database_and_its_place(replica: Replica, tmp_path: Path) -> None:
    store = ReplicaStore(replica.target)
    assert store.read() is None
    store.claim(ONE, tmp_path / "a.db", used=False)
    found = store.read()
    assert found is not None
    assert (found["database"], found["path"]) == (ONE, str(tmp_path / "a.db"))


def test_of_two_first_claims_one_loses(replica: Replica, tmp_path: Path) -> None:
    first, second = ReplicaStore(replica.target), ReplicaStore(replica.target)
    first.claim(ONE, tmp_path / "a.db", used=False)
    with pytest.raises(ReplicaTaken, match="another database"):
        second.claim(OTHER, tmp_path / "b.db", used=False)
    found = first.read()
    assert found is not None
    assert found["database"] == ONE


def test_the_same_place_may_claim_again_at_once(replica: Replica, tmp_path: Path) -> None:
    for used in (False, True):  # after a crash the lease of before has not ended
        ReplicaStore(replica.target).claim(ONE, tmp_path / "a.db", used=used)


def test_another_place_has_to_wait_for_the_end_of_the_lease(
    replica: Replica, tmp_path: Path
) -> None:
    store = ReplicaStore(replica.target)
    store.claim(ONE, tmp_path / "a.db", used=False)
    with pytest.raises(ReplicaTaken, match="Another gateway replicates"):
        store.claim(ONE, tmp_path / "moved.db", used=True)
    store.release(ONE, tmp_path / "a.db")
    store.claim(ONE, tmp_path / "moved.db", used=True)
    with pytest.raises(ReplicaTaken, match="Another gateway replicates"):
        store.renew(ONE, tmp_path / "a.db")


def test_force_takes_it_from_any_database_that_no_gateway_replicates(
    replica: Replica, tmp_path: Path
) -> None:
    store = ReplicaStore(replica.target)
    store.claim(ONE, tmp_path / "a.db", used=False)
    with pytest.raises(ReplicaTaken, match="Another gateway replicates"):
        store.claim(OTHER, tmp_path / "b.db", used=True, by_force=True)
    store.release(ONE, tmp_path / "a.db")
    store.claim(OTHER, tmp_path / "b.db", used=True, by_force=True)
    with pytest.raises(ReplicaTaken, match="another database"):
        store.renew(ONE, tmp_path / "a.db")


def test_an_object_that_is_not_ours_is_refused(in_folder: Replica, tmp_path: Path) -> None:
    store = ReplicaStore(in_folder.target)
    for content in ("[]", "{}", '{"database": 7, "until": "soon"}'):
        (tmp_path / "elsewhere" / "local-mcp-gateway.json").write_text(content)
        with pytest.raises(ReplicaProblem, match="not what a gateway writes there"):
            store.claim(ONE, tmp_path / "a.db", used=True)


def test_an_empty_object_names_nobody(replica: Replica, tmp_path: Path) -> None:
    """As a crash of a store may leave it. Where a replica is next to it, somebody was named there."""
    with replica.target.open().connected() as objects:
        objects.write(IDENTITY, b"")
    store = ReplicaStore(replica.target)
    with pytest.raises(ReplicaTaken, match="that no gateway has named"):
        store.claim(ONE, tmp_path / "a.db", used=True)
    store.claim(ONE, tmp_path / "a.db", used=False)
    store.renew(ONE, tmp_path / "a.db")
    with pytest.raises(ReplicaTaken, match="another database"):
        ReplicaStore(replica.target).claim(OTHER, tmp_path / "b.db", used=False)


def test_what_the_store_refuses_is_told_in_its_words_on_one_line(
    in_bucket: Replica, tmp_path: Path
) -> None:
    absent = ReplicaStore(replace(in_bucket, url="s3://absent/gateway").target)
    with pytest.raises(ReplicaProblem) as told:
        absent.claim(ONE, tmp_path / "a.db", used=False)
    assert told.value.message == (
        "s3://absent/gateway cannot be used: The specified bucket does not exist (NoSuchBucket)."
    )


def test_a_lease_that_is_removed_is_noticed(replica: Replica, tmp_path: Path) -> None:
    store = ReplicaStore(replica.target)
    with pytest.raises(ReplicaTaken, match="is gone"):
        store.renew(ONE, tmp_path / "a.db")


def test_a_lease_that_a_clone_of_the_machine_has_written_is_noticed(
    in_folder: Replica, tmp_path: Path
) -> None:
    ours, clone = ReplicaStore(in_folder.target), ReplicaStore(in_folder.target)
    ours.claim(ONE, tmp_path / "a.db", used=False)
    ours.renew(ONE, tmp_path / "a.db")
    clone.claim(ONE, tmp_path / "a.db", used=True)
    with pytest.raises(ReplicaTaken, match="not what this gateway wrote there last"):
        ours.renew(ONE, tmp_path / "a.db")


def test_a_machine_that_started_again_waits_for_its_own_lease(
    in_folder: Replica, tmp_path: Path
) -> None:
    store, object_ = ReplicaStore(in_folder.target), tmp_path / "elsewhere/local-mcp-gateway.json"
    store.claim(ONE, tmp_path / "a.db", used=False)
    object_.write_text(json.dumps({**json.loads(object_.read_text()), "holder": "before"}))
    with pytest.raises(ReplicaTaken, match="this machine from before it started again"):
        store.claim(ONE, tmp_path / "a.db", used=True)


def test_a_lease_of_a_machine_whose_clock_was_wrong_ends_when_nobody_renews_it(
    in_folder: Replica, tmp_path: Path
) -> None:
    seen: dict[str, float] = {}
    ours = ReplicaStore(in_folder.target, seen)
    object_ = tmp_path / "elsewhere/local-mcp-gateway.json"
    ReplicaStore(in_folder.target).claim(ONE, tmp_path / "b.db", used=False)
    lease = json.loads(object_.read_text())
    object_.write_text(json.dumps({**lease, "until": lease["until"] + 86400}))
    with pytest.raises(ReplicaTaken, match="Another gateway replicates") as told:
        ours.claim(ONE, tmp_path / "a.db", used=True)
    assert "a clock is wrong" in told.value.hint
    seen[lease["mark"]] -= LEASE_S
    ours.claim(ONE, tmp_path / "a.db", used=True)


@pytest.mark.parametrize(
    "url", ["", "relative/path", "file:///", "file://", "s3://", "s3:///path", "s3://[x"]
)
def test_a_url_that_names_no_place_is_refused(url: str) -> None:
    with pytest.raises(ConfigProblem):
        Target.of(Settings(replica=ReplicaSettings(url=url)))


@pytest.mark.parametrize(
    "endpoint",
    ["127.0.0.1:9000", "localhost:9000", "http://", "http://a b", "https://h:99999", "ftp://h"],
)
def test_an_endpoint_that_is_not_a_url_is_refused(endpoint: str) -> None:
    """The library for stores panics at it, which ends a process."""
    replica = ReplicaSettings(url="s3://bucket/gateway", endpoint=endpoint)
    with pytest.raises(ConfigProblem, match="not the URL of a server"):
        Target.of(Settings(replica=replica))


def test_a_folder_that_is_not_there_is_not_made(tmp_path: Path) -> None:
    """A disk that is not mounted leaves an empty folder, or none, in its place."""
    absent = Target.of(Settings(replica=ReplicaSettings(url=f"file://{tmp_path}/absent")))
    with pytest.raises(ReplicaProblem, match="does not exist"):
        ReplicaStore(absent)
    assert not (tmp_path / "absent").exists()


def test_a_folder_that_cannot_be_looked_into_is_lost(tmp_path: Path) -> None:
    """As the mount of a server that is not reachable, or a name that is too long."""
    folder = tmp_path
    while len(str(folder)) < 4_000:
        folder /= "x" * min(200, 4_080 - len(str(folder)) - 1)
    folder.mkdir(parents=True)
    store = ReplicaStore(Target.of(Settings(replica=ReplicaSettings(url=f"file://{folder}"))))
    assert store.lost_folder(threading.Event())
