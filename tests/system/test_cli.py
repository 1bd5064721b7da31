"""The command line as its users meet it: the main job, and every mistake in one sentence."""

import os
import shutil
import subprocess
import sys
from pathlib import Path
from zipfile import ZipFile

import pytest
from helpers import mt, mt_in_terminal

import mt as package

ROOT = Path(__file__).parents[2]


def test_raw_text_becomes_translations_with_a_score(toy_yaml: Path, toy_text: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    prepared = mt("prepare", toy_yaml)
    assert (prepared.returncode, prepared.stdout) == (0, "")
    assert "already prepared" in mt("prepare", toy_yaml).stderr

    trained = mt("train", toy_yaml)
    assert (trained.returncode, trained.stdout) == (0, ""), trained.stderr
    assert "update 12/12" in trained.stderr
    assert "tokens/s" in trained.stderr

    source = (toy_text / "test.en").read_text(encoding="utf-8")
    translated = mt("translate", "--ckpt", run, text=source)
    assert translated.returncode == 0, translated.stderr
    assert translated.stdout.count("\n") == source.count("\n")

    scored = mt("evaluate", "--ckpt", run, "--src", toy_text / "test.en", "--ref", toy_text / "test.de")
    assert scored.returncode == 0, scored.stderr
    assert "tok:13a" in scored.stdout
    assert "10 sentences" in scored.stdout


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["train", "none.yaml"], "none.yaml: no such config file"),
        (["prepare", "{config}", "data.voc_size=9"], "data.voc_size: unknown key"),
        (["train", "{config}", "train.updates=many"], "train.updates: input should be a valid integer"),
        (["train", "{config}", "updates"], "not of the form section.key=value"),
        (["prepare", "{config}", "data.train=/nowhere/train"], "/nowhere/train.en: no such file"),
        (["translate", "--ckpt", "nowhere"], "nowhere: no such run or checkpoint"),
        (["translate"], "Missing option '--ckpt'"),
        (["translate", "--ckpt", "x", "--beam", "0"], "Invalid value for '--beam'"),
        (["translate", "--ckpt", "x", "decode.baem=2"], "decode.baem: unknown key; did you mean beam?"),
        (["translate", "--ckpt", "x", "model.d_model=8"], "only decode.key=value can be given here"),
        (["evaluate"], "--ckpt"),
        (["evaluate", "--hyp", "none.txt", "--ref", "none.txt"], "none.txt: no such file"),
        (["trian"], "No such command 'trian'"),
    ],
)
def test_a_mistake_is_one_clear_sentence_and_exit_status_2(toy_yaml: Path, arguments: list[str], sentence: str) -> None:
    result = mt(*(argument.replace("{config}", str(toy_yaml)) for argument in arguments))
    assert result.returncode == 2
    assert sentence in result.stderr
    assert "Traceback" not in result.stderr
    assert result.stdout == ""


def test_unequal_files_are_refused_with_both_counts_and_the_first_line_without_partner(
    toy_yaml: Path, toy_text: Path, tmp_path: Path
) -> None:
    for language, lines in (("en", 3), ("de", 2)):
        whole = (toy_text / f"train.{language}").read_text(encoding="utf-8").split("\n")
        (tmp_path / f"odd.{language}").write_text("\n".join(whole[:lines]) + "\n", encoding="utf-8")
    result = mt("prepare", toy_yaml, f"data.train={tmp_path / 'odd'}")
    assert result.returncode == 2
    for part in ("odd.en", "3 lines", "odd.de", "2", "odd.en:3 is the first line without a partner"):
        assert part in result.stderr
    assert not (tmp_path / "data").exists()


def test_help_names_every_command() -> None:
    result = mt("--help")
    assert result.returncode == 0
    for command in ("prepare", "train", "translate", "evaluate"):
        assert command in result.stdout


