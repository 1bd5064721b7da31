"""What each epoch holds, and what the stages of a run change: pure functions of a place in it."""

import dataclasses
import threading
from collections import Counter
from itertools import islice
from typing import Any

import numpy as np
import pytest
from helpers import prepared_in_memory

from mt.config import BatchConfig, Config, TrainConfig
from mt.data.batches import Cursor
from mt.data.corpus import Corpus, Sentences
from mt.data.epochs import batches_of_run, plan_epoch, weighted_rows
from mt.data.prepared import Prepared
from mt.data.tokenizer import train_tokenizer
from mt.data.vocabulary import Tokenizers
from mt.data_config import DataConfig, Input
from mt.errors import DataError

NEWS, CAPTIONS = 0, 1
PAIRS = 300


@pytest.fixture(scope="module")
def prepared() -> Prepared:
    """Every third pair is a caption, the others news."""
    random = np.random.default_rng(0)
    sides = [Sentences.from_lists([[7] * length for length in random.integers(1, 30, PAIRS)]) for _ in range(2)]
    tokenizers = Tokenizers(train_tokenizer(["the small green house"] * 3, 280))
    return prepared_in_memory(Corpus(*sides), tokenizers, [CAPTIONS if row % 3 == 2 else NEWS for row in range(PAIRS)])


def config(*stages: dict[str, Any]) -> Config:
    inputs = [Input(prefix="a", name="news"), Input(prefix="b", name="captions")]
    return Config.model_validate(
        {
            "data": DataConfig.model_validate({"train": inputs, "valid": "v"}),
            "batch": BatchConfig(tokens=500),
            "train": TrainConfig.model_validate({"stages": stages, "average": 1}),
        }
    )


def run(prepared: Prepared, config: Config, count: int = 70, done: int = 0, cursor: Cursor | None = None) -> list[Any]:
    batches = islice(batches_of_run(prepared, config, done, cursor or Cursor()), count)
    return [(rows.tolist(), stage, following) for rows, stage, following in batches]


THREE = config(
    {"update": 8, "weights": {"news": 2, "captions": 0.5}},
    {"update": 15, "scale": 0.1},
    {"update": 30, "weights": {"news": 0, "captions": 3}, "scale": 0.5},
)


