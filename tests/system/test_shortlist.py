"""Laws of shortlists: the same search, among fewer pieces."""

import shutil
from pathlib import Path

import numpy as np
import pytest

from mt import Translator
from mt.checkpoint import load_checkpoint, save_checkpoint
from mt.console import Console
from mt.errors import CheckpointError, DataError, UsageError
from mt.run_folder import find_checkpoint
from mt.translate.alignment import with_alignments
from mt.translate.segments import segments_of
from mt.translate.shortlist import FILE, Shortlist, make_shortlist

LINES = ["the old man sleeps here .", "", "a dog", "naïve 東京 text", "the woman runs in the garden . a man eats now ."]
SEARCHES = [
    {"beam": 1},
    {"beam": 4},
    {"beam": 4, "groups": 2},
    {"sample": True},
    {"beam": 1, "precision": "int8"},
    {"beam": 4, "precision": "int8"},
]
NAMES = ["greedy", "beam 4", "diverse", "sampled", "greedy, int8", "beam 4, int8"]


@pytest.fixture(scope="session")
def listed_run(toy_run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The toy run with a shortlist so short that it changes translations."""
    run = tmp_path_factory.mktemp("listed") / "run"
    shutil.copytree(toy_run, run)
    make_shortlist(run, best=2, frequent=3, takes_all=False, console=Console(quiet=True))
    return run


def opened(*runs: Path, **decode: object) -> Translator:
    return Translator(*runs, device="cpu", decode={"max_extra": 8, "shortlist": "yes", **decode})


@pytest.mark.parametrize("decode", [*SEARCHES, {"beam": 4, "precision": "bfloat16"}], ids=[*NAMES, "bfloat16"])
def test_a_list_of_all_pieces_changes_nothing_to_the_last_bit(listed_run: Path, decode: dict[str, object]) -> None:
    whole, listed = opened(listed_run, shortlist="no", **decode), opened(listed_run, **decode)
    pieces = np.arange(len(whole.tokenizers.target))
    listed.shortlist = Shortlist(whole.tokenizers, np.zeros((len(pieces), 0), dtype=np.int64), pieces)
    assert listed.n_best(LINES) == whole.n_best(LINES)
    assert listed(LINES) == whole(LINES)


@pytest.mark.parametrize("decode", SEARCHES, ids=NAMES)
def test_a_translation_depends_on_no_neighbour_and_has_no_piece_outside_its_list(
    listed_run: Path, decode: dict[str, object]
) -> None:
    translator = opened(listed_run, **decode)
    together = translator.n_best(LINES)
    assert together != opened(listed_run, shortlist="no", **decode).n_best(LINES)
    assert opened(listed_run, **decode, batch_tokens=10).n_best(LINES) == together
    segments = segments_of(LINES, translator.encoder, translator.decode)
    assert translator.shortlist is not None
    for segment, outputs in zip(segments, translator._search(segments, 1, True), strict=True):
        lists = translator.shortlist.lists([segment.ids], [[]], translator.models[0].device)
        assert {index for output in outputs for index in output.ids} <= set(lists.pieces_BL.flatten().tolist())


def test_a_source_may_be_copied_and_bytes_answer_bytes(listed_run: Path) -> None:
    translator = opened(listed_run)
    assert translator.shortlist is not None
    plain, odd = translator.tokenizers.source.encode(["the dog", "東"])
    lists = translator.shortlist.lists([plain, odd], [[], []], translator.models[0].device)
    allowed = [set(pieces) for pieces in lists.pieces_BL.tolist()]
    assert set(plain) <= allowed[0]
    bytes_of_target = {index for index in range(320) if translator.tokenizers.target.is_byte(index)}
    assert bytes_of_target <= allowed[1]
    assert not bytes_of_target & allowed[0]


def test_a_prefix_may_have_any_piece(listed_run: Path) -> None:
    """Each sentence its own: what one is forced to say, another still cannot."""
    translator, prefixes = opened(listed_run, beam=2), ["eine Frau singt", "", "東 Hund", "", "der"]
    found = translator.n_best(LINES, prefixes=prefixes)
    assert [outputs[0].text.startswith(prefix) for outputs, prefix in zip(found, prefixes, strict=True)] == [True] * 5
    assert found[3] == translator.n_best(LINES)[3]


def test_lists_of_the_best_ensembles_and_alignments_go_with_it(listed_run: Path) -> None:
    translator, ensemble = opened(listed_run, beam=3), opened(listed_run, listed_run, beam=3)
    found = translator.n_best(LINES, 3)
    assert [len(outputs) for outputs in found] == [3, 1, 3, 3, 3]
    assert [outputs[0].text for outputs in ensemble.n_best(LINES)] == [outputs[0].text for outputs in found]
    aligned = with_alignments(translator, LINES, found)
    assert all(outputs[0].alignment for line, outputs in zip(LINES, aligned, strict=True) if line)


def test_scores_of_given_texts_and_unlisted_translations_need_no_list(listed_run: Path) -> None:
    scores = [opened(listed_run, shortlist=which).score(["a dog"], ["ein Hund"]) for which in ("yes", "no")]
    assert scores[0] == scores[1]


def test_what_a_job_is_continued_by_names_the_list(listed_run: Path) -> None:
    kinds = [opened(listed_run, shortlist=which).settings for which in ("no", "yes", str(listed_run / FILE))]
    assert len({str(kind["weights"]) for kind in kinds}) == 2
    assert opened(listed_run / "best").settings == kinds[1]


def test_what_is_missing_damaged_or_anothers_is_refused_in_a_sentence(
    listed_run: Path, toy_run: Path, tmp_path: Path
) -> None:
    with pytest.raises(UsageError, match=r"there is no .*shortlist.safetensors; make it with mt shortlist"):
        opened(toy_run)
    damaged = tmp_path / FILE
    content = bytearray((listed_run / FILE).read_bytes())
    content[-9] ^= 1
    damaged.write_bytes(content)
    with pytest.raises(CheckpointError, match="damaged, or not a file of mt"):
        opened(listed_run, shortlist=str(damaged))
    translator = opened(listed_run)
    other = tmp_path / "other.safetensors"
    whole = (listed_run / FILE).read_bytes()
    other.write_bytes(whole.replace(translator.tokenizers.source.fingerprint.encode(), b"0" * 64))
    with pytest.raises(UsageError, match="for a model with other tokenizers"):
        opened(listed_run, shortlist=str(other))


def test_a_list_is_learnt_from_the_data_of_the_run_alone(listed_run: Path, tmp_path: Path) -> None:
    stored = load_checkpoint(find_checkpoint(listed_run))
    for data in (stored.state["data"], "others"):
        save_checkpoint(
            tmp_path / data, stored.config, stored.tokenizers, stored.weights, {**stored.state, "data": data}
        )
    make_shortlist(tmp_path / stored.state["data"], 2, 3, takes_all=True, console=Console(quiet=True))
    assert (tmp_path / stored.state["data"] / FILE).read_bytes() == (listed_run / FILE).read_bytes()
    with pytest.raises(DataError, match=r"not the data that .*others was trained on"):
        make_shortlist(tmp_path / "others", 2, 3, takes_all=True, console=Console(quiet=True))
