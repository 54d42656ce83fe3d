"""The cases of `ddpgd scaling`: each a way to train on a number of ranks, and the one rank that it is compared with."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product

STRONG, WEAK, ISOLATED = "strong", "weak", "apart"
MODES = {
    STRONG: "the same global batch on any number of ranks",
    WEAK: "a global batch that grows with the number of ranks",
    ISOLATED: "as many one-rank runs side by side, which exchange nothing",
}


def axes(layout: str) -> tuple[int, int]:
    """Returns the tensor and pipeline parallel ranks of a layout such as "2x1"."""
    tensor, pipeline = map(int, layout.split("x"))
    return tensor, pipeline


@dataclass(frozen=True)
class Case:
    """A way to train. `accumulate`: micro-batches per rank in weak scaling; in strong scaling, on the most ranks.

    `tensor`, `pipeline`: ranks that share the layers, and stages of them; other ranks compute other samples.
    """

    mode: str
    num_ranks: int
    wire: str
    accumulate: int
    local_steps: int
    micro_batch: int
    global_batch: int
    tensor: int = 1
    pipeline: int = 1

    @property
    def name(self) -> str:
        """The key of what was measured, which no other case has."""
        layout = "".join(f"-{axis}{count}" for axis, count in self.sharing)
        return f"{self.mode}-{self.num_ranks}-{self.wire}-x{self.accumulate}-every{self.local_steps}{layout}"

    @property
    def sharing(self) -> list[tuple[str, int]]:
        """The axes along which ranks share a copy of the params, and their numbers there."""
        return [(axis, count) for axis, count in (("tensor", self.tensor), ("pipeline", self.pipeline)) if count > 1]

    @property
    def setting(self) -> str:
        """The setting that cases on a line of a plot share."""
        words = [self.wire]
        words += [f"accumulate {self.accumulate}"] * (self.accumulate > 1)
        words += [f"{self.local_steps} local steps"] * (self.local_steps > 1)
        words += [f"{axis} {count}" for axis, count in self.sharing]
        return ", ".join(words)

    @property
    def flags(self) -> list[str]:
        """Flags of `ddpgd train`; for side-by-side runs, those of each run."""
        rows = self.global_batch // self.num_ranks if self.mode == ISOLATED else self.global_batch
        words = f"--global-batch {rows} --micro-batch {self.micro_batch} --wire {self.wire}"
        if self.local_steps > 1:
            words += f" --sync local --local-steps {self.local_steps}"
        words += "".join(f" --{axis} {count}" for axis, count in self.sharing)
        return words.split()


def cases(
    modes: list[str],
    ranks: list[int],
    wires: list[str],
    accumulate: list[int],
    local_steps: list[int],
    micro_batch: int,
    layouts: Sequence[str] = ("1x1",),
) -> list[Case]:
    """Returns all cases that are asked for, each mode's baselines first: one rank, float32, every step.

    A layout, as in "2x1", is a case on the numbers of ranks that it divides.
    """
    found = []
    for mode, times in product(modes, accumulate):

        def case(
            num_ranks: int,
            wire: str,
            every: int,
            shared: tuple[int, int] = (1, 1),
            mode: str = mode,
            times: int = times,
        ) -> Case:
            shares = max(ranks) if mode == STRONG else num_ranks
            return Case(mode, num_ranks, wire, times, every, micro_batch, shares * times * micro_batch, *shared)

        more = [number for number in ranks if number > 1]
        if mode != ISOLATED:
            found.append(case(1, "float32", 1))
            for number, wire, every, shared in product(more, wires, local_steps, map(axes, layouts)):
                if number % math.prod(shared) == 0:
                    found.append(case(number, wire, every, shared))
        else:
            if WEAK not in modes:
                found.append(case(1, "float32", 1, mode=WEAK))
            found += [case(number, "float32", 1) for number in more]
    return found


def baseline(case: Case, among: list[Case]) -> Case:
    """Returns the case of one rank with the same work, which `case` is compared with."""
    mode = WEAK if case.mode == ISOLATED else case.mode
    wanted = (mode, 1, case.accumulate)
    return next(one for one in among if (one.mode, one.num_ranks, one.accumulate) == wanted)
