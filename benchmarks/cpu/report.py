"""Throughputs, ratios and limits from single runs, and a table in Markdown."""

from benchmarks.cpu.records import Competitor, Repetition
from benchmarks.cpu.runs import NAMES, Workload
from benchmarks.lib.common import NUM_RANKS
from benchmarks.lib.results import between, ratios, spread
from ddpgd.scaling.processes import RunFailed


def throughput(repeated: Repetition, competitor: str, num_samples: int) -> float:
    """Returns samples a second between the short and the long run. RunFailed: the clock saw nothing."""
    short, long = (one for one in repeated["runs"] if one["competitor"] == competitor)
    difference_s = long["wall_s"] - short["wall_s"]
    if difference_s <= 0:
        raise RunFailed(f"{competitor}: the long run took no longer than the short one; raise --stretch")
    return num_samples * (long["epochs"] - short["epochs"]) / difference_s


def limit_of(repeated: Repetition, competitor: str, work: Workload) -> tuple[float, float, int]:
    """Returns samples a second that the products alone would allow, GFLOP/s of a thread, and FLOP of a step."""
    library = "torch" if competitor == "ddp" else "numpy"
    rows = work.rows if competitor in ("bare", "ddp") else work.micro_batch
    found = next(one for one in repeated["limits"] if (one["library"], one["rows"]) == (library, rows))
    flop_per_step = NUM_RANKS * work.rows // rows * found["flop"]
    return NUM_RANKS * rows / found["seconds"], found["flop"] / found["seconds"] / 1e9, flop_per_step


def summarise(
    work: Workload, repetitions: list[Repetition], competitors: list[str], num_samples: int
) -> dict[str, Competitor]:
    """Returns throughputs, ratios within repetitions, limits, and the figures after one epoch."""
    rates = {name: [throughput(each, name, num_samples) for each in repetitions] for name in competitors}
    summary: dict[str, Competitor] = {}
    for name in competitors:
        limits = [limit_of(each, name, work) for each in repetitions]
        short = next(one for one in repetitions[-1]["runs"] if one["competitor"] == name)
        walls = [[one["wall_s"] for one in each["runs"] if one["competitor"] == name] for each in repetitions]
        summary[name] = {
            "samples_per_s": spread(rates[name]),
            "ratios": {
                other: ratios(rates[name], rates[other])
                for other in competitors
                if other in ("bare", "ddp") and other != name
            },
            "difference_s": spread([long - short for short, long in walls]),
            "limit_samples_per_s": spread([samples for samples, _, _ in limits]),
            "limit_gflop_per_s": spread([gflop for _, gflop, _ in limits]),
            "flop_per_step": limits[0][2],
            "sent_bytes_per_step": short["figures"].get("wire_bytes_per_step", ring_bytes(work)),
            "figures": short["figures"],
        }
    return summary


def ring_bytes(work: Workload) -> int:
    """Returns the bytes that a ring all-reduce of the gradient sends from each rank; the libraries do not tell."""
    return 2 * (NUM_RANKS - 1) * work.grads_bytes // NUM_RANKS


def table(work: Workload, summary: dict[str, Competitor]) -> list[str]:
    """Returns a workload's results in Markdown."""
    lines = [
        f"**{work}**",
        "",
        "| | samples/s (min to max) | x by hand | x DDP | products alone allow, samples/s | share of that "
        "| GFLOP/s a thread in products | MFLOP a step | MB sent a rank and step | after one epoch: train loss "
        "| test loss | accuracy |",
        "|---|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    for name, row in summary.items():
        rate, bound, figures = row["samples_per_s"], row["limit_samples_per_s"], row["figures"]
        lines.append(
            f"| {NAMES[name]} | {between(rate, ',.0f')} | {ratio(row, 'bare')} | {ratio(row, 'ddp')} "
            f"| {between(bound, ',.0f')} | {rate['median'] / bound['median']:.0%} "
            f"| {row['limit_gflop_per_s']['median']:.1f} | {row['flop_per_step'] / 1e6:.0f} "
            f"| {row['sent_bytes_per_step'] / 1e6:.3f} | {figures['train_loss_mean']:.4f} "
            f"| {figures['test_loss_mean']:.4f} | {100 * figures['test_accuracy']:.2f} % |"
        )
    return [*lines, "", *remarks(summary)]


def ratio(row: Competitor, other: str) -> str:
    return between(row["ratios"][other], ".2f") if other in row["ratios"] else "-"


def remarks(summary: dict[str, Competitor]) -> list[str]:
    """Returns warnings for the reader of a table."""
    losses = [row["figures"]["train_loss_mean"] for row in summary.values()]
    lines = []
    if max(losses) > 1.1 * min(losses):
        lines.append("WARNING: train losses differ by more than a tenth; this was not the same work.")
    for name, row in summary.items():
        if row["difference_s"]["median"] < 2:
            lines.append(f"WARNING: {NAMES[name]} ran {row['difference_s']['median']:.1f} s only; raise --stretch.")
        if row["samples_per_s"]["max"] > row["limit_samples_per_s"]["max"]:
            lines.append(f"WARNING: {NAMES[name]} beat its own products once; the machine was not quiet.")
    return [*lines, ""] if lines else []
