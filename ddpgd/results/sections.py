"""Sections of the page of a run, as HTML: key figures, shares of a step, answers, weights, options, conditions."""

import statistics
from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

from ddpgd.config.schema import flag, to_table
from ddpgd.config.units import bytes_text, plural, time_text
from ddpgd.results import options, pictures
from ddpgd.results.chart import colour
from ddpgd.results.listing import percent
from ddpgd.results.predictions import Answers, first_layer
from ddpgd.results.result import Result
from ddpgd.run import build_network
from ddpgd.run.page import table
from ddpgd.run.progress import decimals
from ddpgd.training.timing import RECENT

NUM_MISTAKES, NUM_UNITS = 24, 48

_SHARES = ("compute", "update", "exchange", "wait", "bubble")


def key_figures(result: Result) -> str:
    """Returns a list of the figures to know first."""
    row, summary = result.row, result.summary
    figures = {
        "test accuracy": percent(row.accuracy),
        "validation accuracy": percent(row.validation_accuracy),
        "test loss": None if row.loss is None else decimals(row.loss),
        "steps": None if row.steps is None else f"{row.steps:,}",
        "epochs": f"{summary['epochs']:,.4g}" if summary else None,
        "best step": f"{summary['best_step']:,}" if summary and summary["best_step"] is not None else None,
        "training time": None if row.seconds is None else f"{row.seconds:,.1f} s",
        "samples/s": f"{summary['samples_per_s']:,.0f}" if summary and summary["samples_per_s"] else None,
        "ranks": f"{result.world_size:,}",
        "params": f"{summary['num_params']:,}" if summary else None,
    }
    cells = [f"<div><dt>{name}</dt><dd>{escape(text)}</dd></div>" for name, text in figures.items() if text is not None]
    return f'<dl class="figures">{"".join(cells)}</dl>'


