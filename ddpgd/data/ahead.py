"""Values made ahead of time, in a thread."""

import threading
from collections.abc import Callable
from typing import Generic, TypeVar

T = TypeVar("T")


class Ahead(Generic[T]):
    """The value of `make()`, which a thread of its own begins to make at once and which ends with it."""

    def __init__(self, make: Callable[[], T], name: str) -> None:
        self._make = make
        self._values: list[T] = []
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._thread.start()

    def result(self) -> T:
        """Wait for the value.

        Raises:
            BaseException: what `make` raised, with its traceback.
        """
        self.join()
        if self._error is not None:
            raise self._error
        return self._values[0]

    def join(self) -> None:
        """Wait until the thread has ended; what `make` raised is not raised here."""
        self._thread.join()

    def _run(self) -> None:
        try:
            self._values.append(self._make())
        except BaseException as error:  # noqa: BLE001 - raised by `result`
            self._error = error
