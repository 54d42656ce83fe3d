"""Checks of the ranks that were started and of their links; each finding says what to type."""

import statistics
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Sequence
from itertools import combinations
from typing import NamedTuple

from ddpgd.comm.grid import Shape
from ddpgd.config.units import bytes_text, plural, time_text
from ddpgd.doctor.environment import Environment
from ddpgd.doctor.links import Pair
from ddpgd.doctor.must_match import ALIKE

SLOW = 0.5
"""A link whose rate is below this share of the median of its kind is named, as is one with twice its latency."""

NOTABLE_LATENCY_S = 50e-6


class Finding(NamedTuple):
    """A finding, and what to type. `is_fatal`: a run would fail, or compute something else than was meant."""

    text: str
    remedy: str
    is_fatal: bool = False


Everybody = Sequence[Environment]


def examine(
    everybody: Everybody, refusal: str, pairs: Sequence[Pair], tensor: int = 1, pipeline: int = 1
) -> list[Finding]:
    """All findings, those that are fatal first. `refusal`: why the ranks could not join; empty: they did.

    `tensor`, `pipeline`: ranks that share layers, and stages of them.
    """
    checks: list[Callable[[Everybody], Iterator[Finding]]] = [
        _machines,
        _data,
        _gpus_shared,
        _cuda_versions,
        _differences,
        _threads,
    ]
    found = list(_alone(everybody, refusal))
    for check in checks:
        found += check(everybody)
    found += _grid(everybody, tensor, pipeline)
    found += _links(everybody, pairs)
    return sorted(found, key=lambda finding: not finding.is_fatal)


def _alone(everybody: Everybody, refusal: str) -> Iterator[Finding]:
    """Processes that were started together, and do not know of each other."""
    own = everybody[0]
    if refusal:
        library = f" (mpi4py loads {own.library})" if own.library else ""
        yield Finding(
            f"{refusal}{library}",
            "the mpirun that belongs to that library, or MPI4PY_LIBMPI=/path/to/the/other/libmpi.so",
            is_fatal=True,
        )
    elif own.parent and len(everybody) == 1 and not own.launched.launcher:
        yield Finding(
            f"every process believes to be rank 0 of 1: {own.parent} started this one, and told it nothing of others",
            "mpirun -n 2 ddpgd doctor, with the mpirun of your MPI library; under Slurm, mpirun inside the allocation",
            is_fatal=True,
        )


def _machines(everybody: Everybody) -> Iterator[Finding]:
    """Several were given, and one is used."""
    own, hosts = everybody[0], {facts.host for facts in everybody}
    if len(hosts) == 1 and own.num_allocated > 1 and len(everybody) >= own.num_allocated:
        yield Finding(
            f"Slurm gave {own.num_allocated} machines, and all {len(everybody)} ranks are on {own.host}",
            "mpirun --map-by slot:OVERSUBSCRIBE --bind-to none, without --oversubscribe; or launch/mpirun.sh",
        )


def _grid(everybody: Everybody, tensor: int, pipeline: int) -> Iterator[Finding]:
    """The ranks do not form it; ranks that share layers are on several machines."""
    data, rest = divmod(len(everybody), tensor * pipeline)
    if rest or not data:
        size = tensor * pipeline
        yield Finding(
            f"{plural(len(everybody), 'rank')} cannot form groups of {size}, --tensor {tensor} x --pipeline {pipeline}",
            f"mpirun -n {max(1, data) * size}, or another --tensor or --pipeline",
            is_fatal=True,
        )
    elif apart := Shape(data, pipeline, tensor).apart([facts.host for facts in everybody]):
        yield Finding(
            f"ranks {_and(apart)}, which would share layers, are on several machines",
            "mpirun --map-by slot, which fills a machine before the next one, or a smaller --tensor",
        )


def _data(everybody: Everybody) -> Iterator[Finding]:
    """No rank has any; where some have, they differ."""
    if all(facts.data_absence for facts in everybody):
        remedy = "--data DIR with its four files, ddpgd data to fetch them, or --data synthetic"
        yield Finding(everybody[0].data_absence, remedy, is_fatal=True)


def _gpus_shared(everybody: Everybody) -> Iterator[Finding]:
    owners = defaultdict(list)
    for rank, facts in enumerate(everybody):
        if facts.gpu:
            owners[facts.host, facts.gpu.identity].append(rank)
    for (host, _), ranks in owners.items():
        if len(ranks) > 1:
            name = everybody[ranks[0]].gpu
            yield Finding(
                f"ranks {_and(ranks)} share one {name.name if name else 'GPU'} of {host}",
                "as many ranks on each machine as it has GPUs, or --share-gpu to mean it",
                is_fatal=True,
            )
    with_gpu = [rank for rank, facts in enumerate(everybody) if facts.gpu]
    without = [rank for rank, facts in enumerate(everybody) if not facts.gpu]
    if with_gpu and without:
        yield Finding(
            f"ranks {_and(with_gpu)} have a GPU, and {_and(without)} none ({everybody[without[0]].gpu_absence}): "
            "all would compute on CPUs",
            "nvidia-smi on the machines without",
        )


