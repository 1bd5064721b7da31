"""The inspection tells the truth: each number against a slow count of the text itself."""

import json
import re
from dataclasses import asdict, replace
from html import escape
from pathlib import Path

import pytest
from browser import assert_readable, in_browser

from mt.config import Config
from mt.console import Console
from mt.data.inspect_corpus import PAGE, PAIRS, Example, inspect, render_text
from mt.data.prepared import open_prepared
from mt.data.tokenizer import UNK
from mt.data_config import DataConfig
from mt.pages.data_page import data_page


@pytest.fixture
def config(toy_text: Path, tmp_path: Path) -> Config:
    """The toy text with one pair given twice, in letters that the tokenizer's sample of half the text does not meet."""
    for language, text in (("en", "cat 猫"), ("de", "Katze 猫")):
        lines = (toy_text / f"train.{language}").read_text("utf-8")
        (tmp_path / f"train.{language}").write_text(lines + 2 * f"{text}\n", "utf-8")
    names = {"train": str(tmp_path / "train"), "valid": str(toy_text / "valid"), "test": str(toy_text / "test")}
    settings = {"dir": tmp_path / "data", "vocab_size": 320, "tokenizer_sample": 100}
    return Config(data=DataConfig.model_validate(settings | names))


def test_counts_are_those_of_the_text(config: Config, quiet: Console) -> None:
    inspection = inspect(config, quiet)
    prepared = open_prepared(config.data.dir)
    assert (inspection.read, inspection.rows, inspection.valid, inspection.test) == (102, 101, 10, 10)
    assert inspection.dropped == {"duplicate": 1}
    assert inspection.dropped_share == pytest.approx(1 / 102)
    for side, sentences in ((inspection.source, prepared.train.source), (inspection.target, prepared.train.target)):
        text = prepared.tokenizers.target.decode([ids.tolist() for ids in sentences])
        words = sum(len(line.split()) for line in text)
        spelt = sum(prepared.tokenizers.target.is_byte(int(index)) for index in sentences.ids)
        assert (side.pieces, side.words) == (len(sentences.ids), words)
        assert side.pieces_per_word == pytest.approx((len(sentences.ids) - len(sentences)) / words)
        assert side.byte_share == pytest.approx(spelt / len(sentences.ids)) != 0
        assert side.unknown == int((sentences.ids == UNK).sum()) == 0


def test_lengths_are_those_of_the_ids(config: Config, quiet: Console) -> None:
    inspection = inspect(config, quiet)
    lengths = sorted(len(ids) for ids in open_prepared(config.data.dir).train.source)
    assert inspection.source.percentiles[100] == lengths[-1]
    assert inspection.source.percentiles[50] == lengths[(len(lengths) - 1) // 2]
    assert inspection.source.histogram == [lengths.count(length) for length in range(lengths[-1] + 1)]


def test_batches_are_those_of_training(config: Config, quiet: Console) -> None:
    inspection = inspect(config, quiet)
    assert inspection.updates_per_epoch == 1
    assert inspection.epochs == config.train.updates
    train = open_prepared(config.data.dir).train
    padded = [side.padded() for side in (train.source, train.target)]
    real = train.source.lengths.sum() + train.target.lengths.sum()
    assert inspection.padding_share == pytest.approx(1 - real / sum(side.size for side in padded))


def test_examples_are_training_pairs_with_their_pieces(config: Config, quiet: Console) -> None:
    inspection = inspect(config, quiet)
    assert len(inspection.examples) == PAIRS
    for example in inspection.examples:
        path, line = example.origin.rsplit(":", 1)
        text = Path(f"{path}.en").read_text("utf-8").split("\n")
        assert text[int(line) - 1] == example.source
        assert "".join(example.source_pieces).replace("\u2581", " ") == f" {example.source}"
    assert inspect(config, quiet).examples == inspection.examples


def test_it_can_be_read_as_text_and_as_json(config: Config, quiet: Console) -> None:
    inspection = inspect(config, quiet)
    text = render_text(inspection)
    assert "101 for training, 10 validation, 10 test" in text
    assert inspection.examples[0].source in text
    assert json.loads(json.dumps(asdict(inspection)))["rows"] == 101


def test_the_page_stands_alone_and_shows_what_json_holds(config: Config, quiet: Console) -> None:
    inspection = inspect(config, quiet)
    page = (config.data.dir / PAGE).read_text("utf-8")
    assert page == data_page(asdict(inspection))
    assert "://" not in page
    assert "default-src 'none'" in page
    assert f"median {inspection.source.percentiles[50]:,}, longest {inspection.source.percentiles[100]:,}" in page
    assert f"<dd>{inspection.rows:,}</dd>" in page
    assert f'<td>words</td><td class="number">{inspection.source.words:,}</td>' in page
    assert all(escape(example.source) in page for example in inspection.examples)


def test_text_is_escaped_in_the_page(config: Config, quiet: Console) -> None:
    strange = Example("a<b:1", "<b>bold</b> & co", "<i>x</i>", ["<b>"], ["&amp;"])
    page = data_page(asdict(replace(inspect(config, quiet), dir="<data>", examples=[strange])))
    assert not re.search(r"<b>|<i>x|<data>| & ", page.split("</style>")[1].split("<script>")[0])
    assert "&lt;b&gt;bold&lt;/b&gt; &amp; co" in page
    assert "&amp;amp;" in page


@pytest.mark.slow
@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
@pytest.mark.parametrize("width", [390, 1280])
def test_a_browser_lays_it_out_without_overflow(
    config: Config, quiet: Console, tmp_path: Path, width: int, dark: bool
) -> None:
    hebrew = ["\u2581", "<0xD7>", "<0xA9>", "לום", "\u2581<script>"]
    strange = Example("a/very/long/path" * 9, "שלום <script>", "w" * 300, hebrew, ["\u2581" + "w" * 150, "w" * 150])
    page = data_page(asdict(replace(inspect(config, quiet), dir="d/" * 90, examples=[strange])))
    assert_readable(page, tmp_path, width, dark)
    script = "return [...page.querySelectorAll('article dd')].map(line => view.getComputedStyle(line).direction)"
    assert in_browser(page, script, tmp_path, width, dark) == ["rtl", "rtl", "ltr", "ltr"]
