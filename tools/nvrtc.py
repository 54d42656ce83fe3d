"""Compilation of the project's CUDA kernels by NVRTC from the wheels of CUDA 13, without a GPU."""

import ctypes
import hashlib
import importlib.util
import os
import re
import sys
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import NamedTuple

from ddpgd.kernels.cuda import sources


class Job(NamedTuple):
    """One call of the compiler; `arch` as in sm_90a, without sm_."""

    file: str
    precision: str
    arch: str


class Compiled(NamedTuple):
    """The log of the compiler and assembler, and the binary."""

    log: str
    cubin: bytes


class FailedError(Exception):
    """The compiler's message."""


def jobs(files: list[str], archs: list[str]) -> list[Job]:
    """A file that does not know of precisions is compiled once."""
    made = []
    for file in files:
        knows = re.search(r"\bValue\b|\bPRECISION_", sources.joined(file))
        for precision in sources.PRECISIONS if knows else sources.PRECISIONS[:1]:
            made += [Job(file, precision, arch) for arch in archs]
    return made


def wheels_folder() -> Path:
    """Returns the folder where the wheels of CUDA 13 put `bin`, `lib` and `include`."""
    spec = importlib.util.find_spec("nvidia")
    for folder in (spec.submodule_search_locations or []) if spec else []:
        if (Path(folder) / "cu13" / "lib").is_dir():
            return Path(folder) / "cu13"
    sys.exit("no NVRTC of CUDA 13 here; type pip install nvidia-cuda-nvrtc nvidia-cuda-runtime")


def kept(name: str, parts: tuple[object, ...], make: Callable[[], bytes]) -> bytes:
    """Returns `make()`; where DDPGD_COMPILE_LOGS names a folder, kept there by name and parts."""
    if not (folder := os.environ.get("DDPGD_COMPILE_LOGS")):
        return make()
    path = Path(folder) / f"{name}-{hashlib.sha256(repr(parts).encode()).hexdigest()[:24]}"
    try:
        value = path.read_bytes()
        os.utime(path)
    except FileNotFoundError:
        value = make()
        made = path.with_suffix(f".{os.getpid()}")
        made.write_bytes(value)
        made.rename(path)
    return value


def compiled(job: Job) -> Compiled:
    """Compiles a file.

    Raises:
        FailedError: it does not compile.
    """
    folder = wheels_folder()
    path = next((folder / "lib").glob("libnvrtc.so.*"))
    options = sources.options(job.precision)
    parts = sources.joined(job.file), job, options, path.name, path.stat().st_size, version("nvidia-cuda-nvrtc")

    def make() -> bytes:
        done = _run_nvrtc(job, folder, path)
        return done.log.encode() + b"\0" + done.cubin

    log, _, cubin = kept("nvrtc", parts, make).partition(b"\0")
    return Compiled(log.decode(), cubin)


def _run_nvrtc(job: Job, folder: Path, path: Path) -> Compiled:
    """A compilation by the library at `path`, with the headers of `folder`."""
    library = ctypes.CDLL(str(path))
    library.nvrtcGetErrorString.restype = ctypes.c_char_p
    program = ctypes.c_void_p()

    def call(name: str, *arguments: object) -> int:
        return int(getattr(library, name)(*arguments))

    def output(name: str) -> bytes:
        size = ctypes.c_size_t()
        call(f"nvrtcGet{name}Size", program, ctypes.byref(size))
        data = ctypes.create_string_buffer(size.value)
        call(f"nvrtcGet{name}", program, data)
        return data.raw

    text = sources.joined(job.file).encode()
    failed = call("nvrtcCreateProgram", ctypes.byref(program), text, job.file.encode(), 0, None, None)
    if failed:
        raise FailedError(library.nvrtcGetErrorString(failed).decode())
    target = (f"--gpu-architecture=sm_{job.arch}", "--ptxas-options=-v", f"--include-path={folder / 'include'}")
    options = [option.encode() for option in (*sources.options(job.precision), *target)]
    failed = call("nvrtcCompileProgram", program, len(options), (ctypes.c_char_p * len(options))(*options))
    log = output("ProgramLog").rstrip(b"\0").decode()
    cubin = b"" if failed else output("CUBIN")
    call("nvrtcDestroyProgram", ctypes.byref(program))
    if failed:
        raise FailedError(f"{library.nvrtcGetErrorString(failed).decode()}\n{log}")
    return Compiled(log, cubin)
