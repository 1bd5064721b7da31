"""Sentence pairs from each kind of entry: text files, tables, `datasets`, the demo grammar."""

from collections.abc import Iterator

from mt.data.arrow import dataset_pairs, parquet_pairs
from mt.data.pairs import Pairs, row_pairs, text_pairs
from mt.data.source_files import source_files
from mt.data.tabular import jsonl_pairs, tsv_pairs
from mt.data_config import Input, table_kind
from mt.errors import DataError


def read_pairs(entry: Input, src: str, tgt: str, seed: int) -> Iterator[Pairs]:
    """The pairs of an entry of single files, `src` language first, in blocks.

    Raises DataError when a file is missing or damaged, or when two files differ in their number of lines.
    """
    if entry.demo is not None:
        return _demo(entry.split, entry.demo, (src, tgt), seed)
    files = source_files(entry, src, tgt)
    if entry.dataset is not None:
        return dataset_pairs(entry, src, tgt)
    if entry.pairs is None:
        return text_pairs(*files)
    kind = table_kind(files[0])
    if kind == ".tsv":
        return tsv_pairs(files[0], entry, src, tgt)
    if kind == ".jsonl":
        return jsonl_pairs(files[0], src, tgt)
    if kind == ".parquet":
        return parquet_pairs(files[0], src, tgt)
    raise DataError(
        f"{files[0]}: pairs come from .tsv, .jsonl and .parquet files; give text files as prefix or src + tgt"
    )


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
