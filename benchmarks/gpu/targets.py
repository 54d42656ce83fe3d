"""Targets of the CUDA backend, and whether a measurement meets them."""

from dataclasses import dataclass
from typing import Any

from benchmarks.gpu.cases import LARGE, MIDDLE, OTHERS, SMALL

STEP_US, PERSISTENT_US, EPOCH_S, ACCURATE_S = 12.0, 8.0, 0.005, 0.05
TIMES_EAGER, TIMES_GRAPH = 10.0, 2.0
FROM_ROWS = 1024


@dataclass(frozen=True)
class Target:
    """`met` is None where nothing was measured."""

    wanted: str
    got: str
    met: bool | None


def ratio(row: dict[str, Any]) -> float | None:
    """Returns the median of a contestant's time over ddpgd's with a captured graph; None if one has no figure."""
    return row["times_captured"]["median"] if "times_captured" in row else None


def targets(found: dict[str, Any]) -> list[Target]:
    """Every target, in the order of `benchmarks/gpu/gpu.md`."""
    small = _contestants(found, SMALL, 128, "float32")
    epoch = found.get("epoch") or {}
    return [
        _at_most("784-128-10, 128 rows, float32: us a step", STEP_US, _step_us(small, "captured")),
        _at_most("... us a step by the persistent kernel", PERSISTENT_US, _step_us(small, "persistent")),
        _at_most("... ms an epoch", 1e3 * EPOCH_S, _milliseconds(epoch.get("epoch_s"))),
        _target_reached(epoch),
        _times("... times as fast as PyTorch eager", TIMES_EAGER, small, "torch-eager"),
        _times("... times as fast as PyTorch with CUDA graphs", TIMES_GRAPH, small, "torch-graph"),
        *(_not_slower(found, sizes) for sizes in (MIDDLE, LARGE)),
    ]


def verdict(found: dict[str, Any]) -> str:
    """One line."""
    judged = targets(found)
    missed = [f"{target.wanted} (got {target.got})" for target in judged if target.met is False]
    unknown = sum(target.met is None for target in judged)
    line = f"{sum(target.met is True for target in judged)} of {len(judged)} targets met"
    line += f"; missed: {'; '.join(missed)}" if missed else ""
    return line + (f"; {unknown} not measured" if unknown else "")


def _contestants(found: dict[str, Any], sizes: tuple[int, ...], rows: int, precision: str) -> dict[str, Any]:
    wanted = list(sizes), rows, precision
    cases = (case for case in found["cases"] if (list(case["sizes"]), case["rows"], case["precision"]) == wanted)
    return next((case["contestants"] for case in cases), {})


def _step_us(contestants: dict[str, Any], key: str) -> float | None:
    us: float | None = contestants.get(key, {}).get("us", {}).get("median")
    return us


def _at_most(what: str, most: float, got: float | None) -> Target:
    wanted = f"{what}: at most {most:g}"
    return Target(wanted, "-", None) if got is None else Target(wanted, f"{got:.1f}", got <= most)


def _target_reached(epoch: dict[str, Any]) -> Target:
    """98 % by every run, in time by the median."""
    target = _at_most("... ms of training to 98 %", 1e3 * ACCURATE_S, _milliseconds(epoch.get("reached_s")))
    if not epoch or epoch["num_reached"] == epoch["num_runs"]:
        return target
    return Target(target.wanted, f"{target.got}, by {epoch['num_reached']} of {epoch['num_runs']} runs", False)


def _times(what: str, least: float, contestants: dict[str, Any], other: str) -> Target:
    got = ratio(contestants.get(other, {}))
    wanted = f"{what}: at least {least:g}"
    return Target(wanted, "-", None) if got is None else Target(wanted, f"{got:.2f}", got >= least)


def _not_slower(found: dict[str, Any], sizes: tuple[int, ...]) -> Target:
    """Beside the best of the others in each case from so many rows on."""
    wanted = f"{'-'.join(map(str, sizes))}, {FROM_ROWS} rows and more: not slower than the best other"
    worst = {}
    for case in found["cases"]:
        found_ratios = [ratio(case["contestants"].get(other, {})) for other in OTHERS]
        medians = [median for median in found_ratios if median is not None]
        if tuple(case["sizes"]) == sizes and case["rows"] >= FROM_ROWS and medians:
            worst[case["name"]] = min(medians)
    if not worst:
        return Target(wanted, "-", None)
    name, least = min(worst.items(), key=lambda item: item[1])
    held = sum(value >= 1 for value in worst.values())
    return Target(wanted, f"in {held} of {len(worst)} cases; least {least:.2f} x, at {name}", held == len(worst))


def _milliseconds(values: dict[str, Any] | None) -> float | None:
    return 1e3 * values["median"] if values else None
