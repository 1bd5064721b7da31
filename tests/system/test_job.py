"""Laws of jobs: one line out for one in, whole or not at all, and after a kill the bytes of a run in one go."""

import gzip
import hashlib
import io
import json
import math
import multiprocessing
import os
import re
import signal
import stat
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import pytest
import torch
from helpers import COMPRESSORS, PATIENCE, children_of, fork, fork_world, mt, statuses, wait_until

from mt.console import Console
from mt.data.lines import opened
from mt.distributed import joined
from mt.errors import DataError, Interrupted, UsageError
from mt.translate import job as job_module
from mt.translate.job import run_job, translate
from mt.translate.output import Output, Parts
from mt.translate.plan import Job, plan_job
from mt.translate.translator import Translator

LINES = [
    "a man runs here .",
    "",
    "the old dog sleeps at home .",
    "   ",
    "naïve 東京 🙂 e\u0301 \u200d\u2028 text\u0085",
    "tab\there",
    "a bell \x07 and a \x00 and \x1b[31m red",
    "مرحبا Ελλάδα שלום",
    "lone \r carriage return",
    "a woman sings there .",
]


@pytest.fixture(scope="session")
def translator(toy_run: Path) -> Translator:
    return Translator(toy_run, device="cpu", decode={"max_extra": 8, "beam": 2})


@pytest.fixture
def source(tmp_path: Path) -> Path:
    path = tmp_path / "source.txt"
    path.write_text("".join(f"{line}\n" for line in LINES), encoding="utf-8", newline="\n")
    return path


def run(translator: Translator, *inputs: Path, output: Path, **options: object) -> bytes:
    run_job(translator, Job(inputs=inputs, outputs=(output,), **options), Console(quiet=True))  # type: ignore[arg-type]
    return output.read_bytes() if output.is_file() else b""


def test_each_line_has_its_line_in_order(translator: Translator, source: Path, tmp_path: Path) -> None:
    out = run(translator, source, output=tmp_path / "out.txt")
    assert out.decode().split("\n") == [*translator(LINES), ""]
    assert [not line.strip() for line in LINES] == [not line for line in out.decode().split("\n")[:-1]]


@pytest.mark.parametrize("change", ["no final newline", "carriage returns", "byte-order mark"])
def test_how_lines_end_changes_nothing(translator: Translator, source: Path, tmp_path: Path, change: str) -> None:
    expected = run(translator, source, output=tmp_path / "out.txt")
    data = source.read_bytes()
    other = {
        "no final newline": data[:-1],
        "carriage returns": data.replace(b"\n", b"\r\n"),
        "byte-order mark": b"\xef\xbb\xbf" + data,
    }[change]
    source.write_bytes(other)
    assert run(translator, source, output=tmp_path / "other.txt") == expected


def test_an_empty_file_gives_an_empty_file(translator: Translator, tmp_path: Path) -> None:
    (tmp_path / "empty").touch()
    assert run(translator, tmp_path / "empty", output=tmp_path / "out") == b""
    assert (tmp_path / "out").is_file()


def test_stdin_goes_to_stdout_and_nothing_else_does(
    translator: Translator, source: Path, monkeypatch: pytest.MonkeyPatch, capfdbinary: pytest.CaptureFixture[bytes]
) -> None:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(source.read_bytes())))
    run_job(translator, Job(), Console())
    out, err = capfdbinary.readouterr()
    assert out.decode().split("\n") == [*translator(LINES), ""]
    assert b"translating: 10 lines" in err


def test_invalid_utf8_is_told_by_line_or_replaced(translator: Translator, tmp_path: Path) -> None:
    path = tmp_path / "bad.txt"
    path.write_bytes(b"a man runs here .\na \xff dog\nlast")
    with pytest.raises(DataError, match=r"bad\.txt:2: not UTF-8.*--errors replace"):
        run(translator, path, output=tmp_path / "out.txt")
    assert sorted(file.name for file in tmp_path.iterdir()) == ["bad.txt"]
    out = run(translator, path, output=tmp_path / "out.txt", errors="replace")
    assert out.decode().split("\n") == [*translator(["a man runs here .", "a \ufffd dog", "last"]), ""]


