"""Reading pairs: every layout gives the same pairs, lines never slip, and what is wrong is said with its place."""

import bz2
import json
import os
import random
import socket
import subprocess
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet
import pytest
from helpers import COMPRESSORS
from hypothesis import given
from hypothesis import strategies as st

from mt.console import counted
from mt.data.lines import refuse_giant
from mt.data.pairs import BLOCK
from mt.data.source_files import source_files
from mt.data.sources import read_pairs
from mt.data_config import Input, name_of
from mt.errors import DataError

ENGLISH = [
    "A house.",
    "“Quotes” and 'more'",
    "sharp s",
    "sep\u2028arator\u0085 and\rreturn",
    "e\u0301 👩‍👩‍👧",
    "",
    "long " * 10_000,
]
GERMAN = ["Ein Haus.", '„Anführung“ "und" mehr', "scharfes ß", "Trenn\u2028zeichen", "é", "leer", "lang " * 10_000]
PAIRS = list(zip(ENGLISH, GERMAN, strict=True))

any_line = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\n"), max_size=20)


def pairs_of(source: Input, src: str = "en", tgt: str = "de") -> list[tuple[str, str]]:
    blocks = list(read_pairs(source, src, tgt, seed=1))
    assert all(not block.problems for block in blocks)
    return [pair for block in blocks for pair in zip(block.source, block.target, strict=True)]


def write_lines(path: Path, lines: list[str], end: str = "\n") -> None:
    path.write_bytes("".join(f"{line}{end}" for line in lines).encode())


def write_sides(folder: Path, name: str = "train", pairs: list[tuple[str, str]] = PAIRS) -> str:
    for side, language in enumerate(("en", "de")):
        write_lines(folder / f"{name}.{language}", [pair[side] for pair in pairs])
    return str(folder / name)


