"""Devices of the fake CuPy, what they can do, and copies by address."""

import ctypes
import os
import weakref
from typing import Any

from .fake_stream import CUDARuntimeError, Stream, current_device, set_device, settings
from .launcher import Memory

COMPUTE_CAPABILITY = "90"
SHARED_BYTES_DEFAULT, SHARED_BYTES_LIMIT = 48 * 1024, 99 * 1024
THREADS_AT_ONCE, BLOCKS_AT_ONCE = 2048, 32
SHARED_BYTES_AT_ONCE, SHARED_BYTES_RESERVED = 100 * 1024, 1024
"""On a multiprocessor; so many bytes more than a block asks for."""
MAX_THREADS, MAX_BLOCK, MAX_GRID = 1024, (1024, 1024, 64), (2**31 - 1, 65535, 65535)


def num_multiprocessors() -> int:
    """The environment's DDPGD_EMULATOR_MULTIPROCESSORS, or what `install` was given."""
    return int(os.environ.get("DDPGD_EMULATOR_MULTIPROCESSORS", settings.num_multiprocessors))


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
            "MultiProcessorCount": num_multiprocessors(),
            "CooperativeLaunch": 1,
            "WarpSize": 32,
            "ComputeCapabilityMajor": int(COMPUTE_CAPABILITY[:-1]),
            "ComputeCapabilityMinor": int(COMPUTE_CAPABILITY[-1]),
        }

    def __int__(self) -> int:
        return self.id

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Device) and self.id == other.id

    def __hash__(self) -> int:
        return hash(self.id)

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
    for stream in list(Stream.by_ptr.values()):
        if stream.device_id in {-1, current_device()}:
            stream.synchronize()


def get_device_properties(device: int) -> dict[str, Any]:
    if not 0 <= device < settings.num_devices:
        raise CUDARuntimeError(101, "cudaErrorInvalidDevice: invalid device ordinal")
    return {
        "name": b"Emulated device",
        "uuid": bytes(range(1, 17)) + os.urandom(3).replace(b"\0", b"\1"),  # and what lies behind, up to a zero
        "major": int(COMPUTE_CAPABILITY[:-1]),
        "minor": int(COMPUTE_CAPABILITY[-1]),
        "totalGlobalMem": 1 << 30,
        "multiProcessorCount": num_multiprocessors(),
        "maxThreadsPerBlock": MAX_THREADS,
        "sharedMemPerBlock": SHARED_BYTES_DEFAULT,
        "sharedMemPerBlockOptin": SHARED_BYTES_LIMIT,
        "warpSize": 32,
        "clockRate": 1_000_000,
        "l2CacheSize": 1 << 20,
    }


pinned: "weakref.WeakValueDictionary[int, Any]" = weakref.WeakValueDictionary()


def alloc_pinned_memory(nbytes: int) -> Any:
    """A buffer that, as CuPy's, is as long as the next power of two."""
    size = max(512, 1 << (nbytes - 1).bit_length())
    buffer = type("PinnedMemoryPointer", (ctypes.c_uint8 * size,), {"ptr": property(ctypes.addressof)})()
    pinned[buffer.ptr] = buffer
    return buffer


def is_pinned(address: int, nbytes: int) -> bool:
    return any(b.ptr <= address and address + nbytes <= b.ptr + len(b) for b in _alive(pinned))


def is_on_device(address: int, nbytes: int) -> bool:
    return any(m.ptr <= address and address + nbytes <= m.ptr + m.nbytes for m in _alive(Memory.live))


def _alive(held: "weakref.WeakValueDictionary[int, Any]") -> list[Any]:
    """The values that are still there; ranks in other threads may add some meanwhile, which `values` cannot bear."""
    return [value for reference in held.valuerefs() if (value := reference()) is not None]


HOST_TO_DEVICE, DEVICE_TO_HOST, DEVICE_TO_DEVICE, DEFAULT = 1, 2, 3, 4


def memcpy_async(to: int, source: int, nbytes: int, kind: int, stream: int) -> None:
    """As in CUDA, memory of the host that is not pinned is read at once, and written before the call is over."""
    wanted = {HOST_TO_DEVICE: (True, False), DEVICE_TO_HOST: (False, True), DEVICE_TO_DEVICE: (True, True)}
    found = is_on_device(to, nbytes), is_on_device(source, nbytes)
    if kind != DEFAULT and found != wanted[kind]:
        raise CUDARuntimeError(1, f"cudaErrorInvalidValue: memcpy of kind {kind}, on device: to, from = {found}")
    queue = Stream.by_ptr[stream]
    to_pageable, from_pageable = (
        not on_device and not is_pinned(address, nbytes) for address, on_device in zip((to, source), found, strict=True)
    )
    if to_pageable or from_pageable:
        queue.refuse_capture("copy of pageable memory")
    staged = ctypes.string_at(source, nbytes) if from_pageable else source

    def copy() -> None:
        if found != (is_on_device(to, nbytes), is_on_device(source, nbytes)):
            raise CUDARuntimeError(700, "cudaErrorIllegalAddress: memcpy of an array that was freed")
        ctypes.memmove(to, staged, nbytes)

    queue.enqueue(copy)
    if to_pageable:
        queue.drain()


def memset_async(to: int, value: int, nbytes: int, stream: int) -> None:
    def fill() -> None:
        if not is_on_device(to, nbytes):
            raise CUDARuntimeError(1, "cudaErrorInvalidValue: memset outside the arrays of the device")
        ctypes.memset(to, value, nbytes)

    Stream.by_ptr[stream].enqueue(fill)
