"""Figures from the JSON of `benchmarks.slow_links.run`: steps and seconds to an accuracy, accuracies, bytes."""

import math
import statistics

from benchmarks.slow_links.cases import CONTESTANTS, LINKS, NETWORKS, REFERENCE, STEPS_PER_EPOCH, Setting
from benchmarks.slow_links.phases import phases, torch_bytes


def measured_networks(found: dict) -> list[str]:
    return [network for network in NETWORKS if any(one["network"] == network for one in found["curves"])]


def measured_links(found: dict) -> list[str]:
    return [link for link in LINKS if any(one["link"] == link for one in found["steps"])]


def contestants(found: dict, network: str) -> list[str]:
    """Those with a whole run."""
    return [name for name in CONTESTANTS if curves(found, network, name)]


def curves(found: dict, network: str, name: str) -> dict[int, dict]:
    """Whole runs, by seed, with the flags that the contestant has now."""
    setting = str(CONTESTANTS[name].whole)
    return {one["seed"]: one for one in found["curves"] if (one["network"], one["setting"]) == (network, setting)}


def steps_to(found: dict, network: str, name: str, target: float) -> float:
    """Steps until the first evaluation with that accuracy, median over seeds; infinite: not reached."""
    firsts = [
        next((step for step, accuracy in run["curve"] if accuracy >= target), math.inf)
        for run in curves(found, network, name).values()
    ]
    return statistics.median_high(firsts) if firsts else math.inf


def times_to(found: dict, network: str, link: str, name: str, target: float) -> list[float]:
    """Seconds to an accuracy, once for each repetition; none: not reached, or not timed."""
    steps = steps_to(found, network, name, target)
    return seconds(found, network, link, name, steps) if math.isfinite(steps) else []


def seconds(found: dict, network: str, link: str, name: str, steps: float) -> list[float]:
    """What so many steps take over a link, once for each repetition that timed all of their phases."""
    parts = [phase for phase in phases(CONTESTANTS[name].whole) if phase.first < steps]
    ends = [*(phase.first for phase in parts[1:]), steps]
    times = [_step_s(found, network, link, phase.setting) for phase in parts]
    whole = set.intersection(*map(set, times))
    return [
        sum((end - phase.first) * part[key] for phase, end, part in zip(parts, ends, times, strict=True))
        for key in sorted(whole)
    ]


def _step_s(found: dict, network: str, link: str, setting: Setting) -> dict[tuple, float]:
    """By repetition; those of one rank are of all links, for it has none."""
    return {
        (one["repetition"], one["link"]): one["step_s"]
        for one in found["steps"]
        if (one["network"], one["setting"]) == (network, str(setting))
        and (one["link"] == link or setting.num_ranks == 1)
    }


def accuracies(found: dict, network: str, name: str) -> dict[int, float]:
    """In percent, at the end, by seed."""
    return {seed: 100 * run["accuracy"] for seed, run in curves(found, network, name).items()}


def lost(found: dict, network: str, name: str, other: str = REFERENCE) -> float | None:
    """Percentage points that `other` has more at the end, mean over the seeds of both."""
    own, others = accuracies(found, network, name), accuracies(found, network, other)
    differences = [others[seed] - own[seed] for seed in own if seed in others]
    return statistics.mean(differences) if differences else None


def bytes_a_step(found: dict, network: str, name: str) -> float:
    """Sent by a rank, mean over a whole run: counted, and for PyTorch by formula."""
    contestant = CONTESTANTS[name]
    if not contestant.is_torch:
        return statistics.mean(run["wire_bytes"] for run in curves(found, network, name).values())
    total = found["epochs"] * STEPS_PER_EPOCH
    parts = [phase for phase in phases(contestant.whole) if phase.first < total]
    ends = [*(phase.first for phase in parts[1:]), total]
    sums = (
        (end - phase.first) * torch_bytes(phase.setting, NETWORKS[network])
        for phase, end in zip(parts, ends, strict=True)
    )
    return sum(sums) / total
