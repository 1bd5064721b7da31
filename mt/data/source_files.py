"""The files that entries of the config name: globs and lists as entries of single files, and what a file was when read.

A file is a path on this machine or a URL.
"""

import glob
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from mt import remote
from mt.console import counted
from mt.data.lines import COMPRESSED
from mt.data.manifest import sha256
from mt.data_config import DataConfig, Files, Input, listed, name_of
from mt.errors import DataError
from mt.remote import is_url

# --- Globs and lists ---------------------------------------------------------------------------------------------


def with_single_files(data: DataConfig) -> tuple[DataConfig, dict[str, list[int]]]:
    """The settings with an entry for each file, or pair of files, that a glob or a list names.

    Beside them, by folder of prepared data, for each of these entries the number of the one that it comes from.
    Raises DataError as `single_files` does.
    """
    split = {
        folder: [(number, part) for number, entry in enumerate(entries) for part in single_files(entry, data)]
        for folder, entries in data.splits.items()
    }
    parts = {folder: tuple(part for _, part in numbered) for folder, numbered in split.items()}
    sets = {
        kind: {name: parts[f"{kind}/{name}" if name else kind] for name in getattr(data, kind)}
        for kind in ("valid", "test")
    }
    single = data.model_copy(update={"train": parts["train"], **sets})
    return single, {folder: [number for number, _ in numbered] for folder, numbered in split.items()}


def single_files(entry: Input, data: DataConfig) -> list[Input]:
    """An entry as entries that name one file, or two of a pair; globs in the order of their characters.

    Raises DataError when a glob matches nothing, or when files have no partner.
    """
    if entry.prefix is not None:
        prefixes = [prefix for each in listed(entry.prefix) for prefix in _prefixes(each, (data.src, data.tgt))]
        return [entry.model_copy(update={"prefix": prefix}) for prefix in prefixes]
    if entry.pairs is not None:
        return [entry.model_copy(update={"pairs": file}) for file in _all_files(entry.pairs)]
    if entry.src is None or entry.tgt is None:
        return [entry]
    sources, targets = _all_files(entry.src), _all_files(entry.tgt)
    if len(sources) != len(targets):
        raise DataError(
            f"{name_of(entry)}: src names {counted(len(sources), 'file')} and tgt {len(targets):,}: "
            "they must be as many, as each source file has its target file"
        )
    both = zip(sources, targets, strict=True)
    return [entry.model_copy(update={"src": source, "tgt": target}) for source, target in both]


def _all_files(files: Files) -> list[str]:
    return [file for each in listed(files) for file in (_matching(each) if _is_pattern(each) else [each])]


def _prefixes(prefix: str, languages: tuple[str, str]) -> list[str]:
    """What files of both languages have before the language."""
    if not _is_pattern(prefix) or _with_any_suffix(f"{prefix}.{languages[0]}"):
        return [prefix]
    starts = {language: _starts(prefix, language) for language in languages}
    if not any(starts.values()):
        raise DataError(f"{prefix}.{languages[0]}: no file matches{_start(prefix)}")
    for language in languages:
        alone = [start for other in languages for start in starts[other] - starts[language]]
        if alone:
            raise DataError(f"{min(alone)}.{language}: no such file, but the other language's is there")
    return sorted(starts[languages[0]])


def _starts(prefix: str, language: str) -> set[str]:
    ends = [f".{language}{suffix}" for suffix in ("", *COMPRESSED)]
    files = _found(f"{prefix}.{language}*")
    return {file.removesuffix(end) for file in files for end in ends if file.endswith(end)}


def _is_pattern(name: str) -> bool:
    return remote.has_pattern(name) if is_url(name) else glob.has_magic(name) and not Path(name).exists()


def _matching(pattern: str) -> list[str]:
    if found := _found(pattern):
        return found
    raise DataError(f"{pattern}: no file matches{_start(pattern)}")


def _found(pattern: str) -> list[str]:
    if is_url(pattern):
        return remote.matching(pattern)
    return sorted(name for name in glob.glob(pattern, recursive=True) if Path(name).is_file())


