"""The report: complete, harmless, patient with what is missing, and fit for desk and phone, light and dark."""

import html
import json
import math
import random
import re
import shutil
import subprocess
from html.parser import HTMLParser
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from mt.config import Config, dump_config
from mt.errors import DataError
from mt.evaluate.bleu import scores
from mt.evaluate.charts import Curve, binned, line_chart
from mt.evaluate.report import report, write_report
from mt.evaluate.tables import score_dicts

EVIL = '<script>alert("x")</script> & <img src=https://example.org/x onerror=1> \u202e\x00'
SENTENCES = [
    ("Two dogs run across the snow.", "Zwei Hunde laufen durch den Schnee."),
    (EVIL, f"Ein {EVIL}"),
    ("The dog runs in the garden.", "الكلب يجري في الحديقة الكبيرة"),
]


def training_line(update: int, choice: random.Random) -> dict:
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


def validation_line(update: int, choice: random.Random) -> dict:
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


def write_json_lines(path: Path, records: list[dict]) -> None:
    path.write_text("".join(json.dumps(record) + "\n" for record in records), encoding="utf-8")


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A run directory as training, preparation and evaluation leave it, with hostile text wherever text can be."""
    choice = random.Random(1)
    folder, data = tmp_path / "runs" / "a <b> run", tmp_path / "data"
    folder.mkdir(parents=True)
    (data / "train").mkdir(parents=True)
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
    points = [{"checkpoint": EVIL, "update": update, "bleu": update / 12, "mark": ""} for update in (100, 300, 500)]
    points[1]["mark"] = "best"
    curve = {
        "testset": EVIL + "a/long/path" * 5,
        "decoding": "beam 4",
        "points": [*points, {**points[2], "bleu": 41, "mark": "averaged"}],
    }
    (folder / "curves.json").write_text(json.dumps([curve]))
    (folder / "env.json").write_text(
        json.dumps({"torch": "2.13.0", "git": {"commit": "abc123"}, EVIL: [EVIL, 1, None]})
    )
    manifest = {
        "sources": {
            "train": [{"name": f"../shared/data/multi30k/{EVIL}", "read": 29000, "kept": 28800, "files": []}],
            "valid": [{"name": "../shared/data/multi30k/valid", "read": 1014, "kept": 1014, "files": []}],
        },
        "dropped": {"duplicate": 201, EVIL: 12, "too long": 0},
        "train": {"rows": 28745, "source_pieces": 411222, "target_pieces": 430001},
        "tokenizer": {"pieces": 6000},
    }
    (data / "manifest.json").write_text(json.dumps(manifest))
    for side in ("source", "target"):
        offsets = np.array([0] + [choice.randrange(3, 60) for _ in range(500)]).cumsum()
        np.save(data / "train" / f"{side}.offsets.npy", offsets)
        np.save(data / "train" / f"{side}.ids.npy", np.zeros(offsets[-1], np.uint16))
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
        if tag not in self.VOID and not self.get_starttag_text().endswith("/>"):
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
    assert "500 of 600 updates" in text
    assert "average of 5: 41.50" in text
    assert "best by validation: 25.00 ○ average: 41.00" in text
    assert "Zwei Hunde laufen durch den Schnee." in text
    assert "case:mixed|eff:no|tok:13a|smooth:exp|version:" in text
    assert "model.d_model512256" in text
    assert "28,745 sentence pairs in an epoch, 411,222 source pieces" in text
    assert "1,014" in text
    assert "duplicate201" in text
    assert "too long" not in text
    assert "git.commitabc123" in text
    assert report(run).count("<svg") == 9


def test_hostile_text_stays_text(run: Path) -> None:
    page = Page(report(run))
    assert {"script", "img"}.isdisjoint(page.tags)
    assert not [name for name, _ in page.attributes if name.startswith("on")]
    assert page.text.count('<script>alert("x")</script>') > 10


def test_names_from_outside_do_not_turn_the_text_after_them(run: Path) -> None:
    curves, scores_section = (
        re.search(rf'<section id="{name}">.*?</section>', report(run), re.S)[0] for name in ("curves", "scores")
    )
    for text in (curves, scores_section):
        assert "\u202e" in text
        assert "\u202e" not in re.sub(r"<bdi>.*?</bdi>", "", text, flags=re.S)


def test_the_page_asks_for_nothing_from_outside(run: Path) -> None:
    text = report(run)
    links = [value for name, value in Page(text).attributes if name in ("src", "href", "data", "action")]
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
    assert "4 of 600 updates" in Page(report(run)).text


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


# --- Charts ------------------------------------------------------------------------------------------------------


def drawn_points(svg: str) -> list[tuple[float, float]]:
    path = re.search(r'class="line ink" d="M([^"]*)"', svg)
    return [tuple(map(float, pair.split())) for pair in path[1].split("L")]


def test_a_curve_touches_its_frame_and_rises_where_its_data_rise() -> None:
    points = [(0, 5.0), (50, 1.0), (100, 9.0)]
    (x0, y0), (x1, y1), (x2, y2) = drawn_points(line_chart("x", [Curve(points)], str, last=100))
    assert x1 - x0 == pytest.approx(x2 - x1, abs=0.2)
    assert (y1 - y0) / (y1 - y2) == pytest.approx(0.5, abs=0.01)  # y points down in a picture


def test_a_log_chart_has_equal_steps_for_equal_factors() -> None:
    points = [(0, 1.0), (1, 10.0), (2, 100.0), (3, -5.0), (4, math.inf)]
    ys = [y for _, y in drawn_points(line_chart("x", [Curve(points)], str, last=2, log=True))]
    assert len(ys) == 3
    assert ys[0] - ys[1] == pytest.approx(ys[1] - ys[2], abs=0.2)


def test_a_single_or_a_constant_value_is_drawn_and_none_is_not() -> None:
    assert "<svg" in line_chart("x", [Curve([(5, 3.0)])], str, last=5)
    assert "<svg" in line_chart("x", [Curve([(1, 3.0), (2, 3.0)])], str, last=2)
    assert line_chart("x", [Curve([])], str, last=0) == ""


def test_bins_keep_the_weighted_mean_and_end_where_the_data_end() -> None:
    choice = random.Random(3)
    values, weights = ([choice.random() for _ in range(1500)] for _ in range(2))
    curve = binned(list(enumerate(values)), weights)
    sums = [sum(weights[start : start + 10]) for start in range(0, 1500, 10)]
    mean = sum(y * weight for (_, y), weight in zip(curve.points, sums, strict=True)) / sum(weights)
    assert mean == pytest.approx(sum(v * w for v, w in zip(values, weights, strict=True)) / sum(weights))
    assert curve.points[-1][0] == 1499
    assert all(low <= high for _, low, high in curve.band)


def test_labels_at_the_ends_of_like_curves_do_not_overlap() -> None:
    curves = [Curve([(0, 0), (1, 5.0 + number / 100)], f"c{number}") for number in range(3)]
    svg = line_chart("x", curves, str, last=1)
    ys = sorted(float(y) for y in re.findall(r'<text class="start ink" x="[\d.]+" y="([\d.]+)">c', svg))
    assert min(below - above for above, below in pairwise(ys)) >= 11.9


# --- A real browser ----------------------------------------------------------------------------------------------


def seen_in_browser(page: str, width: int, dark: bool, folder: Path) -> dict:
    """Lay the page out in Chromium, in a frame of this width, and measure what is in the frame."""
    chromium = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if chromium is None:
        pytest.skip("no Chromium here")
    script = """
      const inside = frame.contentDocument, view = frame.contentWindow;
      const texts = [...inside.querySelectorAll('svg text')].map(text => text.getBoundingClientRect());
      document.title = JSON.stringify({
        wide: inside.documentElement.scrollWidth, paper: view.getComputedStyle(inside.body).backgroundColor,
        ink: view.getComputedStyle(inside.body).color, sections: inside.querySelectorAll('section').length,
        left: Math.min(...texts.map(box => box.left)), right: Math.max(...texts.map(box => box.right)),
        spilt: Math.max(...[...inside.querySelectorAll('figcaption')].map(note => note.scrollWidth - note.clientWidth)),
        small: Math.min(...texts.map(box => box.height))});
    """
    source = html.escape(page, quote=True)
    outer = folder / "outer.html"
    outer.write_text(
        f'<meta charset="utf-8"><iframe id="frame" style="border:0;width:{width}px" srcdoc="{source}"></iframe>'
        f"<script>frame.onload = () => {{ {script} }}</script>",
        encoding="utf-8",
        errors="replace",
    )
    command = [
        chromium,
        "--headless",
        "--no-sandbox",
        "--disable-gpu",
        "--hide-scrollbars",
        f"--user-data-dir={folder}/profile",
    ]
    command += [f"--blink-settings=preferredColorScheme={0 if dark else 1}", "--window-size=1400,1000"]
    command += ["--virtual-time-budget=5000", "--dump-dom", f"file://{outer}"]
    dom = subprocess.run(command, check=True, capture_output=True, text=True, timeout=60).stdout
    return json.loads(html.unescape(re.search(r"<title>(.*?)</title>", dom)[1]))


@pytest.mark.slow
@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
@pytest.mark.parametrize("width", [360, 768, 1300])
def test_a_browser_lays_it_out_without_overflow(run: Path, tmp_path: Path, width: int, dark: bool) -> None:
    seen = seen_in_browser(report(run), width, dark, tmp_path)
    assert seen["sections"] == 6
    assert seen["wide"] <= width
    assert seen["left"] >= 0
    assert seen["right"] <= width
    assert seen["spilt"] <= 0
    assert seen["small"] >= 10  # pixels: letters one can read
    assert seen["paper"] == ("rgb(22, 22, 20)" if dark else "rgb(255, 255, 248)")
    assert contrast(seen["paper"], seen["ink"]) > 12


def contrast(first: str, second: str) -> float:
    """The contrast ratio of WCAG 2."""
    light, dark = sorted((luminance(colour) for colour in (first, second)), reverse=True)
    return (light + 0.05) / (dark + 0.05)


def luminance(colour: str) -> float:
    parts = [int(part) / 255 for part in re.findall(r"\d+", colour)[:3]]
    red, green, blue = (part / 12.92 if part <= 0.03928 else ((part + 0.055) / 1.055) ** 2.4 for part in parts)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue
