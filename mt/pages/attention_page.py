"""The page that draws attention weights: one file, which asks for nothing else and works without a network."""

import json
from collections.abc import Mapping, Sequence

_STYLE = """
:root { color-scheme: light dark; --paper: #fffff8; --ink: #16160f; --soft: #6d6d64; --hair: #d9d9cc; --mark: #a3201d }
@media (prefers-color-scheme: dark) { :root {
  --paper: #161614; --ink: #e5e3d9; --soft: #9b998e; --hair: #3c3b36; --mark: #ec8c7e } }
* { box-sizing: border-box }
body { margin: 0 auto; max-width: 80rem; padding: 2rem clamp(1rem, 4vw, 3rem) 3rem; background: var(--paper);
  color: var(--ink); font: 1.0625rem/1.5 ETBembo, et-book, Palatino, "Palatino Linotype", Georgia, serif }
h1 { font-weight: normal; font-size: 2rem; margin: 0 }
form { display: flex; flex-wrap: wrap; gap: .5rem 1.4rem; margin: 1rem 0; align-items: baseline }
label { color: var(--soft); max-width: 100% }
select { font: inherit; color: var(--ink); background: var(--paper); border: 1px solid var(--hair);
  padding: .1rem .3rem; max-width: 100% }
output { display: block; min-height: 1.6em; margin: .4rem 0 1rem; font-variant-numeric: tabular-nums }
main { display: flex; flex-wrap: wrap; gap: 2rem 4rem; align-items: flex-start }
figure { margin: 0; min-width: 0; max-width: 100%; overflow-x: auto }
figcaption { color: var(--soft); font-style: italic; margin-bottom: .4rem }
svg { display: block; overflow: visible }
text { font-size: 14px; fill: var(--ink) }
.end { text-anchor: end }
.faint { fill: var(--soft) }
.cell { fill: var(--mark) } .grid { fill: none; stroke: var(--hair) }
.hit { fill: transparent } .hit.on { stroke: var(--ink); stroke-width: 1.5 }
.line { stroke: var(--mark); fill: none } .word { cursor: default } .word.on { fill: var(--mark) }
"""

