"""Exported models, run by the programs they are for: they compute what ours computes, and say how to run them."""

import json
import os
import re
import signal
import subprocess
import sys
import venv
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import ctranslate2
import pytest
import sentencepiece
import torch
from helpers import mt, wait_until
from torch.utils._python_dispatch import TorchDispatchMode
from transformers import AutoModelForSeq2SeqLM, AutoTokenizer

from mt import Translator
from mt.checkpoint import load_checkpoint, save_checkpoint
from mt.config import Config, ModelConfig
from mt.config_file import load_config
from mt.console import Console
from mt.data.tokenizer import EOS
from mt.data.vocabulary import Tokenizers
from mt.demo import demo_pairs
from mt.errors import MtError, UsageError
from mt.files import read_lines
from mt.interop import ctranslate
from mt.interop.export import ANY, HELD, IN_TRAINING, export, in_int8, refuse
from mt.interop.self_check import Difference, Pairs
from mt.model.inference import largest_exact_weight
from mt.model.transformer import Transformer
from mt.run_folder import find_checkpoint
from mt.train.loop import train

DEMO_RUN = Path(__file__).parents[2] / "runs" / "demo"

# Escapes, bytes, blanks, special pieces and controls.
HARD = [
    "a \u2581 man\ue000\ue0001 runs",
    "  two  blanks ",
    "",
    "   ",
    "</s> <s> <unk> <pad> <0x41>",
    "日本 \U0001f600\u200d",
    "a\tb\x0b\x85c",
]


