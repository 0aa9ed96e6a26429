"""A mapping that does not change: a loaded policy stays what its digest says."""

from __future__ import annotations

from typing import NoReturn, TypeVar

__all__ = ["Frozen"]

K = TypeVar("K")
V = TypeVar("V")


class Frozen(dict[K, V]):
    """A dict whose content is fixed. Unlike a MappingProxyType it can be pickled and dumped.

    Raises: TypeError on every attempt to change it.
    """

    __slots__ = ()

    def _refuse(self, *_: object, **__: object) -> NoReturn:
        raise TypeError("a loaded policy does not change; edit the file and load it again")

    __setitem__ = __delitem__ = __ior__ = _refuse
    clear = pop = popitem = setdefault = update = _refuse

    def __reduce__(self) -> tuple[object, ...]:
        return (Frozen, (dict(self),))
