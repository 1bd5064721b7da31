"""Jobs: files of any size translated in order and in bounded memory; a killed job goes on from where it was."""

import os
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import nullcontext
from itertools import islice
from pathlib import Path

from mt.console import Console, counted
from mt.device import choose_device
from mt.distributed import LostContactError, World, joined
from mt.errors import DataError, Interrupted, UsageError
from mt.files import is_special, writing
from mt.model.inference import decoding_warning
from mt.streams import write_out
from mt.translate.alignment import SHOWN, write_attention
from mt.translate.blocks import REPORT_SECONDS, SHOWN_NOTES, read_blocks, write_outputs
from mt.translate.chunks import (
    check_model,
    notes_of,
    rendered,
    results_of,
    texts_of,
)
from mt.translate.formats import Results, Table, line_format
from mt.translate.output import Output, Parts, Progress, compressor
from mt.translate.plan import Job, Source, Stream, kind_of, plan_job
from mt.translate.reading import CHUNK_LINES, GPU_CHUNK_LINES, Chunk, Reader, count_lines, next_size
from mt.translate.translator import Translation, Translator
from mt.translate.worker import translated


def translate(
    checkpoints: Sequence[Path],
    job: Job,
    device: str = "auto",
    average: int | None = None,
    decode: Mapping[str, object] | None = None,
    quiet: bool = False,
) -> None:
    """`mt translate`, in each of its processes: open the model and run the job.

    Raises what Translator and run_job raise, and UsageError where processes of several machines share the job.
    """
    size = os.environ.get("WORLD_SIZE", "1")
    if os.environ.get("LOCAL_WORLD_SIZE", size) != size:
        raise UsageError("processes of one machine share files; for several machines see --cluster")
    with joined(choose_device(device)) as world:
        console = Console(quiet or not world.is_main)
        try:
            with world.main_first():
                translator = Translator(*checkpoints, device=device, average=average, decode=decode)
            console.say(f"model: {translator.name}")
            if world.is_main and (warning := decoding_warning(translator.decode.precision, choose_device(device))):
                console.warn(warning)
            run_job(translator, job, console, world)
        except LostContactError as error:
            if world.is_main:
                raise
            raise SystemExit(error.exit_status) from None  # the process that failed, or the launcher, says why


def run_job(translator: Translator, job: Job, console: Console, world: World | None = None) -> None:
    """Translate each input into its output, line for line, in order; an output gets its name when it is whole.

    world: the processes that translate the chunks in turn; the first of them writes the outputs.
    Raises DataError naming the file and line that cannot be read, WriteError naming the file that cannot be written,
    Interrupted after a Ctrl-C where a part of the output is kept.
    """
    world = world or World()
    plan, shown = plan_job(job, world.size), list[tuple[str, str]]()
    if warning := check_model(translator, job):
        console.warn(warning)
    for source, target in plan:
        if kind_of(job, source) == "parquet":
            _translate_table(translator, job, Source(str(source), str(target), "parquet"), console)
            continue
        reader = Reader(source, job.prefix or job.score_ref, job.errors)
        if source is None and sys.stdin.isatty():
            console.say("type a line to translate; end with Ctrl-D")
        work = _Work(translator, reader, job, source, target, console, shown)
        if target is None:
            for text in work.texts():
                write_out(text)
        elif is_special(target):
            _write_straight(work, target)
        elif world.is_main:
            _write(work, reader, target, world, console)
        else:
            _help(work, reader, target, world)
    if job.attention is not None and world.is_main:
        write_attention(translator, shown, job.attention, job.self_attention, job.tag)
        console.say(f"attention of {counted(len(shown), 'line')}: {job.attention}")


def _translate_table(translator: Translator, job: Job, source: Source, console: Console) -> None:
    """Translate a Parquet file, which is written whole: such a job starts anew."""
    blocks = read_blocks(0, source, job, translator.source_language, _most_lines(translator))
    write_outputs([source], (translated(translator, job, source, block) for block in blocks), console)


def _most_lines(translator: Translator) -> int:
    return GPU_CHUNK_LINES if translator.settings["device"] == "cuda" else CHUNK_LINES


def _write_straight(work: "_Work", target: Path) -> None:
    """Write to a device or a FIFO: such a job cannot go on from where it was."""
    compress = compressor(target)
    with writing(target):
        file = target.open("wb", buffering=0)
    with file:
        for text in work.texts():
            with writing(target):
                file.write(compress(text.encode(errors="replace")))


def _write(work: "_Work", reader: Reader, target: Path, world: World, console: Console) -> None:
    """Write the output in order: the chunks that this process makes, and those made by the others."""
    parts, output = Parts(target, work.settings), Output(target, work.settings)
    try:
        with output:
            if world.size > 1:
                parts.open()
            before = Progress(**world.broadcast(vars(output.progress)))
            if head := work.start(before, output.sidecar):
                output.append(head, reader.done, reader.sha256)
            if before.lines:
                console.say(f"{target}: going on after line {before.lines:,}")
            for turn, chunk in enumerate(work.chunks()):
                if world.owns(turn):
                    text = work.translated(chunk)
                else:
                    text = parts.wait(reader.done, reader.sha256)
                    work.advance(len(chunk.lines))
                output.append(text, reader.done, reader.sha256)
                parts.drop(reader.done, reader.sha256)
    except KeyboardInterrupt:
        if not output.progress.lines:
            raise
        raise Interrupted(
            f"{target}: stopped after {counted(output.progress.lines, 'line')}; the same command goes on from there"
        ) from None
    world.barrier()  # a late process may still look for the folder, or write a chunk into it
    parts.close()


