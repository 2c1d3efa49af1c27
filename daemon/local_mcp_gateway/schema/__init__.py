"""Read a schema out of SQLite as a value, compare schemas, and turn a difference into a migration.

A start with nothing to compare imports none of it; hazards, plans and snapshots are imported where they
are used.
"""

from local_mcp_gateway.schema.compare import Difference, compare, fingerprint
from local_mcp_gateway.schema.inspect import inspect
from local_mcp_gateway.schema.model import Schema

__all__ = ["Difference", "Schema", "compare", "fingerprint", "inspect"]
