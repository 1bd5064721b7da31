"""Errors a person can act on: each message says what, where, and what to do next."""


class MtError(Exception):
    """A failure with a message for the person at the terminal, shown without a traceback."""

    exit_status = 1


class UsageError(MtError):
    """A command was given arguments that cannot be carried out."""

    exit_status = 2


class ConfigError(MtError):
    """A configuration file or override is wrong."""

    exit_status = 2


class DataError(MtError):
    """The text or the prepared data cannot be used."""

    exit_status = 2


class CheckpointError(MtError):
    """A checkpoint is missing, damaged, or does not fit."""

    exit_status = 2


class WriteError(MtError):
    """A file cannot be written where it was to be: no such folder, no permission, a folder of that name."""

    exit_status = 2


class DiskError(WriteError):
    """A file cannot be written because the disk is full or fails."""

    exit_status = 1


class Interrupted(MtError):  # noqa: N818 (not an error: it was asked for)
    """The command was asked to stop, by Ctrl-C or SIGTERM, and has kept what it had."""

    exit_status = 130
