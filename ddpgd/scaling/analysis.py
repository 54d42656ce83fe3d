"""What the runs of `scaling_efficiency.py` say of a case: medians and spreads, and in words what keeps it from being faster."""

import statistics
from collections import defaultdict
from dataclasses import dataclass

from ddpgd.scaling.cases import ISOLATED, STRONG, WEAK, Case, baseline
from ddpgd.scaling.runs import LOAD_LIMIT

CAUSES = {
    "computing": "computing that is slower than one rank's (ranks of a machine share its memory, caches and clock)",
    "update": "the update of all params by every rank",
    "wait": "waiting for the slowest rank of each step",
    "exchange": "the exchange of gradients",
}
"""Of the time that a step takes beyond its share of one rank's."""

LITTLE = 0.97
"""The efficiency from which on there is nothing to explain."""


@dataclass(frozen=True)
class Figure:
    """A median, with the least and the most."""

    median: float
    least: float
    most: float

    @classmethod
    def of(cls, values: list[float]) -> "Figure":
        return cls(statistics.median(values), min(values), max(values))

    def text(self, form: str, factor: float = 1.0) -> str:
        """As "2.1 (2.0 to 2.3)"."""
        middle, least, most = (format(factor * value, form) for value in (self.median, self.least, self.most))
        return middle if least == most else f"{middle} ({least} to {most})"


@dataclass(frozen=True)
class Row:
    """What was found of a case. `efficiency`: within each repetition, of throughput over that of as many baselines.

    `num_nodes`: machines that ranks of a run were on; of runs side by side, 1.
    `lost_ms`: by cause, what a step takes longer than a perfect one, which takes `perfect_ms`. `target_s`: None unless all
    tries reached it. `apart`: the efficiency of as many one-rank runs side by side, where measured; `over_apart`: throughput
    over theirs.
    """

    case: Case
    num_nodes: int
    is_oversubscribed: bool
    num_runs: int
    num_disturbed: int
    is_disturbed: bool
    samples_per_s: Figure
    efficiency: Figure
    step_ms: float
    perfect_ms: float
    wire_bytes: float
    shares: dict[str, float]
    lost_ms: dict[str, float]
    target_s: Figure | None
    num_reached: int
    num_tried: int
    apart: float | None = None
    over_apart: Figure | None = None

    @property
    def machines(self) -> str:
        """After the number of ranks: as " on 2 machines"; of one, nothing."""
        return f" on {self.num_nodes} machines" if self.num_nodes > 1 else ""


def counted(runs: list[dict]) -> list[dict]:
    """Runs that nothing disturbed; all of them, where each was."""
    return [run for run in runs if run["other_load"] <= LOAD_LIMIT] or runs


def rows(found: dict, cases: list[Case], num_slots: int) -> list[Row]:
    """Of all cases that have at least a run."""
    runs = {case.name: counted([run for run in found["runs"] if run["case"] == case.name]) for case in cases}
    made = []
    for case in cases:
        if runs[case.name] and runs[baseline(case, cases).name]:
            made.append(_row(found, case, baseline(case, cases), runs, num_slots, _side_by_side(case, cases, runs)))
    return made


def _side_by_side(case: Case, cases: list[Case], runs: dict[str, list[dict]]) -> list[dict]:
    """Runs of as many one-rank runs, with the same work."""
    same = [
        one
        for one in cases
        if case.mode == WEAK
        and (one.mode, one.num_ranks, one.accumulate) == (ISOLATED, case.num_ranks, case.accumulate)
    ]
    return runs[same[0].name] if same else []


def _ratios(own: list[dict], base: list[dict], factor: float) -> Figure:
    """Of throughputs, within repetitions; where none has both, of medians."""
    ours, theirs = _by_repetition(own), _by_repetition(base)
    pairs = [ours[number] / (factor * theirs[number]) for number in ours if number in theirs]
    middle = [statistics.median(run["samples_per_s"] for run in runs) for runs in (own, base)]
    return Figure.of(pairs or [middle[0] / (factor * middle[1])])


def _by_repetition(runs: list[dict]) -> dict[int, float]:
    """Throughput; of several runs of a repetition, all disturbed, the median."""
    rates = defaultdict(list)
    for run in runs:
        rates[run["repetition"]].append(run["samples_per_s"])
    return {number: statistics.median(own) for number, own in rates.items()}


