"""Mark whose replica it is: an object next to Litestream's own, with the database's identity and a lease.

Litestream has neither. Two databases that replicate to one URL damage it, and another database on a used URL
becomes its newest state, both without an error. So a gateway writes `local-mcp-gateway.json` at the URL
before Litestream starts, and renews its lease while it runs.
"""

from __future__ import annotations

import hashlib
import json
import socket
import time
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from secrets import token_hex
from typing import TYPE_CHECKING, Any, Final

from local_mcp_gateway.backup import PlaceMissing, StoreError
from local_mcp_gateway.errors import ConfigProblem, ReplicaProblem, ReplicaTaken
from local_mcp_gateway.frozen import frozen
from local_mcp_gateway.service.object_store import (
    KINDS,
    Access,
    Bucket,
    SshFolder,
    open_place,
    place_of,
    require_folder,
)
from local_mcp_gateway.service.secrets import BucketKeys

if TYPE_CHECKING:
    import threading
    from collections.abc import Mapping

    from local_mcp_gateway.backup import Place
    from local_mcp_gateway.config import Settings

IDENTITY: Final = "local-mcp-gateway.json"
LEASE_S: Final = 60.0
"""How long a lease counts after it was last renewed."""
REQUEST_S: Final = 10
LOOK_S: Final = 1.0
"""Interval of looking whether the folder of a replica is there."""
AWAY_S: Final = 5.0
"""The same, while its server is not."""
INSTALL: Final = "`pip install 'local-mcp-gateway[replica]'`, or leave replica.url empty."
SETTING: Final = "replica.url"


@frozen
class Target:
    """Where a replica is, how to get in, and how long its past is kept."""

    url: str
    keys: BucketKeys
    access: Access
    keep_days: int = 30

    @classmethod
    def of(cls, settings: Settings, url: str | None = None) -> Target:
        """Return the target of these settings, or of another URL with them; raises ConfigProblem."""
        replica, keys = settings.replica, BucketKeys.of(settings, "replica")
        chosen = url or replica.url
        if not chosen:
            raise ConfigProblem(
                "No replica is configured.",
                hint=f"Set replica.url in the configuration, or give a URL: {KINDS}.",
            )
        access = Access.of(settings, "replica")
        access.require_usable(place_of(chosen, "The URL" if url else SETTING))
        return cls(chosen, keys, access, replica.keep_days)

    @property
    def place(self) -> Path | Bucket | SshFolder:
        """Return what the URL names."""
        return place_of(self.url, SETTING)

    @property
    def folder(self) -> Path | None:
        """Return the folder of this machine that the replica is in, if it is in one."""
        return place if isinstance(place := self.place, Path) else None

    def require_folder(self) -> None:
        """Raise ReplicaProblem where the replica is in a folder that is not there."""
        if self.folder is not None:
            require_folder(self.folder, ReplicaProblem)

    def variables(self) -> dict[str, str]:
        """Return the keys of the bucket as variables; raises SealedValueProblem."""
        return self.keys.variables() if isinstance(self.place, Bucket) else {}

    def open(self) -> Place:
        """Return the place; raises ReplicaProblem."""
        try:
            return open_place(
                self.url,
                setting=SETTING,
                access=self.access,
                keys=self.variables,
                missing=ReplicaProblem,
                request_s=REQUEST_S,
            )
        except ImportError as error:
            raise ReplicaProblem(
                f"The replica needs {error.name}, which is not installed.", hint=INSTALL
            ) from None

    def for_litestream(self) -> dict[str, object]:
        """Return Litestream's configuration of the replica; an SFTP server is asked for its key. Raises ReplicaProblem."""
        place, found = self.place, dict[str, object]({"sync-interval": "1s"})
        if isinstance(place, Path):  # its own reading of a URL keeps %20
            return found | {"type": "file", "path": str(place)}
        if isinstance(place, SshFolder):
            at = {"host": place.address, "user": place.user, "path": place.path}
            return found | {"type": "sftp", **at, **self._litestream_keys(place)}
        found["url"] = self.url
        if self.access.endpoint:
            found |= {"endpoint": self.access.endpoint, "force-path-style": True}
        if self.access.region:
            found["region"] = self.access.region
        return found

    def _litestream_keys(self, place: SshFolder) -> dict[str, object]:
        self.open()  # says what is not installed
        from local_mcp_gateway.service.object_store.sftp import SftpPlace

        try:
            return SftpPlace(place, self.access, REQUEST_S).litestream_keys()
        except StoreError as error:
            raise self.unusable(error) from None

    def unusable(self, error: StoreError) -> ReplicaProblem:
        """Return that the place does not answer as it should, with the reason in its words."""
        return ReplicaProblem(
            f"{self.url} cannot be used: {error.reason}", hint=error.hint or self._hint()
        )

    def _hint(self) -> str:
        if isinstance(self.place, Bucket):
            return "Check replica.url, replica.endpoint, the network, and AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY."
        return "Check replica.url, and that it can be written to."


