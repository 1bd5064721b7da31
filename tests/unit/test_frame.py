"""The frame of the pages: one file that asks for nothing, runs its own script alone, and travels with the package."""

import base64
import fnmatch
import hashlib
import re
import tomllib
from pathlib import Path

from browser import in_browser
from helpers import captured

from mt.pages.frame import bar_table, facts, isolated, keyed, page, section, table

ROOT = Path(__file__).parents[2]


def test_the_policy_lets_nothing_run_but_the_pages_own_script() -> None:
    html = page("a", ["b"], ["charts.css"], ["charts.js"])
    script = captured(r"<script>(.*?)</script>", html)
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    assert f"default-src 'none'; style-src 'unsafe-inline'; script-src 'sha256-{digest}'; img-src data:" in html
    assert "script-src 'none'" in page("a", [])


def test_a_browser_refuses_any_other_script(tmp_path: Path) -> None:
    html = page("a", ["<p>text</p><script>document.body.textContent = 'changed'</script>"])
    assert in_browser(html, "return page.querySelector('p').textContent", tmp_path) == "text"


def test_styles_and_scripts_travel_with_the_package() -> None:
    setup = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["setuptools"]
    patterns = [*setup["package-data"].get("mt.pages", []), *setup["package-data"].get("*", [])]
    others = [path.name for path in (ROOT / "mt/pages").iterdir() if path.is_file() and path.suffix != ".py"]
    assert others
    assert not [name for name in others if not any(fnmatch.fnmatch(name, pattern) for pattern in patterns)]


def test_no_part_stands_empty() -> None:
    assert section("a", "A", ["", ""]) == facts({}) == keyed({}) == table(["a"], []) == bar_table(["a"], {"x": 0}) == ""


def test_text_is_escaped_and_keeps_its_direction_to_itself() -> None:
    assert isolated("<b>\u202e") == "<bdi>&lt;b&gt;\u202e</bdi>"
    parts = [page("<i>", []), facts({"<i>": "<i>"}), keyed({"<i>": ""}), bar_table(["<i>", "<i>"], {"<i>": 3})]
    assert not [part for part in parts if "<i>" in part]


def test_bars_are_as_long_as_their_counts_from_the_largest_down() -> None:
    html = bar_table(["reason", "pairs"], {"few": 5, "none": 0, "many": 20})
    assert re.findall(r"width: ([\d.]+)%", html) == ["100.0", "25.0"]
    assert html.index("many") < html.index("few")
    assert "none" not in html
