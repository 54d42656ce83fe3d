"""Agreement in set-up: what one rank finds wrong, all ranks learn, so that nobody waits for it."""

from collections.abc import Callable
from typing import Any, cast

from ddpgd.comm.launcher import node
from ddpgd.comm.transport import T, Transport
from ddpgd.errors import DdpgdError


def on_all_ranks(transport: Transport, work: Callable[[], T]) -> T:
    """Calls work() on every rank and returns its result; where any rank raised a `DdpgdError`, all raise the first of them."""
    value, error = _attempt(work)
    outcomes = transport.all_gather_objects((error, node()))
    failures = [(rank, error, host) for rank, (error, host) in enumerate(outcomes) if error is not None]
    if failures:
        rank, first, host = failures[0]
        everywhere = len(failures) == transport.world_size
        raise first if everywhere else type(first)(f"{first} (on rank {rank}, host {host})")
    return cast(T, value)


def on_root(transport: Transport, work: Callable[[], T]) -> T:
    """Calls work() on rank 0 alone; all ranks return its result, or raise the `DdpgdError` that it raised."""
    outcome: tuple[Any, DdpgdError | None] = _attempt(work) if transport.rank == 0 else (None, None)
    value, error = transport.all_gather_objects(outcome)[0]
    if error is not None:
        raise error
    return cast(T, value)


def first_failure(transport: Transport, own: str) -> str:
    """Returns the first text that is not empty of any rank, with its rank and host unless all ranks tell the same; or ""."""
    told = transport.all_gather_objects((own, node()))
    for rank, (text, host) in enumerate(told):
        if text:
            return text if all(other == text for other, _ in told) else f"{text} (on rank {rank}, host {host})"
    return ""


def _attempt(work: Callable[[], Any]) -> tuple[Any, DdpgdError | None]:
    try:
        return work(), None
    except DdpgdError as error:
        return None, error
