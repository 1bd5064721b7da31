"""Where `mt` and `python -m mt` begin: Ctrl-C and stdout are in good hands before anything large is imported."""

import sys

from mt import streams


def main() -> None:
    """Run the command line; a person's mistake ends in one sentence, never a traceback."""
    sys.exit(streams.run(_command_line))


def _command_line() -> None:
    from mt.cli import app

    app()


if __name__ == "__main__":
    main()