@pytest.mark.parametrize("columns", [40, 200])
def test_help_fits_the_terminal_and_cuts_no_summary(columns: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", str(columns))
    shown = mt("-h").stdout
    assert max(map(len, shown.splitlines())) <= columns
    assert (
        "report Write RUN/report.html: curves, scores, samples, settings, data; or one page that compares several runs."
        in " ".join(shown.split())
    )
    if columns == 200:
        assert max(map(len, shown.splitlines())) > 80


def test_the_version_is_said_alike_by_command_and_package() -> None:
    assert mt("--version").stdout == f"mt {package.__version__}\n"


def test_a_shell_can_complete_commands(monkeypatch: pytest.MonkeyPatch) -> None:
    assert "--install-completion" in mt("--help").stdout
    monkeypatch.setenv("_MT_COMPLETE", "complete_bash")
    monkeypatch.setenv("COMP_WORDS", "mt tra")
    monkeypatch.setenv("COMP_CWORD", "1")
    done = subprocess.run(
        [sys.executable, "-c", "import sys; sys.argv = ['mt']; from mt.__main__ import main; main()"],
        capture_output=True,
        text=True,
    )
    assert done.stdout.split() == ["train", "translate"]


SCORING = "evaluate --hyp {file} --ref {file}"


@pytest.mark.parametrize("arguments", ["--version", "--help", SCORING])
@pytest.mark.parametrize("redirection", [">/dev/full", "<&- >&-"])
def test_a_stdout_that_cannot_be_written_ends_in_a_sentence(tmp_path: Path, arguments: str, redirection: str) -> None:
    (tmp_path / "file").write_text("Ein Satz.\n")
    command = f"{sys.executable} -m mt {arguments.format(file=tmp_path / 'file')} {redirection}"
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert done.stdout == ""
    assert done.stderr.startswith("mt: ")
    assert done.stderr.count("\n") == 1


@pytest.mark.parametrize("redirection", ["2>/dev/full", "2>&-"])
def test_a_stderr_that_cannot_be_written_ends_no_work(toy_yaml: Path, redirection: str) -> None:
    command = f"{sys.executable} -m mt prepare {toy_yaml} {redirection}"
    assert subprocess.run(["bash", "-c", command], check=False).returncode == 0


def test_a_pipe_closed_early_ends_a_command_quietly(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("Ein Satz.\n")
    command = f"{sys.executable} -m mt {SCORING.format(file=tmp_path / 'file')} | true"
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize("times", [1, 2])
@pytest.mark.parametrize("command", ["prepare", "evaluate", "translate"])
def test_ctrl_c_ends_a_command_in_one_sentence(
    toy_run: Path, toy_text: Path, toy_yaml: Path, tmp_path: Path, command: str, times: int
) -> None:
    for language in ("en", "de"):
        text = "".join(f"{number} a man runs here .\n" for number in range(50_000))
        (tmp_path / f"long.{language}").write_text(text)
    source, reference = tmp_path / "long.en", tmp_path / "long.de"
    arguments = {
        "prepare": [toy_yaml, f"data.train={tmp_path / 'long'}", "data.clean.copies=no"],
        "evaluate": ["--ckpt", toy_run, "--device", "cpu", "--src", source, "--ref", reference],
        "translate": ["--ckpt", toy_run, "--device", "cpu", "--input", source, "--output", tmp_path / "out"],
    }[command]
    bar = "reading" if command == "prepare" else "translating"
    status, shown = mt_in_terminal(command, *arguments, ctrl_c_after=bar, times=times)
    assert status == 130, shown
    assert "Traceback" not in shown
    assert shown.count("mt: stopped") == 1
    assert shown.rindex("mt: stopped") > shown.rindex(bar)
    assert not (tmp_path / "out").exists()


def test_a_setting_of_the_search_is_an_option_or_an_override(toy_run: Path, toy_text: Path) -> None:
    source = (toy_text / "test.en").read_text(encoding="utf-8")
    command = ["translate", "--ckpt", toy_run, "--device", "cpu", "--quiet", "--n-best", 2]
    option, over_option = (
        mt(*command, *settings, text=source) for settings in (["--beam", 3], ["--beam", 2, "decode.beam=3"])
    )
    assert option.stdout.count("\n") == source.count("\n"), option.stderr
    assert option.stdout == over_option.stdout
    wrong = mt(*command, "decode.beam=3", "decode.groups=2", text=source)
    assert (wrong.returncode, wrong.stderr) == (2, "mt: decode: a beam of 3 cannot be cut into 2 groups of one size\n")


@pytest.mark.slow
def test_a_wheel_works_away_from_the_checkout(tmp_path: Path) -> None:
    pytest.importorskip("setuptools")
    pip = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-build-isolation", "--no-deps"]
    source = tmp_path / "source"
    shutil.copytree(ROOT / "mt", source / "mt", ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    subprocess.run([*pip, "--wheel-dir", tmp_path, source], check=True, capture_output=True)
    (wheel,) = tmp_path.glob(f"mt-{package.__version__}-*.whl")
    with ZipFile(wheel) as archive:
        archive.extractall(tmp_path / "installed")
    paths = (path for path in (ROOT / "mt").rglob("*") if path.is_file() and path.suffix not in (".md", ".pyc"))
    files = {str(path.relative_to(ROOT)) for path in paths}
    assert files <= set(archive.namelist())
    (tmp_path / "elsewhere").mkdir()
    small = ["data.train={demo: 200}", "data.valid={demo: 20, split: valid}", "data.test=[]", "data.vocab_size=400"]
    command, installed = [sys.executable, "-m", "mt", "prepare", "demo"], str(tmp_path / "installed")
    environment = {**os.environ, "PYTHONPATH": installed}
    subprocess.run([*command, *small], cwd=tmp_path / "elsewhere", env=environment, check=True)
    assert (tmp_path / "elsewhere" / "data" / "demo" / "manifest.json").is_file()
