"""`mt prepare --inspect`: what to check in the data before a long run, as text, JSON and a page of histograms."""

import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass

import numpy as np

from mt.config import Config
from mt.console import Console
from mt.data.batches import Rows
from mt.data.corpus import Corpus, Integers, Sentences
from mt.data.epochs import plan_epoch
from mt.data.manifest import Manifest
from mt.data.prepare import prepare
from mt.data.prepared import Prepared
from mt.data.tokenizer import UNK, Tokenizer
from mt.files import write_whole
from mt.pages.data_page import data_page

PERCENTILES = (1, 5, 25, 50, 75, 95, 99, 100)
PAIRS = 10  # to read
PAGE = "inspect.html"

_BLOCK = 1 << 22  # ids counted at a time


@dataclass(frozen=True)
class Side:
    """One language of the training data; lengths in pieces with their EOS."""

    language: str
    vocabulary: int  # the pieces that its text may be cut into
    pieces: int
    words: int  # separated by white space
    pieces_per_word: float
    byte_share: float  # of the pieces, those that are bytes of a rare character
    unknown: int  # 0, as bytes can write everything
    percentiles: dict[int, int]  # percent: length
    histogram: list[int]  # how many sentences have length 0, 1, 2, ...


@dataclass(frozen=True)
class Example:
    """A training pair and the pieces it is cut into."""

    origin: str  # source and line
    source: str
    target: str
    source_pieces: list[str]
    target_pieces: list[str]


@dataclass(frozen=True)
class Inspection:
    """All figures; `dataclasses.asdict` makes them fit for JSON."""

    dir: str
    read: int  # training pairs in the sources
    dropped: dict[str, int]  # of them, by reason
    dropped_share: float
    rows: int  # pairs in an epoch: those kept, as often as their source's weight says
    valid: int
    test: int
    vocabulary: int  # pieces of both languages, those that they share counted once
    unused: int  # pieces no training sentence contains
    source: Side
    target: Side
    batch_tokens: int
    updates_per_epoch: int
    epochs: float  # in train.updates
    padding_share: float
    examples: list[Example]


def inspect(config: Config, console: Console) -> Inspection:
    """Prepare the data if needed, measure them, and write the page into their folder."""
    prepared = prepare(config, console)
    prepared.verify()
    inspection = _measure(prepared, config)
    page = prepared.dir / PAGE
    write_whole(page, data_page(asdict(inspection)))
    console.say(f"length histograms: {page}")
    return inspection


def _measure(prepared: Prepared, config: Config) -> Inspection:
    train, manifest, tokenizers = prepared.train, prepared.manifest, prepared.tokenizers
    plan, updates = plan_epoch(prepared, config, 0, [source.weight for source in config.data.train])
    source_uses_V = _uses(train.source, len(tokenizers.source))
    target_uses_V = _uses(train.target, len(tokenizers.target))
    uses_V = source_uses_V + target_uses_V if tokenizers.share_ids else np.append(source_uses_V, target_uses_V)
    read = _pairs(manifest, "train")
    return Inspection(
        dir=str(prepared.dir),
        read=read,
        dropped=manifest["dropped"],
        dropped_share=sum(manifest["dropped"].values()) / read,
        rows=len(train),
        valid=_pairs(manifest, "valid"),
        test=_pairs(manifest, "test"),
        vocabulary=len(uses_V),
        unused=int((uses_V == 0).sum()),
        source=_side(config.data.src, train.source, source_uses_V, tokenizers.source),
        target=_side(config.data.tgt, train.target, target_uses_V, tokenizers.target),
        batch_tokens=config.batch.tokens,
        updates_per_epoch=updates,
        epochs=config.train.updates / updates,
        padding_share=_padding(plan, train),
        examples=_examples(prepared, config.seed),
    )


def _padding(plan: list[Rows], corpus: Corpus) -> float:
    real, padded = 0, 0
    for rows in plan:
        lengths_R2 = corpus.lengths(rows)
        real += int(lengths_R2.sum())
        padded += int(lengths_R2.max(axis=0).sum()) * len(rows)
    return 1 - real / padded


def _pairs(manifest: Manifest, split: str) -> int:
    """The pairs read for a split, those of all its named sets together."""
    sources = manifest["sources"].items()
    return sum(reading["read"] for folder, readings in sources if folder.startswith(split) for reading in readings)


def _uses(sentences: Sentences, vocabulary: int) -> Integers:
    """How often each piece occurs."""
    uses_V = np.zeros(vocabulary, dtype=np.int64)
    for start in range(0, len(sentences.ids), _BLOCK):
        uses_V += np.bincount(sentences.ids[start : start + _BLOCK], minlength=vocabulary)
    return uses_V


