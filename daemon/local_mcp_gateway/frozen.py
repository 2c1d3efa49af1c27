"""Frozen dataclasses whose classes cost next to nothing to make.

`dataclass` writes and compiles the source of six methods for every class, half a millisecond each: for
the forty classes that stand before any work of a command, more than its own imports otherwise. Here the
methods are the same for all classes. To be used where a start passes; everything of the standard
library that knows dataclasses (`fields`, `replace`, `asdict`, `match`) knows these. From Python 3.13 on
`dataclass` compiles once per class: then this may go.
"""

from __future__ import annotations

from dataclasses import MISSING, FrozenInstanceError, dataclass, field, fields
from typing import Any, TypeVar, dataclass_transform

_T = TypeVar("_T")


@dataclass_transform(frozen_default=True, field_specifiers=(field,))
def frozen(cls: type[_T]) -> type[_T]:
    """Make a class of annotated fields a frozen value: `@dataclass(frozen=True)`, made faster."""
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
    """Return what it was made of, and not what a cached property has kept beside it."""
    return tuple(getattr(self, field.name) for field in fields(self))


def _setattr(self: Any, name: str, _value: object) -> None:
    raise FrozenInstanceError(f"cannot assign to {type(self).__name__}.{name}")


def _delattr(self: Any, name: str) -> None:
    raise FrozenInstanceError(f"cannot delete {type(self).__name__}.{name}")
