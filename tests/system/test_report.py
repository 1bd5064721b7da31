"""The report: complete, harmless, patient with what is missing, and fit for desk and phone, light and dark."""

import json
import math
import random
import re
import shutil
from dataclasses import asdict
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from browser import assert_readable, in_browser
from helpers import captured

from mt.config import Config
from mt.config_file import dump_config
from mt.errors import DataError
from mt.evaluate.bleu import scores
from mt.evaluate.curve import BleuCurve, CurvePoint
from mt.evaluate.report import read_run, write_report
from mt.evaluate.tables import score_dicts
from mt.pages.report_page import report_page
from mt.run_folder import find_checkpoint

EVIL = '<script>alert("x")</script> & <img src=https://example.org/x onerror=1> \u202e\x00'
SENTENCES = [
    ("Two dogs run across the snow.", "Zwei Hunde laufen durch den Schnee."),
    (EVIL, f"Ein {EVIL}"),
    ("The dog runs in the garden.", "الكلب يجري في الحديقة الكبيرة"),
]


def report(folder: Path) -> str:
    return report_page(read_run(folder))


def training_line(update: int, choice: random.Random) -> dict[str, Any]:
    rate = 256**-0.5 * min(update**-0.5, update * 100**-1.5)
    return {
        "update": update,
        "loss": 2.9 + 6.3 * math.exp(-update / 90) + choice.gauss(0, 0.1),
        "rate": rate,
        "tokens": 3700 + choice.randrange(300),
        "seconds": 1.4 + 0.1 * choice.random(),
        "padding": 0.02 + 0.01 * choice.random(),
        "gradient_norm": 0.5 + 4 * math.exp(-update / 20),
    }


def validation_line(update: int, choice: random.Random) -> dict[str, Any]:
    loss, words = 1.8 + 5 * math.exp(-update / 100), [word for _, reference in SENTENCES for word in reference.split()]
    samples = [
        {
            "source": source,
            "reference": reference,
            "translation": " ".join(
                word if choice.random() < 0.5 else choice.choice(words) for word in reference.split()
            ),
        }
        for source, reference in SENTENCES
    ]
    return {
        "update": update,
        "valid_loss": loss,
        "valid_perplexity": math.exp(loss),
        "valid_bleu": 37 - 37 * math.exp(-update / 150),
        "samples": samples,
    }


def write_json_lines(path: Path, records: list[dict[str, Any]]) -> None:
    path.write_text("".join(json.dumps(record) + "\n" for record in records), encoding="utf-8")


@pytest.fixture
def run(tmp_path: Path, toy_run: Path) -> Path:
    """A run directory as training, preparation and evaluation leave it, with hostile text wherever text can be."""
    choice = random.Random(1)
    folder, data = tmp_path / "runs" / "a <b> run", tmp_path / "data"
    folder.mkdir(parents=True)
    config = Config.model_validate(
        {
            "data": {"dir": str(data), "train": EVIL.replace("\0", ""), "valid": "v", "vocab_size": 6000},
            "model": {"d_model": 256, "heads": 4},
            "train": {"updates": 600},
        }
    )
    (folder / "config.yaml").write_text(dump_config(config), encoding="utf-8")
    records = []
    for update in range(1, 501):
        records.append(training_line(update, choice))
        if update % 50 == 0:
            records.append(validation_line(update, choice))
    records.append(validation_line(500, choice) | {"averaged": 5, "valid_bleu": 41.5})
    write_json_lines(folder / "metrics.jsonl", records)
    found = scores([line for line, _ in SENTENCES] * 5, [line for _, line in SENTENCES] * 5, confidence=20)
    (folder / "scores.json").write_text(json.dumps(score_dicts(found, EVIL, "average of 5, beam 4")))
    updates = [(100, ""), (300, "best"), (500, "")]
    points = [CurvePoint(EVIL, update, update / 12, mark) for update, mark in updates]
    points.append(CurvePoint("averaged", 500, 41, "averaged"))
    curve = BleuCurve(EVIL, EVIL + "a/long/path" * 5, "beam 4", "", points)
    (folder / "curves.json").write_text(json.dumps([asdict(curve)]))
    sessions = json.loads((toy_run / "env.json").read_text(encoding="utf-8"))  # as training writes it
    again = sessions[-1] | {"update": 240, "command": EVIL, "machine": None}
    (folder / "env.json").write_text(json.dumps([*sessions, again]))
    shutil.copytree(toy_run.parent / "data", data)  # as preparation writes it
    manifest = json.loads((data / "manifest.json").read_text(encoding="utf-8"))
    manifest["sources"]["train"][0] |= {"name": f"../shared/data/multi30k/{EVIL}", "read": 29000}
    manifest["sources"]["valid"][0]["read"] = 1014
    manifest["dropped"] = {"duplicate": 201, EVIL: 12, "too long": 0}
    manifest["train"] |= {"rows": 28745, "source_pieces": 411222}
    (data / "manifest.json").write_text(json.dumps(manifest))
    (data / "manifest.sha256").unlink()
    return folder


