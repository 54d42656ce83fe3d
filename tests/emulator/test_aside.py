"""Two streams in the emulator: a fork or a join that is missing, or comes too early, is found, in a graph and without."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import pytest

from . import fake_cupy
from .planting import Device

LENGTH = 33


@contextmanager
def no_fork(launch: Any) -> Iterator[None]:
    launch._take(launch._second)
    yield
    launch._take(launch._first)


def after(device: Device, captured: bool, late_write: bool = False) -> list[Any]:
    """The results of two runs: x, doubled on the first stream, tripled on the second; `late_write`: doubled after the fork."""
    x, double, triple, out = (device.put(np.full(LENGTH, np.nan, np.float32)) for _ in range(4))

    def add(*arrays: Any) -> None:
        device.launch("reduce.cu", "add", (1,), (256,), *arrays, np.int64(LENGTH))

    def work() -> None:
        if not late_write:
            add(x, x, double)
        with device.launch.aside():
            add(double, x, triple)
        if late_write:
            add(x, x, double)
        device.launch.join()
        add(triple, x, out)

    run = device.launch.capture(work) if captured else work
    found = []
    for value in (1, 5):
        x.set(np.full(LENGTH, value, np.float32), stream=device.launch.stream)
        run()
        found.append(out.get(stream=device.launch.stream)[0] / value)
    return found


@pytest.mark.parametrize("lazy", [False, True])
@pytest.mark.parametrize("captured", [False, True])
def test_the_second_stream_waits_and_is_waited_for(lazy: bool, captured: bool) -> None:
    with fake_cupy.install(lazy=lazy) as cupy:
        assert after(Device(cupy), captured) == [4, 4]


@pytest.mark.parametrize("lazy", [False, True])
def test_a_graph_whose_second_stream_is_not_joined_is_refused(lazy: bool) -> None:
    with fake_cupy.install(lazy=lazy) as cupy:
        device = Device(cupy)
        device.launch.join = lambda: None
        with pytest.raises(cupy.cuda.runtime.CUDARuntimeError, match="Unjoined"):
            after(device, captured=True)


@pytest.mark.parametrize("lazy", [False, True])
def test_a_graph_whose_second_stream_does_not_wait_is_refused(lazy: bool) -> None:
    with fake_cupy.install(lazy=lazy) as cupy:
        device = Device(cupy)
        device.launch.aside = lambda: no_fork(device.launch)
        with pytest.raises(cupy.cuda.runtime.CUDARuntimeError, match="Isolation"):
            after(device, captured=True)


def test_a_join_that_is_missing_changes_results() -> None:
    with fake_cupy.install(lazy=True) as cupy:
        device = Device(cupy)
        device.launch.join = lambda: None
        assert after(device, captured=False) != [4, 4]


def test_what_is_read_beside_its_writer_is_read_too_early() -> None:
    """A graph that does not run lazily runs other streams as early as it may."""
    with fake_cupy.install() as cupy:
        assert after(Device(cupy), captured=True, late_write=True) != [4, 4]


def test_events_of_captures_and_of_streams_do_not_mix() -> None:
    with fake_cupy.install() as cupy:
        first, second = (cupy.cuda.Stream(non_blocking=True) for _ in range(2))
        outside = second.record()
        first.begin_capture()
        with pytest.raises(cupy.cuda.runtime.CUDARuntimeError, match="Isolation"):
            first.wait_event(outside)
        inside = first.record()
        second.wait_event(inside)
        with pytest.raises(cupy.cuda.runtime.CUDARuntimeError, match="Unmatched"):
            second.end_capture()
        first.wait_event(second.record())
        first.end_capture()
        with pytest.raises(cupy.cuda.runtime.CUDARuntimeError, match="ended"):
            second.wait_event(inside)
