"""The closed set of hazards: what a person should look at before a migration runs."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class HazardKind(StrEnum):
    """The closed set of things to look at before a migration is applied."""

    DELETES_DATA = "deletes_data"
    NOT_NULL_WITHOUT_DEFAULT = "not_null_without_default"
    ADDS_UNIQUE = "adds_unique"
    ADDS_CHECK = "adds_check"
    DROPS_INDEX = "drops_index"
    REBUILD = "rebuild"
    CHANGES_PRIMARY_KEY = "changes_primary_key"
    NARROWS_TYPE = "narrows_type"
    BREAKS_RUNNING_VERSION = "breaks_running_version"


DELETING = frozenset({HazardKind.DELETES_DATA})
"""The kinds that the policy `[guard] destructive` is about."""


@dataclass(frozen=True, slots=True)
class Hazard:
    """One thing to look at: which kind, in which table, column or index, and what to do about it."""

    kind: HazardKind
    object: str
    message: str