class Page(HTMLParser):
    """Checks that tags nest; collects tags, attributes and text."""

    VOID = ("meta", "link", "wbr", "br")

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str]] = []
        self.text = ""
        self.feed(text)
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += [(name, value or "") for name, value in attrs]
        if tag not in self.VOID and not (self.get_starttag_text() or "").endswith("/>"):
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)

    def handle_endtag(self, tag: str) -> None:
        if tag not in self.VOID and self.open and self.open[-1] != tag:
            raise AssertionError(f"</{tag}> closes <{self.open[-1]}>")
        if tag not in self.VOID:
            self.open.pop()

    def handle_data(self, data: str) -> None:
        self.text += data


# --- What is on the page -----------------------------------------------------------------------------------------


def test_the_page_shows_all_parts_of_a_run(run: Path) -> None:
    text = Page(report(run)).text
    for heading in ("Curves", "Scores", "Settings", "Data", "Environment"):
        assert heading in text
    assert "updates500 of 600" in text
    assert "● best by BLEU: 35.68 at update 500○ average of 5: 41.50 at update 500" in text
    assert "● best by validation: 25.00○ average: 41.00" in text
    assert "Zwei Hunde laufen durch den Schnee." in text
    assert "case:mixed|eff:no|tok:13a|smooth:exp|version:" in text
    assert "model.d_model512256" in text
    assert "28,745 sentence pairs in an epoch, 411,222 source pieces" in text
    assert "valid1,014" in text
    assert "en: median " in text
    assert "duplicate201" in text
    assert "too long" not in text
    assert report(run).count('class="plot"') == 9


def test_the_environment_is_that_which_training_wrote(run: Path) -> None:
    sessions = json.loads((run / "env.json").read_text(encoding="utf-8"))
    text = Page(report(run)).text
    assert f"versions.torch{sessions[0]['versions']['torch']}" in text
    assert f"started{sessions[0]['started']}" in text
    assert f"data{sessions[0]['data']}" in text
    assert f"command{EVIL}".replace("\0", "\ufffd") in text.replace("\0", "\ufffd")
    assert "machine" not in text
    assert "from updatestarted" in text  # a row for each of the two sessions