def noise_sentence(result: Result) -> str:
    """Returns what the gradient noise scale says of the global batch; empty: it was not measured."""
    values = [one["noise_scale"] for one in result.records[len(result.records) // 2 :] if one.get("noise_scale")]
    if not values:
        return ""
    digits = 1 if min(values) < 0.5 * max(values) else 2
    critical = float(f"{statistics.median(values):.{digits}g}")
    batch = result.config.global_batch if result.config else None
    own = "" if batch is None else f" This run's is {batch:,}."
    return (
        f"Gradient noise scale in the second half of the run: critical batch about {critical:,.0f}. Up to that global batch, "
        f"twice the samples in a step save nearly half of the steps; far above it they save few.{own} (McCandlish et al., 2018)"
    )


def step_shares(result: Result) -> list[str]:
    """Returns a bar of the parts of a step, with their shares in words; nothing where they were not measured."""
    shares = result.summary["step_shares"] if result.summary else {}
    shown = [(number, name, shares[name]) for number, name in enumerate(_SHARES) if shares.get(name, 0) >= 0.0005]
    if not result.summary or not shown:
        return []
    summary = result.summary
    bar = "".join(f'<i style="flex:{share:.4f};background:{colour(number)}"></i>' for number, _, share in shown)
    keys = "".join(
        f'<li><b style="background:{colour(number)}"></b>{name} {100 * share:.1f} %</li>'
        for number, name, share in shown
    )
    sent = (
        f"; a rank sends {bytes_text(summary['wire_bytes_per_step'])} in it" if summary["wire_bytes_per_step"] else ""
    )
    return [
        f'<div class="bar" aria-hidden="true">{bar}</div><ul class="keys">{keys}</ul>',
        f"<p>A step takes {time_text((summary['step_us_median'] or 0) / 1e6)} (median){sent}. Shares are means over "
        f"{plural(summary['world_size'], 'rank')} and up to {min(RECENT, summary['steps']):,} steps, the last; "
        "<em>wait</em> is the time in the exchange until the slowest rank arrives.</p>",
    ]


def confusion(answers: Answers, names: Sequence[str]) -> str:
    """Returns the confusion matrix as a table, with the recall of each class and the precision of each answer."""
    counts = answers.confusion()
    classes, told = counts.sum(axis=1), counts.sum(axis=0)
    rows = []
    for at, name in enumerate(names):
        cells = [_count(int(count), int(classes[at]), column == at) for column, count in enumerate(counts[at])]
        rows.append([escape(name), *cells, _ratio(int(counts[at, at]), int(classes[at])), f"{classes[at]:,}"])
    precisions = [_ratio(int(counts[at, at]), int(told[at])) for at in range(len(names))]
    rows.append(["precision", *precisions, escape(percent(answers.accuracy) or ""), f"{counts.sum():,}"])
    heads = ["class", *names, "recall", "samples"]
    return f'<div class="confusion">{table(heads, rows, label="confusion matrix", is_html=True)}</div>'


def mistakes(answers: Answers, names: Sequence[str]) -> str:
    """Returns the wrong answers that the network is surest of, as pictures with both names and probabilities."""
    items = []
    for number in answers.mistakes(NUM_MISTAKES):
        chances, label = answers.probabilities[number], int(answers.labels[number])
        answer = int(chances.argmax())
        said, true = escape(names[answer]), escape(names[label])
        picture = pictures.digit(answers.images[number])
        items.append(
            f'<li><img src="{picture}" alt="test sample {number}: {true}, read as {said}" width="84" height="84">'
            f"<span><strong>{said}</strong> ({_chance(chances[answer])})<br>is {true} ({_chance(chances[label])})</span></li>"
        )
    return f'<ul class="pictures">{"".join(items)}</ul>' if items else "<p>None: every test sample is read right.</p>"


def weights(result: Result) -> list[str]:
    """Returns the weights of the first layer as pictures of the shape of an image."""
    if result.saved is None or result.config is None:
        return []
    units = first_layer(result.saved, NUM_UNITS)
    total = result.config.hidden[0] if result.config.hidden else len(units)
    which = (
        f"The {len(units)} of {total} units with the largest weights" if total > len(units) else f"All {total} units"
    )
    cells = "".join(
        f'<li><img src="{pictures.weights(values)}" alt="weights of unit {unit + 1}" width="72" height="72">'
        f"<span>{unit + 1}</span></li>"
        for unit, values in units
    )
    words = (
        f"{which}: blue weights are above zero, orange ones below; each picture is scaled to its own largest weight."
    )
    return [f"<p>{words}</p>", f'<ul class="pictures">{cells}</ul>']


def configuration(result: Result) -> list[str]:
    """Returns the options that differ from the defaults, all of them in a fold, and the command that repeats the run."""
    config = result.config
    if config is None:
        return ["<p>Its configuration cannot be read.</p>"]
    changed, everything = options.changed(config, result.world_size), to_table(config)
    return [
        f"<p>What differs from the defaults:</p>{_facts('option', changed)}"
        if changed
        else "<p>All are the defaults.</p>",
        f"<details><summary>All {len(everything)} options</summary>{_facts('option', everything)}</details>",
        f"<p>{_repeats(result)}:</p>",
        f"<pre><code>{escape(options.command(config, result.world_size))}</code></pre>",
    ]


def _repeats(result: Result) -> str:
    """Returns what the command that is shown repeats."""
    changed_at = result.summary["length_changed_at"] if result.summary else None
    if changed_at is None:
        return "The same network again, with the same bits on this kind of machine"
    return (
        f"The run got another length after step {changed_at:,}, which changed its learning rates: no single command trains the "
        "same network. One of its length"
    )


def conditions(result: Result) -> str:
    """Returns what the result depends on beside its options."""
    summary, saved = result.summary, result.saved
    facts = saved.facts if saved else {}
    rows: dict[str, Any] = {
        "folder": str(result.row.path),
        "last start": result.row.started,
        "ranks": result.world_size,
    }
    if summary:
        rows |= {"machines": summary["num_nodes"], "hardware": summary["hardware"], "transport": summary["transport"]}
    if saved and result.config:
        sizes = build_network.sizes(result.config, tuple(saved.facts["image_shape"]))
        rows |= {"network": "-".join(map(str, sizes)), "checkpoint": f"after step {saved.counters['step']:,}"}
    rows |= {
        "backend": summary["backend"] if summary else facts.get("backend"),
        "ddpgd": summary["version"] if summary else facts.get("version"),
        "data, SHA-256": facts.get("data_sha256"),
        "params, SHA-256": summary["params_sha256"] if summary else facts.get("params_sha256"),
    }
    return _facts("fact", {name: value for name, value in rows.items() if value is not None})


def _facts(kind: str, values: Mapping[str, Any]) -> str:
    """Returns a table of names and values; names of options are written as flags."""
    names = [flag(name) if kind == "option" else name for name in values]
    rows = zip(names, map(options.option_text, values.values()), strict=True)
    return f'<div class="facts">{table([kind, "value"], list(rows), left=(0, 1))}</div>'


def _count(count: int, total: int, is_right: bool) -> str:
    kind = "right" if is_right else "wrong"
    share = count / total if total else 0.0
    strength = share if is_right else min(1.0, 12 * share)
    return (
        f'<span class="{kind}" style="--strength:{strength:.2f}">{count:,}</span>'
        if count
        else '<span class="none">0</span>'
    )


def _ratio(part: int, total: int) -> str:
    return f"{100 * part / total:.1f} %" if total else "-"


def _chance(share: float) -> str:
    return f"{100 * share:.1f} %" if share >= 0.001 or share == 0 else "&lt; 0.1 %"
