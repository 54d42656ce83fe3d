"""Tables in Markdown from the JSON of `benchmarks.exchange.run`.

python -m benchmarks.exchange.report benchmarks/exchange/exchange.json                     prints all of them
python -m benchmarks.exchange.report benchmarks/exchange/exchange.json --page benchmarks/exchange/exchange.md
                                                                                  writes the networks' sizes into the page
"""

import argparse
import json
import sys
from pathlib import Path
from typing import TypedDict

from benchmarks.exchange.cases import CONTESTANTS, LEAST_REPETITIONS, NETWORKS, aligned, limit_s, wire_bytes
from benchmarks.exchange.records import CaseFound, Found, GroupFound
from benchmarks.lib.common import SHARED_MEMORY
from benchmarks.lib.page import PageError, fill
from benchmarks.lib.results import Spread
from ddpgd.scaling.conditions import versions_text

ON_PAGE = ("library", "ordered", "float16", "int8")
"""Contestants that the page shows."""


class Figures(TypedDict):
    """A contestant in a case, beside the least that the link allows."""

    time_s: Spread
    sent_bytes: int | None
    pieces: int
    limit_s: float
    ratio: float


def all_lines(found: Found) -> list[str]:
    """Returns conditions, then every link and number of ranks with all sizes."""
    lines = heading(found)
    for group in found["groups"]:
        lines += group_lines(group, found)
    return lines + [f"WARNING: failed: {', '.join(found['failed'])}."] * bool(found["failed"])


def page_lines(found: Found) -> list[str]:
    """Returns conditions, and for two ranks the networks' sizes over each link."""
    lines = [
        *heading(found),
        "Two ranks, one micro-batch each: ms, median (min to max), and times the least that the link allows.",
        "",
        f"| link | gradient | n | {' | '.join(CONTESTANTS[name].label for name in ON_PAGE)} |",
        "|---" * (3 + len(ON_PAGE)) + "|",
    ]
    for group in found["groups"]:
        for case in group["cases"]:
            is_plain = case["num_micro_batches"] == aligned(group["num_ranks"])
            if group["num_ranks"] == 2 and is_plain and case["size_bytes"] in NETWORKS.values():
                rows = [figures(case, name, group) for name in ON_PAGE]
                cells = " | ".join(f"{spread_ms(row['time_s'])}, {row['ratio']:.2f} x" for row in rows)
                lines.append(
                    f"| {link_name(group['link'])} | {bytes_of(case['size_bytes'])} | {rows[0]['time_s']['n']} | {cells} |"
                )
    return lines


def heading(found: Found) -> list[str]:
    """Returns the conditions."""
    settings = ", ".join(f"{name}={value}" for name, value in found["environment"].items())
    return [
        f"- command: `{found['command']}`, {found['time']}; load of the machine before: {found['load_before']:.1f}",
        f"- commit: {found['commit']}; hardware: {found['hardware']}; {found['num_cores']} cores",
        f"- {versions_text(found)}; {found['mpirun']}; {settings}",
        f"- one shot up to {found['one_shot_bytes']:,} bytes from a rank; over the lab's links, one rank a host",
        "",
    ]


def group_lines(group: GroupFound, found: Found) -> list[str]:
    """A link and a number of ranks: what the link does, the networks' sizes at length, all sizes in short."""
    num_ranks, link = group["num_ranks"], group["ping_pong"]
    nominal = link["nominal_bytes_per_s"]
    told = f", nominally {nominal / 1e6:.4g} MB/s" if nominal else ""
    by_length = {int(length): rate for length, rate in link["bytes_per_s_by_length"].items()}
    rates = ", ".join(f"{rate / 1e6:,.4g} MB/s at {bytes_of(length)}" for length, rate in sorted(by_length.items()))
    lines = [
        f"**{title(group)}**",
        "",
        f"Measured: latency {1e6 * link['alpha_s']:.3g} us; {rates}{told}.",
    ]
    crowded = num_ranks > found["num_cores"]
    lines += [f"More ranks than the {found['num_cores']} cores: these times are mostly the scheduler's."] * crowded
    lines.append("")
    by_size = [case for case in group["cases"] if case["num_micro_batches"] == aligned(num_ranks)]
    networks = [case for case in by_size if case["size_bytes"] in NETWORKS.values()]
    if networks:
        lines += [*long_table(networks, group), ""]
    if by_size:
        lines += [*short_table(sorted(by_size, key=lambda case: case["size_bytes"]), group), ""]
        lines += [*cut_over(by_size, num_ranks), ""]
    ragged = [case for case in group["cases"] if case["num_micro_batches"] != aligned(num_ranks)]
    if ragged:
        lines += [*ragged_table(ragged, group), ""]
    if group["left_out"]:
        sizes = sorted({(one["size_bytes"], one["num_micro_batches"]) for one in group["left_out"]})
        named = ", ".join(f"{bytes_of(size)} (M = {count})" for size, count in sizes)
        lines += [f"Left out, for want of time: {named}.", ""]
    return lines


def title(group: GroupFound) -> str:
    """Returns the link, and the numbers of ranks and micro-batches."""
    return f"{link_name(group['link'])}, {group['num_ranks']} ranks, {aligned(group['num_ranks'])} micro-batches"


def link_name(link: str) -> str:
    """Returns a link's name for readers."""
    return "shared memory" if link == SHARED_MEMORY else link.replace("gbit", " Gbit/s").replace("mbit", " Mbit/s")