def _side(language: str, sentences: Sentences, uses_V: Integers, tokenizer: Tokenizer) -> Side:
    pieces = int(uses_V.sum())
    words = int(uses_V[[tokenizer.starts_word(index) for index in range(len(uses_V))]].sum())
    byte_pieces = int(uses_V[[tokenizer.is_byte(index) for index in range(len(uses_V))]].sum())
    histogram_L = sentences.histogram()
    ranks = [-(-percent * len(sentences) // 100) for percent in PERCENTILES]
    quantiles = np.searchsorted(histogram_L.cumsum(), ranks)
    return Side(
        language=language,
        vocabulary=len(tokenizer),
        pieces=pieces,
        words=words,
        pieces_per_word=(pieces - len(sentences)) / max(words, 1),
        byte_share=byte_pieces / pieces,
        unknown=int(uses_V[UNK]),
        percentiles={percent: int(length) for percent, length in zip(PERCENTILES, quantiles, strict=True)},
        histogram=histogram_L.tolist(),
    )


def _examples(prepared: Prepared, seed: int) -> list[Example]:
    corpus, source_side, target_side = prepared.train, prepared.tokenizers.source, prepared.tokenizers.target
    rows = np.random.default_rng(seed).choice(len(corpus), min(PAIRS, len(corpus)), replace=False)
    source_ids, target_ids = ([side[row].tolist()[:-1] for row in rows] for side in (corpus.source, corpus.target))
    texts = zip(source_side.decode(source_ids), target_side.decode(target_ids), strict=True)
    pieces = zip(map(source_side.pieces, source_ids), map(target_side.pieces, target_ids), strict=True)
    return [
        Example(origin, *of_text, *of_pieces)
        for origin, of_text, of_pieces in zip(prepared.origin(rows), texts, pieces, strict=True)
    ]


# --- For people: text --------------------------------------------------------------------------------------------


def as_json(inspection: Inspection) -> str:
    """The inspection as one JSON object, for programs."""
    return json.dumps(asdict(inspection), ensure_ascii=False, indent=1)


def render_text(inspection: Inspection) -> str:
    """The inspection as lines for a terminal."""
    return "\n".join([*_summary(inspection), "", *_table(inspection), "", *_pairs_to_read(inspection)])


def _summary(inspection: Inspection) -> Iterator[str]:
    yield f"{inspection.dir}: {inspection.source.language} to {inspection.target.language}"
    yield f"pairs       {inspection.rows:,} for training, {inspection.valid:,} validation, {inspection.test:,} test"
    reasons = ", ".join(f"{count:,} {reason}" for reason, count in inspection.dropped.items()) or "none"
    yield f"dropped     {reasons} ({inspection.dropped_share:.2%} of {inspection.read:,} read)"
    source, target = inspection.source.vocabulary, inspection.target.vocabulary
    pieces = f"{source:,} + {target:,}" if inspection.vocabulary == source + target else f"{inspection.vocabulary:,}"
    yield f"vocabulary  {pieces} pieces, {inspection.unused:,} of them not in the training text"
    yield (
        f"batches     {inspection.updates_per_epoch:,} updates an epoch of {inspection.batch_tokens:,} tokens, "
        f"{inspection.padding_share:.2%} padding; train.updates make {inspection.epochs:.1f} epochs"
    )


def _table(inspection: Inspection) -> Iterator[str]:
    sides = (inspection.source, inspection.target)
    rows = [
        ("", [side.language for side in sides]),
        ("pieces", [f"{side.pieces:,}" for side in sides]),
        ("words", [f"{side.words:,}" for side in sides]),
        ("pieces a word", [f"{side.pieces_per_word:.3f}" for side in sides]),
        ("spelt in bytes", [f"{side.byte_share:.4%}" for side in sides]),
        ("unknown", [f"{side.unknown:,}" for side in sides]),
        *(
            (
                f"length, {percent}%" if percent < 100 else "longest",
                [f"{side.percentiles[percent]:,}" for side in sides],
            )
            for percent in PERCENTILES
        ),
    ]
    for name, values in rows:
        yield f"{name:<14}" + "".join(f"{value:>16}" for value in values)


def _pairs_to_read(inspection: Inspection) -> Iterator[str]:
    for number, example in enumerate(inspection.examples, 1):
        yield f"{number:>2}  {example.origin}"
        yield f"    {example.source}"
        yield f"    {example.target}"
        yield f"    {' '.join(example.source_pieces)}"
        yield f"    {' '.join(example.target_pieces)}"