class ReplicaStore:
    """The object that names a replica's database. Blocking; every request has a time limit."""

    def __init__(self, target: Target, seen: dict[str, float] | None = None) -> None:
        """Store the arguments. `seen`: marks of others, and when they were first read, by `time.monotonic`."""
        self.target = target
        self._seen = {} if seen is None else seen
        self._place = target.open()
        self._written: set[str] = set()
        """Marks of what this gateway wrote, one of which is in the object: the last, and any that failed perhaps."""

    def read(self, *, trusting: bool = False) -> dict[str, Any] | None:
        """Return who the replica belongs to, or None; raises ReplicaProblem.

        An empty object names nobody. `trusting`: any that is not a gateway's counts as none.
        """
        try:
            with self._place.connected() as objects:
                content = objects.read(IDENTITY)
        except StoreError as error:
            raise self.target.unusable(error) from None
        if not content:
            return None
        try:
            found: dict[str, Any] = json.loads(content)
            float(found["until"])
            if all(isinstance(found[name], str) for name in ("database", "path", "host", "holder")):
                return found
        except (ValueError, KeyError, TypeError):
            pass
        if trusting:
            return None
        raise ReplicaProblem(
            f"{self.target.url}/{IDENTITY} is not what a gateway writes there.",
            hint="Use another URL, or `replica take-over` if nothing there is needed.",
        )

    def claim(self, database: str, path: Path, *, used: bool, by_force: bool = False) -> str | None:
        """Take the lease for this database; raises ReplicaTaken if the replica is another's.

        Return when the replica was last checked.

        `used`: Litestream has files there. `by_force` takes it over from another database, but not from a
        gateway that replicates there now.
        """
        found = self.read(trusting=by_force)
        if found is None and used and not by_force:
            mounted = " If its disk is not connected, connect it." if self.on_disk else ""
            raise ReplicaTaken(
                f"{self.target.url} holds a replica that no gateway has named.",
                hint=f"Use another URL, or `replica take-over` to replace what is there.{mounted}",
            )
        if found is not None:
            self._refuse_others(found, database, path, whose=not by_force)
        ours = found is not None and found["database"] == database
        created = found.get("created_at") if found and ours else None
        kept = _kept(found) if found and ours else {}
        self._write(database, path, created, new=found is None and not by_force, **kept)
        return kept.get("checked_at")

    def note_check(self, database: str, path: Path, checked_at: str) -> None:
        """Note when the replica of this database was checked, where no other gateway replicates to it now."""
        found = self.read()
        if found is not None:
            self._refuse_others(found, database, path)
            self._put({**found, "checked_at": checked_at})

    def renew(self, database: str, path: Path, checked_at: str | None = None) -> str | None:
        """Extend the lease, and note a check; return when the last one was.

        Raises ReplicaTaken if another gateway has taken it.
        """
        found = self.read()
        if found is None:
            raise self.gone()
        self._refuse_others(found, database, path)
        if self._written and found.get("mark") not in self._written:
            raise ReplicaTaken(
                f"{self.target.url}/{IDENTITY} is not what this gateway wrote there last.",
                hint="The replica was put back from a copy, or a clone of this machine writes to it too. Give each"
                " gateway its own URL; this one tries again in a moment.",
            )
        kept = _kept(found) if checked_at is None else {"checked_at": checked_at}
        self._write(database, path, found.get("created_at"), **kept)
        return kept.get("checked_at")

    @property
    def on_disk(self) -> bool:
        """Tell whether the replica is in a folder, here or on a server, whose disk can be disconnected."""
        return not isinstance(self.target.place, Bucket)

    def lost_folder(self, stop: threading.Event) -> bool:
        """Look until the object is not in its folder, which Litestream would make again; False at a stop.

        A server is looked at over one connection; while it is away it takes nothing from Litestream either.
        """
        while not stop.is_set():
            try:
                with self._place.connected() as objects:
                    while objects.exists(IDENTITY):
                        if stop.wait(LOOK_S):
                            return False
                    return True
            except PlaceMissing:
                return True
            except StoreError:
                if self.target.folder is not None:  # as where the server of a mount is not reached
                    return True
            stop.wait(AWAY_S)
        return False

    def gone(self) -> ReplicaTaken:
        """Return that the object is not there any more."""
        hint = "Find out who removed it; the gateway sends the whole database again in a moment."
        if self.on_disk:
            hint = (
                "Connect its disk, or see who removed it: the gateway tries again within a minute."
            )
        return ReplicaTaken(f"{self.target.url}/{IDENTITY} is gone.", hint=hint)

    def release(self, database: str, path: Path) -> None:
        """End the lease, if it is still ours."""
        found = self.read()
        if found and found["database"] == database and found["holder"] == holder(path):
            self._write(database, path, found.get("created_at"), lease_s=None, **_kept(found))

    def _refuse_others(
        self, found: dict[str, Any], database: str, path: Path, *, whose: bool = True
    ) -> None:
        if whose and found["database"] != database:
            raise ReplicaTaken(
                f"{self.target.url} is the replica of another database ({found['path']} on"
                f" {found['host']}).",
                hint="Use another URL, or `replica take-over` to replace what is there.",
            )
        if found["holder"] != holder(path) and self._lives(found):
            if (found["path"], found["host"]) == (str(path), socket.gethostname()):
                raise ReplicaTaken(
                    f"{self.target.url} is leased to this machine from before it started again, or to a clone of it.",
                    hint="The lease ends within a minute, and the gateway tries again; if this stays, stop the clone.",
                )
            raise ReplicaTaken(
                f"Another gateway replicates to {self.target.url} ({found['path']} on"
                f" {found['host']}).",
                hint="Its lease ends later than any can: a clock is wrong, that machine's or this one's. If that"
                " gateway does not run any more, wait: its lease ends after a minute in which nobody renews it."
                if clocks_differ(found)
                else "Stop that gateway, or use another URL for one of the two.",
            )

    def _lives(self, found: dict[str, Any]) -> bool:
        """Tell whether a lease counts: until its end, unless it was not renewed for as long as one lasts."""
        now = time.monotonic()
        first = self._seen.setdefault(str(found.get("mark") or found["until"]), now)
        return float(found["until"]) > time.time() and now - first < LEASE_S

    def _write(
        self,
        database: str,
        path: Path,
        created: object,
        *,
        new: bool = False,
        lease_s: float | None = LEASE_S,
        **also: object,
    ) -> None:
        mark = token_hex(8)
        self._written.add(mark)
        content = {
            "database": database,
            "path": str(path),
            "host": socket.gethostname(),
            "holder": holder(path),
            "until": 0 if lease_s is None else round(time.time() + lease_s, 3),
            "mark": mark,
            "created_at": created or datetime.now(UTC).isoformat(timespec="seconds"),
            **also,
        }
        if self._put(content, new=new):
            self._written = {mark}
        else:  # another gateway may be quicker
            self.claim(database, path, used=True)

    def _put(self, content: Mapping[str, object], *, new: bool = False) -> bool:
        """Write the object; return False where it is to be `new` and was there already.

        An empty one is written over, as a crash of the store may leave it: whoever is in it afterwards has won.
        """
        text = json.dumps(content, indent=2).encode()
        try:
            with self._place.connected() as objects:
                if new and objects.create(IDENTITY, text):
                    return True
                if not new or not objects.read(IDENTITY):
                    objects.write(IDENTITY, text)
        except StoreError as error:
            raise self.target.unusable(error) from None
        return not new


def _kept(found: dict[str, Any]) -> dict[str, Any]:
    return {key: found[key] for key in ("checked_at",) if key in found}


def clocks_differ(found: Mapping[str, Any]) -> bool:
    """Tell whether a lease ends later than one can by the clock of this machine."""
    return float(found["until"]) > time.time() + 2 * LEASE_S


def holder(path: Path) -> str:
    """Return what tells this database file from those of other machines, of clones of this one, and of folders."""
    machine = booted = ""
    with suppress(OSError):
        machine = Path("/etc/machine-id").read_text().strip()
    with suppress(OSError):
        booted = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    named = f"{machine or socket.gethostname()}\n{booted}\n{path}"
    return hashlib.sha256(named.encode()).hexdigest()[:16]
