"""The page of a run, and the page that compares several."""

from collections.abc import Mapping, Sequence
from html import escape

from ddpgd.config.schema import flag, to_table
from ddpgd.results import curves, frame, options, sections
from ddpgd.results.listing import COLUMNS, dash
from ddpgd.results.predictions import answers, find_data
from ddpgd.results.result import Result
from ddpgd.results.row import Row
from ddpgd.run import inference
from ddpgd.run.page import table
from ddpgd.run.summary import Summary


def run_page(result: Result, data: str | None, against: str) -> str:
    """Returns the page of a run. InputError: `data` were given and cannot be used."""
    row, config = result.row, result.config
    hidden = f"hidden layers {row.hidden}" if row.hidden else ""
    about = ", ".join(filter(None, [row.started, hidden, row.optimizer, f"lr {row.lr:g}" if row.lr else ""]))
    names = [f"dense{number + 1}" for number in range(len(config.hidden) + 1)] if config else []
    curves_of_run = curves.of_run(result.records, against, _axis(result, against))
    parts: dict[str, list[str]] = {
        "Curves": [frame.grid(curves_of_run), frame.paragraph(sections.noise_sentence(result))],
        "Layers": [frame.grid(curves.of_layers(result.records, names, against))],
        "Time of a step": sections.step_shares(result),
        **_of_checkpoint(result, data),
        "Weights of the first layer": sections.weights(result),
        "Configuration": sections.configuration(result),
        "Conditions": [sections.conditions(result)],
    }
    head = [
        f'<h1>Run {escape(row.name)} <span class="state">{row.state}</span></h1><p class="small">{escape(about)}</p>',
        sections.key_figures(result),
        *frame.notes([*_said(result.summary), *result.notes]),
    ]
    return frame.page(f"Run {row.name}", head, parts)


def _said(summary: Summary | None) -> list[str]:
    """Returns what a summary says in words: why the run ended early, and warnings."""
    if summary is None:
        return []
    early = [f"Ended after step {summary['steps']:,}: {summary['ended']}."] if summary["ended"] else []
    return [*early, *summary["warnings"]]


def comparison(results: Sequence[Result], against: str) -> str:
    """Returns the page of several runs, over each other."""
    names = [result.row.name for result in results]
    distinct = names if len(set(names)) == len(names) else [str(result.row.path) for result in results]
    runs = dict(zip(distinct, results, strict=True))
    records = {name: result.records for name, result in runs.items()}
    parts = {
        "Results": [rows_table({name: result.row for name, result in runs.items()})],
        "Options that differ": [_differing(runs)],
        "Curves": [frame.grid(curves.of_runs(records, against))],
        "Commands": [
            f"<p>{escape(name)}</p><pre><code>{escape(options.command(result.config, result.world_size))}</code></pre>"
            for name, result in runs.items()
            if result.config
        ],
    }
    notes = [f"{name}: {note}" for name, result in runs.items() for note in result.notes]
    title = f"{len(results)} runs compared"
    return frame.page(title, [f"<h1>{title}</h1>", *frame.notes(notes)], parts)


def rows_table(rows: Mapping[str, Row]) -> str:
    """Returns the columns of `ddpgd runs` that have a value, as a table, by the names of the runs."""
    shown = [column for column in COLUMNS[1:] if any(column.text(row) is not None for row in rows.values())]
    cells = [[name, *(dash(column.text(row)) for column in shown)] for name, row in rows.items()]
    words = [number for number, column in enumerate(shown, 1) if not column.is_number]
    return table(["run", *(column.title for column in shown)], cells, "results", left=(0, *words))


def _differing(runs: Mapping[str, Result]) -> str:
    names = options.differing([result.config for result in runs.values()])
    if not names:
        return "<p>None: all options are equal.</p>"
    tables = {name: to_table(result.config) if result.config else {} for name, result in runs.items()}
    rows = [[name, *(options.option_text(one.get(option)) for option in names)] for name, one in tables.items()]
    return table(["run", *map(flag, names)], rows, "options that differ")


def _axis(result: Result, against: str) -> str:
    """Returns the title of the horizontal axis, with the length of an epoch where that is known."""
    summary = result.summary
    if against != "step" or not summary or not summary["epochs"]:
        return against
    return f"step (an epoch is {summary['steps'] / summary['epochs']:,.0f})"


def _of_checkpoint(result: Result, given: str | None) -> dict[str, list[str]]:
    """Returns the sections for which the network answers test samples, or why there are none."""
    title = "Confusion matrix"
    if result.saved is None:
        return {title: ["<p>There is no whole checkpoint, and so no confusion matrix and no mistakes.</p>"]}
    data, why = find_data(result.saved, given)
    if data is None:
        return {title: [f"<p>No confusion matrix and no mistakes: {escape(why)}.</p>"]}
    found, names = answers(result.saved, data), inference.class_names(result.saved)
    step = f"{result.saved.counters['step']:,}"
    words = (
        f"The checkpoint after step {step}, on {len(found.labels):,} test samples of {data.source}. Rows are the classes, "
        "columns the network's answers."
    )
    return {
        title: [frame.paragraph(words), sections.confusion(found, names)],
        "Most confident mistakes": [
            "<p>Wrong answers, those of the largest probability first: the answer, and below it the class.</p>",
            sections.mistakes(found, names),
        ],
    }
