"""Laws of decoding (section 6.1): the beam against enumeration, greedy = beam 1, stopping, penalties."""

from collections.abc import Callable
from itertools import product

import pytest
import torch
from torch import Tensor

from mt.translate.search import beam_search, greedy_search, length_penalty

BOS, EOS, A, B = 0, 1, 2, 3
PIECES = (EOS, A, B)


class RandomModel:
    """A language model by table: the next piece's log-probabilities depend on sentence and whole history."""

    def __init__(self, sentences: int, width: int, seed: int = 0) -> None:
        self.seed = seed
        self.names = [sentence for sentence in range(sentences) for _ in range(width)]
        self.histories: list[tuple[int, ...]] = [()] * (sentences * width)
        self.width = width

    def next_logp(self, sentence: int, history: tuple[int, ...]) -> Tensor:
        code = self.seed * 1009 + sentence
        for piece in history:
            code = code * 7 + piece + 1
        logits = torch.randn(4, generator=torch.Generator().manual_seed(code % 2**31)) * 2
        logits[BOS] = float("-inf")
        return logits.log_softmax(0)

    def step(self, ids_BW: Tensor) -> Tensor:
        for row, piece in enumerate(ids_BW.flatten().tolist()):
            self.histories[row] = (*self.histories[row], piece)
        rows = [self.next_logp(name, history) for name, history in zip(self.names, self.histories, strict=True)]
        return torch.stack(rows).view(-1, self.width, 4)

    def select(self, sentences: Tensor, rows: Tensor) -> None:
        self.names = [self.names[row] for row in rows.tolist()]
        self.histories = [self.histories[row] for row in rows.tolist()]

    def log_probability(self, sentence: int, ids: list[int]) -> float:
        """What forced decoding gives these pieces and EOS."""
        history, total = (BOS,), 0.0
        for piece in [*ids, EOS]:
            total += float(self.next_logp(sentence, history)[piece])
            history = (*history, piece)
        return total


def search(sentences: int, limits: list[int], beam: int, alpha: float = 0.6, keep: int = 1, seed: int = 0):
    model = RandomModel(sentences, beam, seed)
    return beam_search(model.step, model.select, torch.tensor(limits), BOS, EOS, beam, alpha, keep)


def greedy(sentences: int, limits: list[int], seed: int = 0) -> list[list[int]]:
    model = RandomModel(sentences, 1, seed)
    return greedy_search(model.step, model.select, torch.tensor(limits), BOS, EOS)


def enumerate_all(sentence: int, limit: int, alpha: float, seed: int) -> list[tuple[float, list[int]]]:
    """Every output of at most `limit` pieces with EOS, best score first."""
    model = RandomModel(1, 1, seed)
    outputs = [list(ids) for length in range(limit) for ids in product((A, B), repeat=length)]
    scored = [
        (model.log_probability(sentence, ids) / float(length_penalty(len(ids) + 1, alpha)), ids) for ids in outputs
    ]
    return sorted(scored, reverse=True)


@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize("alpha", [0.0, 0.6, 2.0])
def test_a_wide_beam_finds_what_enumeration_finds(seed: int, alpha: float) -> None:
    limits = [5, 3, 4]
    for keep in (1, 6):
        found = search(3, limits, beam=64, alpha=alpha, keep=keep, seed=seed)
        for sentence, limit in enumerate(limits):
            expected = enumerate_all(sentence, limit, alpha, seed)[:keep]
            assert [hypothesis.ids for hypothesis in found[sentence]] == [ids for _, ids in expected]
            assert [h.score for h in found[sentence]] == pytest.approx([score for score, _ in expected], abs=1e-5)


@pytest.mark.parametrize("seed", range(20))
def test_a_beam_of_one_is_greedy(seed: int) -> None:
    limits = [9, 2, 6, 1, 30]
    found = search(5, limits, beam=1, seed=seed)
    assert [hypotheses[0].ids for hypotheses in found] == greedy(5, limits, seed=seed)


@pytest.mark.parametrize("beam", [2, 3, 4])
def test_the_reported_score_is_that_of_forced_decoding(beam: int) -> None:
    model = RandomModel(4, 1)
    for sentence, hypotheses in enumerate(search(4, [12, 7, 20, 3], beam=beam, keep=beam)):
        for hypothesis in hypotheses:
            logp = model.log_probability(sentence, hypothesis.ids)
            assert hypothesis.log_probability == pytest.approx(logp, abs=1e-5)
            assert hypothesis.score == pytest.approx(logp / ((5 + len(hypothesis.ids) + 1) / 6) ** 0.6, abs=1e-5)


@pytest.mark.parametrize("beam", [1, 2, 4])
def test_a_sentence_does_not_depend_on_its_neighbours(beam: int) -> None:
    """Also not on when they leave the batch: their limits differ."""
    limits = [12, 3, 20, 5, 8, 1]
    together = search(6, limits, beam=beam)
    for sentence, limit in enumerate(limits):
        model = RandomModel(sentence + 1, beam)
        model.names = [sentence] * beam
        model.histories = model.histories[:beam]
        alone = beam_search(model.step, model.select, torch.tensor([limit]), BOS, EOS, beam, 0.6)
        assert alone[0] == together[sentence]


def test_hypotheses_are_distinct_and_best_first() -> None:
    for hypotheses in search(10, [15] * 10, beam=5, keep=5):
        scores = [hypothesis.score for hypothesis in hypotheses]
        assert scores == sorted(scores, reverse=True)
        assert len({tuple(hypothesis.ids) for hypothesis in hypotheses}) == len(hypotheses)


def test_no_output_is_longer_than_its_limit() -> None:
    """The limit counts EOS, as the length penalty does."""
    never_ends: Callable[[Tensor], Tensor] = lambda ids_BW: torch.tensor([-99.0, -50.0, -0.1, -3.0]).expand(  # noqa: E731
        *ids_BW.shape, 4
    )
    for beam in (1, 3):
        found = beam_search(never_ends, lambda sentences, rows: None, torch.tensor([4, 2]), BOS, EOS, beam, 0.6)
        assert [len(hypotheses[0].ids) for hypotheses in found] == [3, 1]
    assert greedy_search(never_ends, lambda sentences, rows: None, torch.tensor([4, 2]), BOS, EOS) == [[A] * 3, [A]]


def test_the_search_stops_when_no_live_hypothesis_can_overtake() -> None:
    """EOS at once has 0.999 of the probability: one more step can show nothing better."""
    steps = 0

    def step(ids_BW: Tensor) -> Tensor:
        nonlocal steps
        steps += 1
        return torch.tensor([0.0, 0.999, 0.0005, 0.0005]).log().expand(*ids_BW.shape, 4)

    found = beam_search(step, lambda sentences, rows: None, torch.tensor([50]), BOS, EOS, 4, 0.6)
    assert found[0][0].ids == []
    assert steps == 1


def test_the_penalty_is_that_of_wu_et_al() -> None:
    assert float(length_penalty(1, 0.6)) == 1.0
    assert float(length_penalty(7, 1.0)) == 2.0
    assert float(length_penalty(7, 0.6)) == pytest.approx(2**0.6)
