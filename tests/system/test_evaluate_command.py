"""`mt evaluate` as people and programs meet it: real commands, numbers equal to sacreBLEU's, one sentence a mistake."""

import hashlib
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from helpers import mt as mt_process
from helpers import write_lines

from mt.__main__ import main
from mt.checkpoint import step_name
from mt.run_folder import find_checkpoint

REFERENCE = ["Der Hund bellt laut im Hof.", "Die Katze schläft auf dem Sofa.", "Es regnet heute sehr stark."]
SECOND = ["Laut bellt der Hund im Hof.", "Auf dem Sofa schläft die Katze.", "Heute regnet es heftig."]
GOOD = ["Der Hund bellt laut im Hof.", "Die Katze schläft auf dem Bett.", "Es regnet heute stark."]
BAD = ["Hund Hof.", "", "Es regnet."]
ENGLISH = ["The dog barks loudly in the yard.", "The cat sleeps on the sofa.", "It is raining hard today."]


Done = subprocess.CompletedProcess[str]
Mt = Callable[..., Done]
Evaluate = Callable[..., dict[str, Any]]


@pytest.fixture
def mt(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Mt:
    """The same command within this process, which saves loading torch each time."""

    def run(*arguments: object) -> Done:
        monkeypatch.setattr(sys, "argv", ["mt", *map(str, arguments)])
        capsys.readouterr()
        with pytest.raises(SystemExit) as end:
            main()
        return Done([*map(str, arguments)], int(end.value.code or 0), *capsys.readouterr())

    return run


@pytest.fixture
def evaluate(mt: Mt) -> Evaluate:
    """What `mt evaluate --json` prints."""

    def run(*arguments: object) -> dict[str, Any]:
        return read_json(mt("evaluate", *arguments, "--json"))

    return run


def read_json(done: Done) -> dict[str, Any]:
    assert done.returncode == 0, done.stderr
    return dict(json.loads(done.stdout))


def values(found: dict[str, Any], system: int = 0) -> dict[str, float]:
    return {score["name"]: score["value"] for score in found["results"][system]["scores"]}


def sacrebleu(hypotheses: Path, references: Sequence[Path], *options: str) -> dict[str, float]:
    """What the sacrebleu command says of the same files."""
    metrics = ["-m", "bleu", "chrf", "ter", "-w", "12"]
    command = [sys.executable, "-m", "sacrebleu", *map(str, references), "-i", str(hypotheses), *metrics, *options]
    printed = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    return {score["name"]: score["score"] for score in json.loads(printed)}


@pytest.fixture
def files(tmp_path: Path) -> Path:
    """A folder of hand-made files."""
    texts = {"src": ENGLISH, "ref": REFERENCE, "second": SECOND, "good": GOOD, "bad": BAD, "short": GOOD[:2]}
    for name, lines in texts.items():
        write_lines(tmp_path / name, lines)
    return tmp_path


@pytest.fixture
def run(toy_run: Path, tmp_path: Path) -> Path:
    """A run that has half learnt the toy language, for each test its own copy."""
    return shutil.copytree(toy_run, tmp_path / "run")


# --- Files of translations ---------------------------------------------------------------------------------------

EDGES = {
    "an empty hypothesis": (["", "Die Katze schläft auf dem Bett."], ["Ja.", "Die Katze schläft auf dem Sofa."]),
    "one line": (["Der Hund bellt im Hof."], ["Der Hund bellt laut im Hof."]),
    "trailing spaces": (["Der Hund bellt laut.  ", "Ja \t"], ["Der Hund bellt sehr laut. ", "Ja"]),
    "other scripts": (
        ["我喜欢在公园里读书。", "Собака бежит по траве."],
        ["我喜欢在公园看书。", "Собака бежит по полю."],
    ),
    "odd line ends": (["Der\u2028Hund bellt laut im Hof.\r"], ["Der Hund bellt\x85 laut im Hof."]),
}


@pytest.mark.parametrize("name", EDGES)
def test_scores_of_a_file_are_those_of_the_sacrebleu_command(name: str, tmp_path: Path, evaluate: Evaluate) -> None:
    hypothesis, reference = (write_lines(tmp_path / side, lines) for side, lines in zip("hr", EDGES[name], strict=True))
    found = values(read_json(mt_process("evaluate", "--hyp", hypothesis, "--ref", reference, "--json")))
    theirs = sacrebleu(hypothesis, [reference])
    assert {ours: round(found[ours], 12) for ours in theirs} == theirs


def test_several_references_score_together(files: Path, evaluate: Evaluate) -> None:
    references = [files / "ref", files / "second"]
    found = evaluate("--hyp", files / "good", "--ref", references[0], "--ref", references[1])
    theirs = sacrebleu(files / "good", references)
    assert {name: round(values(found)[name], 12) for name in theirs} == theirs
    assert found["references"] == 2


def test_a_test_set_can_lie_in_a_folder_and_in_another_language(files: Path, evaluate: Evaluate) -> None:
    write_lines(files / "mine.de", REFERENCE)
    write_lines(files / "mine.en", ENGLISH)
    german = evaluate("--hyp", files / "good", "--testset", "mine", "--data", files)
    english = evaluate("--hyp", files / "src", "--testset", "mine", "--data", files, "--langs", "de-en")
    assert german["testset"] == f"mine en-de, 3 sentences, from {files}"
    assert values(german)["BLEU"] == values(evaluate("--hyp", files / "good", "--ref", files / "ref"))["BLEU"]
    assert values(english)["BLEU"] == pytest.approx(100)


def test_people_see_the_test_set_the_scores_with_signatures_and_the_share_of_right_lines(files: Path, mt: Mt) -> None:
    done = mt("evaluate", "--hyp", files / "good", "--ref", files / "ref")
    lines = done.stdout.split("\n")
    assert lines[0] == f"{files / 'ref'}, 3 sentences"
    for name in ("BLEU", "BLEU lower-cased", "chrF2", "TER"):
        (line,) = [line for line in lines if line.startswith(f"{name}  ")]
        assert "nrefs:1|bs:1000|seed:12345|" in line
    assert "exactly right: 33.3% of 3 lines" in lines
    assert done.stderr == ""


def test_scoring_a_file_does_not_load_torch(files: Path) -> None:
    program = (
        "import sys; from mt.cli import app; "
        f"app(['evaluate', '--hyp', {str(files / 'good')!r}, '--ref', {str(files / 'ref')!r}], standalone_mode=False); "
        "sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", program], capture_output=True).returncode == 0


