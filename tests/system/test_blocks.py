"""Laws of files in blocks: what was read comes out in order beside its translation, whole or not at all."""

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet
import pytest

from mt.console import Console
from mt.errors import DataError, UsageError
from mt.remote import opened_url
from mt.translate import parquet
from mt.translate.blocks import read_blocks, write_outputs
from mt.translate.cluster import Opening, translate_on_cluster
from mt.translate.job import run_job
from mt.translate.plan import Cluster, Job, Source, cluster_of, plan_cluster, plan_job
from mt.translate.translator import Translator
from mt.translate.worker import translated

TEXTS = [f"a man number {number} runs here ." for number in range(600)]
TEXTS[3] = TEXTS[251] = ""
TEXTS[5] = "the dog sleeps here . " * 60  # too long for the model, with a note


@pytest.fixture(scope="session")
def translator(toy_run: Path) -> Translator:
    return Translator(toy_run, device="cpu", decode={"max_extra": 8, "beam": 2, "max_source": 100})


def in_blocks(translator: Translator, sources: Sequence[Source], job: Job) -> None:
    """What a cluster does with files, in this process."""
    blocks = [block for n, source in enumerate(sources) for block in read_blocks(n, source, job, "en", 2_000)]
    write_outputs(
        sources, [translated(translator, job, sources[block.file], block) for block in blocks], Console(quiet=True)
    )


def table_of(path: Path) -> Any:
    return pyarrow.parquet.read_table(path)


def test_parquet_keeps_its_columns_and_gains_what_json_lines_gain(translator: Translator, tmp_path: Path) -> None:
    columns = {"id": list(range(600)), "en": [text or None for text in TEXTS], "score": ["taken"] * 600}
    pyarrow.parquet.write_table(pyarrow.table(columns), tmp_path / "in.parquet", row_group_size=70)
    (tmp_path / "in.jsonl").write_text("".join(json.dumps({"en": text, "score": ""}) + "\n" for text in TEXTS))
    (tmp_path / "out").mkdir()
    inputs = (tmp_path / "in.parquet", tmp_path / "in.jsonl")
    job = Job(inputs=inputs, outputs=(tmp_path / "out",), n_best=2, scores=True, alignments=True)
    run_job(translator, job, Console(quiet=True))
    table = table_of(tmp_path / "out" / "in.parquet")
    assert {name: table.column(name).to_pylist() for name in columns} == columns
    records = [json.loads(line) for line in (tmp_path / "out" / "in.jsonl").read_text().splitlines()]
    added = ["translation", "mt_score", "alignment", "n_best"]
    assert table.column_names == [*columns, *added]
    assert table.select(added).to_pylist() == [{name: record[name] for name in added} for record in records]
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["in.jsonl", "in.parquet"]


@pytest.mark.parametrize("name", ["a.txt", "a.txt.gz", "a.tsv.gz", "a.tsv", "a.jsonl"])
def test_blocks_make_the_bytes_that_one_job_writes(translator: Translator, tmp_path: Path, name: str) -> None:
    lines = {
        "txt": TEXTS,
        "tsv": ["en\tid", *(f"{text}\t{number}" for number, text in enumerate(TEXTS))],
        "jsonl": [json.dumps({"en": text}) for text in TEXTS],
    }[name.split(".")[1]]
    plain = tmp_path / name.removesuffix(".gz")
    plain.write_text("".join(f"{line}\n" for line in lines))
    job = Job(inputs=(plain,), outputs=(tmp_path / f"one-{name}",), scores=True)
    run_job(translator, job, Console(quiet=True))
    in_blocks(
        translator, [Source(str(plain), str(tmp_path / f"b-{name}"), plain.suffix[1:].replace("txt", "text"))], job
    )
    assert (tmp_path / f"b-{name}").read_bytes() == (tmp_path / f"one-{name}").read_bytes()


