"""A `cupy` for a machine without a GPU: `install()` puts it where `import cupy` finds it."""

import sys
from types import ModuleType
from typing import Any

import numpy as np

from . import fake_array, fake_device, fake_nccl, fake_raw, fake_stream

DTYPES = ["bool_", "int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64"]
DTYPES += ["float16", "float32", "float64", "dtype", "newaxis"]
ARRAYS = ["ndarray", "empty", "zeros", "array", "asarray", "asnumpy", "ascontiguousarray", "copyto"]


def module(name: str, **contents: Any) -> ModuleType:
    made = ModuleType(name)
    made.__dict__.update(contents)
    return made


def nccl_module(available: bool) -> ModuleType:
    """`cupy.cuda.nccl`, which without the library has `available` alone."""
    names = {name: value for name, value in vars(fake_nccl).items() if name[0] != "_"}
    return module("cupy.cuda.nccl", **(names if available else {"available": False}))


def build(nccl: bool) -> dict[str, ModuleType]:
    """The modules by name."""
    runtime = module(
        "cupy.cuda.runtime",
        CUDARuntimeError=fake_stream.CUDARuntimeError,
        getDeviceCount=lambda: fake_stream.settings.num_devices,
        getDevice=fake_stream.current_device,
        setDevice=fake_stream.set_device,
        getDeviceProperties=fake_device.get_device_properties,
        deviceSynchronize=fake_device.device_synchronize,
        streamSynchronize=lambda ptr: fake_stream.Stream.by_ptr[ptr].synchronize(),
        memcpyAsync=fake_device.memcpy_async,
        memsetAsync=fake_device.memset_async,
        memcpyHostToDevice=fake_device.HOST_TO_DEVICE,
        memcpyDeviceToHost=fake_device.DEVICE_TO_HOST,
        memcpyDeviceToDevice=fake_device.DEVICE_TO_DEVICE,
        memcpyDefault=fake_device.DEFAULT,
        driverGetVersion=lambda: 13000,
        runtimeGetVersion=lambda: 13000,
        is_hip=False,
    )
    driver = module(
        "cupy.cuda.driver",
        CUDADriverError=fake_stream.CUDADriverError,
        get_build_version=lambda: 13000,
        occupancyMaxActiveBlocksPerMultiprocessor=fake_raw.max_active_blocks,
    )
    compiler = module("cupy.cuda.compiler", CompileException=fake_raw.CompileException)
    stream = module(
        "cupy.cuda.stream",
        Stream=fake_stream.Stream,
        Event=fake_stream.Event,
        get_current_stream=fake_stream.get_current_stream,
        get_elapsed_time=fake_stream.get_elapsed_time,
    )
    cuda = module(
        "cupy.cuda",
        **{name: value for name, value in vars(stream).items() if not name.startswith("_")},
        Graph=fake_stream.Graph,
        Device=fake_device.Device,
        alloc_pinned_memory=fake_device.alloc_pinned_memory,
        set_allocator=lambda _allocator: None,
        is_available=lambda: fake_stream.settings.num_devices > 0,
        get_local_runtime_version=lambda: 13000,
        runtime=runtime,
        driver=driver,
        compiler=compiler,
        stream=stream,
        nccl=nccl_module(nccl),
    )
    cupy = module(
        "cupy",
        __version__="14.2.0",
        cuda=cuda,
        RawModule=fake_raw.RawModule,
        **{name: getattr(fake_array, name) for name in ARRAYS},
        **{name: getattr(np, name) for name in DTYPES},
    )
    for package in (cupy, cuda):
        package.__path__ = []
    return {made.__name__: made for made in (cupy, cuda, runtime, driver, compiler, stream, cuda.nccl)}


class Installed:
    """Makes `import cupy` find the fake, until `uninstall` or the end of a `with`."""

    def __init__(self, nccl: bool) -> None:
        made = build(nccl)
        self.cupy = made["cupy"]
        self.hidden = {n: m for n, m in sys.modules.items() if n == "cupy" or n.startswith("cupy.")}
        self.uninstall_only()
        sys.modules.update(made)

    @staticmethod
    def uninstall_only() -> None:
        for name in [name for name in sys.modules if name == "cupy" or name.startswith("cupy.")]:
            del sys.modules[name]

    def uninstall(self) -> None:
        self.uninstall_only()
        sys.modules.update(self.hidden)

    def __enter__(self) -> ModuleType:
        return self.cupy

    def __exit__(self, *_: object) -> None:
        self.uninstall()


def install(
    num_devices: int = 1, order: str = "forward", lazy: bool = False, num_multiprocessors: int = 4, nccl: bool = True
) -> Installed:
    """Puts the fake where `import cupy` finds it.

    Args:
        num_devices: Number of GPUs, all alike.
        order: Order of threads and blocks: forward, reverse, random:SEED or interleaved:SEED. The environment's
            DDPGD_EMULATOR_ORDER overrides it.
        lazy: Run the work of a stream only when something waits for it, so that a host that forgets to wait reads what
            was there before.
        num_multiprocessors: Of each GPU; a cooperative launch may have as many blocks as fit on them. The environment's
            DDPGD_EMULATOR_MULTIPROCESSORS overrides it.
        nccl: Provide NCCL. Without, `cupy.cuda.nccl` is there and says that the library is not.
    """
    fake_stream.reset(num_devices, order, lazy, num_multiprocessors)
    return Installed(nccl)
