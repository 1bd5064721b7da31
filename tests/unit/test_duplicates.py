"""Duplicates across shards: found as in one pass over all pairs, whatever the shards and the memory."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mt.data.duplicates import mark_repeated, pair_hashes, repeated_path, write_hashes

pairs = st.lists(st.tuples(st.sampled_from("abcdef"), st.sampled_from("abcdef"), st.sampled_from([None, "<bt>"])))


@settings(max_examples=60, deadline=None)
@given(st.lists(pairs, max_size=5), st.sampled_from([2**30, 200, 48]))
def test_a_pair_is_repeated_when_it_was_there_before(
    tmp_path_factory: pytest.TempPathFactory, shards: list[list[tuple[str, str, str | None]]], memory: int
) -> None:
    folder = tmp_path_factory.mktemp("shards")
    folders, met = [], set[object]()
    expected = [[is_met(pair, met) for pair in shard] for shard in shards]
    for number, shard in enumerate(shards):
        folders.append(folder / f"shard{number}")
        folders[-1].mkdir()
        hashes = [pair_hashes([source], [target], tag) for source, target, tag in shard]
        write_hashes(folders[-1], np.concatenate([np.empty(0, np.uint64), *hashes]))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("mt.data.duplicates.MEMORY", memory)
        mark_repeated(folders, list(map(len, shards)), folder)
    assert [np.load(repeated_path(folder, number)).tolist() for number in range(len(shards))] == expected


def test_many_pairs_take_several_ranges_of_hashes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mt.data.duplicates.MEMORY", 100_000)
    numbers = [str(number) for number in range(20_000)]
    folders = [tmp_path / "first", tmp_path / "second"]
    for folder in folders:
        folder.mkdir()
        write_hashes(folder, pair_hashes(numbers, numbers, None))
    mark_repeated(folders, [20_000, 20_000], tmp_path)
    assert not np.load(repeated_path(tmp_path, 0)).any()
    assert np.load(repeated_path(tmp_path, 1)).all()


def is_met(pair: object, met: set[object]) -> bool:
    """Whether it is among those met, to which it is added."""
    before = pair in met
    met.add(pair)
    return before
