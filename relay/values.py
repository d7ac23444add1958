"""Values: what is made once and never changed.

    @frozen
    class Lease: ...

To whoever reads or checks the code this is a frozen dataclass with slots: mypy refuses any change of a field, and two
that are alike are equal and hash alike. To the interpreter it is not frozen: `__init__` of a frozen one sets
each field through a call, and a message passes through some fifty values. Measured: 8 % of a message's time.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, TypeVar, cast, dataclass_transform

T = TypeVar("T", bound=type[Any])


@dataclass_transform(frozen_default=True, field_specifiers=(field,))
def frozen(cls: T) -> T:
    """`cls` as a value, frozen for everybody but the interpreter."""
    return cast("T", dataclass(slots=True, unsafe_hash=True)(cls))