# --- Comparison and analysis -------------------------------------------------------------------------------------


def test_systems_are_compared_with_the_first_as_by_the_sacrebleu_command(files: Path, evaluate: Evaluate) -> None:
    found = evaluate("--hyp", files / "bad", "--hyp", files / "good", "--ref", files / "ref")
    assert [result["system"] for result in found["results"]] == [str(files / "bad"), str(files / "good")]
    command = [sys.executable, "-m", "sacrebleu", str(files / "ref"), "-i", str(files / "bad"), str(files / "good")]
    for option, key in (("--paired-bs", "p_bootstrap"), ("--paired-ar", "p_randomization")):
        printed = subprocess.run([*command, option, "-f", "text"], check=True, capture_output=True, text=True).stdout
        (theirs,) = [line.split("(p = ")[1][:6] for line in printed.split("\n") if "(p = " in line]
        baseline, other = found["comparisons"][0]["systems"]
        assert baseline[key] is None
        assert f"{other[key]:.4f}" == theirs


def test_sentences_that_differ_most_stand_with_source_and_reference(files: Path, mt: Mt) -> None:
    done = mt(
        "evaluate", "--hyp", files / "bad", "--hyp", files / "good", "--ref", files / "ref", "--src", files / "src"
    )
    lines = [" ".join(line.split()) for line in done.stdout.split("\n")]
    start = lines.index(f"{files / 'good'} gains most over {files / 'bad'} (chrF2 of the sentence)")
    assert lines[start + 2 : start + 5] == ["line 1", f"source {ENGLISH[0]}", f"reference {REFERENCE[0]}"]
    assert "nowhere" in lines
    assert "baseline" in done.stdout


