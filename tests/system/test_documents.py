"""Documents of more than 2,000 pieces: prepared, trained on and translated whole, with each kind of positions."""

from pathlib import Path
from typing import Any

import pytest
from helpers import write_lines

from mt.config import Config
from mt.console import Console
from mt.data.prepare import prepare
from mt.errors import DataError
from mt.run_files import read_metrics
from mt.train.loop import train
from mt.translate.translator import Translator

QUIET = Console(quiet=True)
SETTINGS: dict[str, dict[str, object]] = {
    "sinusoidal": {},
    "learned": {"positions": "learned", "max_positions": 5_000},
    "rotary": {"positions": "rotary"},
    "universal": {"recurrence": "adaptive", "encoder_layers": 2},
}


@pytest.fixture(scope="module")
def values(toy_text: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, Any]]:
    """A config whose training pairs are three documents of the toy language; one validation pair is a document too."""
    folder = tmp_path_factory.mktemp("documents")
    for language in ("en", "de"):
        train, valid = (
            (toy_text / f"{split}.{language}").read_text("utf-8").split("\n") for split in ("train", "valid")
        )
        documents = [" ".join((train[first:] + train[:first]) * 2) for first in range(4)]
        write_lines(folder / f"train.{language}", documents[:3])
        write_lines(folder / f"valid.{language}", [documents[3], *valid[:2]])
    return {
        "data": {
            "dir": str(folder / "data"),
            "train": str(folder / "train"),
            "valid": str(folder / "valid"),
            "vocab_size": 300,
            "clean": {"max_pieces": 5_000},
        },
        "model": {"d_model": 16, "heads": 2, "d_ff": 16, "encoder_layers": 1, "decoder_layers": 1},
        "batch": {"tokens": 5_000},
        "train": {"updates": 1, "average": 1, "log_every": 1, "device": "cpu", "precision": "float32"},
        "decode": {"max_source": 5_000, "max_length": 12},
    }


@pytest.mark.parametrize("variant", SETTINGS)
def test_documents_go_whole_through_preparing_training_and_translating(
    variant: str, values: dict[str, dict[str, Any]], tmp_path: Path
) -> None:
    run = tmp_path / "run"
    model, training = values["model"] | SETTINGS[variant], values["train"] | {"dir": run}
    config = Config.model_validate(values | {"model": model, "train": training})
    prepared = prepare(config, QUIET)
    assert len(prepared.train) == 3
    assert prepared.train.lengths().min() > 2_000
    train(config, QUIET)
    (update,) = (record for record in read_metrics(run / "metrics.jsonl") if "loss" in record)
    assert update["tokens"] > 2_000
    document = prepared.text("valid")[0][0]
    translator = Translator(run, device="cpu")
    for beam in (1, 2):
        translator.decode = translator.decode.model_copy(update={"beam": beam})
        (found,) = translator.n_best([document])
        assert found[0].whole
        assert not found[0].note
    (scores,) = translator.score([document], [document])
    assert len(scores.pieces) > 2_000


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"batch": {"tokens": 2_000}}, r"a batch holds 2,000: raise batch\.tokens or lower data\.clean\.max_pieces$"),
        (
            {"model": {"positions": "learned", "max_positions": 2_000}},
            r"learned positions end at 2,000: raise model\.max_positions or lower data\.clean\.max_pieces$",
        ),
    ],
)
def test_what_is_too_short_for_a_document_is_named(
    change: dict[str, Any], said: str, values: dict[str, dict[str, Any]]
) -> None:
    with pytest.raises(DataError, match=rf"^[^\n]*train:\d has [\d,]+ pieces on one side, but {said}"):
        prepare(Config.model_validate(values | change), QUIET)


def test_documents_are_dropped_by_default_and_the_reason_is_named(
    values: dict[str, dict[str, Any]], tmp_path: Path
) -> None:
    data = values["data"] | {"dir": tmp_path / "data", "clean": {}}
    with pytest.raises(DataError, match="no training pair is left: 3 too long"):
        prepare(Config.model_validate(values | {"data": data}), QUIET)