_SCRIPT = """
'use strict'
const pairs = JSON.parse(document.getElementById('weights').textContent)
const kinds = {cross: 'target to source', encoder_self: 'source to source', decoder_self: 'target to target'}
const pick = id => document.getElementById(id)
const svg = (name, attributes, text) => {
  const node = document.createElementNS('http://www.w3.org/2000/svg', name)
  for (const [key, value] of Object.entries(attributes)) node.setAttribute(key, value)
  if (text !== undefined) node.textContent = text
  return node
}
const options = (select, names) => {
  const before = select.value
  select.replaceChildren(...names.map(([value, name]) => {
    const option = document.createElement('option')
    option.value = value
    option.textContent = name
    return option
  }))
  if (names.some(([value]) => value === before)) select.value = before
}
const shown = piece => piece.replaceAll('\\u2581', ' ').trim() || '\\u2423'
const mean = maps =>
  maps[0].map((row, r) => row.map((_, c) => maps.reduce((sum, map) => sum + map[r][c], 0) / maps.length))
let matrix, rows, columns, chosen = null

function choose() {
  const pair = pairs[+pick('pair').value]
  options(pick('kind'), Object.entries(kinds).filter(([kind]) => kind in pair))
  const kind = pick('kind').value, layers = pair[kind]
  options(pick('layer'), [...layers.map((_, index) => [String(index), String(index + 1)]), ['mean', 'mean of all']])
  options(pick('head'), [['mean', 'mean of all'], ...layers[0].map((_, index) => [String(index), String(index + 1)])])
  const layer = pick('layer').value, head = pick('head').value
  const ofLayer = heads => head === 'mean' ? mean(heads) : heads[+head]
  matrix = layer === 'mean' ? mean(layers.map(ofLayer)) : ofLayer(layers[+layer])
  rows = kind === 'encoder_self' ? pair.source_pieces : kind === 'cross' ? pair.target_pieces : pair.input_pieces
  columns = kind === 'decoder_self' ? pair.input_pieces : pair.source_pieces
  chosen = null
  say()
  heatMap()
  lines()
}

function say(row, column) {
  pick('readout').textContent = row === undefined
    ? 'Point at a cell or a word.'
    : column === undefined
      ? shown(rows[row]) + ': ' + matrix[row].map((weight, c) => [weight, c]).sort((a, b) => b[0] - a[0]).slice(0, 5)
          .map(([weight, c]) => shown(columns[c]) + ' ' + weight.toFixed(3)).join(',  ')
      : shown(rows[row]) + ' \\u2192 ' + shown(columns[column]) + ':  ' + matrix[row][column].toFixed(4)
}

function heatMap() {
  const size = 26, left = 130, top = 110
  const picture = svg('svg', {width: left + columns.length * size + 60, height: top + rows.length * size + 4})
  columns.forEach((piece, c) => picture.append(svg('text', {
    transform: `translate(${left + c * size + size * .65} ${top - 8}) rotate(-50)`}, shown(piece))))
  rows.forEach((piece, r) => {
    picture.append(svg('text', {x: left - 8, y: top + r * size + size * .68, class: 'end'}, shown(piece)))
    columns.forEach((_, c) => {
      const place = {x: left + c * size, y: top + r * size, width: size, height: size}
      picture.append(svg('rect', {...place, class: 'cell', opacity: matrix[r][c]}))
      picture.append(svg('rect', {...place, class: 'grid'}))
      const hit = svg('rect', {...place, class: 'hit', 'data-row': r, 'data-column': c})
      hit.addEventListener('pointerenter', () => { hit.classList.add('on'); say(r, c); lines(r) })
      hit.addEventListener('pointerleave', () => { hit.classList.remove('on'); say(); lines() })
      picture.append(hit)
    })
  })
  pick('map').replaceChildren(picture)
}

function lines(only) {
  const step = 26, left = 150, right = 380
  const height = Math.max(rows.length, columns.length) * step + 8
  const picture = svg('svg', {width: 540, height})
  const y = index => index * step + 18
  rows.forEach((_, r) => columns.forEach((_, c) => {
    const weight = matrix[r][c]
    if (weight < .01 || (only !== undefined && only !== r)) return
    const [from, to] = [y(c) - 5, y(r) - 5]
    picture.append(svg('path', {class: 'line', 'stroke-width': weight * 9, opacity: .25 + .75 * weight,
      d: `M${left + 6} ${from} C${left + 110} ${from} ${right - 110} ${to} ${right - 6} ${to}`}))
  }))
  columns.forEach((piece, c) => picture.append(svg('text', {x: left, y: y(c), class: 'end'}, shown(piece))))
  rows.forEach((piece, r) => {
    const style = 'word' + (only === r ? ' on' : '')
    const word = svg('text', {x: right, y: y(r), class: style, 'data-row': r}, shown(piece))
    word.addEventListener('pointerenter', () => { if (chosen !== r) { chosen = r; say(r); lines(r) } })
    picture.append(word)
  })
  picture.addEventListener('pointerleave', () => { chosen = null; say(); lines() })
  pick('lines').replaceChildren(picture)
}

const names = pairs.map((pair, index) => `${index + 1}. ${pair.source}  \\u2192  ${pair.target}`)
options(pick('pair'), names.map((name, index) => [String(index), name]))
for (const id of ['pair', 'kind', 'layer', 'head']) pick(id).addEventListener('change', choose)
if (pairs.length) {
  choose()
  pick('layer').value = String(Math.max(pairs[0].cross.length - 2, 0))
  choose()
} else pick('readout').textContent = 'No sentence was translated.'
"""


def attention_page(records: Sequence[Mapping[str, object]]) -> str:
    """A whole HTML document that draws what `Attention.record` gives.

    All text is set as text by the script, and stands in the file so that none of it can end the script early; the
    page's policy forbids every request.
    """
    data = json.dumps(records, ensure_ascii=False).replace("<", "\\u003c")
    return f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy"
  content="default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; img-src data:">
<link rel="icon" href="data:,">
<title>Attention</title>
<style>{_STYLE}</style>
</head>
<body>
<h1>Attention</h1>
<form autocomplete="off">
<label>Sentence <select id="pair"></select></label>
<label>From <select id="kind"></select></label>
<label>Layer <select id="layer"></select></label>
<label>Head <select id="head"></select></label>
</form>
<output id="readout"></output>
<main>
<figure><figcaption>Each row sums to 1; the darker, the more weight.</figcaption><div id="map"></div></figure>
<figure><figcaption>Lines as thick as the weights.</figcaption><div id="lines"></div></figure>
</main>
<script type="application/json" id="weights">{data}</script>
<script>{_SCRIPT}</script>
</body>
</html>
"""
