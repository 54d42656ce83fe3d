"""Figures from the JSON of `benchmarks.slow_links.run`: steps and seconds to an accuracy, accuracies, bytes."""

import math
import statistics

from benchmarks.slow_links.cases import CONTESTANTS, LINKS, NETWORKS, REFERENCE, STEPS_PER_EPOCH, Setting
from benchmarks.slow_links.phases import phases, torch_bytes
from benchmarks.slow_links.records import Curve, Found


def measured_networks(found: Found) -> list[str]:
    return [network for network in NETWORKS if any(one["network"] == network for one in found["curves"])]


def measured_links(found: Found) -> list[str]:
    return [link for link in LINKS if any(one["link"] == link for one in found["steps"])]


def contestants(found: Found, network: str) -> list[str]:
    """Returns the contestants that have a whole run."""
    return [name for name in CONTESTANTS if curves(found, network, name)]


def curves(found: Found, network: str, name: str) -> dict[int, Curve]:
    """Returns whole runs by seed, with the flags that the contestant has now."""
    setting = str(CONTESTANTS[name].whole)
    return {one["seed"]: one for one in found["curves"] if (one["network"], one["setting"]) == (network, setting)}


def steps_to(found: Found, network: str, name: str, target: float) -> float:
    """Returns the steps until the first evaluation with that accuracy, median over seeds; infinite if not reached."""
    firsts = [run["steps_to"][f"{target:g}"] or math.inf for run in curves(found, network, name).values()]
    return statistics.median_high(firsts) if firsts else math.inf


def times_to(found: Found, network: str, link: str, name: str, target: float) -> list[float]:
    """Returns seconds to an accuracy for each repetition; empty if it was not reached or not timed."""
    steps = steps_to(found, network, name, target)
    return seconds(found, network, link, name, steps) if math.isfinite(steps) else []


def seconds(found: Found, network: str, link: str, name: str, steps: float) -> list[float]:
    """Returns seconds of so many steps over a link, for each repetition that timed all of their phases."""
    parts = [phase for phase in phases(CONTESTANTS[name].whole) if phase.first < steps]
    ends = [*(phase.first for phase in parts[1:]), steps]
    times = [_step_s(found, network, link, phase.setting) for phase in parts]
    whole = set.intersection(*map(set, times))
    return [
        sum((end - phase.first) * part[key] for phase, end, part in zip(parts, ends, times, strict=True))
        for key in sorted(whole)
    ]


def _step_s(found: Found, network: str, link: str, setting: Setting) -> dict[tuple[str, str], float]:
    """Returns times by repetition and link; those of one rank count for every link, since it has none."""
    return {
        (repetition, one["link"]): step_s
        for one in found["steps"]
        if (one["network"], one["setting"]) == (network, str(setting))
        and (one["link"] == link or setting.num_ranks == 1)
        for repetition, step_s in one["step_s"].items()
    }


def accuracies(found: Found, network: str, name: str) -> dict[int, float]:
    """Returns accuracies at the end in percent, by seed."""
    return {seed: 100 * run["accuracy"] for seed, run in curves(found, network, name).items()}


def lost(found: Found, network: str, name: str, other: str = REFERENCE) -> float | None:
    """Returns the percentage points that `other` has more at the end, mean over the seeds of both."""
    own, others = accuracies(found, network, name), accuracies(found, network, other)
    differences = [others[seed] - own[seed] for seed in own if seed in others]
    return statistics.mean(differences) if differences else None


def bytes_a_step(found: Found, network: str, name: str) -> float:
    """Returns bytes sent by a rank, mean over a whole run: counted, and for PyTorch by formula."""
    contestant = CONTESTANTS[name]
    if not contestant.is_torch:
        return statistics.mean(run["wire_bytes"] or 0.0 for run in curves(found, network, name).values())
    total = found["epochs"] * STEPS_PER_EPOCH
    parts = [phase for phase in phases(contestant.whole) if phase.first < total]
    ends = [*(phase.first for phase in parts[1:]), total]
    sums = (
        (end - phase.first) * torch_bytes(phase.setting, NETWORKS[network])
        for phase, end in zip(parts, ends, strict=True)
    )
    return sum(sums) / total
