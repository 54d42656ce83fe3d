#!/usr/bin/env bash
# Checks and measures the CUDA backend on this machine: tests/gpu, then benchmarks.gpu.run. Takes less than 8 minutes.
#
#   scripts/gpu_check.sh [--out DIR] [arguments of benchmarks.gpu.run]     scripts/gpu_check.sh --out /tmp/gpu --seconds 120
#   DDPGD_PYTHON=python3 scripts/gpu_check.sh                        with this Python, which has CuPy; installs nothing
#
# Without DDPGD_PYTHON: the environment of scripts/test.sh, with CuPy for the driver's CUDA. PyTorch and JAX take part
# if they are installed. DIR (default: benchmarks/gpu) gets gpu.json, gpu-table.md and gpu-tests.log.
# Exit codes: 0 all passed and measured; 1 a test or the measurement failed; 2 no GPU, or something is missing.
set -euo pipefail
# shellcheck source=scripts/setup.sh
source "$(dirname "${BASH_SOURCE[0]}")/setup.sh"

# Takes the Python that the caller names, if it has all that the tests and the benchmark import.
use_python() {
    local missing mpirun
    PYTHON=$(command -v "$DDPGD_PYTHON") || refuse "DDPGD_PYTHON=$DDPGD_PYTHON is not on PATH"
    missing=$("$PYTHON" -P - <<'PY'
import importlib.util
import sys
from importlib.metadata import PackageNotFoundError, version

modules = {"cupy": "cupy-cuda13x", "PIL": "pillow", "tomli_w": "tomli-w"}
modules |= {name: name for name in ("numpy", "safetensors", "pooch", "rich", "threadpoolctl", "pytest")}
missing = [package for name, package in modules.items() if importlib.util.find_spec(name) is None]
try:
    version("ddpgd")
except PackageNotFoundError:
    missing.append("ddpgd itself (pip install --no-deps --editable .)")
print(*missing, sep=", ")
sys.exit(sys.version_info < (3, 11))
PY
    ) || refuse "$PYTHON is older than 3.11"
    [[ -z $missing ]] || refuse "$PYTHON lacks $missing"
    mpirun=$(find_mpirun)
    if [[ -n $mpirun ]] && "$PYTHON" -P -c 'import mpi4py' 2>/dev/null; then
        choose_mpirun "$mpirun"
    else
        export DDPGD_MPIRUN=no-mpirun # tests that want ranks are skipped, and say so
    fi
}

out=$ROOT/benchmarks/gpu
if [[ ${1:-} == --out ]]; then
    [[ -n ${2:-} ]] || refuse "--out wants a folder"
    out=$2
    shift 2
fi
nvidia-smi -L 2>/dev/null | grep -q '^GPU ' || refuse "no GPU: nvidia-smi lists none, so there is nothing to check"

started=$SECONDS
mkdir -p "$out"
out=$(cd "$out" && pwd)
if [[ -n ${DDPGD_PYTHON:-} ]]; then
    use_python
else
    setup test
fi
cd "$ROOT"
export PYTHONPATH=$ROOT${PYTHONPATH:+:$PYTHONPATH}
absence=$("$PYTHON" -P -c 'from ddpgd.kernels.cuda.device import select; print(select(0)[1])')
[[ -z $absence ]] || refuse "$absence"

code=0
"$PYTHON" -m pytest --color=no tests/gpu --maxfail=20 2>&1 | tee "$out/gpu-tests.log" || code=1
verdict=$("$PYTHON" -m benchmarks.gpu.run --out "$out" "$@") || code=1
tests=$(tail -n 1 "$out/gpu-tests.log" | tr -d '=')
say "$( ((code)) && echo FAILED || echo passed): tests/gpu:$tests; ${verdict:-nothing measured}; all in $((SECONDS - started)) s"
exit "$code"