@pytest.mark.parametrize("stop", [0, 1, 7, 8, 9, 15, 29, 30, 31, 50])
@pytest.mark.parametrize("plain", [True, False])
@pytest.mark.parametrize("shards", [(), (40, 60, 80, 100, 20)])
def test_going_on_from_any_place_gives_the_batches_that_would_have_come(
    prepared: Prepared, stop: int, plain: bool, shards: tuple[int, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mt.data.epochs.SHARDS", 2)
    prepared, settings = dataclasses.replace(prepared, shards=shards), config() if plain else THREE
    whole = run(prepared, settings)
    assert whole[-1][2].epoch > 1
    cursor = whole[stop - 1][2] if stop else Cursor()
    assert run(prepared, settings, 70 - stop, stop, cursor) == whole[stop:]


def test_the_next_epoch_is_planned_while_the_second_half_of_one_is_taken(prepared: Prepared) -> None:
    def threads() -> list[str]:
        return [thread.name for thread in threading.enumerate() if thread.name.startswith("plan")]

    _, size = plan_epoch(prepared, config(), 0, config().weights(0))
    batches = batches_of_run(prepared, config(), 0, Cursor())
    planning = [bool(threads()) for _ in islice(batches, size)]
    batches.close()
    assert planning == [False] * (size // 2) + [True] * (size - size // 2)
    assert not threads()


def test_a_new_epoch_begins_where_a_stage_changes_the_weights_and_nowhere_else(prepared: Prepared) -> None:
    whole = run(prepared, THREE)
    stages = [stage for _, stage, _ in whole]
    assert [stages.index(stage) for stage in (0, 1, 2, 3)] == [0, 8, 15, 30]
    assert whole[7][2] == Cursor(whole[6][2].epoch + 1, 0)
    assert whole[14][2].batch == whole[13][2].batch + 1, "another rate interrupts nothing"
    captions = [rows for rows, _, _ in whole[30:]]
    assert {row % 3 for rows in captions for row in rows} == {2}


def test_stages_of_the_weights_there_are_change_no_batch(prepared: Prepared) -> None:
    same = config({"update": 0, "weights": {"news": 1}}, {"update": 9, "weights": {"captions": 1}, "scale": 1})
    assert [(rows, place) for rows, _, place in run(prepared, same)] == [
        (rows, place) for rows, _, place in run(prepared, config())
    ]


def test_a_stage_by_epochs_begins_with_one(prepared: Prepared) -> None:
    whole = run(prepared, config({"epoch": 2, "weights": {"news": 0}}))
    places = [Cursor(), *(place for *_, place in whole)]
    assert all(stage == (place.epoch >= 2) for (_, stage, _), place in zip(whole, places, strict=False))
    epochs = Counter(row % 3 == 2 for (rows, _, _), place in zip(whole, places, strict=False) for row in rows)
    assert epochs[False] == 2 * 2 * PAIRS / 3


@pytest.mark.parametrize("epoch", [0, 5])
def test_each_epoch_of_a_stage_holds_each_pair_as_often_as_its_weight_says(prepared: Prepared, epoch: int) -> None:
    plan, _ = plan_epoch(prepared, config(), epoch, (2.0, 0.25))
    times = Counter(int(row) for batch in plan for row in batch)
    news, captions = ([times[row] for row in range(PAIRS) if (row % 3 == 2) == of] for of in (False, True))
    assert set(news) == {2}
    assert set(captions) == {0, 1}
    assert 0.1 < np.mean(captions) < 0.4
    other, _ = plan_epoch(prepared, config(), epoch + 1, (2.0, 0.25))
    assert {int(row) for batch in other for row in batch} != set(times), "another quarter in each epoch"


def test_the_copies_that_an_old_weight_made_count_as_one_pair() -> None:
    origins = np.array([(0, 1), (0, 1), (0, 1), (0, 2), (0, 2), (1, 1), (1, 2)], dtype="u2,u4")
    origins.dtype.names = ("source", "line")
    random = np.random.default_rng(0)
    assert weighted_rows(origins, (2.5, 1), (1, 1), random).tolist() == [0, 3, 5, 6]
    assert weighted_rows(origins, (2.5, 1), (2, 0), random).tolist() == [0, 0, 3, 3]
    assert weighted_rows(origins, (2.5, 1), (2.5, 3), random).tolist() == [0, 1, 2, 3, 4, 5, 5, 5, 6, 6, 6]


def test_weights_that_leave_no_pair_are_named(prepared: Prepared) -> None:
    caption = prepared.train.take(np.array([2]))
    without_news = dataclasses.replace(prepared, train=caption, origins=prepared.origins[2:3])
    with pytest.raises(DataError, match=r"the weights 1, 0 of train\.stages leave no pair"):
        plan_epoch(without_news, config(), 0, (1.0, 0.0))


# --- Windows of a large corpus -------------------------------------------------------------------------------------


@pytest.fixture
def in_shards(prepared: Prepared, monkeypatch: pytest.MonkeyPatch) -> Prepared:
    """Seven shards, of which up to three make a window."""
    monkeypatch.setattr("mt.data.epochs.SHARDS", 3)
    return dataclasses.replace(prepared, shards=(50, 50, 50, 50, 50, 30, 20))


def epochs(prepared: Prepared, settings: Config, count: int) -> list[list[tuple[Cursor, list[int]]]]:
    """The batches of so many epochs, each with its place."""
    found: list[list[tuple[Cursor, list[int]]]] = [[] for _ in range(count)]
    place = Cursor()
    for rows, _, following in batches_of_run(prepared, settings, 0, place):
        if place.epoch == count:
            return found
        found[place.epoch].append((place, rows.tolist()))
        place = following
    raise AssertionError("batches are endless")


def test_each_epoch_of_several_windows_holds_every_pair_once(in_shards: Prepared) -> None:
    for epoch in epochs(in_shards, config(), 3):
        assert sorted(row for _, rows in epoch for row in rows) == list(range(PAIRS))
        assert [place.window for place, _ in epoch] == sorted(place.window for place, _ in epoch)
        assert {place.window for place, _ in epoch} == {0, 1, 2}


def test_a_batch_mixes_the_shards_of_its_window_and_other_shards_meet_in_each_epoch(in_shards: Prepared) -> None:
    ends = np.cumsum(in_shards.shards)
    met = []
    for epoch in epochs(in_shards, config(), 3):
        shards: dict[int, set[int]] = {}
        for place, rows in epoch:
            shards.setdefault(place.window, set()).update(np.searchsorted(ends, rows, side="right").tolist())
        assert sorted(map(len, shards.values())) == [2, 2, 3]
        assert sorted(shard for window in shards.values() for shard in window) == list(range(7))
        met.append(frozenset(map(frozenset, shards.values())))
    assert len(set(met)) == 3


def test_few_shards_are_planned_as_the_corpus_in_one_piece(prepared: Prepared) -> None:
    for settings in (config(), THREE):
        assert run(dataclasses.replace(prepared, shards=(100, 100, 60, 40)), settings) == run(prepared, settings)


def test_weights_take_the_same_pairs_in_windows_as_in_one_piece(prepared: Prepared, in_shards: Prepared) -> None:
    stage = config({"update": 0, "weights": {"news": 1.5, "captions": 0.25}})
    whole, parts = (
        [Counter(row for _, rows in epoch for row in rows) for epoch in epochs(each, stage, 2)]
        for each in (prepared, in_shards)
    )
    assert whole == parts


def test_a_window_that_the_weights_leave_empty_is_passed_over(in_shards: Prepared) -> None:
    """Captions alone, which here are in the first shard alone."""
    origins = in_shards.origins.copy()
    origins["source"] = np.where(np.arange(PAIRS) < 50, CAPTIONS, NEWS)
    here = dataclasses.replace(in_shards, origins=origins)
    only = epochs(here, config({"update": 0, "weights": {"news": 0}}), 3)
    assert [sorted(row for _, rows in epoch for row in rows) for epoch in only] == 3 * [list(range(50))]
    origins["source"] = NEWS
    with pytest.raises(DataError, match=r"the weights 0, 1 of train\.stages leave no pair"):
        next(batches_of_run(here, config({"update": 0, "weights": {"news": 0}}), 0, Cursor()))


def test_the_updates_of_an_epoch_are_estimated_by_a_window(in_shards: Prepared) -> None:
    plan, updates = plan_epoch(in_shards, config(), 0, (1.0, 1.0))
    assert len(plan) < updates
    (epoch,) = epochs(in_shards, config(), 1)
    assert abs(updates - len(epoch)) <= 2


def test_padding_of_windows_is_under_three_percent_at_wmt_like_lengths(prepared: Prepared) -> None:
    random, shard, count = np.random.default_rng(0), 40_000, 10
    target_N = random.lognormal(3.1, 0.65, shard * count)
    source_N = target_N * np.exp(random.normal(0, 0.2, shard * count))
    lengths = [np.clip(np.round(side_N), 2, 250).astype(np.int64) for side_N in (source_N, target_N)]
    corpus = Corpus(*(Sentences(np.empty(0, np.uint16), np.append(0, side_N.cumsum())) for side_N in lengths))
    large = dataclasses.replace(prepared, train=corpus, shards=[shard] * count)
    settings = config().model_copy(update={"batch": BatchConfig(tokens=5_000)})
    real, padded = 0, 0
    for rows in (rows for _, rows in epochs(large, settings, 1)[0]):
        lengths_R2 = corpus.lengths(np.array(rows))
        real += lengths_R2.sum()
        padded += lengths_R2.max(axis=0).sum() * len(rows)
    assert real == corpus.lengths().sum()
    assert 1 - real / padded < 0.03