@pytest.fixture(scope="module")
def exported(toy_run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the toy run in each format."""
    folder = tmp_path_factory.mktemp("exported")
    for to in ("ctranslate2", "huggingface", "argos"):
        export([toy_run], to, folder / to, None, None, Console(quiet=True))
    return folder


@pytest.fixture(scope="module")
def sources(toy_text: Path) -> list[str]:
    return [line for split in ("train", "valid", "test") for line in read_lines(toy_text / f"{split}.en")]


def greedy(run: Path, lines: Sequence[str]) -> list[str]:
    return Translator(run, device="cpu", decode={"beam": 1})(lines)


def ctranslate2_greedy(folder: Path, lines: Sequence[str]) -> list[str]:
    tokenizer = sentencepiece.SentencePieceProcessor(str(folder / "sentencepiece.model"))
    model = ctranslate2.Translator(str(folder), device="cpu", intra_threads=1)
    found = model.translate_batch(
        tokenizer.encode(list(lines), out_type=str), beam_size=1, max_decoding_length=306, min_decoding_length=0
    )
    return [tokenizer.decode(one.hypotheses[0]) for one in found]


def hugging_face_greedy(folder: Path, lines: Sequence[str]) -> list[str]:
    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = AutoModelForSeq2SeqLM.from_pretrained(folder)
    found = []
    for first in range(0, len(lines), 50):
        batch = tokenizer(list(lines[first : first + 50]), return_tensors="pt", padding=True)
        found += tokenizer.batch_decode(model.generate(**batch, num_beams=1), skip_special_tokens=True)
    return found


# --- What is computed --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("format", "decode"), [("ctranslate2", ctranslate2_greedy), ("huggingface", hugging_face_greedy)]
)
def test_greedy_output_is_the_same(exported: Path, toy_run: Path, sources: list[str], format: str, decode: Any) -> None:
    ours = greedy(toy_run, sources)
    assert len(set(ours)) > 5  # what half a training teaches differs between kinds of CPU
    assert decode(exported / format, sources) == ours


@pytest.mark.slow
@pytest.mark.parametrize(
    ("format", "decode"), [("ctranslate2", ctranslate2_greedy), ("huggingface", hugging_face_greedy)]
)
def test_greedy_output_of_the_demo_is_the_same_on_1000_lines(tmp_path: Path, format: str, decode: Any) -> None:
    if not DEMO_RUN.is_dir():
        pytest.skip("needs runs/demo, which scripts/quickstart trains")
    lines = [source for source, _ in demo_pairs("test", 1000, seed=1)]
    export([DEMO_RUN], format, tmp_path / "out", None, None, Console(quiet=True))
    ours, theirs = greedy(DEMO_RUN, lines), decode(tmp_path / "out", lines)
    # What never ends is cut elsewhere: mt's limit depends on the source.
    ended = [len(text) < len(line) + 40 for line, text in zip(lines, ours, strict=True)]
    assert sum(ended) >= 990
    for line, text, is_whole in zip(ours, theirs, ended, strict=True):
        assert line == text if is_whole else text.startswith(line)


def test_a_beam_finds_translations_as_likely_as_ours(exported: Path, toy_run: Path, sources: list[str]) -> None:
    """Searches differ, so both outputs are scored by our model: neither search is better by much."""
    script = [sys.executable, str(exported / "ctranslate2" / "translate.py")]
    text = "".join(f"{line}\n" for line in sources)
    theirs = subprocess.run(script, input=text, capture_output=True, text=True, check=True).stdout.splitlines()
    translator = Translator(toy_run, device="cpu")
    ours = translator(sources)
    scores = [[found.score for found in translator.score(sources, outputs)] for outputs in (ours, theirs)]
    assert sum(left == right for left, right in zip(ours, theirs, strict=True)) > 0.8 * len(sources)
    assert sum(scores[0]) >= sum(scores[1]) - 1e-3
    assert sum(scores[1]) == pytest.approx(sum(scores[0]), rel=0.02)


VARIANTS = [
    {"activation": "gelu", "output_bias": True},
    {"activation": "silu", "encoder_layers": 2},
    {"activation": "swiglu", "embeddings": "decoder", "output_bias": True},
    {"embeddings": "separate", "output_bias": True, "decoder_layers": 2},
    {"norm": "pre", "positions": "learned", "max_positions": 30},
]
CTRANSLATE2_ONLY = {"swiglu", "decoder", "separate", "pre"}


@pytest.mark.parametrize("variant", VARIANTS, ids=str)
@pytest.mark.parametrize("format", ["ctranslate2", "huggingface"])
def test_variants_that_a_format_holds_compute_the_same(
    toy_run: Path, tmp_path: Path, variant: dict[str, Any], format: str
) -> None:
    """The check within the export compares them; what the format cannot hold is refused by name."""
    path = random_checkpoint(toy_run, tmp_path, variant)
    names = [f"model.{key}={value}" for key, value in variant.items() if key not in ANY]
    if format == "huggingface" and CTRANSLATE2_ONLY & set(map(str, variant.values())):
        with pytest.raises(UsageError, match=r"huggingface cannot hold .*--to ctranslate2 can") as refused:
            export([path], format, tmp_path / "out", None, None, Console(quiet=True))
        assert any(name in str(refused.value) for name in names)
        assert not (tmp_path / "out").exists()
    else:
        export([path], format, tmp_path / "out", None, None, Console(quiet=True))
        assert "at most" in json.loads((tmp_path / "out" / "mt.json").read_text())["checks"][0]


@pytest.mark.parametrize("format", HELD)
def test_what_no_format_holds_is_refused(toy_run: Path, tmp_path: Path, format: str) -> None:
    path = random_checkpoint(toy_run, tmp_path, {"positions": "rotary"})
    with pytest.raises(UsageError, match=r"cannot hold model\.positions=rotary; no other format can either"):
        export([path], format, tmp_path / "out", None, None, Console(quiet=True))


def random_checkpoint(run: Path, folder: Path, model: dict[str, Any]) -> Path:
    """A checkpoint with the tokenizer of a run, the model of other settings, and all weights random, biases too."""
    before = load_checkpoint(find_checkpoint(run))
    settings = ModelConfig(**{"d_model": 16, "heads": 2, "d_ff": 24, "encoder_layers": 1, "decoder_layers": 1, **model})
    torch.manual_seed(1)
    network = Transformer(settings, len(Tokenizers.read(before.tokenizers).target))
    for parameter in network.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    config = before.config.model_copy(update={"model": settings})
    save_checkpoint(folder / "checkpoint", config, before.tokenizers, network.state_dict(), {"update": 0})
    return folder / "checkpoint"


@pytest.mark.parametrize("quantization", ["int8", "float16"])
def test_rounded_weights_are_small_and_what_they_cost_is_said(
    exported: Path, toy_run: Path, tmp_path: Path, quantization: str, capsys: pytest.CaptureFixture[str]
) -> None:
    export([toy_run], "ctranslate2", tmp_path / "out", quantization, None, Console())
    said = capsys.readouterr().err
    assert re.search(rf"In {quantization} they differ by \S+e-0\d on average", said)
    assert re.search(r"BLEU of greedy translations of the validation set: \d+\.\d\d with mt, \d+\.\d\d in", said)
    size, whole = ((folder / "model.bin").stat().st_size for folder in (tmp_path / "out", exported / "ctranslate2"))
    table = 2 * ctranslate.POSITIONS * 32 * 4  # of positions, which stay as they are in int8
    assert size - table * (quantization == "int8") < 0.6 * whole


@pytest.mark.parametrize("embeddings", ["tied", "separate"])
def test_a_checkpoint_in_8_bits_has_a_quarter_of_the_size_and_translates_as_the_whole_one_in_int8(
    toy_run: Path, tmp_path: Path, embeddings: str
) -> None:
    """Of the weights' size; scales, norms and biases lie beside them. Loaded, they are rounded to the same numbers."""
    path = random_checkpoint(toy_run, tmp_path, {"embeddings": embeddings, "d_model": 64, "d_ff": 256})
    out, lines = tmp_path / "out", ["a man runs here .", "the dog eats now .", *HARD]
    export([path], "mt", out, None, None, Console(quiet=True))
    size, whole = ((folder / "model.safetensors").stat().st_size for folder in (out, path))
    assert size < 0.35 * whole
    bounded = {"beam": 2, "max_extra": 3}
    ours = Translator(path, device="cpu", decode={"precision": "int8", **bounded}).n_best(lines)
    stored = Translator(out, device="cpu", decode=bounded)
    assert stored.decode.precision == "int8"
    assert not [name for name, weight in stored.models[0].state_dict().items() if weight.is_meta]
    for left, right in zip(ours, stored.n_best(lines), strict=True):
        assert left[0].text == right[0].text
        assert left[0].score == pytest.approx(right[0].score, rel=1e-4)


class Float32(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """The sizes of all tensors in float32 that are made."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.sizes = list[int]()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        made = func(*args, **(kwargs or {}))
        if isinstance(made, torch.Tensor) and made.dtype == torch.float32 and not made.is_meta:
            self.sizes.append(made.numel())
        return made


@pytest.mark.skipif(not largest_exact_weight(), reason="torch has no exact products of 8 bits here")
def test_weights_in_8_bits_are_loaded_without_ever_being_in_32(toy_run: Path, tmp_path: Path) -> None:
    path, smallest = random_checkpoint(toy_run, tmp_path, {"d_model": 320, "d_ff": 320}), 320 * 320
    whole = load_checkpoint(path)
    save_checkpoint(tmp_path / "int8", whole.config, whole.tokenizers, in_int8(whole.weights), whole.state)
    made = {}
    for precision in ("int8", "float32"):
        with Float32() as mode:
            Translator(tmp_path / "int8", device="cpu", decode={"precision": precision})
        made[precision] = max(mode.sizes)
    assert made["int8"] < smallest <= made["float32"]


def test_a_student_of_32_000_pieces_takes_20_mb_on_disk() -> None:
    config = ModelConfig(d_model=256, heads=8, d_ff=1536, encoder_layers=6, decoder_layers=2)
    with torch.device("meta"):
        weights = in_int8(Transformer(config, 32_000).state_dict())
    assert sum(weight.nbytes for weight in weights.values()) < 20e6


# --- What is said ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("format", ["ctranslate2", "huggingface"])
def test_the_readme_says_how_to_run_it(exported: Path, toy_run: Path, tmp_path: Path, format: str) -> None:
    """Its lines are run, but for the installation."""
    readme = (exported / format / "README.md").read_text(encoding="utf-8")
    (block,) = re.findall(r"```bash\n(.*?)```", readme, flags=re.DOTALL)
    install, run = block.strip().split("\n")
    assert install.startswith("pip install ")
    (tmp_path / "translate.py").symlink_to(exported / format / "translate.py")
    (tmp_path / "source.txt").write_text("a man runs here .\n\n   \nthe dog eats now .\n", encoding="utf-8")
    run = run.replace("python ", f"{sys.executable} ")
    subprocess.run(["bash", "-euc", run], cwd=tmp_path, check=True, capture_output=True)
    lines = read_lines(tmp_path / "target.txt")
    likely = Translator(toy_run, device="cpu").n_best(["a man runs here .", "the dog eats now ."], 4)
    assert lines[1:3] == ["", ""]
    for line, found in zip((lines[0], lines[3]), likely, strict=True):
        assert line in [translation.text for translation in found]
    for part in ("English to German", "What differs", "length_penalty", "differ from mt's by at most", str(toy_run)):
        assert part in readme


ECHO = """
class Translator:
    def __init__(self, *args, **options): pass
    def translate_batch(self, sources, **options):
        return [type("Result", (), {"hypotheses": [source]}) for source in sources]
"""


def test_any_text_survives_the_script(exported: Path, tmp_path: Path) -> None:
    """In place of the model stands one that gives back what it gets."""
    (tmp_path / "ctranslate2.py").write_text(ECHO)
    done = subprocess.run(
        [sys.executable, exported / "ctranslate2" / "translate.py"],
        input="".join(f"{line}\n" for line in HARD).encode(),
        env={**os.environ, "PYTHONPATH": str(tmp_path)},
        capture_output=True,
        check=True,
    )
    assert done.stdout.decode().split("\n") == [line if line.strip() else "" for line in HARD] + [""]


def test_the_hugging_face_tokenizer_cuts_text_as_ours_does(exported: Path, toy_run: Path) -> None:
    theirs = AutoTokenizer.from_pretrained(exported / "huggingface")
    ours = Translator(toy_run, device="cpu").tokenizers
    lines = [line for line in HARD if not set("\u2581\ue000") & set(line)]
    encoded = theirs(lines).input_ids
    assert encoded == [[*ids, EOS] for ids in ours.source.encode(lines)]
    assert theirs.batch_decode(encoded, skip_special_tokens=True) == [line.strip() for line in lines]


def test_an_argos_package_holds_what_argos_reads(exported: Path, tmp_path: Path, toy_run: Path) -> None:
    (package,) = (exported / "argos").glob("*.argosmodel")
    zipfile.ZipFile(package).extractall(tmp_path)
    folder = tmp_path / "translate-en_de-1_0"
    assert [path.name for path in tmp_path.iterdir()] == [folder.name]
    metadata = json.loads((folder / "metadata.json").read_text())
    assert metadata | {"from_code": "en", "from_name": "English", "to_code": "de", "to_name": "German"} == metadata
    tokenizer = sentencepiece.SentencePieceProcessor(str(folder / "sentencepiece.model"))
    model = ctranslate2.Translator(str(folder / "model"), device="cpu", intra_threads=1)
    pieces = tokenizer.encode("a man runs here .", out_type=str)
    (found,) = model.translate_batch(
        [pieces], replace_unknowns=True, max_batch_size=32, beam_size=4, num_hypotheses=4, length_penalty=0.2
    )
    likely = Translator(toy_run, device="cpu").n_best(["a man runs here ."], 4)[0]
    assert tokenizer.decode(found.hypotheses[0]) in [translation.text for translation in likely]


ARGOS = """
import sys
import argostranslate.package, argostranslate.translate as argos

class Whole:  # in place of a model that is downloaded, which cuts text into sentences
    def __init__(self, package): pass
    def split_sentences(self, text): return [text]

argos.MiniSBDSentencizer = Whole
argostranslate.package.install_from_path(sys.argv[1])
print([str(language) for language in argos.get_installed_languages()])
for line in sys.stdin:
    print(argos.translate(line.rstrip(), "en", "de"))
"""


@pytest.mark.slow
@pytest.mark.network
def test_argos_translate_installs_and_uses_the_package(exported: Path, toy_run: Path, tmp_path: Path) -> None:
    """In an environment of its own, which finds torch and ctranslate2 in this one."""
    environment = tmp_path / "environment"
    venv.create(environment, with_pip=True)
    (packages,) = environment.glob("lib/python*/site-packages")
    (packages / "zz.pth").write_text("\n".join(path for path in sys.path if path.endswith("site-packages")))
    python = environment / "bin" / "python"
    installed = subprocess.run([python, "-m", "pip", "install", "-q", "argostranslate"], capture_output=True, text=True)
    if installed.returncode:
        pytest.skip(f"argostranslate cannot be installed here: {installed.stderr[-300:]}")
    (package,) = (exported / "argos").glob("*.argosmodel")
    places = {f"XDG_{kind}_HOME": str(tmp_path / kind) for kind in ("DATA", "CACHE", "CONFIG")}
    done = subprocess.run(
        [python, "-c", ARGOS, package],
        input="a man runs here .\nthe dog eats now .\n",
        env={**os.environ, **places, "HOME": str(tmp_path), "ARGOS_PACKAGES_DIR": str(tmp_path / "packages")},
        capture_output=True,
        text=True,
        check=True,
    )
    languages, *translations = done.stdout.splitlines()
    assert languages == "['English', 'German']"
    likely = Translator(toy_run, device="cpu").n_best(["a man runs here .", "the dog eats now ."], 4)
    for line, found in zip(translations, likely, strict=True):
        assert line in [translation.text for translation in found]


# --- What is refused ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"to": "onnx"}, "--to onnx: there are ctranslate2, huggingface, argos, mt"),
        ({"to": "huggingface", "quantization": "int8"}, "--quantization int8: huggingface takes float32"),
        ({"quantization": "int4"}, "ctranslate2 takes float32, int8, int8_float32, float16"),
        ({"output": "{there}"}, "is there already"),
        ({"output": "{there}/none/out"}, "there is no folder"),
        ({"ckpt": [Path("nowhere")]}, "nowhere: no such run or checkpoint"),
    ],
)
def test_a_mistake_is_one_sentence(toy_run: Path, tmp_path: Path, changes: dict[str, Any], sentence: str) -> None:
    given: dict[str, Any] = {"ckpt": [toy_run], "to": "ctranslate2", "output": "{there}/out", "quantization": None}
    given = {**given, **changes, "average": None, "console": Console(quiet=True)}
    given["output"] = Path(given["output"].replace("{there}", str(tmp_path)))
    with pytest.raises(MtError, match=re.escape(sentence)) as refused:
        export(**given)
    assert refused.value.exit_status == 2
    assert not list(tmp_path.iterdir())


def test_an_ensemble_is_refused(toy_run: Path, tmp_path: Path) -> None:
    done = mt("export", "--ckpt", toy_run, "--ckpt", toy_run, "--to", "argos", "--output", tmp_path / "out")
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)
    assert "no format holds an ensemble" in done.stderr


@pytest.mark.parametrize("format", HELD)
def test_every_setting_of_the_model_is_held_or_refused_by_name(toy_run: Path, format: str) -> None:
    tokenizers = Translator(toy_run, device="cpu").tokenizers
    usual = ModelConfig()
    for key, value in usual:
        if key not in ANY | IN_TRAINING:
            other = usual.model_copy(update={key: f"another {value}"})
            with pytest.raises(UsageError, match=f"{format} cannot hold model.{key}=another"):
                refuse(format, other, tokenizers)


def test_a_model_that_computes_something_else_is_not_written(
    toy_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(ctranslate.ACTIVATIONS, "relu", "GELU")
    with pytest.raises(MtError, match="the exported model is not the same") as refused:
        export([toy_run], "ctranslate2", tmp_path / "out", "int8", None, Console(quiet=True))
    assert refused.value.exit_status == 1
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("apart", [2e-4, float("nan"), float("inf")])
def test_too_large_a_difference_is_found(apart: float) -> None:
    with pytest.raises(MtError):
        Difference(apart, 0.0).check(Pairs([[4]], [[4]], "a test"))


def test_an_export_that_is_killed_leaves_nothing_under_its_name(toy_run: Path, tmp_path: Path) -> None:
    output, partial = tmp_path / "out", tmp_path / ".out.partial"
    command = [
        sys.executable,
        "-m",
        "mt",
        "export",
        "--ckpt",
        str(toy_run),
        "--to",
        "ctranslate2",
        "--output",
        str(output),
    ]
    child = subprocess.Popen(command)
    wait_until(partial.exists)
    child.kill()
    assert child.wait() == -signal.SIGKILL
    assert not output.exists()
    export([toy_run], "ctranslate2", output, None, None, Console(quiet=True))
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_of_several_validation_sets_that_of_train_best_is_used(
    toy_yaml: Path, toy_text: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """And the README of a model with symbols says how they are put before lines."""
    given = [f"data.valid={{a: {toy_text}/valid, b: {toy_text}/test}}", "data.symbols=[<bt>]", "data.protect=[number]"]
    train(load_config(toy_yaml, [*given, "train.best=a", "train.updates=4"]), Console(quiet=True))
    export([tmp_path / "run"], "ctranslate2", tmp_path / "out", "int8", None, Console())
    said = capsys.readouterr().err
    assert "10 pairs (validation)" in said
    assert "BLEU of greedy translations" in said
    readme = (tmp_path / "out" / "README.md").read_text()
    assert "`python translate.py '<bt>' < source.txt`" in readme
    assert "mt protects number in text" in readme
    script = [sys.executable, str(tmp_path / "out" / "translate.py"), "<bt>"]
    assert subprocess.run(script, input="a man\n\n", capture_output=True, text=True, check=True).stdout.count("\n") == 2


def test_without_its_data_a_model_is_compared_on_random_pieces(
    toy_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = load_checkpoint(find_checkpoint(toy_run))
    config: Config = before.config.model_copy(
        update={"data": before.config.data.model_copy(update={"dir": tmp_path / "none"})}
    )
    save_checkpoint(tmp_path / "checkpoint", config, before.tokenizers, before.weights, before.state)
    export([tmp_path / "checkpoint"], "argos", tmp_path / "out", None, None, Console())
    said = capsys.readouterr().err
    assert "200 pairs (random pieces, as the validation set is not there)" in said
    assert "BLEU" not in said
