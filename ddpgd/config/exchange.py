"""The options of what ranks exchange: which form counts, and what wires, local steps and clients rule out."""

from collections.abc import Iterator
from typing import TYPE_CHECKING

from ddpgd.comm.wires import WIRES, Kind
from ddpgd.config import federated, grid
from ddpgd.optim.rules import RULES

if TYPE_CHECKING:
    from ddpgd.config.schema import Config


def form(config: "Config") -> str:
    """Returns the value of --exchange that counts: "auto" only for sums whose bits are the same in every form."""
    has_forms = WIRES[config.wire].kind is Kind.EXACT and config.reduce == "ordered" and not grid.divided(config)
    return "flat" if config.exchange == "auto" and not has_forms else config.exchange


def rounds_apart(saved: "Config", exchange: str) -> bool:
    """Returns whether the wire of a run rounds other values in the form of another `exchange` than in its own."""
    return WIRES[saved.wire].kind is Kind.BLOCK_SCALED and "two-level" in (saved.exchange, exchange)


def refusals(config: "Config") -> Iterator[tuple[bool, str]]:
    """Yields, for each contradiction, whether it is there, and the line that says what to type."""
    wire = WIRES[config.wire]
    yield (
        wire.kind is not Kind.EXACT and config.reduce == "fast",
        f"--reduce fast hands sums to the MPI library, which does not know --wire {config.wire}; type --reduce ordered",
    )
    if config.sync == "federated":
        yield from _of_clients(config)
    yield (
        config.shard_optimizer == "on" and config.sync != "every-step",
        f"--shard-optimizer: with --sync {config.sync} each rank updates all params by itself; drop one of the two",
    )
    who = "--reduce fast" if config.reduce == "fast" else f"--wire {config.wire}"
    yield (
        config.exchange == "two-level" and (config.reduce == "fast" or wire.kind is Kind.COMPRESSOR),
        f"--exchange two-level: {who} sums whole vectors of all ranks at once; type --exchange flat",
    )
    yield (
        config.error_feedback and wire.kind is Kind.EXACT,
        f"--error-feedback has no effect: --wire {config.wire} loses nothing; type --wire float16",
    )
    yield (
        config.error_feedback and wire.keeps_residuals,
        f"--error-feedback: --wire {config.wire} keeps residuals in any case; drop the flag",
    )
    *others, last = [rule.name for rule in RULES.values() if rule.behind_top_k]
    yield (
        wire.takes_momentum and config.sync == "every-step" and not RULES[config.optimizer].behind_top_k,
        f"--optimizer {config.optimizer}: --wire {config.wire} takes over plain momentum alone; type --optimizer "
        f"{', '.join(others)} or {last}",
    )
    if wire.keeps_residuals or config.sync != "every-step":
        yield from _of_what_ranks_keep(
            config, f"--wire {config.wire}" if wire.keeps_residuals else f"--sync {config.sync}"
        )


def _of_clients(config: "Config") -> Iterator[tuple[bool, str]]:
    what = "--error-feedback" if config.error_feedback else f"--wire {config.wire}"
    yield (
        WIRES[config.wire].kind is Kind.COMPRESSOR or config.error_feedback,
        f"{what}: residuals would have to wait until a client is asked again; type --wire int8 without feedback",
    )
    yield from federated.refusals(config)


def _of_what_ranks_keep(config: "Config", who: str) -> Iterator[tuple[bool, str]]:
    """Yields contradictions to what `who` lets a rank keep back, or change alone."""
    yield (
        config.precision == "float16",
        f"--precision float16 changes its loss scale, which {who} cannot follow; type --precision bfloat16",
    )
    yield (
        config.non_finite == "skip",
        f"--non-finite skip cannot undo what {who} has kept on one rank; type --non-finite stop",
    )
