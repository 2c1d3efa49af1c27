"""Backups of a SQLite database that survive a power cut, and the way back to them.

A backup is listed only when it is whole: the file is copied online, flushed, read back, checked and
renamed before its manifest appears. Nothing here takes the database's lock; callers that need it
hold it (see each function). `backup.restore` and `backup.retention` are imported where they are used.
"""

from local_mcp_gateway.backup.leftovers import sweep
from local_mcp_gateway.backup.manifest import (
    Backup,
    Listing,
    find_backup,
    list_backups,
    look_through,
)
from local_mcp_gateway.backup.room import require_room, room_needed
from local_mcp_gateway.backup.scratch import scratch_copy
from local_mcp_gateway.backup.snapshot import create_backup
from local_mcp_gateway.backup.verify import newest_good, verify_backup

__all__ = [
    "Backup",
    "Listing",
    "create_backup",
    "find_backup",
    "list_backups",
    "look_through",
    "newest_good",
    "require_room",
    "room_needed",
    "scratch_copy",
    "sweep",
    "verify_backup",
]
