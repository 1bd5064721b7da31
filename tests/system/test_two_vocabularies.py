"""A pair of languages in two scripts, each with a vocabulary of its own, from text to translations."""

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from helpers import fork_world, statuses, unigrams_numbered_alike, with_settings, write_lines

from mt.checkpoint import load_checkpoint, resumable_checkpoints
from mt.config import Config
from mt.config_file import load_config
from mt.console import Console
from mt.data.encoding import PairEncoder
from mt.data.inspect_corpus import inspect, render_text
from mt.data.prepare import prepare
from mt.data.prepared import open_prepared
from mt.data.tokenizer import BOS, EOS, Tokenizer, train_tokenizer
from mt.errors import CheckpointError, ConfigError, DataError
from mt.run_files import read_metrics
from mt.train.loop import train
from mt.translate.alignment import attention_of
from mt.translate.decoding import NEVER
from mt.translate.translator import Translator

LATIN, GREEK = "abcdefghijklmnopqrstuvwxyz", "αβψδεφγηιξκλμνοπϙρστθωϝχυζ"
TO_GREEK = str.maketrans(LATIN + LATIN.upper(), GREEK + GREEK.upper())
SIZE = 300  # pieces of each vocabulary


def lines(path: Path) -> list[str]:
    return path.read_text(encoding="utf-8").split("\n")[:-1]


