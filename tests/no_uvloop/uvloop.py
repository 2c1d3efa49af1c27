"""Stands before uvloop on PYTHONPATH, so that `serve` and the tests run on asyncio's own event loop."""

raise ModuleNotFoundError("uvloop is hidden by tests/no_uvloop", name="uvloop")
