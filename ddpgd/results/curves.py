"""Charts of the records of runs: one run's figures side by side, or each figure of several runs in one chart."""

from collections.abc import Mapping, Sequence

from ddpgd.results.chart import Series, line_chart
from ddpgd.run.panels import LAYERS, PANELS, Panel, points_of, points_of_layers
from ddpgd.training.counters import Record

KINDS = ("", "training", "validation", "test")
"""Names of fields in panels; each has the same colour in all panels."""


def of_run(records: Sequence[Record], against: str, x_title: str) -> list[str]:
    """Returns a figure for each panel that a run has values for; names of lines are followed by their last values."""
    figures = []
    for panel in PANELS:
        lines = []
        for kind, field in panel.fields.items():
            points = points_of(records, field, panel, against)
            name = f"{kind} {points[-1][1]:.4g}" if kind and points else kind
            lines.append(Series(name, points, max(0, KINDS.index(kind) - 1)))
        figures.append(line_chart(_sentence(panel.title), x_title, lines, panel.is_log, most=panel.most))
    return list(filter(None, figures))


def of_runs(runs: Mapping[str, Sequence[Record]], against: str, panels: Sequence[Panel] = PANELS) -> list[str]:
    """Returns a figure for each field of the panels, with a line for each run, by their names."""
    figures = []
    for panel in panels:
        for kind, field in panel.fields.items():
            lines = [
                Series(name, points_of(records, field, panel, against), number)
                for number, (name, records) in enumerate(runs.items())
            ]
            title = _sentence(f"{kind} {panel.title}".strip())
            figures.append(line_chart(title, against, lines, panel.is_log, most=panel.most))
    return list(filter(None, figures))


def of_layers(records: Sequence[Record], names: Sequence[str], against: str) -> list[str]:
    """Returns a figure for each figure of layers in the records, with a line for each layer."""
    figures = []
    for field, panel in LAYERS.items():
        lines = [
            Series(names[number] if number < len(names) else f"layer {number + 1}", points, number)
            for number, points in points_of_layers(records, field, panel, against).items()
        ]
        figures.append(line_chart(_sentence(panel.title), against, lines, panel.is_log, most=panel.most))
    return list(filter(None, figures))


def _sentence(text: str) -> str:
    return text[:1].upper() + text[1:]