def write_parquet(path: Path, table: dict[str, Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    pyarrow.parquet.write_table(pyarrow.table(table), path)


# --- Text files --------------------------------------------------------------------------------------------------


def test_text_files_are_read_by_line_feeds_alone(tmp_path: Path) -> None:
    assert pairs_of(Input(prefix=write_sides(tmp_path))) == PAIRS


@given(st.lists(st.tuples(any_line, any_line), max_size=10), st.booleans())
def test_any_lines_keep_their_partner(
    tmp_path_factory: pytest.TempPathFactory, pairs: list[tuple[str, str]], final_newline: bool
) -> None:
    folder = tmp_path_factory.mktemp("any")
    prefix = write_sides(folder, pairs=pairs)
    if pairs and not final_newline and pairs[-1][0]:
        path = folder / "train.en"
        path.write_bytes(path.read_bytes()[:-1])
    read = pairs_of(Input(prefix=prefix))
    clean = [tuple(text.removesuffix("\r") for text in pair) for pair in pairs]
    if clean and clean[0][0].startswith("\ufeff"):
        clean[0] = (clean[0][0][1:], clean[0][1])
    if clean and clean[0][1].startswith("\ufeff"):
        clean[0] = (clean[0][0], clean[0][1][1:])
    assert read == clean


def test_src_and_tgt_name_two_files(tmp_path: Path) -> None:
    write_sides(tmp_path)
    files = Input(src=str(tmp_path / "train.en"), tgt=str(tmp_path / "train.de"))
    assert pairs_of(files) == PAIRS


def test_the_other_direction_reads_the_same_files(tmp_path: Path) -> None:
    prefix = write_sides(tmp_path)
    assert pairs_of(Input(prefix=prefix), "de", "en") == [(german, english) for english, german in PAIRS]


@pytest.mark.parametrize("suffix", COMPRESSORS)
def test_compressed_files_read_like_plain_ones(tmp_path: Path, suffix: str) -> None:
    prefix = write_sides(tmp_path)
    for language in ("en", "de"):
        path = tmp_path / f"train.{language}"
        (tmp_path / f"train.{language}{suffix}").write_bytes(COMPRESSORS[suffix](path.read_bytes()))
        path.unlink()
    assert pairs_of(Input(prefix=prefix)) == PAIRS


@pytest.mark.parametrize("suffix", COMPRESSORS)
def test_a_cut_or_false_archive_is_refused_by_name(tmp_path: Path, suffix: str) -> None:
    write_sides(tmp_path)
    whole = COMPRESSORS[suffix]((tmp_path / "train.en").read_bytes())
    for bad in (whole[: len(whole) // 2], b"no archive at all"):
        (tmp_path / f"bad.en{suffix}").write_bytes(bad)
        with pytest.raises(DataError, match=rf"bad\.en\{suffix}: cannot be read"):
            pairs_of(Input(src=str(tmp_path / f"bad.en{suffix}"), tgt=str(tmp_path / "train.de")))


def test_windows_line_ends_and_byte_order_marks_are_no_text(tmp_path: Path) -> None:
    (tmp_path / "train.en").write_bytes(b"\xef\xbb\xbfOne.\r\nTwo.\r\n")
    (tmp_path / "train.de").write_bytes(b"Eins.\nZwei.")
    assert pairs_of(Input(prefix=str(tmp_path / "train"))) == [("One.", "Eins."), ("Two.", "Zwei.")]


def test_broken_bytes_stay_apart_from_text(tmp_path: Path) -> None:
    (tmp_path / "train.en").write_bytes(b"caf\xe9\n")
    (tmp_path / "train.de").write_bytes("Café\n".encode())
    assert pairs_of(Input(prefix=str(tmp_path / "train"))) == [("caf\udce9", "Café")]


def test_utf_16_is_refused(tmp_path: Path) -> None:
    for encoding in ("utf-16-le", "utf-16-be"):
        (tmp_path / "a.tsv").write_bytes("\ufeffa house\tein Haus\n".encode(encoding))
        with pytest.raises(DataError, match=r"a\.tsv: UTF-16, not UTF-8 text"):
            pairs_of(Input(pairs=str(tmp_path / "a.tsv")))


def test_empty_files_hold_no_pairs(tmp_path: Path) -> None:
    assert pairs_of(Input(prefix=write_sides(tmp_path, pairs=[]))) == []


@pytest.mark.parametrize(
    ("source_count", "target_count"), [(5, 3), (3, 5), (1, 0), (BLOCK + 1, BLOCK), (3, 2 * BLOCK + 7)]
)
def test_unequal_files_are_refused_with_both_counts_and_the_first_lonely_line(
    tmp_path: Path, source_count: int, target_count: int
) -> None:
    write_lines(tmp_path / "a.en", ["x"] * source_count)
    write_lines(tmp_path / "a.de", ["y"] * target_count)
    longer = "en" if source_count > target_count else "de"
    with pytest.raises(DataError) as error:
        pairs_of(Input(prefix=str(tmp_path / "a")))
    message = str(error.value)
    assert f"a.en has {counted(source_count, 'line')} but {tmp_path}/a.de has {target_count:,}" in message
    assert f"a.{longer}:{min(source_count, target_count) + 1} is the first line without a partner" in message


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"nowhere\.en: no such file"):
        pairs_of(Input(prefix=str(tmp_path / "nowhere")))
    with pytest.raises(DataError, match=r"train\.en\.en: no such file, .*train\.en is a single file: name the"):
        pairs_of(Input(prefix=f"{write_sides(tmp_path)}.en"))
    with pytest.raises(DataError, match="is a folder"):
        pairs_of(Input(src=str(tmp_path), tgt=str(tmp_path)))


def test_pairs_know_the_number_of_their_line(tmp_path: Path) -> None:
    prefix = write_sides(tmp_path, pairs=[(str(number), "x") for number in range(2 * BLOCK + 5)])
    blocks = list(read_pairs(Input(prefix=prefix), "en", "de", seed=1))
    assert all([int(text) + 1 for text in block.source] == list(block.numbers) for block in blocks)
    assert sum(len(block.source) for block in blocks) == 2 * BLOCK + 5


# --- Tables ------------------------------------------------------------------------------------------------------


def test_tsv_is_source_then_target(tmp_path: Path) -> None:
    write_lines(tmp_path / "a.tsv", ["\t".join(pair) for pair in PAIRS])
    assert pairs_of(Input(pairs=str(tmp_path / "a.tsv"))) == PAIRS


def test_tsv_columns_are_named_by_a_header_or_by_the_config(tmp_path: Path) -> None:
    rows = [f"{number}\t{german}\t{english}" for number, (english, german) in enumerate(PAIRS)]
    write_lines(tmp_path / "a.tsv", ["id\tde\ten", *rows])
    write_lines(tmp_path / "b.tsv", rows)
    named = Input(pairs=str(tmp_path / "b.tsv"), columns=("id", "de", "en"))
    for source in (Input(pairs=str(tmp_path / "a.tsv")), named):
        assert pairs_of(source) == PAIRS
        assert pairs_of(source, "de", "en") == [(german, english) for english, german in PAIRS]


def test_tsv_quotes_are_text_unless_the_config_says_quoted(tmp_path: Path) -> None:
    (tmp_path / "a.tsv").write_text('"Yes," he said.\t"Ja"\n"a ""b"""\t"c\td"\n', "utf-8")
    (literal,) = read_pairs(Input(pairs=str(tmp_path / "a.tsv")), "en", "de", seed=1)
    assert (literal.source[0], literal.target[0]) == ('"Yes," he said.', '"Ja"')
    assert literal.problems == {1: "not 2 columns"}
    (tmp_path / "b.tsv").write_text('"a ""b"""\t"c\td"\n"two\nlines"\t\'x\'\n', "utf-8")
    (quoted,) = read_pairs(Input(pairs=str(tmp_path / "b.tsv"), quoted=True), "en", "de", seed=1)
    assert quoted.source == ['a "b"', "two lines"]
    assert quoted.target == ["c\td", "'x'"]
    assert (quoted.problems, quoted.line_feeds) == ({}, 1)


def test_tsv_without_the_languages_is_refused(tmp_path: Path) -> None:
    write_lines(tmp_path / "a.tsv", ["one column"])
    with pytest.raises(DataError, match=r"a\.tsv:1: 1 column"):
        pairs_of(Input(pairs=str(tmp_path / "a.tsv")))
    write_lines(tmp_path / "b.tsv", ["1\ta house\tein Haus"])  # the first two columns are no pair
    with pytest.raises(DataError, match=r"b\.tsv:1: 3 column.* where en, de are expected"):
        pairs_of(Input(pairs=str(tmp_path / "b.tsv")))
    with pytest.raises(DataError, match="columns en, fr lack en or de"):
        pairs_of(Input(pairs=str(tmp_path / "a.tsv"), columns=("en", "fr")))


@pytest.mark.parametrize("suffix", ["", *COMPRESSORS])
def test_jsonl_has_a_key_for_each_language(tmp_path: Path, suffix: str) -> None:
    flat = [json.dumps({"de": german, "en": english}) for english, german in PAIRS]
    nested = [
        json.dumps({"translation": {"de": german, "en": english}}, ensure_ascii=False) for english, german in PAIRS
    ]
    data = "".join(f"{line}\n" for line in flat + nested).encode()
    path = tmp_path / f"a.jsonl{suffix}"
    path.write_bytes(COMPRESSORS[suffix](data) if suffix else data)
    assert pairs_of(Input(pairs=str(path))) == PAIRS + PAIRS


def test_jsonl_rows_that_are_no_pairs_are_told(tmp_path: Path) -> None:
    lines = [
        '{"en": "a", "de": "b"}',
        "{broken",
        '{"en": "a"}',
        '{"en": 1, "de": "b"}',
        "[]",
        '{"en": "x\\ny", "de": "z"}',
    ]
    write_lines(tmp_path / "a.jsonl", lines)
    (block,) = read_pairs(Input(pairs=str(tmp_path / "a.jsonl")), "en", "de", seed=1)
    assert block.problems == {1: "not JSON", **dict.fromkeys((2, 3, 4), "no text under en and de")}
    assert block.source[1] == "{broken"
    assert (block.source[5], block.line_feeds) == ("x y", 1)


@pytest.mark.parametrize("suffix", ["", ".gz"])
def test_parquet_columns_or_translations(tmp_path: Path, suffix: str) -> None:
    columns = {"de": GERMAN, "en": ENGLISH, "id": list(range(len(PAIRS)))}
    structs = {"translation": [{"de": german, "en": english} for english, german in PAIRS]}
    for name, table in (("columns", columns), ("structs", structs)):
        plain, path = tmp_path / f"{name}.parquet", tmp_path / f"{name}.parquet{suffix}"
        write_parquet(plain, table)
        if suffix:
            path.write_bytes(COMPRESSORS[suffix](plain.read_bytes()))
        assert pairs_of(Input(pairs=str(path))) == PAIRS


def test_parquet_without_the_languages_or_damaged_is_refused(tmp_path: Path) -> None:
    write_parquet(tmp_path / "a.parquet", {"fr": ["x"], "en": ["y"]})
    with pytest.raises(DataError, match=r"a\.parquet: no text column de"):
        pairs_of(Input(pairs=str(tmp_path / "a.parquet")))
    (tmp_path / "b.parquet").write_bytes(b"PAR1 and nothing else")
    with pytest.raises(DataError, match=r"b\.parquet: cannot be read"):
        pairs_of(Input(pairs=str(tmp_path / "b.parquet")))


def test_a_null_is_an_empty_side(tmp_path: Path) -> None:
    write_parquet(tmp_path / "a.parquet", {"de": ["x", None], "en": ["y", "z"]})
    assert pairs_of(Input(pairs=str(tmp_path / "a.parquet"))) == [("y", "x"), ("z", "")]


# --- The datasets library ----------------------------------------------------------------------------------------


@pytest.fixture
def wmt_folder(tmp_path: Path) -> Path:
    """The layout of wmt/wmt14: Parquet shards with a Translation feature, named by a header in README.md."""
    folder = tmp_path / "wmt14"
    features = {"translation": {"languages": ["de", "en"], "_type": "Translation"}}
    rows = [{"de": german, "en": english} for english, german in PAIRS]
    for name, part in {
        "train-00000-of-00002": rows[:4],
        "train-00001-of-00002": rows[4:],
        "test-00000-of-00001": rows[:2],
    }.items():
        table = pyarrow.table({"translation": part})
        metadata = {"huggingface": json.dumps({"info": {"features": features}})}
        (folder / "de-en").mkdir(parents=True, exist_ok=True)
        pyarrow.parquet.write_table(table.replace_schema_metadata(metadata), folder / "de-en" / f"{name}.parquet")
    (folder / "README.md").write_text(
        "---\nconfigs:\n- config_name: de-en\n  data_files:\n"
        "  - split: train\n    path: de-en/train-*\n  - split: test\n    path: de-en/test-*\n---\n"
    )
    return folder


def test_a_local_folder_with_wmt14s_schema(wmt_folder: Path) -> None:
    source = Input(dataset=str(wmt_folder), config="de-en", split="train")
    assert pairs_of(source) == PAIRS
    assert pairs_of(source, "de", "en") == [(german, english) for english, german in PAIRS]
    assert pairs_of(Input(dataset=str(wmt_folder), config="de-en", split="test")) == PAIRS[:2]


def test_a_local_folder_with_a_column_for_each_language(tmp_path: Path) -> None:
    write_lines(tmp_path / "train.jsonl", [json.dumps({"en": english, "de": german}) for english, german in PAIRS])
    assert pairs_of(Input(dataset=str(tmp_path))) == PAIRS


def test_a_wrong_split_or_config_names_those_there_are(wmt_folder: Path) -> None:
    with pytest.raises(DataError, match=r"valid.*\['train', 'test'\]"):
        pairs_of(Input(dataset=str(wmt_folder), config="de-en", split="valid"))
    with pytest.raises(DataError, match="de-en"):
        pairs_of(Input(dataset=str(wmt_folder), config="fr-en"))


def test_a_folder_that_is_not_there_is_not_looked_for_on_the_hub() -> None:
    with pytest.raises(DataError, match="no such folder"):
        source_files(Input(dataset="./no/such/folder"), "en", "de")


# --- What users get wrong, each with its sentence ------------------------------------------------------------------


@pytest.mark.parametrize("header", ["en\tde", "EN\tDE", " en \tde"])
def test_a_header_line_is_no_pair_even_where_columns_are_given(tmp_path: Path, header: str) -> None:
    write_lines(tmp_path / "a.tsv", [header, "a house\tein Haus"])
    for columns in ((), ("en", "de")):
        (block,) = read_pairs(Input(pairs=str(tmp_path / "a.tsv"), columns=columns), "en", "de", seed=1)
        assert (block.source, block.target, list(block.numbers)) == (["a house"], ["ein Haus"], [2])


def quoted_table(tmp_path: Path, rows: list[str]) -> Input:
    write_lines(tmp_path / "a.tsv", rows)
    return Input(pairs=str(tmp_path / "a.tsv"), quoted=True)


def test_quoted_rows_are_numbered_by_the_line_they_begin_on(tmp_path: Path) -> None:
    rows = ["one\teins", '"two\nlines"\t"zwei\n\nZeilen"', "broken row", "three\tdrei"]
    (block,) = read_pairs(quoted_table(tmp_path, rows), "en", "de", seed=1)
    assert list(block.numbers) == [1, 2, 6, 7]
    assert block.problems == {2: "not 2 columns"}


@pytest.mark.parametrize(
    "after", [["b\tc"] * 3, ["b\tc"] * 300, ['"b"\t"c"'] * 300, ["b\tc"] * 150 + ['"b"\tc']], ids=len
)
def test_a_quote_that_nobody_closes_is_refused_with_its_line(tmp_path: Path, after: list[str]) -> None:
    with pytest.raises(DataError, match=r"a\.tsv:3: a quote in the row that begins here is not closed"):
        list(read_pairs(quoted_table(tmp_path, ["a\tb", '"x"\ty', '"lonely\td', *after]), "en", "de", seed=1))


def test_a_giant_line_is_cut_where_it_is_seen_to_be_too_long(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mt.data.lines.LONGEST_LINE", 1000)
    write_lines(tmp_path / "a.en", ["x" * 1000, "y" * 5000, "é" * 1001, "fine", "z" * 3000])
    write_lines(tmp_path / "a.de", list("abcde"))
    pairs = pairs_of(Input(prefix=str(tmp_path / "a")))
    assert [len(source) for source, _ in pairs] == [1000, 1001, 1001, 4, 1001]
    assert [target for _, target in pairs] == list("abcde")
    refuse_giant(pairs[0][0], "a:1")
    for line in (pairs[1][0], b"x" * 1001):
        with pytest.raises(DataError, match="a:2: more than 1,000 characters in one line"):
            refuse_giant(line, "a:2")


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"prefix": "nowhere://bucket/train"}, "nowhere:// addresses cannot be read; copy it here first"),
        ({"dataset": "s3://bucket/wmt14"}, "name files at an address as prefix, src \\+ tgt, or pairs"),
        ({"prefix": "https://huggingface.co/datasets/wmt/wmt14"}, r"write \{dataset: wmt/wmt14, split: ...\}"),
        ({"dataset": "hf://datasets/wmt/wmt14/de-en"}, r"write \{dataset: wmt/wmt14, split: ...\}"),
        ({"prefix": "wmt14"}, r"\{dataset: wmt/wmt14, config: LANGUAGES, split: train\}"),
        ({"prefix": "somebody/a-set"}, r"\{dataset: somebody/a-set, split: train\}"),
    ],
)
def test_what_is_no_file_here_has_a_sentence_of_its_own(given: dict[str, Any], said: str) -> None:
    with pytest.raises(DataError, match=said):
        source_files(Input(**given), "en", "de")


