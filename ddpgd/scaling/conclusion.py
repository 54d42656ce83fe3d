"""The conclusion of a scaling measurement in sentences: the gain, and the causes of the time that is lost."""

import math

from ddpgd.config.units import enumerated
from ddpgd.scaling.analysis import Row
from ddpgd.scaling.cases import ISOLATED

CAUSES = {
    "computing": "slower computing than on one rank (ranks of a machine share its memory, caches and clock)",
    "update": "the update of all params by every rank",
    "bubble": "stages that wait for each other",
    "wait": "waiting for the slowest rank of each step",
    "exchange": "the exchange of gradients",
}
"""Causes of the time that a step takes beyond its share of one rank's."""

SHARED_LAYERS = "messages between ranks that share layers, and slower computing than on one rank"
"""The first of CAUSES where ranks share layers: their messages are part of computing."""

LITTLE = 0.97
"""The efficiency from which on there is nothing to explain."""


def conclusion(made: list[Row]) -> list[str]:
    """Returns a sentence or two for each mode, setting and number of ranks: what is gained, and why it is not more."""
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
        return f"{told}. Almost nothing is lost."
    told += f". {_explained(row)}"
    if row.isolated is not None and row.over_isolated is not None:
        told += (
            f" As many one-rank runs side by side, which exchange nothing, reach {100 * row.isolated:.0f} % on this "
            f"hardware; the ranks do {row.over_isolated.text('.2f')} times their work."
        )
    return told


def _explained(row: Row) -> str:
    """Returns a sentence whose parts add up: the time that a step loses, by cause."""
    decimals = max(0, 3 - math.floor(math.log10(row.step_ms)))
    step, perfect = round(row.step_ms, decimals), round(row.perfect_ms, decimals)
    parts = {cause: round(lost, decimals) for cause, lost in row.lost_ms.items()}
    largest = max(parts, key=lambda cause: abs(parts[cause]))
    parts[largest] = round(parts[largest] + step - perfect - sum(parts.values()), decimals)

    def ms(number: float) -> str:
        return f"{number:.{decimals}f} ms"

    causes = CAUSES | ({"computing": SHARED_LAYERS} if row.case.tensor > 1 else {})
    losses = [f"{causes[cause]} {ms(lost)}" for cause, lost in sorted(parts.items(), key=_largest_first) if lost > 0]
    gains = [ms(-lost) for lost in parts.values() if lost < 0]
    told = (
        f"A step takes {ms(step)}, where {ms(perfect)} would be perfect; the difference of {ms(step - perfect)} "
        f"is {enumerated(losses)}"
    )
    return told + (f", less {enumerated(gains)} of computing faster than on one rank." if gains else ".")


def _largest_first(part: tuple[str, float]) -> float:
    return -part[1]
