"""Static facts of the CUDA kernels, without a GPU: resources, the mix of the inner loop, waits for memory, fences.

    python -m tools.ptx_report [--write] [--archs 80,90a]

Compiles every kernel by NVRTC and disassembles it by `nvdisasm`, from the wheels nvidia-cuda-nvrtc, nvidia-cuda-runtime and
nvidia-cuda-nvdisasm (13.x). Status 1 where a kernel does not compile, spills, is missing in benchmarks/gpu/static.json, or has
a smaller share of multiply-adds in its inner loop than is written there; `--write` writes that file and static.md.
"""

import argparse
import hashlib
import json
import re
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from importlib.metadata import version
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

from ddpgd.kernels.cuda import sources
from tools import occupancy, sass, sass_costs
from tools.compile_kernels import uses
from tools.nvrtc import FailedError, Job, compiled, jobs, kept, wheels_folder
from tools.sass_costs import InnerLoop, Memory

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "benchmarks" / "gpu" / "static.md"
LIMITS = PAGE.with_suffix(".json")
BEGIN, END = "<!-- written by python -m tools.ptx_report --write -->\n", "<!-- end -->\n"
ARCHS = "80,90a"
SLACK = 0.9
"""A share of multiply-adds may be so much of the one in static.json, since other compilers arrange code differently."""
WRITE = "type: python -m tools.ptx_report --write"
COLUMNS = (
    "file",
    "kernel",
    "precision",
    "sm",
    "registers",
    "shared",
    "spills",
    "warps",
    "inner loop",
    "multiply-adds",
    "shared loads",
    "global loads",
    "loads",
    "waits",
    "fences",
)


class Row(NamedTuple):
    """The facts of a kernel. `shared`: bytes of static and dynamic shared memory; `warps`: of an SM, and the most."""

    job: Job
    kernel: str
    registers: int
    shared: tuple[int, int]
    spills: int
    warps: tuple[int, int]
    loop: InnerLoop | None
    memory: Memory

    @property
    def key(self) -> str:
        """The name in static.json."""
        return f"{self.job.file} {self.kernel} {self.job.precision} sm_{self.job.arch}"

    @property
    def share(self) -> float:
        """The share of multiply-adds in the inner loop."""
        return self.loop.multiply_adds if self.loop else 0.0


def dynamic_shared(kernel: str, precision: str) -> int:
    """Returns the bytes of dynamic shared memory of a kernel that computes a product, as `dense.py` asks for them; else 0.

    Puts an empty module in the place of CuPy where that is not installed: for a process of this tool alone.
    """
    if kernel == "persistent":
        phases = re.findall(
            r"phase::(\w+)<(\d*)(?:, )?(\d*)>", sources.joined("persistent.cu").partition("#define PHASES")[2]
        )
        return max(dynamic_shared(f"{name}_{rows}x{columns}", precision) for name, rows, columns in phases)
    found = re.search(r"(forward|params|input)\w*?_(\d+)x(\d+)$", kernel)
    if found is None and not kernel.startswith("head_"):
        return 0
    sys.modules.setdefault("cupy", ModuleType("cupy"))
    from ddpgd.kernels.cuda import dense, fusion

    if found is None:
        return dense.shared_bytes("forward", (fusion.HEAD_ROWS, fusion.HEAD_CLASSES), precision)
    return dense.shared_bytes(found[1], (int(found[2]), int(found[3])), precision)


def rows_of(job: Job) -> list[Row]:
    """Compiles a file and reads its machine code. FailedError: it does not compile."""
    made = compiled(job)
    used = uses(made.log)
    rows = []
    for name, threads, loop, accesses in _facts(made.cubin):
        registers, static, spills = used[name]
        shared = static, dynamic_shared(name, job.precision)
        warps = occupancy.warps(job.arch, threads, registers, sum(shared))
        rows.append(Row(job, name, registers, shared, spills, warps, loop, accesses))
    return rows


def _facts(cubin: bytes) -> list[tuple[str, int, InnerLoop | None, Memory]]:
    """Name, threads of a block, inner loop and accesses of memory of each kernel; kept where compilations are."""
    readers = [Path(module.__file__ or "").read_text() for module in (sass, sass_costs)]

    def make() -> bytes:
        facts = [
            (kernel.name, kernel.threads, sass_costs.inner_loop(kernel.flow), sass_costs.memory(kernel.flow))
            for kernel in sass.kernels(disassembled(cubin))
        ]
        return json.dumps(facts).encode()

    parts = hashlib.sha256(cubin).hexdigest(), version("nvidia-cuda-nvdisasm"), readers
    return [
        (name, threads, InnerLoop(*loop) if loop else None, Memory(*accesses))
        for name, threads, loop, accesses in json.loads(kept("sass", parts, make))
    ]


