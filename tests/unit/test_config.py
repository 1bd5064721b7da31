"""The configuration: the paper by default, every error at once, in sentences."""

import contextlib
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mt.config import Config, ModelConfig
from mt.config_changes import changes, differences, on_resume
from mt.config_file import dump_config, load_config, parse_config
from mt.errors import ConfigError
from mt.model.transformer import Transformer
from mt.setting_types import OnResume

CONFIGS = Path(__file__).parents[2] / "configs"


def write(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "my.yaml"
    path.write_text(text, encoding="utf-8")
    return path


def error_of(path: Path, *overrides: str) -> str:
    with pytest.raises(ConfigError) as caught:
        load_config(path, overrides)
    return str(caught.value)


def test_defaults_are_the_papers_base_model() -> None:
    c = Config()
    assert (c.model.encoder_layers, c.model.decoder_layers) == (6, 6)
    assert (c.model.d_model, c.model.heads, c.model.d_ff, c.model.dropout) == (512, 8, 2048, 0.1)
    assert (c.optim.beta1, c.optim.beta2, c.optim.eps, c.optim.warmup) == (0.9, 0.98, 1e-9, 4_000)
    assert (c.batch.tokens, c.train.updates, c.train.label_smoothing, c.train.average) == (25_000, 100_000, 0.1, 5)
    assert (c.decode.beam, c.decode.alpha, c.decode.max_extra) == (4, 0.6, 50)
    assert c.data.vocab_size == 37_000


def test_base_yaml_is_the_default_and_big_differs_as_table_3_says() -> None:
    base = load_config(CONFIGS / "base.yaml")
    assert differences(Config(), base) == []
    big = load_config(CONFIGS / "big.yaml")
    assert big.model == ModelConfig(d_model=1024, heads=16, d_ff=4096, dropout=0.3)
    assert (big.train.updates, big.train.average) == (300_000, 20)
    assert big.data == base.data
    assert big.optim == base.optim


@pytest.mark.parametrize(("encoder", "decoder"), [(12, 1), (6, 2)])
def test_deep_encoders_and_shallow_decoders_differ_from_base_in_nothing_else(encoder: int, decoder: int) -> None:
    found = load_config(CONFIGS / f"base-{encoder}-{decoder}.yaml")
    assert found.model == ModelConfig(encoder_layers=encoder, decoder_layers=decoder)
    assert found.data == load_config(CONFIGS / "base.yaml").data
    assert str(found.train.dir) == f"runs/base-{encoder}-{decoder}"


@given(
    sizes=st.fixed_dictionaries(
        {"encoder_layers": st.integers(1, 3), "decoder_layers": st.integers(1, 3), "d_ff": st.integers(1, 9)}
    ),
    variant=st.fixed_dictionaries(
        {
            "activation": st.sampled_from(["relu", "gelu", "silu", "swiglu"]),
            "positions": st.sampled_from(["sinusoidal", "learned", "rotary"]),
            "max_positions": st.integers(2, 9),
            "norm": st.sampled_from(["post", "pre"]),
            "embeddings": st.sampled_from(["tied", "decoder", "separate"]),
            "output_bias": st.booleans(),
            "recurrence": st.sampled_from(["none", "fixed", "adaptive"]),
        }
    ),
    d_model=st.sampled_from([4, 8, 24]),
    vocab_size=st.integers(16, 40),
    source_vocab_size=st.sampled_from([None, 17]),
)
@settings(max_examples=60, deadline=None)
def test_the_weights_counted_are_those_of_the_model(
    sizes: dict[str, int],
    variant: dict[str, Any],
    d_model: int,
    vocab_size: int,
    source_vocab_size: int | None,
) -> None:
    config = ModelConfig(**sizes, **variant, d_model=d_model, heads=2)
    model = Transformer(config, vocab_size, source_vocab_size)
    counted = config.parameters(vocab_size, source_vocab_size)
    assert counted == sum(parameter.numel() for parameter in model.parameters())


def test_the_papers_models_have_as_many_weights_as_table_3_says() -> None:
    assert round(ModelConfig().parameters(37_000) / 1e6) == 63  # the paper: 65 million
    assert round(ModelConfig(d_model=1024, d_ff=4096, heads=16).parameters(37_000) / 1e6) == 214  # the paper: 213


@pytest.mark.parametrize(
    "path", [*CONFIGS.glob("*.yaml"), CONFIGS.parent / "mt/configs/demo.yaml"], ids=lambda path: path.name
)
def test_every_config_file_survives_being_written_and_read(path: Path) -> None:
    config = load_config(path)
    assert parse_config(dump_config(config), "again") == config


def test_the_general_models_differ_in_nothing_but_their_direction() -> None:
    there, back = (load_config(CONFIGS / name) for name in ("general.yaml", "general-de-en.yaml"))
    named = ["data.dir", "data.src", "data.tgt", "train.dir"]
    assert [line.partition(":")[0] for line in differences(there, back)] == named


def test_a_config_names_its_own_folders(tmp_path: Path) -> None:
    config = load_config(write(tmp_path, "seed: 3"))
    assert (config.data.dir, config.train.dir) == (Path("data/my"), Path("runs/my"))


def test_overrides_go_over_the_file_and_the_file_over_defaults(tmp_path: Path) -> None:
    config = load_config(write(tmp_path, "optim: {warmup: 7, scale: 2}"), ["optim.warmup=9", "data.tgt=fr"])
    assert (config.optim.warmup, config.optim.scale, config.optim.beta1) == (9, 2.0, 0.9)
    assert config.data.tgt == "fr"


def test_numbers_and_words_that_yaml_misreads_come_out_as_declared(tmp_path: Path) -> None:
    """PyYAML reads 1e-8 and 1e5 as text, and no as False."""
    config = load_config(write(tmp_path, "optim: {eps: 1e-8}\ntrain: {updates: 1e5}\ndata: {tgt: no}"))
    assert (config.optim.eps, config.train.updates, config.data.tgt) == (1e-8, 100_000, "no")


def test_every_error_is_reported_at_once_with_its_line(tmp_path: Path) -> None:
    text = "model:\n  d_modell: 3\n  dropout: 2\ntrain:\n  updates: many\n"
    message = error_of(write(tmp_path, text), "optim.warmupp=3")
    lines = message.split("\n")
    assert len(lines) == 4
    assert any("my.yaml:2: model.d_modell: unknown key; did you mean d_model?" in line for line in lines)
    assert any("my.yaml:3: model.dropout:" in line and "got 2" in line for line in lines)
    assert any("my.yaml:5: train.updates:" in line and "'many'" in line for line in lines)
    assert any("override optim.warmupp=3: optim.warmupp: unknown key; did you mean warmup?" in line for line in lines)


def test_a_key_in_the_wrong_section_is_shown_its_home(tmp_path: Path) -> None:
    assert "did you mean model.heads?" in error_of(write(tmp_path, "heads: 4"))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("model: {heads: 3}", "d_model 512 cannot be divided among 3 heads"),
        ("train: {average: 9}", "keep 5 is less than average 9"),
        ("data: {train: a}", "data.train needs data.valid beside it"),
        ("data: {train: {src: a}, valid: b}", "src and tgt go together"),
        ("data: {train: {}, valid: b}", "exactly one of"),
        ("data:\n train: a\n valid: {}", "my.yaml:3: data.valid: an empty mapping; give each set a name"),
        ("data:\n train: a\n valid:\n  b: x\n  b: y", "my.yaml:5: b is given twice"),
        ("data:\n train: a\n valid:\n  b: x\n  B: y", "my.yaml:4: data.valid.b: two sets have this name, but for"),
        ("data:\n train: a\n valid: {../b: x}", "my.yaml:3: data.valid: a set cannot be called '../b'"),
        ("data:\n train: a\n valid: {b: x}\n test: {2013: x}", "my.yaml:4: data.test: a set cannot be called 2013"),
        ("data:\n train: a\n valid:\n  loss: x", "my.yaml:4: data.valid.loss: a set cannot be called so"),
        ("data:\n train: a\n valid:\n  b: []", "my.yaml:4: data.valid.b: names no text"),
        ("data: {train: a, valid: {b: {prefx: x}}}", "data.valid.b.0.prefx: unknown key; did you mean prefix?"),
        (
            "data: {train: a, valid: {b: x}}\ntrain:\n updates: 3\n best: c",
            "my.yaml:4: train.best: c is none of bleu, loss, b, b.bleu, b.loss",
        ),
        ("train: {best: blue}", "train.best: blue is none of bleu, loss"),
        ("train: {shard: optimizer}\noptim: {name: muon}", "but optim.name muon steps on whole ones"),
        ("train: {keep: yes}", "train.keep"),
        ("seed: 1\nseed: 2", "my.yaml:2: seed is given twice"),
        ("a: [1", "not valid YAML"),
        ("- 1", "a config is a mapping of sections"),
        ("", "is empty; write {} for the paper's base model"),
        ("# nothing yet\n", "is empty"),
        ("data: &a {train: [*a]}", "my.yaml:1: data.train.0 contains itself"),
        ("a: " + "[" * 5_000 + "]" * 5_000, "nested too deeply"),
        ("seed: 99999999999999999999", "seed: 1.000e+20 is too large"),
        ("data: {train: {prefix: a, name: n}, valid: {prefix: b, name: n}}", "name is for data.train alone"),
        ("train:\n stages:\n  - {scale: 2}", "my.yaml:3: train.stages.0: give exactly one of update, epoch"),
        ("train:\n stages:\n  - {update: 9, epoch: 1, scale: 2}", "my.yaml:3: train.stages.0: give exactly one of"),
        ("train:\n stages:\n  - {update: 9}", "my.yaml:3: train.stages.0: changes nothing"),
        (
            "train:\n stages:\n  - {update: 9, scal: 2}",
            "my.yaml:3: train.stages.0.scal: unknown key; did you mean scale?",
        ),
        (
            "train:\n stages:\n  - {update: 9, scale: 2}\n  - {update: 9, scale: 1}",
            "my.yaml:4: train.stages.1.update: 9 does not come after 9, the stage before",
        ),
        (
            "train:\n stages:\n  - {update: 9, scale: 2}\n  - {epoch: 10, scale: 1}",
            "my.yaml:4: train.stages.1: the stages before count by update: count by one in all",
        ),
        (
            "train:\n updates: 8\n stages:\n  - update: 8\n    scale: 2",
            "my.yaml:4: train.stages.0.update: the run ends before 8: train.updates is 8",
        ),
        ("train: {epochs: 3, stages: [{epoch: 3, scale: 2}]}", "the run ends before 3: train.epochs is 3"),
        (
            "data: {train: {prefix: a, name: news}, valid: v}\ntrain:\n stages:\n  - update: 8\n    weights: {new: 2}",
            "my.yaml:5: train.stages.0.weights.new: no input of data.train has this name (news)",
        ),
        ("train: {stages: [{update: 8, weights: {a: 1}}]}", "no input of data.train has this name (none has one yet"),
        (
            "data: {train: {prefix: a, name: n}, valid: v}\ntrain:\n stages:\n  - {update: 8, weights: {n: 0}}",
            "my.yaml:4: train.stages.0.weights: leaves no text to train on",
        ),
        (
            "data: {train: {prefix: a, name: n, weight: .5}, valid: v}\ntrain: {stages: [{epoch: 8, weights: {n: 1}}]}",
            "my.yaml:2: train.stages.0.weights.n: a weight of 0.5 in data.train leaves some of its pairs out for good",
        ),
        ("train: {stages: [{update: 8, weights: {a: -1}}]}", "train.stages.0.weights.a: input should be greater than"),
    ],
)
def test_impossible_configs_are_refused_in_words(tmp_path: Path, text: str, message: str) -> None:
    assert message in error_of(write(tmp_path, text))


