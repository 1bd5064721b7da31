"""Preparing: every pair accounted for, nothing half-written, the same bytes whatever happens on the way."""

import bz2
import gzip
import json
import lzma
import os
import resource
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import pyarrow
import pyarrow.parquet
import pytest

from mt.config import Config, ModelConfig
from mt.config_file import dump_config
from mt.console import Advance, Console
from mt.data.changed import what_changed, why_prepare
from mt.data.prepare import prepare
from mt.data.prepared import Prepared, open_prepared
from mt.data.tokenizer import EOS
from mt.data_config import CleanConfig, DataConfig, Input
from mt.errors import DataError, WriteError


class Listener(Console):
    """A console that remembers what it was told."""

    def __init__(self) -> None:
        super().__init__(quiet=True)
        self.heard: list[str] = []

    def say(self, text: str) -> None:
        self.heard.append(text)

    warn = say


def config_for(folder: Path, text: Path, **data: Any) -> Config:
    names = {"train": str(text / "train"), "valid": str(text / "valid"), "test": str(text / "test")}
    return Config(data=DataConfig.model_validate({"dir": folder / "data", "vocab_size": 320, **names, **data}))


def changed(config: Config, **data: Any) -> Config:
    return config.model_copy(update={"data": config.data.model_copy(update=data)})


@pytest.fixture
def config(toy_text: Path, tmp_path: Path) -> Config:
    return config_for(tmp_path, toy_text)


@pytest.fixture
def own_text(toy_text: Path, tmp_path: Path) -> Path:
    """The toy text where a test may change it."""
    shutil.copytree(toy_text, tmp_path / "text")
    return tmp_path / "text"


def lines(path: Path) -> list[str]:
    return path.read_text("utf-8").removesuffix("\n").split("\n")


def append(path: Path, text: str | bytes) -> None:
    with open(path, "ab") as file:
        file.write(text if isinstance(text, bytes) else text.encode())


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def training_text(prepared: Prepared) -> list[tuple[str, str]]:
    sides = (prepared.train.source, prepared.train.target)
    source, target = (prepared.tokenizers.target.decode([ids.tolist() for ids in side]) for side in sides)
    return list(zip(source, target, strict=True))


# --- What comes out ----------------------------------------------------------------------------------------------


def test_training_pairs_come_out_as_they_went_in(config: Config, toy_text: Path, quiet: Console) -> None:
    prepared = prepare(config, quiet)
    assert training_text(prepared) == list(zip(lines(toy_text / "train.en"), lines(toy_text / "train.de"), strict=True))
    assert all(ids[-1] == EOS for ids in prepared.train.source)


def test_validation_and_test_text_is_kept_verbatim(config: Config, toy_text: Path, quiet: Console) -> None:
    prepared = prepare(config, quiet)
    for split in ("valid", "test"):
        assert prepared.text(split)[:2] == (lines(toy_text / f"{split}.en"), lines(toy_text / f"{split}.de"))
    assert len(prepared.valid["valid"]) == len(lines(toy_text / "valid.en"))


def test_validation_and_test_pairs_are_never_dropped(own_text: Path, tmp_path: Path, quiet: Console) -> None:
    for split in ("valid", "test"):
        append(own_text / f"{split}.en", "\nsame\nsame\nbell\x07\nbroken\n" + "long " * 400 + "\n")
        append(own_text / f"{split}.de", b"leer\nsame\nsame\nGlocke\nkap\xf6tt\nlang\n")
    config = config_for(tmp_path, own_text)
    console = Listener()
    prepared = prepare(config, console)
    for split in ("valid", "test"):
        source, target, _ = prepared.text(split)
        assert source[-6:] == ["", "same", "same", "bell\x07", "broken", "long " * 400]
        assert target[-6:] == ["leer", "same", "same", "Glocke", "kap\ufffdtt", "lang"]
        assert sum("1 line not in UTF-8" in text for text in console.heard) == 2
    assert len(prepared.valid["valid"]) == len(prepared.text("valid")[0])


def test_line_feeds_inside_fields_become_spaces(own_text: Path, tmp_path: Path, quiet: Console) -> None:
    row = json.dumps({"en": "two\nlines", "de": "zwei\r\nZeilen"})
    (own_text / "valid.jsonl").write_text(row + "\n")
    prepared = prepare(config_for(tmp_path, own_text, valid=str(own_text / "valid.jsonl")), quiet)
    assert prepared.text("valid") == (["two lines"], ["zwei Zeilen"], [None])
    assert prepared.manifest["sources"]["valid"][0]["line_feeds"] == 2


def test_a_config_without_test_pairs_has_none(config: Config, quiet: Console) -> None:
    assert prepare(changed(config, test={"": ()}), quiet).text("test") == ([], [], [])


def test_the_other_direction_swaps_the_sides(config: Config, quiet: Console) -> None:
    forth = training_text(prepare(config, quiet))
    back = training_text(prepare(changed(config, src="de", tgt="en"), quiet))
    assert back == [(target, source) for source, target in forth]


