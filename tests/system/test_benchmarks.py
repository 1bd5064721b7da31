"""Every benchmark still runs: each at the smallest scale, without the peers, for the table that it prints."""

import importlib
import json
import os
import re
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).parents[2] / "scripts" / "benchmarks"
NUMBER = r" +[\d,.]+"
SYSTEM = rf"(?:{NUMBER}){{3}} +\d+% +\d+\.\d\dx{NUMBER}"  # a row of the tables that compare systems


def benchmark(script: str, *options: object) -> str:
    """What a benchmark prints; it has to say what it ran on."""
    output = printed(script, *options)
    assert re.search(r"\d+ cores, .*torch \d.*, load \d.*, commit ", output), output
    return output


def printed(script: str, *options: object) -> str:
    environment = {**os.environ, "PYTHONPATH": str(BENCHMARKS.parents[1])}
    command = [sys.executable, str(BENCHMARKS / f"{script}.py"), *map(str, options)]
    result = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert not result.returncode, result.stdout + result.stderr
    return result.stdout


def assert_row(row: str, output: str) -> None:
    assert re.search(f"^{row}$", output, flags=re.MULTILINE), output


def test_batches_prints_a_row_for_each_number_of_pairs() -> None:
    output = benchmark("batches", "--pairs", 200, 2_000, "--tokens", 500)
    for pairs in ("200", "2,000"):
        assert_row(rf" +{pairs}{NUMBER}{NUMBER}{NUMBER}%{NUMBER}", output)


@pytest.mark.slow
def test_train_compares_each_system_with_the_limit() -> None:
    small = ("--size", "toy", "--tokens", 300, "--windows", 2, "--updates", 1, "--threads", 1)
    output = benchmark("train", *small, "--systems", "nn.Transformer")
    for system in ("mt", "nn.Transformer", "products alone"):
        assert_row(system + SYSTEM, output)
    assert "MarianMTModel" not in output


@pytest.mark.slow
def test_decode_compares_each_system_with_the_limit() -> None:
    small = ("--size", "toy", "--sentences", 8, "--batch", 4, "--windows", 2, "--threads", 1)
    output = benchmark("decode", *small, "--beam", 4, "--systems", "mt")
    for system in ("mt", "products alone"):
        assert_row(system + SYSTEM, output)


@pytest.mark.slow
def test_decode_translates_with_a_trained_run(toy_run: Path, toy_text: Path) -> None:
    small = ("--batch", 8, "--windows", 1, "--threads", 1, "--beam", 1, "--systems", "mt")
    output = benchmark("decode", "--ckpt", toy_run, "--input", toy_text / "test.en", *small)
    assert_row("mt" + SYSTEM, output)


@pytest.mark.slow
def test_costs_measures_one_process_and_several() -> None:
    output = benchmark("costs", "--size", "toy", "--seconds", 0, "--threads", 1, "--rows", 5, 7)
    assert_row(rf" +8,000 +27 +1,024 +1{NUMBER}{NUMBER}", output)
    assert_row(rf" +8,000 +27 +4,096 +2{NUMBER}{NUMBER}", output)


def test_checkpoint_times_waiting_and_writing_beside_training(tmp_path: Path) -> None:
    output = benchmark("checkpoint", "--size", "toy", "--rounds", 1, "--folder", tmp_path)
    for figure in ("median", "worst"):
        assert_row(r"(?: +-?\d+\.\d\d){4} " + figure, output)
    assert not list(tmp_path.iterdir())


def test_prepare_measures_each_stage_with_each_number_of_processes(toy_text: Path, tmp_path: Path) -> None:
    output = benchmark("prepare", toy_text / "train", "--pairs", 300, "--vocab-size", 320, "--work", tmp_path)
    for stage in ("reading", "learning", "encoding", "all"):
        row = rf"^{stage} +[\d.]+ +[\d,]+ +(\d+) +\d+ +[\d.]+$"
        peaks = [int(peak) for peak in re.findall(row, output, re.MULTILINE)]
        assert len(peaks) == 2
        assert stage != "all" or all(10 < peak < 2_000 for peak in peaks)
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
def test_job_kills_a_translation_and_compares_it_with_one_in_one_go(
    toy_run: Path, toy_text: Path, tmp_path: Path
) -> None:
    many = tmp_path / "many.en"
    many.write_text((toy_text / "train.en").read_text(encoding="utf-8") * 50, encoding="utf-8")
    work = tmp_path / "work"
    arguments = ("--ckpt", toy_run, "--input", many, "--work", work, "--kill-at", 1, "--compare", 300)
    output = benchmark("job", *arguments, "--beam", 1)
    assert re.search(r"^killed at line \d", output, re.MULTILINE)
    assert "5,000 lines of output for 5,000" in output
    assert "the first 300 lines made in one go: the same bytes" in output


