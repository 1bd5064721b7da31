"""Chunks of an output that several processes make: files in a folder until each has its turn."""

import hashlib
import json
import shutil
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mt.distributed import World
from mt.errors import DataError
from mt.files import write_whole

POLL_SECONDS = 0.05  # between two looks for the chunk of another process


class Parts:
    """The folder .NAME.parts beside an output, on a file system that all processes see.

    A chunk's file is named by the line it ends with and by all that it was made from: what an earlier job left there
    is used if it would be made again, by however many processes.
    """

    def __init__(self, target: Path, settings: Mapping[str, Any], world: World) -> None:
        self._folder = target.with_name(f".{target.name}.parts")
        self._settings, self._world = json.dumps(dict(settings), sort_keys=True), world

    def open(self) -> None:
        """Called by the main process before the others; raises DataError where no folder can be made."""
        try:
            self._folder.mkdir(exist_ok=True)
        except OSError as error:
            raise DataError(f"{self._folder}: cannot be made: {error.strerror}") from None

    def check(self) -> None:
        """Raise DataError where this process does not see what the main process has opened."""
        if not self._folder.is_dir():
            raise DataError(
                f"process {self._world.rank} does not see {self._folder}: "
                "the output has to lie on a file system that all machines share"
            )

    def has(self, lines: int, input_sha256: str) -> bool:
        """Whether the chunk that ends with this line has been made; the hash is that of all input up to there."""
        return self._file(lines, input_sha256).exists()

    def wait(self, lines: int, input_sha256: str) -> str:
        """That chunk, when it has been made: whoever started the processes ends this one if its maker dies."""
        while not self.has(lines, input_sha256):
            time.sleep(POLL_SECONDS)
        return self._file(lines, input_sha256).read_bytes().decode()

    def put(self, text: str, lines: int, input_sha256: str) -> None:
        """Keep a chunk; raises WriteError when it cannot be written."""
        write_whole(self._file(lines, input_sha256), text)

    def drop(self, lines: int, input_sha256: str) -> None:
        """Forget a chunk that is part of the output now."""
        self._file(lines, input_sha256).unlink(missing_ok=True)

    def close(self) -> None:
        """The output is whole."""
        shutil.rmtree(self._folder, ignore_errors=True)

    def _file(self, lines: int, input_sha256: str) -> Path:
        made_from = hashlib.sha256(f"{self._settings}{input_sha256}".encode()).hexdigest()
        return self._folder / f"{lines:012d}-{made_from[:16]}"