def test_tokenised_scores_come_on_request_and_are_called_not_comparable(files: Path, evaluate: Evaluate) -> None:
    pytest.importorskip("sacremoses")
    pair = ("--hyp", files / "good", "--ref", files / "ref")
    plain, both = values(evaluate(*pair)), values(evaluate(*pair, "--paper-bleu", "--multi30k-bleu"))
    assert list(both) == [*plain, "paper BLEU (not comparable)", "Multi30k BLEU (not comparable)"]
    french = evaluate(*pair, "--paper-bleu", "--langs", "en-fr")
    assert "tok:moses-fr-atat" in french["results"][0]["scores"][-1]["signature"]


def test_an_analysis_comes_on_request(files: Path, evaluate: Evaluate, mt: Mt) -> None:
    request = ("--hyp", files / "bad", "--ref", files / "ref", "--src", files / "src")
    assert evaluate(*request)["results"][0]["analysis"] is None
    analysis = evaluate(*request, "--analysis")["results"][0]["analysis"]
    assert analysis["empty"] == [2]
    assert analysis["buckets"][0]["words"] == "0-10"
    assert "empty                   1  33.3%  line 2" in mt("evaluate", *request, "--analysis").stdout


# --- A trained model ---------------------------------------------------------------------------------------------


def test_a_run_is_scored_on_the_test_set_of_its_config(
    run: Path, toy_run: Path, toy_text: Path, tmp_path: Path
) -> None:
    output = tmp_path / "translations"
    found = read_json(mt_process("evaluate", "--ckpt", run, "--output", output, "--json"))
    assert found["testset"] == f"{toy_text / 'test'} en-de, 10 sentences, from {toy_run.parent / 'data'}"
    assert found["results"][0]["system"] == f"{run} ({find_checkpoint(run).name}, beam 4, alpha 0.6)"
    theirs = sacrebleu(output, [toy_text / "test.de"])
    assert {name: round(values(found)[name], 12) for name in theirs} == theirs
    assert 0 < values(found)["BLEU"] < 100


def test_translations_kept_are_those_of_mt_translate(
    run: Path, toy_text: Path, tmp_path: Path, evaluate: Evaluate, mt: Mt
) -> None:
    ours, theirs = tmp_path / "ours", tmp_path / "theirs"
    source, reference = toy_text / "valid.en", toy_text / "valid.de"
    evaluate("--ckpt", run, "--src", source, "--ref", reference, "--beam", 2, "--alpha", 1, "--output", ours)
    assert (
        mt("translate", "--ckpt", run, "--input", source, "--output", theirs, "--beam", 2, "--alpha", 1).returncode == 0
    )
    assert ours.read_bytes() == theirs.read_bytes()


def test_a_model_is_scored_with_each_kind_of_noise_beside_its_clean_score(
    run: Path, evaluate: Evaluate, mt: Mt
) -> None:
    found = evaluate("--ckpt", run, "--stress")["results"]
    assert [one["noise"] for one in found] == ["as it is", "lower case", "upper case", "no end mark", "typos"]
    assert found[0]["scores"][0]["value"] == values(evaluate("--ckpt", run))["BLEU"]
    assert [one["changed"] for one in found[:4]] == [0, 0, 10, 10], "the toy language has small letters only"
    assert found[1]["scores"] == found[0]["scores"]
    shown = mt("evaluate", "--ckpt", run, "--stress").stdout
    change = found[3]["scores"][0]["value"] - found[0]["scores"][0]["value"]
    assert f"no end mark     10  {found[3]['scores'][0]['value']:.2f}" in " ".join(shown.split(" "))
    assert f"{change:+.2f}" in shown
    refused = mt("evaluate", "--ckpt", run, "--stress", "--all-sets")
    assert (refused.returncode, refused.stderr) == (2, "mt: --stress does not go with --all-sets\n")


def test_scores_of_a_run_are_recorded_once_in_the_run(run: Path, toy_text: Path, evaluate: Evaluate) -> None:
    first = evaluate("--ckpt", run)
    evaluate("--ckpt", run)
    evaluate("--ckpt", run, "--src", toy_text / "valid.en", "--ref", toy_text / "valid.de")
    recorded = json.loads((run / "scores.json").read_text(encoding="utf-8"))
    assert [score["name"] for score in recorded] == ["BLEU", "BLEU lower-cased", "chrF2", "TER"] * 2
    assert recorded[0]["testset"] == first["testset"]
    assert [score["value"] for score in recorded[:4]] == [score["value"] for score in first["results"][0]["scores"]]


