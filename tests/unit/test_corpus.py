"""Ids on disk: what is written is what is read, and batches hold exactly the rows asked for."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mt.data.corpus import Corpus, Sentences, corpus_writer, open_corpus
from mt.data.tokenizer import EOS, PAD
from mt.errors import DataError

IdPairs = list[tuple[list[int], list[int]]]
Case = tuple[IdPairs, list[int]]

sentence = st.lists(st.integers(3, 65_535), max_size=12)
pairs_and_rows = st.lists(st.tuples(sentence, sentence), min_size=1, max_size=20).flatmap(
    lambda pairs: st.tuples(st.just(pairs), st.lists(st.integers(0, len(pairs) - 1), max_size=10))
)


def corpus_of(pairs: IdPairs) -> Corpus:
    return Corpus(*(Sentences.from_lists([list(pair[side]) for pair in pairs]) for side in (0, 1)))


def padded(sentences: list[list[int]]) -> list[list[int]]:
    """What padding should give, the slow and obvious way."""
    width = max((len(ids) + 1 for ids in sentences), default=0)
    return [[*ids, EOS, *[PAD] * (width - len(ids) - 1)] for ids in sentences]


@given(pairs_and_rows)
def test_pairs_are_padded_to_the_longest(case: Case) -> None:
    pairs, rows = case
    found = corpus_of(pairs).take(np.array(rows, dtype=np.int64)).padded()
    for side in (0, 1):
        assert found[side].dtype == np.int64
        assert found[side].tolist() == padded([pairs[row][side] for row in rows])


@given(pairs_and_rows)
def test_taking_rows_is_indexing_each(case: Case) -> None:
    pairs, rows = case
    taken = corpus_of(pairs).take(np.array(rows, dtype=np.int64))
    assert [ids.tolist() for ids in taken.source] == [[*pairs[row][0], EOS] for row in rows]
    assert [ids.tolist() for ids in taken.target] == [[*pairs[row][1], EOS] for row in rows]


@given(st.lists(st.lists(st.tuples(sentence, sentence), max_size=6), max_size=4))
def test_what_is_written_in_parts_is_read_as_a_whole(
    tmp_path_factory: pytest.TempPathFactory, parts: list[IdPairs]
) -> None:
    folder = tmp_path_factory.mktemp("corpus")
    with corpus_writer(folder) as write:
        for part in parts:
            write(corpus_of(part))
    read, whole = open_corpus(folder), corpus_of([pair for part in parts for pair in part])
    for side in ("source", "target"):
        written, expected = getattr(read, side), getattr(whole, side)
        assert written.ids.tolist() == expected.ids.tolist()
        assert written.offsets.tolist() == expected.offsets.tolist()
        assert written.lengths.tolist() == expected.lengths.tolist()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    with corpus_writer(tmp_path) as write:
        write(corpus_of([([5, 6], [7]), ([], [8, 9, 10])]))
    return tmp_path


def test_lengths_count_the_eos(folder: Path) -> None:
    corpus = open_corpus(folder)
    assert corpus.source.lengths.tolist() == [3, 1]
    assert corpus.target.lengths.tolist() == [2, 4]


def test_ids_stay_on_disk(folder: Path) -> None:
    corpus = open_corpus(folder)
    assert isinstance(corpus.source.ids, np.memmap)
    assert corpus.source.ids.dtype == np.uint16


def test_the_files_are_plain_numpy_arrays(folder: Path) -> None:
    assert np.load(folder / "source.ids.npy").tolist() == [5, 6, EOS, EOS]
    assert np.load(folder / "target.offsets.npy").tolist() == [0, 2, 6]


def test_a_cut_file_is_refused_by_name(folder: Path) -> None:
    path = folder / "target.ids.npy"
    path.write_bytes(path.read_bytes()[:-2])
    with pytest.raises(DataError, match=r"target\.ids\.npy is damaged"):
        open_corpus(folder)


def test_a_missing_file_is_refused_by_name(folder: Path) -> None:
    (folder / "source.offsets.npy").unlink()
    with pytest.raises(DataError, match=r"source\.offsets\.npy is missing"):
        open_corpus(folder)


def test_a_file_of_pickles_is_never_loaded(folder: Path) -> None:
    np.save(folder / "source.offsets.npy", np.array([object()]), allow_pickle=True)
    with pytest.raises(DataError, match=r"source\.offsets\.npy is damaged"):
        open_corpus(folder)


def test_ids_that_do_not_fit_their_offsets_are_refused(folder: Path) -> None:
    np.save(folder / "source.offsets.npy", np.array([0, 3, 9]))
    with pytest.raises(DataError, match="does not fit its offsets"):
        open_corpus(folder)


def test_sides_of_different_number_are_refused() -> None:
    with pytest.raises(DataError, match="2 source but 1 target"):
        Corpus(Sentences.from_lists([[4], [5]]), Sentences.from_lists([[4]]))
