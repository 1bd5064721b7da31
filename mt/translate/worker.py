"""One block of a job translated: what a worker of a cluster does, whichever machine it is on."""

import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from mt.data.lines import refuse_giant
from mt.errors import DataError, MtError
from mt.translate.blocks import Block, Translated
from mt.translate.chunks import notes_of, rendered, results_of, texts_of
from mt.translate.formats import Result, Results, Table, line_format, new_names
from mt.translate.output import compressor
from mt.translate.parquet import from_stream, texts_in, to_stream
from mt.translate.plan import Job, Source, record_fields
from mt.translate.reading import decoded
from mt.translate.translator import Translator


def translated(translator: Translator, job: Job, source: Source, block: Block) -> Translated:
    """What a block of that source becomes; an error that a person can act on is a part of it."""
    try:
        if block.error:
            raise DataError(block.error)
        turned = _translated_rows if source.kind == "parquet" else _translated_lines
        return turned(translator, job, source, block)
    except MtError as error:
        return Translated(block.file, 0, b"", [], str(error))


def _translated_lines(translator: Translator, job: Job, source: Source, block: Block) -> Translated:
    form = line_format(source.kind, job.field, translator.source_language, _told(job), block.head)
    head = form.header(block.head) if isinstance(form, Table) and form.has_header else ""
    if not block.first:
        return Translated(block.file, 0, _compressed(f"{head}\n" if head else "", source), [])
    lines = decoded(io.BytesIO(block.data).readlines(), block.first, source.name, job.errors)
    results = results_of(translator, job, texts_of(form, lines, source.name, block.first), block.first)
    notes = notes_of(results, source.name, block.first)
    return Translated(block.file, len(lines), _compressed(rendered(form, lines, results), source), notes)


def _compressed(text: str, source: Source) -> bytes:
    return compressor(Path(source.target))(text.encode(errors="replace")) if text else b""


def _translated_rows(translator: Translator, job: Job, source: Source, block: Block) -> Translated:
    table = from_stream(block.data)
    texts = texts_in(table, record_fields(job.field, translator.source_language), source.name)
    for row, text in enumerate(texts, block.first):
        refuse_giant(text, f"{source.name}:{row}")
    results = results_of(translator, job, texts, block.first) if texts else []
    data = to_stream(_with_results(table, results, _told(job), source.name))
    return Translated(block.file, len(texts), data, notes_of(results, source.name, block.first))


def _with_results(table: Any, results: Sequence[Sequence[Result]], told: Results, name: str) -> Any:
    """The table with a column for each of what is told."""
    import pyarrow

    best = pyarrow.list_(pyarrow.struct([("translation", pyarrow.string()), ("score", pyarrow.float64())]))
    types = {"score": pyarrow.float64(), "n_best": best}
    try:
        names = new_names(table.column_names, told)
    except ValueError as error:
        raise DataError(f"{name}: {error}") from None
    records = [told.record(found) for found in results]
    for key, new in names.items():
        table = table.append_column(
            new, pyarrow.array([record[key] for record in records], types.get(key, pyarrow.string()))
        )
    return table


def _told(job: Job) -> Results:
    return Results(job.n_best, job.scores, job.alignments)
