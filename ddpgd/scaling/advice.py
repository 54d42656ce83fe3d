"""Advice in sentences: the bottleneck of a step, and changes that would help, by the cost model."""

from collections.abc import Callable, Iterator
from dataclasses import replace

from ddpgd.comm.cluster import Cluster
from ddpgd.comm.wires import WIRES, Kind
from ddpgd.scaling.cost_model import Costs, Prediction, Work, predict

WANTED = 0.9
"""Efficiency from which on no advice is given."""

HIGHEST_ACCUMULATE = 64

Make = Callable[[int], Work]
"""World size -> the work of so many ranks."""


def advise(
    work_of: Make,
    costs: Costs,
    cluster: Cluster,
    world_sizes: list[int],
    codings: dict[str, Costs],
    largest_batch: int,
) -> list[str]:
    """Returns a sentence for each world size above 1. `codings`: the costs of other wires, by name."""
    return [_sentence(work_of(size), costs, cluster, size, codings, largest_batch) for size in world_sizes if size > 1]


def _sentence(
    work: Work, costs: Costs, cluster: Cluster, world_size: int, codings: dict[str, Costs], largest_batch: int
) -> str:
    now = predict(work, costs, cluster, world_size)
    beside = f", with {now.num_buckets} buckets beside the backward pass" if now.num_buckets > 1 else ""
    told = f"At {world_size:,} ranks {bound(now)}: {percent(now.efficiency)} efficient{beside}"
    if now.efficiency >= WANTED:
        return f"{told}; nothing needs to change."
    better = [
        (name, found)
        for name, other, other_costs in _changes(work, costs, world_size, codings, largest_batch)
        if (found := predict(other, other_costs, cluster, world_size).efficiency) > now.efficiency + 0.01
    ]
    # Of what is enough, the first of its kind costs the run least; otherwise what brings most.
    enough: dict[str, tuple[str, float]] = {}
    for one in better:
        if one[1] >= WANTED:
            enough.setdefault(one[0].split()[0], one)
    chosen = list(enough.values())[:2] or sorted(better, key=lambda one: -one[1])[:1]
    if not chosen:
        return f"{told}; nothing this program offers would help: fewer ranks, or a faster link."
    return f"{told}; {' or '.join(f'{name} would give {percent(found)}' for name, found in chosen)}."


def bound(now: Prediction) -> str:
    """Names the largest loss of a step."""
    losses = {
        "the start-up of messages costs most (latency-bound)": now.latency_s - max(0.0, now.hidden_s - now.transfer_s),
        "the link's rate costs most (bandwidth-bound)": max(0.0, now.transfer_s - now.hidden_s),
        "encoding costs most": now.coding_s,
        "waiting for the slowest rank costs most": now.wait_s,
        "the update, which every rank computes in full, costs most": now.repeated_s,
        "ranks have unequal numbers of micro-batches": now.compute_s - now.one_rank_s / now.world_size - now.repeated_s,
    }
    largest = max(losses, key=losses.__getitem__)
    return largest if losses[largest] > 0.02 * now.step_s else "computing is nearly all of a step"


def _changes(
    work: Work, costs: Costs, world_size: int, codings: dict[str, Costs], largest_batch: int
) -> Iterator[tuple[str, Work, Costs]]:
    """Lists the changes that a user could make, those that alter the result least first."""
    if work.reduce == "ordered" and work.wire == "float32":
        yield "--reduce fast", replace(work, reduce="fast", exchange="flat"), costs
    if work.reduce == "ordered" and work.exchange == "flat" and WIRES[work.wire].kind is not Kind.COMPRESSOR:
        yield "--exchange two-level", replace(work, exchange="two-level"), costs
    lossy = {name: own for name, own in codings.items() if name != work.wire and work.wire == "float32"}
    for name, own in lossy.items():
        yield f"--wire {name}", replace(work, wire=name, reduce="ordered", exchange="flat"), own
    times = 2
    while times <= HIGHEST_ACCUMULATE and work.global_batch * times <= largest_batch:
        larger = replace(work, global_batch=work.global_batch * times)
        accumulate = -(-larger.global_batch // (work.micro_batch * world_size))
        yield f"--accumulate {accumulate} (a global batch of {larger.global_batch:,})", larger, costs
        times *= 2
    if work.local_steps == 1:
        for steps in (8, 64):
            yield f"--sync local --local-steps {steps}", replace(work, local_steps=steps), costs


def percent(share: float) -> str:
    return f"{100 * share:.0f} %"
