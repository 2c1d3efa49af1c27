"""Let a package's `__init__` export names of modules that are imported only when a name is used.

A package's API is its `__all__`. Where a start does not need all of it, `__init__` names the modules
under `TYPE_CHECKING` and gets the names from here:

```python
if TYPE_CHECKING:
    from local_mcp_gateway.log.redact import redact_text
else:
    __getattr__ = exports(__name__, redact=("redact_text",))
```
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from importlib import import_module


def exports(package: str, **modules: tuple[str, ...]) -> Callable[[str], object]:
    """Return the package's `__getattr__`: it imports the module of a name at its first use."""
    module_of = {name: module for module, names in modules.items() for name in names}

    def load(name: str) -> object:
        if name not in module_of:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        value: object = getattr(import_module(f"{package}.{module_of[name]}"), name)
        setattr(sys.modules[package], name, value)  # the next use does not come here
        return value

    return load