def _row(found: dict, case: Case, base: Case, runs: dict, num_slots: int, apart: list[dict]) -> Row:
    own, alone = runs[case.name], runs[base.name]
    shares = _mean_shares(own)
    step_ms = 1000 * statistics.median(run["step_s"] for run in own)
    perfect_ms = 1000 * case.global_batch / (case.num_ranks * statistics.median(run["samples_per_s"] for run in alone))
    times = [one["train_s"] for one in found["targets"] if one["case"] == case.name]
    reached = [taken for taken in times if taken is not None]
    everything = [run for run in found["runs"] if run["case"] == case.name]
    return Row(
        case=case,
        num_nodes=own[0]["num_nodes"],
        is_oversubscribed=case.num_ranks > num_slots,
        num_runs=len(own),
        num_disturbed=sum(run["other_load"] > LOAD_LIMIT for run in everything),
        is_disturbed=all(run["other_load"] > LOAD_LIMIT for run in own),
        samples_per_s=Figure.of([run["samples_per_s"] for run in own]),
        efficiency=_ratios(own, alone, case.num_ranks),
        step_ms=step_ms,
        perfect_ms=perfect_ms,
        wire_bytes=statistics.median(run["wire_bytes"] for run in own),
        shares=shares,
        lost_ms=_lost_ms(case, shares, step_ms, perfect_ms),
        target_s=Figure.of(reached) if reached and len(reached) == len(times) else None,
        num_reached=len(reached),
        num_tried=len(times),
        apart=_ratios(apart, alone, case.num_ranks).median if apart else None,
        over_apart=_ratios(own, apart, 1) if apart else None,
    )


def _lost_ms(case: Case, shares: dict[str, float], step_ms: float, perfect_ms: float) -> dict[str, float]:
    """Of the causes: together what a step takes longer than a perfect one, in which nobody waits or exchanges."""
    own_ms = {part: step_ms * share for part, share in shares.items()}
    repeated_ms = own_ms["update"] * (1 - 1 / case.num_ranks) if case.mode == STRONG else 0.0
    return {
        "computing": own_ms["compute"] + own_ms["update"] - perfect_ms - repeated_ms,
        "update": repeated_ms,
        "wait": own_ms["wait"],
        "exchange": own_ms["exchange"],
    }


def _mean_shares(runs: list[dict]) -> dict[str, float]:
    return {name: statistics.fmean(run["shares"][name] for run in runs) for name in runs[0]["shares"]}


def conclusion(made: list[Row]) -> list[str]:
    """A sentence or two for each mode, setting and number of ranks, of what is bought and why it is not more."""
    return [_sentence(row) for row in made if row.case.num_ranks > 1 and row.case.mode != ISOLATED]


def _sentence(row: Row) -> str:
    case = row.case
    told = (
        f"{case.mode.capitalize()} scaling, {case.setting}: {case.num_ranks} ranks{row.machines} do "
        f"{row.efficiency.median * case.num_ranks:.2f} times the work of one in the same time, an efficiency of "
        f"{row.efficiency.text('.0f', 100)} %"
    )
    if row.is_disturbed:
        told += " (other programs disturbed every run: measure again on an idle machine)"
    if row.is_oversubscribed:
        return f"{told}. They share cores or GPUs here (oversubscribed), so this says nothing about scaling."
    if row.efficiency.median >= LITTLE:
        return f"{told}. Nearly nothing is lost."
    losses = {cause: lost for cause, lost in row.lost_ms.items() if lost > 0.01 * row.step_ms}
    if losses:
        parts = [
            f"{CAUSES[cause]} takes {lost:.2g} ms" for cause, lost in sorted(losses.items(), key=lambda one: -one[1])
        ]
        told += f". It is not better because of a step's {row.step_ms:.3g} ms, where {row.perfect_ms:.3g} would be perfect, "
        told += " and ".join([*[", ".join(parts[:-1])] * (len(parts) > 1), parts[-1]])
    if row.apart is not None:
        told += (
            f". As many one-rank runs side by side, which exchange nothing, reach {100 * row.apart:.0f} % on this hardware; "
            f"the ranks do {row.over_apart.text('.2f')} times their work"
        )
    return f"{told}."


def table(made: list[Row]) -> list[dict]:
    """A flat row a case, for CSV."""
    flat = []
    for row in made:
        case = row.case
        flat.append(
            {
                "mode": case.mode,
                "ranks": case.num_ranks,
                "machines": row.num_nodes,
                "oversubscribed": row.is_oversubscribed,
                "wire": case.wire,
                "accumulate": case.accumulate,
                "local_steps": case.local_steps,
                "global_batch": case.global_batch,
                "micro_batch": case.micro_batch,
                "runs": row.num_runs,
                "disturbed_runs": row.num_disturbed,
                **_spread("samples_per_s", row.samples_per_s),
                **_spread("efficiency", row.efficiency),
                "step_ms": row.step_ms,
                "wire_bytes_per_step": row.wire_bytes,
                **{f"share_{name}": share for name, share in row.shares.items()},
                **{f"lost_ms_{cause}": lost for cause, lost in row.lost_ms.items()},
                **_spread("target_s", row.target_s),
                "target_reached": row.num_reached,
                "target_tried": row.num_tried,
            }
        )
    return flat


def _spread(name: str, figure: Figure | None) -> dict[str, float | None]:
    """The three columns of a figure."""
    values = (figure.median, figure.least, figure.most) if figure else (None, None, None)
    return dict(zip((name, f"{name}_least", f"{name}_most"), values, strict=True))
