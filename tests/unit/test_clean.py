"""Which pairs are dropped and why: the rules one by one, and the counts they leave."""

from pathlib import Path

import pytest

from mt.data.clean import SAMPLE, Drops, length_problems, text_problems, valid_unicode
from mt.data.corpus import Corpus, Sentences
from mt.data.pairs import Pairs
from mt.data_config import CleanConfig

ALL_RULES = CleanConfig()
NO_RULES = CleanConfig(
    empty=False, invalid_utf8=False, control=False, copies=False, duplicates=False, max_pieces=10**6, max_ratio=0
)


def problem(source: str, target: str, rules: CleanConfig = ALL_RULES) -> str | None:
    return text_problems(Pairs([source], [target], [1], 1.0), rules).get(0)


@pytest.mark.parametrize(
    ("source", "target", "reason"),
    [
        ("", "Haus", "empty side"),
        ("house", " \t\u3000", "empty side"),
        ("house", "H\udce4user", "invalid UTF-8"),
        ("bell\x07", "Glocke", "control character"),
        ("next\x85line", "Zeile", "control character"),
        ("a\rb", "c", "control character"),
        ("Berlin", "Berlin", "source equals target"),
    ],
)
def test_an_unusable_pair_is_dropped_for_its_reason(source: str, target: str, reason: str) -> None:
    assert problem(source, target) == reason
    assert problem(source, target, NO_RULES) is None


@pytest.mark.parametrize(
    "text", ["tab\tinside", "U+2028\u2028", "e\u0301", "👩‍👩‍👧", "no-break\u00a0space", "soft\u00adhyphen"]
)
def test_unusual_but_sound_text_stays(text: str) -> None:
    assert problem(text, "Text") is None
    assert problem("text", text) is None


def test_a_row_that_is_no_pair_is_dropped_whatever_the_rules() -> None:
    broken = Pairs(["not a pair", "a"], ["", "b"], [1, 2], 1.0, {0: "not JSON"})
    assert text_problems(broken, NO_RULES) == {0: "not JSON"}


def test_broken_bytes_become_replacement_characters() -> None:
    assert valid_unicode("H\udcc3user 🏠") == "H\ufffduser 🏠"


def lengths(*pairs_of_lengths: tuple[int, int]) -> Corpus:
    """Sentences of these lengths, EOS counted."""
    return Corpus(*(Sentences.from_lists([[9] * (pair[side] - 1) for pair in pairs_of_lengths]) for side in (0, 1)))


def test_length_rules_count_pieces_with_eos() -> None:
    rules = CleanConfig(max_pieces=10, max_ratio=3)
    corpus = lengths((10, 10), (11, 10), (9, 3), (10, 3), (3, 10), (12, 1))
    assert length_problems(corpus, rules) == {
        1: "too long",
        3: "length ratio",
        4: "length ratio",
        5: "too long",
    }


def test_ratio_zero_allows_any() -> None:
    assert length_problems(lengths((200, 1)), CleanConfig(max_ratio=0)) == {}


def test_drops_are_counted_and_a_sample_is_kept(tmp_path: Path) -> None:
    drops = Drops(seed=1)
    for number in range(1000):
        drops.add("too long", (0, number), "long", "lang")
    drops.add("empty side", (0, 7), "a\tb\x07\udce4", "")
    drops.write(tmp_path / "dropped.tsv", ["train", "a.de"])
    rows = [line.split("\t") for line in (tmp_path / "dropped.tsv").read_text("utf-8").splitlines()]
    assert drops.counts == {"too long": 1000, "empty side": 1}
    assert rows[:2] == [["reason", "where", "source", "target"], ["empty side", "train:7", r"a\tb\x07\xe4", ""]]
    numbers = [int(row[1].split(":")[1]) for row in rows[2:]]
    assert len(set(numbers)) == SAMPLE
    assert max(numbers) > 900, "the sample comes from all of the text, not from its head"


def test_parts_added_up_in_any_order_leave_the_same_sample(tmp_path: Path) -> None:
    """As shards are, whichever process counted their drops."""
    places = [(entry, line) for entry in (0, 1) for line in range(250)]

    def written(name: str, parts: list[list[tuple[int, int]]]) -> bytes:
        whole = Drops(seed=1)
        for part in parts:
            drops = Drops(seed=1)
            for place in part:
                drops.add("too long", place, "", "")
            whole.merge(drops.record())
        assert whole.counts == {"too long": 500}
        whole.write(tmp_path / name, ["a", "b"])
        return (tmp_path / name).read_bytes()

    assert written("one", [places]) == written("many", [places[250:], places[20:250], places[:20]])


def test_bytes_that_are_not_utf8_are_shown_as_these_bytes(tmp_path: Path) -> None:
    drops = Drops(seed=1)
    drops.add("not UTF-8", (1, 1), b"gl\xfccklich\t1".decode("utf-8", "surrogateescape"), "happy")
    drops.write(tmp_path / "dropped.tsv", ["train", "a.de"])
    assert (tmp_path / "dropped.tsv").read_text(encoding="utf-8").splitlines()[1].split("\t")[2] == r"gl\xfccklich\t1"