def test_a_folder_of_parquet_needs_no_readme(wmt_folder: Path, tmp_path: Path) -> None:
    (wmt_folder / "README.md").unlink()
    assert pairs_of(Input(dataset=str(wmt_folder), config="de-en", split="train")) == PAIRS
    assert pairs_of(Input(dataset=str(wmt_folder), config="de-en", split="test")) == PAIRS[:2]
    assert pairs_of(Input(dataset=str(wmt_folder / "de-en"), config="de-en", split="train")) == PAIRS
    with pytest.raises(DataError, match="valid"):
        pairs_of(Input(dataset=str(wmt_folder), config="de-en", split="valid"))


def test_a_hub_out_of_reach_is_tried_once_also_after_a_local_folder_was_read(wmt_folder: Path) -> None:
    """Its libraries alone would try for 23 s."""
    code = (
        "from mt.data_config import Input; from mt.data.sources import read_pairs\n"
        f"next(read_pairs(Input(dataset={str(wmt_folder)!r}, config='de-en'), 'en', 'de', 1))\n"
        "next(read_pairs(Input(dataset='nobody/nothing-there'), 'en', 'de', 1))"
    )
    with socket.create_server(("127.0.0.1", 0)) as hub:
        hub.settimeout(0.1)
        address = f"http://127.0.0.1:{hub.getsockname()[1]}"
        environment = os.environ | {"HF_ENDPOINT": address, "HF_HUB_OFFLINE": "0"}
        command = subprocess.Popen([sys.executable, "-c", code], stderr=subprocess.PIPE, text=True, env=environment)
        tries = 0
        while command.poll() is None:
            with suppress(TimeoutError):
                hub.accept()[0].close()
                tries += 1
    last = command.communicate()[1].strip().splitlines()[-1]
    assert "DataError: nobody/nothing-there train: the Hugging Face hub cannot be reached" in last
    assert "local folder" in last
    assert tries == 1


