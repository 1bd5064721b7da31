"""data.protect from text to text: what is protected comes out as it went in, or the line is reported."""

import json
import random
import re
from pathlib import Path

import pytest
from helpers import mt, write_lines

from mt.config_file import load_config
from mt.console import Console
from mt.data.inspect_corpus import inspect
from mt.data.prepare import prepare
from mt.patterns import NUMBERED
from mt.train.loop import train
from mt.translate.alignment import alignments
from mt.translate.segments import segments_of
from mt.translate.translator import LOST, Translator

WORDS = {"see": "siehe", "the": "den", "page": "Text", "and": "und", "write": "schreibe", "to": "an"}
CHANCE = random.Random(1)


def value() -> str:
    name = "".join(CHANCE.choices("abcdefghij", k=6))
    return CHANCE.choice([f"https://{name}.org/{name}?q={name}", f"{name}@mail.org", str(CHANCE.randrange(10_000))])


def pair() -> tuple[str, str]:
    """A few words with two values among them at most."""
    items = [(word, WORDS[word]) for word in CHANCE.sample(sorted(WORDS), 3)]
    for _ in range(CHANCE.randrange(3)):
        copied = value()
        items.insert(CHANCE.randrange(4), (copied, copied))
    source, target = zip(*items, strict=True)
    return " ".join(source), " ".join(target)


