"""What each epoch holds: the training pairs, each as often as its weight says at that stage of the run, in batches."""

from collections.abc import Generator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from mt.config import Config
from mt.data.batches import Cursor, Lengths, Rows, plan_batches
from mt.data.manifest import inputs_of
from mt.data.prepared import Prepared
from mt.errors import DataError

SHARDS = 4  # of a large corpus whose pairs are mixed: memory grows with them, about 100 bytes a pair

# Streams of random numbers beside those of BPE-dropout and of noise:
_DRAW = 3  # which pairs a weight such as 0.5 takes
_SHUFFLE = 5  # the order of shards
_WINDOW = 6  # the batches of each window


class Batch(NamedTuple):
    """The pairs of an update, its stage (how many of `train.stages` have begun), and the place of the next update."""

    rows: Rows
    stage: int
    following: Cursor


def batches_of_run(prepared: Prepared, config: Config, update: int, cursor: Cursor) -> Generator[Batch]:
    """Endless batches from a place in a run on: so many updates are done, and the cursor names the next batch.

    Where a stage changes the weights, a new epoch begins, and the rest of the epoch before it is left out.
    Pure, so that a run goes on exactly from any place. A thread plans the next window while the second half of this one
    is taken, and reads its first batch: training would stand still for that, seconds where the disk is slow.
    Raises DataError when a stage leaves no pair.
    """
    last = window_count(prepared) - 1
    with ThreadPoolExecutor(1, thread_name_prefix="plan") as pool:
        planned, empty = dict[tuple[int, int, tuple[float, ...]], Future[list[Rows]]](), 0
        while True:
            epoch, window, weights = cursor.epoch, cursor.window, _weights_at(config, update, cursor)
            made = planned.get((epoch, window, weights))
            if made and not made.exception():
                plan = made.result()
            else:  # or a shard could not be fetched then
                plan = plan_window(prepared, config, epoch, window, weights)
            next_window = Cursor(epoch, 0, window + 1) if window < last else Cursor(epoch + 1)
            if not plan:
                if (empty := empty + 1) > last:
                    raise _no_pair(weights)
                cursor = next_window
                continue
            empty, half = 0, max(cursor.batch, len(plan) // 2)
            while (cursor.epoch, cursor.window) == (epoch, window):
                if cursor.batch == half:
                    end = update + len(plan) - half
                    weights_then = _weights_at(config, end, next_window)  # unless a stage ends this epoch early
                    following = next_window.epoch, next_window.window, weights_then
                    planned = {following: pool.submit(_planned_ahead, prepared, config, *following)}
                rows, stage = plan[cursor.batch], config.train.stage_at(update, epoch)
                update, cursor = update + 1, Cursor(epoch, cursor.batch + 1, window)
                if _weights_at(config, update, cursor) != weights:
                    cursor = Cursor(epoch + 1)
                elif cursor.batch == len(plan):
                    cursor = next_window
                yield Batch(rows, stage, cursor)


def _planned_ahead(prepared: Prepared, config: Config, epoch: int, number: int, weights: Sequence[float]) -> list[Rows]:
    """The batches of a window whose first has been read, so that its shards are open and their pages in memory."""
    plan = plan_window(prepared, config, epoch, number, weights)
    if plan:
        prepared.train.take(plan[0])
    return plan


def _weights_at(config: Config, update: int, cursor: Cursor) -> tuple[float, ...]:
    return config.weights(config.train.stage_at(update, cursor.epoch))


def _no_pair(weights: Sequence[float]) -> DataError:
    return DataError(f"the weights {', '.join(f'{weight:g}' for weight in weights)} of train.stages leave no pair")


# --- Plans ---------------------------------------------------------------------------------------------------------


def plan_epoch(
    prepared: Prepared, config: Config, epoch: int, weights: Sequence[float], window: int = 0
) -> tuple[list[Rows], int]:
    """The batches of an epoch in which the inputs of data.train have these weights, and how many they are.

    Of a corpus of several windows, those of one, this or the next that has any, and about how many the epoch has: as
    many for each pair as there.
    Raises DataError when the weights leave no pair.
    """
    windows = _windows(prepared, config, epoch)
    for number in (*range(window, len(windows)), *range(window)):
        if plan := plan_window(prepared, config, epoch, number, weights):
            pairs = sum(map(len, windows[number]))
            return plan, len(plan) if len(windows) == 1 else round(len(plan) * len(prepared.train) / pairs)
    raise _no_pair(weights)


def plan_window(prepared: Prepared, config: Config, epoch: int, number: int, weights: Sequence[float]) -> list[Rows]:
    """The batches of a part of an epoch in which the inputs of data.train have these weights; it may have none."""
    windows = _windows(prepared, config, epoch)
    parts = [_rows_of(part, prepared, config, epoch, weights) for part in windows[number]]
    rows = np.concatenate([rows for rows, _ in parts])
    lengths_N2 = np.concatenate([lengths_N2 for _, lengths_N2 in parts])
    if not len(rows):
        return []
    window = () if len(windows) == 1 else (_WINDOW, number)
    plan = plan_batches(lengths_N2, config.batch.tokens, config.seed, epoch, window)
    return [rows[batch] for batch in plan]


def window_count(prepared: Prepared) -> int:
    """How many windows each epoch has."""
    return max(1, -(-len(prepared.shards) // SHARDS))


def _windows(prepared: Prepared, config: Config, epoch: int) -> list[list[range]]:
    """The rows of an epoch in windows of up to SHARDS shards, in random order; few shards are one window."""
    if window_count(prepared) == 1:
        return [[range(len(prepared.train))]]
    ends = np.cumsum(prepared.shards).tolist()
    shards = [range(end - rows, end) for end, rows in zip(ends, prepared.shards, strict=True)]
    order = np.random.Generator(np.random.PCG64([config.seed, epoch, _SHUFFLE])).permutation(len(shards))
    windows = np.array_split(order, window_count(prepared))
    return [[shards[shard] for shard in sorted(window.tolist())] for window in windows]


def _rows_of(
    part: range, prepared: Prepared, config: Config, epoch: int, weights: Sequence[float]
) -> tuple[Rows, Lengths]:
    """The rows of a part of the corpus, each as often as the weight of its input says, and their lengths."""
    here = slice(part.start, part.stop)
    lengths_N2 = prepared.train.lengths(here)
    as_prepared = [source.weight for source in config.data.train]
    if list(weights) == as_prepared:
        return np.arange(part.start, part.stop), lengths_N2
    inputs = inputs_of(prepared.manifest["sources"]["train"])
    before, now = ([each[number] for number in inputs] for each in (as_prepared, weights))
    stream = np.random.PCG64([config.seed, epoch, _DRAW])
    stream.advance(part.start)  # each pair of the corpus has its own random number
    rows = weighted_rows(prepared.origins[here], before, now, np.random.Generator(stream))
    return rows + part.start, lengths_N2[rows]


def weighted_rows(
    origins_N: npt.NDArray[np.void], as_prepared: Sequence[float], weights: Sequence[float], random: np.random.Generator
) -> Rows:
    """The rows of a corpus, each as often as the new weight of its input says.

    A weight of 2.5 takes each pair twice, and once more a random half of them. In a source whose weight stays, rows
    are those that were prepared; else the copies that its old weight made count as one pair.
    """
    input_N = origins_N["source"]
    stays_N = np.equal(as_prepared, weights)[input_N]
    is_copy_N = np.append(False, origins_N[1:] == origins_N[:-1])
    share_N, whole_N = np.modf(np.asarray(weights)[input_N])
    times_N = whole_N.astype(np.int64) + (random.random(len(origins_N)) < share_N)
    return np.repeat(np.arange(len(origins_N)), np.where(stays_N, 1, np.where(is_copy_N, 0, times_N)))
