"""The page that draws attention weights: a heat map and lines, for each sentence, layer and head."""

import json
import re
from collections.abc import Mapping, Sequence

from mt.pages.frame import page

_BYTE = re.compile(r"<0x([0-9A-F]{2})>")
_PIECES = ("source_pieces", "target_pieces", "input_pieces")
_BODY = """<header><h1>Attention</h1></header>
<form autocomplete="off">
<label class="long">Sentence <select id="pair"></select></label>
<label>Attention <select id="kind"></select></label>
<label>Layer <select id="layer"></select></label>
<label>Head <select id="head"></select></label>
</form>
<dl class="keyed"><dt>source</dt><dd id="source" dir="auto"></dd><dt>target</dt><dd id="target" dir="auto"></dd></dl>
<noscript><p>The weights are drawn by this page's own script, which this browser does not run.</p></noscript>
<output id="readout"></output>
<main>
<figure><figcaption>Each row sums to 1; the stronger the colour, the more weight.</figcaption>
<div id="scale"></div><div id="map"></div></figure>
<figure><figcaption>Lines as thick as the weights, from what is looked at to what looks.</figcaption>
<div id="lines"></div></figure>
</main>"""


def attention_page(records: Sequence[Mapping[str, object]], layer: int = -1) -> str:
    """A whole HTML document that draws weights by layer, head and row, opened on decoder layer `layer`.

    A record is what the JSON of `mt translate --attention` holds for a sentence. Layers count from 0, or back from -1.
    All text is set as text by the script, and stands in the file so that none of it can end the script early.
    """
    shown = [
        {**record, **{key: readable_pieces(record[key]) for key in _PIECES if key in record}} for record in records
    ]
    data = json.dumps({"layer": layer, "pairs": shown}, ensure_ascii=False).replace("<", "\\u003c")
    weights = f'<script type="application/json" id="weights">{data}</script>'
    return page("Attention", [_BODY, weights], ["attention_page.css"], ["attention_page.js"])


def readable_pieces(pieces: object) -> list[str]:
    """Pieces as people read them: without the word marks, and bytes as the character they spell.

    Each of a character's bytes stands for it, numbered: ש₁ ש₂. Bytes that spell nothing stay as they are.
    """
    assert isinstance(pieces, Sequence)
    texts = [str(piece) for piece in pieces]
    bytes_of = [match and int(match[1], 16) for match in map(_BYTE.fullmatch, texts)]
    found: list[str] = []
    while len(found) < len(texts):
        start = len(found)
        found += _spelt(bytes_of[start : start + 4]) or [texts[start].replace("\u2581", " ").strip() or "\u2423"]
    return found


def _spelt(bytes_of: Sequence[int | None]) -> list[str]:
    """Names for the bytes at the start that spell one character; none when they do not."""
    for length in range(1, len(bytes_of) + 1):
        spelling = [byte for byte in bytes_of[:length] if byte is not None]
        if len(spelling) < length:
            return []
        try:
            character = bytes(spelling).decode()
        except UnicodeDecodeError:
            continue
        name = character if character.isprintable() else f"U+{ord(character):04X}"
        return [name] if length == 1 else [f"{name}{chr(0x2081 + index)}" for index in range(length)]
    return []
