"""The migration guard: back up, rehearse and verify migrations before a database is opened.

```python
from local_mcp_gateway.guard import guarded

with guarded("app.db", "migrations") as report:
    serve("app.db")  # the lock is held until this block ends
```
"""

from local_mcp_gateway.guard.context import GuardPolicy, GuardReport, Phases
from local_mcp_gateway.guard.guard import guarded

__all__ = ["GuardPolicy", "GuardReport", "Phases", "guarded"]