def _cuda_versions(everybody: Everybody) -> Iterator[Finding]:
    for rank, facts in enumerate(everybody):
        is_old = facts.cuda is not None and facts.cuda.driver // 1000 < facts.cuda.runtime // 1000
        if facts.cuda and is_old:
            driver, runtime = (f"{number // 1000}.{number % 1000 // 10}" for number in facts.cuda)
            yield Finding(
                f"rank {rank} on {facts.host}: the driver knows CUDA {driver}, and CuPy brings {runtime}",
                f"pip install 'ddpgd[cuda{facts.cuda.driver // 1000}]', or a newer driver",
                is_fatal=True,
            )
        names = [name for name in facts.packages if name.startswith("cupy-cuda")]
        if len(names) > 1:
            yield Finding(
                f"rank {rank} on {facts.host}: {_and(names)} are both installed",
                f"pip uninstall {_unfit(names, facts)}",
                is_fatal=True,
            )
        is_told = is_old or len(names) > 1
        if not is_told and any(words in facts.gpu_absence for words in ("cannot be loaded", "finds no GPU:")):
            yield Finding(
                f"rank {rank} on {facts.host}: {facts.gpu_absence}", "nvidia-smi, and the CuPy of that driver"
            )


def _unfit(names: Sequence[str], facts: Environment) -> str:
    """Returns, of several CuPy packages, the first that the driver is not for."""
    known = facts.cuda.driver // 1000 if facts.cuda else 0
    return next((name for name in names if f"cuda{known}" not in name), names[0])


def _differences(everybody: Everybody) -> Iterator[Finding]:
    """From what most ranks have."""
    for name, of, remedy, is_fatal in ALIKE:
        values = [of(facts) for facts in everybody]
        usual = Counter(map(str, values)).most_common(1)[0][0]
        others = [rank for rank, value in enumerate(values) if str(value) != usual]
        if others:
            first = everybody[others[0]]
            yield Finding(
                f"{_ranks_have(others)} {name} than the others (first on {first.host}): {_shown(values[others[0]])}, "
                f"not {usual}",
                remedy,
                is_fatal,
            )


def _threads(everybody: Everybody) -> Iterator[Finding]:
    """More threads of the BLAS library than cores, on a machine."""
    for host in dict.fromkeys(facts.host for facts in everybody):
        theirs = [facts for facts in everybody if facts.host == host]
        cores = set().union(*(facts.cores for facts in theirs))
        wanted = sum(facts.blas_threads for facts in theirs)
        if cores and wanted > len(cores):
            yield Finding(
                f"{host}: {len(theirs)} ranks with {plural(theirs[0].blas_threads, 'BLAS thread')} each, on "
                f"{plural(len(cores), 'core')}",
                "export OMP_NUM_THREADS=1 (ddpgd train computes with one thread a rank in any case)",
            )
        if cores and len(theirs) > len(cores):
            yield Finding(
                f"{host}: {len(theirs)} ranks on {plural(len(cores), 'core')} wait for each other",
                f"at most -n {len(cores)} there",
            )
        for first, second in combinations(theirs, 2):
            if len(first.cores) == 1 and first.cores == second.cores and len(cores) < len(theirs):
                yield Finding(f"{host}: ranks are bound to the same core {first.cores[0]}", "mpirun --bind-to none")
                break


def _links(everybody: Everybody, pairs: Sequence[Pair]) -> Iterator[Finding]:
    """The pairs that are much slower than others of their kind: of one machine, or between two."""
    for title, own in kinds(everybody, pairs).items():
        if len(own) < 2:
            continue
        usual_rate = statistics.median(pair.bytes_per_s for pair in own)
        usual_s = statistics.median(pair.latency_s for pair in own)
        for pair in own:
            ends = f"{_end(everybody, pair.first)} and {_end(everybody, pair.second)}"
            if pair.bytes_per_s < SLOW * usual_rate:
                yield Finding(
                    f"slow link between {ends}: {bytes_text(pair.bytes_per_s)}/s, where others {title} have "
                    f"{bytes_text(usual_rate)}/s",
                    f"ethtool and the cable of {everybody[pair.second].host}, or leave that machine out",
                )
            elif pair.latency_s > max(usual_s / SLOW, NOTABLE_LATENCY_S):
                yield Finding(
                    f"long latency between {ends}: {time_text(pair.latency_s)}, where others {title} have {time_text(usual_s)}",
                    f"ping {everybody[pair.second].host}; another switch, or a busy machine?",
                )


def kinds(everybody: Everybody, pairs: Sequence[Pair]) -> dict[str, list[Pair]]:
    """Pairs of ranks of one machine, and of two."""
    found = defaultdict(list)
    for pair in pairs:
        is_one = everybody[pair.first].host == everybody[pair.second].host
        found["of one machine" if is_one else "between machines"].append(pair)
    return dict(found)


def _end(everybody: Everybody, rank: int) -> str:
    return f"rank {rank} ({everybody[rank].host})"


def _ranks_have(ranks: Sequence[int]) -> str:
    return f"ranks {_and(ranks)} have" if len(ranks) > 1 else f"rank {ranks[0]} has"


def _and(items: Sequence[object]) -> str:
    texts = [str(item) for item in items]
    return texts[0] if len(texts) == 1 else f"{', '.join(texts[:-1])} and {texts[-1]}"


def _shown(value: object) -> str:
    return str(value) or "nothing"
