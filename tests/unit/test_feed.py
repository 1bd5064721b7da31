"""What updates train on: the same pairs however they are dealt out and wherever a run goes on; made ready in order."""

import threading
from collections.abc import Iterator
from contextlib import closing
from itertools import chain, islice

import numpy as np
import pytest
from helpers import prepared_in_memory

from mt.config import BatchConfig, Config, Stage, TrainConfig
from mt.data.batches import Cursor
from mt.data.corpus import Corpus
from mt.data.encoding import PairEncoder
from mt.data.feed import MicroBatches, cut_batch, prefetched, updates_from
from mt.data.tokenizer import train_tokenizer
from mt.data.vocabulary import Tokenizers
from mt.data_config import DataConfig, Input

WORDS = ["the", "small", "green", "house", "walks", "over", "a", "large", "street", "and", "dreams", "of", "cats"]


@pytest.fixture(scope="module", params=["joint", "separate"])
def tokenizers(request: pytest.FixtureRequest) -> Tokenizers:
    """The target of the separate ones knows fewer words, and these by other ids."""
    joint = train_tokenizer([" ".join(WORDS)] * 3, 310)
    return Tokenizers(joint, None if request.param == "joint" else train_tokenizer([" ".join(WORDS[:-4])] * 3, 300))


@pytest.fixture(scope="module")
def corpus(tokenizers: Tokenizers) -> Corpus:
    random = np.random.default_rng(0)
    sources, targets = ([" ".join(random.choice(WORDS, random.integers(1, 12))) for _ in range(200)] for _ in range(2))
    return PairEncoder(tokenizers).encode(sources, targets)[0]


def config(bpe_dropout: float = 0.2, multiple: int = 4, noise: float = 0.3) -> Config:
    """In the middle of an epoch, each pair begins to count twice."""
    stage = Stage(update=9, weights={"words": 2}, scale=0.5)
    return Config(
        data=DataConfig(train=(Input(prefix="words", name="words"),), valid={"": (Input(prefix="others"),)}),
        batch=BatchConfig(tokens=400, micro_tokens=150, multiple=multiple),
        train=TrainConfig(bpe_dropout=bpe_dropout, noise=noise, stages=(stage,)),
    )


Pass = tuple[int, list[list[int]], list[list[int]]]


def passes(update: MicroBatches) -> list[Pass]:
    return [
        (index, [ids.tolist() for ids in pairs.source], [ids.tolist() for ids in pairs.target])
        for index, pairs in update.passes
    ]


def dealt(corpus: Corpus, tokenizers: Tokenizers, rank: int, processes: int, count: int = 40) -> list[list[Pass]]:
    updates = updates_from(0, Cursor(), prepared_in_memory(corpus, tokenizers), config(), rank, processes)
    return [passes(update) for update, _ in islice(updates, count)]


def test_several_processes_together_have_the_passes_of_one(corpus: Corpus, tokenizers: Tokenizers) -> None:
    one = dealt(corpus, tokenizers, 0, 1)
    for processes in (2, 3, 4):
        shares = [dealt(corpus, tokenizers, rank, processes) for rank in range(processes)]
        assert [sorted(chain(*update)) for update in zip(*shares, strict=True)] == one


@pytest.mark.parametrize("stop", [0, 1, 7, 30])
def test_going_on_from_a_cursor_gives_the_updates_that_would_have_come(
    corpus: Corpus, tokenizers: Tokenizers, stop: int
) -> None:
    prepared = prepared_in_memory(corpus, tokenizers)
    whole = list(islice(updates_from(0, Cursor(), prepared, config()), 40))
    assert whole[-1][1].epoch > 1
    cursor = whole[stop - 1][1] if stop else Cursor()
    rest = list(islice(updates_from(stop, cursor, prepared, config()), 40 - stop))
    assert [(passes(update), place) for update, place in rest] == [
        (passes(update), place) for update, place in whole[stop:]
    ]


def test_bpe_dropout_changes_the_pieces_and_nothing_else(corpus: Corpus, tokenizers: Tokenizers) -> None:
    prepared = prepared_in_memory(corpus, tokenizers)
    without, with_dropout = (next(updates_from(0, Cursor(), prepared, config(rate, noise=0)))[0] for rate in (0.0, 0.3))
    assert with_dropout.rows.tolist() == without.rows.tolist()
    assert (with_dropout.tokens, with_dropout.padding) == (without.tokens, without.padding)
    assert passes(with_dropout) != passes(without)
    for (_, *plain), (_, *drawn) in zip(passes(without), passes(with_dropout), strict=True):
        for side, tokenizer in enumerate((tokenizers.source, tokenizers.target)):
            assert tokenizer.decode(drawn[side]) == tokenizer.decode(plain[side])


def test_the_passes_of_an_update_hold_its_pairs_once(corpus: Corpus) -> None:
    rows = np.arange(3, 40)
    batches = cut_batch(corpus, rows, config().batch)
    expected = [(corpus.source[row].tolist(), corpus.target[row].tolist()) for row in rows]
    for times in (0, 1, 3):
        halved = passes(batches.halved(times))
        assert [pair for _, *sides in halved for pair in zip(*sides, strict=True)] == expected
        assert len({index for index, *_ in halved}) == len(halved)
    assert len(halved) > 2 * len(batches.passes)


def test_tokens_and_padding_are_those_of_the_whole_update(corpus: Corpus) -> None:
    rows = np.arange(40)
    one, *shares = [cut_batch(corpus, rows, config().batch, rank, size) for rank, size in ((0, 1), (0, 2), (1, 2))]
    assert one.tokens == corpus.target.lengths[rows].sum()
    widths = [(len(source) * (len(source[0]) + len(target[0]))) for _, source, target in padded(one)]
    assert one.padding == pytest.approx(1 - corpus.lengths()[rows].sum() / sum(widths))
    assert {(share.tokens, share.padding) for share in shares} == {(one.tokens, one.padding)}


def padded(update: MicroBatches) -> list[Pass]:
    gathered = ((index, pairs.padded()) for index, pairs in update.passes)
    return [(index, source_BS.tolist(), target_BT.tolist()) for index, (source_BS, target_BT) in gathered]


# --- The thread -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("count", [0, 1, 2, 3, 50])
def test_prefetched_items_come_complete_and_in_order(count: int) -> None:
    assert list(prefetched(iter(range(count)))) == list(range(count))


def test_items_are_made_in_another_thread_and_few_ahead() -> None:
    made: list[tuple[int, bool]] = []

    def items() -> Iterator[int]:
        for number in range(100):
            made.append((number, threading.current_thread() is threading.main_thread()))
            yield number

    with closing(prefetched(items(), ahead=2)) as numbers:
        for number in islice(numbers, 10):
            assert made[-1][0] <= number + 2
    assert len(made) <= 12
    assert not any(in_main for _, in_main in made)


def test_an_error_comes_where_the_item_would_have_come() -> None:
    def items() -> Iterator[int]:
        yield from (1, 2, 3)
        raise OSError("the disk is gone")

    numbers = prefetched(items())
    assert [next(numbers) for _ in range(3)] == [1, 2, 3]
    with pytest.raises(OSError, match="the disk is gone"):
        next(numbers)


def test_closing_ends_the_thread() -> None:
    before = threading.active_count()
    with closing(prefetched(iter(range(10**9)))) as numbers:
        assert next(numbers) == 0
        assert threading.active_count() > before
    assert threading.active_count() == before
