"""The command line as its users meet it: the main job, and every mistake in one sentence."""

import subprocess
import sys
from pathlib import Path

import pytest


def mt(*arguments: str | Path, text: str = "") -> "subprocess.CompletedProcess[str]":
    command = [sys.executable, "-m", "mt", *map(str, arguments)]
    return subprocess.run(command, input=text, capture_output=True, text=True, encoding="utf-8", check=False)


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
        (["prepare", "{config}", "data.vocab=9"], "data.vocab: unknown key"),
        (["train", "{config}", "train.updates=many"], "train.updates: input should be a valid integer"),
        (["train", "{config}", "updates"], "not of the form section.key=value"),
        (["prepare", "{config}", "data.train=/nowhere/train"], "/nowhere/train.en: no such file"),
        (["translate", "--ckpt", "nowhere"], "nowhere: no such run or checkpoint"),
        (["translate"], "Missing option '--ckpt'"),
        (["translate", "--ckpt", "x", "--beam", "0"], "Invalid value for '--beam'"),
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
    assert not (tmp_path / "data").exists() or not any((tmp_path / "data").iterdir())


def test_help_names_every_command() -> None:
    result = mt("--help")
    assert result.returncode == 0
    for command in ("prepare", "train", "translate", "evaluate"):
        assert command in result.stdout
