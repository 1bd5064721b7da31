"""Protected text: what is found is replaced by numbered symbols, and comes back, whatever stands beside it."""

import random
import re
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mt.config_file import load_config
from mt.data.protect import Encoder, Protection
from mt.data.tokenizer import Tokenizer, train_tokenizer
from mt.data.vocabulary import Tokenizers
from mt.errors import ConfigError, DataError
from mt.patterns import BY_NAME, NUMBERED, SlowPatternError, find_all

ALL = list(BY_NAME)
FOUND = {
    "url": ["https://example.org/a?b=c", "http://x.de", "ftp://files.org/~me"],
    "email": ["a.b+c@mail.example.org"],
    "markup": ["<b>", "</b>", '<a href="x">', "<br/>", "&amp;", "&#39;"],
    "placeholder": ["{name}", "{{user}}", "${x}", "%s", "%1$d", "%(count)d", "{0}"],
    "number": ["7", "2014", "007"],
}
anything = st.lists(
    st.sampled_from([*(text for texts in FOUND.values() for text in texts), *NUMBERED, "<bt>"])
    | st.sampled_from([*" .,:;!?()%{}<>&@", "\ue000", "\u2581", "\u27e6", "der ", "Hund", " sieht "])
    | st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\n"), max_size=5),
    max_size=12,
).map("".join)


def tokenizer() -> Tokenizer:
    chance = random.Random(0)
    words = ["der", "die", "Hund", "sieht", "läuft", "nach", "über", "Haus", "see", "the", "dog", "runs"]
    lines = [" ".join(chance.choices(words, k=8)) for _ in range(300)]
    return train_tokenizer(lines, 340, ["<bt>", *NUMBERED])


@pytest.fixture(scope="module")
def encoder() -> Encoder:
    return Encoder(Tokenizers(tokenizer()), Protection(ALL))


def found(pattern: str, text: str) -> list[str]:
    return [text[start:end] for start, end in find_all([pattern], text)]


# --- What is found --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", FOUND)
def test_each_pattern_finds_its_texts_among_words(name: str) -> None:
    for text in FOUND[name]:
        assert found(name, f"Der Text ({text}), und: {text}.") == [text, text]


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("number", "B2B und MP3"),
        ("placeholder", "100 % sicher, 5%ig, { }"),
        ("markup", "a < b und c > d & e"),
        ("email", "@home a@b"),
        ("url", "http:// und www"),
    ],
)
def test_what_only_looks_alike_is_not_found(name: str, text: str) -> None:
    assert found(name, text) == []


def test_the_pattern_named_first_has_what_two_of_them_find() -> None:
    text = "https://example.org/2014 7"
    assert find_all(["url", "number"], text) == [(0, 24), (25, 26)]
    assert find_all(["number", "url"], text) == [(20, 24), (25, 26)]


