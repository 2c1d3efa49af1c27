"""The migration guard: back up, rehearse and verify migrations before a database is opened.

```python
from local_mcp_gateway.guard import guarded

with guarded("app.db", "migrations") as report:
    serve("app.db")  # the lock is held until this block ends
```
"""

from typing import TYPE_CHECKING

from local_mcp_gateway.lazy import exports

if TYPE_CHECKING:
    from local_mcp_gateway.guard.commands import (
        back_up_now,
        find_to_restore,
        get_status,
        identify,
        identify_guarded,
        rebuild_indexes,
        repairing,
        reset_guarded,
        restore_guarded,
        restore_held,
        seed_guarded,
        take_over_guarded,
    )
    from local_mcp_gateway.guard.context import GuardContext, GuardPolicy, GuardReport, Planner
    from local_mcp_gateway.guard.down import go_back, plan_down
    from local_mcp_gateway.guard.guard import guarded, hot_apply, make_plan
    from local_mcp_gateway.guard.rehearse import DryRun, TableRows, dry_run_on_copy
    from local_mcp_gateway.guard.rewind import (
        drop_newest,
        find_divergence,
        rewind_at_start,
        rewind_to_folder,
    )
else:
    __getattr__ = exports(
        __name__,
        commands=(
            "back_up_now",
            "find_to_restore",
            "get_status",
            "identify",
            "identify_guarded",
            "rebuild_indexes",
            "repairing",
            "reset_guarded",
            "restore_guarded",
            "restore_held",
            "seed_guarded",
            "take_over_guarded",
        ),
        context=("GuardContext", "GuardPolicy", "GuardReport", "Planner"),
        down=("go_back", "plan_down"),
        guard=("guarded", "hot_apply", "make_plan"),
        rehearse=("DryRun", "TableRows", "dry_run_on_copy"),
        rewind=("drop_newest", "find_divergence", "rewind_at_start", "rewind_to_folder"),
    )

__all__ = [
    "DryRun",
    "GuardContext",
    "GuardPolicy",
    "GuardReport",
    "Planner",
    "TableRows",
    "back_up_now",
    "drop_newest",
    "dry_run_on_copy",
    "find_divergence",
    "find_to_restore",
    "get_status",
    "go_back",
    "guarded",
    "hot_apply",
    "identify",
    "identify_guarded",
    "make_plan",
    "plan_down",
    "rebuild_indexes",
    "repairing",
    "reset_guarded",
    "restore_guarded",
    "restore_held",
    "rewind_at_start",
    "rewind_to_folder",
    "seed_guarded",
    "take_over_guarded",
]
