"""Axes of charts: ticks at round numbers, and how numbers are written."""

import math

LOWEST_POWER, HIGHEST_POWER = -323, 308
"""Powers of ten that can be written as numbers."""
_ROUND = (1.0, 2.0, 5.0)


def ticks(low: float, high: float, most: int = 6) -> list[float]:
    """Returns multiples of 1, 2 or 5 times a power of ten from `low` to `high`, about `most` of them.

    >>> ticks(0, 470)
    [0.0, 100.0, 200.0, 300.0, 400.0]
    """
    if not high > low:
        return [low]
    power = 10.0 ** math.floor(math.log10((high - low) / most))
    step = next(size for size in (power * factor for factor in (*_ROUND, 10.0, 20.0)) if (high - low) / size <= most)
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    return [float(f"{number * step:.12g}") for number in range(first, last + 1)]


def log_ticks(low: float, high: float, most: int = 6) -> list[float]:
    """Returns powers of ten from `low` to `high`, or, where there are few, 1, 2 and 5 times those.

    >>> log_ticks(0.04, 3)
    [0.05, 0.1, 0.2, 0.5, 1.0, 2.0]
    """
    powers = range(max(LOWEST_POWER, math.floor(math.log10(low))), min(HIGHEST_POWER, math.ceil(math.log10(high))) + 1)
    for factors in (_ROUND, (1.0, 3.0), (1.0,)):
        found = [factor * 10.0**power for power in powers for factor in factors]
        found = [float(f"{value:.12g}") for value in found if low <= value * (1 + 1e-9) and value * (1 - 1e-9) <= high]
        if len(found) <= most:
            break
    if len(found) > most:
        found = found[:: math.ceil(len(found) / most)]
    return found if len(found) > 2 else ticks(low, high, most)


def number_text(value: float) -> str:
    """Returns a number as people write it: at most four digits of a fraction, and commas between thousands.

    >>> [number_text(value) for value in (12000.0, 0.05, 0.0, 97.75, 2e-7)]
    ['12,000', '0.05', '0', '97.75', '2e-7']
    """
    if value == 0 or 1e-4 <= abs(value) < 1e7:
        whole = f"{value:,.0f}"
        return whole if abs(value) >= 10000 or float(whole.replace(",", "")) == value else f"{value:,.4g}"
    mantissa, _, exponent = f"{value:.3g}".partition("e")
    return f"{mantissa}e{int(exponent)}" if exponent else mantissa
