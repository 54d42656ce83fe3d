"""Facts of a GPU, and its peaks: bytes a second of a large copy, FLOP a second of large products of random operands.

Needs CuPy and NumPy alone; PyTorch and nvmath-python take part where they are installed, each in a process of its own.

    python -m benchmarks.gpu.peaks --out facts.json [--trial]
"""

import argparse
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks.gpu.clock import Clock, seconds_of

COPY_BYTES, SIDE = 1 << 30, 8192
TRIAL_BYTES, TRIAL_SIDE = 1 << 16, 64
PRECISIONS = ("float32", "tf32", "bfloat16", "float16")
LIBRARIES = ("torch", "ddpgd")
WITHIN_S = 150


def device() -> dict[str, Any]:
    """Returns what CuPy tells of GPU 0."""
    import cupy

    properties = cupy.cuda.runtime.getDeviceProperties(0)
    return {
        "name": properties["name"].decode(),
        "capability": f"{properties['major']}.{properties['minor']}",
        "memory_bytes": int(properties["totalGlobalMem"]),
        "multiprocessors": int(properties["multiProcessorCount"]),
        "shared_bytes_per_block": int(properties["sharedMemPerBlockOptin"]),
        "l2_bytes": int(properties["l2CacheSize"]),
        "cuda_driver": int(cupy.cuda.runtime.driverGetVersion()),
        "cuda_runtime": int(cupy.cuda.runtime.runtimeGetVersion()),
        "cupy": cupy.__version__,
        "nccl": nccl_version(),
    }


def nccl_version() -> int | None:
    """Returns the version of CuPy's NCCL, as in 22707; None where it cannot be loaded."""
    try:
        from cupy.cuda import nccl
    except ImportError:
        return None
    return int(nccl.get_version()) if nccl.available and hasattr(nccl, "get_version") else None


def by_torch(precision: str, side: int) -> dict[str, Any]:
    from benchmarks.gpu import torch

    library = str(torch.facts()["PyTorch"])
    flop = torch.matrix_peak(seconds_of, precision, side)
    if flop is None:
        raise RuntimeError("PyTorch finds no GPU")
    return {"flop_per_s": flop, "products": f"PyTorch {library}"}


def by_ddpgd(precision: str, side: int, clock: Clock = seconds_of) -> dict[str, Any]:
    """cuBLAS where it opens; else the own kernels, whose rate is a lower bound of the peak."""
    import cupy
    import numpy as np

    from ddpgd.kernels.cuda.backend import Cuda

    ops = Cuda(0, precision)
    generator = np.random.default_rng(0)
    x, dout = (
        ops.round_weights(ops.from_host(generator.standard_normal((side, side), np.float32).reshape(-1)))
        for _ in range(2)
    )
    x, dout = x.reshape(side, side), dout.reshape(side, side)
    dweight, dbias = ops.zeros((1, side, side), "float32"), ops.zeros((1, side), "float32")
    taken_s = clock(lambda: ops.dense_backward_params(x, dout, side, dweight, dbias), ops.synchronize)
    assert float(cupy.asnumpy(dweight[0, :1, :16]).std()) > 0, "the product was not computed"
    return {"flop_per_s": 2 * side**3 / taken_s, "products": ops.products}


BY: dict[str, Callable[[str, int], dict[str, Any]]] = {"torch": by_torch, "ddpgd": by_ddpgd}


def copy_bandwidth(num_bytes: int) -> float:
    """Returns bytes a second, read and written, of a copy on the device."""
    import cupy
    import numpy as np

    source = cupy.asarray(np.random.default_rng(0).integers(0, 256, num_bytes, np.uint8))
    target = cupy.zeros(num_bytes, "uint8")
    stream = cupy.cuda.Stream(non_blocking=True)
    runtime = cupy.cuda.runtime
    kind = runtime.memcpyDeviceToDevice
    cupy.cuda.Device(0).synchronize()
    return (
        2
        * num_bytes
        / seconds_of(
            lambda: runtime.memcpyAsync(target.data.ptr, source.data.ptr, num_bytes, kind, stream.ptr),
            stream.synchronize,
        )
    )


def in_a_process(library: str, precision: str, side: int) -> dict[str, Any]:
    """Returns the rate by `library`, or why there is none: one that cannot be loaded must not end the others."""
    command = [
        sys.executable,
        "-m",
        "benchmarks.gpu.peaks",
        "--by",
        library,
        "--precision",
        precision,
        "--side",
        str(side),
    ]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=WITHIN_S, check=False)
    except subprocess.TimeoutExpired:
        return {"error": f"no end within {WITHIN_S} s"}
    if done.returncode:
        return {"error": (done.stderr.strip().splitlines() or [f"exit code {done.returncode}"])[-1][:200]}
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def measure(trial: bool) -> dict[str, Any]:
    """Returns all facts; the peak of a precision is the largest rate that any library reached."""
    num_bytes, side = (TRIAL_BYTES, TRIAL_SIDE) if trial else (COPY_BYTES, SIDE)
    found: dict[str, Any] = {"device": device(), "side": side, "copy_bytes": num_bytes, "matrix": {}}
    for precision in PRECISIONS:
        rates = {library: in_a_process(library, precision, side) for library in LIBRARIES}
        known = [rate for rate in rates.values() if "flop_per_s" in rate]
        found["matrix"][precision] = {"by": rates, "peak": max((rate["flop_per_s"] for rate in known), default=None)}
    found["copy_bytes_per_s"] = copy_bandwidth(num_bytes)
    return found


def lines(found: dict[str, Any]) -> list[str]:
    """Returns the facts as text."""
    told = [", ".join(f"{name} {value}" for name, value in found["device"].items())]
    told.append(f"copy of {found['copy_bytes'] / 1e6:,.1f} MB: {found['copy_bytes_per_s'] / 1e9:,.1f} GB/s")
    for precision, row in found["matrix"].items():
        rates = (
            f"{rate['flop_per_s'] / 1e12:.3g} TFLOP/s by {rate['products']}"
            if "flop_per_s" in rate
            else f"none by {library} ({rate['error']})"
            for library, rate in row["by"].items()
        )
        told.append(f"{precision} products of {found['side']} x {found['side']}: {'; '.join(rates)}")
    return told


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", metavar="FILE", type=Path)
    parser.add_argument("--trial", action="store_true", help="tiny arrays")
    parser.add_argument("--by", choices=LIBRARIES, help=argparse.SUPPRESS)
    parser.add_argument("--precision", choices=PRECISIONS, help=argparse.SUPPRESS)
    parser.add_argument("--side", type=int, default=SIDE, help=argparse.SUPPRESS)
    asked = parser.parse_args(arguments)
    if asked.by:
        print(json.dumps(BY[asked.by](asked.precision, asked.side)))
        return 0
    found = measure(asked.trial)
    print("\n".join(lines(found)))
    if asked.out:
        asked.out.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    unknown = [precision for precision, row in found["matrix"].items() if row["peak"] is None]
    return 1 if unknown else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
