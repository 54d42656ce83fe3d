"""The fake CuPy refuses what CUDA and CuPy refuse, and in its lazy form shows a host that does not wait."""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from emulator import fake_cupy, fake_stream

TEXT = r"""
extern "C" __global__ void __launch_bounds__(128) block_sum(const float* x, float* out, int n) {
    extern __shared__ float part[];
    const int i = blockIdx.x * blockDim.x + threadIdx.x;
    part[threadIdx.x] = i < n ? x[i] : 0.0f;
    __syncthreads();
    if (threadIdx.x == 0) {
        float sum = 0;
        for (int t = 0; t < blockDim.x; ++t) sum += part[t];
        out[blockIdx.x] = sum;
    }
}
"""


@pytest.fixture(scope="module")
def kernels(cupy: Any) -> Any:
    return cupy.RawModule(code=TEXT, options=("-std=c++17",)).get_function


@pytest.fixture
def lazy() -> Iterator[Any]:
    with fake_cupy.install(lazy=True) as module:
        yield module
    fake_stream.reset(1, "forward", False)


def test_refused_launches(cupy: Any, kernels: Any) -> None:
    kernel = kernels("block_sum")
    x, out, n = cupy.zeros(128, np.float32), cupy.empty(1, np.float32), np.int32(128)

    def launch(*args: Any, grid: Any = (1,), block: Any = (128,), shared_mem: int = 512) -> None:
        kernel(grid, block, args, shared_mem=shared_mem)

    launch(x, out, n)
    for args in [(x, out), (x, out, n, n), (x, out, 128), (x, out, np.int64(128)), (x, out, 128.0), (x, out, None)]:
        with pytest.raises(TypeError):
            launch(*args)
    for wrong in (x.view(np.int32), cupy.empty(128, np.float64), np.zeros(128, np.float32), None, 0, np.float32(0)):
        with pytest.raises(TypeError):
            launch(wrong, out, n)
    for shape in ({"block": (256,)}, {"shared_mem": 50000}, {"grid": (1, 65536)}):
        with pytest.raises(cupy.cuda.driver.CUDADriverError):
            launch(x, out, n, **shape)
    kernel.max_dynamic_shared_size_bytes = 50000
    launch(x, out, n, shared_mem=50000)
    with pytest.raises(cupy.cuda.driver.CUDADriverError):
        kernel.max_dynamic_shared_size_bytes = 100 * 1024


def test_of_zero_blocks_or_threads_cupy_launches_one(cupy: Any) -> None:
    """A kernel that is launched over nothing must bear it: CuPy takes the larger of 1 and each size."""
    text = 'extern "C" __global__ void counts(unsigned* ran) { atomicAdd(ran, gridDim.x * blockDim.y); }'
    ran, kernel = cupy.zeros(1, np.uint32), cupy.RawModule(code=text).get_function("counts")
    for grid, block in [((0,), (1,)), ((3, 0, 2), (2, 0)), ((2,), (0,))]:
        ran.fill(0)
        kernel(grid, block, (ran,))
        shape = [max(1, size) for size in (*grid, *block)]
        assert int(ran[0]) == np.prod(shape) * shape[0]


@pytest.mark.parametrize("available", [True, False])
def test_nccl_may_be_missing(available: bool) -> None:
    """CuPy's module is there without the library, and then has nothing but `available`."""
    with fake_cupy.install(nccl=available) as cupy:
        from cupy.cuda import nccl

        assert nccl is cupy.cuda.nccl
        assert nccl.available == available
        assert hasattr(nccl, "get_unique_id") == hasattr(nccl, "NcclError") == available


def test_refused_texts(cupy: Any) -> None:
    text = 'extern "C" __global__ void adds(float* x) { atomicAdd(x, 1.0f); }'
    with pytest.raises(cupy.cuda.compiler.CompileException, match=r"adds\.cu:1"):
        cupy.RawModule(code=text).get_function("adds")
    with pytest.raises(cupy.cuda.compiler.CompileException, match="unrecognised option"):
        cupy.RawModule(code=TEXT, options=("--wrong",)).get_function("block_sum")
    with pytest.raises(cupy.cuda.driver.CUDADriverError):
        cupy.RawModule(code=TEXT, options=("-std=c++17",)).get_function("missing")


def test_capture(cupy: Any, kernels: Any) -> None:
    stream = cupy.cuda.Stream(non_blocking=True)
    out, host = cupy.empty(1, np.float32), np.zeros(128, np.float32)
    with stream:
        x = cupy.zeros(128, np.float32)
        stream.begin_capture()
        assert stream.is_capturing()
        x.fill(2)
        kernels("block_sum")((1,), (128,), (x, out, np.int32(128)), shared_mem=512)
        refused = [
            out.get,
            stream.synchronize,
            lambda: float(out[0]),
            lambda: x.set(host),
            cupy.cuda.Device().synchronize,
        ]
        for call in refused:
            with pytest.raises(cupy.cuda.runtime.CUDARuntimeError):
                call()
        graph = stream.end_capture()
        assert np.isnan(out.get()[0])
        graph.launch()
        assert float(out[0]) == 256
        out.fill(0)
        graph.upload(stream)
        graph.launch(stream)
        assert int(out[0]) == 256
    with pytest.raises(RuntimeError):
        cupy.cuda.Stream.null.begin_capture()


def test_a_with_block_forgets_the_stream_in_use(cupy: Any) -> None:
    before = cupy.cuda.get_current_stream()
    used, other = (cupy.cuda.Stream(non_blocking=True) for _ in range(2))
    try:
        with other:
            with used:
                pass
            assert cupy.cuda.get_current_stream() == other
        x = cupy.zeros((4, 6), np.float32)
        used.use()
        x[1].get()
        assert cupy.cuda.get_current_stream() == used
        x[:, 1:3].get()  # copies in a `with`
        assert cupy.cuda.get_current_stream() == cupy.cuda.Stream.null
    finally:
        before.use()