def test_scores_of_a_single_checkpoint_or_a_file_are_recorded_nowhere(
    run: Path, toy_text: Path, files: Path, evaluate: Evaluate
) -> None:
    evaluate("--ckpt", run / "checkpoints" / "step-00000120")
    evaluate("--hyp", files / "good", "--ref", files / "ref")
    assert not list(files.rglob("scores.json"))


def test_a_damaged_scores_file_is_left_alone_and_does_not_cost_the_result(run: Path, mt: Mt) -> None:
    (run / "scores.json").write_text("[{", encoding="utf-8")
    done = mt("evaluate", "--ckpt", run, "--quiet")
    assert "exactly right" in done.stdout
    assert "scores.json" in done.stderr
    assert (run / "scores.json").read_text(encoding="utf-8") == "[{"


def test_translations_are_made_once_for_the_same_model_text_and_decoding(run: Path, mt: Mt) -> None:
    first, again = mt("evaluate", "--ckpt", run), mt("evaluate", "--ckpt", run)
    other = mt("evaluate", "--ckpt", run, "--beam", 1)
    assert first.stdout == again.stdout
    reused = ["translations made before" in done.stderr for done in (first, again, other)]
    assert reused == [False, True, False]
    assert len(list((run / "translations").iterdir())) == 2


def test_translations_of_another_model_under_the_same_name_are_not_reused(run: Path, mt: Mt) -> None:
    assert mt("evaluate", "--ckpt", run).returncode == 0
    shutil.rmtree(run / "checkpoints" / "averaged")
    shutil.copytree(run / "checkpoints" / "step-00000060", run / "checkpoints" / "averaged")
    state = run / "checkpoints" / "averaged"
    done = mt("evaluate", "--ckpt", state)
    assert done.returncode == 0
    assert "translations made before" not in done.stderr


def test_a_run_that_cannot_be_written_to_is_scored_all_the_same(run: Path, mt: Mt) -> None:
    (run / "translations").write_text("in the way")
    done = mt("evaluate", "--ckpt", run, "--quiet")
    assert done.returncode == 0
    assert "will not be used again" in done.stderr
    assert "BLEU" in done.stdout


def test_the_newest_checkpoints_can_be_averaged_for_scoring(run: Path, evaluate: Evaluate) -> None:
    averaged = evaluate("--ckpt", run, "--average", 2)  # the same two as in the run's own average
    assert averaged["results"][0]["system"] == (f"{run} (average of step-00000060 to step-00000120, beam 4, alpha 0.6)")
    assert values(averaged) == values(evaluate("--ckpt", run / "averaged"))


def test_models_are_compared_with_each_other_and_with_files(run: Path, toy_text: Path, evaluate: Evaluate) -> None:
    early, late = (run / "checkpoints" / f"step-00000{update}" for update in ("060", "120"))
    found = evaluate("--ckpt", early, "--ckpt", late, "--hyp", toy_text / "test.de")
    assert [result["system"] for result in found["results"]] == [
        str(toy_text / "test.de"),
        f"{early} (beam 4, alpha 0.6)",
        f"{late} (beam 4, alpha 0.6)",
    ]
    assert [contrast["system"] for contrast in found["contrasts"]] == [
        f"{path} (beam 4, alpha 0.6)" for path in (early, late)
    ]
    losses = [difference for contrast in found["contrasts"] for difference in contrast["losses"]]
    assert losses
    assert all(difference["source"] for difference in losses)


def test_a_missing_package_is_said_before_a_model_translates(
    run: Path, mt: Mt, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "sacremoses", None)
    assert_refused(mt("evaluate", "--ckpt", run, "--paper-bleu"), "pip install sacremoses")
    assert not (run / "translations").exists()


def test_the_target_language_chooses_the_tokenizer_of_bleu(tmp_path: Path, mt: Mt) -> None:
    hypothesis, reference = (
        write_lines(tmp_path / "hyp", ["我喜欢在公园里读书。"]),
        write_lines(tmp_path / "ref", ["我喜欢在公园里看书。"]),
    )
    other = write_lines(tmp_path / "other", ["我不喜欢。"])
    files = ["--hyp", hypothesis, "--hyp", other, "--ref", reference, "--analysis"]
    found = json.loads(mt("evaluate", *files, "--langs", "en-zh", "--json").stdout)
    first = found["results"][0]
    assert "tok:zh" in first["scores"][0]["signature"]
    assert (
        first["scores"][0]["value"] == first["analysis"]["bleu"] == found["comparisons"][0]["systems"][0]["value"] > 50
    )
    assert "tok:zh" in found["comparisons"][0]["bootstrap_signature"]