def test_row_groups_of_the_output_are_large(
    translator: Translator, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However small the blocks are."""
    monkeypatch.setattr(parquet, "GROUP_ROWS", 400)
    pyarrow.parquet.write_table(pyarrow.table({"en": ["a man"] * 1_300}), tmp_path / "in.parquet")
    run_job(translator, Job((tmp_path / "in.parquet",), (tmp_path / "out.parquet",)), Console(quiet=True))
    file = pyarrow.parquet.ParquetFile(tmp_path / "out.parquet")
    groups = [file.metadata.row_group(number).num_rows for number in range(file.num_row_groups)]
    assert groups == [500, 500, 300]


def test_text_may_lie_in_a_column_of_several_parts(translator: Translator, tmp_path: Path) -> None:
    pairs = pyarrow.table({"translation": [{"en": "a man runs", "de": "x"}, {"en": None, "de": "y"}]})
    pyarrow.parquet.write_table(pairs, tmp_path / "in.parquet")
    run_job(translator, Job((tmp_path / "in.parquet",), (tmp_path / "out.parquet",)), Console(quiet=True))
    assert table_of(tmp_path / "out.parquet").column("mt_translation").to_pylist() == [*translator(["a man runs"]), ""]


def test_files_without_a_row_have_an_output_too(translator: Translator, tmp_path: Path) -> None:
    pyarrow.parquet.write_table(pyarrow.table({"en": pyarrow.array([], pyarrow.string())}), tmp_path / "a.parquet")
    (tmp_path / "b.tsv").write_text("id\ten\n")
    (tmp_path / "c.txt").touch()
    names = {"a.parquet": "parquet", "b.tsv": "tsv", "c.txt": "text"}
    (tmp_path / "out").mkdir()
    sources = [Source(str(tmp_path / name), str(tmp_path / "out" / name), kind) for name, kind in names.items()]
    in_blocks(translator, sources, Job())
    assert table_of(tmp_path / "out" / "a.parquet").column_names == ["en", "translation"]
    assert (tmp_path / "out" / "b.tsv").read_text() == "id\ten\ttranslation\n"
    assert (tmp_path / "out" / "c.txt").read_text() == ""


def test_what_cannot_be_read_is_told_by_file_and_row_and_leaves_nothing(translator: Translator, tmp_path: Path) -> None:
    def write(name: str, **columns: list[Any]) -> Path:
        pyarrow.parquet.write_table(pyarrow.table(columns), tmp_path / name)
        return tmp_path / name

    (tmp_path / "damaged.parquet").write_bytes(write("whole.parquet", en=["a"] * 9).read_bytes()[:-20])
    (tmp_path / "text.txt").write_bytes(b"a man\n" * 300 + b"\xff\n")
    for path, field, message in (
        (write("a.parquet", x=["a"], y=[1]), None, r"a\.parquet: no column en or .*, but x, y; name one with --field"),
        (write("b.parquet", x=["a"], y=[1]), "y", r"b\.parquet: column y holds int64, not text"),
        (write("c.parquet", en=["a"] * 300 + ["x" * 1_000_001]), None, r"c\.parquet:301: more than 1,000,000"),
        (write("d.parquet", en=["a"], translation=["b"], mt_translation=["c"]), None, r"d\.parquet: has the keys"),
        (tmp_path / "damaged.parquet", None, r"damaged\.parquet: cannot be read as Parquet"),
        (tmp_path / "text.txt", None, r"text\.txt:301: not UTF-8"),
    ):
        there = set(tmp_path.iterdir())
        source = Source(str(path), str(tmp_path / "out"), "text" if path.suffix == ".txt" else "parquet")
        with pytest.raises(DataError, match=message):
            in_blocks(translator, [source], Job(field=field))
        assert set(tmp_path.iterdir()) == there


def test_inputs_and_outputs_may_be_addresses(translator: Translator, tmp_path: Path) -> None:
    import fsspec

    store = fsspec.filesystem("memory")
    for name in ("x.txt", "y.txt"):
        store.pipe_file(f"/blocks/in/{name}", f"a man\n{name}\n".encode())
    plan = plan_cluster(Job(), ["memory://blocks/in/*.txt"], ["memory://blocks/out/"])
    assert [source.target for source in plan.files] == ["memory://blocks/out/x.txt", "memory://blocks/out/y.txt"]
    in_blocks(translator, plan.files, Job())
    with opened_url("memory://blocks/out/y.txt") as file:
        assert file.read().decode().splitlines() == translator(["a man", "y.txt"])
    assert sorted(store.ls("/blocks/out", detail=False)) == ["/blocks/out/x.txt", "/blocks/out/y.txt"]


def test_a_plan_names_each_output_as_its_input(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("b.txt", "a.tsv.gz", "c.parquet"):
        (tmp_path / name).touch()
    (tmp_path / "folder").mkdir()
    monkeypatch.chdir(tmp_path)
    plan = plan_cluster(Job(), ["*"], ["out"])
    assert plan.folder == str(tmp_path / "out")
    assert plan.files == [
        Source(str(tmp_path / name), str(tmp_path / "out" / name), kind)
        for name, kind in (("a.tsv.gz", "tsv"), ("b.txt", "text"), ("c.parquet", "parquet"))
    ]


def test_what_does_not_fit_is_said_before_any_work(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    a, b, out = tmp_path / "a.txt", tmp_path / "in" / "a.txt", str(tmp_path / "out")
    a.touch()
    b.touch()
    for job, inputs, outputs, message in (
        (Job(), [], [out], "needs --input"),
        (Job(), [a], [], "needs --input"),
        (Job(), [a], [out, out], "as --output one folder"),
        (Job(), [tmp_path / "x"], [out], "x: no such file"),
        (Job(), [tmp_path / "x*"], [out], "no file matches"),
        (Job(), [tmp_path], [out], "is a folder; name its files"),
        (Job(), [a, b], [out], "would be the output of two inputs"),
        (Job(), [a], [tmp_path], "is an input itself"),
        (Job(), [a], [a], "is a file; with --cluster name a folder"),
        (Job(), [a], [tmp_path / "x" / "y"], "there is no folder"),
        (Job(field="en"), [a], [out], "plain text, which has no fields"),
        (Job(prefix=a), [a], [out], "--prefix is not for --cluster"),
    ):
        with pytest.raises(UsageError, match=message):
            plan_cluster(job, [str(path) for path in inputs], [str(path) for path in outputs])
    parquet_file = tmp_path / "a.parquet"
    parquet_file.touch()
    for job, processes, message in (
        (Job((parquet_file,)), 1, "give --input and --output"),
        (Job((parquet_file,), (tmp_path / "o",)), 2, "shared by --cluster"),
        (Job((parquet_file,), (tmp_path / "o",), score_ref=a), 1, "not for Parquet"),
    ):
        with pytest.raises(UsageError, match=message):
            plan_job(job, processes)


def test_workers_and_what_they_take(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    assert cluster_of("ray", None, None) == Cluster("ray")
    assert cluster_of("auto", "4", "gpu=1,memory=8e9") == Cluster("auto", 4, 4, {"gpu": 1, "memory": 8e9})
    assert cluster_of("ray", "1:64", "cpu=0.5") == Cluster("ray", 1, 64, {"cpu": 0.5})
    assert cluster_of("ray", "2:", None) == Cluster("ray", 2, None)
    monkeypatch.setenv("RAY_ADDRESS", "ray://there:10001")
    assert cluster_of("ray", None, "CPU=2,Fast=1") == Cluster("ray://there:10001", resources={"cpu": 2, "Fast": 1})
    for address, workers, resources, processes, message in (
        (None, "3", None, 1, "are for --cluster"),
        ("ray", None, None, 2, "not both"),
        ("ray", "0", None, 1, "--workers 0"),
        ("ray", "3:2", None, 1, "as in 2:3"),
        ("ray", None, "gpu", 1, "--resources gpu"),
        ("ray", None, "gpu=1.5", 1, "whole GPUs"),
    ):
        with pytest.raises(UsageError, match=message):
            cluster_of(address, workers, resources, processes)


def test_without_ray_one_sentence_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "in.txt").write_text("a man\n")
    sources = plan_cluster(Job(), [str(tmp_path / "in.txt")], [str(tmp_path / "out")])
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(UsageError, match=r"^--cluster needs Ray: pip install 'mt\[ray\]'$") as error:
        translate_on_cluster(Cluster("ray"), sources, Job(), Opening((tmp_path,), "cpu", None, {}), quiet=True)
    assert error.value.exit_status == 2
    assert not (tmp_path / "out").exists()
