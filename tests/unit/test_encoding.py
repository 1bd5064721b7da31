"""Training pairs to ids by words that are remembered: the ids are those of the whole line, whatever it holds."""

import lzma
import random
from pathlib import Path

import pytest
from helpers import unigrams_numbered_alike
from hypothesis import given, settings
from hypothesis import strategies as st

from mt.data.encoding import PairEncoder, WordMemory
from mt.data.protect import Encoder, Protection
from mt.data.tokenizer import EOS, Tokenizer, train_tokenizer
from mt.data.vocabulary import Tokenizers
from mt.patterns import NUMBERED

WORDS = ["the", "small", "green", "house", "träumt", "über", "Straße", "und", "7", "2014", "<bt>", "a<bt>b", "⟦1⟧", ""]
HOSTILE = ["\u2581", "\ue000", "\ue0001", "\x00", "\x07", "\t", "\r", "\x85", "\u2028", "\u00a0", "\u3000", "\u200b"]
HOSTILE += [
    "e\u0301",
    "ﬁ",
    "½",
    "ﷺ",
    "👩‍👩‍👧",
    "<s>",
    "</s>",
    "<0x41>",
    "\ufffd",
    "x" * 5_000,
    "straße" * 300,
    " ",
    "   ",
]

line = st.lists(
    st.sampled_from([*WORDS, *HOSTILE, " ", " "])
    | st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\n"), max_size=6),
    max_size=12,
).map("".join)


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    chance = random.Random(0)
    lines = [" ".join(chance.choices([word for word in WORDS if "<" not in word], k=8)) for _ in range(300)]
    return train_tokenizer(lines, 340, ["<bt>", *NUMBERED])


@pytest.fixture(scope="module")
def memory(tokenizer: Tokenizer) -> WordMemory:
    assert tokenizer.cuts_words_alone
    return WordMemory(tokenizer)


def remembered(memory: WordMemory, tokenizer: Tokenizer, lines: list[str]) -> list[list[int]]:
    return [ids.tolist() for ids in memory.sentences(tokenizer.escaped(lines))]


@settings(max_examples=400, deadline=None)
@given(st.lists(line, max_size=5))
def test_words_have_the_pieces_of_their_line(memory: WordMemory, tokenizer: Tokenizer, lines: list[str]) -> None:
    assert remembered(memory, tokenizer, lines) == [[*ids, EOS] for ids in tokenizer.encode(lines)]


@settings(max_examples=100, deadline=None)
@given(st.lists(st.tuples(line, line), min_size=1, max_size=5))
def test_protected_pairs_have_the_pieces_that_translating_gives_them(
    tokenizer: Tokenizer, pairs: list[tuple[str, str]]
) -> None:
    both, protection = Tokenizers(tokenizer), Protection(["number"])
    sources, targets = ([pair[side] for pair in pairs] for side in (0, 1))
    corpus, outcomes = PairEncoder(both, protection).encode(sources, targets, "<bt>")
    source_side, target_side = Encoder(both, protection).pairs(sources, targets)
    tag = tokenizer.tag_id("<bt>")
    assert [ids.tolist() for ids in corpus.source] == [[tag, *each.ids, EOS] for each in source_side]
    assert [ids.tolist() for ids in corpus.target] == [[*each.ids, EOS] for each in target_side]
    assert outcomes.total() == sum(bool(each.note or each.values) for each in source_side)


def test_the_memory_is_bounded_and_forgetting_changes_nothing(
    tokenizer: Tokenizer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mt.data.encoding.MOST_CHARACTERS", 50)
    memory = WordMemory(tokenizer)
    for start in range(0, 200, 10):
        lines = [f"number {number} of the small house" for number in range(start, start + 10)]
        assert remembered(memory, tokenizer, lines) == [[*ids, EOS] for ids in tokenizer.encode(lines)]
        assert len(memory._ids) < 50


def test_a_tokenizer_that_looks_beyond_words_cuts_whole_lines() -> None:
    """A unigram model, whose sums of scores may be rounded otherwise in a longer line."""
    other = Tokenizer(unigrams_numbered_alike(["the small green house"] * 9)[0])
    assert not other.cuts_words_alone
    assert remembered(WordMemory(other), other, ["the house", ""]) == [[*other.encode(["the house"])[0], EOS], [EOS]]


@pytest.mark.real_text
def test_words_of_real_text_have_the_pieces_of_their_line(real_text: Path) -> None:
    lines = []
    for name in ("chat", "manpages"):
        for language in ("en", "de"):
            with lzma.open(real_text / name / f"train.{language}.xz", "rt", encoding="utf-8", newline="\n") as file:
                lines += [text.removesuffix("\n") for _, text in zip(range(10_000), file, strict=False)]
    tokenizer = train_tokenizer(lines[::10], 2_000)
    assert remembered(WordMemory(tokenizer), tokenizer, lines) == [[*ids, EOS] for ids in tokenizer.encode(lines)]
