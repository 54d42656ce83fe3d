"""Tables and conclusions in Markdown from the JSON of `benchmarks.slow_links.run`.

python -m benchmarks.slow_links.report benchmarks/slow_links/slow-links.json           prints them
python -m benchmarks.slow_links.report benchmarks/slow_links/slow-links.json --page benchmarks/slow_links/slow-links.md
"""

import argparse
import json
import math
import statistics
import sys
from pathlib import Path

from benchmarks.lib.page import PageError, fill
from benchmarks.slow_links.cases import CONTESTANTS, GLOBAL_BATCH, MICRO_BATCH, REFERENCE, STEPS_PER_EPOCH, TARGETS
from benchmarks.slow_links.conclusion import conclusions, link_title, percent
from benchmarks.slow_links.figures import (
    accuracies,
    bytes_a_step,
    contestants,
    lost,
    measured_links,
    measured_networks,
    seconds,
    steps_to,
    times_to,
)
from benchmarks.slow_links.records import Found
from ddpgd.scaling.conditions import versions_text


def page_lines(found: Found) -> list[str]:
    """Returns conclusions, conditions, then each network."""
    lines = [*conclusions(found), *heading(found), ""]
    for network in measured_networks(found):
        lines += [f"**{network}, whole runs**", "", *runs_table(found, network), ""]
        for link in measured_links(found):
            lines += [f"**{network}, {link_title(link)}**", "", *link_table(found, network, link), ""]
        lines += seeds_table(found, network)
    return lines + [f"WARNING: failed: {'; '.join(found['failed'])}."] * bool(found["failed"])


def heading(found: Found) -> list[str]:
    """Returns the conditions; a measurement that was continued has several starts."""
    lines = [
        f"- command: `{start['command']}`, {start['time']}; commit: {start['commit']}; load of the machine before: "
        f"{start['load_before']:.1f}"
        for start in found["starts"]
    ]
    last = found["starts"][-1]
    repetitions = max((len(one["step_s"]) for one in found["steps"]), default=0)
    settings = ", ".join(f"{name}={value}" for name, value in last["environment"].items()) or "none"
    return [
        *lines,
        f"- hardware: {last['hardware']}; {last['num_cores']} cores; {versions_text(last)}",
        f"- settings in the environment: {settings}",
        f"- all: {found['epochs']} epochs, global batch {GLOBAL_BATCH}, micro-batch {MICRO_BATCH}, momentum 0.9, lr 0.1, "
        "cosine, weight decay 0.0005; one BLAS thread a rank",
        f"- whole runs: {_runs_told(found)}; steps: {repetitions} repetitions, contestants in turn",
    ]


def runs_table(found: Found, network: str) -> list[str]:
    """Returns the figures that no link changes."""
    lines = [
        f"| | flags | seeds | steps to {' | steps to '.join(map(percent, TARGETS))} | accuracy at the end, % "
        "| points lost against one rank | MB a step sent by a rank |",
        "|---" * (6 + len(TARGETS)) + "|",
    ]
    for name in contestants(found, network):
        steps = [steps_to(found, network, name, target) for target in TARGETS]
        final = statistics.mean(accuracies(found, network, name).values())
        lines.append(
            f"| {CONTESTANTS[name].label} | `{CONTESTANTS[name].whole}` | {len(accuracies(found, network, name))} "
            f"| {' | '.join(map(_count, steps))} | {final:.2f} "
            f"| {_points(found, network, name)} | {_mb(found, network, name)} |"
        )
    return lines


def link_table(found: Found, network: str, link: str) -> list[str]:
    """Returns the time to each accuracy over one link, beside one rank."""
    lines = [
        f"| | MB a step | ms a step, mean of a run | s to {' | s to '.join(map(percent, TARGETS))} "
        f"| {' | '.join(f'one rank to {percent(target)}, x this' for target in TARGETS)} | points lost |",
        "|---" * (4 + 2 * len(TARGETS)) + "|",
    ]
    num_steps = found["epochs"] * STEPS_PER_EPOCH
    for name in contestants(found, network):
        whole = [one / num_steps for one in seconds(found, network, link, name, num_steps)]
        if not whole:
            continue
        cells, ratios = [], []
        for target in TARGETS:
            own, one_rank = (times_to(found, network, link, other, target) for other in (name, REFERENCE))
            cells.append(_spread(own) if own else "not reached")
            ratios.append(_ratio(one_rank, own) if name != REFERENCE else "-")
        lines.append(
            f"| {CONTESTANTS[name].label} | {_mb(found, network, name)} | {_spread([1000 * one for one in whole])} "
            f"| {' | '.join([*cells, *ratios])} | {_points(found, network, name)} |"
        )
    return lines


def seeds_table(found: Found, network: str) -> list[str]:
    """Returns accuracies after equal epochs, if there is more than one seed."""
    names = [name for name in contestants(found, network) if len(accuracies(found, network, name)) > 1]
    if not names:
        return []
    against = "float32" if "float32" in names else REFERENCE
    lines = [
        f"**{network}, accuracy after {found['epochs']} epochs over seeds**",
        "",
        f"| | seeds | mean, % | sd | points lost against {CONTESTANTS[against].label} | its bytes over these |",
        "|---|---|---|---|---|---|",
    ]
    for name in names:
        own = list(accuracies(found, network, name).values())
        points = lost(found, network, name, against)
        sent, most = (bytes_a_step(found, network, other) for other in (name, against))
        lines.append(
            f"| {CONTESTANTS[name].label} | {len(own)} | {statistics.mean(own):.2f} | {statistics.stdev(own):.2f} "
            f"| {'-' if points is None else f'{points:+.2f}'} | {f'{most / sent:.1f}' if sent else '-'} |"
        )
    return [*lines, ""]


def _runs_told(found: Found) -> str:
    """Returns the number of seeds of contestants, and what stands for several."""
    counts = {
        len(accuracies(found, network, name))
        for network in measured_networks(found)
        for name in contestants(found, network)
    }
    if counts == {1}:
        return "1 seed"
    return f"{min(counts)} to {max(counts)} seeds; steps are medians over seeds, accuracies means"


def _spread(values: list[float]) -> str:
    """Returns "median (min to max)"."""
    median = statistics.median(values)
    return f"{median:.3g}" if len(values) == 1 else f"{median:.3g} ({min(values):.3g} to {max(values):.3g})"


def _ratio(others: list[float], own: list[float]) -> str:
    return f"{statistics.median(others) / statistics.median(own):.2f}" if others and own else "-"


def _count(steps: float) -> str:
    return f"{steps:,.0f}" if math.isfinite(steps) else "not reached"


def _points(found: Found, network: str, name: str) -> str:
    points = lost(found, network, name)
    return "-" if points is None or name == REFERENCE else f"{points:+.2f}"


def _mb(found: Found, network: str, name: str) -> str:
    """Returns MB a step, with a mark where they were not counted."""
    return f"{bytes_a_step(found, network, name) / 1e6:.3g}{' (formula)' if CONTESTANTS[name].is_torch else ''}"


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(
        usage=argparse.SUPPRESS, description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("found", metavar="JSON", type=Path)
    parser.add_argument("--page", metavar="FILE", type=Path, help="puts the tables into this page")
    asked = parser.parse_args(arguments)
    try:
        lines = page_lines(json.loads(asked.found.read_text(encoding="utf-8")))
        if asked.page:
            fill(asked.page, "slow links", lines)
        else:
            print("\n".join(lines))
    except (OSError, ValueError, KeyError, PageError) as error:
        print(f"bench_slow_links_report: {error!s}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
