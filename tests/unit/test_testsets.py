"""Test sets: found where they lie, never mistaken for one another, and missed quickly and in one sentence."""

import os
import socket
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

import pytest
from helpers import write_lines

import mt.evaluate.testsets as testsets
from mt.errors import DataError, UsageError
from mt.files import read_lines

DISCARD_PORT = 9  # of which a machine makes no use: no network


def write_pair(folder: Path, name: str, count: int) -> None:
    write_lines(folder / f"{name}.en", [f"sentence {number}" for number in range(count)])
    write_lines(folder / f"{name}.de", [f"Satz {number}" for number in range(count)])


def load_elsewhere(home: Path, name: str, proxy: int = DISCARD_PORT) -> str:
    """Load a set in a fresh process whose caches lie in `home` and which has no network; its title or the error."""
    program = (
        "import sys\n"
        "from mt.errors import MtError\n"
        "from mt.evaluate.testsets import load_testset\n"
        "try: print(load_testset(*sys.argv[1:]).title)\n"
        "except MtError as error: print(type(error).__name__, error)\n"
    )
    caches = {"SACREBLEU": str(home / "sacrebleu"), "HF_HOME": str(home / "hf"), "HOME": str(home)}
    network = {f"{scheme}_proxy": f"http://127.0.0.1:{proxy}" for scheme in ("http", "https")}
    command = [sys.executable, "-c", program, name, "en", "de"]
    run = subprocess.run(command, env={**os.environ, **network, **caches}, capture_output=True, text=True, check=True)
    assert run.stderr == ""
    return run.stdout


# --- A folder ----------------------------------------------------------------------------------------------------


@pytest.mark.real_text
@pytest.mark.parametrize(
    ("folder", "name", "count"),
    [("newstest", "newstest2013", 3000), ("newstest", "newstest2014", 3003), ("multi30k", "test_2016_flickr", 1000)],
)
def test_the_shared_sets_load_from_their_folder(real_text: Path, folder: str, name: str, count: int) -> None:
    testset = testsets.load_testset(name, "en", "de", real_text / folder)
    assert len(testset.sources) == len(testset.references[0]) == count
    assert f"{name} en-de, {count:,} sentences" in testset.title


def test_either_direction_of_a_folder_can_be_had(tmp_path: Path) -> None:
    write_pair(tmp_path, "mine", 2)
    testset = testsets.load_testset("mine", "de", "en", tmp_path)
    assert (testset.sources, testset.references) == (["Satz 0", "Satz 1"], (["sentence 0", "sentence 1"],))


def test_the_filtered_set_is_never_taken_for_the_full_one(tmp_path: Path) -> None:
    write_pair(tmp_path, "newstest2014", 2737)
    with pytest.raises(DataError, match=r"2,737 sentences.*newstest2014 has 3,003; 2,737 is newstest2014-filtered"):
        testsets.load_testset("newstest2014", "en", "de", tmp_path)
    write_pair(tmp_path, "newstest2014-filtered", 3003)
    with pytest.raises(DataError, match=r"3,003 is newstest2014"):
        testsets.load_testset("newstest2014-filtered", "en", "de", tmp_path)


def test_sacrebleus_names_mean_the_same_sets(tmp_path: Path) -> None:
    write_pair(tmp_path, "newstest2014", 3003)
    write_pair(tmp_path, "newstest2014-filtered", 2737)
    assert testsets.load_testset("wmt14/full", "en", "de", tmp_path).name == "newstest2014"
    assert testsets.load_testset("wmt14", "en", "de", tmp_path).name == "newstest2014-filtered"


def test_a_missing_file_or_folder_is_named(tmp_path: Path) -> None:
    write_lines(tmp_path / "mine.en", ["a"])
    with pytest.raises(DataError, match=r"mine.de not found there"):
        testsets.load_testset("mine", "en", "de", tmp_path)
    with pytest.raises(DataError, match="no such folder"):
        testsets.load_testset("mine", "en", "de", tmp_path / "absent")


def test_sides_of_unequal_length_are_refused(tmp_path: Path) -> None:
    write_lines(tmp_path / "mine.en", ["a", "b"])
    write_lines(tmp_path / "mine.de", ["a"])
    with pytest.raises(DataError, match="2 source but 1 reference"):
        testsets.load_testset("mine", "en", "de", tmp_path)


# --- Caches and the network --------------------------------------------------------------------------------------


def test_sacrebleus_cache_serves_without_a_network(tmp_path: Path) -> None:
    lines = [f"line {number}" for number in range(3003)]
    for field in ("src", "ref"):
        write_lines(tmp_path / "sacrebleu" / "wmt14" / "full" / f"wmt14_full.en-de.{field}", lines)
    assert (
        load_elsewhere(tmp_path, "newstest2014") == "newstest2014 en-de, 3,003 sentences, from sacreBLEU's wmt14/full\n"
    )
    assert "cannot be had" in load_elsewhere(tmp_path, "wmt14")