@pytest.fixture(scope="module")
def text(toy_text: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The toy language with its English in Greek letters."""
    folder = tmp_path_factory.mktemp("two_scripts")
    for split in ("train", "valid", "test"):
        write_lines(folder / f"{split}.el", [line.translate(TO_GREEK) for line in lines(toy_text / f"{split}.en")])
        shutil.copy(toy_text / f"{split}.de", folder)
    return folder


def in_two_scripts(config: Config, text: Path, **data: Any) -> Config:
    """The settings on that text, with two vocabularies and BPE-dropout."""
    names = {split: str(text / split) for split in ("train", "valid", "test")}
    values = config.model_dump(mode="json", exclude_none=True)
    values["data"] |= {"src": "el", "vocab": "separate", "vocab_size": SIZE, **names, **data}
    values["model"] |= {"embeddings": "decoder"}
    values["train"] |= {"bpe_dropout": 0.1}
    return Config.model_validate(values)


@pytest.fixture
def config(toy_config: Config, text: Path) -> Config:
    return in_two_scripts(toy_config, text)


@pytest.fixture(scope="module")
def run(toy_run: Path, text: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same run as `toy_run`, on the text in two scripts."""
    folder = tmp_path_factory.mktemp("two_vocabularies")
    config = in_two_scripts(load_config(toy_run / "config.yaml"), text, dir=folder / "data")
    train(with_settings(config, train={"dir": folder / "run", "bpe_dropout": 0.0}), Console(quiet=True))
    return folder / "run"


@pytest.fixture
def translator(run: Path) -> Translator:
    return Translator(run, device="cpu")


# --- Prepared data -----------------------------------------------------------------------------------------------


def test_each_vocabulary_is_the_one_learnt_from_its_language_alone(config: Config, text: Path, quiet: Console) -> None:
    folder = prepare(config, quiet).dir
    for name, language in (("tokenizer.model", "el"), ("tokenizer.target.model", "de")):
        alone = train_tokenizer(lines(text / f"train.{language}"), SIZE)
        assert (folder / name).read_bytes() == alone.model_bytes


def test_text_and_figures_are_those_of_each_side(config: Config, text: Path, quiet: Console) -> None:
    prepared = prepare(config, quiet)
    sources, targets = lines(text / "train.el"), lines(text / "train.de")
    sides = ((prepared.tokenizers.source, prepared.train.source), (prepared.tokenizers.target, prepared.train.target))
    assert [tokenizer.decode([ids.tolist() for ids in side]) for tokenizer, side in sides] == [sources, targets]
    manifest, corpus = prepared.manifest, PairEncoder(prepared.tokenizers).encode(sources, targets)[0]
    assert manifest["train"] == {
        "rows": len(sources),
        "source_pieces": len(corpus.source.ids),
        "target_pieces": len(corpus.target.ids),
    }
    for key, (tokenizer, _) in zip(("tokenizer", "target_tokenizer"), sides, strict=True):
        assert manifest[key] == {"pieces": SIZE, "fingerprint": tokenizer.fingerprint}


def test_preparing_again_gives_the_same_bytes(config: Config, tmp_path: Path, quiet: Console) -> None:
    first, second = (
        prepare(with_settings(config, data={"dir": tmp_path / name}), quiet) for name in ("first", "second")
    )
    assert first.fingerprint == second.fingerprint
    assert first.manifest["files"] == second.manifest["files"]


@pytest.mark.parametrize("rule", ["max_pieces", "max_ratio"])
def test_lengths_are_counted_by_the_tokenizer_of_each_side(
    config: Config, tmp_path: Path, quiet: Console, rule: str
) -> None:
    lengths_N2 = prepare(config, quiet).train.lengths()
    long_N, short_N = lengths_N2.max(axis=1), lengths_N2.min(axis=1)
    unit_N = np.ones_like(short_N) if rule == "max_pieces" else short_N
    most = sorted((long_N / unit_N).tolist())[len(long_N) // 2]
    clean = config.data.clean.model_copy(update={rule: type(getattr(config.data.clean, rule))(most)})
    kept = prepare(with_settings(config, data={"clean": clean, "dir": tmp_path / "strict"}), quiet)
    assert kept.train.lengths().tolist() == lengths_N2[long_N <= most * unit_N].tolist()
    assert 0 < len(kept.train) < len(lengths_N2)


def test_a_vocabulary_too_large_for_one_side_says_for_which(config: Config, quiet: Console) -> None:
    with pytest.raises(
        DataError, match=r"^el: data\.vocab_size 2000 is too high for this text: set it to \d+ or less$"
    ):
        prepare(with_settings(config, data={"vocab_size": 2000}), quiet)


def test_inspection_shows_both_vocabularies(config: Config, text: Path, tmp_path: Path, quiet: Console) -> None:
    """And that one made for German spells Greek in bytes."""
    inspection = inspect(config, quiet)
    assert (inspection.vocabulary, inspection.source.vocabulary, inspection.target.vocabulary) == (600, SIZE, SIZE)
    assert f"vocabulary  {SIZE} + {SIZE} pieces" in render_text(inspection)
    assert all(set("αειο") & set("".join(example.source_pieces)) for example in inspection.examples)
    german = str(shutil.copy(config.data.dir / "tokenizer.target.model", tmp_path))
    joint = inspect(with_settings(config, data={"tokenizer": german, "dir": tmp_path / "joint"}), quiet)
    assert joint.vocabulary == SIZE
    assert joint.source.byte_share > 0.8


@pytest.mark.parametrize("name", ["tokenizer.model", "tokenizer.target.model"])
def test_a_damaged_or_missing_tokenizer_of_prepared_data_is_named(config: Config, quiet: Console, name: str) -> None:
    path = prepare(config, quiet).dir / name
    damaged = bytearray(path.read_bytes())
    damaged[len(damaged) // 2] ^= 1
    path.write_bytes(damaged)
    with pytest.raises(DataError, match=rf"{name} is damaged"):
        open_prepared(config.data.dir)
    path.unlink()
    with pytest.raises(DataError, match=rf"{name} is missing or cut short"):
        open_prepared(config.data.dir)


def test_given_tokenizers_are_used_and_others_noticed(config: Config, tmp_path: Path, quiet: Console) -> None:
    first = prepare(config, quiet)
    paths = tuple(str(shutil.copy(first.dir / name, tmp_path)) for name in first.tokenizers.files)
    given = with_settings(config, data={"tokenizer": paths, "vocab": "joint", "dir": tmp_path / "given"})
    assert prepare(given, quiet).fingerprint == first.fingerprint
    same = with_settings(config, data={"tokenizer": paths, "vocab_size": 999})
    assert prepare(same, quiet).manifest == first.manifest, "nothing is prepared again"
    swapped = with_settings(given, data={"tokenizer": paths[::-1]})
    assert prepare(swapped, quiet).fingerprint != first.fingerprint
    both = with_settings(config, data={"tokenizer": (paths[0], paths[0]), "dir": tmp_path / "both"})
    assert prepare(both, quiet).tokenizers.is_joint
    one_matrix = with_settings(given, model={"embeddings": "tied"}, data={"dir": tmp_path / "none"})
    with pytest.raises(ConfigError, match=r"each in its own way.* set model\.embeddings=decoder, or separate"):
        prepare(one_matrix, quiet)
    assert not (tmp_path / "none").exists()


# --- Training ----------------------------------------------------------------------------------------------------


def losses(folder: Path) -> list[float]:
    return [record["loss"] for record in read_metrics(folder / "metrics.jsonl") if "loss" in record]


def newest(folder: Path) -> dict[str, torch.Tensor]:
    return load_checkpoint(resumable_checkpoints(folder)[0]).weights


def test_a_resumed_run_is_the_uninterrupted_run_bit_for_bit(config: Config, tmp_path: Path, quiet: Console) -> None:
    straight = with_settings(config, train={"dir": tmp_path / "straight", "updates": 8})
    train(straight, quiet)
    resumed = with_settings(straight, train={"dir": tmp_path / "resumed"})
    train(with_settings(resumed, train={"updates": 5}), quiet)
    train(resumed, quiet)
    assert losses(tmp_path / "resumed") == losses(tmp_path / "straight")
    expected = newest(tmp_path / "straight")
    assert all(torch.equal(weight, expected[name]) for name, weight in newest(tmp_path / "resumed").items())


def test_two_processes_train_the_run_that_one_trains(config: Config, tmp_path: Path, quiet: Console) -> None:
    config = with_settings(config, batch={"multiple": 4}, train={"updates": 6})
    prepare(config, quiet)
    one, two = (with_settings(config, train={"dir": tmp_path / name}) for name in ("one", "two"))
    train(one, quiet)
    assert statuses(fork_world(2, lambda: train(two, quiet))) == [0, 0]
    assert losses(two.train.dir) == pytest.approx(losses(one.train.dir), rel=1e-5)


def test_each_side_has_an_embedding_of_its_size(config: Config, text: Path, tmp_path: Path, quiet: Console) -> None:
    prepared = prepare(config, quiet)
    larger = train_tokenizer(lines(text / "train.de"), SIZE + 10)
    (tmp_path / "de.model").write_bytes(larger.model_bytes)
    paths = (str(shutil.copy(prepared.dir / "tokenizer.model", tmp_path)), str(tmp_path / "de.model"))
    settings = with_settings(config, data={"tokenizer": paths, "dir": tmp_path / "larger"}, train={"updates": 1})
    train(settings, quiet)
    weights = newest(config.train.dir)
    assert [len(weights[name]) for name in ("source_embedding.weight", "embedding.weight")] == [SIZE, SIZE + 10]
    assert settings.model.parameters(SIZE + 10, SIZE) == sum(weight.numel() for weight in weights.values())


def test_fine_tuning_takes_both_tokenizers(run: Path, text: Path, tmp_path: Path, quiet: Console) -> None:
    path = tmp_path / "tuned.yaml"
    path.write_text(
        f"""
data: {{dir: {tmp_path}/data, src: el, train: {text}/train, valid: {text}/valid}}
batch: {{tokens: 400, micro_tokens: 400}}
train: {{dir: {tmp_path}/run, updates: 4, checkpoint_every: 2, average: 1, device: cpu, precision: float32}}
""",
        encoding="utf-8",
    )
    train(load_config(path), quiet, init_from=run)
    before = load_checkpoint(run / "checkpoints" / "averaged")
    after = load_checkpoint(resumable_checkpoints(tmp_path / "run")[0])
    assert after.tokenizers == before.tokenizers
    assert after.config.model == before.config.model
    train(load_config(path, ["train.updates=5"]), quiet, init_from=run)
    assert len(losses(tmp_path / "run")) == 5, "the same command goes on"


def test_weights_are_not_begun_with_where_one_side_has_other_pieces(
    config: Config, run: Path, tmp_path: Path, quiet: Console
) -> None:
    prepared = prepare(with_settings(config, data={"vocab_size": SIZE - 10}), quiet)
    first = load_checkpoint(run / "checkpoints" / "averaged")
    (tmp_path / "el.model").write_bytes(first.tokenizers["tokenizer.model"])
    paths = (str(tmp_path / "el.model"), str(shutil.copy(prepared.dir / "tokenizer.target.model", tmp_path)))
    other = with_settings(config, model=first.config.model.model_dump(), data={"tokenizer": paths})
    with pytest.raises(CheckpointError, match="another vocabulary"):
        train(with_settings(other, data={"dir": tmp_path / "other"}), quiet, init_from=run)


def test_two_tokenizers_that_number_alike_have_one_matrix(
    toy_config: Config, text: Path, tmp_path: Path, quiet: Console
) -> None:
    """As in a model of OPUS-MT: source and target are each cut in their own way, the embeddings are tied."""
    models = unigrams_numbered_alike(lines(text / "train.el"), lines(text / "train.de"))
    paths = []
    for name, model in zip(("el.model", "de.model"), models, strict=True):
        (tmp_path / name).write_bytes(model)
        paths.append(str(tmp_path / name))
    config = in_two_scripts(toy_config, text, tokenizer=paths, vocab="joint")
    config = with_settings(config, model={"embeddings": "tied"}, train={"updates": 2})
    with pytest.raises(DataError, match=r"train\.bpe_dropout needs a BPE tokenizer"):
        train(config, quiet)
    train(with_settings(config, train={"bpe_dropout": 0.0}), quiet)
    translator = Translator(config.train.dir, device="cpu")
    source, target = translator.tokenizers.source, translator.tokenizers.target
    assert [source.model_bytes, target.model_bytes] == models
    assert "source_embedding.weight" not in newest(config.train.dir)
    prepared = open_prepared(config.data.dir)
    assert source.decode([ids.tolist() for ids in prepared.train.source]) == lines(text / "train.el")
    assert target.decode([ids.tolist() for ids in prepared.train.target]) == lines(text / "train.de")
    assert len(translator(lines(text / "test.el"))) == len(lines(text / "test.el"))


# --- Checkpoints -------------------------------------------------------------------------------------------------


@pytest.fixture
def checkpoint(run: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(run / "checkpoints" / "averaged", tmp_path / "averaged"))


def test_swapped_tokenizers_are_found_by_their_hashes(checkpoint: Path) -> None:
    source, target = checkpoint / "tokenizer.model", checkpoint / "tokenizer.target.model"
    source_bytes = source.read_bytes()
    source.write_bytes(target.read_bytes())
    target.write_bytes(source_bytes)
    with pytest.raises(CheckpointError, match=r"tokenizer\.model: damaged \(its hash is not the manifest's\)"):
        Translator(checkpoint, device="cpu")


@pytest.mark.parametrize("name", ["tokenizer.model", "tokenizer.target.model"])
def test_a_missing_tokenizer_is_named_and_nothing_else_taken_for_it(
    checkpoint: Path, config: Config, quiet: Console, name: str
) -> None:
    (checkpoint / name).unlink()
    with pytest.raises(CheckpointError, match=rf"{name}: cannot be read: No such file"):
        Translator(checkpoint, device="cpu")
    with pytest.raises(CheckpointError, match=rf"{name}: cannot be read: No such file"):
        train(config, quiet, init_from=checkpoint)
    assert not config.data.dir.exists()


# --- Translation -------------------------------------------------------------------------------------------------


def test_it_learns_as_much_as_with_one_vocabulary(run: Path, toy_run: Path) -> None:
    """After the same updates; English in Greek letters is as hard as English."""
    loss, joint_loss = (
        min(record["valid_loss"] for record in read_metrics(folder / "metrics.jsonl") if "valid_loss" in record)
        for folder in (run, toy_run)
    )
    assert loss < joint_loss + 0.1


def uncached(translator: Translator, line: str) -> str:
    """Greedy search that computes everything anew for each piece."""
    (model,) = translator.models
    (source,) = translator.tokenizers.source.encode([line])
    source_BS, made = torch.tensor([[*source, EOS]]), [BOS]
    with torch.inference_mode():
        while made[-1] != EOS and len(made) <= len(source) + 50:
            logits_V = model(source_BS, torch.tensor([made]))[0, -1]
            logits_V[list(NEVER)] = -torch.inf
            made.append(int(logits_V.argmax()))
    return translator.tokenizers.target.decode([made[1:]])[0]


def test_search_without_a_cache_finds_the_same(run: Path, text: Path) -> None:
    greedy = Translator(run, device="cpu", decode={"beam": 1})
    sources = lines(text / "test.el")
    translations = greedy(sources)
    assert translations == [uncached(greedy, line) for line in sources]
    assert all(set(line) & set(LATIN) and not set(line) & set(GREEK) for line in translations), "German letters"


def pieces(tokenizer: Tokenizer, line: str) -> list[str]:
    return tokenizer.pieces(tokenizer.encode([line])[0])


def test_scores_and_prefixes_are_in_pieces_of_the_target(translator: Translator, text: Path) -> None:
    sources, references = lines(text / "test.el")[:5], lines(text / "test.de")[:5]
    for reference, scores in zip(references, translator.score(sources, references), strict=True):
        assert scores.pieces == [*pieces(translator.tokenizers.target, reference), "</s>"]
        assert len(scores.log_probabilities) == len(scores.pieces)
    starts = [reference.split()[0] for reference in references]
    begun = translator.n_best(sources, prefixes=starts)
    assert all(found[0].text.startswith(start) for found, start in zip(begun, starts, strict=True))
    for source, (best,) in zip(sources, translator.n_best(sources), strict=True):
        (forced,) = translator.score([source], [best.text])
        (ids,) = translator.tokenizers.target.encode([best.text])
        assert len(ids) + 1 == len(forced.pieces)


def test_attention_names_the_pieces_of_each_side(translator: Translator, text: Path) -> None:
    source, target = lines(text / "test.el")[0], lines(text / "test.de")[0]
    (found,) = attention_of(translator, [(source, target)])
    assert found.source_pieces == [*pieces(translator.tokenizers.source, source), "</s>"]
    assert found.input_pieces == ["<s>", *pieces(translator.tokenizers.target, target)]
    assert found.cross_LHTS.shape[2:] == (len(found.target_pieces), len(found.source_pieces))


def test_long_lines_are_split_by_pieces_of_the_source(run: Path, text: Path) -> None:
    short = Translator(run, device="cpu", decode={"beam": 1, "max_source": 20})
    line = " ".join(lines(text / "test.el")[:6])
    (count,) = (len(ids) for ids in short.tokenizers.source.encode([line]))
    ((found,),) = short.n_best([line])
    assert count > 20
    assert found.note.startswith(f"{count} pieces, translated in ")


def test_an_ensemble_needs_one_target_vocabulary(run: Path, toy_run: Path) -> None:
    both = Translator(run / "best", run / "last", device="cpu")
    assert len(both(["θ"])) == 1
    with pytest.raises(CheckpointError, match="an ensemble needs models of one target tokenizer"):
        Translator(run, toy_run, device="cpu")
