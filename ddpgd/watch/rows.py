"""A rank as a watchdog sees it."""

from collections.abc import Sequence
from typing import NamedTuple

from ddpgd.comm.whereabouts import (
    ACTIVITIES,
    CHECKPOINT,
    COLLECTIVES,
    DONE,
    EVALUATION,
    GRADIENTS,
    LOADING,
    NONE,
    RECEIVE,
    RECORD,
    SEND,
    SETUP,
    UNKNOWN,
)


class Row(NamedTuple):
    """A rank, and where it is.

    Attributes:
        rank: Its number.
        host: Of its process.
        pid: Of its process.
        activity: One of `whereabouts.ACTIVITIES`, by number.
        step: Steps that are done; the one it works on is the next.
        micro_batch: The last one it began.
        collective: Which kind it is in, by number; NONE: in none.
        peer: The other rank of a message.
        entered: Collectives that it has entered so far, and messages that it has waited for.
        still_s: Seconds for which nothing of this has changed.
        state: What its process does, where its watchdog does not run or it is known otherwise; "" where nothing is wrong.
        source: The last line of this package that it executes, as "comm/exchange.py:57"; "" where that is not known.
        group: The group of ranks of its collective, by a number; "0": not known.
        groups: The number of collectives that it has entered in each of its groups.
    """

    rank: int
    host: str
    pid: int
    activity: int = UNKNOWN
    step: int = 0
    micro_batch: int = 0
    collective: int = NONE
    peer: int = 0
    entered: int = 0
    still_s: float = 0.0
    state: str = ""
    source: str = ""
    group: str = "0"
    groups: dict[str, int] = {}  # noqa: RUF012 - nobody changes it

    @property
    def waits(self) -> bool:
        """True in a collective, or in a message: it goes on when others come."""
        return self.collective != NONE

    @property
    def is_in_a_message(self) -> bool:
        """True in a message: it goes on when its peer comes."""
        return self.collective in (SEND, RECEIVE)

    @property
    def entered_in_group(self) -> int:
        """The number of collectives that it has entered in the group of its last one."""
        return self.groups.get(self.group, 0)

    def waits_for(self, other: "Row") -> bool:
        """Returns whether it is in a message of `other`, or in a collective that `other` takes part in and has not entered."""
        if self.is_in_a_message:
            return other.rank == self.peer
        return self.waits and self.group in other.groups and other.groups[self.group] < self.entered_in_group

    def waits_in_the_same_as(self, other: "Row") -> bool:
        """Returns whether both are in the same collective, or are the same rank."""
        both = self.waits and not (self.is_in_a_message or other.is_in_a_message)
        here, there = (self.group, self.entered_in_group), (other.group, other.entered_in_group)
        return self.rank == other.rank or (both and here == there)

    def is_further_than(self, other: "Row") -> bool:
        """Returns whether it is in a later part of the run."""
        return (self.step, self.activity) > (other.step, other.activity)

    @property
    def place(self) -> str:
        """Names what it is in: "the exchange of step 41", "the evaluation of step 400"; empty: that is not known."""
        if self.activity == UNKNOWN:
            return ""
        if self.activity in (SETUP, LOADING, DONE):
            return f"the {ACTIVITIES[self.activity]}" if self.activity != LOADING else "the loading of data"
        if self.activity in (EVALUATION, CHECKPOINT, RECORD):
            return f"the {ACTIVITIES[self.activity]} of step {self.step}"
        if self.waits and not self.is_in_a_message:
            return f"the exchange of step {self.step + 1}"
        return f"the {ACTIVITIES[self.activity]} of step {self.step + 1}"

    @property
    def kind(self) -> str:
        """Names the collective that it is in: "all-gather", "message to rank 3"."""
        name = COLLECTIVES[self.collective]
        return f"{name} rank {self.peer}" if self.is_in_a_message else name

    @property
    def phase(self) -> str:
        """Names what it does, for a table: "exchange: all-to-all, 1,204th collective", "gradients: micro-batch 3"."""
        name = self.place.removeprefix("the ").partition(" of ")[0]
        if self.waits:
            return f"{name}: {self.kind}, collective {self.entered:,}"
        return f"{name}: micro-batch {self.micro_batch}" if self.activity == GRADIENTS else name


def _progress(row: Row) -> tuple[str, str, str]:
    return (str(row.step + 1), row.phase, f"{row.still_s:.0f} s") if row.place else ("", "", "")


def table(rows: Sequence[Row]) -> list[str]:
    """Returns the lines of a table of ranks, in the order of their numbers."""
    heads = ("rank", "host", "process", "step", "phase", "for", "where")
    cells = [
        (
            *(str(row.rank), row.host, str(row.pid), *_progress(row)),
            f"{row.state}{'; ' if row.state and row.source else ''}{row.source}",
        )
        for row in sorted(rows)
    ]
    widths = [max(map(len, column)) for column in zip(heads, *cells, strict=True)]
    return ["  ".join(map(str.ljust, line, widths)).rstrip() for line in (heads, *cells)]
