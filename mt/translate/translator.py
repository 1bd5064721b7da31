"""Lines in, lines out: tokenise, sort by length, decode in batches, put back in order."""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Any, Self

import torch

from mt.config import DecodeConfig
from mt.data.protect import UNPROTECTED, Encoder, Protection
from mt.data.vocabulary import Tokenizers
from mt.device import choose_device, choose_precision, keep_freed_memory
from mt.errors import CheckpointError, DataError, UsageError
from mt.model.transformer import Transformer
from mt.translate.beam import penalty_of
from mt.translate.decoding import decoding_batches, forced_log_probabilities
from mt.translate.opening import (
    chosen_checkpoints,
    decode_settings,
    decoding_model,
    fingerprint_of,
    fitted,
    open_checkpoint,
    refuse_other_vocabularies,
)
from mt.translate.search import Hypothesis
from mt.translate.segment_search import SegmentSearch
from mt.translate.segments import Segment, Tag, checked_lines, segments_of, tag_ids
from mt.translate.shortlist import Shortlist, open_shortlist

Advance = Callable[[int], None]
LOST = f"{UNPROTECTED}, as the numbered symbols did not come out as they went in"


@dataclass(frozen=True)
class Translation:
    """One output for a line."""

    text: str
    score: float  # what hypotheses are ranked by: the log-probability after the length penalty
    log_probability: float  # natural logarithm, EOS counted
    note: str = ""  # what was done to a line too long for the model, or not protected although data.protect says so
    alignment: str = ""  # which word comes from which, where that was asked for
    whole: bool = True  # of the whole line at once, not of a part or of parts


@dataclass(frozen=True)
class PieceScores:
    """How likely a model finds a given translation, in all and piece by piece; the last piece is EOS."""

    score: float
    log_probability: float
    pieces: list[str]
    log_probabilities: list[float]


