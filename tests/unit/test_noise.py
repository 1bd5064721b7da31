"""Noise in a text: each kind does what it says, and any text in any script survives it."""

import random
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mt.evaluate.stress import with_noise
from mt.noise import KINDS, TYPOS, noisy
from mt.patterns import graphemes

any_text = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\n"))
SCRIPTS = ["Straße läuft", "नमस्ते दुनिया", "สวัสดีครับ", "مُحَمَّد", "안녕하세요", "こんにちは世界", "e\u0301te\u0301"]


def one(text: str, kind: str, seed: int = 1) -> str:
    (result,) = noisy([text], kind, random.Random(seed).random)
    return result


@pytest.mark.parametrize(
    ("kind", "text", "expected"),
    [
        ("lower case", "Ein HAUS, Straße 7.", "ein haus, straße 7."),
        ("upper case", "Ein Haus, Straße 7.", "EIN HAUS, STRASSE 7."),
        ("no end mark", "Is this a house?!", "Is this a house"),
        ("no end mark", "tokenised text .", "tokenised text"),
        ("no end mark", "これは家です。", "これは家です"),
        ("no end mark", "यह घर है।", "यह घर है"),
        ("no end mark", "3.5", "3.5"),
        ("no end mark", "...", "..."),
    ],
)
def test_each_kind_does_what_it_says(kind: str, text: str, expected: str) -> None:
    assert one(text, kind) == expected


def test_typos_hit_the_stated_share_of_letters_and_no_digit() -> None:
    text = "abcdefghij" * 1_000 + " 0123456789" * 500
    changed = one(text, "typos")
    assert changed.endswith(" 0123456789" * 500)
    moved = [text] * 20
    lengths = [len(one(line, "typos", seed)) - len(line) for seed, line in enumerate(moved)]
    # A quarter of the slips makes a text longer, a quarter shorter: the variance counts them.
    expected = 10_000 * TYPOS / 2
    assert 0.3 < sum(length**2 for length in lengths) / len(lengths) / expected < 2.5
    assert [one("a", "typos", seed) for seed in range(100)] == ["a"] * 100


@pytest.mark.parametrize("text", SCRIPTS)
def test_typos_keep_the_letters_of_every_script_whole(text: str) -> None:
    known = set(graphemes(text))
    results = {one(text, "typos", seed) for seed in range(100)}
    assert len(results) > 1
    assert all(set(graphemes(result)) <= known for result in results)


@given(any_text, st.sampled_from(KINDS), st.integers(0, 99))
def test_any_text_stays_one_valid_line(text: str, kind: str, seed: int) -> None:
    result = one(text, kind, seed)
    assert "\n" not in result
    assert result.encode().decode() == result
    assert bool(result) == bool(text)
    assert one(text, kind, seed) == result


@given(st.lists(any_text, min_size=3, max_size=7), st.sampled_from(KINDS))
def test_symbols_between_the_text_stay_as_they_are(parts: list[str], kind: str) -> None:
    parts = parts[: (len(parts) - 1) // 2 * 2 + 1]  # text last, as it is first
    result = noisy(parts, kind, random.Random(1).random)
    assert len(result) == len(parts)
    assert result[1::2] == parts[1::2]


def test_test_sets_get_the_same_noise_each_time_and_keep_what_is_protected() -> None:
    lines = [f"See https://example.org/Path{number} for The Details." for number in range(300)]
    for kind in KINDS:
        found = with_noise(lines, kind, ["url"])
        assert found == with_noise(lines, kind, ["url"])
        assert found[:9] == with_noise(lines[:9], kind, ["url"])
        assert all(f"https://example.org/Path{number}" in line for number, line in enumerate(found))
        assert found != lines
    typos = with_noise(["the same line of text"] * 50, "typos")
    assert any(left != right for left, right in pairwise(typos)), "each line has its own draw"
