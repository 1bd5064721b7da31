"""What several test files share: a tiny prepared corpus, and the markers' meaning."""

import os
import signal
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")  # tiny tensors gain nothing from threads; also for the commands run here

import pytest
import torch

from mt.config import Config
from mt.config_file import load_config
from mt.console import Console

signal.signal(signal.SIGINT, signal.default_int_handler)  # shells ignore it for what they run in the background

ENGLISH = ["a man", "a woman", "a dog", "the old man", "the old dog", "the woman"]
GERMAN = ["ein Mann", "eine Frau", "ein Hund", "der alte Mann", "der alte Hund", "die Frau"]
VERBS = [("runs", "rennt"), ("sleeps", "schläft"), ("eats", "isst"), ("sings", "singt")]
PLACES = [
    ("here", "hier"),
    ("there", "dort"),
    ("in the garden", "im Garten"),
    ("at home", "zu Hause"),
    ("now", "jetzt"),
]


REAL_TEXT = Path(os.environ.get("MT_REAL_TEXT", Path(__file__).parents[2] / "shared" / "data"))
REAL_RUN = Path(__file__).parents[1] / "runs" / "multi30k"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    missing = {
        "gpu": "" if torch.cuda.is_available() else "needs a CUDA device",
        "real_text": "" if REAL_TEXT.is_dir() else "needs the real text: MT_REAL_TEXT names its folder",
    }
    for item in items:
        for marker, reason in missing.items():
            if reason and item.get_closest_marker(marker):
                item.add_marker(pytest.mark.skip(reason=reason))


@pytest.fixture(scope="session")
def real_text() -> Path:
    """The folder of real English-German text, for tests marked `real_text`."""
    return REAL_TEXT


@pytest.fixture(scope="session")
def real_run() -> Path:
    """The run that README trains on Multi30k, where somebody has trained it here."""
    return REAL_RUN if REAL_RUN.is_dir() else pytest.skip("needs runs/multi30k, trained with configs/multi30k.yaml")


@pytest.fixture
def quiet() -> Console:
    return Console(quiet=True)


@pytest.fixture(scope="session")
def toy_text(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with train, valid and test files of a small language: 120 sentences, every sixth held out."""
    folder = tmp_path_factory.mktemp("text")
    pairs = [
        (f"{en} {verb_en} {place_en} .", f"{de} {verb_de} {place_de} .")
        for en, de in zip(ENGLISH, GERMAN, strict=True)
        for verb_en, verb_de in VERBS
        for place_en, place_de in PLACES
    ]
    held_out = pairs[::6]
    splits = {"train": [pair for pair in pairs if pair not in held_out], "valid": held_out[:10], "test": held_out[10:]}
    for split, chosen in splits.items():
        for side, language in enumerate(("en", "de")):
            text = "".join(f"{pair[side]}\n" for pair in chosen)
            (folder / f"{split}.{language}").write_text(text, encoding="utf-8")
    return folder


@pytest.fixture
def toy_yaml(toy_text: Path, tmp_path: Path) -> Path:
    """A config file that prepares and trains on the toy text in a second."""
    path = tmp_path / "toy.yaml"
    path.write_text(
        f"""
data:
  dir: {tmp_path / "data"}
  train: {toy_text / "train"}
  valid: {toy_text / "valid"}
  test: {toy_text / "test"}
  vocab_size: 320
model: {{d_model: 16, heads: 2, d_ff: 32, encoder_layers: 1, decoder_layers: 1, dropout: 0.2}}
batch: {{tokens: 200, micro_tokens: 80}}
optim: {{warmup: 10}}
train:
  dir: {tmp_path / "run"}
  updates: 12
  checkpoint_every: 4
  log_every: 2
  average: 2
  keep: 2
  device: cpu
  precision: float32
""",
        encoding="utf-8",
    )
    return path


@pytest.fixture
def toy_config(toy_yaml: Path) -> Config:
    return load_config(toy_yaml)


@pytest.fixture(scope="session")
def toy_run(toy_text: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that has half learnt the toy language: what it says is neither random nor always right."""
    from mt.train.loop import train

    folder = tmp_path_factory.mktemp("toy_run")
    path = folder / "toy.yaml"
    path.write_text(
        f"""
data:
  dir: {folder / "data"}
  train: {toy_text / "train"}
  valid: {toy_text / "valid"}
  test: {toy_text / "test"}
  vocab_size: 320
model: {{d_model: 32, heads: 4, d_ff: 64, encoder_layers: 2, decoder_layers: 2, dropout: 0.1}}
batch: {{tokens: 400, micro_tokens: 400}}
optim: {{warmup: 60}}
train:
  dir: {folder / "run"}
  updates: 120
  checkpoint_every: 60
  average: 2
  keep: 2
  device: cpu
  precision: float32
""",
        encoding="utf-8",
    )
    train(load_config(path), Console(quiet=True))
    return folder / "run"
