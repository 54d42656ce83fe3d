"""Compiles every CUDA kernel for every architecture and prints its resources, without a GPU.

    python -m tools.compile_kernels [--archs 90,100] [--files dense.cu]

With NVRTC and headers from the wheels nvidia-cuda-nvrtc and nvidia-cuda-runtime (13.x).
Cells of the table: registers / bytes of static shared memory / bytes of spills and stack. Status 1 where a file does not
compile or a kernel spills.
"""

import argparse
import re
import sys
import time
from concurrent.futures import ProcessPoolExecutor
from typing import NamedTuple

from ddpgd.kernels.cuda import sources
from tools.nvrtc import FailedError, Job, compiled, jobs

ARCHS = ("75", "80", "86", "89", "90", "100", "120")
ENTRY = re.compile(r"Compiling entry function '(\w+)' for 'sm_\d+[a-z]?'")
STACK = re.compile(r"(\d+) bytes stack frame, (\d+) bytes spill stores, (\d+) bytes spill loads")
USED = re.compile(r"Used (\d+) registers")
SHARED = re.compile(r"(\d+) bytes smem")


class Use(NamedTuple):
    """The resources of a kernel on an architecture."""

    registers: int
    shared: int
    spills: int


def uses(log: str) -> dict[str, Use]:
    """Returns the assembler's report of each kernel."""
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
        return job, uses(compiled(job).log), ""
    except FailedError as error:
        return job, {}, str(error)


def compile_all(wanted: list[Job]) -> list[tuple[Job, dict[str, Use], str]]:
    with ProcessPoolExecutor() as pool:
        return list(pool.map(compile_one, wanted))


def table(done: list[tuple[Job, dict[str, Use], str]], archs: list[str]) -> list[str]:
    """One line a kernel and precision; - where an architecture has no such kernel."""
    rows: dict[tuple[str, str, str], dict[str, Use]] = {}
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
    parser.add_argument("--archs", default=",".join(ARCHS), help="default: %(default)s")
    parser.add_argument("--files", default=",".join(sources.files()))
    arguments = parser.parse_args()
    archs = arguments.archs.split(",")
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