@pytest.fixture(scope="session")
def protected_yaml(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("protected")
    for split, count in {"train": 500, "valid": 20, "test": 20}.items():
        pairs = [pair() for _ in range(count)]
        unequal = [("see page 3", "siehe Text drei"), ("page 1 to 2", "Text 1 an 3")] if split == "train" else []
        sources, targets = zip(*pairs, *unequal, strict=True)
        write_lines(folder / f"{split}.en", sources)
        write_lines(folder / f"{split}.de", targets)
    (folder / "my.yaml").write_text(
        f"""
data:
  dir: {folder / "data"}
  train: {folder / "train"}
  valid: {folder / "valid"}
  test: {folder / "test"}
  vocab_size: 330
  protect: [url, email, number]
model: {{d_model: 32, heads: 4, d_ff: 64, encoder_layers: 1, decoder_layers: 1, dropout: 0.0}}
batch: {{tokens: 500, micro_tokens: 500}}
optim: {{schedule: linear, rate: 0.005, warmup: 60}}
train: {{dir: {folder / "run"}, updates: 300, checkpoint_every: 300, average: 1, device: cpu, precision: float32,
  bpe_dropout: 0.05}}
"""
    )
    return folder / "my.yaml"


@pytest.fixture(scope="session")
def protected_run(protected_yaml: Path) -> Path:
    config = load_config(protected_yaml)
    train(config, Console(quiet=True))
    return config.train.dir


LINES = ["see https://news.net/x7?a=1 and write", "write to me@here.com 31415", "the page", "", "12 to 12 and 7"]


def values_of(text: str) -> list[str]:
    return sorted(re.findall(r"https?://\S+|\S+@\S+|\d+", text))


def holds_values(text: str, line: str) -> bool:
    """Whether all that is protected in a line is in a text, wherever the model put it."""
    for found in sorted(values_of(line), key=len, reverse=True):
        if found not in text:
            return False
        text = text.replace(found, "", 1)
    return True


def assert_law(translator: Translator, lines: list[str], count: int = 1) -> None:
    for line, outputs in zip(lines, translator.n_best(lines, count), strict=True):
        for output in outputs:
            assert output.note == LOST or holds_values(output.text, line), (line, output)
            assert not any(symbol in output.text for symbol in NUMBERED)


def test_pairs_are_counted_and_those_that_do_not_match_equally_stay(protected_yaml: Path, quiet: Console) -> None:
    prepared = prepare(load_config(protected_yaml), quiet)
    counts = prepared.manifest["protected"]
    assert counts["as they are: their sides do not match equally"] == 2
    assert counts["protected"] > 200
    pieces = [prepared.tokenizers.source.pieces(ids.tolist()) for ids in prepared.train.source]
    assert sum(NUMBERED[0] in line for line in pieces) == counts["protected"]
    assert not any("http" in piece for line in pieces for piece in line)
    examples = inspect(load_config(protected_yaml), quiet).examples
    assert any(NUMBERED[0] in example.source_pieces for example in examples)


@pytest.mark.parametrize("decode", [{"beam": 1}, {"beam": 4}, {"sample": True, "temperature": 1.5, "seed": 3}])
def test_what_is_protected_comes_out_or_the_line_is_reported(protected_run: Path, decode: dict[str, object]) -> None:
    translator = Translator(protected_run, decode=decode)
    chance = [pair()[0] for _ in range(60)]
    assert_law(translator, [*LINES, *chance])
    if "sample" not in decode:
        found = translator.n_best(chance)
        assert sum(outputs[0].note == LOST for outputs in found) < 20
    if translator.decode.beam > 1:
        assert_law(translator, [*LINES, *chance], count=3)


def test_a_translation_does_not_depend_on_its_neighbours(protected_run: Path) -> None:
    lines = [*LINES, *(pair()[0] for _ in range(30))]
    alone = Translator(protected_run, decode={"batch_tokens": 1})
    assert Translator(protected_run)(lines) == alone(lines)


def test_text_that_looks_like_a_numbered_symbol_is_text(protected_run: Path) -> None:
    translator = Translator(protected_run)
    line = f"see {NUMBERED[0]} 77"
    (segment,) = segments_of([line], translator.encoder, translator.decode)
    assert segment.values == ["1", "77"]  # the 1 between the brackets is a number, too
    assert translator.tokenizers.source.pieces(segment.ids).count(NUMBERED[0]) == 1


def test_parts_of_a_long_line_number_theirs(protected_run: Path) -> None:
    translator = Translator(protected_run, decode={"max_source": 30})
    line = " ".join(f"see {number} and {number + 1}." for number in range(100, 130, 2))
    segments = segments_of([line], translator.encoder, translator.decode)
    assert len(segments) > 2
    assert [value for segment in segments for value in segment.values] == [str(number) for number in range(100, 130)]
    (found,) = translator.n_best([line])
    assert not found[0].whole
    assert found[0].note == LOST or holds_values(found[0].text, line)


def test_scores_are_those_of_the_search(protected_run: Path) -> None:
    translator = Translator(protected_run)
    found = translator.n_best(LINES)
    kept = [index for index, outputs in enumerate(found) if outputs[0].text and not outputs[0].note]
    assert kept
    scored = translator.score([LINES[index] for index in kept], [found[index][0].text for index in kept])
    for index, scores in zip(kept, scored, strict=True):
        assert scores.log_probability == pytest.approx(found[index][0].log_probability, abs=1e-4)


def test_words_of_alignments_are_those_of_the_text(protected_run: Path) -> None:
    line = "see https://news.net/x7?a=1 31 and"
    (links,) = alignments(Translator(protected_run), [(line, "siehe https://news.net/x7?a=1 31 und")])
    assert [link.split("-")[1] for link in links.split()] == ["0", "1", "2", "3"]
    assert {link.split("-")[0] for link in links.split()} <= {"0", "1", "2", "3"}


def test_protection_can_be_left_out(protected_run: Path) -> None:
    translator = Translator(protected_run, decode={"protect": False})
    segments = segments_of(LINES, translator.encoder, translator.decode)
    assert not any(segment.values for segment in segments)
    assert not any(symbol in text for text in translator(LINES) for symbol in NUMBERED)


def test_the_commands_put_back_what_they_protect(protected_run: Path, tmp_path: Path) -> None:
    source = write_lines(tmp_path / "in.en", LINES)
    out = tmp_path / "out.tsv"
    options = ("--n-best", "2", "--alignments", "--attention", tmp_path / "attention.html")
    done = mt("translate", "--ckpt", protected_run, "--input", source, "--output", out, *options)
    assert not done.returncode, done.stderr
    rows = [row.split("\t") for row in out.read_text().splitlines()]
    for number, (line, row) in enumerate(zip(LINES, rows, strict=True), 1):
        assert holds_values(row[0], line) or f"in.en:{number}: {LOST}" in done.stderr
    scored = mt("evaluate", "--ckpt", protected_run, "--json", "-q")
    assert not scored.returncode, scored.stderr
    assert json.loads(scored.stdout)["results"][0]["scores"][0]["value"] > 20


def test_a_model_fine_tuned_from_it_protects_too(protected_run: Path, toy_yaml: Path) -> None:
    given = ["data.clean.max_ratio=9", "train.updates=2", "train.checkpoint_every=2", "train.average=1"]
    config = load_config(toy_yaml, given)
    sizes = {"model": type(config.model)()}  # none given: those of the other run are taken
    train(config.model_copy(update=sizes), Console(quiet=True), protected_run)
    assert Translator(config.train.dir).encoder.sources(["see 12"])[0].values == ["12"]


def test_other_patterns_are_another_recipe(protected_run: Path, protected_yaml: Path) -> None:
    done = mt("train", protected_yaml, "data.protect=[url]", "train.updates=310")
    assert done.returncode
    assert "data.protect: ['url', 'email', 'number'] -> ['url']" in done.stderr
