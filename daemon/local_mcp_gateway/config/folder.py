"""The data folder that is ours to make."""

from __future__ import annotations

from typing import TYPE_CHECKING

from local_mcp_gateway.errors import DatabasePathProblem

if TYPE_CHECKING:
    from local_mcp_gateway.config.settings import Settings


def prepare_data_folder(settings: Settings) -> None:
    """Make the data folder (0700) if it is our own default or systemd's; a typed path is never guessed at."""
    if settings.database.path:
        return
    folder = settings.database_path.parent
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise DatabasePathProblem(
            f"The data folder {folder} cannot be created: {error.strerror}."
        ) from None
