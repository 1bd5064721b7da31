"""The page that compares runs: values where they belong, a run in its colour, differences tested, nothing lost."""

import json
import math
import re
import shutil
from collections.abc import Sequence
from html import unescape
from pathlib import Path
from typing import Any

import pytest
from browser import assert_readable, in_browser

from mt.config import Config
from mt.config_file import dump_config
from mt.console import Console
from mt.errors import DataError, MtError, UsageError
from mt.evaluate.comparison import write_page
from mt.evaluate.evaluation import evaluate
from mt.evaluate.request import Request
from mt.evaluate.significance import compare
from mt.files import read_lines

EVIL = '<script>alert("x")</script> & \u202e'
SOURCES = ["Two dogs run .", "A child sleeps .", EVIL]
REFERENCES = ["Zwei Hunde laufen schnell nach Hause .", "Ein Kind schläft heute sehr gut .", f"Ein {EVIL}"]


def write_run(folder: Path, name: str, speed: float, updates: int = 400, **sections: Any) -> Path:
    """A run whose loss falls at this speed, and which gets more words right the quicker it is."""
    run = folder / name
    run.mkdir(parents=True)
    data = {"train": "text", "valid": "valid", "dir": str(folder / "data")}
    config = {"data": data, "train": {"updates": 400, "dir": str(run)}, **sections}
    (run / "config.yaml").write_text(dump_config(Config.model_validate(config)))
    words = [" ".join(line.split()[: 2 + round(speed)]) for line in REFERENCES]
    samples = [
        {"source": source, "reference": reference, "translation": translation}
        for source, reference, translation in zip(SOURCES, REFERENCES, words, strict=True)
    ]
    records: list[dict[str, Any]] = []
    for update in range(1, updates + 1):
        loss = 2 + 6 * math.exp(-speed * update / 200)
        records.append({"update": update, "loss": loss, "tokens": 1000 + update, "seconds": 36.0})
        if update % 100 == 0:
            bleu = 40 - 5 * loss
            records.append({"update": update, "valid_loss": loss - 1, "valid_bleu": bleu, "samples": samples})
    (run / "metrics.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records), encoding="utf-8")
    return run


def keep_outputs(run: Path, outputs: Sequence[str], name: str = "0123") -> None:
    (run / "outputs").mkdir(exist_ok=True)
    names = {"testset": f"a {EVIL} set", "system": f"{run.name} (greedy)", "language": "de"}
    record = {**names, "sources": SOURCES * 20, "references": [REFERENCES * 20], "outputs": outputs}
    (run / "outputs" / f"{name}.json").write_text(json.dumps(record), encoding="utf-8")


@pytest.fixture
def runs(tmp_path: Path) -> list[Path]:
    quick = write_run(tmp_path, "quick <b>", 2.0, model={"dropout": 0.3})
    return [write_run(tmp_path, "slow", 1.0), quick, write_run(tmp_path, "short", 1.5, updates=250)]


def compared(runs: Sequence[Path]) -> str:
    return write_page(runs, runs[0].parent / "page.html").read_text(encoding="utf-8")


def plots(html: str, kind: str) -> dict[str, dict[str, Any]]:
    """The values of the charts of a view such as "update linear", by the chart's title."""
    found = re.findall(rf'<figure class="{kind}\s*"><figcaption><h3>(.*?)</h3>.*?data-values="(.*?)">', html)
    return {title: json.loads(unescape(values)) for title, values in found}


def series(html: str, kind: str, title: str) -> dict[str, dict[str, Any]]:
    return {one["label"]: one for one in plots(html, kind)[title]["series"]}


# --- Curves ------------------------------------------------------------------------------------------------------


def test_curves_lie_over_each_other_by_update_by_tokens_and_by_hours(runs: list[Path]) -> None:
    html = compared(runs)
    tokens = sum(1000 + update for update in range(1, 401))
    for view, last, short in (("update", 400, 250), ("tokens", tokens, 281_375), ("hours", 4, 2.5)):
        for scale in ("linear", "log"):
            found = series(html, f"{view} {scale}", "Training loss")
            assert [found[name]["x"][-1] for name in ("slow", "quick <b>", "short")] == [last, last, short]
        assert series(html, view, "Validation BLEU")["short"]["x"][-1] < short
    assert series(html, "update", "Validation BLEU")["slow"]["x"] == [100, 200, 300, 400]
    assert series(html, "update linear", "Validation loss")["quick <b>"]["shown"][-1] == f"{1 + 6 * math.exp(-4):.2f}"


def test_a_run_has_one_colour_throughout(runs: list[Path]) -> None:
    html = compared(runs)
    figures = re.findall(r"<figure .*?</figure>", html, flags=re.S)
    assert len(figures) == 15
    for figure in figures:
        assert re.findall(r'"line run (run\d)"', figure) == ["run1", "run2", "run3"]
    for name, colour in (("slow", "run1"), ("quick &lt;b&gt;", "run2"), ("short", "run3")):
        assert set(re.findall(rf'<dt class="run (run\d)">{name}</dt>', html)) == {colour}
        assert re.search(rf'"line run {colour}" d="M0 4H18"/></svg> <bdi>{name}</bdi>', html)


def test_only_the_settings_that_differ_are_shown(runs: list[Path]) -> None:
    settings = compared(runs).split('<section id="settings">')[1].split("</section>")[0]
    assert re.findall(r"<tr><td><code>(.*?)</code>", settings) == ["model.dropout"]
    assert re.findall(r'class="run run\d">(.*?)<', settings) == ["0.1", "0.3", "0.1"]


def test_runs_judged_on_other_text_or_trained_on_other_data_say_so(runs: list[Path]) -> None:
    assert "do not compare" not in compared(runs)
    metrics = runs[1] / "metrics.jsonl"
    metrics.write_text(
        metrics.read_text(encoding="utf-8").replace('"source": "', '"source": "other '), encoding="utf-8"
    )
    assert "do not have the same text as their validation set" in compared(runs)
    for run in runs:
        (run / "env.json").write_text(json.dumps([{"started": "now", "data": run.name}]))
    assert "Losses are per piece" in compared(runs)


# --- Scores and outputs ------------------------------------------------------------------------------------------


def test_without_outputs_of_one_test_set_the_page_says_that_there_is_no_test(runs: list[Path]) -> None:
    keep_outputs(runs[0], REFERENCES * 20, "0123")
    keep_outputs(runs[1], REFERENCES * 20, "4567")  # of another text
    (runs[0] / "scores.json").write_text('[{"testset": "t", "name": "BLEU", "value": 12.345}]')
    html = compared(runs)
    assert "so there is no test of significance" in html
    assert "12.35" in html or "12.34" in html


def test_outputs_of_the_same_text_are_tested_against_the_first_run(runs: list[Path]) -> None:
    outputs = {
        run.name: [" ".join(line.split()[: 3 + at]) for line in REFERENCES] * 20 for at, run in enumerate(runs[:2])
    }
    for run in runs[:2]:
        keep_outputs(run, outputs[run.name])
    keep_outputs(runs[2], ["too short"])  # damaged, as that below: passed over
    (runs[2] / "outputs" / "4567.json").write_text('{"sources": [1], "outputs": [2], "references": [[3]]}')
    html = compared(runs)
    assert "no test of significance" not in html
    for comparison in compare(outputs, REFERENCES * 20, lang="de"):
        first, second = comparison.systems
        assert f"{comparison.metric} {first.value:.2f}" in html
        p_value = second.p_bootstrap or 0
        assert f"{second.value - first.value:+.2f}</td><td" in html
        assert f"{p_value:.4f}{'*' if p_value < 0.05 else ''}</td>" in html
    article = next(text for text in re.findall(r"<article>.*?</article>", html, flags=re.S) if "line 1<" in text)
    assert article.count("Zwei Hunde") == 3
    assert "<u>laufen</u>" not in article  # both have it
    assert "<u>schnell</u>" in article  # the second alone
    assert "<script>alert" not in html


def test_evaluate_leaves_output_lines_that_reports_compare(toy_run: Path, tmp_path: Path) -> None:
    folders = [tmp_path / "a" / "toy", tmp_path / "b" / "toy"]
    for beam, folder in enumerate(folders, 1):
        shutil.copytree(toy_run, folder, ignore=shutil.ignore_patterns("optimizer.safetensors"))
        out = folder / "out.de"
        evaluate(Request(ckpt=(folder,), decode={"beam": beam}, output=out), Console(quiet=True))
        (kept,) = (folder / "outputs").glob("*.json")
        record = json.loads(kept.read_text(encoding="utf-8"))
        assert record["outputs"] == read_lines(out)
        assert len(record["outputs"]) == len(record["sources"]) == len(record["references"][0])
    html = compared(folders)
    assert "no test of significance" not in html
    for folder in folders:  # two runs of one name go by their paths
        assert f"<bdi>{folder}</bdi>" in html


# --- Files -------------------------------------------------------------------------------------------------------


def test_no_file_but_a_page_of_ours_is_overwritten(runs: list[Path], tmp_path: Path) -> None:
    page = write_page(runs, tmp_path / "page.html")
    page.write_text(page.read_text(encoding="utf-8") + "old", encoding="utf-8")
    assert not write_page(runs, page).read_text(encoding="utf-8").endswith("old")
    (tmp_path / "mine.html").write_text("my own page")
    with pytest.raises(UsageError, match="no page of mt report"):
        write_page(runs, tmp_path / "mine.html")
    assert (tmp_path / "mine.html").read_text() == "my own page"


def test_one_run_has_the_same_page_wherever_it_is_written(runs: list[Path], tmp_path: Path) -> None:
    own = write_page(runs[:1])
    assert own == runs[0] / "report.html"
    assert write_page(runs[:1], tmp_path / "page.html").read_bytes() == own.read_bytes()


def test_what_cannot_be_compared_is_refused(runs: list[Path], tmp_path: Path) -> None:
    wrong: list[tuple[list[Path], type[MtError], str]] = [
        ([tmp_path / str(number) for number in range(9)], UsageError, "at most 8"),
        ([runs[0], runs[0].parent / "." / "slow"], UsageError, "named twice"),
        ([runs[0], tmp_path / "none"], DataError, "not a run directory"),
    ]
    for folders, kind, message in wrong:
        with pytest.raises(kind, match=message):
            write_page(folders, tmp_path / "page.html")
    assert not (tmp_path / "page.html").exists()


# --- A real browser ----------------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize(("width", "dark"), [(390, True), (1280, False)])
def test_eight_runs_fit_a_desk_and_a_phone(tmp_path: Path, width: int, dark: bool) -> None:
    names = ["a", "b" * 60, "c", "d", "e", "f", "g", "h"]
    runs = [write_run(tmp_path, name, 1 + at / 4, model={"heads": 1 + at % 2}) for at, name in enumerate(names)]
    for run in runs[:3]:
        keep_outputs(run, [line[: 20 + len(run.name) % 7] for line in REFERENCES * 20])
    assert_readable(compared(runs), tmp_path, width, dark)


def test_the_controls_choose_the_view_and_smooth_the_lines(runs: list[Path], tmp_path: Path) -> None:
    script = """
      const shown = () => [...page.querySelectorAll('#curves figure')].filter(one => one.getClientRects().length)
        .map(one => one.className.trim()).join()
      const line = () => page.querySelector('.plot .line:not(.measured)').getAttribute('d')
      const values = () => page.querySelector('.plot').dataset.values, slider = page.querySelector('#smoothing input')
      const seen = [shown()], before = line(), measured = values()
      for (const id of ['by-tokens', 'log', 'by-hours']) { page.getElementById(id).click(); seen.push(shown()) }
      const slide = value => { slider.value = value; slider.dispatchEvent(new view.Event('input', {bubbles: true})) }
      slide(.9)
      const smooth = line(), behind = page.querySelectorAll('.plot .measured').length
      slide(0)
      const plot = page.querySelector('.plot'), box = plot.getBoundingClientRect()
      plot.dispatchEvent(new view.PointerEvent('pointermove', {clientX: box.left + 9}))
      const values_of = [...plot.querySelectorAll('.tip div')].map(one => one.className).join()
      return [seen, values_of, smooth !== before, values() === measured, line() === before, behind > 0,
        page.querySelectorAll('.plot .measured').length]
    """
    seen, values, *smoothing = in_browser(compared(runs), script, tmp_path)
    assert seen == [
        "update linear,update linear,update",
        "tokens linear,tokens linear,tokens",
        "tokens log,tokens log,tokens",
        "hours log,hours log,hours",
    ]
    assert values == "run run1,run run2,run run3"
    assert smoothing == [True, True, True, True, 0]
