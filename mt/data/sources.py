"""Sentence pairs from each kind of entry: text files, tables, `datasets`, the demo grammar."""

import re
from collections.abc import Iterator
from pathlib import Path

from mt.data.arrow import dataset_pairs, parquet_pairs
from mt.data.lines import COMPRESSED
from mt.data.pairs import Pairs, row_pairs, text_pairs
from mt.data.tabular import jsonl_pairs, tsv_pairs
from mt.data_config import Input
from mt.errors import DataError


def read_pairs(entry: Input, src: str, tgt: str, seed: int) -> Iterator[Pairs]:
    """The pairs of an entry, `src` language first, in blocks.

    Raises DataError when a file is missing or damaged, or when two files differ in their number of lines.
    """
    if entry.demo is not None:
        return _demo(entry.split, entry.demo, (src, tgt), seed)
    files = source_files(entry, src, tgt)
    if entry.dataset is not None:
        return dataset_pairs(entry.dataset, entry.config, entry.split, (src, tgt))
    if entry.pairs is None:
        return text_pairs(*files)
    kind = _table_kind(files[0])
    if kind == ".tsv":
        return tsv_pairs(files[0], entry, src, tgt)
    if kind == ".jsonl":
        return jsonl_pairs(files[0], src, tgt)
    return parquet_pairs(files[0], src, tgt)


def source_files(entry: Input, src: str, tgt: str) -> list[Path]:
    """The local files of an entry, none for the hub; raises DataError when one is missing."""
    for name in (entry.prefix, entry.src, entry.tgt, entry.pairs, entry.dataset):
        if name is not None:
            _refuse_address(name)
    if entry.prefix is not None:
        return [_with_any_suffix(entry.prefix, language) for language in (src, tgt)]
    if entry.pairs is not None:
        return [_existing(entry.pairs)]
    if entry.src is not None and entry.tgt is not None:
        return [_existing(entry.src), _existing(entry.tgt)]
    if entry.demo is not None:
        return sorted((Path(__file__).parents[1] / "demo").glob("*.py"))  # a changed grammar gives other text
    if entry.dataset is not None and _is_folder(entry.dataset):
        return [path for path in sorted(Path(entry.dataset).rglob("[!.]*")) if path.is_file()]
    return []


def _refuse_address(name: str) -> None:
    scheme, separator, rest = name.partition("://")
    if not separator or not scheme.isalnum():
        return
    if found := re.fullmatch(r"(?:huggingface\.co/datasets|datasets)/([^/]+/[^/]+)(?:/.*)?", rest):
        raise DataError(f"{name}: for a data set of the Hugging Face hub write {{dataset: {found[1]}, split: ...}}")
    raise DataError(
        f"{name}: text is read from this machine and from the Hugging Face hub, not from {scheme}:// addresses; "
        "copy it here first, and name the copy"
    )


def _with_any_suffix(prefix: str, language: str) -> Path:
    name = f"{prefix}.{language}"
    for suffix in ("", *COMPRESSED):
        if (path := Path(name + suffix)).is_file():
            return path
    raise DataError(f"{name}: no such file, nor {', '.join(COMPRESSED)} of it{_prefix_hint(prefix, name)}")


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


def _existing(name: str) -> Path:
    path = Path(name)
    if path.is_file():
        return path
    what = "is a folder, not a file" if path.is_dir() else "no such file"
    raise DataError(f"{name}: {what}{_start(name)}")


def _is_folder(dataset: str) -> bool:
    """Whether it is a local folder; raises DataError for what can be neither a folder nor a name on the hub."""
    if Path(dataset).is_dir():
        return True
    if dataset.startswith(("/", ".", "~")) or dataset.count("/") > 1:
        raise DataError(f"{dataset}: no such folder{_start(dataset)}")
    return False


def _start(name: str) -> str:
    return "" if Path(name).is_absolute() else f"; paths start at {Path.cwd()}"


def _table_kind(path: Path) -> str:
    for suffix in reversed(path.suffixes[-2:]):
        if suffix.lower() in (".tsv", ".jsonl", ".parquet"):
            return suffix.lower()
    raise DataError(f"{path}: pairs come from .tsv, .jsonl and .parquet files; give text files as prefix or src + tgt")


def _demo(split: str, count: int, languages: tuple[str, str], seed: int) -> Iterator[Pairs]:
    from mt.demo import demo_pairs

    if set(languages) != {"en", "de"}:
        raise DataError(
            "the demo grammar speaks English and German: data.src and data.tgt are en and de, "
            f"not {', '.join(languages)}"
        )
    pairs = demo_pairs(split, count, seed)
    sides = slice(None, None, 1 if languages[0] == "en" else -1)
    rows = ((number, *pair[sides], "") for number, pair in enumerate(pairs, 1))
    yield from row_pairs(rows, lambda read: read / count)
