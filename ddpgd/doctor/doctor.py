"""`ddpgd doctor`: asks all ranks, and reports what was found."""

from collections import Counter
from collections.abc import Sequence

from ddpgd.comm.agreement import on_root
from ddpgd.comm.grid import Shape
from ddpgd.comm.launcher import Launch
from ddpgd.comm.transport import Transport
from ddpgd.comm.transports.mpi_probe import why_not_cuda_aware
from ddpgd.config.units import bytes_text, plural, time_text
from ddpgd.doctor.checks import Everybody, Finding, examine, kinds
from ddpgd.doctor.environment import collect
from ddpgd.doctor.links import Pair, measure
from ddpgd.run.device import mpi_library


def run(
    world: Transport,
    launched: Launch,
    refusal: str,
    config: str | None,
    data: str | None,
    shared: tuple[int, int] = (1, 1),
) -> tuple[list[str], bool]:
    """Returns the lines to print, and whether a run would fail; all ranks of `world` call it.

    `shared`: tensor and pipeline parallel ranks of a copy of the params.
    """
    own = collect(launched, mpi_library() if refusal or world.world_size > 1 else "", config, data)
    everybody = world.all_gather_objects(own)
    pairs = measure(world)
    notes = on_root(world, lambda: _probed(everybody))
    found = examine(everybody, refusal, pairs, *shared)
    tensor, pipeline = shared
    num_replicas, rest = divmod(world.world_size, tensor * pipeline)
    if tensor * pipeline > 1 and not rest:
        notes = [
            f"grid: {Shape(num_replicas, pipeline, tensor)}; neighbouring ranks share layers, then follow as stages",
            *notes,
        ]
    return report(everybody, found, pairs, notes), any(finding.is_fatal for finding in found)


def _probed(everybody: Everybody) -> list[str]:
    """Checks that need a trial."""
    if not everybody[0].gpu or not everybody[0].library:
        return []
    if why := why_not_cuda_aware():
        return [f"MPI does not move arrays of GPUs here ({why}): --transport nccl or mpi-host, of which auto takes one"]
    return ["MPI moves arrays of GPUs here: --transport mpi-cuda will do"]


def report(everybody: Everybody, found: Sequence[Finding], pairs: Sequence[Pair], notes: Sequence[str]) -> list[str]:
    """Returns the lines that `ddpgd doctor` prints."""
    hosts = ", ".join(f"{host} ({count})" for host, count in Counter(facts.host for facts in everybody).items())
    own = everybody[0]
    lines = [
        f"{plural(len(everybody), 'rank')}, on {hosts}; "
        f"{own.launched.launcher or 'no launcher'}; MPI library: {own.library or 'none'}",
        f"rank 0: {own.gpu.name if own.gpu else f'no GPU ({own.gpu_absence})'}; {own.cpu}, {plural(len(own.cores), 'core')}; "
        f"{own.blas}, {plural(own.blas_threads, 'thread')}; data: {own.data or own.data_absence}",
        *notes,
    ]
    for title, theirs in kinds(everybody, pairs).items():
        rates = [pair.bytes_per_s for pair in theirs]
        latencies = [pair.latency_s for pair in theirs]
        lines.append(
            f"links {title}: {time_text(min(latencies))} to {time_text(max(latencies))}, {bytes_text(min(rates))}/s to "
            f"{bytes_text(max(rates))}/s"
        )
    for finding in found:
        lines += ["", f"{'ERROR' if finding.is_fatal else 'WARNING'}: {finding.text}", f"  type: {finding.remedy}"]
    return [*lines, "", plural(len(found), "finding") if found else "nothing found"]