@pytest.mark.slow
def test_serve_prints_a_row_for_each_number_of_clients(toy_run: Path, toy_text: Path) -> None:
    arguments = ("--ckpt", toy_run, "--input", toy_text / "test.en", "--clients", 1, 20, "--requests", 60)
    output = benchmark("serve", *arguments, "decode.max_extra=8")
    for clients in (1, 20):
        assert_row(rf" +{clients} +60 +0{NUMBER}{NUMBER}{NUMBER}{NUMBER}", output)
    assert_row(rf" +alone +60 +0{NUMBER}{NUMBER}", output)


GPU_PIECES = ("environment", "ceilings", "training*, mt", "updates*", "profile*", "run*", "decoding*, mt", "resume*")


@pytest.mark.slow
def test_gpu_measures_each_piece_once_and_its_table_shows_them(toy_yaml: Path, toy_text: Path, tmp_path: Path) -> None:
    results, text = tmp_path / "gpu.jsonl", toy_text / "test.en"
    command = ("gpu", results, "--toy", "--config", toy_yaml, "--source", text, "--only", *GPU_PIECES)
    assert "decoding test.en, mt: failed" in printed(*command, "--ckpt", tmp_path / "missing")
    with results.open("a") as file:
        file.write('{"piece": "cut off')
    again = printed(*command, "--again")  # with the run that has been trained meanwhile
    assert re.fullmatch(r"decoding test.en, mt: done in \d+ s \n", again), again

    tables = benchmark("gpu_table", results)
    number = r" [\d,.]+"
    assert_row(rf"\| mt \|{number} \|{number} to{number} \| [\d.]+% \| 1.00x \|  \| 0 \|.*", tables)
    assert_row(rf"\| one pass \|({number} \|){{5}} [CG]PU \|", tables)
    assert_row(rf"\| `aten::mm` \|{number} \|{number}% \|{number} \|", tables)
    for beam in (1, 4):
        row = rf"\| mt \| {beam} \| 4 \|{number} \|{number} to{number} \| 1.00x \|  \|"
        assert len(re.findall(f"^{row}$", tables, flags=re.MULTILINE)) == 2, tables  # random weights, and trained ones
    assert "Run toy, part 1: 12 updates" in tables
    assert re.search(r"^Run toy, score, .*: BLEU \d", tables, flags=re.MULTILINE), tables
    assert "the same bytes as the run left alone" in tables


TOY_VARIANT = ("data.vocab_size=320", "model.d_model=16", "model.d_ff=32", "model.heads=2", "train.updates=2")


@pytest.mark.slow
def test_variants_measures_each_with_its_own_number_of_parameters(tmp_path: Path) -> None:
    some = ("--only", "published", "swiglu", "--measure", "--seconds", 0, "--threads", 1)
    output = benchmark("variants", tmp_path, *TOY_VARIANT, "data.train=x", "data.valid=x", *some)
    parameters = [
        int(row.replace(",", ""))
        for row in re.findall(r"^(?:published|swiglu) +([\d,]+) +[\d,]+ +\d\.\d\d  -$", output, re.MULTILINE)
    ]
    assert parameters[1] - parameters[0] == 6 * (16 * 32 + 32)  # a third matrix, and its bias, in each layer


@pytest.mark.slow
def test_variants_trains_each_and_gives_the_bleu_of_its_average(toy_text: Path, tmp_path: Path) -> None:
    text = (f"data.train={toy_text / 'train'}", f"data.valid={toy_text / 'valid'}", "data.test=[]")
    small = ("train.checkpoint_every=1", "train.average=2", "batch.tokens=200", "train.precision=float32")
    command = ("variants", tmp_path, *TOY_VARIANT, *text, *small, "--only", "pre-norm")
    for _ in range(2):  # what is done is left as it is
        assert_row(r"pre-norm +[\d,]+ +- +-  \d+\.\d\d", benchmark(*command))