@pytest.mark.parametrize("name", ALL)
def test_no_text_makes_a_named_pattern_slow(name: str) -> None:
    for unit in (
        "a",
        "1",
        ".",
        "<a",
        "{",
        "%1",
        "&a",
        "a@",
        "http://",
        "http://.",
        "{{",
        "$",
        "a.",
        "%(a",
        "a@a-",
        " ",
    ):
        find_all([name], unit * (300_000 // len(unit)))


def test_a_pattern_that_takes_too_long_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mt.patterns.SECONDS", 0.1)
    slow, text = "(a|aa)+$", "a" * 60 + "b"
    with pytest.raises(SlowPatternError, match=re.escape("data.protect: (a|aa)+$ takes more than 0.1 seconds")):
        find_all([slow], text)
    with pytest.raises(DataError, match="write it in another way: aaaa"):
        Protection([slow]).pair(text, text)
    marked = Protection([slow]).line(text)
    assert marked.parts == [text]
    assert marked.note.startswith("translated without data.protect: ")


@pytest.mark.parametrize(
    ("pattern", "message"),
    [
        ("(", "( is no regular expression: missing )"),
        ("a*", "a* matches where there is nothing"),
        ("urls", "urls is none of url, email, markup, placeholder, number"),
    ],
)
def test_an_impossible_pattern_is_one_sentence_with_its_line(tmp_path: Path, pattern: str, message: str) -> None:
    path = tmp_path / "my.yaml"
    path.write_text(f"data:\n  train: a\n  valid: b\n  protect:\n    - url\n    - '{pattern}'\n")
    with pytest.raises(ConfigError, match=rf"^.*my\.yaml:6: data\.protect\.1: {re.escape(message)}[^\n]*$"):
        load_config(path)


def test_one_pattern_needs_no_list(tmp_path: Path) -> None:
    path = tmp_path / "my.yaml"
    path.write_text("data: {train: a, valid: b, protect: url}")
    assert load_config(path).data.protect == ("url",)
    assert load_config(path).data.all_symbols == list(NUMBERED)


# --- There and back -------------------------------------------------------------------------------------------------


@settings(max_examples=500, deadline=None)
@given(anything)
def test_a_line_comes_back_when_its_symbols_do(encoder: Encoder, line: str) -> None:
    (encoded,) = encoder.sources([line])
    assert encoder.decode([(encoded.ids, encoded.values)]) == [line]
    numbered = [index for index in encoded.ids if index in encoder.tokenizers.source.symbols.values()]
    assert numbered == [encoder.tokenizers.source.symbols[symbol] for symbol in NUMBERED[: len(encoded.values)]]


@settings(deadline=None)
@given(anything, anything)
def test_a_pair_is_protected_on_both_sides_or_on_none(encoder: Encoder, source: str, target: str) -> None:
    (one,), (other,) = encoder.pairs([source], [target])
    for encoded, line in ((one, source), (other, target)):
        assert encoder.decode([(encoded.ids, encoded.values)]) == [line]
    assert one.values == other.values
    assert bool(one.note) == bool(other.note)
    assert not (one.note and one.values)


@settings(deadline=None)
@given(st.lists(st.sampled_from(FOUND["number"] + FOUND["email"]), min_size=1, max_size=10), st.randoms())
def test_sides_in_another_order_take_the_same_symbols(
    encoder: Encoder, values: list[str], chance: random.Random
) -> None:
    order = chance.sample(values, len(values))
    (one,), (other,) = encoder.pairs(["see " + " ".join(values)], [" ".join(order) + " sehen"])
    assert one.values == values
    symbols = encoder.tokenizers.target.symbols
    assert sorted(index for index in other.ids if index in symbols.values()) == [
        symbols[symbol] for symbol in NUMBERED[: len(values)]
    ]
    assert encoder.decode([(other.ids, one.values)]) == [" ".join(order) + " sehen"]


def test_pairs_that_do_not_match_equally_stay_as_they_are(encoder: Encoder) -> None:
    protection = Protection(ALL)
    (source, target) = protection.pair("3 dogs", "drei Hunde")
    assert (source.text, target.text, source.values) == ("3 dogs", "drei Hunde", [])
    assert source.note == "as they are: their sides do not match equally"
    many = " ".join("1234567890") + " 11"
    assert protection.pair(many, many)[0].note == "as they are: more than 10 matches"
    assert protection.line(many).note == "translated without data.protect: 11 matches, more than 10"
    assert protection.pair("a dog", "ein Hund")[0].note == ""


@settings(deadline=None)
@given(anything, st.data())
def test_an_output_with_other_symbols_has_no_text(encoder: Encoder, line: str, data: st.DataObject) -> None:
    (encoded,) = encoder.sources([line])
    symbols = list(encoder.tokenizers.target.symbols.values())[1:]
    extra = data.draw(st.sampled_from(symbols))
    more, right = ([*encoded.ids, extra], encoded.values), (encoded.ids, encoded.values)
    assert encoder.decode([more, right, more]) == [None, *encoder.decode([right]), None]
    if encoded.values:
        without = [index for index in encoded.ids if index != symbols[0]]
        assert encoder.decode([(without, encoded.values)]) == [None]


@settings(deadline=None)
@given(anything, anything)
def test_joined_parts_are_numbered_through(encoder: Encoder, left: str, right: str) -> None:
    one, other = encoder.sources([left, right])
    joined = encoder.joined(one, other)
    if joined is None:
        assert len(one.values) + len(other.values) > len(NUMBERED)
        return
    assert joined.values == one.values + other.values
    (text,) = encoder.decode([(joined.ids, joined.values)])
    plain = encoder.tokenizers.source.encode([left, right])
    expected = encoder.tokenizers.source.decode([plain[0] + plain[1]])[0]
    assert text == expected


def test_a_prefix_takes_the_symbols_of_its_source(encoder: Encoder) -> None:
    (source,) = encoder.sources(["see 7 or 12"])
    pieces = encoder.tokenizers.target.pieces(encoder.prefix("der 12 8", source))
    assert NUMBERED[1] in pieces
    assert NUMBERED[0] not in pieces