class Translator:
    """A trained model, ready to translate; several threads may call it at once.

        from mt import Translator
        Translator("runs/multi30k")(["A man sleeps."])

    `path` is a run (its average or its best checkpoint, whichever validates better), RUN/best, RUN/last,
    RUN/averaged, or a checkpoint; several form an ensemble. `average`: take the mean of so many of the run's newest
    checkpoints instead. `decode`: settings that override those of the run's decode section, such as {"beam": 8}.
    Raises CheckpointError when there is no whole checkpoint, UsageError for impossible settings.
    """

    shortlist: Shortlist | None

    def __init__(
        self,
        *path: str | Path,
        device: str = "auto",
        average: int | None = None,
        decode: Mapping[str, object] | None = None,
    ) -> None:
        keep_freed_memory()
        if not path:
            raise UsageError("Translator needs the path of a run or of a checkpoint")
        where = choose_device(device)
        averaged, names = zip(*(chosen_checkpoints(Path(one), average) for one in path), strict=True)
        opened = [open_checkpoint(checkpoints) for checkpoints in averaged]
        first = opened[0]
        self.tokenizers = Tokenizers.read(first.tokenizers)
        refuse_other_vocabularies(self.tokenizers, opened)
        self.decode = decode_settings(first.config.decode, decode or {})
        self.encoder = self._encoder(first.config.data.protect)
        self.source_language, self.target_language = first.config.data.src, first.config.data.tgt
        self.needs_tag = all(entry.tag for entry in first.config.data.train)
        precision = choose_precision(self.decode.precision, where)
        self.models = [decoding_model(checkpoint, precision, where) for checkpoint in opened]
        self.decode = fitted(self.decode, self.longest, where)
        self._measured_layer: object = first.state.get("alignment_layer")
        layers = self.models[0].config.decoder_layers
        if self.decode.alignment_layer > layers:
            raise UsageError(f"decode.alignment_layer {self.decode.alignment_layer}: the decoder has {layers} layers")
        self.name = " + ".join(names)
        self.fingerprint = fingerprint_of([one for checkpoints in averaged for one in checkpoints])
        self.shortlist = open_shortlist(self.decode.shortlist, Path(path[0]), self.tokenizers)
        if self.shortlist is not None:
            self.fingerprint += f" with shortlist {self.shortlist.sha256}"
        places = [Path(one).absolute() for one in path]
        self._opening: tuple[Any, ...] | None = (places, device, average, dict(decode or {}), self.fingerprint)

    @classmethod
    def of(
        cls, models: Sequence[Transformer], tokenizers: Tokenizers, decode: DecodeConfig, protect: Sequence[str] = ()
    ) -> Self:
        """A translator of models that are in memory, in evaluation mode already."""
        self = cls.__new__(cls)
        self.models, self.tokenizers = list(models), tokenizers
        self.decode = fitted(decode, self.longest, self._device)
        self.encoder = self._encoder(protect)
        self.shortlist = None
        self.name = self.fingerprint = self.source_language = self.target_language = ""
        self.needs_tag = False
        self._measured_layer = None
        self._opening = None
        return self

    def __reduce__(self) -> tuple[Any, ...]:
        """Sent to another process, a translator opens its checkpoints there; raises TypeError where it has none."""
        if self._opening is None:
            raise TypeError("a Translator of models in memory cannot be sent to another process")
        return _opened_again, self._opening

    def _encoder(self, protect: Sequence[str]) -> Encoder:
        return Encoder(self.tokenizers, Protection(protect if self.decode.protect else ()))

    @property
    def alignment_layer(self) -> int:
        """The decoder layer, counted from 1, whose cross-attention shows best which word comes from which.

        The one that the settings name, else the one that validation measured. For checkpoints of earlier versions,
        which do not say it: the last layer of at most two, else the last but one.
        """
        layers = self.models[0].config.decoder_layers
        if self.decode.alignment_layer:
            return self.decode.alignment_layer
        if isinstance(self._measured_layer, int) and 1 <= self._measured_layer <= layers:
            return self._measured_layer
        return layers if layers <= 2 else layers - 1

    @property
    def longest(self) -> int | None:
        """The pieces of the longest sentence that all models have positions for, EOS counted; None: any length."""
        return min((model.config.longest for model in self.models if model.config.longest), default=None)

    @property
    def settings(self) -> dict[str, object]:
        """All that decides what a line becomes."""
        return {"weights": self.fingerprint, "device": self._device.type, **self.decode.model_dump()}

    def __call__(self, lines: Iterable[str], advance: Advance = lambda count: None, tag: Tag = None) -> list[str]:
        """One translation for each line; a blank line gives an empty one.

        advance: called with the number of lines just done.
        tag: a symbol to put before the lines, or one for each line, such as `<bt>` if the model was trained with that.
        """
        return [found[0].text for found in self.n_best(lines, advance=advance, scored=False, tag=tag)]

    def n_best(
        self,
        lines: Iterable[str],
        count: int = 1,
        first: int = 1,
        prefixes: Iterable[str] = (),
        advance: Advance = lambda count: None,
        scored: bool = True,
        tag: Tag = None,
    ) -> list[list[Translation]]:
        """Up to `count` translations of each line with their scores, best first; of a blank line, one empty one.

        first: the number of the first line; samples depend on line numbers.
        prefixes: what the translation of each line has to start with.
        scored: False makes greedy search quicker, and its scores NaN.
        A text found in two segmentations is listed once; samples are all listed.
        With data.protect, a line whose best output lost or invented a numbered symbol is translated once more without
        them, with a note; further outputs that did are left out.
        Raises UsageError when the beam is narrower than `count` or a line is not a string, DataError naming a line of
        more than a million characters, a prefix of more than decode.max_source pieces, or an unknown tag.
        """
        lines, prefixes = checked_lines(lines, first), checked_lines(prefixes, first, "prefix of line")
        if not self.decode.sample and count > self.decode.beam:
            raise UsageError(f"{count} translations a line need a beam of at least {count}; it is {self.decode.beam}")
        segments = segments_of(lines, self.encoder, self.decode, first, prefixes, tag)
        advance(len(lines) - len({segment.line for segment in segments}))
        found = self._found(segments, count, scored, advance)
        if lost := {segment.line for segment, outputs in zip(segments, found, strict=True) if not outputs}:
            plain = [line if number in lost else "" for number, line in enumerate(lines, first)]
            again = [
                replace(segment, note=LOST)
                for segment in segments_of(plain, Encoder(self.tokenizers), self.decode, first, prefixes, tag)
            ]
            found += self._found(again, count, scored)
            segments += again
        results: list[list[Translation]] = [[] for _ in lines]
        for segment, translations in zip(segments, found, strict=True):
            index = segment.line - first
            if segment.line not in lost or segment.note == LOST:
                results[index] = _joined(results[index], translations) if segment.part else translations
        return [translations or [Translation("", 0.0, 0.0)] for translations in results]

    def decoded_together(self, lines: Iterable[str], tag: Tag = None) -> list[list[int]]:
        """Which lines, counted from 0, are translated together, batch by batch; blank ones are in none."""
        segments = segments_of(checked_lines(lines), self.encoder, self.decode, tag=tag)
        batches = decoding_batches([len(segment.ids) for segment in segments], self.decode.batch_tokens)
        return [[segments[row].line - 1 for row in rows if segments[row].part == 0] for rows in batches]

    def _found(
        self, segments: Sequence[Segment], count: int, scored: bool, advance: Advance = lambda count: None
    ) -> list[list[Translation]]:
        """The translations of each segment; none where the best has other numbered symbols than its source."""
        found: list[list[Translation]] = [[] for _ in segments]
        for rows in decoding_batches([len(segment.ids) for segment in segments], self.decode.batch_tokens):
            batch = [segments[row] for row in rows]
            hypotheses = self._search.in_memory(batch, count, scored)
            for row, translations in zip(rows, self._translations(batch, hypotheses), strict=True):
                found[row] = translations[:count]
            advance(sum(segments[row].part == 0 for row in rows))
        return found

    @property
    def _search(self) -> SegmentSearch:
        return SegmentSearch(self.models, self.encoder, self.decode, self.shortlist)

    def score(
        self,
        sources: Iterable[str],
        targets: Iterable[str],
        advance: Advance = lambda count: None,
        first: int = 1,
        tag: Tag = None,
    ) -> list[PieceScores]:
        """How likely each target is as the translation of its source; `first` is the number of the first line.

        A target is scored as the tokenizer segments it. A search may have found the same text in another segmentation,
        with another score.
        Raises UsageError and DataError as `n_best` does.
        """
        sources, targets = checked_lines(sources, first), checked_lines(targets, first, "target")
        if len(sources) != len(targets):
            raise UsageError(f"{len(sources)} sources and {len(targets)} targets: each source needs its target")
        encoded = self.encoder.pairs(sources, targets)
        starts, target_ids = tag_ids(tag, len(sources), self.tokenizers.source), [target.ids for target in encoded[1]]
        source_ids = [start + source.ids for start, source in zip(starts, encoded[0], strict=True)]
        results: dict[int, PieceScores] = {}
        lengths = [max(len(source), len(target)) + 1 for source, target in zip(source_ids, target_ids, strict=True)]
        for number, length in enumerate(lengths, first):
            if self.longest is not None and length > self.longest:
                have = f"the model has learned {self.longest:,} positions"
                raise DataError(f"line {number}: {length:,} pieces, EOS counted, but {have}; shorten it")
        for rows in decoding_batches(lengths, self.decode.batch_tokens):
            found = forced_log_probabilities(
                self.models, [source_ids[row] for row in rows], [target_ids[row] for row in rows]
            )
            for row, logps in zip(rows, found, strict=True):
                total = math.fsum(logps)
                score = total / penalty_of(self.decode.penalty, self.decode.alpha)(len(logps))
                pieces = [*self.tokenizers.target.pieces(target_ids[row]), "</s>"]
                results[row] = PieceScores(score, total, pieces, logps)
            advance(len(rows))
        return [results[row] for row in range(len(sources))]

    def _translations(self, segments: list[Segment], found: list[list[Hypothesis]]) -> list[list[Translation]]:
        """What was found for each segment, as `_listed` lists it."""
        outputs = [(one.ids, segment.values) for segment, ones in zip(segments, found, strict=True) for one in ones]
        texts = iter(self.encoder.decode(outputs))
        return list(map(self._listed, segments, found, [list(islice(texts, len(ones))) for ones in found]))

    def _listed(self, segment: Segment, outputs: list[Hypothesis], texts: list[str | None]) -> list[Translation]:
        """Best first; a text found in two segmentations is listed once, with the better score, but not samples.

        None where the best has other numbered symbols than the segment; others that have are left out.
        """
        found: dict[object, Translation] = {}
        for rank, (output, text) in enumerate(zip(outputs, texts, strict=True)):
            if text is None and not rank:
                return []
            key = rank if self.decode.sample else text
            if text is not None:
                translation = Translation(text, output.score, output.log_probability, segment.note, whole=segment.whole)
                found.setdefault(key, translation)
        return list(found.values())

    @property
    def _device(self) -> torch.device:
        return self.models[0].device


def _joined(before: list[Translation], after: list[Translation]) -> list[Translation]:
    """The translations of two parts joined rank by rank; the last of the shorter list is used again."""
    count = max(len(before), len(after))
    pairs = [(before[min(rank, len(before) - 1)], after[min(rank, len(after) - 1)]) for rank in range(count)]
    return [
        Translation(
            f"{left.text} {right.text}".strip(),
            left.score + right.score,
            left.log_probability + right.log_probability,
            left.note,
            whole=False,
        )
        for left, right in pairs
    ]


def _opened_again(
    places: Sequence[Path], device: str, average: int | None, decode: Mapping[str, object], fingerprint: str
) -> Translator:
    translator = Translator(*places, device=device, average=average, decode=decode)
    if translator.fingerprint != fingerprint:
        raise CheckpointError(f"{places[0]}: has other weights here than where the translator was made")
    return translator