def test_no_copy_from_the_host_while_a_stream_captures(cupy: Any) -> None:
    x, pinned = cupy.zeros(4, np.float32), np.frombuffer(cupy.cuda.alloc_pinned_memory(16), np.float32, 4)
    stream = cupy.cuda.Stream(non_blocking=True)
    with stream:
        stream.begin_capture()
        with pytest.raises(RuntimeError):
            x.set(pinned)
        stream.end_capture()


def test_arrays(cupy: Any) -> None:
    host = np.arange(24, dtype=np.float32).reshape(4, 6)
    x = cupy.asarray(host)
    assert x[1].data.ptr == x.data.ptr + 24
    assert x[2, 3].shape == ()
    assert float(x[2, 3]) == 15
    assert not x[:, 1:3].flags.c_contiguous
    np.testing.assert_array_equal(x[1:3, ::2].get(), host[1:3, ::2])
    np.testing.assert_array_equal(cupy.asnumpy(x.reshape(6, -1)), host.reshape(6, 4))
    x[0] = x[1]
    x[1, 2:4] = 7
    host[0], host[1, 2:4] = host[1], 7
    np.testing.assert_array_equal(x.get(), host)
    out = np.empty_like(host)
    assert x.get(out=out) is out
    wrong: list[Any] = [
        (lambda: np.asarray(x), TypeError),
        (lambda: np.add(x, 1), TypeError),
        (lambda: x + 1, TypeError),
    ]
    wrong += [(lambda: x.set(host.astype(np.float64)), TypeError), (lambda: x.set(host[0]), ValueError)]
    wrong += [(lambda: x.__setitem__(0, host[0]), ValueError), (lambda: x[:, 1:3].reshape(8), ValueError)]
    for call, error in wrong:
        with pytest.raises(error):
            call()
    assert np.isnan(cupy.empty(3, np.float32).get()).all()


def test_copies_by_address(cupy: Any) -> None:
    buffer = cupy.cuda.alloc_pinned_memory(4 * 100)
    host = np.frombuffer(buffer, np.float32, 100)
    host[:] = np.arange(100)
    x = cupy.empty(100, np.float32)
    runtime, stream = cupy.cuda.runtime, cupy.cuda.Stream(non_blocking=True)
    runtime.memcpyAsync(x.data.ptr, host.ctypes.data, 400, runtime.memcpyHostToDevice, stream.ptr)
    runtime.memsetAsync(x.data.ptr, 0, 40, stream.ptr)
    stream.synchronize()
    np.testing.assert_array_equal(x.get(), np.where(np.arange(100) < 10, 0, np.arange(100)))
    with pytest.raises(runtime.CUDARuntimeError):
        runtime.memcpyAsync(x.data.ptr, host.ctypes.data, 404, runtime.memcpyHostToDevice, stream.ptr)
    with pytest.raises(runtime.CUDARuntimeError):
        runtime.memcpyAsync(host.ctypes.data, x.data.ptr, 400, runtime.memcpyHostToDevice, stream.ptr)


def test_devices(kernels: Any) -> None:
    with fake_cupy.install(num_devices=2) as cupy:
        assert cupy.cuda.runtime.getDeviceCount() == 2
        with cupy.cuda.Device(1):
            x = cupy.zeros(128, np.float32)
            assert cupy.cuda.runtime.getDevice() == 1
            assert cupy.cuda.Device().compute_capability == "90"
        with pytest.raises(ValueError, match="device 1"):
            kernels("block_sum")((1,), (128,), (x, x, np.int32(1)), shared_mem=512)
        with pytest.raises(cupy.cuda.runtime.CUDARuntimeError):
            cupy.cuda.Device(2).use()
    fake_stream.reset(1, "forward", False)


def test_in_another_process() -> None:
    code = "import cupy, sys; print(cupy.__version__, cupy.cuda.runtime.getDeviceCount(), float(cupy.zeros(1)[0]))"
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parent / "site"), "DDPGD_EMULATOR_DEVICES": "3"}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    assert done.stdout.split()[1:] == ["3", "0.0"]


def test_a_lazy_device_needs_to_be_waited_for(lazy: Any) -> None:
    host = np.frombuffer(lazy.cuda.alloc_pinned_memory(512), np.float32, 128)
    host[:] = 0
    kernel = lazy.RawModule(code=TEXT, options=("-std=c++17",)).get_function("block_sum")
    computing, copying = (lazy.cuda.Stream(non_blocking=True) for _ in range(2))
    runtime = lazy.cuda.runtime
    for waits in (False, True):
        with computing:
            x, out = lazy.zeros(128, np.float32), lazy.empty(1, np.float32)
            x.fill(2)
            kernel((1,), (128,), (x, out, np.int32(128)), shared_mem=512)
            done = computing.record()
            del x
        if waits:
            copying.wait_event(done)
        runtime.memcpyAsync(host.ctypes.data, out.data.ptr, 4, runtime.memcpyDeviceToHost, copying.ptr)
        assert host[0] == 0
        copied = copying.record()
        copied.synchronize()
        assert copied.done
        assert host[0] == 256 if waits else np.isnan(host[0])
        host[0] = 0
        computing.synchronize()
        assert out.get()[0] == 256


def test_a_lazy_null_stream_waits_for_blocking_streams(lazy: Any) -> None:
    with lazy.cuda.Stream():
        x = lazy.zeros(4, np.float32)
    assert float(x[0]) == 0
