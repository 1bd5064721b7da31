"""stdin, stdout, stderr and Ctrl-C, in whatever state a command finds them."""

import os
import signal
import sys
from collections.abc import Callable
from types import FrameType
from typing import Any

from mt.errors import MtError

INTERRUPTED = 130  # exit status after Ctrl-C
_SHOW_CURSOR = "\033[?25h"


def run(command: Callable[[], None]) -> int:
    """Run a command to its end; gives its exit status.

    What goes wrong is said on stderr in one or two lines without a traceback, but a fault of the program itself.
    """
    _open_closed_streams()
    stop = _StopSignals()
    status, message = 0, ""
    try:
        command()
    except MtError as error:
        status, message = error.exit_status, str(error)
    except SystemExit as end:
        status = end.code if isinstance(end.code, int) else int(end.code is not None)
        message = end.code if isinstance(end.code, str) else ""
    except OSError as error:
        if stop.heard or error.filename is not None:
            raise
        status, message = 1, f"cannot write: {error.strerror}"  # of the disk, or of a stdout that help was written to
    except BaseException:
        if not stop.heard:
            raise
        status = INTERRUPTED  # a library may have turned the interruption into an error of its own
    stop.end()
    if stop.heard and status == INTERRUPTED and "RANK" not in os.environ:  # whoever started several processes says it
        message = message or f"stopped by {stop.heard}"
    try:
        sys.stdout.flush()
    except OSError as error:
        _abandon_stdout()
        status, message = 1, message or _stdout_failure(error)
    if message:
        sys.stderr.write("".join(f"mt: {line}\n" for line in message.split("\n")))
    return status


def write_out(text: str) -> None:
    """Write results to stdout, at once and as UTF-8; the only way there.

    Ends the command quietly where the reader has gone, as after `| head`; raises MtError when stdout is full or closed.
    """
    try:
        sys.stdout.flush()
        sys.stdout.buffer.write(text.encode(errors="replace"))
        sys.stdout.buffer.flush()
    except OSError as error:
        _abandon_stdout()
        if isinstance(error, BrokenPipeError):
            raise SystemExit(1) from None
        raise MtError(_stdout_failure(error)) from None


def _stdout_failure(error: OSError) -> str:
    return "" if isinstance(error, BrokenPipeError) else f"stdout: cannot be written: {error.strerror}"


def _abandon_stdout() -> None:
    """Let what Python still holds for stdout go nowhere, else it fails once more when Python ends."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)


def _open_closed_streams() -> None:
    """Give a stream that the shell has closed a descriptor that fails when used, else a file opened later gets it."""
    for number, name, flags in ((0, "stdin", os.O_WRONLY), (1, "stdout", os.O_RDONLY), (2, "stderr", os.O_WRONLY)):
        if getattr(sys, name) is None:
            opened = os.open(os.devnull, flags)
            if opened != number:
                os.dup2(opened, number)
                os.close(opened)
            setattr(sys, name, os.fdopen(number, "w" if number else "r", encoding="utf-8", closefd=False))


class _StopSignals:
    """Ctrl-C and SIGTERM end the command as an exception; Ctrl-C again, while that takes its time, at once.

    SIGTERM again changes nothing: schedulers send it to a process and to its parent, which passes it on.
    Where the shell has told the command to ignore one, or something else handles it, nothing changes.
    """

    def __init__(self) -> None:
        self.heard = ""  # the first of them
        defaults = {signal.SIGINT: signal.default_int_handler, signal.SIGTERM: signal.SIG_DFL}
        self._ours = {number: by for number, by in defaults.items() if signal.getsignal(number) is by}
        for number in self._ours:
            signal.signal(number, self._hear)
        self._hook, sys.unraisablehook = sys.unraisablehook, self._on_unraisable

    def end(self) -> None:
        """The command is over: nothing is left to interrupt."""
        for number, default in self._ours.items():
            signal.signal(number, signal.SIG_IGN if self.heard else default)
        sys.unraisablehook = self._hook

    def _hear(self, number: int, frame: FrameType | None) -> None:
        if not self.heard:
            self.heard = "Ctrl-C" if number == signal.SIGINT else "SIGTERM"
            raise KeyboardInterrupt
        if number == signal.SIGINT:
            self._leave()

    def _on_unraisable(self, lost: Any) -> None:
        """Python drops an exception raised inside a callback: then the command has to end here."""
        if isinstance(lost.exc_value, KeyboardInterrupt):
            self._leave()
        self._hook(lost)

    def _leave(self) -> None:
        show_cursor = _SHOW_CURSOR if sys.stderr.isatty() else ""  # a progress bar has hidden it
        os.write(2, f"\n{show_cursor}mt: stopped by {self.heard}\n".encode())
        os._exit(INTERRUPTED)
