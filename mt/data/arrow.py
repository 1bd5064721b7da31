"""Sentence pairs from Arrow tables: Parquet files, and the `datasets` library with the Hugging Face hub behind it."""

import io
import os
import urllib.error
import urllib.request
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from mt.data import pairs
from mt.data.lines import opened
from mt.data.pairs import Pairs, one_line_pairs
from mt.data_config import Input, name_of
from mt.errors import DataError
from mt.remote import is_web

HUB_SECONDS = 3  # a hub that does not answer within this time counts as unreachable


def parquet_pairs(path: str, src: str, tgt: str) -> Iterator[Pairs]:
    """A Parquet file, plain or compressed as a whole; raises DataError when it is damaged or lacks a language."""
    import pyarrow
    import pyarrow.parquet

    with opened(path) as file:
        try:
            # Parquet is read from its end, so a file compressed as a whole, or from the web, must be in memory.
            is_seekable = path.lower().endswith(".parquet") and not is_web(path)
            table = pyarrow.parquet.ParquetFile(file if is_seekable else io.BytesIO(file.read()))
            batches = (pyarrow.Table.from_batches([batch]) for batch in table.iter_batches(batch_size=pairs.BLOCK))
            yield from _table_pairs(batches, table.metadata.num_rows, src, tgt, path)
        except pyarrow.ArrowException as error:
            raise DataError(f"{path}: cannot be read as Parquet: {error}") from None


def dataset_pairs(entry: Input, src: str, tgt: str) -> Iterator[Pairs]:
    """A data set of the hub, or a local folder of the same layout, which is streamed and so not copied into a cache.

    Raises DataError when it cannot be reached or read, or lacks one of the languages.
    """
    dataset, config, split, name = str(entry.dataset), entry.config, entry.split, name_of(entry)
    is_local = Path(dataset).is_dir()
    if is_local and entry.revision is not None:
        raise DataError(f"{name}: revision is of a data set on the Hugging Face hub, and this is a local folder")
    is_offline = not is_local and not _hub_answers()
    import datasets

    if is_offline:
        _stay_offline()
    datasets.disable_progress_bars()
    streaming = is_local or entry.stream
    try:
        if is_local:
            dataset, config = _plain_folder(dataset, config)
        data = datasets.load_dataset(dataset, config, split=split, revision=entry.revision, streaming=streaming)
        rows = _rows_of_stream(data, split) if streaming else data.num_rows
        yield from _table_pairs(data.with_format("arrow").iter(pairs.BLOCK), rows, src, tgt, name)
    except (OSError, ValueError, RuntimeError, datasets.exceptions.DatasetsError) as error:
        if is_offline or isinstance(error, ConnectionError):
            raise DataError(
                f"{name}: the Hugging Face hub cannot be reached; name a local folder of the same layout as "
                "dataset, or files as prefix, src + tgt, or pairs"
            ) from None
        raise DataError(f"{name}: cannot be read: {str(error).splitlines()[0]}") from None


def _stay_offline() -> None:
    """Let the libraries use their cache only: they would otherwise try the hub for 23 s.

    Setting HF_HUB_OFFLINE is not enough: they may have been imported, and have read it, before.
    """
    import datasets
    import huggingface_hub

    datasets.config.HF_HUB_OFFLINE = True
    huggingface_hub.constants.HF_HUB_OFFLINE = True


def _hub_answers() -> bool:
    try:
        urllib.request.urlopen(os.environ.get("HF_ENDPOINT", "https://huggingface.co"), timeout=HUB_SECONDS).close()
    except urllib.error.HTTPError:
        return True
    except (OSError, ValueError):
        return False
    return True


def _plain_folder(dataset: str, config: str | None) -> tuple[str, str | None]:
    """In a folder without the hub's README, a configuration is the name of a folder inside; otherwise it is ignored."""
    import datasets

    if config is None or datasets.get_dataset_config_names(dataset) != ["default"]:
        return dataset, config
    inside = Path(dataset, config)
    return str(inside) if inside.is_dir() else dataset, None


def _rows_of_stream(data: Any, split: str) -> int:
    """The number of rows that the folder's README gives; 0 where it gives none."""
    splits = data.info.splits or {}
    return int(splits[split].num_examples) if split in splits else 0


def _table_pairs(tables: Iterable[Any], rows: int, src: str, tgt: str, name: str) -> Iterator[Pairs]:
    """Tables with a `translation` column of both languages, as WMT has, or with a column for each language.

    rows: of all tables, 0 where unknown.
    """
    read = 0
    for table in tables:
        flat = table.flatten()
        numbers = range(read + 1, read + 1 + table.num_rows)
        read += table.num_rows
        share = min(1.0, read / rows) if rows else 0.0
        yield one_line_pairs(_column(flat, src, name), _column(flat, tgt, name), numbers, share, {})


def _column(table: Any, language: str, name: str) -> list[str]:
    for column in (f"translation.{language}", language):
        if column in table.column_names:
            values = table.column(column).to_pylist()
            if all(isinstance(value, str | None) for value in values):
                return ["" if value is None else value for value in values]
    raise DataError(
        f"{name}: no text column {language}, nor translation with {language}: {', '.join(table.column_names)}"
    )


# --- Test sets -----------------------------------------------------------------------------------------------------


def cached_translations(dataset: str, config: str, split: str) -> list[dict[str, str]] | None:
    """A split in the cache of `datasets`, or None; read directly, as `datasets` itself would ask the hub first."""
    from datasets import Dataset
    from datasets.config import HF_DATASETS_CACHE

    folder = Path(HF_DATASETS_CACHE) / dataset.replace("/", "___") / config
    files = sorted(folder.glob(f"*/*/{dataset.rsplit('/', 1)[-1]}-{split}.arrow"))
    return list(Dataset.from_file(str(files[-1]))["translation"]) if files else None


def hub_translations(dataset: str, config: str, split: str) -> list[dict[str, str]]:
    """A split from the hub; streamed, as `datasets` would otherwise download all splits. Raises its exceptions."""
    from datasets import load_dataset

    return [row["translation"] for row in load_dataset(dataset, config, split=split, streaming=True)]
