"""The tokenizers of a language pair: one that both languages share, or one for each."""

import hashlib
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Self

from mt.data.tokenizer import Tokenizer
from mt.data_config import DataConfig
from mt.errors import DataError

SOURCE_FILE, TARGET_FILE = "tokenizer.model", "tokenizer.target.model"
TOKENIZER_FILES = (SOURCE_FILE, TARGET_FILE)  # of prepared data and checkpoints; the second only where there are two


class Tokenizers:
    """The tokenizer of the source and that of the target: the same object where one serves both.

    Two tokenizers may number their pieces alike, as those of OPUS-MT do, or each in its own way.
    """

    def __init__(self, source: Tokenizer, target: Tokenizer | None = None) -> None:
        self.source = source
        self.target = source if target is None or target.model_bytes == source.model_bytes else target

    @classmethod
    def read(cls, files: Mapping[str, bytes]) -> Self:
        """The tokenizers in files of a folder, by name; raises DataError when one is not a sentencepiece model."""
        target = files.get(TARGET_FILE)
        return cls(Tokenizer(files[SOURCE_FILE]), None if target is None else Tokenizer(target))

    @property
    def files(self) -> dict[str, bytes]:
        """What `read` takes."""
        return {SOURCE_FILE: self.source.model_bytes} | (
            {} if self.is_joint else {TARGET_FILE: self.target.model_bytes}
        )

    @property
    def is_joint(self) -> bool:
        """Whether one tokenizer serves both languages."""
        return self.source is self.target

    @cached_property
    def share_ids(self) -> bool:
        """Whether an id stands for the same piece on both sides, so that both may have one embedding."""
        return self.is_joint or self.source.vocabulary == self.target.vocabulary

    @cached_property
    def fingerprint(self) -> str:
        """Tokenizers with the same fingerprint encode both languages in the same way."""
        if self.is_joint:
            return self.source.fingerprint
        return hashlib.sha256(f"{self.source.fingerprint}\n{self.target.fingerprint}".encode()).hexdigest()


def read_tokenizer_files(folder: Path) -> dict[str, bytes]:
    """The tokenizer files that a folder holds, by name."""
    return {name: (folder / name).read_bytes() for name in TOKENIZER_FILES if (folder / name).exists()}


def tokenizer_paths(data: DataConfig) -> Sequence[str]:
    """What `data.tokenizer` names: nothing, the file of a tokenizer for both languages, or one for each."""
    given = data.tokenizer
    return [] if given is None else [given] if isinstance(given, str) else given


def given_tokenizers(paths: Sequence[str]) -> Tokenizers:
    """Those in the files that `data.tokenizer` names; raises DataError where one cannot be read."""
    return Tokenizers(*map(_read_tokenizer, paths))


def _read_tokenizer(path: str) -> Tokenizer:
    try:
        return Tokenizer(Path(path).read_bytes())
    except OSError as error:
        raise DataError(f"data.tokenizer {path}: cannot be read: {error.strerror}") from None
    except DataError as error:
        raise DataError(f"data.tokenizer {path}: {error}") from None