def figures(case: CaseFound, name: str, group: GroupFound) -> Figures:
    """Returns the figures of one contestant in one case."""
    measured = case["contestants"][name]
    least = limit_s(wire_bytes(name, case["size_bytes"]), group["num_ranks"], group["ping_pong"])
    return {
        "time_s": measured["time_s"],
        "sent_bytes": measured["bytes_sent"],
        "pieces": measured["num_pieces"],
        "limit_s": least,
        "ratio": measured["time_s"]["median"] / least,
    }


def long_table(cases: list[CaseFound], group: GroupFound) -> list[str]:
    lines = [
        "| gradient | | ms, median (min to max) | repetitions | MB sent by a rank | the link's least, ms | x that |",
        "|---|---|---|---|---|---|---|",
    ]
    for case in cases:
        for name in case["contestants"]:
            row = figures(case, name, group)
            sent = "unknown" if row["sent_bytes"] is None else f"{row['sent_bytes'] / 1e6:.3f}"
            lines.append(
                f"| {bytes_of(case['size_bytes'])} | {CONTESTANTS[name].label} | {spread_ms(row['time_s'])} "
                f"| {row['time_s']['n']} | {sent} | {ms(row['limit_s'])} | {row['ratio']:.2f} |"
            )
    return lines


def short_table(cases: list[CaseFound], group: GroupFound) -> list[str]:
    """All sizes, a line each: median ms (x the link's least)."""
    names = [name for name in CONTESTANTS if any(name in case["contestants"] for case in cases)]
    lines = [
        "Medians in ms (x the link's least for that wire):",
        "",
        f"| gradient | repetitions | {' | '.join(CONTESTANTS[name].label for name in names)} |",
        "|---" * (2 + len(names)) + "|",
    ]
    for case in cases:
        rows = [figures(case, name, group) for name in names]
        cells = " | ".join(f"{ms(row['time_s']['median'])} ({row['ratio']:.1f})" for row in rows)
        few = " (few)" if rows[0]["time_s"]["n"] < LEAST_REPETITIONS else ""
        lines.append(f"| {bytes_of(case['size_bytes'])} | {rows[0]['time_s']['n']}{few} | {cells} |")
    return lines


def ragged_table(cases: list[CaseFound], group: GroupFound) -> list[str]:
    """Numbers of micro-batches that do not divide evenly, where a rank may send several pieces."""
    names = list(cases[0]["contestants"])
    lines = [
        "Ragged numbers of micro-batches, medians in ms:",
        "",
        f"| gradient | micro-batches | pieces | MB sent, ordered | {' | '.join(CONTESTANTS[name].label for name in names)} |",
        "|---" * (4 + len(names)) + "|",
    ]
    for case in cases:
        rows = {name: figures(case, name, group) for name in names}
        ordered = rows["ordered"]
        cells = " | ".join(ms(row["time_s"]["median"]) for row in rows.values())
        lines.append(
            f"| {bytes_of(case['size_bytes'])} | {case['num_micro_batches']} | {ordered['pieces']} "
            f"| {(ordered['sent_bytes'] or 0) / 1e6:.3f} | {cells} |"
        )
    return lines


def cut_over(cases: list[CaseFound], num_ranks: int) -> list[str]:
    """Returns the ratios of one shot to segments by size, and the size from which one shot is slower."""
    by_size = {case["size_bytes"]: case["one_shot_over_segments"] for case in cases}
    ratios = {size: ratio for size, ratio in by_size.items() if ratio is not None}
    if not ratios:
        return []
    told = ", ".join(f"{bytes_of(size)} {ratios[size]:.2f}" for size in sorted(ratios))
    faster = [size for size in ratios if ratios[size] <= 1]
    slower = [size for size in ratios if size > max(faster, default=0)]
    first = f"Slower throughout from {bytes_of(min(slower))} on." if slower else "Nowhere slower throughout."
    return [f"One shot over segments, {num_ranks} ranks, median of ratios within a round: {told}. {first}"]


def bytes_of(number: int) -> str:
    for unit, name in ((1 << 20, "MiB"), (1 << 10, "KiB")):
        if number >= unit and number % unit == 0:
            return f"{number // unit} {name}"
    return f"{number / 1e6:.2f} MB" if number >= 100_000 else f"{number} B"


def spread_ms(values: Spread) -> str:
    """Returns "2.1 (2.0 to 2.3)"."""
    return f"{ms(values['median'])} ({ms(values['min'])} to {ms(values['max'])})"


def ms(seconds: float) -> str:
    """Returns milliseconds with three digits."""
    text = f"{1000 * seconds:.3g}"
    return f"{float(text):,.0f}" if "e" in text else text


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(
        usage=argparse.SUPPRESS, description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("found", metavar="JSON", type=Path)
    parser.add_argument("--page", metavar="FILE", type=Path, help="puts the tables into this page")
    parser.add_argument("--place", metavar="NAME", default="exchange", help="of the page; default: exchange")
    asked = parser.parse_args(arguments)
    try:
        found: Found = json.loads(asked.found.read_text(encoding="utf-8"))
        if asked.page:
            fill(asked.page, asked.place, page_lines(found))
        else:
            print("\n".join(all_lines(found)))
    except (OSError, ValueError, KeyError, PageError) as error:
        print(f"bench_exchange_report: {error!s}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