def _help(work: "_Work", reader: Reader, target: Path, world: World) -> None:
    """Make this process's share of the chunks that the output still lacks."""
    parts = Parts(target, work.settings)
    before = Progress(**world.broadcast({}))
    work.start(before)
    for turn, chunk in enumerate(work.chunks()):
        if world.owns(turn) and not parts.has(reader.done, reader.sha256):
            parts.put(work.translated(chunk), reader.done, reader.sha256)
    world.barrier()


class _Work:
    """One input on its way to its output."""

    def __init__(
        self,
        translator: Translator,
        reader: Reader,
        job: Job,
        source: Stream,
        target: Stream,
        console: Console,
        shown: list[tuple[str, str]],
    ) -> None:
        self._shown = shown  # pairs whose attention is to be written
        self._translator, self._reader, self._job, self._console = translator, reader, job, console
        self._kind = kind_of(job, source)
        results = Results(job.n_best, job.scores, job.alignments, scoring=job.score_ref is not None)
        first = reader.peek() if self._kind == "tsv" else ""
        self._format = line_format(self._kind, job.field, translator.source_language, results, first)
        at_terminal = source is None and sys.stdin.isatty()
        self._chunk_lines = 1 if job.unbuffered or at_terminal else _most_lines(translator)
        self._total = None if console.quiet else count_lines(source)
        self._to_stdout = target is None
        self._notes = 0
        self.advance: Callable[[int], None] = lambda count: None  # of a progress bar

    @property
    def settings(self) -> dict[str, object]:
        """All that decides what the output will hold, apart from the input."""
        return {
            **self._translator.settings,
            "format": self._kind,
            "field": self._job.field,
            "tag": self._job.tag,
            "n_best": self._job.n_best,
            "scores": self._job.scores,
            "alignments": self._job.alignments,
            "errors": self._job.errors,
            "score_ref": self._job.score_ref is not None,
            "chunk_lines": self._chunk_lines,
        }

    def start(self, before: Progress, sidecar: Path | None = None) -> str:
        """Skip what was done before; returns the output's header line where it has one that is not written yet.

        sidecar: the file that says what was done. Raises DataError when the input is not what was read then.
        """
        head = ""
        if isinstance(self._format, Table) and self._format.has_header:
            head = "".join(f"{self._format.header(line)}\n" for line in self._reader.texts(self._reader.read(1)))
        if not before.lines:
            return head
        self._reader.skip(before.lines - self._reader.done)
        if self._reader.sha256 != before.input_sha256:
            raise DataError(
                f"{self._reader.name}: is not what the unfinished job began with; "
                f"put it back, or remove {sidecar} to start anew"
            )
        return ""

    def texts(self) -> Iterator[str]:
        """The whole output, chunk by chunk."""
        yield self.start(Progress())
        yield from map(self.translated, self.chunks())

    def chunks(self) -> Iterator[Chunk]:
        """The rest of the input, chunk by chunk, with progress."""
        begun, last_told = time.monotonic(), time.monotonic()
        done_before = self._reader.done
        left = None if self._total is None else self._total - done_before
        # A bar would overwrite translations on the same terminal, and what is typed.
        is_shown = self._chunk_lines > 1 and not (self._to_stdout and sys.stdout.isatty())
        tracking = self._console.track("translating", total=left) if is_shown else nullcontext(lambda count: None)
        with tracking as self.advance:
            while True:
                chunk = self._reader.read(next_size(self._chunk_lines, self._reader.done))
                if not chunk.lines:
                    break
                yield chunk
                if not self._console.is_terminal and time.monotonic() - last_told > REPORT_SECONDS:
                    last_told = time.monotonic()
                    self._tell((self._reader.done - done_before) / (last_told - begun))
        if self._notes > SHOWN_NOTES:
            self._console.warn(f"{self._reader.name}: {counted(self._notes - SHOWN_NOTES, 'more line')} like these")

    def translated(self, chunk: Chunk) -> str:
        """The lines of output for those of the chunk."""
        lines, beside, first = self._reader.texts(chunk), self._reader.texts_beside(chunk), chunk.first
        texts = texts_of(self._format, lines, self._reader.name, first)
        results = results_of(self._translator, self._job, texts, first, beside, self.advance)
        self._warn(notes_of(results, self._reader.name, first))
        if self._job.score_ref is not None:
            self._show(zip(texts, beside, strict=True))
        else:
            first_found = zip(texts, [found[0] for found in results], strict=True)
            self._show((text, one.text) for text, one in first_found if isinstance(one, Translation) and one.whole)
        return rendered(self._format, lines, results)

    def _show(self, pairs: Iterable[tuple[str, str]]) -> None:
        if self._job.attention is not None:
            self._shown += islice((pair for pair in pairs if pair[0].strip()), SHOWN - len(self._shown))

    def _warn(self, notes: Sequence[str]) -> None:
        for note in notes:
            self._notes += 1
            if self._notes <= SHOWN_NOTES:
                self._console.warn(note)

    def _tell(self, rate: float) -> None:
        done = f"{self._reader.name}: {self._reader.done:,}"
        if self._total is None:
            self._console.say(f"{done} lines, {rate:,.0f} lines/s")
        else:
            minutes = (self._total - self._reader.done) / rate / 60
            self._console.say(f"{done} of {self._total:,} lines, {rate:,.0f} lines/s, {minutes:,.0f} min left")