# --- All checkpoints of a run ------------------------------------------------------------------------------------


def test_a_curve_has_the_score_of_every_checkpoint(run: Path, evaluate: Evaluate) -> None:
    curve = evaluate("--ckpt", run, "--all-checkpoints", "--beam", 1)
    assert [point["checkpoint"] for point in curve["points"]] == [step_name(60), step_name(120), "averaged"]
    for point in curve["points"]:
        alone = evaluate("--ckpt", run / "checkpoints" / point["checkpoint"], "--beam", 1)
        assert values(alone)["BLEU"] == point["bleu"]


def test_a_curve_marks_the_best_by_validation_and_the_averaged(run: Path, evaluate: Evaluate) -> None:
    records = [json.loads(line) for line in (run / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]
    bleu = {one["update"]: one["valid_bleu"] for one in records if "valid_bleu" in one and "averaged" not in one}
    best = max(bleu, key=bleu.__getitem__)
    marks = {point["checkpoint"]: point["mark"] for point in evaluate("--ckpt", run, "--all-checkpoints")["points"]}
    assert marks.pop("averaged") == "averaged"
    assert {name for name, mark in marks.items() if mark} == {f"step-{best:08d}"}


def test_a_second_curve_translates_nothing_and_is_recorded_once(run: Path, mt: Mt) -> None:
    first, again = (mt("evaluate", "--ckpt", run, "--all-checkpoints") for _ in range(2))
    count = len(list((run / "checkpoints").iterdir()))
    assert first.stdout == again.stdout
    assert [done.stderr.count("translations made before") for done in (first, again)] == [0, count]
    assert first.stdout.count("█") > 0
    (curve,) = json.loads((run / "curves.json").read_text(encoding="utf-8"))
    assert len(curve["points"]) == count


# --- The report --------------------------------------------------------------------------------------------------


def test_a_report_shows_what_evaluation_found(run: Path, mt: Mt) -> None:
    mt("evaluate", "--ckpt", run)
    mt("evaluate", "--ckpt", run, "--all-checkpoints")
    done = mt("report", run)
    assert done.stdout == f"{run / 'report.html'}\n"
    page = (run / "report.html").read_text(encoding="utf-8")
    assert f"{find_checkpoint(run).name}, beam 4, alpha 0.6" in page
    assert "Test BLEU" in page


# --- Mistakes ----------------------------------------------------------------------------------------------------

MISTAKES = {
    "nothing to score": ([], "give --ckpt, a model, or --hyp"),
    "no reference": (["--hyp", "good"], "--ref is missing"),
    "unequal lengths": (["--hyp", "short", "--ref", "ref"], "short: 2 hypotheses but 3 references"),
    "unequal references": (["--hyp", "good", "--ref", "ref", "--ref", "short"], "ref has 3 lines but short has 2"),
    "an empty reference": (["--hyp", "good", "--ref", "empty"], "empty: has no lines"),
    "an empty hypothesis file": (["--hyp", "empty", "--ref", "ref"], "empty: there are no hypotheses"),
    "an absent file": (["--hyp", "absent", "--ref", "ref"], "absent: no such file"),
    "a folder": (["--hyp", ".", "--ref", "ref"], ".: cannot be read"),
    "no text": (["--hyp", "latin1", "--ref", "ref"], "latin1:1: not UTF-8"),
    "two kinds of test set": (["--hyp", "good", "--ref", "ref", "--testset", "x"], "either --testset or --src"),
    "a folder without a test set": (["--hyp", "good", "--ref", "ref", "--data", "."], "--data is the folder"),
    "an unknown test set": (["--hyp", "good", "--testset", "newstest3014"], "did you mean newstest2014"),
    "a test set that is not in the folder": (["--hyp", "good", "--testset", "x", "--data", "."], "x.en and x.de not"),
    "no languages": (["--hyp", "good", "--ref", "ref", "--langs", "german"], "--langs german: give source"),
    "a beam without a model": (["--hyp", "good", "--ref", "ref", "--beam", "3"], "decode.beam is about translating"),
    "the same file twice": (["--hyp", "good", "--hyp", "./good", "--ref", "ref"], "good is given twice"),
    "output of nothing": (["--hyp", "good", "--ref", "ref", "--output", "o"], "--output keeps the translations of"),
    "a curve of a file": (["--hyp", "good", "--ref", "ref", "--all-checkpoints"], "--all-checkpoints is for one run"),
    "a curve with an analysis": (["--ckpt", "r", "--all-checkpoints", "--analysis"], "does not go with --analysis"),
    "a curve of nothing": (["--ckpt", ".", "--all-checkpoints"], ".: not a run with checkpoints"),
    "an absent run": (["--ckpt", "absent"], "absent: no such run or checkpoint"),
    "a folder that is no run": (["--ckpt", "."], ".: holds no checkpoint"),
    "a source without a reference": (["--ckpt", "absent", "--src", "src"], "--ref is missing"),
    "a reference without a source": (["--ckpt", "absent", "--ref", "ref"], "--ref needs --src"),
}


@pytest.mark.parametrize("name", MISTAKES)
def test_a_mistake_ends_in_one_sentence_and_status_2(
    name: str, files: Path, mt: Mt, monkeypatch: pytest.MonkeyPatch
) -> None:
    arguments, sentence = MISTAKES[name]
    write_lines(files / "empty", [])
    (files / "latin1").write_bytes("Käse\n".encode("latin-1"))
    monkeypatch.chdir(files)
    assert_refused(mt("evaluate", *arguments), sentence)


def test_a_report_of_something_else_is_refused(files: Path, mt: Mt) -> None:
    assert_refused(mt("report", files), f"{files}: not a run directory")
    assert_refused(mt("report", files / "absent"), "absent: not a run directory")


def assert_refused(done: Done, sentence: str) -> None:
    assert done.returncode == 2
    assert done.stdout == ""
    assert sentence in done.stderr
    assert done.stderr.startswith("mt: ")
    assert done.stderr.count("\n") <= 2
    assert "Traceback" not in done.stderr


def test_mistakes_about_a_model_end_in_one_sentence_too(run: Path, files: Path, mt: Mt) -> None:
    mistakes: dict[str, list[object]] = {
        "translates en-de, not de-en": ["--langs", "de-en"],
        "ref has 3 lines but": ["--src", files / "ref", "--ref", files / "short"],
        "9 checkpoints to average, but it holds 2": ["--average", 9],
        "there is no folder": ["--output", files / "ref" / "x"],
        "torch finds no such device": ["--device", "abacus"],
    }
    for sentence, arguments in mistakes.items():
        assert_refused(mt("evaluate", "--ckpt", run, *arguments, "--quiet"), sentence)


def test_a_run_whose_prepared_data_are_gone_says_how_to_name_a_test_set(run: Path, mt: Mt) -> None:
    change_config(run, "/data\n", "/gone\n")
    assert_refused(mt("evaluate", "--ckpt", run), "name a test set: --testset, or --src and --ref")


def test_prepared_data_with_another_test_set_are_not_taken_for_the_runs(run: Path, mt: Mt) -> None:
    change_config(run, "/test\n", "/other\n")
    assert_refused(mt("evaluate", "--ckpt", run), "was prepared with another data.test")


def change_config(run: Path, old: str, new: str) -> None:
    config = find_checkpoint(run) / "config.yaml"
    text = config.read_text(encoding="utf-8")
    assert text.count(old) == 1
    data = text.replace(old, new).encode()
    config.write_bytes(data)
    manifest = json.loads((config.parent / "MANIFEST.json").read_text())
    manifest["files"][config.name] = {"bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}
    (config.parent / "MANIFEST.json").write_text(json.dumps(manifest))


def test_a_damaged_checkpoint_is_named(run: Path, mt: Mt) -> None:
    weights = find_checkpoint(run) / "model.safetensors"
    os.truncate(weights, 1000)
    assert_refused(mt("evaluate", "--ckpt", run), f"{weights}: damaged")
