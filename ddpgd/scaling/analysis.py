"""Figures of the cases of `ddpgd scaling` from their runs: medians and spreads, lost time by cause."""

import statistics
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass

from ddpgd.scaling.cases import ISOLATED, STRONG, WEAK, Case, baseline
from ddpgd.scaling.records import Found, Throughput
from ddpgd.scaling.runs import LOAD_LIMIT

Cell = str | int | float | bool | None


@dataclass(frozen=True)
class Figure:
    """A median, with the least and the most."""

    median: float
    least: float
    most: float

    @classmethod
    def of(cls, values: list[float]) -> "Figure":
        """Returns the figure of one or more values."""
        return cls(statistics.median(values), min(values), max(values))

    def text(self, form: str, factor: float = 1.0) -> str:
        """Returns text such as "2.1 (2.0 to 2.3)"."""
        middle, least, most = (format(factor * value, form) for value in (self.median, self.least, self.most))
        return middle if least == most else f"{middle} ({least} to {most})"


@dataclass(frozen=True)
class Row:
    """The figures of a case.

    Attributes:
        num_nodes: Machines that ranks of a run were on; 1 for runs side by side.
        efficiency: Throughput over that of as many baselines, within each repetition.
        perfect_ms: One rank's time, divided by the number of ranks.
        lost_ms: What a step takes longer than a perfect one, by cause; a negative number is time gained.
        target_s: Time to the target; None unless all tries reached it.
        isolated: Efficiency of as many one-rank runs side by side, where measured.
        over_isolated: Throughput over theirs.
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
    isolated: float | None = None
    over_isolated: Figure | None = None

    @property
    def machines(self) -> str:
        """Text after the number of ranks, such as " on 2 machines"; empty for one."""
        return f" on {self.num_nodes} machines" if self.num_nodes > 1 else ""


Runs = Mapping[str, list[Throughput]]
"""Runs that count, by the case's name."""


def counted(runs: list[Throughput]) -> list[Throughput]:
    """Returns the runs that nothing disturbed; all of them, if each was disturbed."""
    return [run for run in runs if run["other_load"] <= LOAD_LIMIT] or runs


def rows(found: Found, cases: list[Case], num_slots: int) -> list[Row]:
    """Returns a row of each case that has a run, and whose baseline has one."""
    runs = {case.name: counted([run for run in found["runs"] if run["case"] == case.name]) for case in cases}
    made = []
    for case in cases:
        if runs[case.name] and runs[baseline(case, cases).name]:
            made.append(_row(found, case, baseline(case, cases), runs, num_slots, _side_by_side(case, cases, runs)))
    return made


def _side_by_side(case: Case, cases: list[Case], runs: Runs) -> list[Throughput]:
    """Returns the runs of as many isolated ranks with the same work."""
    same = [
        one
        for one in cases
        if case.mode == WEAK
        and (one.mode, one.num_ranks, one.accumulate) == (ISOLATED, case.num_ranks, case.accumulate)
    ]
    return runs[same[0].name] if same else []


def _ratios(own: list[Throughput], base: list[Throughput], factor: float) -> Figure:
    """Returns ratios of throughput within repetitions; if no repetition has both, the ratio of medians."""
    ours, theirs = _by_repetition(own), _by_repetition(base)
    pairs = [ours[number] / (factor * theirs[number]) for number in ours if number in theirs]
    middle = [statistics.median(run["samples_per_s"] for run in runs) for runs in (own, base)]
    return Figure.of(pairs or [middle[0] / (factor * middle[1])])


def _by_repetition(runs: list[Throughput]) -> dict[int, float]:
    """Returns throughput by repetition; the median where a repetition has several runs, all disturbed."""
    rates = defaultdict(list)
    for run in runs:
        rates[run["repetition"]].append(run["samples_per_s"])
    return {number: statistics.median(own) for number, own in rates.items()}


def _row(found: Found, case: Case, base: Case, runs: Runs, num_slots: int, isolated: list[Throughput]) -> Row:
    own, alone = runs[case.name], runs[base.name]
    shares = _mean_shares(own)
    step_ms = 1000 * statistics.median(run["step_s"] for run in own)
    perfect_ms = 1000 * case.global_batch / (case.num_ranks * statistics.median(run["samples_per_s"] for run in alone))
    alone_update_ms = 1000 * _mean_shares(alone)["update"] * statistics.median(run["step_s"] for run in alone)
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
        lost_ms=_lost_ms(case, shares, step_ms, perfect_ms, alone_update_ms),
        target_s=Figure.of(reached) if reached and len(reached) == len(times) else None,
        num_reached=len(reached),
        num_tried=len(times),
        isolated=_ratios(isolated, alone, case.num_ranks).median if isolated else None,
        over_isolated=_ratios(own, isolated, 1) if isolated else None,
    )


def _lost_ms(
    case: Case, shares: dict[str, float], step_ms: float, perfect_ms: float, alone_update_ms: float
) -> dict[str, float]:
    """Returns time by cause; together, what a step takes longer than a perfect one, which neither waits nor exchanges.

    An update that ranks share takes, on each, its part of the update of one rank alone, `alone_update_ms`.
    """
    own_ms = {part: step_ms * share for part, share in shares.items()}
    repeated_ms = max(0.0, own_ms["update"] - alone_update_ms / case.num_ranks) if case.mode == STRONG else 0.0
    return {
        "computing": own_ms["compute"] + own_ms["update"] - perfect_ms - repeated_ms,
        "update": repeated_ms,
        "bubble": own_ms["bubble"],
        "wait": own_ms["wait"],
        "exchange": own_ms["exchange"],
    }


def _mean_shares(runs: list[Throughput]) -> dict[str, float]:
    return {name: statistics.fmean(run["shares"][name] for run in runs) for name in runs[0]["shares"]}


def table(made: list[Row]) -> list[dict[str, Cell]]:
    """Returns a flat row for each case, for CSV."""
    flat: list[dict[str, Cell]] = []
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
                "tensor": case.tensor,
                "pipeline": case.pipeline,
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
    """Returns the three columns of a figure."""
    values = (figure.median, figure.least, figure.most) if figure else (None, None, None)
    return dict(zip((name, f"{name}_least", f"{name}_most"), values, strict=True))
