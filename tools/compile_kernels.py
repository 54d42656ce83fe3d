"""Compiles every CUDA kernel for every architecture and tells what it takes: a check that needs no GPU.

    python -m tools.compile_kernels [--archs 90,100] [--files dense.cu]

With `nvcc` where it is on PATH; else with NVRTC and headers from the wheels nvidia-cuda-nvrtc and nvidia-cuda-runtime (13.x).
Cells of the table: registers / bytes of static shared memory / bytes of spills and stack. Status 1 where a file does not
compile or a kernel spills.
"""

import argparse
import ctypes
import hashlib
import importlib.util
import os
import re
import sys
import time
from concurrent.futures import ProcessPoolExecutor
from importlib.metadata import version
from pathlib import Path
from typing import NamedTuple

from ddpgd.kernels.cuda import sources

ARCHS = (75, 80, 86, 89, 90, 100, 120)
ENTRY = re.compile(r"Compiling entry function '(\w+)' for 'sm_\d+'")
STACK = re.compile(r"(\d+) bytes stack frame, (\d+) bytes spill stores, (\d+) bytes spill loads")
USED = re.compile(r"Used (\d+) registers")
SHARED = re.compile(r"(\d+) bytes smem")


class Job(NamedTuple):
    """One call of the compiler."""

    file: str
    precision: str
    arch: int


class Use(NamedTuple):
    """The resources of a kernel on an architecture."""

    registers: int
    shared: int
    spills: int


class FailedError(Exception):
    """The compiler's message."""


def jobs(files: list[str], archs: list[int]) -> list[Job]:
    """A file that does not know of precisions is compiled once."""
    made = []
    for file in files:
        knows = re.search(r"\bValue\b|\bPRECISION_", sources.joined(file))
        for precision in sources.PRECISIONS if knows else sources.PRECISIONS[:1]:
            made += [Job(file, precision, arch) for arch in archs]
    return made


def wheels_folder() -> Path:
    """Returns the folder where the wheels of CUDA 13 put `lib` and `include`."""
    spec = importlib.util.find_spec("nvidia")
    for folder in (spec.submodule_search_locations or []) if spec else []:
        if (Path(folder) / "cu13" / "lib").is_dir():
            return Path(folder) / "cu13"
    sys.exit("no NVRTC of CUDA 13 here; type pip install nvidia-cuda-nvrtc nvidia-cuda-runtime")


def compiled(job: Job) -> str:
    """The compiler's log; where DDPGD_COMPILE_LOGS names a folder, kept there by text, options and compiler."""
    folder = wheels_folder()
    path = next((folder / "lib").glob("libnvrtc.so.*"))
    if not (logs := os.environ.get("DDPGD_COMPILE_LOGS")):
        return run_nvrtc(job, folder, path)
    parts = (
        sources.joined(job.file),
        job,
        sources.options(job.precision),
        path.name,
        path.stat().st_size,
        version("nvidia-cuda-nvrtc"),
    )
    log = Path(logs) / f"nvrtc-{hashlib.sha256(repr(parts).encode()).hexdigest()[:24]}.log"
    try:
        said = log.read_text()
        os.utime(log)
    except FileNotFoundError:
        said = run_nvrtc(job, folder, path)
        made = log.with_suffix(f".{os.getpid()}")
        made.write_text(said)
        made.rename(log)
    return said


def run_nvrtc(job: Job, folder: Path, path: Path) -> str:
    """The log of a compilation by the library at `path`, with the headers of `folder`."""
    library = ctypes.CDLL(str(path))
    library.nvrtcGetErrorString.restype = ctypes.c_char_p
    program = ctypes.c_void_p()

    def call(name: str, *arguments: object) -> int:
        return int(getattr(library, name)(*arguments))

    text = sources.joined(job.file).encode()
    failed = call("nvrtcCreateProgram", ctypes.byref(program), text, job.file.encode(), 0, None, None)
    if failed:
        raise FailedError(library.nvrtcGetErrorString(failed).decode())
    target = (f"--gpu-architecture=sm_{job.arch}", "--ptxas-options=-v", f"--include-path={folder / 'include'}")
    options = [option.encode() for option in (*sources.options(job.precision), *target)]
    failed = call("nvrtcCompileProgram", program, len(options), (ctypes.c_char_p * len(options))(*options))
    size = ctypes.c_size_t()
    call("nvrtcGetProgramLogSize", program, ctypes.byref(size))
    log = ctypes.create_string_buffer(size.value)
    call("nvrtcGetProgramLog", program, log)
    call("nvrtcDestroyProgram", ctypes.byref(program))
    if failed:
        raise FailedError(f"{library.nvrtcGetErrorString(failed).decode()}\n{log.value.decode()}")
    return log.value.decode()


def uses(log: str) -> dict[str, Use]:
    """Returns the assembler's report of each kernel, and whether it covers all."""
    parts = ENTRY.split(log)
    found = {}
    for name, said in zip(parts[1::2], parts[2::2], strict=True):
        registers, stack, shared = USED.search(said), STACK.search(said), SHARED.search(said)
        if registers is None or stack is None:
            raise FailedError(f"no figures for {name} in:\n{said}")
        found[name] = Use(int(registers[1]), int(shared[1]) if shared else 0, sum(map(int, stack.groups())))
    return found


def compile_one(job: Job) -> tuple[Job, dict[str, Use], str]:
    """Returns the resources of the kernels, or the reason why there are none."""
    try:
        return job, uses(compiled(job)), ""
    except FailedError as error:
        return job, {}, str(error)


def compile_all(wanted: list[Job]) -> list[tuple[Job, dict[str, Use], str]]:
    with ProcessPoolExecutor() as pool:
        return list(pool.map(compile_one, wanted))


def table(done: list[tuple[Job, dict[str, Use], str]], archs: list[int]) -> list[str]:
    """One line a kernel and precision; - where an architecture has no such kernel."""
    rows: dict[tuple[str, str, str], dict[int, Use]] = {}
    for job, found, _ in done:
        for kernel, use in found.items():
            rows.setdefault((job.file, job.precision, kernel), {})[job.arch] = use
    lines = [("file", "precision", "kernel", *(f"sm_{arch}" for arch in archs))]
    for key, by_arch in rows.items():
        cells = ("/".join(map(str, by_arch[arch])) if arch in by_arch else "-" for arch in archs)
        lines.append((*key, *cells))
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return ["  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip() for line in lines]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--archs", default=",".join(map(str, ARCHS)))
    parser.add_argument("--files", default=",".join(sources.files()))
    arguments = parser.parse_args()
    archs = [int(arch) for arch in arguments.archs.split(",")]
    started = time.monotonic()
    done = compile_all(jobs(arguments.files.split(","), archs))
    print("\n".join(table(done, archs)))
    problems = [f"{job.file} {job.precision} sm_{job.arch}:\n{error}" for job, _, error in done if error]
    for job, found, _ in done:
        spilling = [kernel for kernel, use in found.items() if use.spills]
        problems += [f"{job.file} {job.precision} sm_{job.arch}: {kernel} spills" for kernel in spilling]
    print("\n".join(problems), file=sys.stderr)
    print(f"{len(done)} compilations, {len(problems)} problems, {time.monotonic() - started:.1f} s")
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
