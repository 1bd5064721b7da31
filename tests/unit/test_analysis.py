"""The analysis finds each fault in the line that has it, and blames no line whose reference looks the same."""

from pathlib import Path

import pytest

from mt.errors import DataError
from mt.evaluate.analysis import analyse
from mt.evaluate.bleu import bleu

LINES = [  # source, output, reference, the findings on it
    ("It is half past seven.", "Es ist halb acht.", "Es ist halb acht.", {"exact"}),
    ("Hello there", "  ", "Hallo", {"empty"}),
    ("", "", "", {"exact"}),
    ("He is very, very happy", "Er ist sehr sehr sehr sehr sehr", "Er ist sehr, sehr froh", {"repeated"}),
    ("A man in a red shirt", "ein Mann in Rot, ein Mann in Rot, ein Mann in Rot", "Ein Mann in Rot", {"repeated"}),
    ("ha ha ha ha ha ha ha", "ha ha ha ha ha ha ha", "ha ha ha ha ha ha ha", {"exact"}),
    ("It costs 1000000000000000 euros", "Es kostet 1000000000000000 Euro", "Das macht 1000000000000000 Euro", set()),
    ("The dog runs fast.", "The dog runs schnell.", "Der Hund läuft schnell.", {"copied"}),
    ("Barack Obama, New York", "Barack Obama, New York!", "Barack Obama, New York", set()),
    ("A smiley", "Ein Smiley <0xF0><0x9F>", "Ein Smiley 🙂", {"byte_pieces"}),
    ("A smiley", "Ein Smiley \ufffd", "Ein Smiley 🙂", {"byte_pieces"}),
    ("Byte <0x0A>", "Das Byte <0x0A>", "Das Zeichen <0x0A>", set()),
    ("He sleeps.", "Er schläft .", "Er schläft.", {"tokenized"}),
    ("我喜欢", "的的的的的的的的的的的的的的", "我喜欢", {"repeated"}),
]
FAULTS = ("exact", "empty", "repeated", "copied", "byte_pieces", "tokenized")


@pytest.mark.parametrize("row", range(len(LINES)))
def test_each_line_shows_its_faults_and_no_other(row: int) -> None:
    source, hypothesis, reference, expected = LINES[row]
    found = analyse([hypothesis], [reference], sources=[source])
    assert {fault for fault in FAULTS if getattr(found, fault)} == expected


def test_lines_are_numbered_from_one() -> None:
    sources, hypotheses, references, expected = zip(*LINES, strict=True)
    found = analyse(hypotheses, references, sources=sources)
    for fault in FAULTS:
        assert getattr(found, fault) == tuple(n for n, faults in enumerate(expected, 1) if fault in faults)


def test_buckets_hold_every_sentence_once_with_its_own_bleu() -> None:
    references = [" ".join(f"wort{number}" for number in range(length)) for length in range(0, 61, 3)]
    hypotheses = [line.replace("wort7 ", "") for line in references]
    found = analyse(hypotheses, references)
    assert sum(bucket.sentences for bucket in found.buckets) == found.sentences == len(references)
    assert [bucket.words for bucket in found.buckets] == ["0-10", "11-20", "21-30", "31-40", "41-50", "51+"]
    inside = [row for row, line in enumerate(references) if 11 <= len(line.split()) <= 20]
    expected = bleu([hypotheses[row] for row in inside], [references[row] for row in inside]).value
    assert found.buckets[1].bleu == expected
    assert found.buckets[1].length_ratio == pytest.approx((12 + 15 + 18 - 3) / (12 + 15 + 18))


def test_the_length_ratio_counts_tokens() -> None:
    assert analyse(["eins zwei drei"], ["eins zwei drei vier fünf sechs"]).length_ratio == 0.5


def test_the_whole_and_a_lone_bucket_have_the_score_of_sacrebleu() -> None:
    lines, references = (
        ["Der Hund bellt im Hof.", "Es regnet sehr."],
        ["Der Hund bellt laut im Hof.", "Es regnet sehr."],
    )
    found = analyse(lines, references)
    assert found.bleu == found.buckets[0].bleu == bleu(lines, references).value


def test_empty_buckets_are_left_out() -> None:
    assert [bucket.words for bucket in analyse(["ein Haus"], ["das Haus"]).buckets] == ["0-10"]


@pytest.mark.real_text
def test_human_translations_of_news_show_no_faults(real_text: Path) -> None:
    folder = real_text / "newstest"
    source, reference = (
        (folder / f"newstest2013.{side}").read_bytes().decode().split("\n")[:500] for side in ("en", "de")
    )
    found = analyse([line + " " for line in reference], ["" for _ in reference], sources=source)
    assert found.repeated == ()
    assert len(found.copied) < 10
    assert found.byte_pieces == ()


def test_without_sources_nothing_counts_as_copied() -> None:
    assert analyse(["the dog runs"], ["der Hund läuft"]).copied == ()


def test_unequal_lengths_are_refused() -> None:
    with pytest.raises(DataError, match="1 hypotheses but 2 references"):
        analyse(["x"], ["x", "y"])


def test_with_several_references_each_may_be_the_one_matched_or_share_the_fault() -> None:
    found = analyse(
        ["ein Haus", "", "la la la la la la"], ["das Haus", "Ja", "o"], ["ein Haus", "", "la la la la la la"]
    )
    assert (found.exact, found.empty, found.repeated) == ((1, 2, 3), (), ())
