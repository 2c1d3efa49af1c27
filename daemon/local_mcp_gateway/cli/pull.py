"""`db pull`: write the schema of a database as the source that `db generate` starts from."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from local_mcp_gateway.cli import ui
from local_mcp_gateway.cli.schema import load_schema
from local_mcp_gateway.cli.streams import print_data
from local_mcp_gateway.errors import Exit, SchemaProblem, UsageProblem

if TYPE_CHECKING:
    from local_mcp_gateway.cli.context import Invocation


@click.command()
@click.option(
    "--from", "source", default="database", show_default=True, help="What to pull, as in `db diff`."
)
@click.option(
    "--output",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="Where to write it: a .sql file, or a .py module with SQLAlchemy MetaData [default: print the SQL].",
)
@click.option("--force", is_flag=True, help="Replace the file if it exists.")
@click.pass_obj
def pull(invocation: Invocation, *, source: str, output: Path | None, force: bool) -> int:
    """Write the schema of the database as SQL, or as a Python module with SQLAlchemy MetaData.

    The result is read back before it is written, and makes exactly the same schema: `db generate --schema FILE`
    goes on from it. In a module, what SQLAlchemy cannot express (views, triggers, full-text tables) stays SQL.
    """
    from local_mcp_gateway.migrate import replace_durably  # --help does not pay for it
    from local_mcp_gateway.schema import pull_module, pull_sql

    suffix = ".sql" if output is None else output.suffix
    if suffix not in (".sql", ".py"):
        raise UsageProblem(
            f"{output} is neither a .sql nor a .py file.", hint="Name it with one of these."
        )
    if output is not None and output.exists() and not force:
        raise UsageProblem(
            f"{output} is there already.", hint="Give another name, or --force to replace it."
        )
    schema = load_schema(invocation, source, given=source != "database")
    if not schema:
        raise SchemaProblem(
            "There is no table to pull.", hint="Name a database with a schema (`--database FILE`)."
        )
    text = (pull_sql if suffix == ".sql" else pull_module)(schema, prepare=invocation.prepare)
    if output is None:
        print_data(text.rstrip("\n"))
        return Exit.OK
    replace_durably(output, text.encode())
    ui.tell(
        f"{output} makes the schema of {invocation.database if source == 'database' else source}."
    )
    return Exit.OK
