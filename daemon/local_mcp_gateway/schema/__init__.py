"""Read a schema out of SQLite as a value, compare schemas, and turn a difference into a migration."""

from typing import TYPE_CHECKING

from local_mcp_gateway.lazy import exports

if TYPE_CHECKING:
    from local_mcp_gateway.schema.alter_column import read_alter_column, rebuild_for
    from local_mcp_gateway.schema.comparison import Difference, compare, fingerprint
    from local_mcp_gateway.schema.create_table import read_table
    from local_mcp_gateway.schema.diff import words
    from local_mcp_gateway.schema.double_quotes import find_strings
    from local_mcp_gateway.schema.drizzle import FIRST, read_snapshot, write_snapshot
    from local_mcp_gateway.schema.drizzle_1 import as_snapshots_see, write_snapshot_7
    from local_mcp_gateway.schema.hazards import hazards_of, kept_instead, rebuild_cost
    from local_mcp_gateway.schema.inspection import (
        Prepare,
        constraints_of,
        count_objects,
        inspect,
        is_engines,
        is_users,
        read_code,
        read_default,
    )
    from local_mcp_gateway.schema.model import (
        DELETING,
        Code,
        Hazard,
        HazardKind,
        Index,
        Part,
        Schema,
        Sql,
        Table,
    )
    from local_mcp_gateway.schema.naming import name_of, slug
    from local_mcp_gateway.schema.plan import (
        NotDerivable,
        Plan,
        derive_down,
        make_plan,
        schema_copy,
    )
    from local_mcp_gateway.schema.pull import pull_module, pull_sql
    from local_mcp_gateway.schema.renames import Candidate, Renames, candidates, parse_renames
    from local_mcp_gateway.schema.source import missing_hint, read_module, read_sql
else:
    __getattr__ = exports(
        __name__,
        alter_column=("read_alter_column", "rebuild_for"),
        comparison=("Difference", "compare", "fingerprint"),
        create_table=("read_table",),
        diff=("words",),
        double_quotes=("find_strings",),
        drizzle=("FIRST", "read_snapshot", "write_snapshot"),
        drizzle_1=("as_snapshots_see", "write_snapshot_7"),
        hazards=("hazards_of", "kept_instead", "rebuild_cost"),
        inspection=(
            "Prepare",
            "constraints_of",
            "count_objects",
            "inspect",
            "is_engines",
            "is_users",
            "read_code",
            "read_default",
        ),
        model=(
            "Code",
            "DELETING",
            "Hazard",
            "HazardKind",
            "Index",
            "Part",
            "Schema",
            "Sql",
            "Table",
        ),
        naming=("name_of", "slug"),
        plan=("NotDerivable", "Plan", "derive_down", "make_plan", "schema_copy"),
        pull=("pull_module", "pull_sql"),
        renames=("Candidate", "Renames", "candidates", "parse_renames"),
        source=("missing_hint", "read_module", "read_sql"),
    )

__all__ = [
    "DELETING",
    "FIRST",
    "Candidate",
    "Code",
    "Difference",
    "Hazard",
    "HazardKind",
    "Index",
    "NotDerivable",
    "Part",
    "Plan",
    "Prepare",
    "Renames",
    "Schema",
    "Sql",
    "Table",
    "as_snapshots_see",
    "candidates",
    "compare",
    "constraints_of",
    "count_objects",
    "derive_down",
    "find_strings",
    "fingerprint",
    "hazards_of",
    "inspect",
    "is_engines",
    "is_users",
    "kept_instead",
    "make_plan",
    "missing_hint",
    "name_of",
    "parse_renames",
    "pull_module",
    "pull_sql",
    "read_alter_column",
    "read_code",
    "read_default",
    "read_module",
    "read_snapshot",
    "read_sql",
    "read_table",
    "rebuild_cost",
    "rebuild_for",
    "schema_copy",
    "slug",
    "words",
    "write_snapshot",
    "write_snapshot_7",
]
