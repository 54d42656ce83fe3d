"""HTML pages that need no other file: their frame, their style, tables."""

from collections.abc import Iterable, Mapping, Sequence
from html import escape

from ddpgd.run.report import VERSION

MARK = '<meta name="generator" content="ddpgd'
"""In every page of ours, and so the sign that a file may be replaced by another one."""

_LIGHT = {
    "ink": "#1c2024",
    "soft": "#586069",
    "line": "#d8dce1",
    "ground": "#ffffff",
    "panel": "#f5f6f8",
    "link": "#0b62a8",
}
_LIGHT_SERIES = ("#0072b2", "#d55e00", "#00835f", "#b2578d", "#b87700", "#3d94c4", "#5f6670")
_DARK = {
    "ink": "#e4e7eb",
    "soft": "#a0a8b2",
    "line": "#3a4149",
    "ground": "#14171a",
    "panel": "#1e2226",
    "link": "#7cc0f5",
}
_DARK_SERIES = ("#5fb3ea", "#f5965a", "#3ecfa3", "#e69cc7", "#f0c05a", "#9ad7f7", "#b4bbc4")
"""Colours of series, in an order in which colour-blind readers can tell neighbours apart, dark enough (or light) to be read."""

NUM_COLOURS = len(_LIGHT_SERIES)


def _variables(colours: Mapping[str, str], series: Sequence[str]) -> str:
    named = {**colours, **{f"s{number}": colour for number, colour in enumerate(series)}}
    return " ".join(f"--{name}: {colour};" for name, colour in named.items())


def light_variables() -> str:
    """Returns the colours of the light theme, for pictures that stand alone."""
    return _variables(_LIGHT, _LIGHT_SERIES)


STYLE = f"""
:root {{ color-scheme: light dark; {_variables(_LIGHT, _LIGHT_SERIES)} }}
@media (prefers-color-scheme: dark) {{ :root {{ {_variables(_DARK, _DARK_SERIES)} }} }}
@media print {{ :root {{ color-scheme: light; {_variables(_LIGHT, _LIGHT_SERIES)} }} }}
* {{ box-sizing: border-box; }}
body {{ font: 16px/1.5 system-ui, sans-serif; color: var(--ink); background: var(--ground); max-width: 76rem; margin: 0 auto;
  padding: 1rem; }}
h1 {{ font-size: 1.6rem; line-height: 1.25; margin: 0.5rem 0; overflow-wrap: anywhere; }}
h2 {{ font-size: 1.2rem; margin: 2.2rem 0 0.5rem; }}
a {{ color: var(--link); }}
figure {{ margin: 0; }}
.wide {{ overflow-x: auto; }}
table {{ border-collapse: collapse; font-size: 0.85rem; font-variant-numeric: tabular-nums; }}
th, td {{ padding: 0.3rem 0.5rem; border-bottom: 1px solid var(--line); text-align: right; white-space: nowrap; }}
thead th {{ border-bottom: 2px solid var(--soft); }}
td.left, th.left {{ text-align: left; }}
.small {{ font-size: 0.85rem; color: var(--soft); overflow-wrap: anywhere; }}
code {{ font-size: 0.9em; overflow-wrap: anywhere; }}
@media print {{ body {{ max-width: none; padding: 0; font-size: 12px; }} figure, tr {{ break-inside: avoid; }} }}
"""


def document(title: str, style: str, body: Iterable[str]) -> str:
    """Returns a whole page.

    Args:
        title: Of the window.
        style: CSS beside `STYLE`.
        body: Elements, as HTML.
    """
    head = (
        f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8">{MARK} {escape(VERSION)}">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{escape(title)}</title><style>{STYLE}{style}</style></head><body>\n"
    )
    return head + "\n".join(body) + "\n</body></html>\n"


def table(
    head: Sequence[str],
    rows: Iterable[Sequence[str]],
    label: str = "",
    left: Iterable[int] = (0,),
    is_html: bool = False,
) -> str:
    """Returns a table that scrolls by itself where it is too wide; the first cell of a row is its heading.

    Args:
        head: Titles of the columns.
        rows: Cells, as text.
        label: Its name for screen readers; empty: its first titles.
        left: Numbers of the columns of words, which are aligned to the left.
        is_html: True if cells of rows are HTML already.
    """
    sides = [' class="left"' if number in set(left) else "" for number in range(len(head))]
    heads = "".join(f'<th scope="col"{side}>{escape(title)}</th>' for side, title in zip(sides, head, strict=True))
    lines = []
    for first, *rest in (row if is_html else map(escape, row) for row in rows):
        cells = "".join(f"<td{side}>{cell}</td>" for side, cell in zip(sides[1:], rest, strict=True))
        lines.append(f'<tr><th scope="row"{sides[0]}>{first}</th>{cells}</tr>')
    body = f"<table><thead><tr>{heads}</tr></thead><tbody>{''.join(lines)}</tbody></table>"
    name = escape(label or ", ".join(head[:3]))
    return f'<div class="wide" tabindex="0" role="region" aria-label="{name}">{body}</div>'