def test_several_sources_follow_one_another(own_text: Path, tmp_path: Path, quiet: Console) -> None:
    (own_text / "more.tsv").write_text("a man walks\tein Mann geht\n", "utf-8")
    config = config_for(tmp_path, own_text, train=[str(own_text / "train"), str(own_text / "more.tsv")])
    prepared = prepare(config, quiet)
    assert training_text(prepared)[-1] == ("a man walks", "ein Mann geht")
    assert [source["read"] for source in prepared.manifest["sources"]["train"]] == [100, 1]


@pytest.mark.parametrize(("weight", "low", "high"), [(1, 100, 100), (3, 300, 300), (0.5, 30, 70), (2.5, 230, 270)])
def test_a_source_counts_as_often_as_its_weight_says(
    config: Config, toy_text: Path, quiet: Console, weight: float, low: int, high: int
) -> None:
    weighted = changed(config, train=(Input(prefix=str(toy_text / "train"), weight=weight),))
    pairs = training_text(prepare(weighted, quiet))
    assert low <= len(pairs) <= high
    times = [pairs.count(pair) for pair in set(pairs)]
    assert set(times) <= {int(weight), int(np.ceil(weight))}


def test_every_layout_in_one_config(tmp_path: Path, toy_text: Path, quiet: Console) -> None:
    """Eight pairs in eight layouts, each with something that makes careless readers slip."""
    english = [f"number {number} {strange}" for number, strange in enumerate(STRANGE)]
    german = [f"Nummer {number} {strange}" for number, strange in enumerate(STRANGE)]
    rows = list(zip(english, german, strict=True))
    for side, language in enumerate(("en", "de")):
        text = [row[side].encode() for row in rows]
        (tmp_path / f"windows.{language}").write_bytes(b"\xef\xbb\xbf" + text[0] + b"\r\n")
        (tmp_path / f"archive.{language}.gz").write_bytes(gzip.compress(text[1] + b"\n"))
        (tmp_path / f"archive2.{language}.xz").write_bytes(lzma.compress(text[2]))
        (tmp_path / f"empty.{language}").write_bytes(b"")
    (tmp_path / "a.tsv").write_text(f"de\tid\ten\n{german[3]}\t7\t{english[3]}\n", "utf-8")
    (tmp_path / "b.tsv").write_text(f'"{english[4]}"\t"{german[4]}"\n', "utf-8")
    (tmp_path / "c.jsonl.bz2").write_bytes(bz2.compress(json.dumps({"en": english[5], "de": german[5]}).encode()))
    translation = [{"de": german[6], "en": english[6]}]
    pyarrow.parquet.write_table(pyarrow.table({"translation": translation}), tmp_path / "d.parquet")
    (tmp_path / "folder").mkdir()
    shutil.copy(tmp_path / "d.parquet", tmp_path / "folder" / "train.parquet")
    train = [
        *(str(tmp_path / name) for name in ("windows", "archive", "archive2", "empty", "a.tsv")),
        {"pairs": str(tmp_path / "b.tsv"), "quoted": True},
        *(str(tmp_path / name) for name in ("c.jsonl.bz2", "d.parquet")),
        {"dataset": str(tmp_path / "folder")},
        str(toy_text / "train"),
    ]
    prepared = prepare(config_for(tmp_path, toy_text, train=train, vocab_size=400), quiet)
    assert training_text(prepared)[:7] == rows
    assert prepared.manifest["dropped"] == {"duplicate": 1}, "the folder holds the pair of d.parquet"


STRANGE = ["emoji 👩‍👩‍👧", "e\u0301 and é", "U+2028 \u2028 inside", 'a "quote"', "tab\tinside", "\u2581", "ﬁ ½"]


