"""The schema as a value: read out of SQLite, compared, and turned into the next migration.

A start that has nothing to compare imports none of it; hazards, plans and snapshots are imported where
they are used.
"""

from local_mcp_gateway.schema.compare import Difference, compare, fingerprint
from local_mcp_gateway.schema.inspect import inspect
from local_mcp_gateway.schema.model import Schema

__all__ = ["Difference", "Schema", "compare", "fingerprint", "inspect"]
