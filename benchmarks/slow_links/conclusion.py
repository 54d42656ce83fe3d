"""Conclusions in words from the JSON of `benchmarks.slow_links.run`: the links over which a second host pays."""

import statistics

from benchmarks.lib.common import SHARED_MEMORY
from benchmarks.slow_links.cases import CONTESTANTS, REFERENCE, TARGETS
from benchmarks.slow_links.figures import contestants, lost, measured_links, measured_networks, steps_to, times_to
from benchmarks.slow_links.records import Found


def conclusions(found: Found) -> list[str]:
    """Returns a line a link, for each network and accuracy."""
    lines = []
    for network in measured_networks(found):
        for target in TARGETS:
            told = [
                f"- {link_title(link)}: {conclusion(found, network, link, target)}" for link in measured_links(found)
            ]
            if told:
                lines += [f"**{network}, to {percent(target)}: does a second host pay?**", "", *told, ""]
    return lines


def conclusion(found: Found, network: str, link: str, target: float) -> str:
    """Returns a comparison of the best of two hosts with one rank, and of both programs."""
    times = {name: times_to(found, network, link, name, target) for name in contestants(found, network)}
    one_rank = times.pop(REFERENCE, [])
    medians = {name: statistics.median(own) for name, own in times.items() if own}
    if not medians:
        return f"no contestant reaches {percent(target)} on two hosts in {found['epochs']} epochs."
    best = min(medians, key=medians.__getitem__)
    others = [name for name in medians if CONTESTANTS[name].is_torch != CONTESTANTS[best].is_torch]
    ending = f"; the best of {'ddpgd' if CONTESTANTS[best].is_torch else 'PyTorch'} is " if others else "."
    if others:
        other = min(others, key=medians.__getitem__)
        ending += f"{CONTESTANTS[other].label} with {medians[other]:.3g} s."
    return _verdict(found, network, target, best, times[best], one_rank) + ending


def _verdict(found: Found, network: str, target: float, best: str, own: list[float], one_rank: list[float]) -> str:
    """Returns one sentence, without its end."""
    label, own_s = CONTESTANTS[best].label, statistics.median(own)
    if not one_rank:
        why = "was not timed" if steps_to(found, network, REFERENCE, target) < float("inf") else "does not get there"
        return f"one rank {why}; the best on two hosts is {label} with {own_s:.3g} s"
    one_s = statistics.median(one_rank)
    if max(own) < min(one_rank):
        points = lost(found, network, best)
        return (
            f"yes, with {label}: {own_s:.3g} s, where one rank takes {one_s:.3g} s, {one_s / own_s:.2f} times as fast; "
            f"{_end(points)}"
        )
    if min(own) <= max(one_rank):
        return f"no difference beyond the spread: at best {own_s:.3g} s, with {label}, and {one_s:.3g} s on one rank"
    return (
        f"no: one rank takes {one_s:.3g} s, and the best on two hosts, {label}, {own_s:.3g} s, "
        f"{own_s / one_s:.2f} times as long"
    )


def _end(points: float | None) -> str:
    """Returns the accuracy at the end beside that of one rank."""
    if points is None or abs(points) < 0.005:
        return "at the end as accurate as one rank"
    return f"at the end {abs(points):.2f} points {'below' if points > 0 else 'above'} one rank"


def link_title(link: str) -> str:
    speed = link.replace("gbit", " Gbit/s").replace("mbit", " Mbit/s")
    return "shared memory" if link == SHARED_MEMORY else f"links of {speed}"


def percent(target: float) -> str:
    return f"{100 * target:g} %"
