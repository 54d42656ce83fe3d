"""A scaling measurement as one HTML page that needs no other file: conclusion, plots, tables, conditions."""

from html import escape
from pathlib import Path

from ddpgd.run.page import document
from ddpgd.scaling.analysis import Row
from ddpgd.scaling.cases import ISOLATED, MODES
from ddpgd.scaling.conditions import versions_text
from ddpgd.scaling.records import Found
from ddpgd.scaling.runs import LOAD_LIMIT

STYLE = """
.lead li { margin: 0.6rem 0; }
.pictures { display: flex; flex-wrap: wrap; gap: 1rem; } figure { margin: 1rem 0; overflow-x: auto; }
figure svg { width: 100%; height: auto; } figure.half { flex: 1 1 20rem; max-width: 36rem; }
figure.whole { flex: 1 1 100%; } figure.whole svg { min-width: 40rem; max-width: 66rem; }
th, td { padding: 0.3rem 0.35rem; } td:first-child, th:first-child { text-align: left; }
tr.oversubscribed { color: var(--soft); }
"""

COLUMNS = ("scaling", "ranks", "setting", "global batch", "samples/s", "efficiency, %", "ms a step", "compute", "update",
           "bubble", "wait", "exchange", "MB sent", "s to target")  # fmt: skip


def page(found: Found, made: list[Row], sentences: list[str], pictures: list[Path]) -> str:
    """Returns the whole page."""
    settings, facts = found["settings"], found["facts"]
    hasty = (
        [] if found["finished"] else ["<p><strong>Not all runs are made yet: the same command continues.</strong></p>"]
    )
    title = f"Scaling of ddpgd on {found['place']}"
    parts = [
        f"<h1>{escape(title)}</h1>",
        f"<p>{escape(facts['hardware'])}. {escape(facts['time'])}.</p>",
        *hasty,
        '<h2>Conclusion</h2><ul class="lead">',
        *[f"<li>{escape(sentence)}</li>" for sentence in sentences],
        "</ul>",
        '<div class="pictures">',
        *[
            f'<figure class="{"whole" if picture.stem == "shares" else "half"}">{_inline(picture)}</figure>'
            for picture in pictures
        ],
        "</div>",
        "<h2>All figures</h2>",
        f'<div class="wide">{_table(made, settings["target"])}</div>',
        "<p>Medians, with the least and the most; efficiencies are ratios within a repetition. Shares of a step are means over "
        "ranks and over a run's last 1,000 steps, those of its first half included. Grey rows are oversubscribed: more "
        "ranks than cores, GPUs or slots.</p>",
        "<h2>What the words mean</h2><ul>",
        *[f"<li><strong>{mode}</strong>: {text}</li>" for mode, text in MODES.items()],
        "<li><strong>efficiency</strong>: samples/s divided by those of as many single ranks with the same work</li>",
        "<li><strong>wait</strong>: time in the exchange until the slowest rank arrives</li>",
        "<li><strong>perfect</strong>: one rank's time, divided by the number of ranks</li></ul>",
        "<h2>Conditions</h2>",
        f'<p class="small">{_conditions(found)}</p>',
    ]
    return document(title, STYLE, parts)


def _inline(picture: Path) -> str:
    """Returns the SVG element of a file."""
    text = picture.read_text(encoding="utf-8")
    return text[text.index("<svg") :]


def _table(made: list[Row], target: float | None) -> str:
    names = COLUMNS if target else COLUMNS[:-1]
    head = "".join(f"<th{_left(name)}>{escape(name)}</th>" for name in names)
    return f"<table><thead><tr>{head}</tr></thead><tbody>{''.join(_row(row, names) for row in made)}</tbody></table>"


def _row(row: Row, names: tuple[str, ...]) -> str:
    case = row.case
    reached = row.target_s.text(".3g") if row.target_s else f"reached {row.num_reached} of {row.num_tried} times"
    cells = {
        "scaling": case.mode,
        "ranks": f"{case.num_ranks}{row.machines}",
        "setting": case.setting,
        "global batch": f"{case.global_batch:,}",
        "samples/s": row.samples_per_s.text(",.0f"),
        "efficiency, %": row.efficiency.text(".0f", 100) + " disturbed" * row.is_disturbed,
        "ms a step": f"{row.step_ms:.3g}",
        **{name: f"{100 * share:.0f} %" for name, share in row.shares.items()},
        "MB sent": f"{row.wire_bytes / 1e6:.3g}",
        "s to target": reached if case.mode != ISOLATED else "",
    }
    kind = ' class="oversubscribed"' if row.is_oversubscribed else ""
    return f"<tr{kind}>{''.join(f'<td{_left(name)}>{escape(cells[name])}</td>' for name in names)}</tr>"


def _left(name: str) -> str:
    return ' class="left"' if name == "setting" else ""


def _conditions(found: Found) -> str:
    settings, facts = found["settings"], found["facts"]
    disturbed = sum(run["other_load"] > LOAD_LIMIT for run in found["runs"])
    flags = " ".join(settings["flags"]) or "none"
    lines = [
        f"Command: <code>{escape(facts['command'])}</code>; commit {escape(facts['commit'])}.",
        f"{escape(versions_text(facts))}; {facts['num_cores']} cores here, slots for {found['num_slots']} ranks; "
        "one BLAS thread per rank.",
        f"Other flags of ddpgd train: <code>{escape(flags)}</code>.",
        f"{settings['repetitions']} repetitions, cases in turn; the second half of each run counts, about "
        f"{settings['seconds']:g} s.",
        f"Discarded, and made again: runs during which other programs used more than {LOAD_LIMIT:g} of a core of this machine: "
        f"{disturbed} of {len(found['runs'])}; a case of which all runs were disturbed keeps them.",
    ]
    if settings["target"]:
        lines.append(
            f"Time to {100 * settings['target']:g} %: time in training steps, evaluated four times an epoch; one seed each."
        )
    return "<br>".join(lines)