def test_the_headline_gives_the_best_and_the_average_and_says_which_is_taken(toy_run: Path, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    shutil.copytree(toy_run, folder)
    validations = [line for line in map(json.loads, (folder / "metrics.jsonl").open()) if "valid_bleu" in line]
    bleu = {
        "averaged" if "averaged" in line else f"step-{line['update']:08}": line["valid_bleu"] for line in validations
    }
    words = {"averaged": "average of 2 checkpoints", "step-00000120": "best checkpoint, update 120"}
    for removed in ("nothing", "averaged"):
        shutil.rmtree(folder / "checkpoints" / removed, ignore_errors=True)
        taken = find_checkpoint(folder).name
        headline = captured(r'(<dl class="facts">.*?</dl>)', report(folder))
        assert re.findall(r"<dt>validation BLEU, (.*?) \(what --ckpt RUN takes\)</dt>", headline) == [words[taken]]
        assert re.findall(r"<dd>(.*?)</dd>", headline)[0] == f"{bleu[taken]:.2f}"
        assert headline.count("validation BLEU, ") == 2


def test_hostile_text_stays_text(run: Path) -> None:
    page = Page(report(run))
    assert "img" not in page.tags
    assert page.tags.count("script") == 1
    assert not [name for name, _ in page.attributes if name.startswith("on")]
    assert page.text.count('<script>alert("x")</script>') > 10


def test_names_from_outside_do_not_turn_the_text_after_them(run: Path) -> None:
    curves, scores_section = (
        captured(rf'(<section id="{name}">.*?</section>)', report(run)) for name in ("curves", "scores")
    )
    for text in (curves, scores_section):
        assert "\u202e" in text
        assert "\u202e" not in re.sub(r"<bdi>.*?</bdi>", "", text, flags=re.S)


def test_the_page_asks_for_nothing_from_outside(run: Path) -> None:
    text = report(run)
    links = [value for name, value in Page(text).attributes if name in ("src", "href", "data", "action")]
    assert len(links) > 3
    assert all(link.startswith(("#", "data:")) for link in links)
    assert "url(" not in text
    assert "@import" not in text
    assert "default-src 'none'" in text


def test_every_link_has_its_section(run: Path) -> None:
    attributes = Page(report(run)).attributes
    names = {value for name, value in attributes if name == "id"}
    links = {value[1:] for name, value in attributes if name == "href" and value.startswith("#")}
    assert links == names != set()


def test_the_same_run_gives_the_same_page(run: Path) -> None:
    assert report(run) == report(run)


# --- What is missing or damaged ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name", ["config.yaml", "metrics.jsonl", "scores.json", "curves.json", "env.json", "../../data"]
)
@pytest.mark.parametrize("damage", ["missing", "damaged", "another shape"])
def test_a_missing_or_damaged_piece_leaves_the_rest(run: Path, name: str, damage: str) -> None:
    path = run / name
    if path.is_dir():
        shutil.rmtree(path)
    elif damage == "missing":
        path.unlink()
    else:
        path.write_text('{"update": [1, {"loss' if damage == "damaged" else '[1, {"update": 3, "scores": [7]}, "x"]')
    page = Page(report(run))
    assert ("Environment" in page.text) == (name != "env.json")
    assert ("Scores" in page.text) == (name != "scores.json")
    assert ("Validation perplexity" in page.text) == (name != "metrics.jsonl")
    assert ("Test BLEU" in page.text) == (name != "curves.json")
    assert ("Settings" in page.text) == (name != "config.yaml")


def test_a_wrong_config_says_so_on_the_page(run: Path) -> None:
    (run / "config.yaml").write_text("model: {d_modle: 3}")
    assert "config.yaml cannot be read: config.yaml:1: model.d_modle: unknown key" in Page(report(run)).text


def test_a_folder_that_is_no_run_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="not a run directory"):
        report(tmp_path)


def test_records_with_holes_and_strange_values_are_passed_over(run: Path) -> None:
    lines = [
        '{"update": 1, "loss": NaN, "tokens": null, "seconds": 0}',
        '{"update": 2, "loss": Infinity}',
        '{"up',
        "",
        "7",
    ]
    lines += ['{"update": 3, "loss": "x", "rate": true}', '{"update": 4, "valid_bleu": 3.5, "samples": [null, 5]}']
    (run / "metrics.jsonl").write_text("\n".join(lines))
    text = Page(report(run)).text
    assert "updates4 of 600" in text
    assert "The loss is not a finite number at 3 of 3 updates." in text


