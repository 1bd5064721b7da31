"""Asking a run to stop: SIGTERM and Ctrl-C are remembered, so that the run can save before it ends."""

import signal
from types import FrameType, TracebackType
from typing import Self

from mt.errors import Interrupted as Interrupted
from mt.streams import leave_at_once


class StopRequest:
    """While active, SIGTERM or Ctrl-C sets `requested`; Ctrl-C after that ends the process at once.

    SIGTERM again does not: schedulers send it to a process and to its parent, which passes it on.
    """

    def __init__(self) -> None:
        self.requested = False

    def __enter__(self) -> Self:
        self._before = {number: signal.signal(number, self._note) for number in (signal.SIGINT, signal.SIGTERM)}
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def check(self, *_: object) -> None:
        """Raise Interrupted when the run was asked to stop; for work that is long and can be left undone."""
        if self.requested:
            raise Interrupted("asked to stop")

    def _note(self, number: int, frame: FrameType | None) -> None:
        if self.requested and number == signal.SIGINT:
            leave_at_once("Ctrl-C")
        self.requested = True