def test_aliases_of_aliases_are_refused_at_once(tmp_path: Path) -> None:
    """Nine to the power of twenty values in twenty lines."""
    lines = ["a0: &a0 [1]", *(f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]" for n in range(1, 21))]
    assert "more than 100,000 values, aliases counted" in error_of(write(tmp_path, "\n".join(lines)))


def test_an_alias_may_still_say_something_twice(tmp_path: Path) -> None:
    config = load_config(write(tmp_path, "data: {train: a, valid: &held out, test: *held}"))
    assert config.data.test == config.data.valid


@pytest.mark.parametrize("value", ["2020-13-45", "[" * 5_000, "{a: *b}", "&a [*a]"])
def test_an_override_that_is_no_yaml_is_text(tmp_path: Path, value: str) -> None:
    assert "override train.updates=" in error_of(write(tmp_path, "{}"), f"train.updates={value}")


def test_a_missing_file_and_a_malformed_override_are_refused(tmp_path: Path) -> None:
    assert "no such config file" in error_of(tmp_path / "none.yaml")
    assert "not of the form section.key=value" in error_of(write(tmp_path, "{}"), "updates 3")
    assert "is not a section" in error_of(write(tmp_path, "seed: 1"), "seed.deeper=3")
    assert error_of(write(tmp_path, "{}"), "seed.deeper=3").startswith("override seed.deeper=3: seed:")


def test_a_path_names_a_pair_of_files_or_a_table(tmp_path: Path) -> None:
    config = load_config(write(tmp_path, "data: {train: [some/train, more.tsv.gz], valid: dev.jsonl}"))
    assert [(source.prefix, source.pairs) for source in config.data.train] == [
        ("some/train", None),
        (None, "more.tsv.gz"),
    ]
    assert config.data.inputs("valid")[0].pairs == "dev.jsonl"
    assert config.data.inputs("test") == [], "the paper's test set says nothing about somebody's own text"


def test_named_sets_are_told_from_an_input_and_read_back_as_they_were_written(tmp_path: Path) -> None:
    """A mapping is an input where it has a key of one; else each of its keys names a set."""
    text = "data: {train: a, valid: {b: x, c: [y, z.tsv]}, test: {src: s, tgt: t}}\ntrain: {best: c.loss}"
    config = load_config(write(tmp_path, text))
    assert list(config.data.splits) == ["train", "valid/b", "valid/c", "test"]
    assert [source.pairs for source in config.data.splits["valid/c"]] == [None, "z.tsv"]
    assert config.best == ("valid/c", "loss")
    assert parse_config(dump_config(config), "any.yaml") == config
    assert load_config(write(tmp_path, text), ["train.best=bleu"]).best == ("valid/b", "bleu"), "of the first set"


@given(st.text(max_size=60))
def test_no_text_makes_the_reader_fail_otherwise_than_in_words(text: str) -> None:
    with contextlib.suppress(ConfigError):
        assert isinstance(parse_config(text, "any.yaml"), Config)


def test_two_vocabularies_are_not_given_one_matrix(tmp_path: Path) -> None:
    path = write(tmp_path, "{data: {vocab: separate}, model: {embeddings: decoder}}")
    assert load_config(path).data.vocab == "separate"
    message = error_of(path, "model.embeddings=tied")
    assert message.startswith(f"{path}: data.vocab separate")
    assert "set model.embeddings=decoder" in message
    given = load_config(path, ["data.tokenizer=[a.model, b.model]", "model.embeddings=tied"])
    assert given.data.tokenizer == ("a.model", "b.model"), "they may number their pieces alike"
    for wrong in ("[a.model]", "[a, b, c]", "7"):
        assert "give the path of a tokenizer.model, or two" in error_of(path, f"data.tokenizer={wrong}")


# --- What may change when a run goes on ---------------------------------------------------------------------------

# A valid value for each key that is not the default.
OTHERS: dict[str, str] = {
    "data.train": "{prefix: a}",
    "data.valid": "{prefix: b}",
    "data.test": "{prefix: c}",
    "data.dir": "elsewhere",
    "data.src": "fr",
    "data.tgt": "fr",
    "data.vocab": "separate",
    "data.tokenizer": "a.model",
    "data.symbols": "<bt>",
    "data.protect": "url",
    "model.d_model": "256",
    "model.heads": "4",
    "model.positions": "rotary",
    "model.norm": "pre",
    "model.activation": "gelu",
    "model.embeddings": "decoder",
    "model.recurrence": "fixed",
    "optim.name": "muon",
    "optim.schedule": "constant",
    "data.store": "s3://bucket/prepared",
    "train.dir": "elsewhere",
    "train.consistency": "rdrop",
    "train.stages": "[{update: 9, scale: 0.5}]",
    "train.best": "loss",
    "train.average": "4",
    "train.device": "cpu",
    "train.precision": "bfloat16",
    "train.residual": "bfloat16",
    "train.shard": "optimizer",
    "decode.penalty": "none",
    "decode.groups": "2",
    "decode.max_length": "9",
    "decode.top_p": "0.5",
    "decode.long_lines": "cut",
    "decode.precision": "bfloat16",
    "decode.shortlist": "yes",
}


def other_value(key: str) -> str:
    value: object = Config()
    for part in key.split("."):
        value = getattr(value, part)
    if isinstance(value, bool):
        return str(not value).lower()
    return OTHERS.get(key) or str(value + 1 if isinstance(value, int) else value / 2 + 0.01)  # type: ignore[operator]


@pytest.mark.parametrize("key", on_resume())
def test_each_key_says_what_becomes_of_a_run_that_goes_on_with_another_value(tmp_path: Path, key: str) -> None:
    path = write(tmp_path, "{data: {train: {prefix: x}, valid: {prefix: y}}, model: {embeddings: separate}}")
    before, after = load_config(path), load_config(path, [f"{key}={other_value(key)}"])
    assert before != after
    found = {mark: changes(before, after, mark) for mark in OnResume}
    (line,) = found.pop(on_resume()[key])
    assert line.startswith(f"{key}: ")
    assert not any(found.values())


def test_what_decides_the_weights_is_refused_and_where_things_lie_is_free() -> None:
    marks = on_resume()
    for section in ("model", "optim", "data.clean"):
        assert {mark for key, mark in marks.items() if key.startswith(f"{section}.")} == {OnResume.REFUSED}
    noted = {
        *("batch.micro_tokens", "batch.multiple", "train.average", "train.checkpoint_every", "train.epochs"),
        *("train.hours", "train.patience", "train.compile", "decode.max_extra", "decode.max_source"),
    }
    assert {marks[key] for key in noted} == {OnResume.NOTED}
    assert {marks[key] for key in ("seed", "batch.tokens", "train.best", "train.precision")} == {OnResume.REFUSED}
    assert {marks[key] for key in ("data.dir", "train.dir", "train.log_every", "decode.beam")} == {OnResume.FREE}
