"""Where `mt` and `python -m mt` begin: Ctrl-C and stdout are in good hands before anything large is imported."""

import ctypes
import os
import signal
import sys

from mt import streams

_PR_SET_PDEATHSIG = 1  # of Linux's prctl


def main() -> None:
    """Run the command line; a person's mistake ends in one sentence, never a traceback."""
    if "RANK" in os.environ:
        _end_with_launcher()
    sys.exit(streams.run(_command_line))


def _end_with_launcher() -> None:
    """Let this process of a run be stopped when its launcher dies; leave at once where it has died already.

    Asked before torch is imported, which takes seconds: who asks later may ask when it is too late.
    """
    launcher = int(os.environ.get("MT_LAUNCHER", os.getppid()))  # torchrun does not say which process it is
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
    if os.getppid() != launcher:
        sys.exit(streams.INTERRUPTED)


def _command_line() -> None:
    from mt.cli import app

    app()


if __name__ == "__main__":
    main()
