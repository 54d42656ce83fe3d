"""Tables in Markdown from the JSON of `benchmarks.exchange.run`.

python -m benchmarks.exchange.report exchange.json                              prints them
python -m benchmarks.exchange.report exchange.json --page benchmarks/exchange.md    writes them into the page
"""

import argparse
import json
import statistics
import sys
from pathlib import Path

from benchmarks.exchange.cases import CONTESTANTS, LEAST_REPETITIONS, NETWORKS, aligned, limit_s, wire_bytes
from benchmarks.lib.page import PageError, fill


def page_lines(found: dict) -> list[str]:
    """Everything: conditions, then each link and number of ranks."""
    lines = heading(found)
    for group in found["groups"]:
        lines += group_lines(group, found)
    return lines + [f"WARNING: failed: {', '.join(found['failed'])}."] * bool(found["failed"])


def heading(found: dict) -> list[str]:
    versions = ", ".join(f"{name} {number}" for name, number in found["versions"].items() if number)
    settings = ", ".join(f"{name}={value}" for name, value in found["environment"].items())
    return [
        f"- command: `{found['command']}`, {found['time']}; load of the machine before: {found['load_before']:.1f}",
        f"- commit: {found['commit']}",
        f"- hardware: {found['hardware']}; {found['num_cores']} cores",
        f"- versions: {versions}; {found['mpirun']}; BLAS: {found['blas']}; {settings}",
        f"- one shot where a rank sends up to {found['one_shot_bytes']:,} bytes; over the lab's links, one rank a host",
        "",
    ]


def group_lines(group: dict, found: dict) -> list[str]:
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


def title(group: dict) -> str:
    speed = group["link"].replace("gbit", " Gbit/s").replace("mbit", " Mbit/s")
    link = "shared memory" if group["link"] == "shm" else f"links of {speed}"
    return f"{link}, {group['num_ranks']} ranks, {aligned(group['num_ranks'])} micro-batches"


def figures(case: dict, name: str, group: dict) -> dict:
    """Of one contestant in one case: median, least and most seconds, the limit, and the ratio to it."""
    measured, link = case["contestants"][name], group["ping_pong"]
    pieces = measured["num_pieces"]
    sent = [number for number in measured["bytes_sent_by_rank"] if number is not None]
    least = limit_s(wire_bytes(name, case["size_bytes"]), group["num_ranks"], link)
    median = statistics.median(measured["times_s"])
    return {
        "median_s": median,
        "min_s": min(measured["times_s"]),
        "max_s": max(measured["times_s"]),
        "repetitions": len(measured["times_s"]),
        "sent_bytes": max(sent) if sent else None,
        "pieces": pieces,
        "limit_s": least,
        "ratio": median / least,
    }


def long_table(cases: list[dict], group: dict) -> list[str]:
    lines = [
        "| gradient | | ms, median (min to max) | repetitions | MB sent by a rank | the link's least, ms | x that |",
        "|---|---|---|---|---|---|---|",
    ]
    for case in cases:
        for name in case["contestants"]:
            row = figures(case, name, group)
            sent = "unknown" if row["sent_bytes"] is None else f"{row['sent_bytes'] / 1e6:.3f}"
            lines.append(
                f"| {bytes_of(case['size_bytes'])} | {CONTESTANTS[name].label} | {ms(row['median_s'])} ({ms(row['min_s'])} to "
                f"{ms(row['max_s'])}) | {row['repetitions']} | {sent} | {ms(row['limit_s'])} | {row['ratio']:.2f} |"
            )
    return lines


def short_table(cases: list[dict], group: dict) -> list[str]:
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
        cells = " | ".join(f"{ms(row['median_s'])} ({row['ratio']:.1f})" for row in rows)
        few = " (few)" if rows[0]["repetitions"] < LEAST_REPETITIONS else ""
        lines.append(f"| {bytes_of(case['size_bytes'])} | {rows[0]['repetitions']}{few} | {cells} |")
    return lines


def ragged_table(cases: list[dict], group: dict) -> list[str]:
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
        cells = " | ".join(ms(row["median_s"]) for row in rows.values())
        lines.append(
            f"| {bytes_of(case['size_bytes'])} | {case['num_micro_batches']} | {ordered['pieces']} "
            f"| {ordered['sent_bytes'] / 1e6:.3f} | {cells} |"
        )
    return lines


def cut_over(cases: list[dict], num_ranks: int) -> list[str]:
    """From the sizes at which everybody hands everybody all, and segments do, faster: where one overtakes the other."""
    ratios = {}
    for case in cases:
        times = [
            case["contestants"][name]["times_s"] for name in ("one shot", "segments") if name in case["contestants"]
        ]
        if len(times) == 2:
            ratios[case["size_bytes"]] = statistics.median(one / two for one, two in zip(*times, strict=True))
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


def ms(seconds: float) -> str:
    """Three digits."""
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
        found = json.loads(asked.found.read_text(encoding="utf-8"))
        lines = page_lines(found)
        if asked.page:
            fill(asked.page, asked.place, lines)
        else:
            print("\n".join(lines))
    except (OSError, ValueError, KeyError, PageError) as error:
        print(f"bench_exchange_report: {error!s}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
