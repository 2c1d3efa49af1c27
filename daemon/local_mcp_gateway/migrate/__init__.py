"""The migration engine: read a folder and a ledger, and apply what is pending."""

from typing import TYPE_CHECKING

from local_mcp_gateway.lazy import exports

if TYPE_CHECKING:
    from local_mcp_gateway.migrate.apply import Step
    from local_mcp_gateway.migrate.batch import HazardFinding, Rehearsal, apply_batch, refusal
    from local_mcp_gateway.migrate.check import (
        cannot_run,
        check_folder,
        full_text_tables,
        out_of_step,
    )
    from local_mcp_gateway.migrate.divergence import Divergence
    from local_mcp_gateway.migrate.down import DownPlan
    from local_mcp_gateway.migrate.folder import Folder, Migration, read_folder
    from local_mcp_gateway.migrate.folder_edits import (
        WrittenMigration,
        has_applied,
        plan_renumber,
        renumber,
        write_migration,
    )
    from local_mcp_gateway.migrate.generate import (
        Draft,
        next_snapshot,
        rewrite_snapshots,
        schema_of,
    )
    from local_mcp_gateway.migrate.importers import Converted, FolderFormat, convert, detect
    from local_mcp_gateway.migrate.journal import replace_durably
    from local_mcp_gateway.migrate.ledger import Ledger
    from local_mcp_gateway.migrate.options import MigrationOptions, register
    from local_mcp_gateway.migrate.original import ORIGINAL, Original, find_original
    from local_mcp_gateway.migrate.plan import Plan
    from local_mcp_gateway.migrate.repair import Repair
    from local_mcp_gateway.migrate.resolution import Edited, resolve
    from local_mcp_gateway.migrate.seeds import Seeds
    from local_mcp_gateway.migrate.squash import Squash, draft_squash, write_squash
    from local_mcp_gateway.migrate.statements import unfinished
    from local_mcp_gateway.migrate.status import Status, read_events
else:
    __getattr__ = exports(
        __name__,
        apply=("Step",),
        batch=("HazardFinding", "Rehearsal", "apply_batch", "refusal"),
        check=("cannot_run", "check_folder", "full_text_tables", "out_of_step"),
        divergence=("Divergence",),
        down=("DownPlan",),
        folder=("Folder", "Migration", "read_folder"),
        folder_edits=(
            "WrittenMigration",
            "has_applied",
            "plan_renumber",
            "renumber",
            "write_migration",
        ),
        generate=("Draft", "next_snapshot", "rewrite_snapshots", "schema_of"),
        importers=("Converted", "FolderFormat", "convert", "detect"),
        journal=("replace_durably",),
        ledger=("Ledger",),
        options=("MigrationOptions", "register"),
        original=("ORIGINAL", "Original", "find_original"),
        plan=("Plan",),
        repair=("Repair",),
        resolution=("Edited", "resolve"),
        seeds=("Seeds",),
        squash=("Squash", "draft_squash", "write_squash"),
        statements=("unfinished",),
        status=("Status", "read_events"),
    )

__all__ = [
    "ORIGINAL",
    "Converted",
    "Divergence",
    "DownPlan",
    "Draft",
    "Edited",
    "Folder",
    "FolderFormat",
    "HazardFinding",
    "Ledger",
    "Migration",
    "MigrationOptions",
    "Original",
    "Plan",
    "Rehearsal",
    "Repair",
    "Seeds",
    "Squash",
    "Status",
    "Step",
    "WrittenMigration",
    "apply_batch",
    "cannot_run",
    "check_folder",
    "convert",
    "detect",
    "draft_squash",
    "find_original",
    "full_text_tables",
    "has_applied",
    "next_snapshot",
    "out_of_step",
    "plan_renumber",
    "read_events",
    "read_folder",
    "refusal",
    "register",
    "renumber",
    "replace_durably",
    "resolve",
    "rewrite_snapshots",
    "schema_of",
    "unfinished",
    "write_migration",
    "write_squash",
]
