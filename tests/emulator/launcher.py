"""Loading a compiled unit, and one launch of one of its kernels; memory that ends where it may not be read."""

import bisect
import contextlib
import ctypes
import functools
import re
import subprocess
import threading
import weakref
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from . import compiler

ORDERS = {"forward": 0, "reverse": 1, "random": 2, "interleaved": 3}
one_launch = threading.RLock()


class KernelError(RuntimeError):
    """A kernel did what no kernel may: the kernel, the block, the thread, where, and what."""


class Launch(ctypes.Structure):
    """`emulator::Launch`."""

    _fields_ = (
        ("name", ctypes.c_char_p),
        ("call", ctypes.c_void_p),
        ("arguments", ctypes.c_void_p),
        ("grid", ctypes.c_uint * 3),
        ("block", ctypes.c_uint * 3),
        ("dynamic_bytes", ctypes.c_size_t),
        ("shared", ctypes.c_void_p),
        ("order", ctypes.c_int),
        ("seed", ctypes.c_uint64),
        ("cooperative", ctypes.c_int),
        ("flush_subnormals", ctypes.c_int),
        ("message", ctypes.c_char * 1024),
        ("fault_address", ctypes.c_size_t),
        ("program_counter", ctypes.c_size_t),
    )


class KernelRow(ctypes.Structure):
    """`emulator::Kernel`."""

    _fields_ = (
        ("name", ctypes.c_char_p),
        ("call", ctypes.c_void_p),
        ("types", ctypes.c_char_p),
        ("max_threads", ctypes.c_int),
    )


class Memory:
    """Bytes of the device. They end at an unreadable page, start all ones, and are unmapped with the object."""

    live: ClassVar["weakref.WeakValueDictionary[int, Memory]"] = weakref.WeakValueDictionary()

    def __init__(self, nbytes: int, device: int = 0) -> None:
        scheduler = compiler.scheduler()
        scheduler.emulator_allocate.restype = ctypes.c_void_p
        address = scheduler.emulator_allocate(ctypes.c_size_t(nbytes))
        if address is None:
            raise MemoryError(f"{nbytes} bytes")
        self.ptr: int = address
        self.nbytes = nbytes
        self.device = device
        self.live[address] = self
        free = scheduler.emulator_free
        weakref.finalize(self, free, ctypes.c_void_p(address), ctypes.c_size_t(nbytes)).atexit = False

    def slack_is_whole(self) -> bool:
        slack = -self.nbytes % 16
        return ctypes.string_at(self.ptr + self.nbytes, slack) == b"\xff" * slack

    @classmethod
    def near(cls, address: int) -> str:
        """In words, which array an address belongs to or follows."""
        starts = sorted(cls.live)
        at = bisect.bisect_right(starts, address) - 1
        memory = cls.live.get(starts[at]) if at >= 0 else None
        if memory is not None and address < memory.ptr + memory.nbytes + 65536:
            return f"{address - memory.ptr} bytes into an array of {memory.nbytes} bytes"
        if at + 1 < len(starts) and starts[at + 1] - address < 65536:
            return f"{starts[at + 1] - address} bytes before an array"
        return f"address 0x{address:x}"


@dataclass(frozen=True)
class Kernel:
    """One kernel of a loaded unit: what it is called with, and the call."""

    name: str
    types: tuple[str, ...]
    max_threads: int
    call: int
    unit: "Unit"

    def launch(
        self,
        grid: tuple[int, int, int],
        block: tuple[int, int, int],
        arguments: Sequence[ctypes._SimpleCData],  # type: ignore[type-arg]
        dynamic_bytes: int = 0,
        order: str = "forward",
        cooperative: bool = False,
    ) -> None:
        """Runs every thread to its end, or raises a KernelError. `arguments` match `types`; the caller has checked."""
        pointers = (ctypes.c_void_p * max(1, len(arguments)))(*(ctypes.addressof(value) for value in arguments))
        kind, _, seed = order.partition(":")
        if kind not in ORDERS:
            raise ValueError(f"order {order!r}; forward, reverse, random:SEED and interleaved:SEED are there")
        launch = Launch(
            name=self.name.encode(),
            call=self.call,
            arguments=ctypes.addressof(pointers),
            grid=grid,
            block=block,
            dynamic_bytes=dynamic_bytes,
            shared=self.unit.shared,
            order=ORDERS[kind],
            seed=int(seed or 0),
            cooperative=cooperative,
            flush_subnormals=self.unit.flush_subnormals,
        )
        with one_launch:
            failed = compiler.scheduler().emulator_launch(ctypes.byref(launch))
        if failed:
            message = launch.message.decode(errors="replace")
            if launch.program_counter:
                message += self.unit.line_of(launch.program_counter)
            if launch.fault_address:
                message += f"; {Memory.near(launch.fault_address)}"
            raise KernelError(message)


class Unit:
    """A compiled unit in this process."""

    def __init__(self, path: Path, flush_subnormals: bool = False) -> None:
        compiler.scheduler()
        self.flush_subnormals = flush_subnormals
        self.path = path
        self.library = ctypes.CDLL(str(path))
        self.shared = ctypes.addressof(ctypes.c_char.in_dll(self.library, "emulator_shared"))
        self.kernels: dict[str, Kernel] = {}
        row = ctypes.pointer(KernelRow.in_dll(self.library, "emulator_kernels"))
        index = 0
        while row[index].name:
            found = row[index]
            name, types = found.name.decode(), tuple(found.types.decode().split())
            self.kernels[name] = Kernel(name, types, found.max_threads, found.call, self)
            index += 1

    def line_of(self, address: int) -> str:
        """` at FILE:LINE` for an instruction, where the tools to say so are there."""
        with contextlib.suppress(OSError, StopIteration):
            maps = Path("/proc/self/maps").read_text().splitlines()
            base = next(int(line.split("-")[0], 16) for line in maps if line.endswith(str(self.path)))
            query = ["addr2line", "-e", str(self.path), "-i", hex(address - base)]
            lines = subprocess.run(query, capture_output=True, text=True, check=False).stdout.splitlines()
            named = [Path(line.split(" ")[0]).name for line in lines if not re.search(r"\?|/engine/", line)]
            return f" at {named[0]}" if named else ""
        return ""


@functools.cache
def load(text: str, options: tuple[str, ...] = ()) -> Unit:
    """The unit of `text`; one per text and options in a process."""
    first = re.search(r'extern\s*"C"[^;{]*?\bvoid\b[^;{]*?\b(?!__launch_bounds__)(\w+)\s*\(', text)
    path = compiler.compile_unit(text, options, f"{first[1] if first else 'unit'}.cu")
    return Unit(path, flush_subnormals="-ftz=true" in options)
