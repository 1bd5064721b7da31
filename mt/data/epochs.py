"""What each epoch holds: the training pairs, each as often as its weight says at that stage of the run, in batches."""

from collections.abc import Generator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from mt.config import Config
from mt.data.batches import Cursor, Rows, plan_batches
from mt.data.prepared import Prepared, inputs_of
from mt.errors import DataError

_DRAW = 3  # which pairs a weight such as 0.5 takes: a stream of random numbers beside those of BPE-dropout


class Batch(NamedTuple):
    """The pairs of an update, its stage (how many of `train.stages` have begun), and the place of the next update."""

    rows: Rows
    stage: int
    following: Cursor


def batches_of_run(prepared: Prepared, config: Config, update: int, cursor: Cursor) -> Generator[Batch]:
    """Endless batches from a place in a run on: so many updates are done, and the cursor names the next batch.

    Where a stage changes the weights, a new epoch begins, and the rest of the epoch before it is left out.
    Pure, so that a run goes on exactly from any place. A thread plans the next epoch while the second half of this one
    is taken: with millions of pairs that takes seconds, in which training would stand still.
    """
    with ThreadPoolExecutor(1, thread_name_prefix="plan") as pool:
        planned = dict[tuple[int, tuple[float, ...]], Future[list[Rows]]]()
        while True:
            epoch, weights = cursor.epoch, _weights_at(config, update, cursor)
            made = planned.get((epoch, weights))
            plan = made.result() if made else plan_epoch(prepared, config, epoch, weights)
            half = max(cursor.batch, len(plan) // 2)
            while cursor.epoch == epoch:
                if cursor.batch == half:
                    end, start = update + len(plan) - half, Cursor(epoch + 1, 0)
                    following = (start.epoch, _weights_at(config, end, start))  # unless a stage ends this epoch early
                    planned = {following: pool.submit(plan_epoch, prepared, config, *following)}
                rows, stage = plan[cursor.batch], config.train.stage_at(update, epoch)
                update, cursor = update + 1, Cursor(epoch, cursor.batch + 1)
                if cursor.batch == len(plan) or _weights_at(config, update, cursor) != weights:
                    cursor = Cursor(epoch + 1, 0)
                yield Batch(rows, stage, cursor)


def _weights_at(config: Config, update: int, cursor: Cursor) -> tuple[float, ...]:
    return config.weights(config.train.stage_at(update, cursor.epoch))


def plan_epoch(prepared: Prepared, config: Config, epoch: int, weights: Sequence[float]) -> list[Rows]:
    """The batches of an epoch in which the inputs of data.train have these weights.

    Raises DataError when they leave no pair.
    """
    lengths_N2 = prepared.train.lengths()
    as_prepared = [source.weight for source in config.data.train]
    if list(weights) == as_prepared:
        return plan_batches(lengths_N2, config.batch.tokens, config.seed, epoch)
    random = np.random.Generator(np.random.PCG64([config.seed, epoch, _DRAW]))
    inputs = inputs_of(prepared.manifest["sources"]["train"])
    before, now = ([each[number] for number in inputs] for each in (as_prepared, weights))
    rows = weighted_rows(prepared.origins, before, now, random)
    if not len(rows):
        raise DataError(f"the weights {', '.join(f'{weight:g}' for weight in weights)} of train.stages leave no pair")
    return [rows[batch] for batch in plan_batches(lengths_N2[rows], config.batch.tokens, config.seed, epoch)]


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