def disassembled(cubin: bytes) -> str:
    """Returns the text of the machine code."""
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(cubin)
        file.flush()
        command = [str(wheels_folder() / "bin" / "nvdisasm"), file.name]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout


def _rows_or_reason(job: Job) -> tuple[list[Row], str]:
    try:
        return rows_of(job), ""
    except FailedError as error:
        return [], f"{job.file} {job.precision} sm_{job.arch}: {error}"


def all_rows(archs: list[str]) -> tuple[list[Row], list[str]]:
    """Returns the facts of all kernels, and reasons why there are none of some."""
    with ProcessPoolExecutor() as pool:
        done = list(pool.map(_rows_or_reason, jobs(sources.files(), archs)))
    return [row for rows, _ in done for row in rows], [reason for _, reason in done if reason]


def problems(rows: Sequence[Row], limits: dict[str, float]) -> list[str]:
    """Returns one line for each kernel that spills, has no limit, or falls below it, and each limit without a kernel."""
    found = [f"{row.key}: spills {row.spills} bytes" for row in rows if row.spills]
    for row in rows:
        if row.key not in limits:
            found.append(f"{row.key}: not in {LIMITS.name}; {WRITE}")
        elif row.share < SLACK * limits[row.key]:
            found.append(
                f"{row.key}: {row.share:.1%} of the inner loop multiply and add, {limits[row.key]:.1%} in {LIMITS.name}; "
                f"make it faster, or, if that is meant, {WRITE}"
            )
    gone = sorted(limits.keys() - {row.key for row in rows})
    return found + [f"{key}: there is no such kernel any more; {WRITE}" for key in gone]


def table(rows: Sequence[Row]) -> list[str]:
    """Returns the lines of the table; precisions with the same facts share a row."""
    merged: dict[tuple[Any, ...], list[str]] = {}
    for row in rows:
        facts = str(row.registers), "+".join(map(str, row.shared)), str(row.spills), "{}/{}".format(*row.warps)
        fences = ", ".join(f"{count} {kind.removeprefix('MEMBAR.')}" for kind, count in row.memory.fences.items())
        accesses = str(row.memory.loads), str(row.memory.waits), fences
        key = row.job.file, row.kernel, row.job.arch, (*facts, *_loop_cells(row.loop), *accesses)
        merged.setdefault(key, []).append(row.job.precision)
    lines = [COLUMNS, ("---",) * len(COLUMNS)]
    for (file, kernel, arch, cells), precisions in sorted(merged.items()):
        lines.append((file, kernel, ", ".join(precisions), arch, *cells))
    return [f"| {' | '.join(line)} |" for line in lines]


def _loop_cells(loop: InnerLoop | None) -> tuple[str, ...]:
    if loop is None:
        return ("",) * 4
    kind = f"{loop.multiply_adds:.0%} {loop.kind}" if loop.kind else ""
    return str(loop.num_instructions), kind, f"{loop.shared_loads:.0%}", f"{loop.global_loads:.0%}"


def write(rows: Sequence[Row]) -> None:
    """Writes the limits, and the table between the marks of the page."""
    LIMITS.write_text(json.dumps({row.key: row.share for row in rows}, indent=0) + "\n")
    before, _, rest = PAGE.read_text().partition(BEGIN)
    commit = _git("rev-parse", "--short", "HEAD") + (
        " and changes" if _git("status", "--short", "ddpgd/kernels") else ""
    )
    head = f"Commit {commit}, NVRTC {version('nvidia-cuda-nvrtc')}, nvdisasm {version('nvidia-cuda-nvdisasm')}."
    PAGE.write_text(before + BEGIN + "\n".join(["", head, "", *table(rows), "", ""]) + END + rest.partition(END)[2])


def _git(*arguments: str) -> str:
    return subprocess.run(["git", *arguments], cwd=ROOT, capture_output=True, text=True, check=True).stdout.strip()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--write", action="store_true")
    parser.add_argument("--archs", default=ARCHS, help="default: %(default)s")
    arguments = parser.parse_args()
    archs = arguments.archs.split(",")
    rows, failed = all_rows(archs)
    if arguments.write and not failed:
        write(rows)
    limits = {key: share for key, share in json.loads(LIMITS.read_text()).items() if key.partition(" sm_")[2] in archs}
    found = failed + problems(rows, limits)
    print("\n".join(table(rows)))
    print("\n".join(found), file=sys.stderr)
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
