"""Pages laid out by a real browser, at the width of a desk or a phone, light or dark.

Apart from helpers.py, as only the tests of pages need it, and it needs nothing of mt.
"""

import html
import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
from helpers import PATIENCE

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")


def in_browser(page: str, script: str, folder: Path, width: int = 1280, dark: bool = False) -> Any:
    """What the body of a JavaScript function returns that acts on a page in a frame of this width.

    The script knows `page`, the document, and `view`, its window; the page's own policy does not bind it.
    """
    if CHROMIUM is None:
        pytest.skip("no Chromium here")
    outer = folder / "outer.html"
    outer.write_text(
        f'<meta charset="utf-8"><title>nothing</title><iframe id="frame" style="border:0;width:{width}px;height:900px" '
        f'srcdoc="{html.escape(page, quote=True)}"></iframe><script>frame.onload = () => {{ '
        "const page = frame.contentDocument, view = frame.contentWindow; let found; "
        f"try {{ found = (() => {{ {script} }})() }} catch (error) {{ found = String(error) }} "
        "document.title = JSON.stringify(found ?? null) }</script>",
        encoding="utf-8",
        errors="replace",
    )
    options = ["--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", "--window-size=1400,1000"]
    options += [f"--user-data-dir={folder}/profile", f"--blink-settings=preferredColorScheme={0 if dark else 1}"]
    command = [CHROMIUM, *options, "--virtual-time-budget=5000", "--dump-dom", outer.as_uri()]
    dom = subprocess.run(command, check=True, capture_output=True, text=True, timeout=PATIENCE).stdout
    return json.loads(html.unescape(re.search(r"<title>(.*?)</title>", dom, re.S)[1]))  # type: ignore[index]


def look(page: str, folder: Path, width: int, dark: bool) -> dict[str, Any]:
    """What every page must keep to: nothing wider than the screen, letters one can read, ink apart from paper."""
    script = """
      const style = view.getComputedStyle(page.body), boxes = [], sizes = [], spilt = []
      for (const node of page.querySelectorAll('body *')) {
        const own = [...node.childNodes].some(child => child.nodeType === 3 && child.data.trim())
        if (!own || node.closest('script, style') || !node.getClientRects().length) continue
        const scrolls = node.closest('[data-scrolls]')
        if (!scrolls) boxes.push(node.getBoundingClientRect())
        sizes.push(parseFloat(view.getComputedStyle(node).fontSize))
      }
      return {wide: page.documentElement.scrollWidth, left: Math.min(...boxes.map(box => box.left)),
        right: Math.max(...boxes.map(box => box.right)), small: Math.min(...sizes), tall: page.body.scrollHeight,
        paper: style.backgroundColor, ink: style.color}
    """
    return dict(in_browser(page, script, folder, width, dark))


def assert_readable(page: str, folder: Path, width: int, dark: bool) -> None:
    seen = look(page, folder, width, dark)
    assert seen["wide"] <= width
    assert seen["left"] >= 0
    assert seen["right"] <= width
    assert seen["small"] >= 10  # pixels
    assert (luminance(seen["paper"]) < 0.1) == dark
    assert contrast(seen["paper"], seen["ink"]) > 12


def contrast(first: str, second: str) -> float:
    """The contrast ratio of WCAG 2."""
    light, dark = sorted((luminance(colour) for colour in (first, second)), reverse=True)
    return (light + 0.05) / (dark + 0.05)


def luminance(colour: str) -> float:
    parts = [int(part) / 255 for part in re.findall(r"\d+", colour)[:3]]
    red, green, blue = (part / 12.92 if part <= 0.03928 else ((part + 0.055) / 1.055) ** 2.4 for part in parts)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue
