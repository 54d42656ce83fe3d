"""Devices, streams, events and graphs of the fake CuPy. Work runs at once, or is written down while a stream captures."""

# ruff: noqa: ARG002  signatures are CuPy's

import ctypes
import itertools
import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any

from .launcher import Memory

COMPUTE_CAPABILITY = "90"
SHARED_BYTES_DEFAULT, SHARED_BYTES_LIMIT = 48 * 1024, 99 * 1024
MAX_THREADS, MAX_BLOCK, MAX_GRID = 1024, (1024, 1024, 64), (2**31 - 1, 65535, 65535)

settings = SimpleNamespace(num_devices=1, order="forward")
current = threading.local()
lock = threading.RLock()


class CUDARuntimeError(RuntimeError):
    """What a call to CUDA answers; `status` is its code."""

    def __init__(self, status: int, text: str) -> None:
        self.status = status
        super().__init__(text)


class CUDADriverError(CUDARuntimeError):
    """The same from the driver, which launches and loads."""


def order() -> str:
    return os.environ.get("DDPGD_EMULATOR_ORDER", settings.order)


def current_device() -> int:
    return getattr(current, "device", 0)


def set_device(device: int) -> None:
    if not 0 <= device < settings.num_devices:
        raise CUDARuntimeError(
            101, f"cudaErrorInvalidDevice: invalid device ordinal {device} of {settings.num_devices}"
        )
    current.device = device


class Stream:
    """A queue of work. `enqueue` is the only way in."""

    null: "Stream"
    by_ptr: "dict[int, Stream]" = {}  # noqa: RUF012  shared by all streams on purpose
    ptrs = itertools.count(1 << 20, 16)

    def __init__(self, null: bool = False, non_blocking: bool = False, ptds: bool = False, priority: int = 0) -> None:
        self.is_null = null or ptds
        self.non_blocking = non_blocking
        self.priority = priority
        self.ptr = 0 if self.is_null else next(self.ptrs)
        self.device_id = -1 if self.is_null else current_device()
        self.captured: list[Callable[[], None]] | None = None
        self.by_ptr[self.ptr] = self
        self.before: list[Stream] = []

    def __enter__(self) -> "Stream":
        self.before.append(get_current_stream())
        return self.use()

    def __exit__(self, *_: object) -> None:
        streams()[current_device()] = self.before.pop()

    def use(self) -> "Stream":
        if self.device_id not in {-1, current_device()}:
            raise RuntimeError(f"a stream of device {self.device_id} used on device {current_device()}")
        streams()[current_device()] = self
        return self

    def enqueue(self, work: Callable[[], None]) -> None:
        if self.device_id not in {-1, current_device()}:
            raise CUDARuntimeError(400, f"work for device {current_device()} on a stream of device {self.device_id}")
        if self.is_null and any(s.captured is not None and not s.non_blocking for s in self.by_ptr.values()):
            raise CUDARuntimeError(906, "cudaErrorStreamCaptureImplicit: the null stream used while another captures")
        if self.captured is not None:
            self.captured.append(work)
            return
        with lock:
            work()

    def refuse_capture(self, what: str) -> None:
        if self.captured is not None:
            text = f"operation not permitted when stream is capturing: {what}"
            raise CUDARuntimeError(900, f"cudaErrorStreamCaptureUnsupported: {text}")

    def synchronize(self) -> None:
        self.refuse_capture("synchronize")

    @property
    def done(self) -> bool:
        self.refuse_capture("query")
        return True

    def record(self, event: "Event | None" = None) -> "Event":
        event = event or Event()
        event.record(self)
        return event

    def wait_event(self, event: "Event") -> None:
        self.enqueue(lambda: None)

    def is_capturing(self) -> bool:
        return self.captured is not None

    def begin_capture(self, mode: int | None = None) -> None:
        if self.is_null:
            raise RuntimeError("cannot capture on the default (legacy) stream")
        if self.captured is not None:
            raise CUDARuntimeError(901, "cudaErrorIllegalState: the stream captures already")
        self.captured = []

    def end_capture(self) -> "Graph":
        if self.captured is None:
            raise CUDARuntimeError(901, "cudaErrorIllegalState: the stream does not capture")
        work, self.captured = self.captured, None
        return Graph(work)


Stream.null = Stream(null=True)


class Graph:
    """Captured work, run again as it was."""

    def __init__(self, work: list[Callable[[], None]]) -> None:
        self.work = work

    def launch(self, stream: Stream | None = None) -> None:
        (stream or get_current_stream()).enqueue(self.run)

    def run(self) -> None:
        for work in self.work:
            work()

    def upload(self, stream: Stream | None = None) -> None:
        (stream or get_current_stream()).refuse_capture("upload of a graph")


class Event:
    """A moment in a stream."""

    def __init__(self, block: bool = False, disable_timing: bool = False, interprocess: bool = False) -> None:
        self.disable_timing = disable_timing
        self.time_s: float | None = None

    def record(self, stream: Stream | None = None) -> None:
        (stream or get_current_stream()).enqueue(self.note)

    def note(self) -> None:
        self.time_s = time.perf_counter()

    def synchronize(self) -> None:
        get_current_stream().refuse_capture("synchronize")

    @property
    def done(self) -> bool:
        return True


def get_elapsed_time(start: Event, end: Event) -> float:
    if start.disable_timing or end.disable_timing or start.time_s is None or end.time_s is None:
        raise CUDARuntimeError(400, "cudaErrorInvalidResourceHandle: an event without a time")
    return 1000 * (end.time_s - start.time_s)


def streams() -> dict[int, Stream]:
    """This thread's current stream of each device."""
    if not hasattr(current, "streams"):
        current.streams = {}
    found: dict[int, Stream] = current.streams
    return found


def get_current_stream(device_id: int = -1) -> Stream:
    return streams().get(current_device() if device_id == -1 else device_id, Stream.null)


class Device:
    """One of the fake devices, all alike."""

    def __init__(self, device: int | None = None) -> None:
        self.id = current_device() if device is None else int(device)
        self.before: list[int] = []
        self.compute_capability = COMPUTE_CAPABILITY
        self.pci_bus_id = f"0000:{self.id:02X}:00.0"
        self.mem_info = (1 << 30, 1 << 30)
        self.attributes = {
            "MaxThreadsPerBlock": MAX_THREADS,
            "MaxSharedMemoryPerBlock": SHARED_BYTES_DEFAULT,
            "MaxSharedMemoryPerBlockOptin": SHARED_BYTES_LIMIT,
            "MultiProcessorCount": 4,
            "WarpSize": 32,
            "ComputeCapabilityMajor": int(COMPUTE_CAPABILITY[:-1]),
            "ComputeCapabilityMinor": int(COMPUTE_CAPABILITY[-1]),
        }

    def __int__(self) -> int:
        return self.id

    def __enter__(self) -> "Device":
        self.before.append(current_device())
        set_device(self.id)
        return self

    def __exit__(self, *_: object) -> None:
        set_device(self.before.pop())

    def use(self) -> "Device":
        set_device(self.id)
        return self

    def synchronize(self) -> None:
        device_synchronize()


def device_synchronize() -> None:
    if any(stream.captured is not None for stream in Stream.by_ptr.values()):
        raise CUDARuntimeError(900, "cudaErrorStreamCaptureUnsupported: a device synchronised while a stream captures")


def get_device_properties(device: int) -> dict[str, Any]:
    with on_device(device):
        return {
            "name": b"Emulated device",
            "major": int(COMPUTE_CAPABILITY[:-1]),
            "minor": int(COMPUTE_CAPABILITY[-1]),
            "totalGlobalMem": 1 << 30,
            "multiProcessorCount": 4,
            "maxThreadsPerBlock": MAX_THREADS,
            "sharedMemPerBlock": SHARED_BYTES_DEFAULT,
            "sharedMemPerBlockOptin": SHARED_BYTES_LIMIT,
            "warpSize": 32,
            "clockRate": 1_000_000,
            "l2CacheSize": 1 << 20,
        }


@contextmanager
def on_device(device: int) -> Iterator[None]:
    before = current_device()
    set_device(device)
    try:
        yield
    finally:
        set_device(before)


pinned: dict[int, int] = {}


def alloc_pinned_memory(nbytes: int) -> Any:
    """A buffer that, as CuPy's, is as long as the next power of two."""
    size = max(512, 1 << (nbytes - 1).bit_length())
    buffer = type("PinnedMemoryPointer", (ctypes.c_uint8 * size,), {"ptr": property(ctypes.addressof)})()
    pinned[buffer.ptr] = size
    return buffer


def is_pinned(address: int, nbytes: int) -> bool:
    return any(start <= address and address + nbytes <= start + size for start, size in list(pinned.items()))


def is_on_device(address: int, nbytes: int) -> bool:
    return any(m.ptr <= address and address + nbytes <= m.ptr + m.nbytes for m in list(Memory.live.values()))


HOST_TO_DEVICE, DEVICE_TO_HOST, DEVICE_TO_DEVICE, DEFAULT = 1, 2, 3, 4


def memcpy_async(to: int, source: int, nbytes: int, kind: int, stream: int) -> None:
    wanted = {HOST_TO_DEVICE: (True, False), DEVICE_TO_HOST: (False, True), DEVICE_TO_DEVICE: (True, True)}
    found = is_on_device(to, nbytes), is_on_device(source, nbytes)
    if kind != DEFAULT and found != wanted[kind]:
        raise CUDARuntimeError(1, f"cudaErrorInvalidValue: memcpy of kind {kind}, on device: to, from = {found}")
    queue = Stream.by_ptr[stream]
    for address, on_this_device in zip((to, source), found, strict=True):
        if not on_this_device and not is_pinned(address, nbytes):
            queue.refuse_capture("copy of pageable memory")
    queue.enqueue(lambda: ctypes.memmove(to, source, nbytes) and None)


def memset_async(to: int, value: int, nbytes: int, stream: int) -> None:
    if not is_on_device(to, nbytes):
        raise CUDARuntimeError(1, "cudaErrorInvalidValue: memset outside the arrays of the device")
    Stream.by_ptr[stream].enqueue(lambda: ctypes.memset(to, value, nbytes) and None)
