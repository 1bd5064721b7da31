"""The scores: equal to the sacrebleu command's, to hand-made numbers, and to a slow BLEU written out here."""

import json
import math
import random
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from mt.errors import DataError, UsageError
from mt.evaluate.bleu import bleu, check_lengths, exact_matches, multi30k_bleu, paper_bleu, scores

CASES = {
    "perfect": (["Ein Hund läuft .", "Zwei Katzen schlafen auf dem Sofa."],) * 2,
    "one line": (["Das ist ein kleines Haus am See."], ["Das ist das kleine Haus am See."]),
    "empty hypothesis": (
        ["", "Der Mann liest eine Zeitung im Park."],
        ["Hallo Welt", "Der Mann liest ein Buch im Park."],
    ),
    "all empty": (["", ""], ["Hallo Welt", "Guten Morgen"]),
    "trailing spaces": (["Der Hund bellt laut.  ", "Ja \t"], ["Der Hund bellt sehr laut. ", "Ja"]),
    "carriage return": (["Der Hund\rbellt laut im Hof.\r"], ["Der Hund bellt laut im Hof."]),
    "line separator": (["Der\u2028Hund bellt laut im Hof."], ["Der Hund bellt laut\u0085im Hof."]),
    "Chinese": (["我喜欢在公园里读书。", "今天天气很好"], ["我喜欢在公园看书。", "今天天气非常好"]),
    "Cyrillic": (["Собака бежит по зелёной траве."], ["Собака быстро бежит по зелёной траве."]),
    "Arabic": (["الكلب يجري في الحديقة الكبيرة"], ["الكلب يركض في الحديقة الكبيرة"]),
    "Hindi": (["कुत्ता बगीचे में दौड़ रहा है।"], ["कुत्ता बड़े बगीचे में दौड़ रहा है।"]),
    "emoji": (["Das ist 👍🏽 gut, sehr gut"], ["Das ist 👍🏽 sehr gut, wirklich"]),
    "case": (["DER HUND BELLT LAUT"], ["Der Hund bellt laut"]),
    "entities": (["Er sagte &quot;ja&quot; &amp; ging fort"], ['Er sagte "ja" & ging weg']),
}


def spoiled(lines: list[str], seed: int) -> list[str]:
    """Translations as a middling system might make them: words lost, swapped and repeated."""
    choice = random.Random(seed)
    words = [line.split() for line in lines]
    return [" ".join(w for w in ws for _ in range(choice.choice((0, 1, 1, 1, 1, 1, 2)))) for ws in words]


def news(real_text: Path, count: int) -> list[str]:
    return (real_text / "newstest" / "newstest2014.de").read_bytes().decode().split("\n")[:count]


def sacrebleu_command(
    folder: Path, hypotheses: list[str], references: list[list[str]], *options: str
) -> list[dict[str, Any]]:
    """What the sacrebleu command prints for the same lines as files, twelve digits after the point."""
    paths = [folder / f"ref{number}" for number in range(len(references))]
    for path, lines in zip([folder / "hyp", *paths], [hypotheses, *references], strict=True):
        path.write_bytes("".join(line + "\n" for line in lines).encode())
    command = [sys.executable, "-m", "sacrebleu", *map(str, paths), "-i", str(folder / "hyp"), "-w", "12", *options]
    printed = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    return printed if isinstance(printed, list) else [printed]


def digits(value: float | None) -> float | None:
    return None if value is None else float(f"{value:.12f}")


@pytest.mark.parametrize("name", CASES)
def test_scores_equal_the_sacrebleu_command_to_the_last_digit(name: str, tmp_path: Path) -> None:
    hypotheses, references = CASES[name]
    assert_equal_to_command(tmp_path, hypotheses, [references])


@pytest.mark.real_text
def test_scores_equal_the_sacrebleu_command_with_three_references(tmp_path: Path, real_text: Path) -> None:
    references = news(real_text, 60)
    assert_equal_to_command(
        tmp_path, spoiled(references, 1), [references, spoiled(references, 2), spoiled(references, 3)]
    )


