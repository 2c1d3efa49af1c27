"""Which backups a retention keeps, and which it removes."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from local_mcp_gateway.backup import Backup, clean_up, list_backups
from local_mcp_gateway.backup.manifest import Retention, prune, retained
from local_mcp_gateway.formats import iso

NOW = datetime(2026, 11, 22, 12, tzinfo=UTC)


def a_backup(
    age_hours: float,
    before: str | None = None,
    applied: tuple[str, ...] = (),
    content: str = "",
) -> Backup:
    name = f"app-{age_hours:012.3f}-{before}"
    return Backup(
        path=Path(f"/backups/{name}.db"),
        name=name,
        bytes=1,
        sha256=content or name,
        created_at=iso(NOW - timedelta(hours=age_hours)),
        before=before,
        fingerprint="",
        applied=applied,
        program_version="0",
        verified=True,
        database="/data/app.db",
    )


BACKUPS = st.lists(
    st.builds(
        a_backup,
        st.integers(min_value=0, max_value=24 * 60),
        st.none() | st.sampled_from(["0001_a", "0002_b"]),
        st.sampled_from([(), ("0000_i",), ("0000_i", "0001_a")]),
    ),
    max_size=30,
    unique_by=lambda backup: backup.name,
)
POLICIES = st.builds(
    Retention,
    keep_last=st.integers(min_value=0, max_value=5),
    keep_daily_days=st.integers(min_value=0, max_value=20),
)


@given(BACKUPS, POLICIES)
def test_the_newest_backup_is_never_removed(backups: list[Backup], policy: Retention) -> None:
    kept = retained(backups, policy, NOW)
    assert set(kept) <= set(backups)
    if backups:
        assert max(backups, key=lambda b: (b.created_at, b.name)) in kept


@given(BACKUPS, POLICIES)
def test_the_newest_from_before_a_migration_is_never_removed(
    backups: list[Backup], policy: Retention
) -> None:
    before = [backup for backup in backups if backup.before is not None]
    if before:
        newest = max(before, key=lambda b: (b.created_at, b.name))
        assert newest in retained(backups, policy, NOW)


@given(BACKUPS, POLICIES)
def test_pruning_twice_removes_nothing_more(backups: list[Backup], policy: Retention) -> None:
    kept = retained(backups, policy, NOW)
    assert retained(kept, policy, NOW) == kept


@given(BACKUPS, POLICIES, st.randoms())
def test_the_order_of_the_listing_does_not_matter(
    backups: list[Backup],
    policy: Retention,
    random: st.randoms,  # type: ignore[valid-type]
) -> None:
    shuffled = list(backups)
    random.shuffle(shuffled)  # type: ignore[attr-defined]
    assert retained(shuffled, policy, NOW) == retained(backups, policy, NOW)


def test_the_last_n_and_one_a_day_are_kept() -> None:
    backups = [a_backup(hours) for hours in (1, 2, 3, 30, 31, 55, 24 * 40)]
    kept = retained(backups, Retention(keep_last=2, keep_daily_days=7), NOW)
    assert [backup.name for backup in kept] == [backups[i].name for i in (0, 1, 3, 5)]


def test_the_backup_from_before_the_newest_applied_migration_outlives_failed_attempts() -> None:
    before_last_good = a_backup(1000, "0001_a", ("0000_i",))
    attempts = [a_backup(hours, "0002_b", ("0000_i", "0001_a")) for hours in range(1, 30)]
    kept = retained([*attempts, before_last_good], Retention(1, 0), NOW)
    assert kept == (attempts[0], before_last_good)


def test_several_backups_of_the_same_content_count_as_the_newest_of_them() -> None:
    same = [a_backup(hours, content="same") for hours in (1, 2, 3)]
    others = [a_backup(hours) for hours in (40, 80, 120)]
    assert retained([*same, *others], Retention(3, 0), NOW) == (same[0], others[0], others[1])


def test_a_refused_start_keeps_the_last_backup_from_before_each_of_the_newest_five_migrations() -> (
    None
):
    tags = tuple(f"000{n}_m" for n in range(8))
    before = [a_backup(1000 - n, tags[n], tags[:n]) for n in range(8)]
    attempts = [a_backup(hours, "0008_bad", tags) for hours in range(1, 30)]
    kept = retained([*before, *attempts], Retention(2, 0), NOW, refused=True)
    assert kept == (*attempts[:2], *reversed(before[3:]))
    assert retained(kept, Retention(2, 0), NOW) == (*attempts[:2], before[7])


def test_prune_removes_backup_and_manifest_of_each_that_is_not_kept(
    database: Path, back_up: Callable[..., Backup]
) -> None:
    old = [back_up(before=None) for _ in range(3)]
    newest = back_up()
    removed = prune(list_backups(database), Retention(1, 0), datetime.now(UTC))
    assert set(removed) == set(old)
    assert list_backups(database) == (newest,)
    assert len(list(newest.path.parent.iterdir())) == 2


def test_a_prune_that_was_killed_after_delisting_is_finished_by_the_sweep(
    database: Path, backup: Backup
) -> None:
    delisted = backup.manifest.with_name(f".{backup.manifest.name}.pruned")
    backup.manifest.rename(delisted)
    assert set(clean_up(database)) == {backup.path, delisted}
    assert list(backup.path.parent.iterdir()) == []