@pytest.mark.slow
def test_long_measures_each_kind_of_positions_and_the_quality_of_joined_sentences(toy_run: Path) -> None:
    output = benchmark("long", "--size", "toy", "--lengths", 32, "--threads", 1, "--kinds", "universal")
    assert_row(r"\| universal \| 32 \|( [\d.]+ \|){6}", output)
    output = benchmark("long", "--quality", toy_run, "--threads", 1)
    for joined in ("-", r"\d+ pieces"):
        assert_row(rf"\| run \| \d+ \| {joined} \| \d+ \| [\d.]+ \| \d+% \| [\d.]+ \|", output)


@pytest.mark.slow
def test_frontier_measures_each_way_to_run_a_model(toy_run: Path, toy_text: Path, tmp_path: Path) -> None:
    text = ("--src", toy_text / "test.en", "--ref", toy_text / "test.de", "--work", tmp_path / "work")
    output = benchmark("frontier", "--ckpt", toy_run, *text, "--lines", 4, "--windows", 1, "--alone", 2)
    systems = ["mt float32", "mt int8", *(["CTranslate2 int8"] if find_spec("ctranslate2") else [])]
    for system in systems:
        assert_row(rf"\| run \| {system} \| 1 \|( [\d.,]+ \|){{6}}", output)
    assert f"no shortlist; mt shortlist {toy_run} makes it" in output
    assert (tmp_path / "work" / "frontier.jsonl").read_text().count("\n") == len(systems)
    assert (tmp_path / "work" / "frontier.svg").read_text().count("<circle") == len(systems)
    assert (tmp_path / "work" / "frontier.md").read_text() in output


@pytest.mark.slow
def test_time_to_quality_goes_from_training_to_a_table_and_a_plot(toy_yaml: Path, tmp_path: Path) -> None:
    work = ("--work", tmp_path / "work")
    printed("time_to_quality", "prepare", *work, "--config", toy_yaml, "train.checkpoint_every=12")
    systems = ["mt", *(["huggingface"] if find_spec("transformers") and find_spec("accelerate") else [])]
    for system in systems:
        for _ in range(2):  # what is done is left as it is
            printed("time_to_quality", "run", system, *work)
        assert (tmp_path / "work" / "runs" / system / "sessions.jsonl").read_text().count("\n") == 1
    lay_out_run(tmp_path / "work")
    output = benchmark("time_to_quality", "table", *work)
    for system in systems:
        assert_row(rf"\| {system} \|( not in 0\.\d \|  \|){{3}} [\d.]+ \| [\d,]+ \| 0\.\d\d \|", output)
    assert_row(r"\| learnt \|( 2\.0 \| 4\.00M \|){3} 100\.00 \| 33,333 \| 1\.50 \|", output)  # the first, not the best
    points = (tmp_path / "work" / "points.jsonl").read_text().splitlines()
    assert len(points) == len(systems) + 4
    assert (tmp_path / "work" / "time_to_quality.svg").read_text().count('fill="none"') == len(systems) + 1


def lay_out_run(work: Path) -> None:
    """A peer's run whose outputs are the references from its second checkpoint on, but for the third."""
    run, right = work / "runs" / "learnt", (work / "text" / "valid.de").read_text(encoding="utf-8")
    (run / "outputs").mkdir(parents=True)
    times = [{"update": update, "seconds": 60.0 * update, "tokens": 2_000_000 * update} for update in (1, 2, 3, 4)]
    (run / "run.json").write_text("{}")
    (run / "times.json").write_text(json.dumps(times))
    for update, output in enumerate(["\n" * right.count("\n"), right] * 2, 1):
        (run / "outputs" / f"{update}.pieces").write_text(output, encoding="utf-8")
    (run / "sessions.jsonl").write_text(json.dumps({"status": 0, "peak_gib": 1.5, "machine": "another"}) + "\n")


def test_time_to_quality_counts_the_seconds_up_to_the_checkpoint_that_a_peer_goes_on_from(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(BENCHMARKS)
    stopwatch = importlib.import_module("quality_peers").Stopwatch
    first = stopwatch(tmp_path)
    first.go()
    first.stand()
    first.tokens = 7
    first.note(3)
    noted = first.seconds
    first.go()
    first.stand()  # and is killed before the next checkpoint
    again = stopwatch(tmp_path)
    again.stand()  # standing still already
    assert 0 < noted < first.seconds
    assert (again.update, again.seconds, again.tokens) == (3, noted, 7)
