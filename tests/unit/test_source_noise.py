"""Noise in training: of the share of sentences that is asked for, decided by seed, epoch and place alone."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from mt.config import Config, ModelConfig, TrainConfig
from mt.data.corpus import Corpus, Sentences
from mt.data.feed import pairs_by_epoch
from mt.data.source_noise import SourceNoise
from mt.data.tokenizer import Tokenizer, train_tokenizer
from mt.data.vocabulary import Tokenizers

LINES = [f"The small green house number {row} dreams of a large cat, and walks home." for row in range(400)]
NUMBER, TAG = "\u27e61\u27e7", "<bt>"
ANY = 10_000  # pieces


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return train_tokenizer(LINES, 340, [TAG, NUMBER])


def side(tokenizer: Tokenizer, lines: list[str] = LINES) -> Sentences:
    return Sentences.from_lists(tokenizer.encode(lines))


def text(tokenizer: Tokenizer, sentences: Sentences) -> list[str]:
    return tokenizer.decode([ids.tolist() for ids in sentences])


def noise(tokenizer: Tokenizer, share: float = 1.0, seed: int = 1, longest: int = ANY) -> SourceNoise:
    return SourceNoise(tokenizer, share, seed, {tokenizer.tag_id(TAG)}, longest)


def test_about_the_share_asked_for_has_noise_and_the_rest_keeps_its_pieces(tokenizer: Tokenizer) -> None:
    sentences, rows = side(tokenizer), np.arange(len(LINES))
    assert text(tokenizer, noise(tokenizer, 0.0).take(sentences, 0, rows)) == LINES
    found = noise(tokenizer, 0.3).take(sentences, 0, rows)
    changed = [row for row, line in enumerate(text(tokenizer, found)) if line != LINES[row]]
    assert 0.2 * len(LINES) < len(changed) < 0.36 * len(LINES)
    assert all(np.array_equal(found[row], sentences[row]) for row in set(range(len(LINES))) - set(changed))
    lower, upper = (sum(change(line) == line for line in text(tokenizer, found)) for change in (str.lower, str.upper))
    assert min(lower, upper) > 10, "each kind has its part"


def test_seed_epoch_and_place_decide_and_nothing_else(tokenizer: Tokenizer) -> None:
    sentences = side(tokenizer, LINES[:1] * 40)
    whole = text(tokenizer, noise(tokenizer).take(sentences, 0, np.arange(40)))
    rows = np.array([7, 3, 3, 39])
    assert text(tokenizer, noise(tokenizer).take(sentences, 0, rows)) == [whole[row] for row in rows]
    assert len(set(whole)) > 4
    assert text(tokenizer, noise(tokenizer).take(sentences, 1, np.arange(40))) != whole
    assert text(tokenizer, noise(tokenizer, seed=2).take(sentences, 0, np.arange(40))) != whole


def test_another_process_draws_the_same(tokenizer: Tokenizer, tmp_path: Path) -> None:
    (tmp_path / "model").write_bytes(tokenizer.model_bytes)
    code = (
        "import sys, numpy as np\n"
        "from mt.data.corpus import Sentences\n"
        "from mt.data.source_noise import SourceNoise\n"
        "from mt.data.tokenizer import Tokenizer\n"
        "tokenizer = Tokenizer(open(sys.argv[1], 'rb').read())\n"
        "sentences = Sentences.from_lists(tokenizer.encode(sys.argv[2:]))\n"
        "print(SourceNoise(tokenizer, 0.5, 1, set(), 10_000).take(sentences, 3, np.arange(30)).ids.tolist())\n"
    )
    command = [sys.executable, "-c", code, str(tmp_path / "model"), *LINES[:30]]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    here = noise(tokenizer, 0.5).take(side(tokenizer, LINES[:30]), 3, np.arange(30))
    assert done.stdout == f"{here.ids.tolist()}\n"


def test_tags_and_numbered_symbols_stay_in_their_places(tokenizer: Tokenizer) -> None:
    lines = [["", NUMBER, " and the Small House ", NUMBER, "."], ["The house of ", NUMBER, " dreams."]] * 30
    tag = tokenizer.tag_id(TAG)
    sentences = Sentences.from_lists([[tag, *ids] for ids in tokenizer.encode_with_symbols(lines)])
    found = noise(tokenizer).take(sentences, 0, np.arange(len(lines)))
    for before, after in zip(sentences, found, strict=True):
        assert after[0] == tag
        assert [index for index in after if index in tokenizer.symbols.values()] == [
            index for index in before if index in tokenizer.symbols.values()
        ]
    texts = {line.removeprefix(TAG).lstrip() for line in text(tokenizer, found)}
    assert f"{NUMBER} AND THE SMALL HOUSE {NUMBER}." in texts
    assert f"{NUMBER} and the small house {NUMBER}." in texts
    assert f"The house of {NUMBER} dreams" in texts


def test_what_cannot_be_noisy_stays(tokenizer: Tokenizer) -> None:
    unknown, longest = Sentences.from_lists([[5, 3, 9], []]), len(side(tokenizer).ids) // len(LINES) + 3
    assert noise(tokenizer).take(unknown, 0, np.arange(2)).ids.tolist() == unknown.ids.tolist()
    bounded = noise(tokenizer, longest=longest).take(side(tokenizer), 0, np.arange(len(LINES)))
    assert bounded.lengths.max() <= longest
    assert not any(line == line.upper() for line in text(tokenizer, bounded))


def test_bpe_dropout_segments_the_text_with_its_noise_and_the_target_has_none(tokenizer: Tokenizer) -> None:
    corpus, rows = Corpus(side(tokenizer), side(tokenizer)), np.arange(0, 400, 3)
    config = Config(model=ModelConfig(max_positions=ANY), train=TrainConfig(noise=0.5))
    both = config.model_copy(update={"train": TrainConfig(noise=0.5, bpe_dropout=0.2)})
    tokenizers = Tokenizers(tokenizer)
    plain, cut = (pairs_by_epoch(corpus, tokenizers, each)(2, rows) for each in (config, both))
    assert text(tokenizer, cut.source) == text(tokenizer, plain.source) != [LINES[row] for row in rows]
    assert text(tokenizer, cut.target) == [LINES[row] for row in rows]
    assert len(cut.source.ids) > len(plain.source.ids)
