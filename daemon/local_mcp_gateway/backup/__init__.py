"""Create, list, verify and restore backups of a SQLite database that survive a power cut.

A backup is listed only when it is whole: the file is copied online, flushed, read back, checked and
renamed before its manifest appears. Nothing here takes the database's lock; callers that need it
hold it (see each function). `backup.restore` is imported where it is used.
"""

from local_mcp_gateway.backup.create import (
    create_backup,
    newest_good,
    require_room,
    room_needed,
    scratch_copy,
    verify_backup,
)
from local_mcp_gateway.backup.files import clean_up
from local_mcp_gateway.backup.manifest import (
    Backup,
    BackupCatalog,
    find_backup,
    list_backups,
    read_catalog,
)

__all__ = [
    "Backup",
    "BackupCatalog",
    "clean_up",
    "create_backup",
    "find_backup",
    "list_backups",
    "newest_good",
    "read_catalog",
    "require_room",
    "room_needed",
    "scratch_copy",
    "verify_backup",
]
