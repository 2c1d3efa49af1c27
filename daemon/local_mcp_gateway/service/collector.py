"""Python's collector of cycles, for a process that lives long and whose calls leave few of them."""

from __future__ import annotations

import gc

AFTER_OBJECTS = 20_000
"""How many more containers than before have to live until the collector looks. Python's own is 700."""


def collect_rarely() -> None:
    """Leave what stands for good out of every look, and look less often.

    To be called once all is up. With Python's settings the looks took a tenth of the time of calls.
    """
    gc.freeze()
    gc.set_threshold(AFTER_OBJECTS, 20, 20)