def test_long_lines_are_told_by_number(
    translator: Translator, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "long.txt"
    path.write_text("short\n" + "the dog sleeps here . " * 2500 + "\nshort\n")
    out = run(translator, path, output=tmp_path / "out.txt")
    assert out.count(b"\n") == 3
    err = capsys.readouterr().err
    assert "long.txt:2: " in err
    assert "parts" in err
    assert "long.txt:1" not in err


@pytest.mark.parametrize("suffix", ["", ".gz", ".xz", ".bz2", ".zst"])
def test_compressed_in_and_out_by_name(
    translator: Translator, source: Path, tmp_path: Path, suffix: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Several chunks, hence several compressed members, read back as one text."""
    monkeypatch.setattr(job_module, "CHUNK_LINES", 3)
    path = tmp_path / f"in.txt{suffix}"
    data = source.read_bytes()
    path.write_bytes(COMPRESSORS[suffix](data) if suffix else data)
    run(translator, path, output=tmp_path / f"out.txt{suffix}")
    with opened(tmp_path / f"out.txt{suffix}") as file:
        assert file.read().decode().split("\n") == [*translator(LINES), ""]


def test_a_damaged_input_ends_in_a_sentence(translator: Translator, source: Path, tmp_path: Path) -> None:
    path = tmp_path / "in.txt.gz"
    path.write_bytes(gzip.compress(source.read_bytes() * 100)[:-20])
    with pytest.raises(DataError, match=r"in\.txt\.gz: cannot be read"):
        run(translator, path, output=tmp_path / "out.txt")
    assert not (tmp_path / "out.txt").exists()


@pytest.mark.parametrize("name", ["out.txt", "out.txt.gz"])
@pytest.mark.parametrize("sample", [False, True])
def test_a_killed_job_goes_on_and_ends_with_the_same_bytes(
    toy_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, sample: bool
) -> None:
    monkeypatch.setattr(job_module, "CHUNK_LINES", 7)
    translator = Translator(toy_run, device="cpu", decode={"max_extra": 8, "beam": 2, "sample": sample})
    path = tmp_path / "big.txt"
    path.write_text("".join(f"a man number {number} runs here .\n" for number in range(150)))
    expected = run(translator, path, output=tmp_path / f"straight-{name}")
    target, sidecar = tmp_path / name, tmp_path / f".{name}.progress"
    job = Job(inputs=(path,), outputs=(target,))
    for _ in range(2):
        before = lines_done(sidecar)
        child = multiprocessing.get_context("fork").Process(target=run_job, args=(translator, job, Console(quiet=True)))
        child.start()
        wait_until(lambda enough=before + 14: lines_done(sidecar) >= enough)  # type: ignore[misc]
        os.kill(child.pid or 0, signal.SIGKILL)
        child.join()
        assert not target.exists()
    with (tmp_path / f".{name}.partial").open("ab") as file:
        file.write(b"half a chu")  # written, but not noted
    assert run(translator, path, output=target) == expected
    assert not sidecar.exists()
    assert not (tmp_path / f".{name}.partial").exists()


def test_how_far_a_job_has_come_is_on_the_disk_before_it_counts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    synced, fsync = list[int](), os.fsync

    def note(file: int) -> None:
        fsync(file)
        synced.append(os.fstat(file).st_ino)

    monkeypatch.setattr(os, "fsync", note)
    with Output(tmp_path / "out.txt", {}) as output:
        output.append("a line\n", lines=1, input_sha256="")
        assert {output.sidecar.stat().st_ino, tmp_path.stat().st_ino} <= set(synced)


class TestUnfinishedJobs:
    @pytest.fixture
    def unfinished(self, translator: Translator, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
        """A job stopped by a bad line after two chunks."""
        monkeypatch.setattr(job_module, "CHUNK_LINES", 2)
        path = tmp_path / "in.txt"
        path.write_bytes(b"a man\na dog\na woman\nthe dog\n\xff\nlast\n")
        with pytest.raises(DataError, match=r"in\.txt:5"):
            run(translator, path, output=tmp_path / "out.txt")
        return path

    def test_the_rest_may_be_put_right(self, translator: Translator, unfinished: Path, tmp_path: Path) -> None:
        unfinished.write_bytes(unfinished.read_bytes().replace(b"\xff", b"here"))
        out = run(translator, unfinished, output=tmp_path / "out.txt")
        assert out.decode().splitlines() == translator(["a man", "a dog", "a woman", "the dog", "here", "last"])

    def test_another_beginning_is_refused(self, translator: Translator, unfinished: Path, tmp_path: Path) -> None:
        unfinished.write_bytes(unfinished.read_bytes().replace(b"a man", b"a cat"))
        with pytest.raises(
            DataError, match=r"is not what the unfinished job began with.*remove \S+/\.out\.txt\.progress"
        ):
            run(translator, unfinished, output=tmp_path / "out.txt")

    def test_other_settings_are_refused(self, toy_run: Path, unfinished: Path, tmp_path: Path) -> None:
        other = Translator(toy_run, device="cpu", decode={"max_extra": 8, "beam": 3})
        with pytest.raises(UsageError, match=r"other settings is there \(beam, scores differ\)"):
            run(other, unfinished, output=tmp_path / "out.txt", scores=True)

    def test_a_lost_partial_file_starts_the_job_anew(
        self, translator: Translator, unfinished: Path, tmp_path: Path
    ) -> None:
        (tmp_path / ".out.txt.partial").unlink()
        unfinished.write_bytes(b"a cat\n")
        assert run(translator, unfinished, output=tmp_path / "out.txt").decode().splitlines() == translator(["a cat"])


def test_several_inputs_have_an_output_each(translator: Translator, tmp_path: Path) -> None:
    for name in ("a.txt", "b.txt"):
        (tmp_path / name).write_text(f"a man\n{name}\n")
    (tmp_path / "out").mkdir()
    inputs = (tmp_path / "a.txt", tmp_path / "b.txt")
    run_job(translator, Job(inputs=inputs, outputs=(tmp_path / "out",)), Console(quiet=True))
    run_job(translator, Job(inputs=inputs, outputs=(tmp_path / "x", tmp_path / "y")), Console(quiet=True))
    for name, other in (("a.txt", "x"), ("b.txt", "y")):
        out = (tmp_path / "out" / name).read_text()
        assert out.splitlines() == translator(["a man", name])
        assert (tmp_path / other).read_text() == out


def test_what_does_not_fit_is_said_before_any_work(tmp_path: Path) -> None:
    (tmp_path / "a").touch()
    a, b = tmp_path / "a", tmp_path / "b"
    for job, message in (
        (Job(inputs=(b,)), "b: no such file"),
        (Job(inputs=(tmp_path,)), "is a folder"),
        (Job(inputs=(a,), outputs=(a,)), "is the input itself"),
        (Job(inputs=(a,), outputs=(b / "c",)), "there is no folder"),
        (Job(inputs=(a, a), outputs=(b,)), "2 inputs and 1 output:"),
        (Job(inputs=(a, a), outputs=(tmp_path,)), "same name"),
        (Job(inputs=(a,), prefix=a, score_ref=a), "either --prefix or --score-ref"),
        (Job(inputs=(a,), field="en"), "plain text has no fields"),
        (Job(inputs=(a,), prefix=b), "b: no such file"),
        (Job(format="csv"), "text, tsv, jsonl or parquet"),
        (Job(errors="ignore"), "strict or replace"),
    ):
        with pytest.raises(UsageError, match=message):
            plan_job(job)


class TestWhatIsNoRegularFile:
    """Devices, FIFOs and links are never replaced; what can be read only once is read only once."""

    @pytest.fixture
    def fifo(self, tmp_path: Path) -> Path:
        os.mkfifo(tmp_path / "fifo")
        return tmp_path / "fifo"

    def test_a_fifo_is_written_straight(self, translator: Translator, source: Path, fifo: Path) -> None:
        with ThreadPoolExecutor() as pool:
            read = pool.submit(fifo.read_text, encoding="utf-8")
            run_job(translator, Job(inputs=(source,), outputs=(fifo,)), Console(quiet=True))
            assert read.result(60).split("\n") == [*translator(LINES), ""]
        assert fifo.is_fifo()
        assert sorted(path.name for path in fifo.parent.iterdir()) == ["fifo", "source.txt"]

    def test_a_fifo_is_read_once(self, translator: Translator, source: Path, fifo: Path, tmp_path: Path) -> None:
        with ThreadPoolExecutor() as pool:
            pool.submit(fifo.write_bytes, source.read_bytes())
            run_job(translator, Job(inputs=(fifo,), outputs=(tmp_path / "out",)), Console())
        assert (tmp_path / "out").read_text(encoding="utf-8").split("\n") == [*translator(LINES), ""]

    @pytest.mark.skipif(os.geteuid() != 0, reason="only root may make device nodes")
    def test_a_device_stays_a_device(self, translator: Translator, source: Path, tmp_path: Path) -> None:
        device = tmp_path / "null"
        try:
            os.mknod(device, stat.S_IFCHR | 0o600, os.makedev(1, 3))
            device.write_bytes(b"x")
        except OSError:
            pytest.skip("device nodes cannot be made or opened here")
        run_job(translator, Job(inputs=(source,), outputs=(device,)), Console(quiet=True))
        assert device.is_char_device()

    @pytest.mark.parametrize("is_there", [True, False])
    def test_the_file_that_a_link_leads_to_is_replaced(
        self, translator: Translator, source: Path, tmp_path: Path, is_there: bool
    ) -> None:
        (tmp_path / "folder").mkdir()
        target, link = tmp_path / "folder" / "target", tmp_path / "link"
        link.symlink_to(target)
        if is_there:
            target.write_text("old")
            target.chmod(0o640)
        assert run(translator, source, output=link).decode().split("\n") == [*translator(LINES), ""]
        assert link.is_symlink()
        assert [path.name for path in target.parent.iterdir()] == ["target"]
        if is_there:
            assert stat.S_IMODE(target.stat().st_mode) == 0o640

    def test_a_link_to_the_input_is_refused(self, source: Path, tmp_path: Path) -> None:
        (tmp_path / "link").symlink_to(source)
        with pytest.raises(UsageError, match="is the input itself"):
            plan_job(Job(inputs=(source,), outputs=(tmp_path / "link",)))

    def test_several_processes_share_none(self, source: Path, fifo: Path, tmp_path: Path) -> None:
        for job in (
            Job(inputs=(source,), outputs=(fifo,)),
            Job(inputs=(fifo,), outputs=(tmp_path / "out",)),
            Job(inputs=(Path("-"),), outputs=(tmp_path / "out",)),
        ):
            with pytest.raises(UsageError, match="several processes share files, no pipes"):
                plan_job(job, 2)
            with pytest.raises(UsageError, match="several processes share files, no pipes"):
                plan_job(job, 0)

    @pytest.mark.parametrize("mark", [b"", b"\xef\xbb\xbf"])
    @pytest.mark.parametrize("name", [None, "-"])
    def test_stdin_is_read_like_a_file(
        self,
        translator: Translator,
        source: Path,
        monkeypatch: pytest.MonkeyPatch,
        capfdbinary: pytest.CaptureFixture[bytes],
        mark: bytes,
        name: str | None,
    ) -> None:
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(mark + source.read_bytes())))
        path = None if name is None else Path(name)
        run_job(translator, Job(inputs=(path,), outputs=(path,)), Console(quiet=True))
        assert capfdbinary.readouterr().out.decode().split("\n") == [*translator(LINES), ""]


def test_a_process_substitution_is_translated_whole(toy_run: Path, source: Path) -> None:
    command = f"{sys.executable} -m mt translate --ckpt {toy_run} --device cpu --input <(cat {source})"
    result = subprocess.run(["bash", "-c", command], capture_output=True, check=True)
    assert result.stdout.count(b"\n") == len(LINES)


def test_a_job_stopped_within_its_first_lines_goes_on_from_there(
    translator: Translator, toy_run: Path, tmp_path: Path
) -> None:
    path, out = tmp_path / "in.txt", tmp_path / "out.txt"
    path.write_text("".join(f"a man number {number} runs here .\n" for number in range(4_000)))
    job = Job(inputs=(path,), outputs=(out,))

    def interrupted() -> None:
        signal.signal(signal.SIGINT, signal.default_int_handler)
        with pytest.raises(Interrupted, match=r"stopped after [\d,]+ lines; the same command goes on"):
            run_job(translator, job, Console(quiet=True))

    child = fork(interrupted, tmp_path / "errors")
    wait_until((tmp_path / ".out.txt.progress").exists)
    os.kill(child, signal.SIGINT)
    assert statuses([child]) == [0], (tmp_path / "errors").read_text()
    assert 0 < json.loads((tmp_path / ".out.txt.progress").read_text())["lines"] < 4_000
    assert run(translator, path, output=out) == run(translator, path, output=tmp_path / "straight")


class TestFormats:
    def test_n_best_and_scores_are_columns(self, translator: Translator, source: Path, tmp_path: Path) -> None:
        rows = run(translator, source, output=tmp_path / "o", n_best=2, scores=True).decode().split("\n")[:-1]
        expected = translator.n_best(LINES, 2)
        assert [len(row.split("\t")) for row in rows] == [4] * len(LINES)
        for row, found in zip(rows, expected, strict=True):
            cells = row.split("\t")
            assert cells[0] == found[0].text.replace("\t", " ")
            assert float(cells[1]) == pytest.approx(found[0].score, abs=1e-4)
            assert (cells[2] == "") == (len(found) == 1)

    def test_a_table_keeps_its_columns(self, translator: Translator, tmp_path: Path) -> None:
        path = tmp_path / "t.tsv"
        path.write_text("7\ta man runs here .\tx\n8\t\ty\n\n")
        rows = run(translator, path, output=tmp_path / "o.tsv", field="2").decode().split("\n")
        assert rows == [f"7\ta man runs here .\tx\t{translator(['a man runs here .'])[0]}", "8\t\ty\t", "\t", ""]

    def test_a_column_may_be_named(self, translator: Translator, tmp_path: Path) -> None:
        path = tmp_path / "t.tsv"
        path.write_text("id\ten\n7\ta man\n")
        rows = run(translator, path, output=tmp_path / "o.tsv", field="en", scores=True).decode().split("\n")
        assert rows[0] == "id\ten\ttranslation\tscore"
        assert rows[1].split("\t")[:3] == ["7", "a man", *translator(["a man"])]
        path.write_text("id\ten\n")
        assert run(translator, path, output=tmp_path / "o.tsv", field="en") == b"id\ten\ttranslation\n"

    @pytest.mark.parametrize("field", ["text.en", None])
    def test_an_object_keeps_its_keys(self, translator: Translator, tmp_path: Path, field: str | None) -> None:
        path = tmp_path / "t.jsonl"
        key = "text" if field else "en"
        records = [{"id": 1, key: "a man\nruns", "ü": [1]}, {"id": 2, key: ""}]
        if field:
            records = [{**record, key: {"en": record[key]}} for record in records]
        path.write_text("".join(json.dumps(record) + "\n" for record in records) + "\n")
        out = run(translator, path, output=tmp_path / "o.jsonl", field=field, n_best=2, scores=True)
        rows = out.decode().split("\n")
        first, second = json.loads(rows[0]), json.loads(rows[1])
        assert {key: first[key] for key in records[0]} == records[0]
        assert second["translation"] == ""
        assert first["translation"] == translator(["a man runs"])[0]
        assert first["n_best"][0] == {"translation": first["translation"], "score": first["score"]}
        assert len(first["n_best"]) == 2
        assert rows[2:] == ["", ""]

    @pytest.mark.parametrize("field", ["translation.en", None])
    def test_results_overwrite_no_key(self, translator: Translator, tmp_path: Path, field: str | None) -> None:
        path = tmp_path / "t.jsonl"
        record = {"translation": {"en": "a man runs", "de": "ein Mann"}, "score": 0.5}
        path.write_text(json.dumps(record) + "\n")
        out = json.loads(run(translator, path, output=tmp_path / "o.jsonl", field=field, scores=True))
        assert {key: out[key] for key in record} == record
        assert out["mt_translation"] == translator(["a man runs"])[0]
        assert out["mt_score"] < 0

    def test_a_table_is_read_from_the_column_of_the_source_language(
        self, translator: Translator, tmp_path: Path
    ) -> None:
        path = tmp_path / "t.tsv"
        path.write_text("id\ten\n7\ta man\n")
        out = run(translator, path, output=tmp_path / "o.tsv").decode().split("\n")
        assert out == ["id\ten\ttranslation", f"7\ta man\t{translator(['a man'])[0]}", ""]
        path.write_text("a man\t7\n")
        assert run(translator, path, output=tmp_path / "o.tsv").decode() == f"a man\t7\t{translator(['a man'])[0]}\n"

    def test_half_a_character_in_json_does_no_harm(self, translator: Translator, tmp_path: Path) -> None:
        path = tmp_path / "t.jsonl"
        path.write_text('{"source": "a man \\ud800 runs"}\n')
        out = run(translator, path, output=tmp_path / "o.jsonl")
        assert json.loads(out)["translation"] == translator(["a man \ufffd runs"])[0]

    def test_a_row_without_the_text_is_told_by_line(self, translator: Translator, tmp_path: Path) -> None:
        for name, text, field, message in (
            ("a.tsv", "x\ty\nz\n", "2", r"a\.tsv:2: has 1 column, so no column 2"),
            ("b.jsonl", '{"source": "x"}\n{"source": 3}\n', None, r"b\.jsonl:2: has no text under en or .* or source"),
            ("f.jsonl", '{"source": "x", "source": "y"}\n', None, r"f\.jsonl:1: has the key source twice"),
            ("g.jsonl", '{"en": "x", "translation": 1, "mt_translation": 2}\n', None, r"g\.jsonl:1: has the keys"),
            ("c.jsonl", '{"source": "x"\n', None, r"c\.jsonl:1: is not JSON"),
            ("d.tsv", "a\tb\n", "c", "the columns are a, b"),
            ("e.txt", "a\n", "c", "plain text has no fields"),
        ):
            (tmp_path / name).write_text(text)
            with pytest.raises((DataError, UsageError), match=message):
                run(translator, tmp_path / name, output=tmp_path / "out", field=field)

    @pytest.mark.parametrize("kind", ["text", "jsonl"])
    def test_given_translations_are_scored(self, translator: Translator, tmp_path: Path, kind: str) -> None:
        sources, references = ["a man runs here .", "a dog"], ["ein Mann rennt hier .", "eine Frau"]
        lines = sources if kind == "text" else [json.dumps({"source": source}) for source in sources]
        (tmp_path / "s").write_text("\n".join(lines))
        (tmp_path / "r").write_text("\n".join(references))
        out = run(translator, tmp_path / "s", output=tmp_path / "o", score_ref=tmp_path / "r", format=kind)
        for row, expected in zip(out.decode().splitlines(), translator.score(sources, references), strict=True):
            if kind == "jsonl":
                logps = json.loads(row)["piece_log_probabilities"]
                total, pieces = json.loads(row)["log_probability"], json.loads(row)["pieces"]
            else:
                total, pieces = float(row.split("\t")[0]), row.split("\t")[2].split(" ")
                logps = [float(logp) for logp in row.split("\t")[3].split(" ")]
            assert total == pytest.approx(expected.log_probability, abs=1e-5)
            assert logps == pytest.approx(expected.log_probabilities, abs=1e-5)
            assert math.fsum(logps) == pytest.approx(total, abs=1e-4)
            assert pieces == expected.pieces

    def test_files_that_go_together_have_equally_many_lines(self, translator: Translator, tmp_path: Path) -> None:
        (tmp_path / "s").write_text("a\nb\n")
        for text, message in (("x\n", r"s:2: has no partner in .*r"), ("x\ny\nz\n", r"r:3: has no partner in .*s")):
            (tmp_path / "r").write_text(text)
            with pytest.raises(DataError, match=message):
                run(translator, tmp_path / "s", output=tmp_path / "o", score_ref=tmp_path / "r")


def test_the_command_says_what_is_wrong_with_status_2(toy_run: Path) -> None:
    result = mt("translate", "--ckpt", toy_run, "--device", "cpu", text="a man\n\udcff\n")
    assert result.returncode == 2
    assert result.stdout == ""
    assert result.stderr.endswith(
        "mt: stdin:2: not UTF-8 text; convert the file, with iconv for instance, or give --errors replace\n"
    )


def test_a_closed_pipe_ends_the_command_quietly(toy_run: Path, tmp_path: Path) -> None:
    (tmp_path / "in").write_text("a man\n" * 30_000)
    command = f"{sys.executable} -m mt translate --ckpt {toy_run} --device cpu --quiet --beam 1 --unbuffered"
    script = f"{command} --input {tmp_path / 'in'} | head -1"
    result = subprocess.run(["bash", "-c", script], capture_output=True, text=True, check=False)
    assert result.stderr == ""
    assert result.stdout.count("\n") == 1


class TestSeveralProcesses:
    """Each takes chunks in turn; the output is that of one process, byte for byte."""

    @pytest.fixture(autouse=True)
    def small_chunks(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(job_module, "CHUNK_LINES", 7)

    @pytest.fixture
    def big(self, tmp_path: Path) -> Path:
        path = tmp_path / "big.txt"
        path.write_text("".join(f"a man number {number} runs here .\n" for number in range(100)))
        return path

    def share(self, translator: Translator, job: Job, size: int, errors: Path | None = None) -> list[int]:
        def work() -> None:
            with joined(torch.device("cpu")) as world:
                run_job(translator, job, Console(quiet=True), world)

        return fork_world(size, work, errors)

    @pytest.mark.parametrize("name", ["out.txt", "out.txt.gz"])
    @pytest.mark.parametrize("size", [2, 3])
    def test_write_what_one_writes(
        self, translator: Translator, big: Path, tmp_path: Path, name: str, size: int
    ) -> None:
        options = {"n_best": 2, "scores": True}
        expected = run(translator, big, output=tmp_path / f"one-{name}", **options)
        job = Job(inputs=(big,), outputs=(tmp_path / name,), n_best=2, scores=True)
        assert statuses(self.share(translator, job, size)) == [0] * size
        assert (tmp_path / name).read_bytes() == expected
        assert sorted(path.name for path in tmp_path.iterdir()) == sorted(["big.txt", f"one-{name}", name])

    def test_share_tables_and_objects_with_their_partners(self, translator: Translator, tmp_path: Path) -> None:
        table, objects, references = tmp_path / "t.tsv", tmp_path / "o.jsonl", tmp_path / "r"
        table.write_text("id\ten\n" + "".join(f"{number}\ta man {number}\n" for number in range(40)))
        objects.write_text(
            "".join(json.dumps({"source": f"a man {number}", "id": number}) + "\n" for number in range(40))
        )
        references.write_text("ein Mann\n" * 40)
        out = tmp_path / "out"
        for job in (
            Job(inputs=(table,), outputs=(out,), field="en"),
            Job(inputs=(objects,), outputs=(out,), score_ref=references),
        ):
            run_job(translator, job, Console(quiet=True))
            expected = out.read_bytes()
            assert statuses(self.share(translator, job, 2)) == [0, 0]
            assert out.read_bytes() == expected

    def test_take_one_file_after_another(self, translator: Translator, big: Path, tmp_path: Path) -> None:
        (tmp_path / "short").write_text("a dog\n")
        empty = [tmp_path / f"empty{number}" for number in range(10)]
        for path in empty:
            path.touch()
        (tmp_path / "out").mkdir()
        inputs = (tmp_path / "short", *empty, big)
        assert statuses(self.share(translator, Job(inputs=inputs, outputs=(tmp_path / "out",)), 2)) == [0, 0]
        for source in inputs:
            assert (tmp_path / "out" / source.name).read_bytes() == run(translator, source, output=tmp_path / "one")
        assert len(list((tmp_path / "out").iterdir())) == len(inputs), "nothing is left beside the outputs"

    @pytest.mark.parametrize("then", [1, 3])
    def test_killed_go_on_as_however_many(self, translator: Translator, big: Path, tmp_path: Path, then: int) -> None:
        big.write_bytes(big.read_bytes() * 5)
        expected = run(translator, big, output=tmp_path / "one")
        target, sidecar = tmp_path / "out", tmp_path / ".out.progress"
        job = Job(inputs=(big,), outputs=(target,))
        children = self.share(translator, job, 2)
        wait_until(lambda: lines_done(sidecar) >= 28)
        for child in children:
            os.kill(child, signal.SIGKILL)
        assert statuses(children) == [-signal.SIGKILL] * 2
        assert not target.exists()
        assert statuses(self.share(translator, job, then)) == [0] * then
        assert target.read_bytes() == expected
        assert not sidecar.exists()
        assert not (tmp_path / ".out.parts").exists()

    def test_use_no_chunk_made_otherwise(self, translator: Translator, big: Path, tmp_path: Path) -> None:
        """One of another input, or made under other settings, is made again."""
        target, begin = tmp_path / "out", b"".join(big.read_bytes().splitlines(keepends=True)[:14])
        stale = Parts(target, {"beam": 1})
        stale.open()
        stale.put("stale\n" * 7, 14, hashlib.sha256(begin).hexdigest())
        stale.put("stale\n" * 7, 14, hashlib.sha256(b"other").hexdigest())
        assert statuses(self.share(translator, Job(inputs=(big,), outputs=(target,)), 2)) == [0, 0]
        assert target.read_bytes() == run(translator, big, output=tmp_path / "one")

    def test_name_the_bad_line_once(self, translator: Translator, big: Path, tmp_path: Path) -> None:
        big.write_bytes(b"a man\n" * 9 + b"\xff\n" + b"a dog\n" * 30)
        job = Job(inputs=(big,), outputs=(tmp_path / "out",))
        children = self.share(translator, job, 2, tmp_path / "errors")
        assert statuses(children[1:]) == [2]
        os.kill(children[0], signal.SIGTERM)  # as whoever starts several processes does when one has failed
        statuses(children[:1])
        assert (tmp_path / "errors").read_text().count("big.txt:10: not UTF-8") == 1
        big.write_bytes(big.read_bytes().replace(b"\xff", b"a cat"))
        assert statuses(self.share(translator, job, 2)) == [0, 0]
        assert (tmp_path / "out").read_bytes() == run(translator, big, output=tmp_path / "one")

    def test_say_a_mistake_once(self, toy_run: Path, big: Path, tmp_path: Path) -> None:
        job = Job(inputs=(big,), outputs=(tmp_path / "out",))
        work = partial(translate, [toy_run], job, "cpu", None, {"beam": 3, "groups": 2})
        assert statuses(fork_world(2, work, tmp_path / "errors")) == [2, 1]
        assert (tmp_path / "errors").read_text() == "mt: decode: a beam of 3 cannot be cut into 2 groups of one size\n"

    def test_are_those_of_one_machine(self, toy_run: Path, big: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("WORLD_SIZE", "4")
        monkeypatch.setenv("LOCAL_WORLD_SIZE", "2")
        with pytest.raises(UsageError, match="for several machines see --cluster"):
            translate([toy_run], Job(inputs=(big,), outputs=(big.with_name("out"),)), "cpu")

    def test_share_no_pipe(self, big: Path) -> None:
        for job in (Job(), Job(inputs=(big,)), Job(outputs=(big,))):
            for processes in (0, 2):
                with pytest.raises(UsageError, match="several processes share files, no pipes: give --input and"):
                    plan_job(job, processes)

    @pytest.mark.slow
    def test_end_with_what_the_one_that_failed_has_said(self, toy_run: Path, big: Path, tmp_path: Path) -> None:
        big.write_bytes(b"a man\n" * 2_500 + b"\xff\n" + b"a man\n" * 40_000)
        arguments = ["--ckpt", toy_run, "--input", big, "--output", tmp_path / "out", "--device", "cpu"]
        result = mt("translate", *arguments, "--processes", "auto", "--beam", "1", "--quiet")
        assert result.returncode == 2
        assert re.fullmatch(r"mt: \S+big\.txt:2501: not UTF-8 .*\n", result.stderr)

    @pytest.mark.slow
    def test_are_started_by_the_command_which_names_the_one_that_died(
        self, toy_run: Path, big: Path, tmp_path: Path
    ) -> None:
        big.write_bytes(big.read_bytes() * 4_000)
        arguments = ["--ckpt", toy_run, "--input", big, "--output", tmp_path / "out", "--device", "cpu", "--gpus", "2"]
        command = [sys.executable, "-m", "mt", "translate", *map(str, arguments), "--beam", "1"]
        process = subprocess.Popen(command, text=True, stderr=subprocess.PIPE)
        wait_until((tmp_path / ".out.progress").exists)
        (second,) = [pid for pid in children_of(process.pid) if b"\0RANK=1\0" in environment_of(pid)]
        os.kill(second, signal.SIGKILL)
        _, errors = process.communicate(timeout=PATIENCE)
        assert process.returncode == 1
        assert "process 1 of 2 was ended by SIGKILL; the same command goes on from what is saved" in errors
        assert "Traceback" not in errors
        done = json.loads((tmp_path / ".out.progress").read_text())["lines"]
        lines = big.read_text().splitlines(keepends=True)
        assert done < len(lines)
        big.write_text("".join(lines[: done + 5_000]))
        again = subprocess.run(command, text=True, stderr=subprocess.PIPE, check=True)
        assert f"going on after line {done:,}" in again.stderr
        assert (tmp_path / "out").read_text().count("\n") == done + 5_000


def lines_done(sidecar: Path) -> int:
    return int(json.loads(sidecar.read_text())["lines"]) if sidecar.exists() else 0


def environment_of(process: int) -> bytes:
    return Path(f"/proc/{process}/environ").read_bytes()