@pytest.mark.real_text
def test_scores_and_intervals_equal_the_sacrebleu_command_on_news(tmp_path: Path, real_text: Path) -> None:
    references = news(real_text, 200)
    assert_equal_to_command(tmp_path, spoiled(references, 1), [references], confidence=300)


def assert_equal_to_command(
    folder: Path, hypotheses: list[str], references: list[list[str]], confidence: int = 0
) -> None:
    options = ("--confidence", "--confidence-n", str(confidence)) if confidence else ()
    cased = sacrebleu_command(folder, hypotheses, references, "-m", "bleu", "chrf", "ter", *options)
    lowered = sacrebleu_command(folder, hypotheses, references, "-m", "bleu", "-lc", *options)
    theirs = [cased[0], lowered[0], *cased[1:]]
    ours = scores(hypotheses, *references, confidence=confidence)
    for our, their in zip(ours, theirs, strict=True):
        assert digits(our.value) == their["score"]
        assert our.signature == their["signature"]
        if their.get("confidence_mean") is not None:
            assert digits(our.mean) == their["confidence_mean"]
            assert digits(our.half_width) == their["confidence_var"]
    assert ours[0].detail == theirs[0]["verbose_score"]


def test_bleu_is_the_first_of_the_scores() -> None:
    hypotheses, references = CASES["one line"]
    assert bleu(hypotheses, references) == scores(hypotheses, references)[0]


def test_where_resamples_may_be_empty_there_may_be_no_interval() -> None:
    found = scores(*CASES["empty hypothesis"], confidence=100)
    assert found[0].mean is not None
    assert (found[2].mean, "bs:" in found[2].signature) == (None, False)
    assert found[2].value == scores(*CASES["empty hypothesis"])[2].value


def test_a_match_with_any_reference_is_exact() -> None:
    assert exact_matches(["ein Haus", "ein Hund "], ["das Haus", "ein Hund"], ["ein Haus", "der Hund"]) == 1.0


def test_without_confidence_there_is_no_interval() -> None:
    assert all(score.mean is None and score.half_width is None for score in scores(["ein Haus"], ["ein Haus"]))


def test_intervals_are_the_same_each_time() -> None:
    hypotheses, references = spoiled(CASES["perfect"][1] * 5, 1), CASES["perfect"][1] * 5
    assert scores(hypotheses, references, confidence=50) == scores(hypotheses, references, confidence=50)


def test_unequal_lengths_are_refused_with_both_counts() -> None:
    with pytest.raises(DataError, match="5 hypotheses but 300 references"):
        bleu(["x"] * 5, ["x"] * 300)
    with pytest.raises(DataError, match="1,000 hypotheses but 999 references in list 2"):
        scores(["x"] * 1000, ["x"] * 1000, ["x"] * 999)
    with pytest.raises(DataError, match="2 hypotheses but 1 references"):
        exact_matches(["x", "y"], ["x"])


def test_nothing_to_score_is_refused() -> None:
    with pytest.raises(DataError, match="no hypotheses"):
        bleu([], [])
    with pytest.raises(DataError, match="no references"):
        check_lengths(["x"])


def test_the_chinese_tokenizer_sees_characters_where_13a_sees_none() -> None:
    hypotheses, references = ["我喜欢在公园里读书。"], ["我喜欢在公园里看书。"]
    assert bleu(hypotheses, references, lang="zh").value > 50 > 1 > bleu(hypotheses, references).value
    assert "tok:zh" in bleu(hypotheses, references, lang="zh").signature


def test_a_tokenizer_that_is_not_installed_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "MeCab", None)
    sys.modules.pop("sacrebleu.tokenizers.tokenizer_ja_mecab", None)
    with pytest.raises(UsageError, match=r'BLEU of ja needs more packages: pip install "sacrebleu\[ja\]"'):
        bleu(["x"], ["x"], lang="ja")


