"""The page a report is written on: one HTML file that asks for nothing else, light and dark, for desk and phone."""

from collections.abc import Sequence
from html import escape

_STYLE = """
:root { color-scheme: light dark;
  --paper: #fffff8; --ink: #16160f; --soft: #6d6d64; --hair: #d9d9cc; --band: #e9e9dc; --mark: #a3201d }
@media (prefers-color-scheme: dark) { :root {
  --paper: #161614; --ink: #e5e3d9; --soft: #9b998e; --hair: #3c3b36; --band: #302f2b; --mark: #ec8c7e } }
* { box-sizing: border-box }
body { margin: 0 auto; max-width: 74rem; padding: 2rem clamp(1rem, 4vw, 3.5rem) 4rem;
  background: var(--paper); color: var(--ink); text-size-adjust: 100%; -webkit-text-size-adjust: 100%;
  font: 1.0625rem/1.5 ETBembo, et-book, Palatino, "Palatino Linotype", "Book Antiqua", Georgia, serif;
  font-variant-numeric: lining-nums }
h1, h2, h3 { font-weight: normal; line-height: 1.2; margin: 0; text-wrap: balance }
h1 { font-size: 2.3rem }
h2 { font-style: italic; font-size: 1.5rem; margin: 2.8rem 0 .9rem }
h3 { font-size: 1.0625rem }
p { margin: .4rem 0 .7rem; max-width: 44rem }
a { color: inherit; text-decoration-color: var(--hair); text-underline-offset: .18em }
nav { margin-top: .9rem; color: var(--soft); display: flex; flex-wrap: wrap; gap: .1rem 1.1rem }
.lede { font-size: 1.2rem }
.soft, figcaption small, th, dt { color: var(--soft) }
small, .small { font-size: .86em }
code, pre { font: .82em/1.45 ui-monospace, "SF Mono", Menlo, Consolas, "DejaVu Sans Mono", monospace;
  overflow-wrap: anywhere }
pre { white-space: pre-wrap; margin: .6rem 0 }
.grid { display: grid; gap: 1.6rem 2rem; grid-template-columns: repeat(auto-fill, minmax(min(14.5rem, 100%), 1fr)) }
.grid.wide { grid-template-columns: repeat(auto-fill, minmax(min(30rem, 100%), 1fr)) }
figure { margin: 0; min-width: 0 }
figcaption { min-height: 4rem }
figcaption small { display: block; line-height: 1.35; overflow-wrap: anywhere }
svg { display: block; width: 100%; height: auto; overflow: visible }
svg text { font-size: 11px; fill: var(--soft); font-variant-numeric: lining-nums tabular-nums }
svg text.ink { fill: var(--ink) }
svg .end { text-anchor: end } svg .middle { text-anchor: middle }
.axis, .line { fill: none; stroke: var(--soft); stroke-width: .8 }
.line { stroke-width: 1.3; stroke-linejoin: round } .line.ink { stroke: var(--ink) }
.band { fill: var(--band) }
.dot { fill: var(--ink) }
.mark { fill: var(--mark) } .mark.ring { fill: var(--paper); stroke: var(--mark); stroke-width: 1.5 }
.key { white-space: nowrap } .key i { color: var(--mark); font-style: normal }
.side { display: flex; flex-wrap: wrap; gap: 1.8rem 3rem; align-items: flex-start }
.side figure { flex: 0 1 20rem }
table { border-collapse: collapse; font-variant-numeric: lining-nums tabular-nums; max-width: 100% }
table + p { margin-top: 1.6rem }
caption { text-align: left; padding-bottom: .3rem; font-size: 1.0625rem }
th { font-weight: normal; text-align: left; border-bottom: 1px solid var(--hair) }
th, td { padding: .16rem 1.4rem .16rem 0; vertical-align: baseline; overflow-wrap: break-word }
td.number, th.number { text-align: right; white-space: nowrap }
td.bar { width: 12rem; min-width: 3rem } td.bar i { display: block; height: .5em; background: var(--soft) }
table.small td { line-height: 1.25 } table.small code { font-size: .95em }
dl { display: grid; grid-template-columns: fit-content(40%) 1fr; gap: .1rem 1rem; margin: 0; align-items: baseline }
dt { text-align: right; min-width: 0; overflow-wrap: anywhere } dd { margin: 0; min-width: 0; overflow-wrap: anywhere }
article { border-top: 1px solid var(--hair); padding-top: .6rem; min-width: 0 }
article dt { font-size: .86em; min-width: 4.4rem }
article .given { font-style: italic }
.off { color: var(--soft) }
summary { cursor: pointer; color: var(--soft) }

@media (max-width: 40rem) {
  h1 { font-size: 1.9rem }
  figcaption { min-height: 0; margin-bottom: .3rem }
  svg text { font-size: 9.5px }
  th, td { padding-right: .8rem; overflow-wrap: anywhere }
  table.stacked thead { display: none }
  table.stacked tr { display: grid; grid-template-columns: 1fr auto auto; padding: .3rem 0;
    border-bottom: 1px solid var(--hair) }
  table.stacked td:last-child, table.keyed td:first-child { grid-column: 1 / -1 }
  table.keyed thead th:first-child { display: none } table.keyed td:first-child { color: var(--soft) }
  table.keyed tr { display: grid; grid-template-columns: 1fr 1fr; padding: .25rem 0;
    border-bottom: 1px solid var(--hair) }
  td.bar { width: 30% } }
@media print { nav { display: none } details > pre { display: block } article, figure { break-inside: avoid } }
"""


def page(title: str, body: Sequence[str]) -> str:
    """A whole HTML document; its policy forbids scripts and every request."""
    return f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'; img-src data:">
<link rel="icon" href="data:,">
<title>{escape(title)}</title>
<style>{_STYLE}</style>
</head>
<body>
{chr(10).join(part for part in body if part)}
</body>
</html>
"""


def section(anchor: str, heading: str, parts: Sequence[str]) -> str:
    """A section with its heading; nothing when it has no content."""
    content = "\n".join(part for part in parts if part)
    return f'<section id="{anchor}">\n<h2>{escape(heading)}</h2>\n{content}\n</section>' if content else ""


def table(head: Sequence[str], rows: Sequence[Sequence[str]], numbers: Sequence[int] = (), kind: str = "") -> str:
    """A table of cells that are HTML already; the columns in `numbers` are set flush right."""
    if not rows:
        return ""
    lines = [f'<table class="{kind}">', f"<thead><tr>{_cells('th', head, numbers)}</tr></thead>", "<tbody>"]
    lines += [f"<tr>{_cells('td', row, numbers)}</tr>" for row in rows]
    return "\n".join([*lines, "</tbody>", "</table>"])


def _cells(tag: str, cells: Sequence[str], numbers: Sequence[int]) -> str:
    return "".join(
        f'<{tag} class="number">{cell}</{tag}>' if column in numbers else f"<{tag}>{cell}</{tag}>"
        for column, cell in enumerate(cells)
    )


def figure(heading: str, note: str, picture: str) -> str:
    """A captioned picture; nothing when there is no picture. `note` is HTML already."""
    if not picture:
        return ""
    return f"<figure><figcaption><h3>{escape(heading)}</h3><small>{note}</small></figcaption>{picture}</figure>"


def apart(text: object) -> str:
    """A name from outside, whose own direction of writing must not turn what follows."""
    return f"<bdi>{escape(str(text))}</bdi>"
