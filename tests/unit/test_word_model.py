"""IBM model 1 finds the dictionary that a corpus was made with."""

import numpy as np
import pytest

from mt.data import word_model
from mt.data.corpus import Corpus, Sentences
from mt.data.word_model import estimate_word_model


def corpus(sentences: int, seed: int = 1) -> Corpus:
    """Sources of words 10 to 39; each target has 100 more for each word, in another order."""
    random = np.random.default_rng(seed)
    sources = [random.integers(10, 40, random.integers(1, 9)).tolist() for _ in range(sentences)]
    targets = [(random.permutation(source) + 100).tolist() for source in sources]
    return Corpus(Sentences.from_lists(sources), Sentences.from_lists(targets))


def test_each_word_is_translated_as_the_dictionary_says() -> None:
    words = estimate_word_model(corpus(600))
    source_S, target_T = np.arange(10, 40), np.arange(110, 140)
    probability_TS = words.probabilities(source_S, target_T)
    assert probability_TS.argmax(axis=1).tolist() == list(range(30))
    assert probability_TS.diagonal().min() > 0.5


def test_the_probabilities_of_a_source_piece_sum_to_one() -> None:
    words = estimate_word_model(corpus(50))
    total_S = words.probabilities(np.arange(10, 40), np.arange(110, 140)).sum(axis=0)
    assert total_S == pytest.approx(np.ones(30))


def test_what_was_never_met_has_no_probability() -> None:
    words = estimate_word_model(corpus(50))
    assert words.probabilities(np.array([5, 10]), np.array([7, 500])).max() == 0


def test_a_pair_without_pieces_takes_no_part() -> None:
    empty = Corpus(Sentences.from_lists([[], [10], [10]]), Sentences.from_lists([[11], [], [12]]))
    assert estimate_word_model(empty).probabilities(np.array([10]), np.array([11, 12])).tolist() == [[0.0], [1.0]]


def test_documents_alone_teach_no_words() -> None:
    pieces = Sentences.from_lists([list(range(10, 90))])
    assert not estimate_word_model(Corpus(pieces, pieces)).probabilities(np.array([10, 11]), np.array([10])).any()


def test_the_best_targets_of_each_source_come_first(monkeypatch: pytest.MonkeyPatch) -> None:
    """However the pairs are cut into chunks."""
    whole = estimate_word_model(corpus(600))
    best_SC = whole.best(40, 3, filler=0)
    assert best_SC[10:, 0].tolist() == list(range(110, 140))
    assert not best_SC[:10].any()
    assert whole.without(np.arange(110, 120)).best(40, 1, filler=0)[:22, 0].tolist()[20:] == [120, 121]
    monkeypatch.setattr(word_model, "CHUNK_CELLS", 100)
    cut = estimate_word_model(corpus(600))
    assert np.array_equal(cut.code_N, whole.code_N)
    assert cut.probability_N == pytest.approx(whole.probability_N)