def test_steps_are_drawn_where_pieces_halt(run: Path) -> None:
    assert "Steps until a piece halts" not in report(run)
    choice = random.Random(1)
    steps = [{"encoder_steps": 2 + update / 100, "decoder_steps": 5.4321} for update in range(1, 9)]
    lines = [{**training_line(update, choice), **found} for update, found in enumerate(steps, 1)]
    write_json_lines(run / "metrics.jsonl", lines)
    page = report(run)
    chart = page[page.index("Steps until a piece halts") :]
    assert chart.index("encoder") < chart.index("</figure>")
    assert chart.index("5.43") < chart.index("</figure>")


def test_a_run_that_diverged_says_so(run: Path) -> None:
    (run / "diverged.json").write_text('{"update": 501, "loss": "nan", "gradient_norm": "inf", "pairs": []}')
    assert "Diverged at update 501: loss nan, gradient norm inf" in Page(report(run)).text
    (run / "diverged.json").write_text('{"update": 400, "loss": "nan"}')  # the run has come further since
    assert "Diverged" not in Page(report(run)).text


def test_text_that_is_not_unicode_can_be_written(run: Path) -> None:
    sample = {"source": "\ud83d lone", "reference": "x", "translation": "\udcff"}
    write_json_lines(run / "metrics.jsonl", [{"update": 1, "valid_bleu": 1.0, "samples": [sample]}])
    assert "lone" in write_report(run).read_text(encoding="utf-8")
    assert not (run / "report.partial").exists()


def test_a_long_run_makes_no_long_page(run: Path) -> None:
    choice = random.Random(1)
    records = [training_line(update, choice) for update in range(1, 20_001)]
    records += [validation_line(update, choice) for update in range(1, 20_001, 100)]
    write_json_lines(run / "metrics.jsonl", records)
    assert len(report(run)) < 150_000


# --- A real browser ----------------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
@pytest.mark.parametrize("width", [390, 768, 1280])
def test_a_browser_lays_it_out_without_overflow(run: Path, tmp_path: Path, width: int, dark: bool) -> None:
    assert_readable(report(run), tmp_path, width, dark)


@pytest.mark.parametrize("width", [390, 1280])
def test_charts_fill_their_width(run: Path, tmp_path: Path, width: int) -> None:
    script = """
      const wide = node => node.getBoundingClientRect().width, grid = page.querySelector('#curves .grid')
      return [wide(grid), wide(grid.querySelector('figure')), ...[...grid.querySelectorAll('.plot svg')].map(wide)]
    """
    whole, figure, *plots = in_browser(report(run), script, tmp_path, width)
    assert whole > 0.8 * width
    assert figure > 0.45 * whole
    assert min(plots) > 0.7 * figure


def test_the_values_of_a_chart_can_be_read_with_the_pointer_and_the_keys(run: Path, tmp_path: Path) -> None:
    script = """
      const plot = page.querySelector('.plot'), box = plot.getBoundingClientRect()
      plot.dispatchEvent(new view.PointerEvent('pointermove', {clientX: box.left + box.width / 2}))
      const pointed = plot.querySelector('.tip').textContent
      for (const key of ['End', 'ArrowLeft']) plot.dispatchEvent(new view.KeyboardEvent('keydown', {key}))
      const moved = plot.querySelector('.tip').textContent
      plot.dispatchEvent(new view.KeyboardEvent('keydown', {key: 'Escape'}))
      return [pointed, moved, plot.querySelector('.tip')]
    """
    pointed, moved, hidden = in_browser(report(run), script, tmp_path)
    record = next(line for line in map(json.loads, (run / "metrics.jsonl").open()) if line.get("valid_loss"))
    assert re.fullmatch(r"train \d\.\d\d at 2\d\dvalid \d\.\d\d at 250", pointed)
    assert re.fullmatch(r"train \d\.\d\d at 49\dvalid \d\.\d\d at 500", moved)
    assert f"{record['valid_loss']:.2f}" not in moved
    assert hidden is None