def test_the_demo_grammar_is_a_source_of_files() -> None:
    assert {Path(file).name for file in source_files(Input(demo=20), "en", "de")} >= {"sentences.py", "verbs.py"}


# --- The demo grammar, and what sources say of themselves ---------------------------------------------------------


def test_the_demo_grammar_speaks_both_ways() -> None:
    forth, back = pairs_of(Input(demo=20)), pairs_of(Input(demo=20), "de", "en")
    assert len(forth) == 20
    assert back == [(german, english) for english, german in forth]
    with pytest.raises(DataError, match="speaks English and German"):
        pairs_of(Input(demo=20), "en", "fr")


def test_sources_know_their_files_and_names(tmp_path: Path, wmt_folder: Path) -> None:
    prefix = write_sides(tmp_path)
    assert source_files(Input(prefix=prefix), "en", "de") == [f"{prefix}.en", f"{prefix}.de"]
    assert len(source_files(Input(dataset=str(wmt_folder), config="de-en"), "en", "de")) == 4
    assert name_of(Input(dataset="wmt/wmt14", config="de-en", split="test")) == "wmt/wmt14 de-en test"
    assert name_of(Input(prefix=prefix)) == prefix


def test_the_share_read_grows_evenly_to_the_whole(
    tmp_path: Path, wmt_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Progress shows it, so that a compressed source of unknown length has a time to its end."""
    monkeypatch.setattr("mt.data.pairs.BLOCK", 1000)
    rng = random.Random(1)
    pairs = [(f"number {rng.random()}", f"Nummer {rng.random()}") for _ in range(20_000)]
    table = "".join(f"{source}\t{target}\n" for source, target in pairs).encode()
    sources = [Input(demo=20_000), Input(prefix=write_sides(tmp_path, pairs=pairs))]
    small_blocks = {".bz2": lambda data: bz2.compress(data, 1)}
    for suffix, compress in (COMPRESSORS | small_blocks).items():
        (tmp_path / f"a.tsv{suffix}").write_bytes(compress(table))
        sources.append(Input(pairs=str(tmp_path / f"a.tsv{suffix}")))
    (tmp_path / "quoted.tsv").write_bytes(table)
    columns = {"en": [pair[0] for pair in pairs], "de": [pair[1] for pair in pairs]}
    write_parquet(tmp_path / "a.parquet", columns)
    sources += [Input(pairs=str(tmp_path / "quoted.tsv"), quoted=True), Input(pairs=str(tmp_path / "a.parquet"))]
    for source in sources:
        shares = [block.share for block in read_pairs(source, "en", "de", seed=1)]
        assert shares == pytest.approx([number / 20 for number in range(1, 21)], abs=0.3), source  # read in blocks
        assert shares == sorted(shares)
        assert shares[-1] > 0.95


def test_the_share_of_a_folder_is_known_where_its_header_says_how_many_rows(wmt_folder: Path) -> None:
    source = Input(dataset=str(wmt_folder), config="de-en", split="train")
    assert [block.share for block in read_pairs(source, "en", "de", 1)] == [0]
    header = (wmt_folder / "README.md").read_text()
    info = "dataset_info:\n- config_name: de-en\n  splits:\n  - name: train\n    num_examples: 7\n    num_bytes: 1\n"
    (wmt_folder / "README.md").write_text(header.replace("---\n", f"---\n{info}", 1))
    assert [block.share for block in read_pairs(source, "en", "de", 1)] == [1]
