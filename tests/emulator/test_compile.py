"""Every kernel compiles for every architecture, and none spills."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

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


def test_every_kernel_compiles_for_every_architecture_and_none_spills() -> None:
    done = compile_kernels()
    assert done.returncode == 0, done.stderr
    header, *rows = done.stdout.splitlines()
    assert header.split()[3:] == ["sm_75", "sm_80", "sm_86", "sm_89", "sm_90", "sm_100", "sm_120"]
    cells = {tuple(row.split()[:3]): row.split()[3:] for row in rows if "/" in row}
    for product in ("forward", "params", "input"):
        assert "-" not in cells["dense.cu", "float32", f"{product}_16x8"]
        for side in (16, 32, 64, 128):
            kernel = f"{product}_{side}x{side}"
            assert "-" not in cells["dense.cu", "float32", kernel]
            for precision in ("tf32", "float16", "bfloat16"):
                assert cells["dense.cu", precision, kernel].count("-") == 1, "tensor cores from sm_80 on"
    spills = [cell.split("/")[2] for row in cells.values() for cell in row if cell != "-"]
    assert set(spills) == {"0"}


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
