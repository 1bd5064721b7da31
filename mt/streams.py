"""stdin, stdout, stderr, Ctrl-C and SIGTERM, whatever state the shell has left them in."""

import os
import signal
import sys
from collections.abc import Callable
from contextlib import suppress
from types import FrameType
from typing import Any

from mt.errors import MtError

INTERRUPTED = 130  # exit status after Ctrl-C
_SHOW_CURSOR = "\033[?25h"


def run(command: Callable[[], None]) -> int:
    """Run a command and return its exit status.

    Errors are reported on stderr in one or two lines; only a fault of the program itself gives a traceback.
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
        status, message = 1, f"cannot write: {error.strerror}"  # the disk, or the stdout of --help
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
        with suppress(OSError):
            sys.stderr.write("".join(f"mt: {line}\n" for line in message.split("\n")))
    return status


def leave_at_once(heard: str) -> None:
    """End this process without waiting for anything."""
    if "RANK" not in os.environ:
        show_cursor = _SHOW_CURSOR if sys.stderr.isatty() else ""  # a progress bar has hidden it
        os.write(2, f"\n{show_cursor}mt: stopped by {heard}\n".encode())
    os._exit(INTERRUPTED)


def write_out(text: str) -> None:
    """Write results to stdout, at once and as UTF-8; nothing else writes there.

    Ends the command silently where the reader has ended, as with `| head`; raises MtError if stdout is full or closed.
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
    """Discard what is still buffered for stdout, else it fails once more when Python exits."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)


def _open_closed_streams() -> None:
    """Give each closed stream a descriptor that fails when used; else a file opened later would get its number."""
    for number, name, flags in ((0, "stdin", os.O_WRONLY), (1, "stdout", os.O_RDONLY), (2, "stderr", os.O_WRONLY)):
        if getattr(sys, name) is None:
            opened = os.open(os.devnull, flags)
            if opened != number:
                os.dup2(opened, number)
                os.close(opened)
            setattr(sys, name, os.fdopen(number, "w" if number else "r", encoding="utf-8", closefd=False))


class _Stop(KeyboardInterrupt):
    """A stop signal; after a plain KeyboardInterrupt has left exec(), even if caught, Python ends itself by SIGINT."""


class _StopSignals:
    """The first Ctrl-C or SIGTERM raises KeyboardInterrupt; a Ctrl-C after that ends the process at once.

    A second SIGTERM is ignored: schedulers send it to a process and to its parent, which passes it on.
    A signal that the shell has set to be ignored, or that something else handles, is left as it is.
    """

    def __init__(self) -> None:
        self.heard = ""  # the first of them
        defaults = {signal.SIGINT: signal.default_int_handler, signal.SIGTERM: signal.SIG_DFL}
        self._ours = {number: by for number, by in defaults.items() if signal.getsignal(number) is by}
        for number in self._ours:
            signal.signal(number, self._hear)
        self._hook, sys.unraisablehook = sys.unraisablehook, self._on_unraisable

    def end(self) -> None:
        """The command is over and cannot be interrupted any more."""
        for number, default in self._ours.items():
            signal.signal(number, signal.SIG_IGN if self.heard else default)
        sys.unraisablehook = self._hook

    def _hear(self, number: int, frame: FrameType | None) -> None:
        if not self.heard:
            self.heard = "Ctrl-C" if number == signal.SIGINT else "SIGTERM"
            raise _Stop
        if number == signal.SIGINT:
            leave_at_once(self.heard)

    def _on_unraisable(self, lost: Any) -> None:
        """Python drops an exception raised inside a callback, so the process is ended here."""
        if isinstance(lost.exc_value, KeyboardInterrupt):
            leave_at_once(self.heard)
        self._hook(lost)
