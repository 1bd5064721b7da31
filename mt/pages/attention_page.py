"""The page that draws attention weights: a heat map and lines, for each sentence, layer and head."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

from mt.pages.frame import page, readable_pieces

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


def attention_page(records: Sequence[Mapping[str, Any]], layer: int = -1) -> str:
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
