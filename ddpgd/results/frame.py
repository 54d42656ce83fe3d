"""The frame of pages of results: sections with links to them, grids of figures, notes; and their style."""

from collections.abc import Mapping, Sequence
from html import escape

from ddpgd.results import chart
from ddpgd.run.page import document

STYLE = """
.curves { display: grid; grid-template-columns: repeat(auto-fill, minmax(min(100%, 26rem), 1fr)); gap: 1.4rem 2rem; }
figcaption { font-weight: 600; font-size: 0.9rem; padding-bottom: 0.2rem; }
nav { font-size: 0.9rem; margin: 0.8rem 0; } nav a { margin-right: 1rem; white-space: nowrap; display: inline-block; }
.figures { display: grid; grid-template-columns: repeat(auto-fill, minmax(8.2rem, 1fr)); gap: 0.6rem; margin: 1rem 0; }
.figures div { background: var(--panel); border-radius: 6px; padding: 0.5rem 0.7rem; }
.figures dt { font-size: 0.8rem; color: var(--soft); }
.figures dd { margin: 0; font-size: 1.2rem; font-variant-numeric: tabular-nums; }
.note { border-left: 4px solid var(--s4); background: var(--panel); padding: 0.5rem 0.8rem; margin: 0.6rem 0;
  overflow-wrap: anywhere; }
.state { font-size: 0.85rem; font-weight: 600; border: 1px solid currentcolor; border-radius: 1rem; padding: 0.1rem 0.6rem;
  vertical-align: middle; white-space: nowrap; }
.bar { display: flex; height: 1.6rem; border-radius: 4px; overflow: hidden; gap: 2px; print-color-adjust: exact; }
.bar i { min-width: 2px; }
.keys { list-style: none; padding: 0; display: flex; flex-wrap: wrap; gap: 0.2rem 1.4rem; margin: 0.6rem 0; font-size: 0.9rem; }
.keys b { display: inline-block; width: 0.8rem; height: 0.8rem; border-radius: 2px; margin-right: 0.4rem;
  print-color-adjust: exact; }
.confusion td { padding: 0; } .confusion td span { display: block; padding: 0.3rem 0.5rem; min-width: 2.6rem; }
.confusion td:nth-last-child(-n+2), .confusion tr:last-child td { padding: 0.3rem 0.5rem; }
.confusion span { print-color-adjust: exact; } .confusion .none { color: var(--line); }
.confusion .right { background: rgba(0, 114, 178, calc(0.42 * var(--strength))); }
.confusion .wrong { background: rgba(213, 94, 0, calc(0.1 + 0.6 * var(--strength))); }
.facts td { white-space: normal; overflow-wrap: anywhere; min-width: 9rem; }
.pictures { list-style: none; padding: 0; display: grid; grid-template-columns: repeat(auto-fill, minmax(6.4rem, 1fr));
  gap: 0.9rem 0.6rem; }
.pictures li { font-size: 0.8rem; line-height: 1.35; break-inside: avoid; } .pictures strong { color: var(--ink); }
.pictures span { display: block; color: var(--soft); }
.pictures img { display: block; image-rendering: pixelated; border-radius: 3px; margin-bottom: 0.2rem; }
pre { background: var(--panel); border-radius: 6px; padding: 0.7rem; white-space: pre-wrap; }
details { margin: 0.8rem 0; } summary { cursor: pointer; color: var(--link); }
@media (max-width: 40rem) {
  .confusion table { font-size: 0.68rem; } .confusion td span { min-width: 0; }
  .confusion th, .confusion td span, .confusion td:nth-last-child(-n+2), .confusion tr:last-child td {
    padding: 0.3rem 0.22rem; }
}
"""


def page(title: str, head: Sequence[str], parts: Mapping[str, Sequence[str]], style: str = "") -> str:
    """Returns a page of sections, those without content left out, with links to them. `style`: more CSS."""
    shown = {name: list(filter(None, part)) for name, part in parts.items()}
    shown = {name: part for name, part in shown.items() if part}
    keys = {name: name.lower().replace(" ", "-") for name in shown}
    links = "".join(f'<a href="#{key}">{name}</a>' for name, key in keys.items())
    body = [f"<header>{''.join(head)}</header>", f'<nav aria-label="Sections">{links}</nav>', "<main>"]
    for name, part in shown.items():
        body += [f'<section aria-labelledby="{keys[name]}"><h2 id="{keys[name]}">{name}</h2>', *part, "</section>"]
    return document(title, chart.STYLE + STYLE + style, [*body, "</main>"])


def grid(figures: Sequence[str]) -> str:
    return f'<div class="curves">{"".join(figures)}</div>' if figures else ""


def paragraph(text: str) -> str:
    return f"<p>{escape(text)}</p>" if text else ""


def notes(texts: Sequence[str]) -> list[str]:
    return [f'<p class="note" role="note">{escape(text)}</p>' for text in dict.fromkeys(texts)]