def test_exact_matches_ignore_outer_space_only() -> None:
    assert exact_matches(["halb acht ", "um acht", "", "Um acht"], ["halb acht", "um neun", "", "um acht"]) == 0.5


# --- Tokenised BLEU ----------------------------------------------------------------------------------------------


def slow_bleu(hypothesis: str, reference: str) -> float:
    """BLEU-4 of two tokenised sentences, not smoothed, straight from Papineni et al. (2002)."""
    have, want = hypothesis.split(), reference.split()
    precisions = []
    for n in range(1, 5):
        left, right = (Counter(tuple(side[i : i + n]) for i in range(len(side) - n + 1)) for side in (have, want))
        precisions.append((left & right).total() / left.total())
    brevity = min(1.0, math.exp(1 - len(want) / len(have)))
    return 100 * brevity * math.exp(sum(map(math.log, precisions)) / 4)


def test_paper_bleu_splits_compounds_and_keeps_case() -> None:
    pytest.importorskip("sacremoses")
    hypothesis = "Das Rich-Text Format, wie 1990."
    reference = "Das Rich-Format Format, wie 1990."
    left = "Das Rich ##AT##-##AT## Text Format , wie 1990 ."
    right = "Das Rich ##AT##-##AT## Format Format , wie 1990 ."
    assert paper_bleu([hypothesis], [reference], lang="de").value == pytest.approx(slow_bleu(left, right))


def test_paper_bleu_splits_as_perl_substitutes_in_one_pass() -> None:
    pytest.importorskip("sacremoses")
    left = "Ein a ##AT##-##AT## b-c und x ##AT##-##AT## y steht hier"
    right = "Ein a ##AT##-##AT## b-d und x ##AT##-##AT## y steht hier"
    score = paper_bleu(["Ein a-b-c und x-y steht hier"], ["Ein a-b-d und x-y steht hier"], lang="de")
    assert score.value == pytest.approx(slow_bleu(left, right))


def test_paper_bleu_is_not_smoothed_and_says_what_it_is() -> None:
    pytest.importorskip("sacremoses")
    score = paper_bleu(["ganz anders als dies"], ["etwas anders klingt jenes"], lang="de")
    assert score.value == 0
    assert "not comparable" in score.name
    assert "tok:moses-de-atat|smooth:none" in score.signature
    assert "sacremoses:" in score.signature


def test_paper_bleu_takes_several_references_and_odd_lines() -> None:
    pytest.importorskip("sacremoses")
    hypotheses = ["", "Der Hund bellt laut.", "  "]
    assert paper_bleu(hypotheses, hypotheses, ["a", "b", "c"], lang="de").value == pytest.approx(100)


def test_multi30k_bleu_lowers_normalises_and_tokenises() -> None:
    pytest.importorskip("sacremoses")
    hypothesis, reference = "Ein Mann, „ganz“ in Rot.", 'ein mann, "fast" in rot.'
    left = "ein mann , &quot; ganz &quot; in rot ."
    right = "ein mann , &quot; fast &quot; in rot ."
    score = multi30k_bleu([hypothesis], [reference], lang="de")
    assert score.value == pytest.approx(slow_bleu(left, right))
    assert "not comparable" in score.name


def test_tokenised_bleu_without_sacremoses_names_what_to_install() -> None:
    program = (
        "import sys; sys.modules['sacremoses'] = None\n"
        "from mt.errors import UsageError\n"
        "from mt.evaluate.bleu import multi30k_bleu, paper_bleu\n"
        "for score in (paper_bleu, multi30k_bleu):\n"
        "    try: score(['x'], ['x'], lang='de')\n"
        "    except UsageError as error: print(error)\n"
    )
    printed = subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, text=True).stdout
    assert printed.count("pip install sacremoses") == 2


def test_bleu_needs_no_torch() -> None:
    program = "import sys, mt.evaluate.bleu; print('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program], capture_output=True, text=True).stdout == "False\n"
