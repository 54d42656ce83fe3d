"""Every kernel compiles for every architecture, and none spills."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import compile_cache

ROOT = Path(__file__).parents[2]


def compile_kernels(*arguments: str, package: Path = ROOT) -> subprocess.CompletedProcess[str]:
    """A compiler's result for the same text is taken from the cache. `package`: the folder with `ddpgd`."""
    compile_cache.folder().mkdir(parents=True, exist_ok=True)
    environment = {"DDPGD_COMPILE_LOGS": str(compile_cache.folder()), "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-m", "tools.compile_kernels", *arguments]
    return subprocess.run(
        command, capture_output=True, text=True, check=False, env=os.environ | environment, cwd=package
    )


@pytest.mark.deep  # half a minute each, where kernels have changed; test_static.py compiles for sm_80 and sm_90a
@pytest.mark.parametrize("arch", ["75", "80", "86", "89", "90", "100", "120"])
def test_every_kernel_compiles_for_every_architecture_and_none_spills(arch: str) -> None:
    done = compile_kernels("--archs", arch)
    assert done.returncode == 0, done.stderr
    header, *rows = done.stdout.splitlines()
    assert header.split()[3:] == [f"sm_{arch}"]
    cells = {tuple(row.split()[:3]): row.split()[3] for row in rows if "/" in row}
    for product in ("forward", "params", "input"):
        assert ("dense.cu", "float32", f"{product}_16x8") in cells
        for side in (16, 32, 64, 128):
            kernel = f"{product}_{side}x{side}"
            assert ("dense.cu", "float32", kernel) in cells
            for precision in ("tf32", "float16", "bfloat16"):
                assert (("dense.cu", precision, kernel) in cells) == (arch != "75"), "tensor cores from sm_80 on"
    assert {cell.split("/")[2] for cell in cells.values()} == {"0"}


def test_the_architectures_are_those_that_are_tested() -> None:
    assert compile_kernels("--help").stdout.count("75,80,86,89,90,100,120") == 1


def test_what_does_not_compile_is_told_with_the_compilers_message(tmp_path: Path) -> None:
    package = Path(shutil.copytree(ROOT / "ddpgd", tmp_path / "ddpgd"))
    source = package / "kernels" / "cuda" / "dense_epilogue.cu"
    text = source.read_text()
    assert "num_samples = min(" in text
    source.write_text(text.replace("num_samples = min(", "num_samples = minimum("))
    done = compile_kernels("--files", "dense_epilogue.cu", "--archs", "90", package=tmp_path)
    assert done.returncode == 1
    assert "dense_epilogue.cu float32 sm_90" in done.stderr
    assert "minimum" in done.stderr
