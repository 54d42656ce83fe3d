"""Things that are made once for the same arrays, such as views of them."""

from collections.abc import Callable, Sequence
from typing import Any, Generic, TypeVar

Made = TypeVar("Made")


class Kept(Generic[Made]):
    """Things by the arrays that they were made for.

    The arrays are held as well: no others have their ids as long as they are.

    >>> kept = Kept(most=2)
    >>> array = [0]
    >>> kept.of([array], lambda: "made"), kept.of([array], lambda: "made again")
    ('made', 'made')
    """

    def __init__(self, most: int | None = None) -> None:
        """`most`: when there would be more, all are forgotten; None: never."""
        self._most = most
        self._made: dict[tuple[int, ...], tuple[Sequence[Any], Made]] = {}

    def of(self, arrays: Sequence[Any], make: Callable[[], Made]) -> Made:
        """Returns what make() returned when it was first asked for with these arrays."""
        key = tuple(map(id, arrays))
        found = self._made.get(key)
        if found is None:
            if len(self._made) == self._most:
                self._made.clear()
            found = self._made[key] = arrays, make()
        return found[1]