def test_the_origin_of_every_pair_leads_back_to_its_text(
    toy_text: Path, tmp_path: Path, quiet: Console, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Through chunks, drops of each kind, duplicates within and across sources, weights and layouts."""
    for module in ("pairs", "shards"):
        monkeypatch.setattr(f"mt.data.{module}.BLOCK", 7)
    pairs = [(f"number {number}", f"Nummer {number}") for number in range(1, 61)]
    pairs[4:8] = [("", "leer"), ("copy", "copy"), ("long " * 100, "lang " * 100), ("x", "q w y z v j " * 3)]
    text = [*pairs[:20], *pairs[10:20], *pairs[20:30]]
    for side, language in enumerate(("en", "de")):
        (tmp_path / f"text.{language}").write_text("".join(f"{pair[side]}\n" for pair in text), "utf-8")
    table = [("en", "de"), *pairs[25:35], ("broken row",), *pairs[35:40]]
    (tmp_path / "table.tsv").write_text("".join("\t".join(row) + "\n" for row in table), "utf-8")
    rows = [json.dumps({"en": pair[0], "de": pair[1]}) for pair in pairs[30:]]
    (tmp_path / "rows.jsonl").write_text("\n".join(rows[:20]), "utf-8")
    (tmp_path / "set").mkdir()
    (tmp_path / "set" / "train.jsonl").write_text("\n".join(rows), "utf-8")
    train = [
        {"prefix": str(tmp_path / "text"), "weight": 0.5},
        str(tmp_path / "table.tsv"),
        {"pairs": str(tmp_path / "rows.jsonl"), "weight": 2.5},
        {"dataset": str(tmp_path / "set")},
    ]
    prepared = prepare(config_for(tmp_path, toy_text, train=train, clean=CleanConfig(max_pieces=60)), quiet)

    named: dict[str, Sequence[tuple[str, ...]]] = {
        "text": text,
        "table.tsv": table,
        "rows.jsonl": pairs[30:50],
        "set train": pairs[30:],
    }
    places = {f"{tmp_path}/{name}:{line}": pair for name, rows in named.items() for line, pair in enumerate(rows, 1)}
    origins = prepared.origin(range(len(prepared.train)))
    assert [places[origin] for origin in origins] == training_text(prepared)
    assert {origin.split(":")[0] for origin in origins} == {f"{tmp_path}/{name}" for name in named}
    assert prepared.manifest["dropped"] == {
        "duplicate": 10 + 5 + 10 + 20,
        **dict.fromkeys(("empty side", "source equals target", "too long", "length ratio", "not 2 columns"), 1),
    }


# --- What is dropped ---------------------------------------------------------------------------------------------


MESSY_ENGLISH = [
    b"a man",
    b"",
    b"Berlin",
    b"a man",
    b"bell\x07",
    b"caf\xe9",
    b"long " * 100,
    b"short",
    b"fine \xe2\x80\xa8 text",
]
MESSY_GERMAN = [
    b"ein Mann",
    b"leer",
    b"Berlin",
    b"ein Mann",
    b"Glocke",
    b"Kaffee",
    b"lang " * 90,
    b"viele Worte " * 4,
    b"guter Text",
]


@pytest.fixture
def messy_text(own_text: Path) -> Path:
    append(own_text / "train.en", b"".join(line + b"\r\n" for line in MESSY_ENGLISH))
    append(own_text / "train.de", b"".join(line + b"\n" for line in MESSY_GERMAN))
    return own_text


def test_every_pair_is_kept_or_dropped_for_one_counted_reason(messy_text: Path, tmp_path: Path) -> None:
    console = Listener()
    prepared = prepare(config_for(tmp_path, messy_text, clean=CleanConfig(max_pieces=60, max_ratio=4)), console)
    reasons = ("empty side", "source equals target", "duplicate", "control character", "invalid UTF-8")
    assert prepared.manifest["dropped"] == {**dict.fromkeys(reasons, 1), "too long": 1, "length ratio": 1}
    assert len(prepared.train) == 109 - 7
    assert training_text(prepared)[-1] == ("fine \u2028 text", "guter Text")
    assert any(text.startswith("102 of 109 training pairs kept; dropped 1 control character") for text in console.heard)


def test_dropped_pairs_can_be_read_with_their_place(messy_text: Path, tmp_path: Path, quiet: Console) -> None:
    prepare(config_for(tmp_path, messy_text, clean=CleanConfig(max_pieces=60, max_ratio=4)), quiet)
    rows = [line.split("\t") for line in lines(tmp_path / "data" / "dropped.tsv")]
    assert ["empty side", f"{messy_text}/train:102", "", "leer"] in rows
    assert ["invalid UTF-8", f"{messy_text}/train:106", r"caf\xe9", "Kaffee"] in rows
    assert [row[1].split(":")[-1] for row in rows if row[0] == "length ratio"] == ["108"]


def test_a_rule_that_is_off_drops_nothing(messy_text: Path, tmp_path: Path, quiet: Console) -> None:
    rules = CleanConfig(
        empty=False, invalid_utf8=False, control=False, copies=False, duplicates=False, max_pieces=2000, max_ratio=0
    )
    prepared = prepare(config_for(tmp_path, messy_text, clean=rules), quiet)
    assert prepared.manifest["dropped"] == {}
    assert ("caf\ufffd", "Kaffee") in training_text(prepared)


def test_many_drops_for_one_reason_are_a_warning_with_examples_and_advice(own_text: Path, tmp_path: Path) -> None:
    for language in ("en", "de"):
        append(
            own_text / f"train.{language}", "".join(f"Stra\xdfe {n} {language}\n" for n in range(20)).encode("latin-1")
        )
    append(own_text / "train.en", "\n")
    append(own_text / "train.de", "leer\n")
    console = Listener()
    prepared = prepare(config_for(tmp_path, own_text), console)
    assert prepared.manifest["dropped"] == {"empty side": 1, "invalid UTF-8": 20}
    (warning,) = (text for text in console.heard if "training pairs dropped" in text)
    first, *examples = warning.split("\n")
    assert first.startswith(
        "20 of 121 training pairs dropped (invalid UTF-8): convert the text to UTF-8, from Latin-1 with iconv"
    )
    assert examples == [rf"  {own_text}/train:{101 + n}  Stra\xdfe {n} en | Stra\xdfe {n} de" for n in range(3)]


def test_repairs_of_training_text_are_counted_and_said(messy_text: Path, tmp_path: Path) -> None:
    console = Listener()
    prepared = prepare(config_for(tmp_path, messy_text, clean=CleanConfig(invalid_utf8=False)), console)
    assert ("caf\ufffd", "Kaffee") in training_text(prepared)
    assert prepared.manifest["sources"]["train"][0]["repaired"] == 1
    assert f"{messy_text}/train: 1 line not in UTF-8; U+FFFD replaces the bytes that could not be read" in console.heard


def test_a_giant_line_is_dropped_from_training_and_refused_elsewhere(
    own_text: Path, tmp_path: Path, quiet: Console
) -> None:
    """Before it is encoded, which takes 50 bytes of memory for each of its."""
    append(own_text / "train.en", "A house. " * 120_000 + "\n")
    append(own_text / "train.de", "Ein Haus.\n")
    config = config_for(tmp_path, own_text, clean=CleanConfig(max_pieces=1_000_000, max_ratio=0))
    assert prepare(config, quiet).manifest["dropped"] == {"too long": 1}
    assert (config.data.dir / "dropped.tsv").stat().st_size < 20_000
    append(own_text / "valid.en", "A house. " * 120_000 + "\n")
    append(own_text / "valid.de", "Ein Haus.\n")
    with pytest.raises(DataError, match=r"valid:11: more than 1,000,000 characters in one line"):
        prepare(config, quiet)


@pytest.mark.parametrize("weight", [1e9, 1e300])
def test_a_weight_that_nobody_can_pay_is_refused_with_its_cost(
    config: Config, toy_text: Path, quiet: Console, weight: float
) -> None:
    weighted = changed(config, train=(Input(prefix=str(toy_text / "train"), weight=weight),))
    with pytest.raises(DataError, match=r"weight 1e\+\d+ makes 100,\S+ training pairs, .* GB on disk"):
        prepare(weighted, quiet)
    assert not config.data.dir.exists()


def test_a_large_weight_is_written_in_slices(
    config: Config, own_text: Path, quiet: Console, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mt.data.shards.BLOCK", 7)
    weighted = changed(config, train=(Input(prefix=str(own_text / "valid"), weight=20),), vocab_size=300)
    pairs = list(zip(lines(own_text / "valid.en"), lines(own_text / "valid.de"), strict=True))
    assert training_text(prepare(weighted, quiet)) == [pair for pair in pairs for _ in range(20)]


def test_no_pair_left_is_an_error_that_says_why_and_leaves_nothing(
    own_text: Path, tmp_path: Path, quiet: Console
) -> None:
    config = config_for(tmp_path, own_text, train=str(own_text / "valid"), clean=CleanConfig(max_pieces=1))
    with pytest.raises(DataError, match="no training pair is left: 10 too long"):
        prepare(config, quiet)
    for name in ("train.en", "train.de"):
        (own_text / name).write_bytes(b"")
    with pytest.raises(DataError, match="no training pair is left: the sources are empty"):
        prepare(config_for(tmp_path, own_text), quiet)
    assert sorted(path.name for path in tmp_path.iterdir()) == [".data.lock", "text"]


def test_empty_validation_text_is_an_error(own_text: Path, tmp_path: Path, quiet: Console) -> None:
    for name in ("valid.en", "valid.de"):
        (own_text / name).write_bytes(b"")
    with pytest.raises(DataError, match=r"valid: no pairs; data\.valid names it"):
        prepare(config_for(tmp_path, own_text), quiet)


def test_blank_validation_text_is_said(own_text: Path, tmp_path: Path) -> None:
    append(own_text / "valid.en", "\n \nx\n")
    append(own_text / "valid.de", "a\nb\n\t\n")
    console = Listener()
    prepare(config_for(tmp_path, own_text), console)
    assert f"{own_text}/valid:11: a side is blank, as in 3 of 13 pairs; all pairs count" in console.heard
    for name in ("valid.en", "valid.de"):
        (own_text / name).write_bytes(b"\n" * 100)
    with pytest.raises(DataError, match="valid: in all of its 100 pairs a side is blank"):
        prepare(config_for(tmp_path, own_text), console)


def test_a_sentence_longer_than_a_batch_is_named(own_text: Path, tmp_path: Path, quiet: Console) -> None:
    append(own_text / "valid.en", "long " * 300 + "\n")
    append(own_text / "valid.de", "lang\n")
    config = config_for(tmp_path, own_text)
    small = config.model_copy(update={"batch": config.batch.model_copy(update={"tokens": 200})})
    with pytest.raises(DataError, match=r"validation pair 11 has [\d,]+ pieces on one side, but a batch holds 200"):
        prepare(small, quiet)


def test_a_sentence_longer_than_learned_positions_is_named_and_may_be_as_long_as_they_are(
    own_text: Path, tmp_path: Path, quiet: Console
) -> None:
    config = config_for(tmp_path, own_text)
    longest = int(prepare(config, quiet).train.lengths().max())

    def with_positions(count: int) -> Config:
        return config.model_copy(update={"model": ModelConfig(positions="learned", max_positions=count)})

    prepare(with_positions(longest), quiet)
    with pytest.raises(DataError, match=rf"{longest} pieces on one side, but learned positions end at {longest - 1}"):
        prepare(with_positions(longest - 1), quiet)


# --- Done already, or not any more -------------------------------------------------------------------------------


def test_what_is_prepared_is_not_prepared_again(config: Config) -> None:
    prepare(config, Console(quiet=True))
    before = {path: path.stat().st_mtime_ns for path in config.data.dir.rglob("*")}
    console = Listener()
    prepare(config, console)
    assert console.heard == [f"{config.data.dir}: already prepared"]
    assert {path: path.stat().st_mtime_ns for path in config.data.dir.rglob("*")} == before


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"vocab_size": 330}, "data.vocab_size: 320 -> 330"),
        ({"clean": CleanConfig(max_pieces=100)}, "data.clean.max_pieces: 256 -> 100"),
        ({"test": {"": ()}}, "data.test"),
    ],
)
def test_a_changed_setting_is_named_and_prepared_anew(
    config: Config, quiet: Console, change: dict[str, Any], said: str
) -> None:
    prepare(config, quiet)
    console = Listener()
    prepare(changed(config, **change), console)
    assert console.heard[0] == f"{config.data.dir}: preparing again, changed: {said}"


def test_data_of_another_version_are_prepared_anew(config: Config, quiet: Console) -> None:
    before = prepare(config, quiet).fingerprint
    manifest = config.data.dir / "manifest.json"
    manifest.write_text(manifest.read_text("utf-8").replace('"format": 2', '"format": 1'), "utf-8")
    (config.data.dir / "manifest.sha256").unlink()
    with pytest.raises(DataError, match="was prepared by another version of mt; run mt prepare"):
        open_prepared(config.data.dir)
    console = Listener()
    assert prepare(config, console).fingerprint == before
    assert console.heard[0] == f"{config.data.dir}: preparing again, another version of mt did it"


def test_a_changed_source_is_named_and_prepared_anew(own_text: Path, tmp_path: Path, quiet: Console) -> None:
    config = config_for(tmp_path, own_text)
    before = prepare(config, quiet).fingerprint
    for language in ("en", "de"):
        append(own_text / f"train.{language}", f"new {language}\n")
    console = Listener()
    assert prepare(config, console).fingerprint != before
    assert console.heard[0] == f"{config.data.dir}: preparing again, changed: data.train: the text of {own_text}/train"


def test_a_source_only_touched_is_no_change(own_text: Path, tmp_path: Path, quiet: Console) -> None:
    config = config_for(tmp_path, own_text)
    prepare(config, quiet)
    os.utime(own_text / "train.en")
    console = Listener()
    prepare(config, console)
    assert console.heard == [f"{config.data.dir}: already prepared"]


def test_prepared_data_do_without_their_sources(own_text: Path, tmp_path: Path, quiet: Console) -> None:
    config = config_for(tmp_path, own_text)
    prepare(config, quiet)
    shutil.rmtree(own_text)
    console = Listener()
    assert len(prepare(config, console).train) == 100
    assert "no such file" in console.heard[0]
    assert "as it was prepared" in console.heard[0]


def test_a_given_tokenizer_is_used_and_another_one_noticed(
    config: Config, own_text: Path, tmp_path: Path, quiet: Console
) -> None:
    first = prepare(config, quiet)
    given = tmp_path / "given.model"
    given.write_bytes(first.tokenizers.source.model_bytes)
    append(own_text / "train.en", "a cat runs .\n")
    append(own_text / "train.de", "eine Katze rennt .\n")
    other = config_for(tmp_path / "other", own_text, tokenizer=str(given))
    second = prepare(other, quiet)
    assert second.tokenizers.fingerprint == first.tokenizers.fingerprint
    assert len(second.train) == len(first.train) + 1
    del second  # while it is open it cannot be prepared again
    smaller = prepare(config_for(tmp_path / "smaller", own_text, vocab_size=300), quiet)
    given.write_bytes(smaller.tokenizers.source.model_bytes)
    assert prepare(other, quiet).tokenizers.fingerprint == smaller.tokenizers.fingerprint
    given.unlink()
    assert prepare(other, quiet).tokenizers.fingerprint == smaller.tokenizers.fingerprint


def test_the_same_tokenizer_from_elsewhere_changes_nothing(config: Config, tmp_path: Path, quiet: Console) -> None:
    """So --init-from may name the tokenizer of the run it begins with, on the same data or new ones."""
    given = tmp_path / "given.model"
    given.write_bytes(prepare(config, quiet).tokenizers.source.model_bytes)
    console = Listener()
    prepare(changed(config, tokenizer=str(given), vocab_size=999), console)
    assert console.heard == [f"{config.data.dir}: already prepared"]


def test_what_would_change_is_told_without_doing_it(own_text: Path, tmp_path: Path, quiet: Console) -> None:
    config = config_for(tmp_path, own_text)
    assert (why_prepare(config), what_changed(config)) == ("preparing", [])
    assert not config.data.dir.exists()
    prepare(config, quiet)
    before = contents(tmp_path)
    assert (why_prepare(config), what_changed(config)) == ("", [])
    other = changed(config, vocab_size=300, test={"": ()}, seed=2)
    assert what_changed(other) == ["data.test", "data.vocab_size: 320 -> 300", "data.seed: 1 -> 2"]
    assert what_changed(config.model_copy(update={"seed": 2})) == []
    append(own_text / "train.en", "more\n")
    assert what_changed(config) == [f"data.train: the text of {own_text}/train"]
    (own_text / "train.en").write_bytes(before["text/train.en"])
    assert contents(tmp_path) == before


def test_a_given_tokenizer_that_is_not_there_is_said(config: Config, quiet: Console) -> None:
    with pytest.raises(DataError, match=r"none\.model: cannot be read"):
        prepare(changed(config, tokenizer="none.model"), quiet)
    with pytest.raises(DataError, match=r"data\.tokenizer .*test_prepare\.py: .* not a sentencepiece model"):
        prepare(changed(config, tokenizer=__file__), quiet)


def test_a_failed_attempt_leaves_the_old_data_in_place(own_text: Path, tmp_path: Path, quiet: Console) -> None:
    config = config_for(tmp_path, own_text)
    prepare(config, quiet)
    before = contents(config.data.dir)
    append(own_text / "train.en", "one line too many\n")
    with pytest.raises(DataError, match="first line without a partner"):
        prepare(config, quiet)
    assert contents(config.data.dir) == before


def test_a_source_that_changes_while_it_is_read_is_refused(own_text: Path, tmp_path: Path) -> None:
    class Meddler(Listener):
        @contextmanager
        def track(self, description: str, total: int | None = None, unit: str = "lines") -> Iterator[Advance]:
            append(own_text / "train.en", "late\n")
            append(own_text / "train.de", "spät\n")
            yield lambda count, share=0.0: None

    with pytest.raises(DataError, match=r"train\.en changed while it was read"):
        prepare(config_for(tmp_path, own_text), Meddler())
    assert not (tmp_path / "data").exists()


# --- The folder --------------------------------------------------------------------------------------------------


def test_the_manifest_accounts_for_sources_settings_and_files(config: Config, toy_text: Path, quiet: Console) -> None:
    manifest = prepare(config, quiet).manifest
    assert manifest == json.loads((config.data.dir / "manifest.json").read_text("utf-8"))
    source = manifest["sources"]["train"][0]
    assert (source["read"], source["kept"]) == (100, 100)
    assert [file["path"] for file in source["files"]] == [str(toy_text / "train.en"), str(toy_text / "train.de")]
    assert all(len(file["sha256"]) == 64 for file in source["files"])
    assert manifest["settings"]["vocab_size"] == 320
    assert set(manifest["versions"]) == {"mt", "sentencepiece"}
    assert set(manifest["files"]) == set(contents(config.data.dir)) - {"manifest.json", "manifest.sha256"}


def test_the_fingerprint_stands_for_what_training_sees(config: Config, tmp_path: Path, quiet: Console) -> None:
    first = prepare(config, quiet).fingerprint
    assert prepare(changed(config, dir=tmp_path / "elsewhere"), quiet).fingerprint == first
    assert prepare(changed(config, dir=tmp_path / "third", vocab_size=330), quiet).fingerprint != first


def test_a_folder_that_holds_other_things_is_left_alone(config: Config, quiet: Console) -> None:
    config.data.dir.mkdir()
    thesis = config.data.dir / "thesis.tex"
    thesis.write_text("precious")
    for place in (config.data.dir, thesis):
        with pytest.raises(DataError, match="is no folder of prepared data"):
            prepare(changed(config, dir=place), quiet)
    assert thesis.read_text() == "precious"


def test_an_empty_folder_is_taken(config: Config, quiet: Console) -> None:
    config.data.dir.mkdir()
    assert len(prepare(config, quiet).train) == 100


def test_a_link_to_another_place_stays_a_link(config: Config, tmp_path: Path, quiet: Console) -> None:
    (tmp_path / "far").mkdir()
    config.data.dir.symlink_to(tmp_path / "far")
    prepare(config, quiet)
    assert config.data.dir.is_symlink()
    assert (tmp_path / "far" / "manifest.json").exists()


def test_nothing_prepared_is_said(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="holds no prepared data; run mt prepare"):
        open_prepared(tmp_path)


@pytest.mark.parametrize("name", ["train/source.ids.npy", "tokenizer.model", "valid/target.txt"])
def test_a_file_cut_short_is_named(config: Config, quiet: Console, name: str) -> None:
    prepare(config, quiet)
    path = config.data.dir / name
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(DataError, match=f"{name} is missing or cut short"):
        open_prepared(config.data.dir)


def test_a_flipped_bit_anywhere_is_found_and_named(config: Config, quiet: Console) -> None:
    prepare(config, quiet).verify()
    random = Random(1)
    files = [path for path in sorted(config.data.dir.rglob("*")) if path.is_file()]
    assert len(files) == 17
    for path in files:
        whole = path.read_bytes()
        for _ in range(10):
            position = random.randrange(len(whole))
            path.write_bytes(flipped(whole, position, 1 << random.randrange(8)))
            with pytest.raises(DataError) as error:
                open_prepared(config.data.dir).verify()
            assert str(path).replace("manifest.sha256", "manifest.json") in str(error.value)
        path.write_bytes(whole)
    open_prepared(config.data.dir).verify()


def flipped(data: bytes, position: int, mask: int) -> bytes:
    return data[:position] + bytes([data[position] ^ mask]) + data[position + 1 :]


def test_damaged_offsets_are_named_and_not_taken_for_long_sentences(config: Config, quiet: Console) -> None:
    prepare(config, quiet)
    path = config.data.dir / "train" / "target.offsets.npy"
    data = path.read_bytes()
    path.write_bytes(flipped(data, len(data) // 2 & ~7 | 3, 1))  # 2**24 more in one of them
    with pytest.raises(DataError, match=r"target\.offsets\.npy is damaged"):
        prepare(config, quiet)


def test_preparing_what_is_prepared_says_that_it_is_damaged(config: Config, quiet: Console) -> None:
    prepare(config, quiet)
    path = config.data.dir / "train" / "source.ids.npy"
    path.write_bytes(flipped(path.read_bytes(), 200, 1))
    settings = config.data.dir.with_suffix(".yaml")
    settings.write_text(dump_config(config), "utf-8")
    done = run([sys.executable, "-m", "mt", "prepare", str(settings)])
    assert done.returncode == 2
    assert f"{path} is damaged" in done.stderr


def test_damaged_text_is_found_when_it_is_read(config: Config, quiet: Console) -> None:
    prepare(config, quiet)
    path = config.data.dir / "test" / "target.txt"
    path.write_bytes(flipped(path.read_bytes(), 3, 1))
    prepared = open_prepared(config.data.dir)
    assert prepared.text("valid")
    with pytest.raises(DataError, match=r"test/target\.txt is damaged"):
        prepared.text("test")


def test_data_prepared_without_a_hash_of_the_manifest_stay_readable(config: Config, quiet: Console) -> None:
    before = prepare(config, quiet).fingerprint
    (config.data.dir / "manifest.sha256").unlink()
    prepared = prepare(config, quiet)
    prepared.verify()
    assert prepared.fingerprint == before
    manifest = config.data.dir / "manifest.json"
    manifest.write_text(manifest.read_text("utf-8").replace('"dropped"', '"drupped"'), "utf-8")
    with pytest.raises(DataError, match=r"manifest\.json is damaged"):
        open_prepared(config.data.dir)


def test_a_broken_manifest_is_named(config: Config, quiet: Console) -> None:
    prepare(config, quiet)
    (config.data.dir / "manifest.json").write_text("{")
    with pytest.raises(DataError, match=r"manifest\.json cannot be read"):
        open_prepared(config.data.dir)


def test_a_place_that_cannot_be_written_is_one_sentence(config: Config, tmp_path: Path, quiet: Console) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(WriteError, match="cannot be written: Not a directory"):
        prepare(changed(config, dir=tmp_path / "file" / "deep" / "data"), quiet)


@pytest.mark.skipif(os.geteuid() == 0, reason="the superuser may write anywhere")
def test_a_read_only_place_is_one_sentence(config: Config, tmp_path: Path, quiet: Console) -> None:
    (tmp_path / "locked").mkdir(mode=0o555)
    with pytest.raises(WriteError, match="cannot be written: Permission denied"):
        prepare(changed(config, dir=tmp_path / "locked" / "data"), quiet)


# --- Other processes: killed, out of room, at the same time --------------------------------------------------------

RUN = """
import os, signal, sys
from pathlib import Path
from mt.config_file import load_config
from mt.console import Console
from mt.data.prepare import prepare
from mt.errors import MtError

config, victim, calls = sys.argv[1], sys.argv[2], int(sys.argv[3])

def deadly(function):
    def counted(*args, **named):
        global calls
        calls -= 1
        if calls == 0:
            os.kill(os.getpid(), signal.SIGKILL)
        return function(*args, **named)
    return counted

if victim == "track":
    Console.track = deadly(Console.track)
elif victim == "rename":
    Path.rename = deadly(Path.rename)
elif victim == "fsync":
    os.fsync = deadly(os.fsync)
try:
    prepare(load_config(config), Console())
except MtError as error:
    sys.exit(str(error))
assert not {"datasets", "torch"} & set(sys.modules)
"""


def command(config: Config, victim: str = "", calls: int = 0) -> list[str]:
    path = config.data.dir.with_suffix(".yaml")
    path.write_text(dump_config(config), "utf-8")
    return [sys.executable, "-c", RUN, str(path), victim, str(calls)]


def run(arguments: list[str], **options: Any) -> subprocess.CompletedProcess[str]:
    return subprocess.run(arguments, capture_output=True, text=True, check=False, **options)


@pytest.mark.parametrize(
    ("victim", "calls"),
    [("track", 1), ("track", 2), ("track", 3), ("fsync", 1), ("fsync", 12), ("rename", 1), ("rename", 2)],
)
def test_killed_at_any_stage_and_run_again_gives_the_same_bytes(
    config: Config, tmp_path: Path, quiet: Console, victim: str, calls: int
) -> None:
    prepare(changed(config, dir=tmp_path / "undisturbed"), quiet)
    old = prepare(changed(config, vocab_size=300), quiet).fingerprint  # what the killed run was to replace
    killed = run(command(config, victim, calls))
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    if config.data.dir.exists():
        assert open_prepared(config.data.dir).fingerprint == old
    again = run(command(config))
    assert again.returncode == 0, again.stderr
    assert contents(config.data.dir) == contents(tmp_path / "undisturbed")
    assert {path.name for path in tmp_path.iterdir()} == {
        "data",
        "data.yaml",
        "undisturbed",
        ".data.lock",
        ".undisturbed.lock",
    }


def test_data_in_use_are_not_replaced(config: Config, tmp_path: Path, quiet: Console) -> None:
    reader = prepare(config, quiet)
    before = contents(config.data.dir)
    other = run(command(changed(config, vocab_size=300)))
    assert other.returncode == 1
    assert f"{config.data.dir} is in use by" in other.stderr
    if (locks := Path("/proc/locks")).exists() and f" {os.getpid()} " in locks.read_text():
        assert f"in use by process {os.getpid()} (" in other.stderr
    assert run(command(config)).returncode == 0, "who wants the same data reads them too"
    assert contents(config.data.dir) == before
    assert sorted(path.name for path in tmp_path.iterdir()) == [".data.lock", "data", "data.yaml"]
    del reader
    assert run(command(changed(config, vocab_size=300))).returncode == 0


def test_data_being_replaced_cannot_be_opened(config: Config, quiet: Console) -> None:
    prepare(config, quiet)

    class Reader(Listener):
        @contextmanager
        def track(self, description: str, total: int | None = None, unit: str = "lines") -> Iterator[Advance]:
            with pytest.raises(DataError, match=r"is being replaced by .*; run again when that is done"):
                prepare(config, quiet)
            self.heard.append(description)
            yield lambda count, share=0.0: None

    console = Reader()
    assert len(prepare(changed(config, vocab_size=300), console).tokenizers.target) == 300
    assert any("encoding" in text for text in console.heard)


def test_two_runs_at_once_share_the_work(config: Config, tmp_path: Path) -> None:
    processes = [subprocess.Popen(command(config), stderr=subprocess.PIPE, text=True) for _ in range(3)]
    errors = [process.communicate()[1] for process in processes]
    assert [process.returncode for process in processes] == [0, 0, 0], errors
    assert sum(": preparing" in error for error in errors) == 1
    assert len(open_prepared(config.data.dir).train) == 100


def test_a_full_disk_is_one_sentence_and_leaves_nothing(config: Config, tmp_path: Path) -> None:
    def small_files_only() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (4_000, 4_000))

    failed = run(command(config), preexec_fn=small_files_only)
    assert failed.returncode == 1
    assert failed.stderr.splitlines()[-1] == f"{config.data.dir}: cannot be written: File too large"
    assert sorted(path.name for path in tmp_path.iterdir()) == [".data.lock", "data.yaml"]


def test_interrupting_leaves_nothing(config: Config, tmp_path: Path) -> None:
    class Impatient(Listener):
        @contextmanager
        def track(self, description: str, total: int | None = None, unit: str = "lines") -> Iterator[Advance]:
            os.kill(os.getpid(), signal.SIGINT)  # as Ctrl-C does
            with super().track(description, total, unit) as advance:
                yield advance

    with pytest.raises(KeyboardInterrupt):
        prepare(config, Impatient())
    assert [path.name for path in tmp_path.iterdir()] == [".data.lock"]


# --- Real text ---------------------------------------------------------------------------------------------------


@pytest.mark.real_text
def test_real_text_comes_out_as_it_went_in(tmp_path: Path, quiet: Console, real_text: Path) -> None:
    text = real_text / "chat"
    names = {"train": str(text / "train"), "valid": str(text / "valid")}
    config = Config(data=DataConfig.model_validate({"dir": tmp_path / "data", "vocab_size": 4000, **names}))
    prepared = prepare(config, quiet)
    read = prepared.manifest["sources"]["train"][0]["read"]
    assert read == 13_845
    assert len(prepared.train) + sum(prepared.manifest["dropped"].values()) == read
    with lzma.open(text / "train.en.xz", "rt", encoding="utf-8", newline="\n") as file:
        english = {line.rstrip("\r\n") for line in file}
    assert {source for source, _ in training_text(prepared)} <= english