def test_a_damaged_cache_is_noticed(tmp_path: Path) -> None:
    for field, count in (("src", 3000), ("ref", 2999)):
        write_lines(tmp_path / "sacrebleu" / "wmt13" / f"wmt13.en-de.{field}", ["x"] * count)
    assert "3,000 source but 2,999 reference sentences" in load_elsewhere(tmp_path, "newstest2013")


def test_what_sacrebleu_downloaded_once_is_prepared_without_a_network(tmp_path: Path) -> None:
    raw = tmp_path / "sacrebleu" / "wmt12" / "raw"
    write_lines(raw / "wmt12.test.tgz", ["unpacked already"])
    for language in ("en", "de"):
        lines = ['<seg id="1">eins  zwei</seg>', '<seg id="2">drei</seg>']
        write_lines(raw / "test" / f"newstest2012-src.{language}.sgm", lines)
    assert load_elsewhere(tmp_path, "newstest2012") == "newstest2012 en-de, 2 sentences, from sacreBLEU's wmt12\n"


def test_a_broken_download_says_what_to_remove(tmp_path: Path) -> None:
    write_lines(tmp_path / "sacrebleu" / "wmt12" / "raw" / "wmt12.test.tgz", ["half of it"])
    assert f"remove {tmp_path}/sacrebleu/wmt12 to start afresh" in load_elsewhere(tmp_path, "newstest2012")


@pytest.mark.parametrize(
    ("name", "split", "count"), [("newstest2013", "validation", 3000), ("newstest2014", "test", 3003)]
)
def test_the_cache_of_datasets_serves_without_a_network(tmp_path: Path, name: str, split: str, count: int) -> None:
    from datasets import Features, Translation
    from datasets.arrow_writer import ArrowWriter

    folder = (
        tmp_path / "hf" / "datasets" / "wmt___wmt14" / "de-en" / "0.0.0" / "b199e406369ec1b7634206d3ded5ba45de2fe696"
    )
    folder.mkdir(parents=True)
    features = Features({"translation": Translation(languages=["de", "en"])})
    with ArrowWriter(features=features, path=str(folder / f"wmt14-{split}.arrow")) as writer:
        for number in range(count):
            writer.write({"translation": {"de": f"Satz {number}", "en": f"sentence {number}"}})
        writer.finalize()
    assert load_elsewhere(tmp_path, name) == f"{name} en-de, {count:,} sentences, from the {split} split of wmt/wmt14\n"


def test_without_network_one_quick_sentence_names_the_ways(tmp_path: Path) -> None:
    tries = 0
    with socket.create_server(("127.0.0.1", 0)) as proxy, ThreadPoolExecutor() as pool:
        proxy.settimeout(0.1)
        loading = pool.submit(load_elsewhere, tmp_path, "newstest2014", proxy.getsockname()[1])
        while not loading.done():
            with suppress(TimeoutError):
                proxy.accept()[0].close()
                tries += 1
    message = loading.result()
    assert tries == 2, "each of the two hosts is asked once, which is quick; libraries that download would ask again"
    assert message.startswith("DataError newstest2014 en-de cannot be had")
    assert "--data DIR with newstest2014.en and newstest2014.de" in message
    assert "sacrebleu --download wmt14/full -l en-de" in message
    assert "statmt.org cannot be reached" in message
    assert message.count("\n") == 2


def test_an_unknown_name_gets_a_suggestion() -> None:
    with pytest.raises(UsageError, match="did you mean newstest2014"):
        testsets.load_testset("newstst2014", "en", "de")
    with pytest.raises(UsageError, match=r"has no en-sw, but"):
        testsets.load_testset("newstest2014", "en", "sw")


@pytest.mark.network
def test_the_hub_has_newstest2014() -> None:
    try:
        testsets._check_reachable(["https://huggingface.co/datasets/wmt/wmt14"])
    except testsets._AbsentError:
        pytest.skip("no network")
    assert len(testsets._from_hub("newstest2014", "en", "de").sources) == 3003


# --- Lines -------------------------------------------------------------------------------------------------------


def test_lines_end_at_line_feeds_alone(tmp_path: Path) -> None:
    path = tmp_path / "text"
    path.write_bytes("\ufeffein\rs\nzw\u2028ei\r\n\n  drei\x85 ".encode())
    assert read_lines(path) == ["ein\rs", "zw\u2028ei", "", "  drei\x85 "]
    path.write_bytes(b"")
    assert read_lines(path) == []


def test_a_file_that_is_no_text_is_named_with_its_line(tmp_path: Path) -> None:
    path = tmp_path / "latin1"
    path.write_bytes("gut\nschön\n".encode("latin-1"))
    with pytest.raises(DataError, match=r"latin1:2: not UTF-8"):
        read_lines(path)
    with pytest.raises(DataError, match="no such file"):
        read_lines(tmp_path / "absent")
    with pytest.raises(DataError, match="cannot be read"):
        read_lines(tmp_path)
