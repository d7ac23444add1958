"""Values: what is made once and never changed.

    @frozen
    class Lease: ...

To whoever reads or checks the code this is a frozen dataclass with slots, and `dataclasses.fields`, `replace` and
`asdict` take it. It is made by msgspec: in C, and without source that is written and compiled for each class, which
took a third of the time until the first 220. A message passes through some thirty values.
"""

from __future__ import annotations

from dataclasses import MISSING, Field, dataclass, field
from typing import Any, TypeVar, cast, dataclass_transform

import msgspec

T = TypeVar("T", bound=type[Any])


@dataclass_transform(frozen_default=True, field_specifiers=(field,))
def frozen(cls: T) -> T:
    """`cls` as a value. One with a field that is not compared, not shown or not given stays a dataclass."""
    given = [value for value in vars(cls).values() if isinstance(value, Field)]
    if not all(one.init and one.repr and one.compare for one in given):
        return cast("T", dataclass(slots=True, unsafe_hash=True)(cls))
    cls.__doc__ = cls.__doc__ or cls.__name__  # else `dataclass` writes one, from a signature that it has to find out
    fields = dataclass(init=False, repr=False, eq=False)(cls).__dataclass_fields__
    space = {name: value for name, value in vars(cls).items() if name not in ("__dict__", "__weakref__")}
    space["__qualname__"] = cls.__qualname__
    for name, one in fields.items():
        if one.default_factory is not MISSING:
            space[name] = msgspec.field(default_factory=one.default_factory)
    bases = tuple(base for base in cls.__bases__ if base is not object)
    return cast("T", msgspec.StructMeta(cls.__name__, (*bases, msgspec.Struct), space, frozen=True))