# --- Single files ------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class SourceFile:
    """A file as it was when it was read."""

    path: str
    bytes: int
    mtime_ns: int = 0  # of a local file
    sha256: str = ""  # likewise
    version: str = ""  # of a URL: what its store says of the content

    @classmethod
    def now(cls, path: str, known: Mapping[str, "SourceFile"]) -> "SourceFile":
        """What a file is now; known: what files were, of which those of the same size and time are not read again."""
        if is_url(path):
            size, version = remote.stamp(path) or (0, "")
            return cls(path, size, version=version)
        stat = Path(path).stat()
        if (before := known.get(path)) and (before.bytes, before.mtime_ns) == (stat.st_size, stat.st_mtime_ns):
            return before
        return cls(path, stat.st_size, stat.st_mtime_ns, sha256(Path(path)))

    def is_same(self, path: str) -> bool:
        """Whether the file at `path` has this content; it is not read where its size and time are the same."""
        if is_url(path):
            return remote.stamp(path) == (self.bytes, self.version)
        local = Path(path)
        if not local.is_file() or (stat := local.stat()).st_size != self.bytes:
            return False
        return stat.st_mtime_ns == self.mtime_ns or sha256(local) == self.sha256


def files_of(entries: list[Input], data: DataConfig) -> list[str]:
    """All files of entries, whose globs and lists are followed; raises DataError when one is missing."""
    parts = (part for entry in entries for part in single_files(entry, data))
    return [file for part in parts for file in source_files(part, data.src, data.tgt)]


def source_files(entry: Input, src: str, tgt: str) -> list[str]:
    """The files of an entry of single files, none for the hub; raises DataError when one is missing."""
    if isinstance(entry.prefix, str):
        return [_side(entry.prefix, language) for language in (src, tgt)]
    if isinstance(entry.pairs, str):
        return [_existing(entry.pairs)]
    if isinstance(entry.src, str) and isinstance(entry.tgt, str):
        return [_existing(entry.src), _existing(entry.tgt)]
    if entry.demo is not None:
        grammar = (Path(__file__).parents[1] / "demo").glob("*.py")  # a changed grammar gives other text
        return sorted(map(str, grammar))
    if entry.dataset is not None and _is_folder(entry.dataset):
        return [str(path) for path in sorted(Path(entry.dataset).rglob("[!.]*")) if path.is_file()]
    return []


def _side(prefix: str, language: str) -> str:
    _refuse_page_of_hub(prefix)
    name = f"{prefix}.{language}"
    if found := _with_any_suffix(name):
        return found
    raise DataError(f"{name}: no such file, nor {', '.join(COMPRESSED)} of it{_prefix_hint(prefix, name)}")


def _with_any_suffix(name: str) -> str | None:
    return next((name + suffix for suffix in ("", *COMPRESSED) if _is_file(name + suffix)), None)


def _is_file(name: str) -> bool:
    return remote.stamp(name) is not None if is_url(name) else Path(name).is_file()


def _existing(name: str) -> str:
    _refuse_page_of_hub(name)
    if _is_file(name):
        return name
    what = "is a folder, not a file" if not is_url(name) and Path(name).is_dir() else "no such file"
    raise DataError(f"{name}: {what}{_start(name)}")


def _refuse_page_of_hub(name: str, rest: str = "(?:/tree/.*)?/?") -> None:
    """A page about a data set is none of its files. rest: what may follow the name of the data set."""
    if found := re.fullmatch(rf"(?:https?://huggingface\.co/datasets|hf://datasets)/([^/]+/[^/]+){rest}", name):
        raise DataError(f"{name}: for a data set of the Hugging Face hub write {{dataset: {found[1]}, split: ...}}")


def _prefix_hint(prefix: str, name: str) -> str:
    if Path(prefix).is_file():
        return f"; {prefix} is a single file: name the common start of both names"
    if Path(prefix).is_dir():
        return f"; {prefix} is a folder: name files as {prefix}/PREFIX, or a data set as {{dataset: {prefix}}}"
    if found := re.fullmatch(r"(wmt/)?(wmt\d\d)", prefix.lower()):
        return f"; on the Hugging Face hub it is {{dataset: wmt/{found[2]}, config: LANGUAGES, split: train}}"
    if re.fullmatch(r"[\w.-]+/[\w.-]+", prefix) and not Path(prefix).parent.is_dir():
        return f"; a data set of the Hugging Face hub is written {{dataset: {prefix}, split: train}}"
    return _start(name)


def _is_folder(dataset: str) -> bool:
    """Whether it is a local folder; raises DataError for what can be neither a folder nor a name on the hub."""
    if is_url(dataset):
        _refuse_page_of_hub(dataset, rest="(?:/.*)?")
        raise DataError(
            f"{dataset}: a dataset is a name on the Hugging Face hub or a local folder; "
            "name files at an address as prefix, src + tgt, or pairs"
        )
    if Path(dataset).is_dir():
        return True
    if dataset.startswith(("/", ".", "~")) or dataset.count("/") > 1:
        raise DataError(f"{dataset}: no such folder{_start(dataset)}")
    return False


def _start(name: str) -> str:
    return "" if is_url(name) or Path(name).is_absolute() else f"; paths start at {Path.cwd()}"
