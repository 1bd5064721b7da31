"""Length-bucketed batches (section 5.1): complete, within budget, pure, and little padding."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mt.data.batches import _by_length, _groups, micro_batches, padding_share, plan_batches
from mt.errors import DataError

pairs_of_lengths = st.lists(st.tuples(st.integers(1, 60), st.integers(1, 60)), min_size=1, max_size=200)


def wmt_like_lengths(pairs: int, seed: int = 0) -> np.ndarray:
    """Lengths like WMT14's: lognormal, 27 target tokens on average, the source alike."""
    random = np.random.default_rng(seed)
    target = random.lognormal(3.1, 0.65, pairs)
    source = target * np.exp(random.normal(0, 0.2, pairs))
    return np.clip(np.round(np.stack([source, target], axis=1)), 2, 250).astype(np.int64)


@given(pairs_of_lengths, st.integers(60, 400), st.integers(0, 5))
def test_every_pair_is_in_exactly_one_batch(lengths: list[tuple[int, int]], tokens: int, epoch: int) -> None:
    plan = plan_batches(np.array(lengths), tokens, seed=1, epoch=epoch)
    assert sorted(np.concatenate(plan).tolist()) == list(range(len(lengths)))


@given(pairs_of_lengths, st.integers(60, 400))
def test_no_batch_exceeds_the_budget_on_either_side(lengths: list[tuple[int, int]], tokens: int) -> None:
    lengths_N2 = np.array(lengths)
    for rows in plan_batches(lengths_N2, tokens, seed=1, epoch=0):
        assert len(rows) * lengths_N2[rows].max() <= tokens


def test_the_plan_is_a_function_of_seed_and_epoch() -> None:
    lengths_N2 = wmt_like_lengths(3_000)

    def plan(seed: int, epoch: int) -> list[list[int]]:
        return [rows.tolist() for rows in plan_batches(lengths_N2, 2_000, seed, epoch)]

    assert plan(1, 0) == plan(1, 0)
    assert plan(1, 0) != plan(1, 1)
    assert plan(1, 0) != plan(2, 0)


def test_different_sentences_meet_in_each_epoch() -> None:
    lengths_N2 = wmt_like_lengths(3_000)
    first, second = ({frozenset(rows.tolist()) for rows in plan_batches(lengths_N2, 2_000, 1, e)} for e in (0, 1))
    assert len(first & second) < 0.1 * len(first)


def test_padding_is_under_three_percent_at_wmt_like_lengths() -> None:
    lengths_N2 = wmt_like_lengths(1_000_000)
    assert padding_share(plan_batches(lengths_N2, 25_000, 1, 0), lengths_N2) < 0.03


def test_padding_share_is_counted_as_defined() -> None:
    lengths_N2 = np.array([[2, 3], [4, 3]])
    assert padding_share([np.array([0, 1])], lengths_N2) == pytest.approx(2 / 14)


def test_batches_are_full() -> None:
    lengths_N2 = wmt_like_lengths(200_000)
    plan = plan_batches(lengths_N2, 25_000, 1, 0)
    used = np.mean([len(rows) * lengths_N2[rows].max() for rows in plan]) / 25_000
    assert used > 0.97


def test_a_sentence_no_batch_can_hold_is_named() -> None:
    with pytest.raises(DataError, match="pair 2 has 99 tokens on one side, but a batch holds 50"):
        plan_batches(np.array([[3, 3], [99, 4]]), 50, 1, 0)


@given(pairs_of_lengths, st.integers(60, 200), st.sampled_from([1, 2, 3, 4]))
def test_micro_batches_keep_every_row_once_in_order_and_come_in_equal_shares(
    lengths: list[tuple[int, int]], tokens: int, parts: int
) -> None:
    lengths_N2, rows = np.array(lengths), np.arange(len(lengths))
    pieces = micro_batches(rows, lengths_N2, tokens, parts)
    assert np.concatenate(pieces).tolist() == rows.tolist()
    assert len(pieces) % parts == 0


@pytest.mark.parametrize("longest", [50, 300, 70_000])
def test_pairs_are_sorted_as_python_sorts_them(longest: int) -> None:
    """Whatever type numpy sorts their lengths in."""
    lengths_N2 = np.random.default_rng(1).integers(1, longest, (500, 2))
    random = np.random.default_rng(2)
    group_L, tie_N = _groups(np.bincount(lengths_N2[:, 1]), 10 * longest, random), random.random(500)

    def key(row: int) -> tuple[float, ...]:
        source, target = lengths_N2[row].tolist()
        group = int(group_L[target])
        return group, source if group % 2 == 0 else -source, target, tie_N[row]

    assert _by_length(lengths_N2, 10 * longest, np.random.default_rng(2)).tolist() == sorted(range(500), key=key)
