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
