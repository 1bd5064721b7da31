"""Work that goes on beside training."""

from collections.abc import Callable
from threading import Thread
from typing import Self


class Background:
    """One piece of work at a time, on a thread of its own; leaving the context waits for it.

    What the work raises is raised by the next `check` after its end, `wait` or `start`.
    """

    def __init__(self) -> None:
        self._thread: Thread | None = None
        self._error: BaseException | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.wait()

    def start(self, work: Callable[[], None]) -> None:
        self.wait()
        self._thread = Thread(target=self._do, args=(work,))
        self._thread.start()

    def check(self) -> None:
        if self._thread is not None and not self._thread.is_alive():
            self.wait()

    def wait(self) -> None:
        if self._thread is not None:
            self._thread.join()
        self._thread, error, self._error = None, self._error, None
        if error is not None:
            raise error

    def _do(self, work: Callable[[], None]) -> None:
        try:
            work()
        except BaseException as error:
            self._error = error
