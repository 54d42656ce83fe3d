"""The verdict: which rank others wait for, in one sentence, from where all of them are."""

from collections.abc import Callable, Sequence
from typing import Any

from ddpgd.comm.whereabouts import DONE
from ddpgd.config.units import enumerated
from ddpgd.watch.rows import Row


def verdict(rows: Sequence[Row], num_ranks: int = 0) -> str:
    """Returns what holds up ranks that do not move.

    Args:
        rows: The ranks that are known of.
        num_ranks: The number of all ranks, where it may be larger.
    """
    ill = [row for row in rows if row.state]
    waiting = [row for row in rows if row.waits and not row.state]
    if ill:
        return "; ".join(map(_ill, ill)) + _wait_for(ill, waiting)
    absent = [row for row in rows if not row.waits and row.activity != DONE]
    if absent:
        return "; ".join(_absent(row, waiting) for row in absent) + _wait_for(absent, waiting)
    if not waiting:
        return "all ranks are done"
    if len(rows) < num_ranks:
        wait = "waits" if len(waiting) == 1 else "wait"
        return f"{ranks(waiting)} {wait} in {waiting[0].place} for ranks of other hosts"
    grouped = [row for row in waiting if row.group in row.groups and not row.is_in_a_message]
    for group in dict.fromkeys(row.group for row in grouped):
        if said := _of_group([row for row in grouped if row.group == group]):
            return said
    return _of_groups(waiting)


def _of_group(rows: Sequence[Row]) -> str:
    """Returns what holds up ranks that wait in collectives of one group, where these differ; empty: they do not."""
    if _skipped(rows) and (odd := _odd(rows, _place)):
        return _differ(rows, odd, _place)
    # A rank that has all its messages leaves a collective before others do: it may be ahead, though not by many.
    counts = [row.entered_in_group for row in rows]
    is_late = 0 < max(counts) - min(counts) < len(rows)
    if (odd := _odd(rows, lambda row: row.kind)) and not is_late:
        return _differ(rows, odd, _collective)
    return ""


def _of_groups(rows: Sequence[Row]) -> str:
    """Returns what holds up ranks that wait in collectives of several groups: whom others wait for, though it is further."""
    for one in rows:
        if further := [other for other in rows if one.waits_for(other) and other.is_further_than(one)]:
            inside = [row for row in rows if row.waits_in_the_same_as(one)]
            if len(further) > len(inside):
                are_apart = {row.place for row in inside}.isdisjoint(row.place for row in further)
                return _differ([*inside, *further], inside, _place if are_apart else _collective)
            return _left_out(further, inside)
    last = [row for row in rows if not any(row.waits_for(other) for other in rows)]
    return _no_message(last or rows, rows)


def _left_out(odd: Sequence[Row], inside: Sequence[Row]) -> str:
    has, it, are = ("has", "it", "is") if len(odd) == 1 else ("have", "they", "are")
    return (
        f"{ranks(odd)} {has} left out {_collective(inside[0])}, in which {ranks(inside)} "
        f"wait{'s' if len(inside) == 1 else ''}: {it} {are} in {_collective(odd[0])}"
    )


def _place(row: Row) -> str:
    return row.place


def _collective(row: Row) -> str:
    return f"{row.kind}, collective {row.entered:,}, of {row.place}"


def _skipped(rows: Sequence[Row]) -> bool:
    """Returns whether a rank is further in the run than another, and has not entered more collectives."""
    return any(
        other.is_further_than(one) and one.entered_in_group >= other.entered_in_group for one in rows for other in rows
    )


def _odd(rows: Sequence[Row], what: Callable[[Row], Any]) -> list[Row]:
    """Returns the rows that differ from what most of them have in common; of equal numbers, from what is earlier in the run."""
    kinds = [what(row) for row in rows]
    usual = max(rows, key=lambda row: (kinds.count(what(row)), -row.step, -row.activity, -row.collective), default=None)
    return [row for row in rows if usual and what(row) != what(usual)]


def _differ(rows: Sequence[Row], odd: Sequence[Row], what: Callable[[Row], str]) -> str:
    others = [row for row in rows if row not in odd]
    which = "; ".join(f"{ranks([row])} is in {what(row)}" for row in odd)
    return (
        f"{which}, while {ranks(others)} {'is' if len(others) == 1 else 'are'} in {what(others[0])}: collectives differ"
    )


def _no_message(rows: Sequence[Row], everybody: Sequence[Row]) -> str:
    hosts = sorted({row.host for row in rows})
    is_alone = len({row.host for row in everybody}) == 1
    where = f"what joins the processes on {hosts[0]}" if is_alone else f"the network of {enumerated(hosts)}"
    are = "is" if len(rows) == 1 else "are"
    return f"{ranks(rows)} {are} in {rows[0].place}, and no message arrives: look at {where}"


def _ill(row: Row) -> str:
    place = f", in {row.place}" if row.place else ""
    return f"{ranks([row])} (process {row.pid} on {row.host}) {row.state}{place}"


def _absent(row: Row, waiting: Sequence[Row]) -> str:
    name = f"{ranks([row])} (process {row.pid} on {row.host})"
    source = f", {row.source}" if row.source else ""
    if not waiting:
        return f"{name} does not move, in {row.place}{source}"
    places = [other.place for other in waiting]
    return f"{name} has not entered {max(places, key=places.count)}: it is in {row.place}{source}"


def _wait_for(whom: Sequence[Row], waiting: Sequence[Row]) -> str:
    if not waiting:
        return ""
    return f"; {ranks(waiting)} wait{'s' if len(waiting) == 1 else ''} for {'it' if len(whom) == 1 else 'them'}"


def ranks(rows: Sequence[Row]) -> str:
    """Returns "rank 2", or "ranks 0, 1 and 3"."""
    return f"rank{'s' if len(rows) > 1 else ''} {enumerated([str(row.rank) for row in rows])}"
