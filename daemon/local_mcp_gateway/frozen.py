"""A `frozen` decorator: frozen dataclasses without the cost of creating their classes.

`dataclass` generates and compiles six methods for every class, half a millisecond each: for the forty
classes loaded before any command works, more than its own imports. Here all classes share the same
methods. Use it for modules that a start imports. The standard library's dataclass functions (`fields`,
`replace`, `asdict`, `match`) work with these classes. From Python 3.13 on `dataclass` compiles once per
class: then this module can be removed.
"""

from __future__ import annotations

from dataclasses import MISSING, FrozenInstanceError, dataclass, field, fields
from typing import Any, TypeVar, dataclass_transform

_T = TypeVar("_T")


@dataclass_transform(frozen_default=True, field_specifiers=(field,))
def frozen(cls: type[_T]) -> type[_T]:
    """Make a class of annotated fields a frozen value, like `@dataclass(frozen=True)` but faster."""
    made = dataclass(init=False, repr=False, eq=False)(cls)
    for method in (_init, _repr, _eq, _hash, _setattr, _delattr):
        setattr(made, f"_{method.__name__}__", method)
    return made


def _init(self: Any, /, *given: object, **named: object) -> None:
    known = {field.name: field for field in fields(self)}
    by_place = [name for name, field in known.items() if not field.kw_only]
    state = dict(zip(by_place, given, strict=False))
    if len(given) > len(by_place) or state.keys() & named or named.keys() - known:
        raise TypeError(f"{type(self).__name__} takes {', '.join(known)}, each once")
    state |= named
    for name, declared in known.items():
        if name not in state:
            if declared.default is not MISSING:
                state[name] = declared.default
            elif declared.default_factory is not MISSING:
                state[name] = declared.default_factory()
            else:
                raise TypeError(f"{type(self).__name__} needs {name}")
    self.__dict__.update({name: state[name] for name in known})


def _repr(self: Any) -> str:
    values = zip(fields(self), _values(self), strict=True)
    return f"{type(self).__name__}({', '.join(f'{field.name}={v!r}' for field, v in values)})"


def _eq(self: Any, other: object) -> bool:
    return _values(self) == _values(other) if type(other) is type(self) else NotImplemented


def _hash(self: Any) -> int:
    return hash(_values(self))


def _values(self: Any) -> tuple[object, ...]:
    """Return the field values, without cached properties."""
    return tuple(getattr(self, field.name) for field in fields(self))


def _setattr(self: Any, name: str, _value: object) -> None:
    raise FrozenInstanceError(f"cannot assign to {type(self).__name__}.{name}")


def _delattr(self: Any, name: str) -> None:
    raise FrozenInstanceError(f"cannot delete {type(self).__name__}.{name}")
