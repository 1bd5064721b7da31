"""Tags: a symbol before the source sentences of a text, from the config to the scores."""

import json
from itertools import product
from pathlib import Path

import pytest
from helpers import mt, with_settings, write_lines

from mt.config import Config
from mt.config_file import load_config
from mt.console import Console
from mt.data.changed import what_changed
from mt.data.inspect_corpus import inspect
from mt.data.prepare import prepare
from mt.errors import CheckpointError, ConfigError, DataError, UsageError
from mt.evaluate.bleu import bleu
from mt.train.loop import train
from mt.translate.alignment import alignments, attention_of
from mt.translate.segments import segments_of
from mt.translate.translator import Translator

WORDS = {"red": ("rot", "rouge"), "green": ("grün", "vert"), "blue": ("blau", "bleu"), "black": ("schwarz", "noir")}
TAGS = ("<de>", "<fr>")


@pytest.fixture(scope="session")
def tagged_yaml(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One model of two target languages, which only the tag tells apart."""
    folder = tmp_path_factory.mktemp("tagged")
    lines = [" ".join(chosen) for count in (1, 2, 3) for chosen in product(WORDS, repeat=count)]
    for name, rows in {"train": lines, "valid": lines[20::8], "test": lines[24::8]}.items():
        for index, tag in enumerate(("de", "fr")):
            write_lines(folder / f"{name}-{tag}.en", rows)
            write_lines(
                folder / f"{name}-{tag}.de", [" ".join(WORDS[word][index] for word in row.split()) for row in rows]
            )
    entries = {
        name: ", ".join(f"{{prefix: {folder}/{name}-{language}, tag: <{language}>}}" for language in ("de", "fr"))
        for name in ("train", "valid", "test")
    }
    (folder / "tagged.yaml").write_text(
        f"""
data:
  dir: {folder / "data"}
  train: [{entries["train"]}]
  valid: [{entries["valid"]}]
  test: [{entries["test"]}]
  symbols: [<spare>]
  vocab_size: 320
model: {{d_model: 32, heads: 4, d_ff: 64, encoder_layers: 1, decoder_layers: 1, dropout: 0.0}}
batch: {{tokens: 400, micro_tokens: 400}}
optim: {{warmup: 80}}
train: {{dir: {folder / "run"}, updates: 250, checkpoint_every: 250, average: 1, device: cpu, precision: float32,
  log_every: 50}}
"""
    )
    return folder / "tagged.yaml"


@pytest.fixture(scope="session")
def tagged_run(tagged_yaml: Path) -> Path:
    config = load_config(tagged_yaml)
    train(config, Console(quiet=True))
    return config.train.dir


def test_the_same_pair_with_another_tag_is_no_duplicate(tagged_yaml: Path, quiet: Console) -> None:
    prepared = prepare(load_config(tagged_yaml), quiet)
    assert len(prepared.train) == 168
    assert "duplicate" not in prepared.manifest["dropped"]


def test_each_source_begins_with_the_tag_of_its_text(tagged_yaml: Path, quiet: Console) -> None:
    prepared = prepare(load_config(tagged_yaml), quiet)
    symbols = prepared.tokenizers.source.symbols
    assert list(symbols) == ["<spare>", *TAGS] == prepared.manifest["tokenizer"]["symbols"]
    for corpus, count in ((prepared.train, 84), (prepared.valid["valid"], 8)):
        assert [ids[0] for ids in corpus.source] == [symbols[tag] for tag in TAGS for _ in range(count)]
        assert not {index for ids in corpus.target for index in ids} & set(symbols.values())
    assert prepared.text("valid")[2] == [tag for tag in TAGS for _ in range(8)]
    assert not any(tag in line for line in prepared.text("valid")[0] for tag in TAGS)


def test_inspection_shows_the_tag_as_a_piece(tagged_yaml: Path, quiet: Console) -> None:
    examples = inspect(load_config(tagged_yaml), quiet).examples
    assert all(example.source_pieces[0] in TAGS for example in examples)
    assert all(example.source.startswith(TAGS) for example in examples)


def test_the_tag_decides_what_a_model_does(tagged_run: Path) -> None:
    translator = Translator(tagged_run)
    lines = ["red green blue", "black red"]
    german, french = translator(lines, tag="<de>"), translator(lines, tag="<fr>")
    assert [set(" ".join(found).split()) for found in (german, french)] == [
        {"rot", "grün", "blau", "schwarz"},
        {"rouge", "vert", "bleu", "noir"},
    ]
    assert translator(lines, tag=["<fr>", "<de>"]) == [french[0], german[1]]
    with pytest.raises(UsageError, match="2 lines and 1 tag"):
        translator(lines, tag=["<fr>"])


def test_each_part_of_a_long_line_has_the_tag(tagged_run: Path) -> None:
    translator = Translator(tagged_run, decode={"max_source": 8})
    parts = segments_of(["red green. " * 9], translator.encoder, translator.decode, tag="<fr>")
    assert len(parts) > 3
    assert {part.ids[0] for part in parts} == {translator.tokenizers.source.symbols["<fr>"]}
    assert max(len(part.ids) for part in parts) <= 8


def test_scores_and_alignments_are_those_of_the_tagged_line(tagged_run: Path) -> None:
    translator = Translator(tagged_run, decode={"beam": 2})
    (found,) = translator.n_best(["red green blue"], tag="<fr>")
    (scored,) = translator.score(["red green blue"], [found[0].text], tag="<fr>")
    (other,) = translator.score(["red green blue"], [found[0].text], tag="<de>")
    assert scored.log_probability == pytest.approx(found[0].log_probability, abs=1e-5)
    assert other.log_probability < scored.log_probability - 1
    (links,) = alignments(translator, [("red green blue", "rouge vert bleu")], "<fr>")
    assert [link.split("-")[1] for link in links.split()] == ["0", "1", "2"]
    assert {link.split("-")[0] for link in links.split()} <= {"0", "1", "2"}
    (attention,) = attention_of(translator, [("red", "rouge")], "<fr>")
    assert attention.source_pieces[0] == "<fr>"
    assert not attention.source_SW[0].any()


def test_the_command_line_takes_a_tag_and_misses_one(tagged_run: Path, tmp_path: Path) -> None:
    plain = mt("translate", "--ckpt", tagged_run, text="red green blue\n")
    assert "give --tag" in plain.stderr
    attention = tmp_path / "attention.json"
    options = ("--alignments", "--attention", attention)
    tagged = mt("translate", "--ckpt", tagged_run, "--tag", "<fr>", *options, text="red green blue\n")
    assert "rouge" in tagged.stdout
    assert "--tag" not in tagged.stderr
    assert json.loads(attention.read_text())[0]["source_pieces"][0] == "<fr>"
    unknown = mt("translate", "--ckpt", tagged_run, "--tag", "<it>", text="red\n")
    assert unknown.returncode == 2
    assert unknown.stderr.splitlines()[-1] == "mt: the tokenizer has no symbol <it>; it has <spare>, <de>, <fr>"


def test_a_test_set_is_scored_with_its_tags_or_with_another(tagged_run: Path) -> None:
    def exact(*options: str) -> float:
        done = mt("evaluate", "--ckpt", tagged_run, "--json", "-q", *options)
        assert not done.returncode, done.stderr
        return float(json.loads(done.stdout)["results"][0]["exact"])

    assert exact() > exact("--tag", "<fr>") > 0


def test_validation_reads_the_tags(tagged_run: Path, tagged_yaml: Path, quiet: Console) -> None:
    recorded = [json.loads(line) for line in (tagged_run / "metrics.jsonl").read_text().splitlines()][-1]["valid_bleu"]
    sources, references, tags = prepare(load_config(tagged_yaml), quiet).text("valid")
    greedy = Translator(tagged_run / "last", decode={"beam": 1})
    assert bleu(greedy(sources, tag=tags), references, lang="de").value == pytest.approx(recorded)
    assert bleu(greedy(sources), references, lang="de").value < recorded


def test_tags_and_symbols_are_part_of_the_recipe(tagged_run: Path, tagged_yaml: Path) -> None:
    for override in ("data.symbols=[<other>]", "data.symbols=[]"):
        changed = load_config(tagged_yaml, [override, "train.updates=300"])
        with pytest.raises(CheckpointError, match=r"data\.symbols: \['<spare>'\] -> "):
            train(changed, Console(quiet=True))
    other = load_config(tagged_yaml)
    entries = tuple(entry.model_copy(update={"tag": "<de>"}) for entry in other.data.train)
    changed = with_settings(other, data={"train": entries})
    assert what_changed(changed) == ["data.train"]
    with pytest.raises(CheckpointError, match=r"data\.train: other sources"):
        train(changed, Console(quiet=True))


def test_a_given_tokenizer_needs_the_tags(toy_config: Config, tagged_run: Path, quiet: Console) -> None:
    tokenizer = str(tagged_run / "checkpoints" / "step-00000250" / "tokenizer.model")
    source = toy_config.data.train[0]
    known, unknown = (source.model_copy(update={"tag": tag}) for tag in ("<spare>", "<new>"))
    ready = prepare(with_settings(toy_config, data={"tokenizer": tokenizer, "train": (known,)}), quiet)
    assert {int(ids[0]) for ids in ready.train.source} == {ready.tokenizers.source.symbols["<spare>"]}
    with pytest.raises(DataError, match=r"data\.tokenizer: the tokenizer has no symbol <new>; it has <spare>, <de>"):
        prepare(with_settings(toy_config, data={"tokenizer": tokenizer, "train": (unknown,)}), quiet)


@pytest.mark.parametrize("symbol", ["a", "2de", "a b", "<s>", "<0x41>", "\u27e61\u27e7", "x\u2581"])
def test_what_could_not_be_told_from_text_is_no_symbol(toy_yaml: Path, symbol: str) -> None:
    with pytest.raises(ConfigError, match=r"data\.symbols\.0: a symbol has two characters or more"):
        load_config(toy_yaml, [f"data.symbols=[{json.dumps(symbol)}]"])


def test_a_test_set_brings_no_new_tag(toy_yaml: Path) -> None:
    test = "data.test={prefix: x, tag: <new>}"
    with pytest.raises(ConfigError, match=r"data\.test has the tag <new>, which data.symbols has to name"):
        load_config(toy_yaml, [test])
    assert load_config(toy_yaml, [test, "data.symbols=<new>"]).data.inputs("test")[0].tag == "<new>"
